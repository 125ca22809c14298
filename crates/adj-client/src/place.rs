//! Where the daemon of a state folder is found, and whether there is one.

use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
};

/// The daemon's private folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    folder: PathBuf,
}

/// Who is the daemon here, as it says itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    pub pid: u32,
    pub version: String,
    pub started_at: String,
}

impl Place {
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.join("socket")
    }

    /// What a daemon says that was started on demand.
    pub fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// Whether a daemon's process is alive, whatever it is doing. The kernel knows: it holds a lock.
    pub fn is_held(&self) -> bool {
        let Ok(file) = File::open(self.seat()) else { return false };
        matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
    }

    /// Who is alive here, if that can be read.
    pub fn holder(&self) -> Option<Holder> {
        if !self.is_held() {
            return None;
        }
        serde_json::from_slice(&fs::read(self.seat()).ok()?).ok()
    }

    fn seat(&self) -> PathBuf {
        self.folder.join("seat")
    }
}
