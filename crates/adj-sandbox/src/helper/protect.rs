//! Finds what a directly mounted workspace must not change, and keeps its place where it does not exist yet.
//!
//! A missing name, also that of a file, is held by an empty folder (which git ignores) of a telltale mode, which is read-only inside
//! and removed again when the last sandbox that needs it is gone. After a power cut such a folder may be left behind; the next sandbox removes it, and git ignores it.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode as FileMode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::sockets;
use super::walk::{Met, Walk};
use crate::error::{Doing, Layer, SetupError};
use crate::plan::{Mode, Mount, Plan};

/// No other program makes a folder with these permissions, so an empty one is ours to remove.
const PLACEHOLDER_MODE: u32 = 0o1555;

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Mounts cost the kernel memory and time.
const MAX_MOUNTS: usize = 8_192;
/// A file that points to a repository elsewhere is a line with a path.
const MAX_POINTER_BYTES: usize = 8_192;
const POINTER: &[u8] = b"gitdir:";
/// From a link to a file of git's, to a folder, to what that has in common with others.
const MAX_STEPS: usize = 4;

/// What makes a folder a repository, and what is executed, or leads to it, where the workspace itself is one.
const REPOSITORY: [&str; 3] = ["HEAD", "objects", "refs"];
const EXECUTED: [&str; 5] = ["commondir", "config", "config.worktree", "hooks", "info"];

/// What to protect in one workspace; dropping it removes the placeholders.
#[derive(Debug, Default)]
pub(super) struct Protection {
    /// Relative paths of existing things.
    paths: BTreeSet<PathBuf>,
    /// Those of `paths` that are links.
    links: BTreeSet<PathBuf>,
    /// Paths inside of sockets at which somebody outside listens.
    sockets: BTreeSet<PathBuf>,
    placeholders: Vec<Placeholder>,
    /// Those of `paths` that were made just now, so that there is nothing to find in them.
    made: BTreeSet<PathBuf>,
}

#[derive(Debug)]
struct Placeholder {
    parent: OwnedFd,
    name: OsString,
    /// Carries a shared lock as long as a sandbox needs the place.
    folder: OwnedFd,
}

/// How a path is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hold {
    /// It cannot be renamed, which would carry away what lies below.
    Pinned,
    Unchangeable,
    /// A link that cannot be replaced.
    Link,
}

impl Protection {
    /// Looks through a workspace that is to be changed directly, and for sockets in all that is shown of the host.
    pub(super) fn prepare(plan: &Plan) -> Result<Protection, SetupError> {
        let mut protection = Protection::default();
        if plan.mode == Mode::DangerFullAccess {
            return Ok(protection);
        }
        let mut walk = Walk::new();
        if let (Mount::Direct { host, inside }, Mode::WorkspaceWrite) = (&plan.workspace, plan.mode) {
            let names: Vec<&'static str> = plan.protected_names().collect();
            let asked = plan.protect.iter().filter_map(|path| plan.protected_path(path));
            for path in names.iter().map(Path::new).chain(asked) {
                protection.hold(host, path)?;
            }
            if names.contains(&".git") {
                protection.hold_bare(host)?;
            }
            protection.search(host, inside, &names, &mut walk)?;
            protection.check_count(host)?;
        }
        if !sockets::are_seen_to() {
            protection.sockets.extend(sockets::shown(plan, &mut walk)?);
        }
        Ok(protection)
    }

    /// What is to be covered because a server outside would answer there.
    pub(super) fn sockets(&self) -> &BTreeSet<PathBuf> {
        &self.sockets
    }

    fn check_count(&self, host: &Path) -> Result<(), SetupError> {
        let count = self.in_mount_order().len();
        if count <= MAX_MOUNTS {
            return Ok(());
        }
        let host = host.display();
        let what = format!("protect the repositories and the like in {host} by {count} mounts, more than {MAX_MOUNTS}");
        Err(SetupError::new(Layer::Protection, what, Errno::TOOBIG))
    }

    /// Every path to mount over itself, outer ones first.
    pub(super) fn in_mount_order(&self) -> Vec<(PathBuf, Hold)> {
        let pins: BTreeSet<PathBuf> = self
            .paths
            .iter()
            .flat_map(|path| path.ancestors().skip(1))
            .filter(|path| !path.as_os_str().is_empty() && !self.paths.contains(*path))
            .map(Path::to_owned)
            .collect();
        let mut all: Vec<(PathBuf, Hold)> = pins.into_iter().map(|path| (path, Hold::Pinned)).collect();
        let hold = |path| if self.links.contains(path) { Hold::Link } else { Hold::Unchangeable };
        all.extend(self.paths.iter().map(|path| (path.clone(), hold(path))));
        all.sort_by_key(|(path, _)| path.components().count());
        all
    }

    /// Where there is no repository in `.git`, git takes the workspace itself for one as soon as it looks like one.
    fn hold_bare(&mut self, host: &Path) -> Result<(), SetupError> {
        let stat = |path: &str| rustix::fs::lstat(host.join(path)).ok();
        let is_folder = |path: &str| stat(path).is_some_and(|stat| kind_of(&stat) == FileType::Directory);
        let is_there = |path: &str| stat(path).is_some();
        // Git stops at a file of that name, whatever it says.
        let has_own = is_there(".git") && !is_folder(".git")
            || is_there(".git/HEAD")
                && (is_there(".git/commondir") || is_there(".git/objects") && is_there(".git/refs"));
        // One that was left behind is removed after all.
        if has_own && !stat("HEAD").is_some_and(|stat| is_placeholder(&stat)) {
            return Ok(());
        }
        let is_bare = is_there("HEAD") && !is_folder("HEAD");
        let more: &[&str] = if is_bare { &EXECUTED } else { &[] };
        // A folder called `HEAD` makes nothing a repository.
        ["HEAD"].iter().chain(more).try_for_each(|name| self.hold(host, Path::new(name)))
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
        let mut is_made = false;
        // Another sandbox may remove its placeholder between our look and our lock, so a few tries are normal.
        for _ in 0..100 {
            let stat = match rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => {
                    // Born with its telltale mode, so that no other sandbox takes it for something of the user's in between.
                    match rustix::fs::mkdirat(&parent, name, FileMode::from_raw_mode(PLACEHOLDER_MODE)) {
                        made @ (Ok(()) | Err(Errno::EXIST)) => {
                            is_made = made.is_ok();
                            continue;
                        }
                        // Whoever cannot create it outside cannot create it inside either.
                        Err(Errno::ROFS | Errno::ACCESS | Errno::PERM) => return Ok(()),
                        Err(error) => return Err(error).doing(Layer::Protection, what),
                    }
                }
                Err(error) => return Err(error).doing(Layer::Protection, what),
            };
            if kind_of(&stat) == FileType::Symlink {
                // A link cannot be covered, so it could be replaced.
                return Err(Errno::LOOP).doing(Layer::Protection, what);
            }
            if !is_placeholder(&stat) {
                self.paths.insert(path);
                return Ok(());
            }
            let folder = match rustix::fs::openat(&parent, name, FOLDER, FileMode::empty()) {
                Ok(folder) => folder,
                Err(Errno::NOENT) => {
                    is_made = false;
                    continue;
                }
                Err(error) => return Err(error).doing(Layer::Protection, what),
            };
            rustix::fs::flock(&folder, FlockOperation::LockShared).doing(Layer::Protection, &what)?;
            if rustix::fs::fstat(&folder).doing(Layer::Protection, &what)?.st_nlink == 0 {
                is_made = false;
                continue;
            }
            if is_made {
                self.made.insert(path.clone());
            }
            self.paths.insert(path);
            self.placeholders.push(Placeholder { parent, name: name.to_owned(), folder });
            return Ok(());
        }
        Err(io::Error::from(io::ErrorKind::TimedOut)).doing(Layer::Protection, what)
    }

    /// Finds nested repositories and the like, what they point to, and sockets.
    fn search(&mut self, host: &Path, inside: &Path, names: &[&str], walk: &mut Walk) -> Result<(), SetupError> {
        let root = rustix::fs::open(host, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, FileMode::empty())
            .doing(Layer::Protection, || format!("open {}", host.display()))?;
        let are_sockets_seen_to = sockets::are_seen_to();
        let mut pointers = Vec::new();
        let guards_git = names.contains(&".git");
        let mut parts = Parts::default();
        walk.through(&root, host, |path, met| {
            if path.as_os_str().is_empty() {
                return Err(Errno::ACCESS).doing(Layer::Protection, || format!("look through {}", host.display()));
            }
            if met == Met::Folder && self.made.contains(path) {
                return Ok(false);
            }
            match met {
                // Its owner could open it again inside, and work in it.
                Met::Closed => drop(self.paths.insert(path.to_owned())),
                Met::Other(FileType::Socket) if !are_sockets_seen_to && sockets::is_live_at(&root, path) => {
                    self.sockets.insert(inside.join(path));
                }
                Met::Folder | Met::Other(_) => {}
            }
            // Below a protected folder only sockets matter.
            let is_named = path.file_name().is_some_and(|name| names.iter().any(|protected| name == *protected));
            if is_named && !path.ancestors().skip(1).any(|above| self.paths.contains(above)) {
                self.paths.insert(path.to_owned());
                pointers.push(path.to_owned());
                if met == Met::Other(FileType::Symlink) {
                    self.links.insert(path.to_owned());
                }
            }
            // The workspace itself is seen to already.
            if guards_git
                && let Some(bare) = parts.complete(path, met)
                && !bare.as_os_str().is_empty()
                && !bare.ancestors().any(|above| self.paths.contains(above))
            {
                self.paths.insert(bare.to_owned());
            }
            Ok(true)
        })?;
        // A repository may lie in the workspace under any name, when a link or a file called `.git` leads there, or share a folder.
        for pointer in pointers {
            self.paths.extend(led_to(&root, host, &pointer));
        }
        Ok(())
    }
}

/// What was met of a repository without a work tree; a folder's names are met one after the other.
#[derive(Debug, Default)]
struct Parts {
    folder: PathBuf,
    are_met: [bool; REPOSITORY.len()],
}

impl Parts {
    /// The folder of `path`, when this was the last part of a repository that it lacked.
    fn complete(&mut self, path: &Path, met: Met) -> Option<&Path> {
        let number = REPOSITORY.iter().position(|name| path.file_name() == Some(OsStr::new(name)))?;
        if number == 0 && met == Met::Folder {
            return None;
        }
        let folder = path.parent()?;
        if self.folder != folder {
            *self = Parts { folder: folder.to_owned(), ..Parts::default() };
        }
        self.are_met[number] = true;
        (self.are_met == [true; REPOSITORY.len()]).then_some(&self.folder)
    }
}

/// What in the workspace a link, a file of git's or a folder of git's leads to, and where that leads.
fn led_to(root: &OwnedFd, host: &Path, pointer: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = Vec::new();
    for _ in 0..MAX_STEPS {
        match leads_to(root, host, all.last().map_or(pointer, PathBuf::as_path)) {
            Some(next) if !all.contains(&next) => all.push(next),
            _ => break,
        }
    }
    all
}

fn leads_to(root: &OwnedFd, host: &Path, pointer: &Path) -> Option<PathBuf> {
    let (above, target) = match open_plainly(root, pointer) {
        Ok(file) if kind_of(&rustix::fs::fstat(&file).ok()?) == FileType::Directory => {
            (pointer, path_in(open_plainly(&file, Path::new("commondir")).ok()?, b"")?)
        }
        Ok(file) => (pointer.parent()?, path_in(file, POINTER)?),
        Err(Errno::LOOP) => (pointer.parent()?, fs::read_link(host.join(pointer)).ok()?),
        Err(_) => return None,
    };
    let real = host.join(above).join(target).canonicalize().ok()?;
    let relative = real.strip_prefix(host.canonicalize().ok()?).ok()?.to_owned();
    (!relative.as_os_str().is_empty()).then_some(relative)
}

/// Opens something of the user's for reading, following nothing and waiting for nobody.
fn open_plainly(folder: &OwnedFd, path: &Path) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    rustix::fs::openat2(folder, path, flags, FileMode::empty(), resolve)
}

/// The path in a file of git's.
fn path_in(file: OwnedFd, prefix: &[u8]) -> Option<PathBuf> {
    if kind_of(&rustix::fs::fstat(&file).ok()?) != FileType::RegularFile {
        return None;
    }
    let mut text = Vec::new();
    fs::File::from(file).take(MAX_POINTER_BYTES as u64).read_to_end(&mut text).ok()?;
    let path = text.strip_prefix(prefix)?.split(|byte| *byte == b'\n').next()?.trim_ascii();
    (!path.is_empty()).then(|| PathBuf::from(OsStr::from_bytes(path)))
}

/// One step down into a folder of the user's, following nothing.
fn step_down(folder: &OwnedFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(folder, name, FOLDER, FileMode::empty(), resolve)
}

fn kind_of(stat: &rustix::fs::Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

fn is_placeholder(stat: &rustix::fs::Stat) -> bool {
    kind_of(stat) == FileType::Directory && stat.st_mode & 0o7777 == PLACEHOLDER_MODE
}

impl Drop for Placeholder {
    fn drop(&mut self) {
        // Only the last one that needs the place gets this lock; removing fails if somebody has put something there.
        if rustix::fs::flock(&self.folder, FlockOperation::NonBlockingLockExclusive).is_ok() {
            let _ = rustix::fs::unlinkat(&self.parent, &self.name, AtFlags::REMOVEDIR);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_too_many_mounts_is_refused() {
        let of = |count: usize| Protection {
            paths: (0..count).map(|number| PathBuf::from(format!("a/{number}/.git"))).collect(),
            ..Protection::default()
        };
        // Each with the folder that it lies in, and the one above all.
        let order = of(2).in_mount_order();
        let expected = [
            ("a", Hold::Pinned),
            ("a/0", Hold::Pinned),
            ("a/1", Hold::Pinned),
            ("a/0/.git", Hold::Unchangeable),
            ("a/1/.git", Hold::Unchangeable),
        ];
        assert_eq!(order, expected.map(|(path, hold)| (PathBuf::from(path), hold)));
        assert!(of(4_095).check_count(Path::new("/w")).is_ok());
        let error = of(4_096).check_count(Path::new("/w")).expect_err("one more than there may be");
        assert!(error.to_string().contains("in /w by 8193 mounts, more than 8192"), "{error}");
    }
}
