//! Opens the file, after having made sure that it is ours to open.

use super::{
    schema::{Format, MIGRATIONS, format_of, migrate},
    trouble::{classify, is_busy},
    writer::Wait,
};
use crate::{
    error::{OpenError, StoreError},
    files::{check_ownership, io_error, make_private_dir, sync_dir},
};
use rusqlite::{Connection, ErrorCode, OpenFlags, config::DbConfig, ffi};
use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::{ffi::OsStrExt, fs::OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// The WAL is copied back by the writer at this many pages: more makes the pauses longer, fewer makes them many.
const CHECKPOINT_PAGES: u32 = 4_000;
/// Readers wait only while another process recovers the file after a crash.
const READ_PATIENCE: Duration = Duration::from_secs(10);

const SHORTEST_DATABASE: u64 = 512;

/// How a connection may use the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Write,
    Read,
    /// On a disk that cannot be written and holds no unfinished WAL: the file cannot change, so no locks are taken.
    ReadImmutable,
}

pub(crate) fn connect(path: &Path, access: Access) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW | OpenFlags::SQLITE_OPEN_EXRESCODE;
    let connection = match access {
        Access::Write => Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_READ_WRITE)?,
        Access::Read => Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_READ_ONLY)?,
        Access::ReadImmutable => Connection::open_with_flags(
            immutable_uri(path),
            flags | OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI,
        )?,
    };
    // SQLite falls back to reading by itself, and would complain of something else later.
    if access == Access::Write && connection.is_readonly("main")? {
        return Err(rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_READONLY), None));
    }
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    // All of ours, about 70: with a place too few each would be parsed anew every time.
    connection.set_prepared_statement_cache_capacity(128);
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    if access == Access::Write {
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
        connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
        connection.pragma_update(None, "temp_store", "MEMORY")?;
        connection.pragma_update(None, "cache_size", -16_384)?;
    } else {
        connection.busy_timeout(READ_PATIENCE)?;
        connection.pragma_update(None, "query_only", true)?;
    }
    Ok(connection)
}

fn immutable_uri(path: &Path) -> String {
    let mut uri = String::from("file:");
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => uri.push(char::from(*byte)),
            other => uri.push_str(&format!("%{other:02x}")),
        }
    }
    uri.push_str("?immutable=1");
    uri
}

/// The journal's file in a state directory that was found to be in order.
#[derive(Debug)]
pub(crate) struct Place {
    pub dir: PathBuf,
    pub journal: PathBuf,
}

/// Makes, or checks, the directory and the file of a store that will be written.
pub(crate) fn prepare(state_dir: &Path) -> Result<Place, OpenError> {
    if !state_dir.exists() {
        make_private_dir(state_dir)?;
    }
    let place = locate(state_dir)?;
    check_ownership(&place.dir)?;
    // SQLite would make the file with the process's umask. We make it; SQLite gives its WAL the same mode. No connection of
    // this process can exist yet when the file is new, so closing our descriptor drops nobody's lock.
    static MAKING: Mutex<()> = Mutex::new(());
    let _guard = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&place.journal);
    match made {
        Ok(file) => {
            drop(file);
            sync_dir(&place.dir)?;
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        // Where nothing can be made, the journal may exist all the same; SQLite then says what it can do with it.
        Err(_) if place.journal.exists() => {}
        Err(source) => return Err(io_error("make the journal", &place.journal, source).into()),
    }
    check_ownership(&place.journal)?;
    Ok(place)
}

/// Finds the journal in a directory, without symbolic links on the way to it.
pub(crate) fn locate(state_dir: &Path) -> Result<Place, OpenError> {
    let missing = || OpenError::Missing { path: state_dir.join("journal.db") };
    let dir = match fs::canonicalize(state_dir) {
        Ok(dir) => dir,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(missing()),
        Err(source) => return Err(io_error("look at", state_dir, source).into()),
    };
    if !dir.is_dir() {
        return Err(OpenError::NotADirectory { path: dir });
    }
    Ok(Place { journal: dir.join("journal.db"), dir })
}

/// Opens the journal for its writer and brings its format up to date.
pub(crate) fn open_for_writing(path: &Path, patience: Duration) -> Result<Connection, OpenError> {
    // A file of a newer format, or of another program, is looked at through a connection that cannot change it.
    if fs::metadata(path).is_ok_and(|meta| meta.len() > 0) {
        inspect(path)?;
    }
    let mut wait = Wait::new(patience);
    loop {
        match set_up(path) {
            Ok(connection) => return Ok(connection),
            // Another process is making the journal, or closing it as the last.
            Err(error) if is_busy(&error) => {
                wait.pause().map_err(|waited| StoreError::Busy { path: path.to_path_buf(), waited })?
            }
            Err(error) => return Err(classify("open", path, error).into()),
        }
    }
}

fn set_up(path: &Path) -> rusqlite::Result<Connection> {
    let mut connection = connect(path, Access::Write)?;
    let mode: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
    if mode != "wal" {
        connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
    }
    migrate(&mut connection, MIGRATIONS)?;
    // From here on the writer has its own fair way of waiting.
    connection.busy_timeout(Duration::ZERO)?;
    Ok(connection)
}

/// Opens the journal only to read it; returns how.
pub(crate) fn open_for_reading(path: &Path) -> Result<Access, OpenError> {
    if !path.exists() {
        return Err(OpenError::Missing { path: path.to_path_buf() });
    }
    let (format, access) = inspect(path)?;
    let newest = MIGRATIONS.len() as u32;
    match format {
        Format::Ours(version) if version == newest => Ok(access),
        Format::Ours(version) => Err(OpenError::TooOld { path: path.to_path_buf(), found: version }),
        // Somebody is just making it.
        Format::Empty => Err(OpenError::Missing { path: path.to_path_buf() }),
        Format::Foreign => Err(OpenError::NotOurs { path: path.to_path_buf() }),
    }
}

/// Reads the format of an existing file and refuses what this build must not touch.
fn inspect(path: &Path) -> Result<(Format, Access), OpenError> {
    let look = |access| connect(path, access).and_then(|connection| format_of(&connection));
    let (seen, access) = match look(Access::Read) {
        // Without a place for its index of the WAL, SQLite reads only what is promised not to change.
        Err(error) if needs_writing(&error) && !has_wal(path) => (look(Access::ReadImmutable), Access::ReadImmutable),
        seen => (seen, Access::Read),
    };
    // SQLite takes a file too short for a header for an empty database, and would write over it.
    let is_short = fs::metadata(path).is_ok_and(|meta| (1..SHORTEST_DATABASE).contains(&meta.len()));
    match seen {
        Ok(Format::Empty) if is_short => Err(OpenError::NotOurs { path: path.to_path_buf() }),
        Ok(Format::Foreign) => Err(OpenError::NotOurs { path: path.to_path_buf() }),
        Ok(Format::Ours(found)) if found as usize > MIGRATIONS.len() => {
            Err(OpenError::TooNew { path: path.to_path_buf(), found, newest: MIGRATIONS.len() as u32 })
        }
        Ok(format) => Ok((format, access)),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::NotADatabase) => {
            Err(OpenError::NotOurs { path: path.to_path_buf() })
        }
        Err(error) => Err(classify("open", path, error).into()),
    }
}

fn needs_writing(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly))
}

fn has_wal(path: &Path) -> bool {
    let mut wal = path.as_os_str().to_owned();
    wal.push("-wal");
    fs::metadata(wal).is_ok_and(|meta| meta.len() > 0)
}
