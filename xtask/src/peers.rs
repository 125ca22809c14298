//! Other makers' programs, which ours is compared with: found where they are, or installed into the target folder.
//!
//! Nothing is installed on the machine itself, and nothing runs while a package is installed.

use crate::{command::Invocation, repository::Repository};
use anyhow::{Context, Result, bail, ensure};
use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

/// How long a registry may take.
const DEADLINE: Duration = Duration::from_secs(300);

/// A package of npm.
#[derive(Debug)]
pub struct Package {
    pub name: &'static str,
    /// The one that is installed.
    pub version: &'static str,
}

pub const CODEX: Package = Package { name: "@openai/codex", version: "0.169.0" };
pub const CLAUDE_CODE: Package = Package { name: "@anthropic-ai/claude-code", version: "2.1.197" };
pub const GEMINI_CLI: Package = Package { name: "@google/gemini-cli", version: "0.61.0" };
pub const SANDBOX_RUNTIME: Package = Package { name: "@anthropic-ai/sandbox-runtime", version: "0.0.83" };

impl Package {
    /// Returns the package's folder, after installing it if it is not there.
    pub fn folder(&self, repository: &Repository) -> Result<PathBuf> {
        let plain: String =
            self.name.chars().map(|letter| if letter.is_alphanumeric() { letter } else { '-' }).collect();
        let folder = tools(repository).join("npm").join(format!("{}-{}", plain.trim_matches('-'), self.version));
        install(&folder, |part| {
            let package = format!("{}@{}", self.name, self.version);
            eprintln!("     installing {package} into {} (once)", folder.display());
            let npm = Invocation::new("npm", part).args(["install", "--prefix"]).args([part]).args([
                "--no-audit",
                "--no-fund",
                "--no-update-notifier",
                "--ignore-scripts",
                &package,
            ]);
            quietly(npm)
        })
        .with_context(|| format!("cannot install {} {}", self.name, self.version))?;
        Ok(folder.join("node_modules").join(self.name))
    }
}

/// Returns Codex's native program, without its launcher.
pub fn codex(repository: &Repository) -> Result<PathBuf> {
    // What belongs to one kind of machine is a package of its own, beside the one that was asked for.
    let folder = CODEX.folder(repository)?;
    let found = sorted(folder.parent().context("the package lies nowhere")?)?
        .into_iter()
        .flat_map(|package| sorted(&package.join("vendor")).unwrap_or_default())
        .map(|triple| triple.join("bin/codex"))
        .find(|program| program.is_file());
    found.with_context(|| format!("{} has no program for this kind of machine", CODEX.name))
}

/// Returns Claude Code's native program, without its launcher.
pub fn claude_code(repository: &Repository) -> Result<PathBuf> {
    let folder = CLAUDE_CODE.folder(repository)?;
    let found = sorted(folder.parent().context("the package lies nowhere")?)?
        .into_iter()
        .map(|package| package.join("claude"))
        .find(|program| program.is_file());
    found.with_context(|| format!("{} has no program for this kind of machine", CLAUDE_CODE.name))
}

/// Returns Gemini CLI's program, under the name that people type.
pub fn gemini_cli(repository: &Repository) -> Result<PathBuf> {
    let folder = GEMINI_CLI.folder(repository)?;
    let modules = folder.ancestors().find(|folder| folder.ends_with("node_modules"));
    let program = modules.context("the package lies nowhere")?.join(".bin/gemini");
    ensure!(program.is_file(), "{} has no program", GEMINI_CLI.name);
    Ok(program)
}

/// The vendors' official libraries, of PyPI.
const LIBRARIES: [&str; 3] = ["openai==3.54.0", "anthropic==2.12.0", "google-genai==3.4.0"];

/// LiteLLM's proxy, of PyPI: the newest whose packages could all be had.
pub const LITELLM: &str = "1.106.2";

/// Returns a Python that has the vendors' official libraries.
pub fn official_libraries(repository: &Repository) -> Result<PathBuf> {
    python(repository, &LIBRARIES.join("-").replace("==", "-"), &LIBRARIES)
}

/// Returns a Python that has LiteLLM's proxy.
pub fn litellm(repository: &Repository) -> Result<PathBuf> {
    python(repository, &format!("litellm-{LITELLM}"), &[&format!("litellm[proxy]=={LITELLM}")])
}

/// Makes a Python of its own, with these packages and what they need.
fn python(repository: &Repository, name: &str, packages: &[&str]) -> Result<PathBuf> {
    let folder = tools(repository).join("python").join(name);
    install(&folder, |part| {
        eprintln!("     installing {} into {} (once)", packages.join(", "), folder.display());
        quietly(Invocation::new("python3", part).args(["-m", "venv", "--copies", "."]))?;
        let pip = Invocation::new(part.join("bin/python"), part);
        quietly(pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(packages))
    })
    .with_context(|| format!("cannot install {}", packages.join(", ")))?;
    Ok(folder.join("bin/python"))
}

/// Programs of Debian, and what has to be in the environment for them to be found.
#[derive(Debug, Default)]
pub struct Programs {
    folders: Vec<PathBuf>,
}

impl Programs {
    /// Adds a program, from a package and those that it needs unless the machine has it.
    pub fn with(mut self, repository: &Repository, program: &str, packages: &[&str]) -> Result<Self> {
        if self.find(program).is_ok() {
            return Ok(self);
        }
        let folder = tools(repository).join("debian").join(program);
        install(&folder, |part| unpack(packages, part)).with_context(|| format!("cannot get {program}"))?;
        self.folders.push(folder);
        Ok(self)
    }

    /// Returns where a program lies.
    pub fn find(&self, program: &str) -> Result<PathBuf> {
        let mut places = self.places().into_iter().map(|folder| folder.join(program));
        places.find(|place| place.is_file()).with_context(|| format!("there is no {program}"))
    }

    /// Returns the variables that lead to them; everything else of our own environment is left out.
    pub fn environment(&self) -> Result<Vec<(OsString, OsString)>> {
        let mut variables = vec![("PATH".into(), std::env::join_paths(self.places())?)];
        let libraries: Vec<PathBuf> = self.folders.iter().flat_map(|folder| libraries(folder)).collect();
        if !libraries.is_empty() {
            variables.push(("LD_LIBRARY_PATH".into(), std::env::join_paths(libraries)?));
        }
        Ok(variables)
    }

    /// Where programs lie, those of the machine last.
    fn places(&self) -> Vec<PathBuf> {
        let inherited = std::env::var_os("PATH").unwrap_or_default();
        let own = self.folders.iter().flat_map(|folder| [folder.join("usr/bin"), folder.join("bin")]);
        own.chain(std::env::split_paths(&inherited)).collect()
    }
}

fn libraries(folder: &Path) -> Vec<PathBuf> {
    let places = ["usr/lib", "lib"].map(|place| sorted(&folder.join(place)).unwrap_or_default());
    places.into_iter().flatten().filter(|place| place.is_dir()).collect()
}

fn tools(repository: &Repository) -> PathBuf {
    repository.target().join("tools")
}

fn unpack(packages: &[&str], part: &Path) -> Result<()> {
    let archives = part.join("archives");
    fs::create_dir(&archives).with_context(|| format!("cannot make {}", archives.display()))?;
    let download = || {
        eprintln!("     downloading {} (once)", packages.join(", "));
        quietly(Invocation::new("apt-get", &archives).args(["--quiet", "download"]).args(packages))
    };
    if let Err(error) = download() {
        // A new machine has no lists, and only root may fetch them.
        ensure!(rustix::process::geteuid().is_root(), error);
        quietly(Invocation::new("apt-get", &archives).args(["--quiet", "update"]))?;
        download()?;
    }
    for archive in sorted(&archives)? {
        quietly(Invocation::new("dpkg-deb", part).args(["--extract"]).args([&archive, part]))?;
    }
    fs::remove_dir_all(&archives).with_context(|| format!("cannot remove {}", archives.display()))
}

/// Makes a folder by filling another one first, so that what is there is whole.
fn install(folder: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let parent = folder.parent().context("the folder lies nowhere")?;
    fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    let part = tempfile::Builder::new().prefix("part-").tempdir_in(parent)?;
    fill(part.path())?;
    match fs::rename(part.path(), folder) {
        // Somebody else may have been quicker.
        Err(error) if !folder.is_dir() => Err(error).with_context(|| format!("cannot make {}", folder.display())),
        _ => Ok(()),
    }
}

fn quietly(invocation: Invocation) -> Result<()> {
    let name = invocation.to_string();
    let heard = invocation.heard_within(DEADLINE)?;
    match heard.status {
        Some(status) if status.success() => Ok(()),
        Some(status) => {
            let lines: Vec<&str> = heard.text.lines().filter(|line| !line.trim().is_empty()).collect();
            bail!("{name} ended with {status}: {}", lines[lines.len().saturating_sub(3)..].join("; "))
        }
        None => bail!("{name} did not end within {} s", DEADLINE.as_secs()),
    }
}

fn sorted(folder: &Path) -> Result<Vec<PathBuf>> {
    let listing = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let mut paths = listing.map(|entry| Ok(entry?.path())).collect::<Result<Vec<PathBuf>>>()?;
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_there_when_it_is_whole_and_is_made_once() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("deep/tool");
        let failed = install(&folder, |part| {
            fs::write(part.join("half"), "")?;
            bail!("no network")
        });
        assert_eq!(failed.unwrap_err().to_string(), "no network");
        assert!(!folder.exists() && sorted(folder.parent().unwrap()).unwrap().is_empty());
        install(&folder, |part| Ok(fs::write(part.join("whole"), "")?)).unwrap();
        install(&folder, |_| bail!("it is there already")).unwrap();
        assert!(folder.join("whole").is_file());
    }

    #[test]
    fn a_failure_carries_the_last_words() {
        let script = "echo one; echo two; echo three >&2; echo four >&2; exit 7";
        let error = quietly(Invocation::new("sh", Path::new("/")).args(["-c", script])).unwrap_err().to_string();
        assert!(error.ends_with("exit status: 7: two; three; four"), "{error}");
    }

    #[test]
    fn programs_come_before_those_of_the_machine() {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir_all(place.path().join("usr/lib/x86")).unwrap();
        let environment = Programs { folders: vec![place.path().to_owned()] }.environment().unwrap();
        let value = |name: &str| {
            let found = environment.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
            found.map(|value| std::env::split_paths(&value).next().unwrap())
        };
        assert_eq!(value("PATH"), Some(place.path().join("usr/bin")));
        assert_eq!(value("LD_LIBRARY_PATH"), Some(place.path().join("usr/lib/x86")));
        assert_eq!(value("HOME"), None);
    }
}
