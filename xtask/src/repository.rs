//! Where the repository is and which files belong to it.

use crate::command::{self, Invocation};
use anyhow::{Context, Result};
use serde::Deserialize;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// The checkout that this program was built from.
#[derive(Debug)]
pub struct Repository {
    pub root: PathBuf,
}

/// A member of the workspace, as cargo sees it.
#[derive(Debug, Clone, Deserialize)]
pub struct Package {
    pub name: String,
    pub manifest_path: PathBuf,
    pub dependencies: Vec<Dependency>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Dependency {
    pub name: String,
    /// `None` for a normal dependency, else `dev` or `build`.
    pub kind: Option<String>,
    /// Set when the dependency is a folder and not a registry's package.
    pub path: Option<PathBuf>,
}

impl Package {
    pub fn folder(&self) -> &Path {
        self.manifest_path.parent().expect("a manifest lies in a folder")
    }
}

impl Repository {
    pub fn find() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .expect("this package lies in a folder of the repository")
            .to_owned();
        anyhow::ensure!(
            root.join("Cargo.toml").is_file(),
            "the repository is no longer at {}; start this command through cargo",
            root.display()
        );
        Ok(Self { root })
    }

    pub fn target(&self) -> PathBuf {
        match std::env::var_os("CARGO_TARGET_DIR") {
            Some(folder) => self.root.join(folder),
            None => self.root.join("target"),
        }
    }

    /// Returns a new, empty folder for what a step writes.
    pub fn scratch(&self, name: &str) -> Result<PathBuf> {
        let folder = self.target().join("xtask").join(name);
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot empty {}", folder.display()));
            }
            _ => {}
        }
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(folder)
    }

    /// Lists the files that are in git, or would be after `git add --all`; relative to the root, sorted.
    pub fn files(&self) -> Result<Vec<PathBuf>> {
        let listing = Invocation::new("git", &self.root)
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .output()?;
        let mut files: Vec<PathBuf> = listing
            .split('\0')
            .filter(|name| !name.is_empty())
            .map(PathBuf::from)
            .filter(|name| self.root.join(name).is_file())
            .collect();
        files.sort();
        files.dedup();
        Ok(files)
    }

    /// Returns the members of the workspace, by name.
    pub fn packages(&self) -> Result<Vec<Package>> {
        #[derive(Deserialize)]
        struct Metadata {
            packages: Vec<Package>,
        }
        let text =
            command::cargo(&self.root).args(["metadata", "--format-version", "1", "--no-deps", "--locked"]).output()?;
        let mut metadata: Metadata = serde_json::from_str(&text).context("cannot read the answer of cargo metadata")?;
        metadata.packages.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(metadata.packages)
    }
}
