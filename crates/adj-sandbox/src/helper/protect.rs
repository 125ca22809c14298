//! Finds what a directly mounted workspace must not change, and keeps its place where it does not exist yet.
//!
//! A missing name is held by an empty folder of a telltale mode, which is read-only inside and removed again when the last sandbox
//! that needs it is gone. After a power cut such a folder may be left behind; the next sandbox removes it, and git ignores it.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode as FileMode, OFlags};
use rustix::io::Errno;

use crate::error::{Doing, Layer, SetupError};
use crate::plan::{Mode, Mount, PROTECTED, Plan};

/// No other program makes a folder with these permissions, so an empty one is ours to remove.
const PLACEHOLDER_MODE: u32 = 0o1555;

/// The search for nested names ends here; what lies deeper could be created anew by a command anyway.
const MAX_ENTRIES: usize = 50_000;
const MAX_DEPTH: usize = 8;

/// What to protect in one workspace; dropping it removes the placeholders.
#[derive(Debug, Default)]
pub(super) struct Protection {
    /// Relative paths of existing things.
    paths: BTreeSet<PathBuf>,
    placeholders: Vec<Placeholder>,
}

#[derive(Debug)]
struct Placeholder {
    workspace: OwnedFd,
    name: &'static str,
    /// Carries a shared lock as long as a sandbox needs the place.
    folder: OwnedFd,
}

impl Protection {
    /// Looks through a workspace that is to be changed directly; other plans need nothing.
    pub(super) fn prepare(plan: &Plan) -> Result<Protection, SetupError> {
        let Mount::Direct { host, .. } = &plan.workspace else {
            return Ok(Protection::default());
        };
        if plan.mode != Mode::WorkspaceWrite {
            return Ok(Protection::default());
        }
        let mut protection = Protection::default();
        for name in PROTECTED {
            protection.hold(host, name)?;
        }
        protection.search(host);
        Ok(protection)
    }

    /// Every path to mount over itself, outer ones first; `false` for a folder that is only pinned.
    pub(super) fn in_mount_order(&self) -> Vec<(PathBuf, bool)> {
        let pins: BTreeSet<PathBuf> = self
            .paths
            .iter()
            .flat_map(|path| path.ancestors().skip(1))
            .filter(|path| !path.as_os_str().is_empty())
            .map(Path::to_owned)
            .collect();
        let mut all: Vec<(PathBuf, bool)> = pins.into_iter().map(|path| (path, false)).collect();
        all.extend(self.paths.iter().map(|path| (path.clone(), true)));
        all.sort_by_key(|(path, _)| path.components().count());
        all
    }

    /// Protects one name at the root, whether or not it exists.
    fn hold(&mut self, host: &Path, name: &'static str) -> Result<(), SetupError> {
        let what = || format!("protect {}", host.join(name).display());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let workspace = rustix::fs::open(host, flags, FileMode::empty())
            .doing(Layer::Protection, || format!("open {}", host.display()))?;
        // Another sandbox may remove its placeholder between our look and our lock, so a few tries are normal.
        for _ in 0..100 {
            // Born with its telltale mode, so that no other sandbox takes it for something of the user's in between.
            match rustix::fs::mkdirat(&workspace, name, FileMode::from_raw_mode(PLACEHOLDER_MODE)) {
                Ok(()) | Err(Errno::EXIST) => {}
                // Whoever cannot create it outside cannot create it inside either.
                Err(Errno::ROFS | Errno::ACCESS | Errno::PERM) => return Ok(()),
                Err(error) => return Err(error).doing(Layer::Protection, what),
            }
            let stat = match rustix::fs::statat(&workspace, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(error).doing(Layer::Protection, what),
            };
            if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
                // A link cannot be covered, so it could be replaced.
                return Err(Errno::LOOP).doing(Layer::Protection, what);
            }
            if !is_placeholder(&stat) {
                self.paths.insert(PathBuf::from(name));
                return Ok(());
            }
            let folder = match rustix::fs::openat(&workspace, name, flags, FileMode::empty()) {
                Ok(folder) => folder,
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(error).doing(Layer::Protection, what),
            };
            rustix::fs::flock(&folder, FlockOperation::LockShared).doing(Layer::Protection, what)?;
            if rustix::fs::fstat(&folder).doing(Layer::Protection, what)?.st_nlink == 0 {
                continue;
            }
            self.paths.insert(PathBuf::from(name));
            self.placeholders.push(Placeholder { workspace, name, folder });
            return Ok(());
        }
        Err(io::Error::from(io::ErrorKind::TimedOut)).doing(Layer::Protection, what)
    }

    /// Finds nested repositories and the like, within bounds.
    fn search(&mut self, host: &Path) {
        let mut left = MAX_ENTRIES;
        let mut folders = vec![(PathBuf::new(), 0)];
        while let Some((folder, depth)) = folders.pop() {
            // Names vanish while we look; what cannot be listed cannot be protected by name either.
            for entry in fs::read_dir(host.join(&folder)).into_iter().flatten().flatten() {
                if left == 0 {
                    return;
                }
                left -= 1;
                let Ok(kind) = entry.file_type() else { continue };
                let name = entry.file_name();
                let path = folder.join(&name);
                if PROTECTED.iter().any(|protected| name == *protected) {
                    if !kind.is_symlink() {
                        self.paths.insert(path);
                    }
                } else if kind.is_dir() && depth < MAX_DEPTH {
                    folders.push((path, depth + 1));
                }
            }
        }
    }
}

fn is_placeholder(stat: &rustix::fs::Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory && stat.st_mode & 0o7777 == PLACEHOLDER_MODE
}

impl Drop for Placeholder {
    fn drop(&mut self) {
        // Only the last one that needs the place gets this lock; removing fails if somebody has put something there.
        if rustix::fs::flock(&self.folder, FlockOperation::NonBlockingLockExclusive).is_ok() {
            let _ = rustix::fs::unlinkat(&self.workspace, self.name, AtFlags::REMOVEDIR);
        }
    }
}
