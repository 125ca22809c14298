//! The one seat of a state folder: who holds it is the daemon, for as long as the process lives.

use adj_domain::Timestamp;
use adj_vault::{Folder, FolderError};
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File, TryLockError},
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

/// The name of the lock file. Who looks whether it is held takes a shared lock, for microseconds.
const FILE: &str = "seat";
const ATTEMPTS: u32 = 40;
const BETWEEN: Duration = Duration::from_millis(5);

/// Who sits there, as the lock file says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    pub pid: u32,
    pub version: String,
    pub started_at: Timestamp,
}

impl Holder {
    pub fn of_this_process(version: &str) -> Self {
        Self { pid: std::process::id(), version: version.to_owned(), started_at: Timestamp::now() }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum SeatError {
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error("{} works in {} already", name(holder), folder.display())]
    Taken { holder: Option<Holder>, folder: PathBuf },
    #[error("cannot {doing} {}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
}

fn name(holder: &Option<Holder>) -> String {
    match holder {
        Some(holder) => format!("a daemon (process {}, since {})", holder.pid, holder.started_at.strftime("%F %H:%MZ")),
        None => "a daemon".to_owned(),
    }
}

/// The seat, held. The kernel lets go of it when the process dies, however that happens.
#[derive(Debug)]
pub struct Seat {
    folder: PathBuf,
    holder: Holder,
    _file: File,
}

impl Seat {
    /// Takes the seat of this folder, which is made where there is none.
    pub fn take(folder: &Path, holder: Holder) -> Result<Self, SeatError> {
        Folder::make(folder)?;
        let path = folder.join(FILE);
        let failed = |doing, error: io::Error| SeatError::Io { doing, path: path.clone(), source: error };
        for _ in 0..ATTEMPTS {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let file = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR);
            let mut file = File::from(file.map_err(|error| failed("open", error.into()))?);
            match file.try_lock() {
                // Somebody may have removed the file between our opening and our locking it.
                Ok(()) if is_same(&file, &path) => {
                    let text = serde_json::to_vec(&holder).expect("a holder is plain data");
                    let written = file.set_len(0).and_then(|()| file.write_all(&text));
                    written.map_err(|error| failed("write", error))?;
                    return Ok(Self { folder: folder.to_owned(), holder, _file: file });
                }
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => thread::sleep(BETWEEN),
                Err(TryLockError::Error(error)) => return Err(failed("lock", error)),
            }
        }
        let holder = fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok());
        Err(SeatError::Taken { holder, folder: folder.to_owned() })
    }

    /// The private folder that the seat is for.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn holder(&self) -> &Holder {
        &self.holder
    }
}

fn is_same(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seat_is_for_one() {
        let home = tempfile::tempdir().expect("a scratch folder");
        let folder = home.path().join("daemon");
        let holder = |pid| Holder { pid, version: "1".to_owned(), started_at: Timestamp::UNIX_EPOCH };
        let seat = Seat::take(&folder, holder(7)).expect("nobody is here");
        let error = Seat::take(&folder, holder(8)).expect_err("somebody is here").to_string();
        assert_eq!(
            error,
            format!("a daemon (process 7, since 1970-01-01 00:00Z) works in {} already", folder.display())
        );
        drop(seat);
        // What the dead have left says nothing.
        assert_eq!(Seat::take(&folder, holder(123_456)).expect("nobody is here").holder().pid, 123_456);
        assert_eq!(Seat::take(&folder, holder(9)).expect("nobody is here").folder(), folder);
    }
}
