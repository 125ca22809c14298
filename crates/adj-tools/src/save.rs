//! Writing files whole or not at all: a temporary file beside the target, then one rename.

use crate::tree::{Area, Found, Place};
use rustix::fs::{AtFlags, Mode, OFlags, fchmod, mkdirat, openat, renameat, unlinkat};
use rustix::io::Errno;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Debug, thiserror::Error)]
pub(crate) enum SaveError {
    #[error("{path} belongs to git; files in .git are changed by git commands only")]
    Git { path: String },
    #[error("{path} is a folder")]
    Folder { path: String },
    #[error("{path} is {kind}; only regular files can be written")]
    Special { path: String, kind: &'static str },
    #[error("{path} is marked read-only (mode {mode:o}); `chmod u+w` it with bash if it really should change")]
    ReadOnly { path: String, mode: u32 },
    #[error("{path} cannot be written: this part of the file system is read-only in this session")]
    ReadOnlyHere { path: String },
    #[error("cannot write {path}")]
    Io { path: String, source: io::Error },
}

/// A file's new content, on disk under a temporary name; dropped, it disappears.
#[derive(Debug)]
pub(crate) struct Staged {
    folder: OwnedFd,
    temporary: OsString,
    name: OsString,
    shown: String,
    is_committed: bool,
    /// Folders made for it, the outermost first.
    made: Vec<(OwnedFd, OsString)>,
}

/// Whether `place` is one where a file may be written, replaced or removed.
pub(crate) fn check(place: &Place) -> Result<(), SaveError> {
    let path = || place.shown.clone();
    if place.area == Area::Workspace && place.is_in_git() {
        return Err(SaveError::Git { path: path() });
    }
    match &place.found {
        Found::Missing => Ok(()),
        // The rename would replace it all the same, which is not what its mode asks for.
        Found::File(stat) if stat.st_mode & 0o222 == 0 => {
            Err(SaveError::ReadOnly { path: path(), mode: stat.st_mode & 0o777 })
        }
        Found::File(_) => Ok(()),
        Found::Folder => Err(SaveError::Folder { path: path() }),
        Found::Special(kind) => Err(SaveError::Special { path: path(), kind }),
    }
}

/// Puts `content` at `place`, keeping the mode of a file that was there.
pub(crate) fn save(place: &Place, content: &[u8]) -> Result<(), SaveError> {
    stage(place, content, None)?.commit()
}

/// Writes `content` beside `place`, with the given mode or that of the file that is there.
pub(crate) fn stage(place: &Place, content: &[u8], mode: Option<u32>) -> Result<Staged, SaveError> {
    check(place)?;
    let io = |error: Errno| failure(&place.shown, error.into());
    let folder = place.parent.try_clone().map_err(|error| failure(&place.shown, error))?;
    let mut staged = Staged {
        folder,
        temporary: temporary_name(),
        name: place.name.clone(),
        shown: place.shown.clone(),
        is_committed: false,
        made: Vec::new(),
    };
    for name in &place.missing_folders {
        match mkdirat(&staged.folder, name.as_os_str(), Mode::from_raw_mode(0o777)) {
            Ok(()) => {
                let above = staged.folder.try_clone().map_err(|error| failure(&place.shown, error))?;
                staged.made.push((above, name.clone()));
            }
            // Somebody else made it meanwhile.
            Err(Errno::EXIST) => {}
            Err(error) => return Err(io(error)),
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        staged.folder = openat(&staged.folder, name.as_os_str(), flags, Mode::empty()).map_err(io)?;
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(&staged.folder, staged.temporary.as_os_str(), flags, Mode::from_raw_mode(0o666)).map_err(io)?;
    let existing = match &place.found {
        Found::File(stat) => Some(stat.st_mode),
        _ => None,
    };
    if let Some(mode) = mode.or(existing) {
        // Never the set-user-id bits: content changed, so whoever trusted the old one must look again.
        fchmod(&file, Mode::from_raw_mode(mode & 0o777)).map_err(io)?;
    }
    File::from(file).write_all(content).map_err(|error| failure(&place.shown, error))?;
    Ok(staged)
}

impl Staged {
    pub(crate) fn commit(mut self) -> Result<(), SaveError> {
        renameat(&self.folder, self.temporary.as_os_str(), &self.folder, self.name.as_os_str())
            .map_err(|error| failure(&self.shown, error.into()))?;
        self.is_committed = true;
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if self.is_committed {
            return;
        }
        // Tidying up after a failure that was already reported; there is nobody left to tell.
        let _ = unlinkat(&self.folder, self.temporary.as_os_str(), AtFlags::empty());
        for (above, name) in self.made.iter().rev() {
            let _ = unlinkat(above, name.as_os_str(), AtFlags::REMOVEDIR);
        }
    }
}

pub(crate) fn remove(place: &Place) -> Result<(), SaveError> {
    unlinkat(&place.parent, place.name.as_os_str(), AtFlags::empty())
        .map_err(|error| failure(&place.shown, error.into()))
}

fn failure(shown: &str, source: io::Error) -> SaveError {
    let path = shown.to_owned();
    match Errno::from_io_error(&source) {
        Some(Errno::ROFS) => SaveError::ReadOnlyHere { path },
        _ => SaveError::Io { path, source },
    }
}

fn temporary_name() -> OsString {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!(".adjutant-{}-{count}-{:016x}.tmp", std::process::id(), crate::shell::random()).into()
}

/// Removes a file that was saved at a place where nothing had been, its folders perhaps neither.
pub(crate) fn remove_new(place: &Place) -> Result<(), SaveError> {
    let io = |error: Errno| failure(&place.shown, error.into());
    let mut folder = place.parent.try_clone().map_err(|error| failure(&place.shown, error))?;
    let mut made = Vec::new();
    for name in &place.missing_folders {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let inner = openat(&folder, name.as_os_str(), flags, Mode::empty()).map_err(io)?;
        made.push((std::mem::replace(&mut folder, inner), name));
    }
    unlinkat(&folder, place.name.as_os_str(), AtFlags::empty()).map_err(io)?;
    for (above, name) in made.into_iter().rev() {
        // Another file may have come to live there.
        let _ = unlinkat(&above, name.as_os_str(), AtFlags::REMOVEDIR);
    }
    Ok(())
}
