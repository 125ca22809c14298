//! What may be opened, and what is left alone.

use crate::support::*;
use adj_domain::BlobHash;
use adj_store::{Batch, Expect, OpenError, Replacement, RequestKey, SqliteStore, Store, verify};
use rusqlite::Connection;
use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
};

fn name_of(error: OpenError) -> String {
    let shown = format!("{error:?}");
    shown.split([' ', '{']).next().unwrap().to_owned()
}

fn sql(path: &Path, sql: &str) {
    Connection::open(path).unwrap().execute_batch(sql).unwrap();
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn files_that_are_not_ours_to_write_are_left_as_they_are() {
    type Make = fn(&Path);
    let cases: [(&str, Make, &str, &str); 8] = [
        // what lies there                to write, to read
        (
            "a newer format",
            |path| {
                drop(open(path.parent().unwrap()));
                sql(path, "PRAGMA user_version = 99");
            },
            "TooNew",
            "TooNew",
        ),
        ("text", |path| fs::write(path, "notes\n".repeat(500)).unwrap(), "NotOurs", "NotOurs"),
        ("a short text", |path| fs::write(path, "x").unwrap(), "NotOurs", "NotOurs"),
        ("noise", |path| fs::write(path, [7; 9_000]).unwrap(), "NotOurs", "NotOurs"),
        ("another program's database", |path| sql(path, "CREATE TABLE t (x)"), "NotOurs", "NotOurs"),
        (
            "another program's WAL database",
            |path| sql(path, "PRAGMA journal_mode = wal; PRAGMA application_id = 5; CREATE TABLE t (x)"),
            "NotOurs",
            "NotOurs",
        ),
        ("an empty file", |path| fs::write(path, "").unwrap(), "opened", "Missing"),
        ("nothing", |_| {}, "opened", "Missing"),
    ];
    for (name, make, to_write, to_read) in cases {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.db");
        make(&path);
        if path.exists() {
            set_mode(&path, 0o600);
        }
        let before = fs::read(&path).ok();
        let read = SqliteStore::open_read_only(dir.path()).map_or_else(name_of, |_| "opened".to_owned());
        assert_eq!(read, to_read, "{name}, to read");
        assert_eq!(fs::read(&path).ok(), before, "{name}, after reading");
        let write = SqliteStore::open(dir.path()).map_or_else(name_of, |_| "opened".to_owned());
        assert_eq!(write, to_write, "{name}, to write");
        if to_write != "opened" {
            assert_eq!(fs::read(&path).ok(), before, "{name}, after writing");
        }
    }
}

#[test]
fn a_newer_formats_wal_is_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, wal) = (dir.path().join("journal.db"), dir.path().join("journal.db-wal"));
    let image = tempfile::tempdir().unwrap();
    {
        let store = open(dir.path());
        sql(&journal, "PRAGMA user_version = 99");
        for path in [&journal, &wal] {
            fs::copy(path, image.path().join(path.file_name().unwrap())).unwrap();
        }
        drop(store);
    }
    let before = ["journal.db", "journal.db-wal"].map(|name| fs::read(image.path().join(name)).unwrap());
    assert!(!before[1].is_empty());
    let refused = SqliteStore::open(image.path()).map_or_else(name_of, |_| "opened".to_owned());
    assert_eq!(refused, "TooNew");
    let after = ["journal.db", "journal.db-wal"].map(|name| fs::read(image.path().join(name)).unwrap());
    assert!(before == after, "a byte has changed");
}

#[test]
fn nobody_else_can_look_into_a_new_store() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("a/b/state");
    block_on(async {
        let store = open(&state);
        claimed(&store, &log("a")).await;
        let hash = store.put_blob(b"secret").await.unwrap();
        let (shelf, name) = hash.as_str().split_at(2);
        let mode = |path: &str| fs::metadata(state.join(path)).unwrap().permissions().mode() & 0o777;
        for (path, expected) in [
            ("", 0o700),
            ("nodes", 0o700),
            ("blobs", 0o700),
            ("journal.db", 0o600),
            ("journal.db-wal", 0o600),
            ("journal.db-shm", 0o600),
            ("turn.lock", 0o600),
            ("nodes/main.lock", 0o600),
            (&format!("blobs/{shelf}"), 0o700),
            (&format!("blobs/{shelf}/{name}"), 0o600),
        ] {
            assert_eq!(mode(path), expected, "{path:?}");
        }
    });
}

#[test]
fn what_others_could_change_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let journal = dir.path().join("journal.db");
    let opened = || SqliteStore::open(dir.path()).map_or_else(name_of, |_| "opened".to_owned());
    for (dir_mode, file_mode, expected) in [
        (0o700, 0o600, "opened"),
        (0o755, 0o600, "opened"),
        (0o770, 0o600, "OpenToOthers"),
        (0o777, 0o600, "OpenToOthers"),
        (0o700, 0o640, "OpenToOthers"),
        (0o700, 0o606, "OpenToOthers"),
    ] {
        set_mode(dir.path(), dir_mode);
        set_mode(&journal, file_mode);
        assert_eq!(opened(), expected, "{dir_mode:o} {file_mode:o}");
    }
    set_mode(dir.path(), 0o700);

    // Root can give a directory away; anybody else finds one of root's.
    let strange = if rustix::process::geteuid().is_root() {
        chown(dir.path(), Some(65_534), None).unwrap();
        dir.path()
    } else {
        Path::new("/usr")
    };
    let refused = SqliteStore::open(strange).map_or_else(name_of, |_| "opened".to_owned());
    assert_eq!(refused, "WrongOwner");
}

#[test]
fn paths_that_lead_nowhere_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let to_write = |path: &Path| SqliteStore::open(path).map_or_else(name_of, |_| "opened".to_owned());
    let to_read = |path: &Path| SqliteStore::open_read_only(path).map_or_else(name_of, |_| "opened".to_owned());
    assert_eq!(to_write(&file), "NotADirectory");
    assert_eq!(to_read(&file), "NotADirectory");
    assert_eq!(to_write(&file.join("below")), "Store(Io");
    assert_eq!(to_read(&dir.path().join("missing")), "Missing");
    assert!(!dir.path().join("missing").exists());
    // A link to the state directory is followed, a link in place of the journal is not.
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(dir.path().join("real"), &link).unwrap();
    fs::create_dir(dir.path().join("real")).unwrap();
    set_mode(&dir.path().join("real"), 0o700);
    assert_eq!(to_write(&link), "opened");
    let trap = dir.path().join("trap");
    fs::create_dir(&trap).unwrap();
    set_mode(&trap, 0o700);
    std::os::unix::fs::symlink(dir.path().join("real/journal.db"), trap.join("journal.db")).unwrap();
    assert_eq!(to_write(&trap), "Store(Io");
}

/// Each released format has a file here; today's code must bring it up to date and go on with it.
#[test]
fn files_of_every_format_are_opened() {
    let formats = [
        // its number and file                         open holds
        (1, include_str!("fixtures/format-1.sql"), 0),
        (2, include_str!("fixtures/format-2.sql"), 1),
    ];
    for (format, made_by_it, open_holds) in formats {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.db");
        sql(&path, made_by_it);
        sql(&path, "PRAGMA journal_mode = wal");
        set_mode(&path, 0o600);
        block_on(async {
            let store = open(dir.path());
            let shown: Vec<String> =
                read_all(&store, &log("a")).await.iter().map(|event| serde_json::to_string(event).unwrap()).collect();
            insta::assert_snapshot!(format!("the_log_of_format_{format}"), shown.join("\n"));
            assert_eq!(verify(&store, &log("a")).await.unwrap().head, 3, "format {format}");
            assert_eq!(store.pending(&log("a")).await.unwrap(), [input("waiting")]);
            assert_eq!(store.logs(&Default::default()).await.unwrap().len(), 2);
            let claim = store.claim(&log("a"), &node("now")).await.unwrap();
            assert_eq!(claim.fence.epoch(), 3);
            store.append(&claim.fence, Expect::Head(3), batch(&["4"])).await.unwrap();
            assert_eq!(verify(&store, &log("a")).await.unwrap().head, 4);
            assert_eq!(store.holds(None).await.unwrap().len(), open_holds);
            let spend = Batch { ledger: vec![limit(60), opened("x", 5)], ..batch(&["5"]) };
            store.append(&claim.fence, Expect::Head(4), spend).await.unwrap();
            assert_eq!(store.holds(None).await.unwrap().len(), open_holds + 1);

            // Nobody had said what the log was doing; its waiting input shows that something is left to do.
            assert_eq!(store.log(&log("a")).await.unwrap().unwrap().state, None);
            assert_eq!(store.ready(None, 10).await.unwrap().len(), 0, "it is held");
            let says = Batch { state: Some(state("idle")), ..Batch::default() };
            store.append(&claim.fence, Expect::Head(5), says).await.unwrap();
            store.release(claim.fence).await.unwrap();
            assert_eq!(store.ready(None, 10).await.unwrap()[0].state, Some(state("idle")));
            store.records().insert(new_agent("a")).await.unwrap();
        });
        let version: i64 =
            Connection::open(&path).unwrap().pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
        assert_eq!(version, 3, "the newest format");
    }
}

#[test]
#[ignore = "writes the fixture of the newest format, by hand, before its release"]
fn write_fixture() {
    let Some(dir) = child_dir() else { return };
    block_on(async {
        let store = open(&dir);
        store.create(&run_log("r"), meta("the run")).await.unwrap();
        let full = adj_store::LogMeta {
            title: "a session".to_owned(),
            parent: Some(run_log("r")),
            labels: [("repository".to_owned(), "x".to_owned())].into(),
        };
        store.create(&log("a"), full).await.unwrap();
        store.submit(&log("a"), &input("1")).await.unwrap();
        let first = store.claim(&log("a"), &node("first")).await.unwrap();
        let mut take = batch(&["1", "2"]);
        take.takes = vec![id("1")];
        store.append(&first.fence, Expect::Head(0), take).await.unwrap();
        let second = store.claim(&log("a"), &node("first")).await.unwrap();
        let ledger = vec![limit(60), opened("open", 5), opened("shut", 2), closed("shut", 2)];
        let rest = Batch { ledger, state: Some(state("running")), ..batch(&["3"]) };
        store.append(&second.fence, Expect::Head(2), rest).await.unwrap();
        let records = store.records();
        for name in ["kept", "gone"] {
            records.insert(new_agent(name)).await.unwrap();
            let body = "[2]".to_owned();
            let change = Replacement { key: agent(name), expected: Some(1), name: Some(name.to_owned()), body };
            records.replace(change).await.unwrap();
        }
        records.archive(&agent("gone")).await.unwrap();
        let request = RequestKey::new("token", "key");
        store.requests().remember(&request, &BlobHash::of(b"request")).await.unwrap();
        store.requests().answer(&request, "{}").await.unwrap();
        store.submit(&log("a"), &input("waiting")).await.unwrap();
    });
}
