//! Finds what a directly mounted workspace must not change, and keeps its place where it does not exist yet.
//!
//! A missing name, also that of a file, is held by an empty folder (which git ignores) of a telltale mode, which is read-only inside and removed again when the last sandbox
//! that needs it is gone. After a power cut such a folder may be left behind; the next sandbox removes it, and git ignores it.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode as FileMode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::error::{Doing, Layer, SetupError};
use crate::plan::{Mode, Mount, Plan};

/// No other program makes a folder with these permissions, so an empty one is ours to remove.
const PLACEHOLDER_MODE: u32 = 0o1555;

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

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
    parent: OwnedFd,
    name: OsString,
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
        let names: Vec<&'static str> = plan.protected_names().collect();
        let asked = plan.protect.iter().filter_map(|path| plan.protected_path(path));
        for path in names.iter().map(Path::new).chain(asked) {
            protection.hold(host, path)?;
        }
        protection.search(host, &names);
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

    /// Protects one path, whether or not it exists; where a folder above it is missing, that is held.
    fn hold(&mut self, host: &Path, path: &Path) -> Result<(), SetupError> {
        let mut folder = rustix::fs::open(host, FOLDER, FileMode::empty())
            .doing(Layer::Protection, || format!("open {}", host.display()))?;
        let mut held = PathBuf::new();
        let mut names = path.iter().peekable();
        while let Some(name) = names.next() {
            held.push(name);
            let what = || format!("protect {}", host.join(&held).display());
            if names.peek().is_some() {
                match step_down(&folder, name) {
                    Ok(next) => {
                        folder = next;
                        continue;
                    }
                    Err(Errno::NOENT) => {}
                    Err(error) => return Err(error).doing(Layer::Protection, what),
                }
            }
            return self.hold_name(folder, name, held.clone(), what);
        }
        Ok(())
    }

    fn hold_name(
        &mut self,
        parent: OwnedFd,
        name: &OsStr,
        path: PathBuf,
        what: impl Fn() -> String,
    ) -> Result<(), SetupError> {
        // Another sandbox may remove its placeholder between our look and our lock, so a few tries are normal.
        for _ in 0..100 {
            let stat = match rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => {
                    // Born with its telltale mode, so that no other sandbox takes it for something of the user's in between.
                    match rustix::fs::mkdirat(&parent, name, FileMode::from_raw_mode(PLACEHOLDER_MODE)) {
                        Ok(()) | Err(Errno::EXIST) => continue,
                        // Whoever cannot create it outside cannot create it inside either.
                        Err(Errno::ROFS | Errno::ACCESS | Errno::PERM) => return Ok(()),
                        Err(error) => return Err(error).doing(Layer::Protection, what),
                    }
                }
                Err(error) => return Err(error).doing(Layer::Protection, what),
            };
            if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
                // A link cannot be covered, so it could be replaced.
                return Err(Errno::LOOP).doing(Layer::Protection, what);
            }
            if !is_placeholder(&stat) {
                self.paths.insert(path);
                return Ok(());
            }
            let folder = match rustix::fs::openat(&parent, name, FOLDER, FileMode::empty()) {
                Ok(folder) => folder,
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(error).doing(Layer::Protection, what),
            };
            rustix::fs::flock(&folder, FlockOperation::LockShared).doing(Layer::Protection, &what)?;
            if rustix::fs::fstat(&folder).doing(Layer::Protection, &what)?.st_nlink == 0 {
                continue;
            }
            self.paths.insert(path);
            self.placeholders.push(Placeholder { parent, name: name.to_owned(), folder });
            return Ok(());
        }
        Err(io::Error::from(io::ErrorKind::TimedOut)).doing(Layer::Protection, what)
    }

    /// Finds nested repositories and the like, within bounds.
    fn search(&mut self, host: &Path, names: &[&str]) {
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
                if names.iter().any(|protected| name == *protected) {
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

/// One step down into a folder of the user's, following nothing.
fn step_down(folder: &OwnedFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(folder, name, FOLDER, FileMode::empty(), resolve)
}

fn is_placeholder(stat: &rustix::fs::Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory && stat.st_mode & 0o7777 == PLACEHOLDER_MODE
}

impl Drop for Placeholder {
    fn drop(&mut self) {
        // Only the last one that needs the place gets this lock; removing fails if somebody has put something there.
        if rustix::fs::flock(&self.folder, FlockOperation::NonBlockingLockExclusive).is_ok() {
            let _ = rustix::fs::unlinkat(&self.parent, &self.name, AtFlags::REMOVEDIR);
        }
    }
}
