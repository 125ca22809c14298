//! Folders on the host: made private, locked, copied, dated, and removed whatever an agent left in them.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, FlockOperation, Mode, OFlags, Timestamps};
use rustix::io::Errno;

/// What was being done to which path when the file system refused.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} {}", path.display())]
pub struct FileError {
    pub doing: &'static str,
    pub path: PathBuf,
    pub source: io::Error,
}

pub(crate) trait At<T> {
    fn at(self, doing: &'static str, path: &Path) -> Result<T, FileError>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, doing: &'static str, path: &Path) -> Result<T, FileError> {
        self.map_err(|source| FileError { doing, path: path.to_owned(), source: source.into() })
    }
}

/// Makes a folder, and those above it, that only its owner can enter.
pub(crate) fn make_private(path: &Path) -> Result<(), FileError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).at("make the folder", path)
}

/// A fresh empty folder inside `parent`.
pub(crate) fn fresh(parent: &Path) -> Result<PathBuf, FileError> {
    use std::hash::{BuildHasher, Hasher};
    use std::sync::atomic::{AtomicU64, Ordering};
    static COUNT: AtomicU64 = AtomicU64::new(0);
    loop {
        // Unguessable is not needed here, only unlikely to be taken: the folder is private, and a taken name is tried again.
        let mut noise = std::collections::hash_map::RandomState::new().build_hasher();
        noise.write_u64(COUNT.fetch_add(1, Ordering::Relaxed));
        let path = parent.join(format!("{}-{:016x}", std::process::id(), noise.finish()));
        match DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => return made.at("make the folder", &path).map(|()| path),
        }
    }
}

/// A folder that is removed when this is dropped; what cannot be removed then is left to `sweep`.
#[derive(Debug)]
pub(crate) struct Scratch(pub PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = remove_tree(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "a scratch folder stays behind");
        }
    }
}

/// Writes a small file so that it is either there in full or not at all, also after a power cut.
pub(crate) fn write_durably(path: &Path, content: &[u8]) -> Result<(), FileError> {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let mut file = File::create(&part).at("create", &part)?;
    file.write_all(content).and_then(|()| file.sync_all()).at("write", &part)?;
    fs::rename(&part, path).at("rename to", path)
}

/// Holds a lock between processes until it is dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

/// Waits for the lock at `path`.
pub(crate) fn lock(path: &Path) -> Result<Lock, FileError> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path).at("open", path)?;
    rustix::io::retry_on_intr(|| rustix::fs::flock(&file, FlockOperation::LockExclusive)).at("lock", path)?;
    Ok(Lock { _file: file })
}

/// Waits for the lock at `path`, which several may hold in this way.
pub(crate) fn lock_shared(path: &Path) -> Result<Lock, FileError> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path).at("open", path)?;
    rustix::io::retry_on_intr(|| rustix::fs::flock(&file, FlockOperation::LockShared)).at("lock", path)?;
    Ok(Lock { _file: file })
}

/// Takes the lock at `path` unless somebody else has it.
pub(crate) fn try_lock(path: &Path) -> Result<Option<Lock>, FileError> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path).at("open", path)?;
    match rustix::io::retry_on_intr(|| rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)) {
        Ok(()) => Ok(Some(Lock { _file: file })),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error).at("lock", path),
    }
}

/// Gives every file and folder below `root` the same modification time.
///
/// An edit then always shows as a newer time, and git need not distrust files as young as its index.
pub(crate) fn set_times(root: &Path, seconds: i64) -> Result<(), FileError> {
    let time = rustix::fs::Timespec { tv_sec: seconds, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    let mut waiting = vec![root.to_owned()];
    while let Some(folder) = waiting.pop() {
        for entry in fs::read_dir(&folder).at("read the folder", &folder)? {
            let entry = entry.at("read the folder", &folder)?;
            let path = entry.path();
            if entry.file_type().at("examine", &path)?.is_dir() {
                waiting.push(path);
            } else {
                rustix::fs::utimensat(CWD, &path, &times, AtFlags::SYMLINK_NOFOLLOW).at("set the time of", &path)?;
            }
        }
    }
    Ok(())
}

/// Copies a tree that git made: folders, plain files, symlinks. Blocks are shared where the file system can.
pub(crate) fn copy_tree(from: &Path, to: &Path) -> Result<(), FileError> {
    let mut waiting = vec![(from.to_owned(), to.to_owned())];
    while let Some((from, to)) = waiting.pop() {
        fs::create_dir(&to).at("make the folder", &to)?;
        for entry in fs::read_dir(&from).at("read the folder", &from)? {
            let entry = entry.at("read the folder", &from)?;
            let (source, target) = (entry.path(), to.join(entry.file_name()));
            let kind = entry.file_type().at("examine", &source)?;
            if kind.is_dir() {
                waiting.push((source, target));
            } else if kind.is_symlink() {
                let points_to = fs::read_link(&source).at("read the link", &source)?;
                std::os::unix::fs::symlink(points_to, &target).at("make the link", &target)?;
            } else {
                copy_file(&source, &target)?;
            }
        }
    }
    Ok(())
}

/// Copies a file with its time of change.
///
/// An index that lost its own would take files for unchanged that were changed in the second in which it was written: git
/// looks into those only that are not older than the index.
pub(crate) fn copy_file(from: &Path, to: &Path) -> Result<(), FileError> {
    let changed_at = fs::metadata(from).and_then(|meta| meta.modified()).at("examine", from)?;
    fs::copy(from, to).at("copy", from)?;
    let times = fs::FileTimes::new().set_modified(changed_at);
    // Opened for reading: the owner of a file may set its times without being allowed to write to it.
    File::open(to).and_then(|file| file.set_times(times)).at("set the time of", to)
}

/// Removes a folder and all in it, also folders without permissions; never follows a symlink. Gone already is fine.
pub(crate) fn remove_tree(path: &Path) -> Result<(), FileError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(CWD, path, flags, Mode::empty()) {
        Ok(folder) => empty_folder(folder).at("empty the folder", path)?,
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error).at("open the folder", path),
    }
    match fs::remove_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).at("remove the folder", path),
        _ => Ok(()),
    }
}

/// One folder on the way down: what is left to do in it, and its name in the folder above.
struct Level {
    folder: OwnedFd,
    folders: Vec<std::ffi::CString>,
    name: Option<std::ffi::CString>,
}

/// Walks with open folders instead of paths, so that nobody can redirect the removal by swapping a folder for a link.
fn empty_folder(folder: OwnedFd) -> rustix::io::Result<()> {
    let mut levels = vec![enter(folder, None)?];
    while let Some(level) = levels.last_mut() {
        if let Some(name) = level.folders.pop() {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            match rustix::fs::openat(&level.folder, &name, flags, Mode::empty()) {
                Ok(below) => {
                    let below = enter(below, Some(name))?;
                    levels.push(below);
                }
                Err(Errno::NOENT) => {}
                Err(error) => return Err(error),
            }
        } else {
            let done = levels.pop().expect("the loop looked at it");
            if let (Some(above), Some(name)) = (levels.last(), done.name) {
                ignore_missing(rustix::fs::unlinkat(&above.folder, &name, AtFlags::REMOVEDIR))?;
            }
        }
    }
    Ok(())
}

/// Opens the folder for real, removes its files, and remembers its folders.
fn enter(handle: OwnedFd, name: Option<std::ffi::CString>) -> rustix::io::Result<Level> {
    let itself = format!("/proc/self/fd/{}", handle.as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mode = rustix::fs::fstat(&handle)?.st_mode;
    if mode & 0o700 != 0o700 {
        rustix::fs::chmodat(CWD, itself.as_str(), Mode::RWXU, AtFlags::empty())?;
    }
    let folder = rustix::fs::openat(CWD, itself.as_str(), flags, Mode::empty())?;
    let mut folders = Vec::new();
    for entry in rustix::fs::Dir::read_from(&folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::Unknown => {
                let meta = rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
                FileType::from_raw_mode(meta.st_mode)
            }
            kind => kind,
        };
        if kind == FileType::Directory {
            folders.push(name.to_owned());
        } else {
            ignore_missing(rustix::fs::unlinkat(&folder, name, AtFlags::empty()))?;
        }
    }
    Ok(Level { folder, folders, name })
}

fn ignore_missing(result: rustix::io::Result<()>) -> rustix::io::Result<()> {
    match result {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn removal_is_stopped_by_nothing_and_leaves_by_no_link() {
        let home = tempfile::tempdir().expect("a folder");
        let outside = home.path().join("outside");
        fs::create_dir(&outside).expect("made");
        fs::write(outside.join("kept"), "kept").expect("written");
        let doomed = home.path().join("doomed");
        let mut deep = doomed.clone();
        for _ in 0..300 {
            deep.push("d");
        }
        fs::create_dir_all(&deep).expect("made");
        fs::write(deep.join("file"), "x").expect("written");
        symlink(&outside, doomed.join("link")).expect("linked");
        symlink("/nowhere", doomed.join("dangling")).expect("linked");
        let closed = doomed.join("closed");
        fs::create_dir_all(closed.join("below")).expect("made");
        fs::write(closed.join("below/file"), "x").expect("written");
        for folder in [closed.join("below"), closed.clone(), doomed.clone()] {
            fs::set_permissions(&folder, fs::Permissions::from_mode(0o000)).expect("closed");
        }
        remove_tree(&doomed).expect("removed");
        remove_tree(&doomed).expect("gone already");
        assert!(!doomed.exists());
        assert_eq!(fs::read(outside.join("kept")).expect("still there"), b"kept");
    }

    #[test]
    fn a_lock_is_exclusive() {
        let home = tempfile::tempdir().expect("a folder");
        let path = home.path().join("lock");
        let first = try_lock(&path).expect("opened");
        assert!(first.is_some());
        assert!(try_lock(&path).expect("opened").is_none());
        drop(first);
        assert!(try_lock(&path).expect("opened").is_some());
    }
}
