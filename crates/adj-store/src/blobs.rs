//! Bytes kept under their hash, one file each: `blobs/ab/cdef…`.

use crate::{
    error::StoreError,
    files::{io_error, make_private_dir, sync_dir},
    limits,
};
use adj_domain::BlobHash;
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// A write that takes longer than this is one that was never finished.
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);

static NEXT: AtomicU64 = AtomicU64::new(0);

/// The blobs of one store.
pub(crate) struct Blobs {
    dir: PathBuf,
}

impl Blobs {
    pub(crate) fn new(state_dir: &Path) -> Self {
        Self { dir: state_dir.join("blobs") }
    }

    fn unfinished(&self) -> PathBuf {
        self.dir.join("unfinished")
    }

    pub(crate) fn make_dirs(&self) -> Result<(), StoreError> {
        make_private_dir(&self.unfinished())
    }

    /// Removes what was being written when its process died.
    pub(crate) fn sweep(&self) {
        let Ok(entries) = fs::read_dir(self.unfinished()) else {
            return;
        };
        for entry in entries.flatten() {
            let age = entry.metadata().and_then(|meta| meta.modified()).map(|at| at.elapsed().unwrap_or_default());
            if age.is_ok_and(|age| age > ABANDONED) {
                // A file that stays costs space only, and is looked at again next time.
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    fn path(&self, hash: &BlobHash) -> PathBuf {
        let (shelf, name) = hash.as_str().split_at(2);
        self.dir.join(shelf).join(name)
    }

    /// Keeps the bytes; returns their hash, and whether anything had to be written.
    pub(crate) fn put(&self, bytes: &[u8]) -> Result<(BlobHash, bool), StoreError> {
        limits::within("a blob", bytes.len(), limits::BLOB_BYTES)?;
        let hash = BlobHash::of(bytes);
        let path = self.path(&hash);
        let shelf = path.parent().expect("a blob lies on a shelf");
        // Only a copy that is whole counts as kept; a damaged one is replaced by the good bytes at hand.
        if matches!(self.get(&hash), Ok(Some(_))) {
            // Whoever renamed it into place may not have come to syncing the directory.
            sync_dir(shelf)?;
            return Ok((hash, false));
        }
        if !shelf.exists() {
            make_private_dir(shelf)?;
            sync_dir(&self.dir)?;
        }
        let (unfinished, file) = self.begin(&hash)?;
        let written = write_synced(file, bytes).and_then(|()| fs::rename(&unfinished, &path));
        if let Err(source) = written {
            let _ = fs::remove_file(&unfinished);
            return Err(io_error("write the blob", &path, source));
        }
        sync_dir(shelf)?;
        Ok((hash, true))
    }

    /// Makes a file that nobody else writes to: neither another view of the store nor a process with our number in
    /// another container.
    fn begin(&self, hash: &BlobHash) -> Result<(PathBuf, File), StoreError> {
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = self.unfinished().join(format!("{}-{number}-{hash}", std::process::id()));
            match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
                Ok(file) => return Ok((path, file)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(source) => return Err(io_error("make the file", &path, source)),
            }
        }
    }

    pub(crate) fn get(&self, hash: &BlobHash) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.path(hash);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(io_error("open the blob", &path, source)),
        };
        let mut bytes = Vec::new();
        file.take(limits::BLOB_BYTES as u64 + 1)
            .read_to_end(&mut bytes)
            .map_err(|source| io_error("read the blob", &path, source))?;
        if bytes.len() > limits::BLOB_BYTES || BlobHash::of(&bytes) != *hash {
            return Err(StoreError::Corrupt { path, what: "its bytes do not have the hash that names it".to_owned() });
        }
        Ok(Some(bytes))
    }
}

fn write_synced(mut file: File, bytes: &[u8]) -> io::Result<()> {
    file.write_all(bytes)?;
    file.sync_all()
}
