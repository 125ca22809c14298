use adj_domain::{Secret, Timestamp};
use adj_vault::{Entry, KeyFile, Place, Vault, VaultError};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};
use tempfile::TempDir;

/// A value that must never be seen anywhere.
pub const CANARY: &str = "canary-4f1d8a2c77b9e035";

pub struct Home {
    _home: TempDir,
    pub vault: PathBuf,
}

impl Home {
    pub fn new() -> Home {
        let home = tempfile::tempdir().expect("a scratch folder");
        Home { vault: home.path().join("state/vault"), _home: home }
    }

    pub fn open(&self) -> Result<Vault, VaultError> {
        Vault::open(&self.vault, Arc::new(KeyFile::new(&self.vault)))
    }

    /// A vault that holds the canary under the name `token`.
    pub fn with_canary() -> Home {
        let home = Home::new();
        let mut vault = home.open().expect("an empty vault");
        vault.set(entry("token"), secret(CANARY)).expect("the canary goes in");
        home
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.vault.join(name)
    }

    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(&self.vault)
            .expect("the folder is there")
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("a plain name"))
            .collect();
        names.sort();
        names
    }
}

pub fn entry(name: &str) -> Entry {
    Entry {
        name: name.parse().expect("the name is good"),
        env: None,
        hosts: vec!["api.example.org".parse().expect("the rule is good")],
        place: Place::Header { name: "authorization".parse().expect("the header is good") },
        git: false,
        note: None,
        created: Timestamp::UNIX_EPOCH,
    }
}

pub fn secret(value: &str) -> Secret {
    Secret::parse("test", value.to_owned()).expect("the secret is good")
}

/// Fails if the canary, or a spelling of it, is in any file or file name below `folder`.
pub fn assert_no_canary(folder: &Path) {
    assert!(files_without_canary(folder) > 0, "there was nothing to look at in {}", folder.display());
}

fn files_without_canary(folder: &Path) -> usize {
    let hex: String = CANARY.bytes().map(|byte| format!("{byte:02x}")).collect();
    let mut seen = 0;
    for entry in fs::read_dir(folder).expect("the folder is there") {
        let path = entry.expect("an entry").path();
        assert!(!path.to_string_lossy().contains(CANARY), "{}", path.display());
        if path.is_dir() {
            seen += files_without_canary(&path);
            continue;
        }
        let content = String::from_utf8_lossy(&fs::read(&path).expect("it is ours")).into_owned();
        // A part of it would be enough for a thief.
        for spelling in [CANARY, &CANARY[7..], &CANARY[..12], &hex, &hex.to_uppercase()] {
            assert!(!content.contains(spelling), "{} holds {spelling}", path.display());
        }
        seen += 1;
    }
    seen
}
