//! The tables, and how files of older formats are brought up to date.

use rusqlite::{Connection, TransactionBehavior};

/// "Adjt", in the header of every journal, so that no other program's database is taken for one.
pub(crate) const APPLICATION_ID: i32 = 0x4164_6a74;

/// Step n takes a file from format n to n + 1. A step that has been released never changes; a change is a new step, and
/// comes with a file of the format before it under `tests/it/fixtures`.
pub(crate) const MIGRATIONS: &[&str] = &[
    "
CREATE TABLE logs (
    number     INTEGER PRIMARY KEY,
    log        TEXT    NOT NULL UNIQUE,
    kind       TEXT    NOT NULL,
    title      TEXT    NOT NULL,
    parent     TEXT,
    labels     TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    epoch      INTEGER NOT NULL,
    head       INTEGER NOT NULL,
    head_hash  BLOB    NOT NULL,
    holder     TEXT,
    holder_pid INTEGER,
    held_since INTEGER,
    queue_tail INTEGER NOT NULL
) STRICT;
CREATE INDEX logs_by_parent ON logs (parent, number) WHERE parent IS NOT NULL;

CREATE TABLE events (
    log   INTEGER NOT NULL,
    seq   INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    id    TEXT    NOT NULL,
    at    INTEGER NOT NULL,
    kind  TEXT    NOT NULL,
    body  TEXT    NOT NULL,
    hash  BLOB    NOT NULL,
    PRIMARY KEY (log, seq)
) STRICT, WITHOUT ROWID;

-- An input that was taken up keeps its row without its body, so that submitting it again does nothing.
CREATE TABLE inputs (
    log       INTEGER NOT NULL,
    id        TEXT    NOT NULL,
    position  INTEGER NOT NULL,
    body      TEXT    NOT NULL,
    taken_seq INTEGER,
    PRIMARY KEY (log, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX inputs_waiting ON inputs (log, position) WHERE taken_seq IS NULL;
",
    "
CREATE TABLE purses (
    key      TEXT    NOT NULL,
    unit     TEXT    NOT NULL,
    at_least INTEGER NOT NULL,
    at_most  INTEGER NOT NULL,
    held     INTEGER NOT NULL,
    PRIMARY KEY (key, unit)
) STRICT, WITHOUT ROWID;

CREATE TABLE limits (
    scope  TEXT    NOT NULL,
    unit   TEXT    NOT NULL,
    amount INTEGER NOT NULL,
    PRIMARY KEY (scope, unit)
) STRICT, WITHOUT ROWID;

-- A hold that was closed keeps its row without its body for a while, so that opening or closing it again does nothing.
CREATE TABLE holds (
    attempt TEXT    NOT NULL PRIMARY KEY,
    log     TEXT    NOT NULL,
    node    TEXT    NOT NULL,
    at      INTEGER NOT NULL,
    body    TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX holds_open ON holds (log) WHERE body IS NOT NULL;
CREATE INDEX holds_closed ON holds (at) WHERE body IS NULL;
",
    "
ALTER TABLE logs ADD COLUMN state TEXT;
ALTER TABLE logs ADD COLUMN summary TEXT;
CREATE INDEX logs_by_state ON logs (state, number) WHERE state IS NOT NULL;

-- The body of a record lies with its versions, the newest included.
CREATE TABLE records (
    position    INTEGER PRIMARY KEY AUTOINCREMENT,
    collection  TEXT    NOT NULL,
    id          TEXT    NOT NULL,
    version     INTEGER NOT NULL,
    name        TEXT,
    parent      TEXT,
    created_at  INTEGER NOT NULL,
    archived_at INTEGER,
    UNIQUE (collection, id)
) STRICT;
CREATE UNIQUE INDEX records_by_name ON records (collection, name) WHERE name IS NOT NULL AND archived_at IS NULL;
CREATE INDEX records_in_order ON records (collection, position);
CREATE INDEX records_in_use ON records (collection, position) WHERE archived_at IS NULL;
CREATE INDEX records_by_parent ON records (collection, parent, position) WHERE parent IS NOT NULL;

CREATE TABLE record_versions (
    record  INTEGER NOT NULL,
    version INTEGER NOT NULL,
    name    TEXT,
    body    TEXT    NOT NULL,
    at      INTEGER NOT NULL,
    PRIMARY KEY (record, version)
) STRICT, WITHOUT ROWID;

CREATE TABLE requests (
    scope  TEXT    NOT NULL,
    key    TEXT    NOT NULL,
    hash   TEXT    NOT NULL,
    at     INTEGER NOT NULL,
    answer TEXT,
    PRIMARY KEY (scope, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX requests_by_age ON requests (at);
",
];

/// What a file says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// Nothing has been written yet, or only the header.
    Empty,
    Ours(u32),
    /// Somebody else's database.
    Foreign,
}

/// Reads the format; writes nothing.
pub(crate) fn format_of(connection: &Connection) -> rusqlite::Result<Format> {
    let application: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if application == APPLICATION_ID {
        return Ok(Format::Ours(u32::try_from(version).unwrap_or(u32::MAX)));
    }
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    Ok(if (application, version, tables) == (0, 0, 0) { Format::Empty } else { Format::Foreign })
}

/// Brings a file up to date in one transaction. Another process may have done it a moment before, which is as good.
pub(crate) fn migrate(connection: &mut Connection, steps: &[&str]) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let done = match format_of(&transaction)? {
        Format::Ours(version) => version as usize,
        Format::Empty | Format::Foreign => 0,
    };
    if done >= steps.len() {
        return Ok(());
    }
    for step in &steps[done..] {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", steps.len() as i64)?;
    transaction.commit()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_run_once_each_and_in_order() {
        let mut connection = Connection::open_in_memory().unwrap();
        assert_eq!(format_of(&connection).unwrap(), Format::Empty);
        let steps = ["CREATE TABLE a (x)", "INSERT INTO a VALUES (1)", "UPDATE a SET x = x + 1"];
        for (upto, expected) in [(2, 1), (2, 1), (3, 2), (3, 2)] {
            migrate(&mut connection, &steps[..upto]).unwrap();
            let x: i64 = connection.query_row("SELECT x FROM a", [], |row| row.get(0)).unwrap();
            assert_eq!(x, expected);
            assert_eq!(format_of(&connection).unwrap(), Format::Ours(upto as u32));
        }
    }

    #[test]
    fn a_step_that_fails_leaves_the_old_format() {
        let mut connection = Connection::open_in_memory().unwrap();
        let steps = ["CREATE TABLE a (x)", "CREATE TABLE b (x); CREATE TABLE a (x)"];
        migrate(&mut connection, &steps[..1]).unwrap();
        assert!(migrate(&mut connection, &steps).is_err());
        assert_eq!(format_of(&connection).unwrap(), Format::Ours(1));
        let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).unwrap();
        assert_eq!(tables, 1, "the half of the step is gone");
    }

    #[test]
    fn other_programs_files_are_told_apart() {
        let cases = [
            ("CREATE TABLE theirs (x)", Format::Foreign),
            ("PRAGMA user_version = 3", Format::Foreign),
            ("PRAGMA application_id = 7", Format::Foreign),
            ("PRAGMA application_id = 0x41646a74; PRAGMA user_version = 9", Format::Ours(9)),
        ];
        for (sql, expected) in cases {
            let connection = Connection::open_in_memory().unwrap();
            connection.execute_batch(sql).unwrap();
            assert_eq!(format_of(&connection).unwrap(), expected, "{sql}");
        }
    }

    /// A released step must not change: this file differs only when a step was added.
    #[test]
    fn the_steps_are_golden() {
        insta::assert_snapshot!(MIGRATIONS.join("\n-- next step\n"));
    }
}
