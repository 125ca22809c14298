//! The little that both the journal and the blobs need of the file system.

use crate::error::{OpenError, StoreError};
use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::Path,
    sync::Arc,
};

/// Says what a failed file operation means for the store.
pub(crate) fn io_error(doing: &'static str, path: &Path, source: io::Error) -> StoreError {
    let path = path.to_path_buf();
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::Full { path },
        io::ErrorKind::ReadOnlyFilesystem => StoreError::ReadOnly { path },
        _ => StoreError::Io { doing, path, source: Arc::new(source) },
    }
}

/// Makes a directory that only its owner can enter, and its missing parents.
pub(crate) fn make_private_dir(path: &Path) -> Result<(), StoreError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| io_error("make the directory", path, source))
}

/// Makes sure that a rename or a new file in `dir` survives a power cut.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), StoreError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|source| io_error("sync the directory", dir, source))
}

/// Refuses a path that somebody else owns or may meddle with.
///
/// The state directory itself may be looked into, since what lies in it is private; a file may not be read either.
pub(crate) fn check_ownership(path: &Path) -> Result<(), OpenError> {
    let meta = fs::metadata(path).map_err(|source| io_error("look at", path, source))?;
    let user = rustix::process::geteuid().as_raw();
    if meta.uid() != user {
        return Err(OpenError::WrongOwner { path: path.to_path_buf(), owner: meta.uid(), user });
    }
    let mode = meta.permissions().mode() & 0o7777;
    let (refused, could) = if meta.is_dir() { (0o022, "change") } else { (0o077, "read") };
    if mode & refused != 0 {
        return Err(OpenError::OpenToOthers { path: path.to_path_buf(), mode, could });
    }
    Ok(())
}
