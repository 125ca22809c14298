//! Tells which processes are alive, by locks that the kernel lets go of when a process dies.

use crate::{
    error::StoreError,
    files::{io_error, make_private_dir},
    store::NodeId,
};
use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

/// A checker holds a lock for microseconds; so long do we wait for it to let go.
const ATTEMPTS: u32 = 40;
const BETWEEN: Duration = Duration::from_millis(5);

/// The lock files of one store: `nodes/<node>.lock`, held exclusively by the node's process for as long as it lives.
///
/// Checkers and sweepers take shared locks only, so that they never look like an owner to each other.
pub(crate) struct Nodes {
    dir: PathBuf,
    held: Mutex<HashMap<NodeId, File>>,
}

impl Nodes {
    pub(crate) fn new(state_dir: &Path) -> Self {
        Self { dir: state_dir.join("nodes"), held: Mutex::default() }
    }

    pub(crate) fn make_dir(&self) -> Result<(), StoreError> {
        make_private_dir(&self.dir)
    }

    fn path(&self, node: &NodeId) -> PathBuf {
        self.dir.join(format!("{node}.lock"))
    }

    /// Makes this process known as `node`. Returns false when another process is.
    pub(crate) fn hold(&self, node: &NodeId) -> Result<bool, StoreError> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.contains_key(node) {
            return Ok(true);
        }
        let path = self.path(node);
        for _ in 0..ATTEMPTS {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path)
                .map_err(|source| io_error("open the lock file", &path, source))?;
            match file.try_lock() {
                // A sweeper may have removed the file between our opening and our locking it.
                Ok(()) if same_file(&file, &path) => {
                    held.insert(node.clone(), file);
                    return Ok(true);
                }
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => thread::sleep(BETWEEN),
                Err(TryLockError::Error(source)) => return Err(io_error("lock", &path, source)),
            }
        }
        Ok(false)
    }

    /// Returns whether the node's process is alive. In doubt it is: taking work from the living is the worse mistake.
    pub(crate) fn is_alive(&self, node: &NodeId) -> bool {
        if self.held.lock().unwrap_or_else(PoisonError::into_inner).contains_key(node) {
            return true;
        }
        match File::open(self.path(node)) {
            Err(error) => error.kind() != io::ErrorKind::NotFound,
            Ok(file) => file.try_lock_shared().is_err(),
        }
    }

    /// Removes the lock files that dead processes left behind.
    pub(crate) fn sweep(&self) {
        let Ok(entries) = fs::read_dir(&self.dir) else { return };
        for path in entries.flatten().map(|entry| entry.path()) {
            if let Ok(file) = File::open(&path)
                && file.try_lock_shared().is_ok()
            {
                // Nothing depends on it: a file that stays is looked at again next time.
                let _ = fs::remove_file(&path);
            }
        }
    }

    /// Lets go of everything, as the process's death would.
    pub(crate) fn release_all(&self) {
        for (node, file) in self.held.lock().unwrap_or_else(PoisonError::into_inner).drain() {
            let _ = fs::remove_file(self.path(&node));
            drop(file);
        }
    }
}

fn same_file(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_alive_while_its_lock_is_held() {
        let dir = tempfile::tempdir().unwrap();
        let (ours, theirs) = (Nodes::new(dir.path()), Nodes::new(dir.path()));
        ours.make_dir().unwrap();
        let node: NodeId = "n1".parse().unwrap();
        assert!(!theirs.is_alive(&node), "never seen");
        assert!(ours.hold(&node).unwrap());
        assert!(ours.hold(&node).unwrap(), "again is fine");
        assert!(theirs.is_alive(&node));
        assert!(!theirs.hold(&node).unwrap(), "a name has one owner");
        theirs.sweep();
        assert!(theirs.is_alive(&node), "the living are not swept");
        ours.release_all();
        assert!(!theirs.is_alive(&node));
        assert!(theirs.hold(&node).unwrap());
    }

    #[test]
    fn what_the_dead_left_is_swept() {
        let dir = tempfile::tempdir().unwrap();
        let nodes = Nodes::new(dir.path());
        nodes.make_dir().unwrap();
        let left = dir.path().join("nodes/old.lock");
        fs::write(&left, "").unwrap();
        assert!(!nodes.is_alive(&"old".parse().unwrap()));
        nodes.sweep();
        assert!(!left.exists());
    }
}
