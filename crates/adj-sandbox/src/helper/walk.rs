//! Goes through a whole tree of the host's, following nothing, within bounds that are said when they are reached.
//!
//! Must not know: what is looked for.

use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode as FileMode, OFlags, RawDir, ResolveFlags};
use rustix::io::Errno;

use crate::error::{Doing, Layer, SetupError};

/// So many names are looked at for one sandbox, about a second's work; a larger tree is refused rather than half searched.
const MAX_ENTRIES: usize = 1_000_000;
/// What is still to be looked into is remembered by its path; a tree that is all folders must not fill the memory.
const MAX_PENDING_BYTES: usize = 64 << 20;
/// Longer paths can be opened only step by step, by nobody who means well.
const MAX_PATH_BYTES: usize = 3_000;

const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);

/// What is met on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Met {
    Folder,
    /// A folder that was to be looked into, but may not be listed, or lies too deep.
    Closed,
    Other(FileType),
}

/// What is left of the bounds.
#[derive(Debug)]
pub(super) struct Walk {
    left: usize,
}

impl Walk {
    pub(super) fn new() -> Walk {
        Walk { left: MAX_ENTRIES }
    }

    /// Calls `meet` with the path below `root` of everything there is; its answer says whether a folder is looked into.
    ///
    /// What vanishes meanwhile is not met. `shown` is how `root` is named in errors.
    pub(super) fn through(
        &mut self,
        root: &OwnedFd,
        shown: &Path,
        mut meet: impl FnMut(&Path, Met) -> Result<bool, SetupError>,
    ) -> Result<(), SetupError> {
        let mut buffer = [MaybeUninit::<u8>::uninit(); 32 << 10];
        let mut pending = vec![PathBuf::new()];
        let mut pending_bytes = 0;
        while let Some(path) = pending.pop() {
            pending_bytes -= path.as_os_str().len();
            let what = || format!("look through {}", shown.join(&path).display());
            let folder = match open_folder(root, &path) {
                Ok(folder) => folder,
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                Err(Errno::ACCESS | Errno::PERM) => {
                    meet(&path, Met::Closed)?;
                    continue;
                }
                Err(error) => return Err(error).doing(Layer::Protection, what),
            };
            let mut entries = RawDir::new(&folder, &mut buffer);
            // One buffer for all names of a folder: most are looked at and forgotten.
            let mut path = path.clone();
            while let Some(entry) = entries.next() {
                let entry = match entry {
                    Ok(entry) => entry,
                    // Removed while we look.
                    Err(Errno::NOENT) => break,
                    Err(error) => return Err(error).doing(Layer::Protection, what),
                };
                let name = OsStr::from_bytes(entry.file_name().to_bytes());
                if name == "." || name == ".." {
                    continue;
                }
                self.left = self.left.checked_sub(1).ok_or_else(|| too_large(shown))?;
                let kind = match entry.file_type() {
                    // Some file systems leave that to be asked for.
                    FileType::Unknown => match rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) {
                        Ok(stat) => FileType::from_raw_mode(stat.st_mode),
                        Err(Errno::NOENT) => continue,
                        Err(error) => return Err(error).doing(Layer::Protection, what),
                    },
                    kind => kind,
                };
                path.push(name);
                if kind != FileType::Directory {
                    meet(&path, Met::Other(kind))?;
                } else if meet(&path, Met::Folder)? {
                    if path.as_os_str().len() > MAX_PATH_BYTES {
                        meet(&path, Met::Closed)?;
                    } else {
                        pending_bytes += path.as_os_str().len();
                        if pending_bytes > MAX_PENDING_BYTES {
                            return Err(too_large(shown));
                        }
                        pending.push(path.clone());
                    }
                }
                path.pop();
            }
        }
        Ok(())
    }
}

fn too_large(shown: &Path) -> SetupError {
    let what = format!("look through {}: there are more than {MAX_ENTRIES} files and folders", shown.display());
    SetupError::new(Layer::Protection, what, Errno::TOOBIG)
}

fn open_folder(root: impl AsFd, path: &Path) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    rustix::fs::openat2(root, path, FOLDER, FileMode::empty(), resolve)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn met(root: &Path, walk: &mut Walk) -> Result<BTreeMap<String, Met>, SetupError> {
        let fd = rustix::fs::open(root, OFlags::PATH | OFlags::CLOEXEC, FileMode::empty()).expect("a folder");
        let mut all = BTreeMap::new();
        walk.through(&fd, root, |path, met| {
            all.insert(path.to_str().expect("plain").to_owned(), met);
            Ok(path.file_name() != Some(OsStr::new("skipped")))
        })?;
        Ok(all)
    }

    #[test]
    fn everything_is_met_and_nothing_is_followed() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path();
        let deep = (0..40).map(|level| level.to_string()).collect::<PathBuf>();
        for path in [Path::new("skipped/inner"), &deep] {
            std::fs::create_dir_all(root.join(path)).expect("folders");
        }
        std::fs::write(root.join(&deep).join("file"), "x").expect("a file");
        std::os::unix::fs::symlink("..", root.join("link")).expect("a link");
        let socket = std::os::unix::net::UnixListener::bind(root.join("socket")).expect("a socket");
        let all = met(root, &mut Walk::new()).expect("a walk");
        drop(socket);
        let path = |path: &Path| path.to_str().expect("plain").to_owned();
        assert_eq!(all[&path(&deep.join("file"))], Met::Other(FileType::RegularFile));
        assert_eq!(all["link"], Met::Other(FileType::Symlink));
        assert_eq!(all["socket"], Met::Other(FileType::Socket));
        assert_eq!(all["skipped"], Met::Folder);
        assert_eq!(all.len(), 44, "{all:?}");
    }

    #[test]
    fn a_bound_that_is_reached_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["a", "b", "c"] {
            std::fs::write(folder.path().join(name), "").expect("a file");
        }
        assert_eq!(met(folder.path(), &mut Walk { left: 3 }).expect("all of it").len(), 3);
        let error = met(folder.path(), &mut Walk { left: 2 }).expect_err("one too many");
        assert!(error.to_string().contains("more than 1000000 files and folders"), "{error}");
        assert_eq!(error.layer, Layer::Protection);
    }

    #[test]
    fn what_lies_too_deep_is_closed() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut at = rustix::fs::open(folder.path(), FOLDER, FileMode::empty()).expect("a folder");
        for _ in 0..20 {
            let name = "x".repeat(250);
            rustix::fs::mkdirat(&at, &name, FileMode::from_raw_mode(0o755)).expect("a folder");
            at = rustix::fs::openat(&at, &name, FOLDER, FileMode::empty()).expect("a folder");
        }
        let all = met(folder.path(), &mut Walk::new()).expect("a walk");
        let closed: Vec<&String> = all.iter().filter(|(_, met)| **met == Met::Closed).map(|(path, _)| path).collect();
        assert_eq!(closed.len(), 1);
        assert!(closed[0].len() > MAX_PATH_BYTES && all.len() == 12, "{}", all.len());
    }
}
