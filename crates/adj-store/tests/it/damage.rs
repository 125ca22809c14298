//! Damage and tampering are found, named, and never a panic.

use crate::support::*;
use adj_domain::{BlobHash, ChainBreak};
use adj_store::{
    AppendError, Expect, RecordFilter, ReplaceError, Replacement, SqliteStore, Store, StoreError, VerifyError, verify,
};
use rusqlite::Connection;
use std::path::Path;

const EVENTS: u64 = 9;

/// Makes a store with one log of nine events, and closes it.
fn made(dir: &Path) {
    block_on(async {
        let store = open(dir);
        let fence = claimed(&store, &log("a")).await;
        append_each(&store, &fence, 1..=EVENTS).await;
        let other = claimed(&store, &log("b")).await;
        append_each(&store, &other, 1..=EVENTS).await;
    });
}

#[test]
fn tampering_is_found() {
    let cases = [
        // what is done                                                        what is found
        ("UPDATE events SET body = replace(body, '\"4\"', '\"5\"') WHERE log = 1 AND seq = 4", "changed 4"),
        ("UPDATE events SET body = 'not JSON' WHERE log = 1 AND seq = 4", "corrupt"),
        ("UPDATE events SET body = CAST(x'22ff22' AS TEXT) WHERE log = 1 AND seq = 4", "corrupt"),
        ("UPDATE events SET id = 'sevt_x' WHERE log = 1 AND seq = 4", "changed 4"),
        ("UPDATE events SET id = 'no id' WHERE log = 1 AND seq = 4", "corrupt"),
        ("UPDATE events SET kind = 'test.other' WHERE log = 1 AND seq = 4", "changed 4"),
        ("UPDATE events SET at = at + 1 WHERE log = 1 AND seq = 4", "changed 4"),
        ("UPDATE events SET at = 9223372036854775807 WHERE log = 1 AND seq = 4", "corrupt"),
        ("UPDATE events SET epoch = 7 WHERE log = 1 AND seq = 4", "changed 4"),
        ("UPDATE events SET epoch = -1 WHERE log = 1 AND seq = 4", "corrupt"),
        ("UPDATE events SET hash = zeroblob(32) WHERE log = 1 AND seq = 4", "changed 4"),
        ("UPDATE events SET hash = x'00' WHERE log = 1 AND seq = 4", "corrupt"),
        ("DELETE FROM events WHERE log = 1 AND seq = 4", "missing 4"),
        ("DELETE FROM events WHERE log = 1 AND seq = 1", "missing 1"),
        ("DELETE FROM events WHERE log = 1 AND seq >= 8", "tail missing 9"),
        ("DELETE FROM events WHERE log = 1", "tail missing 9"),
        (
            "UPDATE events SET seq = 99 WHERE log = 1 AND seq = 4; UPDATE events SET seq = 4 WHERE log = 1 AND seq = 5;
             UPDATE events SET seq = 5 WHERE log = 1 AND seq = 99",
            "changed 4",
        ),
        // The same event, a second time.
        (
            "INSERT INTO events SELECT log, 10, epoch, id, at, kind, body, hash FROM events WHERE log = 1 AND seq = 9",
            "tail missing 9",
        ),
        ("UPDATE logs SET head = 8 WHERE number = 1", "changed 8"),
        ("UPDATE logs SET head = 10 WHERE number = 1", "tail missing 10"),
        ("UPDATE logs SET head_hash = zeroblob(32) WHERE number = 1", "changed 9"),
        ("UPDATE logs SET head_hash = x'' WHERE number = 1", "corrupt"),
        ("UPDATE logs SET labels = '[' WHERE number = 1", "corrupt"),
        // Another log's events under this log's name.
        (
            "UPDATE events SET log = 3 WHERE log = 1; UPDATE events SET log = 1 WHERE log = 2;
             UPDATE events SET log = 2 WHERE log = 3",
            "changed 1",
        ),
        // A cut tail whose head was cut with it: found only by a hash that was kept elsewhere.
        (
            "DELETE FROM events WHERE log = 1 AND seq = 9; UPDATE logs SET head = 8,
             head_hash = (SELECT hash FROM events WHERE log = 1 AND seq = 8) WHERE number = 1",
            "other hash",
        ),
    ];
    let master = tempfile::tempdir().unwrap();
    made(master.path());
    let whole = block_on(verify(&open(master.path()), &log("a"))).unwrap();
    for (sql, expected) in cases {
        let dir = tempfile::tempdir().unwrap();
        fs::copy(master.path().join("journal.db"), dir.path().join("journal.db")).unwrap();
        Connection::open(dir.path().join("journal.db")).unwrap().execute_batch(sql).unwrap();
        let found = match block_on(verify(&SqliteStore::open(dir.path()).unwrap(), &log("a"))) {
            Ok(verified) if verified == whole => "nothing".to_owned(),
            Ok(_) => "other hash".to_owned(),
            Err(VerifyError::Chain(ChainBreak::Missing { expected, .. })) => format!("missing {expected}"),
            Err(VerifyError::Chain(ChainBreak::Changed { seq, .. })) => format!("changed {seq}"),
            Err(VerifyError::Chain(ChainBreak::TailMissing { expected, .. })) => format!("tail missing {expected}"),
            Err(VerifyError::Chain(ChainBreak::EpochWentBack { seq, .. })) => format!("epoch {seq}"),
            Err(VerifyError::Store(StoreError::Corrupt { .. })) => "corrupt".to_owned(),
            Err(error) => format!("{error:?}"),
        };
        assert_eq!(found, expected, "{sql}");
    }
}

#[test]
fn damage_to_one_row_is_that_logs_business() {
    let dir = tempfile::tempdir().unwrap();
    made(dir.path());
    let raw = Connection::open(dir.path().join("journal.db")).unwrap();
    raw.execute_batch(
        "UPDATE logs SET head_hash = x'00' WHERE number = 1;
         INSERT INTO logs SELECT 3, 'sesn_c', kind, title, parent, labels, created_at, updated_at, epoch, head, head_hash,
             holder, holder_pid, held_since, queue_tail, state, summary FROM logs WHERE number = 2;
         INSERT INTO events SELECT 3, 10, epoch, id, at, kind, body, hash FROM events WHERE log = 2 AND seq = 9",
    )
    .unwrap();
    drop(raw);
    block_on(async {
        let store = open(dir.path());
        let refused = store.claim(&log("a"), &node("n")).await;
        assert!(format!("{refused:?}").contains("Corrupt"), "{refused:?}");
        // Where the next event should go, there is one already.
        let fence = store.claim(&log("c"), &node("n")).await.unwrap().fence;
        let refused = store.append(&fence, Expect::Any, batch(&["10"])).await;
        assert!(matches!(refused, Err(AppendError::Store(StoreError::Corrupt { .. }))), "{refused:?}");
        let fence = store.claim(&log("b"), &node("n")).await.unwrap().fence;
        store.append(&fence, Expect::Head(EVENTS), batch(&["10"])).await.unwrap();
    });
}

#[test]
fn damage_to_one_record_is_named_and_leaves_the_others() {
    let cases = [
        // what is done to the record a                                     what getting it says
        ("UPDATE record_versions SET body = '{' WHERE record = 1", "record agents/a: the body is not JSON"),
        ("UPDATE record_versions SET body = CAST(x'22ff22' AS TEXT) WHERE record = 1", "record agents/a"),
        ("UPDATE record_versions SET at = 9223372036854775807 WHERE record = 1", "record agents/a"),
        ("UPDATE record_versions SET version = -1 WHERE record = 1", "record agents/a"),
        ("DELETE FROM record_versions WHERE record = 1", "record agents/a"),
        ("UPDATE records SET created_at = -9223372036854775808 WHERE id = 'a'", "record agents/a"),
    ];
    for (sql, expected) in cases {
        let dir = tempfile::tempdir().unwrap();
        block_on(async {
            let store = open(dir.path());
            for id in ["a", "b"] {
                store.records().insert(new_agent(id)).await.unwrap();
            }
            Connection::open(dir.path().join("journal.db")).unwrap().execute_batch(sql).unwrap();
            let records = store.records();
            let found = records.get(&agent("a")).await;
            assert!(
                matches!(&found, Err(StoreError::Corrupt { what, .. }) if what.starts_with(expected)),
                "{sql}: {found:?}"
            );
            let change =
                Replacement { key: agent("a"), expected: None, name: Some("a".to_owned()), body: "[2]".to_owned() };
            let refused = records.replace(change.clone()).await;
            assert!(matches!(refused, Err(ReplaceError::Store(StoreError::Corrupt { .. }))), "{sql}: {refused:?}");
            // Its neighbours do not notice, and it can be removed.
            records.replace(Replacement { key: agent("b"), name: Some("b".to_owned()), ..change }).await.unwrap();
            assert!(records.delete(&agent("a")).await.unwrap(), "{sql}");
            assert_eq!(records.list(&RecordFilter::of("agents")).await.unwrap().records.len(), 1, "{sql}");
            records.insert(new_agent("a")).await.unwrap();
        });
    }
}

#[test]
fn a_flipped_byte_is_found_or_harmless() {
    let dir = tempfile::tempdir().unwrap();
    made(dir.path());
    let whole = fs::read(dir.path().join("journal.db")).unwrap();
    let expected: Vec<_> = (1..=EVENTS).map(|number| number.to_string()).collect();
    let mut found = 0;
    // A step without a common factor with the page size visits all kinds of places.
    for at in (0..whole.len()).step_by(397) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x41;
        let dir = tempfile::tempdir().unwrap();
        fs::copy_private(&bytes, dir.path());
        let Ok(store) = SqliteStore::open(dir.path()) else {
            found += 1;
            continue;
        };
        block_on(async {
            match verify(&store, &log("a")).await {
                Ok(_) => assert_eq!(names(&read_all(&store, &log("a")).await), expected, "byte {at}"),
                Err(VerifyError::Chain(_) | VerifyError::Store(StoreError::Corrupt { .. })) => found += 1,
                // The log's own name was hit.
                Err(VerifyError::Store(StoreError::UnknownLog { .. })) => found += 1,
                Err(error) => panic!("byte {at}: {error:?}"),
            }
            // Writing on it may be refused, and must not panic or hang.
            let _ = store.create(&log("new"), meta("new")).await;
        });
    }
    assert!(found > 0, "some byte matters");
}

#[test]
fn writing_stops_at_a_damaged_page() {
    let dir = tempfile::tempdir().unwrap();
    made(dir.path());
    let mut bytes = fs::read(dir.path().join("journal.db")).unwrap();
    let raw = Connection::open(dir.path().join("journal.db")).unwrap();
    let root: i64 =
        raw.query_row("SELECT rootpage FROM sqlite_schema WHERE name = 'events'", [], |row| row.get(0)).unwrap();
    drop(raw);
    let start = (root as usize - 1) * 4096;
    bytes[start..start + 64].fill(0xff);
    let hurt = tempfile::tempdir().unwrap();
    fs::copy_private(&bytes, hurt.path());
    block_on(async {
        let store = open(hurt.path());
        let read = store.read(&log("a"), 0, 100).await;
        assert!(matches!(read, Err(StoreError::Corrupt { .. })), "{read:?}");
        // Other tables are whole, so the log can still be claimed; the append finds the damage.
        let fence = store.claim(&log("a"), &node("n")).await.unwrap().fence;
        let first = store.append(&fence, Expect::Any, batch(&["x"])).await;
        assert!(matches!(first, Err(AppendError::Store(StoreError::Corrupt { .. }))), "{first:?}");
        let later = store.create(&log("c"), meta("c")).await;
        assert!(matches!(later, Err(StoreError::Stopped { .. })), "{later:?}");
        assert_eq!(store.log(&log("a")).await.unwrap().unwrap().head, EVENTS, "reading goes on");
    });
}

#[test]
fn a_blob_that_changed_is_named_and_can_be_put_again() {
    let dir = tempfile::tempdir().unwrap();
    block_on(async {
        let store = open(dir.path());
        let hash = store.put_blob(b"the whole output").await.unwrap();
        let (shelf, name) = hash.as_str().split_at(2);
        let path = dir.path().join("blobs").join(shelf).join(name);
        for bytes in [&b"the whole outpux"[..], b"the", b""] {
            fs::write(&path, bytes).unwrap();
            let read = store.get_blob(&hash).await;
            assert!(
                matches!(&read, Err(StoreError::Corrupt { path: named, .. }) if *named == path.canonicalize().unwrap())
            );
            assert_eq!(store.put_blob(b"the whole output").await.unwrap(), hash);
            assert_eq!(store.get_blob(&hash).await.unwrap().unwrap(), b"the whole output");
        }
        // What is no file at all is not a blob either.
        let other = BlobHash::of(b"other");
        let (shelf, name) = other.as_str().split_at(2);
        fs::create_dir_all(dir.path().join("blobs").join(shelf).join(name)).unwrap();
        assert!(matches!(store.get_blob(&other).await, Err(StoreError::Io { .. })));
        assert!(matches!(store.put_blob(b"other").await, Err(StoreError::Io { .. })));
        assert_eq!(fs::read_dir(dir.path().join("blobs/unfinished")).unwrap().count(), 0);
    });
}

mod fs {
    pub use std::fs::*;
    use std::{io::Write, os::unix::fs::OpenOptionsExt, path::Path};

    /// Writes a journal with the bytes into a directory.
    pub fn copy_private(bytes: &[u8], dir: &Path) {
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(dir.join("journal.db"));
        file.unwrap().write_all(bytes).unwrap();
    }
}
