//! A folder of one user's private files: read with suspicion, written whole or not at all, one writer at a time.

use rustix::{
    fs::{AtFlags, FlockOperation, Mode, OFlags},
    io::Errno,
};
use std::{
    fs::{DirBuilder, File, Permissions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};
use zeroize::Zeroizing;

/// Why a private folder or a file in it cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    #[error("cannot {doing} {}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("{} belongs to user {owner}, not to user {user} who asks: run `chown {user} {}` if it should", path.display(), path.display())]
    Owner { path: PathBuf, owner: u32, user: u32 },
    #[error("{} is open to others (mode {mode:03o}): run `chmod {wanted:03o} {}`", path.display(), path.display())]
    OpenToOthers { path: PathBuf, mode: u32, wanted: u32 },
    #[error("{} is not a regular file", path.display())]
    NotAFile { path: PathBuf },
    #[error("{} is a link or no folder; a private folder is neither followed nor shared", path.display())]
    NotAFolder { path: PathBuf },
    #[error("{} is larger than {limit} bytes", path.display())]
    TooLarge { path: PathBuf, limit: usize },
    #[error("{} is held by another process for more than {} seconds", path.display(), LOCK_PATIENCE.as_secs())]
    Busy { path: PathBuf },
    #[error("the system gives no random bytes")]
    Randomness(#[source] getrandom::Error),
}

const LOCK: &str = "lock";
/// How files begin that are still being written; what a crash left behind is swept by the next writer.
const PART_START: &str = ".part-";
#[cfg(not(test))]
const LOCK_PATIENCE: Duration = Duration::from_secs(10);
#[cfg(test)]
const LOCK_PATIENCE: Duration = Duration::from_secs(1);

pub(crate) fn random<const N: usize>() -> Result<[u8; N], FolderError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(FolderError::Randomness)?;
    Ok(bytes)
}

/// What happens to a file of the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    Replace,
    Keep,
}

/// An open private folder; everything is done relative to it, so that nobody can exchange it underway.
#[derive(Debug)]
pub struct Folder {
    opened: File,
    path: PathBuf,
}

/// The one writer's mark on a folder.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Folder {
    /// Opens the folder if it is there.
    pub fn open(path: &Path) -> Result<Option<Folder>, FolderError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(opened) => File::from(opened),
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::NOTDIR | Errno::LOOP | Errno::MLINK) => {
                return Err(FolderError::NotAFolder { path: path.to_owned() });
            }
            Err(error) => return Err(io_error("open the folder", path, error)),
        };
        check_private(&opened, path, 0o700)?;
        Ok(Some(Folder { opened, path: path.to_owned() }))
    }

    /// Opens the folder and makes it first if need be, with its missing parents.
    pub fn make(path: &Path) -> Result<Folder, FolderError> {
        if let Some(folder) = Folder::open(path)? {
            return Ok(folder);
        }
        let making = "make the folder";
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| io_error(making, path, error))?;
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            File::open(parent).and_then(|parent| parent.sync_all()).map_err(|error| io_error(making, path, error))?;
        }
        let gone = || io_error(making, path, io::Error::from(io::ErrorKind::NotFound));
        Folder::open(path)?.ok_or_else(gone)
    }

    pub fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Reads a private file whole; nothing where there is none.
    pub fn read(&self, name: &str, limit: usize) -> Result<Option<Zeroizing<Vec<u8>>>, FolderError> {
        let path = self.path_of(name);
        // Without NONBLOCK a pipe in the file's place would hold us for ever.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(&self.opened, name, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP | Errno::MLINK | Errno::NXIO) => return Err(FolderError::NotAFile { path }),
            Err(error) => return Err(io_error("open", &path, error)),
        };
        let length = check_private(&file, &path, 0o600)?;
        if length > limit as u64 {
            return Err(FolderError::TooLarge { path, limit });
        }
        // One byte more than there should be: then the end is seen without a buffer that grows and leaves copies.
        let mut content = Zeroizing::new(vec![0; length as usize + 1]);
        let mut filled = 0;
        loop {
            match (&file).read(&mut content[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(io_error("read", &path, error)),
            }
        }
        content.truncate(filled);
        Ok(Some(content))
    }

    /// Writes a file that is there in full or not at all, also after a power cut. The caller holds the lock.
    pub fn write(&self, name: &str, content: &[u8], existing: Existing) -> Result<(), FolderError> {
        let path = self.path_of(name);
        let part = format!("{PART_START}{:016x}", u64::from_le_bytes(random()?));
        let outcome = self.write_part(&part, content).and_then(|()| match existing {
            Existing::Replace => rustix::fs::renameat(&self.opened, &part, &self.opened, name),
            // A link, other than a rename, fails where the name is taken.
            Existing::Keep => {
                rustix::fs::linkat(&self.opened, &part, &self.opened, name, AtFlags::empty())?;
                rustix::fs::unlinkat(&self.opened, &part, AtFlags::empty())
            }
        });
        if let Err(error) = outcome {
            // Best effort: the next writer sweeps what stays.
            let _ = rustix::fs::unlinkat(&self.opened, &part, AtFlags::empty());
            return Err(io_error("write", &path, error));
        }
        self.opened.sync_all().map_err(|error| io_error("sync the folder of", &path, error))
    }

    fn write_part(&self, part: &str, content: &[u8]) -> Result<(), Errno> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::openat(&self.opened, part, flags, Mode::RUSR | Mode::WUSR)?);
        // A strange umask would otherwise make a file that its owner cannot read.
        let written = file.set_permissions(Permissions::from_mode(0o600)).and_then(|()| file.write_all(content));
        written.and_then(|()| file.sync_all()).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
    }

    /// Waits for the right to write here, and removes what a writer that died had begun.
    pub fn lock(&self) -> Result<Lock, FolderError> {
        let path = self.path_of(LOCK);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.opened, LOCK, flags, Mode::RUSR | Mode::WUSR);
        let file = File::from(file.map_err(|error| io_error("open", &path, error))?);
        check_private(&file, &path, 0o600)?;
        let deadline = Instant::now() + LOCK_PATIENCE;
        loop {
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(Errno::WOULDBLOCK | Errno::INTR) if Instant::now() < deadline => {
                    thread::sleep(Duration::from_millis(10));
                }
                Err(Errno::WOULDBLOCK | Errno::INTR) => return Err(FolderError::Busy { path }),
                Err(error) => return Err(io_error("lock", &path, error)),
            }
        }
        self.sweep()?;
        Ok(Lock { _file: file })
    }

    fn sweep(&self) -> Result<(), FolderError> {
        let failed = |error| io_error("sweep", &self.path, error);
        for entry in rustix::fs::Dir::read_from(&self.opened).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_name().to_bytes().starts_with(PART_START.as_bytes()) {
                rustix::fs::unlinkat(&self.opened, entry.file_name(), AtFlags::empty()).map_err(failed)?;
            }
        }
        Ok(())
    }
}

fn io_error(doing: &'static str, path: &Path, error: impl Into<io::Error>) -> FolderError {
    FolderError::Io { doing, path: path.to_owned(), source: error.into() }
}

/// Refuses what somebody else owns or may look into; returns the length.
fn check_private(file: &File, path: &Path, wanted: u32) -> Result<u64, FolderError> {
    let meta = file.metadata().map_err(|error| io_error("examine", path, error))?;
    let path = path.to_owned();
    if !meta.is_dir() && !meta.is_file() {
        return Err(FolderError::NotAFile { path });
    }
    let (owner, user) = (meta.uid(), rustix::process::geteuid().as_raw());
    if owner != user {
        return Err(FolderError::Owner { path, owner, user });
    }
    let mode = meta.mode() & 0o7777;
    match mode & 0o077 {
        0 => Ok(meta.len()),
        _ => Err(FolderError::OpenToOthers { path, mode, wanted }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::symlink};

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).expect("our own file");
    }

    #[test]
    fn a_private_folder_is_made_once_and_checked_always() {
        let home = tempfile::tempdir().expect("a scratch folder");
        let path = home.path().join("a/vault");
        assert!(Folder::open(&path).expect("nothing there is no error").is_none());
        drop(Folder::make(&path).expect("the folder can be made"));
        assert_eq!(fs::metadata(&path).expect("it is there").mode() & 0o7777, 0o700);
        Folder::make(&path).expect("the second time finds it");

        set_mode(&path, 0o750);
        let error = Folder::open(&path).expect_err("others may look in").to_string();
        assert!(error.contains("mode 750") && error.contains("run `chmod 700 "), "{error}");
        set_mode(&path, 0o700);
        let link = home.path().join("link");
        symlink(&path, &link).expect("a link");
        assert!(matches!(Folder::open(&link), Err(FolderError::NotAFolder { .. })));
        fs::write(home.path().join("file"), "").expect("a file");
        assert!(matches!(Folder::open(&home.path().join("file")), Err(FolderError::NotAFolder { .. })));
    }

    #[test]
    fn strange_files_are_refused() {
        let home = tempfile::tempdir().expect("a scratch folder");
        let folder = Folder::make(&home.path().join("v")).expect("a folder");
        let at = |name: &str| folder.path_of(name);
        fs::write(at("open"), "x").expect("a file");
        set_mode(&at("open"), 0o604);
        fs::write(at("large"), "12345").expect("a file");
        set_mode(&at("large"), 0o600);
        symlink("large", at("link")).expect("a link");
        rustix::fs::mkfifoat(rustix::fs::CWD, at("pipe"), Mode::RUSR | Mode::WUSR).expect("a pipe");
        DirBuilder::new().mode(0o700).create(at("folder")).expect("a folder");
        let cases = [
            ("open", "run `chmod 600 "),
            ("large", "larger than 4 bytes"),
            ("link", "not a regular file"),
            ("pipe", "not a regular file"),
        ];
        for (name, words) in cases {
            let error = folder.read(name, 4).expect_err(name).to_string();
            assert!(error.contains(words), "{error}");
        }
        assert!(folder.read("folder", 4096).is_err());
        assert!(folder.read("absent", 4).expect("no error").is_none());
        assert_eq!(folder.read("large", 5).expect("it is private").expect("it is there").as_slice(), b"12345");
    }

    #[test]
    fn a_file_is_replaced_only_where_that_is_meant() {
        let home = tempfile::tempdir().expect("a scratch folder");
        let folder = Folder::make(&home.path().join("v")).expect("a folder");
        let _lock = folder.lock().expect("nobody else is here");
        folder.write("f", b"1", Existing::Keep).expect("a first file");
        folder.write("f", b"2", Existing::Keep).expect_err("it is there already");
        assert_eq!(fs::read(folder.path_of("f")).expect("it is there"), b"1");
        folder.write("f", b"3", Existing::Replace).expect("a new file");
        assert_eq!(fs::read(folder.path_of("f")).expect("it is there"), b"3");
        assert_eq!(fs::metadata(folder.path_of("f")).expect("it is there").mode() & 0o7777, 0o600);
        let mut names: Vec<_> = fs::read_dir(home.path().join("v"))
            .expect("a folder")
            .map(|entry| entry.expect("an entry").file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["f", "lock"]);
    }

    #[test]
    fn one_writer_at_a_time_and_its_leavings_are_swept() {
        let home = tempfile::tempdir().expect("a scratch folder");
        let folder = Folder::make(&home.path().join("v")).expect("a folder");
        let other = Folder::make(&home.path().join("v")).expect("a folder");
        fs::write(folder.path_of(".part-0123"), "half").expect("a file");
        let lock = folder.lock().expect("nobody else is here");
        assert!(!folder.path_of(".part-0123").exists());
        assert!(matches!(other.lock(), Err(FolderError::Busy { .. })));
        drop(lock);
        other.lock().expect("the first is gone");
    }
}
