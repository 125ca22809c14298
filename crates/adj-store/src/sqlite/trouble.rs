//! Gives SQLite's failures the names that callers know.

use crate::error::StoreError;
use rusqlite::{ErrorCode, ffi};
use std::{path::Path, sync::Arc, time::Duration};

/// Why work inside a transaction ended early.
#[derive(Debug)]
pub(crate) enum Stop<E> {
    /// The caller's business; its neighbours in the same commit do not notice.
    Refused(E),
    /// A row is not what any version of this program writes.
    Damaged(String),
    /// The database itself failed, and with it the whole transaction.
    Failed(rusqlite::Error),
}

impl<E> From<rusqlite::Error> for Stop<E> {
    fn from(error: rusqlite::Error) -> Self {
        match damage(&error) {
            Some(what) => Self::Damaged(what),
            None => Self::Failed(error),
        }
    }
}

impl<E: From<StoreError>> Stop<E> {
    /// Settles what the caller is told.
    pub(crate) fn into_error(self, doing: &'static str, path: &Path) -> E {
        match self {
            Self::Refused(error) => error,
            Self::Damaged(what) => damaged(path, what).into(),
            Self::Failed(error) => classify(doing, path, error).into(),
        }
    }
}

/// A value of the wrong type or out of range, a number that is taken, a column that is gone: the engine works, and what
/// it finds is not what we write.
fn damage(error: &rusqlite::Error) -> Option<String> {
    use rusqlite::Error as E;
    match error {
        E::FromSqlConversionFailure(..)
        | E::IntegralValueOutOfRange(..)
        | E::InvalidColumnType(..)
        | E::Utf8Error(..) => Some(error.to_string()),
        _ if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => Some(error.to_string()),
        E::SqliteFailure(code, _) | E::SqlInputError { error: code, .. } if code.extended_code == ffi::SQLITE_ERROR => {
            Some(error.to_string())
        }
        _ => None,
    }
}

pub(crate) fn damaged(path: &Path, what: impl Into<String>) -> StoreError {
    StoreError::Corrupt { path: path.to_path_buf(), what: what.into() }
}

/// Says what a failure of SQLite means for the store.
pub(crate) fn classify(doing: &'static str, path: &Path, error: rusqlite::Error) -> StoreError {
    let path = path.to_path_buf();
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => StoreError::Full { path },
        Some(ErrorCode::ReadOnly) => StoreError::ReadOnly { path },
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            StoreError::Corrupt { path, what: error.to_string() }
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreError::Busy { path, waited: Duration::ZERO },
        _ => StoreError::Io { doing, path, source: Arc::new(error) },
    }
}

pub(crate) fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// Returns whether going on to write after this failure could lose what was acknowledged: after a failed sync nobody
/// knows what the disk holds, and writing to a damaged tree damages more of it.
pub(crate) fn is_fatal(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::SystemIoFailure
                | ErrorCode::DatabaseCorrupt
                | ErrorCode::NotADatabase
                | ErrorCode::CannotOpen
                | ErrorCode::InternalMalfunction
        )
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_have_names() {
        let cases = [
            // code                       name         fatal
            (ffi::SQLITE_FULL, "Full", false),
            (ffi::SQLITE_READONLY, "ReadOnly", false),
            (ffi::SQLITE_IOERR_FSYNC, "Io", true),
            (ffi::SQLITE_IOERR_WRITE, "Io", true),
            (ffi::SQLITE_CORRUPT, "Corrupt", true),
            (ffi::SQLITE_NOTADB, "Corrupt", true),
            (ffi::SQLITE_BUSY, "Busy", false),
            (ffi::SQLITE_NOMEM, "Io", false),
        ];
        for (code, name, fatal) in cases {
            let error = || rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
            let shown = format!("{:?}", classify("write", Path::new("j"), error()));
            assert!(shown.starts_with(name), "{code}: {shown}");
            assert_eq!(is_fatal(&error()), fatal, "{code}");
        }
    }
}
