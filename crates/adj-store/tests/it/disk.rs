//! Disks that are full, limited or read-only: typed errors, nothing lost, and work goes on where it can.

use crate::support::*;
use adj_domain::BlobHash;
use adj_store::{
    AppendError, Batch, Expect, Fence, InsertError, NewRecord, OpenError, RecordFilter, ReplaceError, Replacement,
    RequestKey, SqliteOptions, SqliteStore, Store, StoreError, verify,
};
use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

fn large(name: &str) -> Batch {
    let mut event = event(name);
    event.body = format!("\"{}\"", "x".repeat(60_000));
    Batch::events(vec![event])
}

/// Appends large events until one is refused; returns the head and the refusal.
async fn fill(store: &dyn Store, fence: &Fence) -> (u64, AppendError) {
    let mut head = store.log(fence.log()).await.unwrap().unwrap().head;
    loop {
        match store.append(fence, Expect::Head(head), large("large")).await {
            Ok(_) => head += 1,
            Err(error) => return (head, error),
        }
        assert!(head < 10_000, "the disk has no end");
    }
}

fn is_full(error: &AppendError) -> bool {
    matches!(error, AppendError::Store(StoreError::Full { .. }))
}

#[test]
fn a_full_journal_refuses_and_goes_on_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let open = |most_bytes| {
        let options = SqliteOptions { most_bytes, ..SqliteOptions::default() };
        SqliteStore::open_with(dir.path(), options).unwrap()
    };
    block_on(async {
        let store = open(Some(1 << 20));
        let fence = claimed(&store, &log("a")).await;
        let (head, refused) = fill(&store, &fence).await;
        assert!(head > 5 && is_full(&refused), "{head}, {refused:?}");
        let records = store.records();
        records.insert(new_agent("small")).await.unwrap();
        let large_body = format!("\"{}\"", "x".repeat(60_000));
        let refused = records.insert(NewRecord { body: large_body.clone(), ..new_agent("large") }).await;
        assert!(matches!(refused, Err(InsertError::Store(StoreError::Full { .. }))), "{refused:?}");
        let change = Replacement { key: agent("small"), expected: Some(1), name: None, body: large_body };
        let refused = records.replace(change.clone()).await;
        assert!(matches!(refused, Err(ReplaceError::Store(StoreError::Full { .. }))), "{refused:?}");
        assert_eq!(records.list(&RecordFilter::of("agents")).await.unwrap().records.len(), 1);
        // What still fits is not refused, and what was written is there.
        let small = store.append(&fence, Expect::Head(head), batch(&["small"])).await;
        assert_eq!(small.unwrap()[0].seq, head + 1);
        assert_eq!(verify(&store, &log("a")).await.unwrap().head, head + 1);
        drop(store);

        let store = open(None);
        let fence = store.claim(&log("a"), &node("main")).await.unwrap().fence;
        store.append(&fence, Expect::Head(head + 1), large("more")).await.unwrap();
        assert_eq!(store.records().replace(change).await.unwrap().version, 2);
        verify(&store, &log("a")).await.unwrap();
    });
}

/// Runs on a tmpfs of a megabyte and a half, with a ballast file that can be taken away.
#[test]
#[ignore = "run by its parent in a namespace of its own"]
fn on_a_small_disk() {
    let Some(dir) = child_dir() else { return };
    let ballast = dir.join("ballast");
    fs::write(&ballast, vec![0; 400_000]).unwrap();
    let state = dir.join("state");
    block_on(async {
        let store = SqliteStore::open(&state).unwrap();
        let fence = claimed(&store, &log("a")).await;
        let (head, refused) = fill(&store, &fence).await;
        assert!(head > 3 && is_full(&refused), "{head}, {refused:?}");
        let blob = store.put_blob(&vec![7; 2 << 20]).await;
        assert!(matches!(blob, Err(StoreError::Full { .. })), "{blob:?}");
        assert_eq!(fs::read_dir(state.join("blobs/unfinished")).unwrap().count(), 0);
        assert_eq!(verify(&store, &log("a")).await.unwrap().head, head);

        fs::remove_file(&ballast).unwrap();
        store.append(&fence, Expect::Head(head), large("more")).await.unwrap();
        store.put_blob(b"small").await.unwrap();
        let (head, refused) = fill(&store, &fence).await;
        assert!(is_full(&refused), "{refused:?}");
        drop(store);
        let store = SqliteStore::open(&state).unwrap();
        assert_eq!(verify(&store, &log("a")).await.unwrap().head, head);
    });
    tell("done");
}

#[test]
fn a_full_disk_refuses_and_goes_on_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let script = format!("mount -t tmpfs -o size=1500k,mode=700 none \"${CHILD_DIR}\"; exec \"$@\"");
    if let Some(output) = in_namespace(&script, "disk::on_a_small_disk", dir.path()) {
        assert_done(&output);
    }
}

/// Runs where no file may grow beyond a limit, which SQLite sees as a failed write.
#[test]
#[ignore = "run by its parent under a limit"]
fn under_a_file_size_limit() {
    let Some(dir) = child_dir() else { return };
    block_on(async {
        let store = SqliteStore::open(&dir).unwrap();
        let fence = claimed(&store, &log("a")).await;
        let (head, refused) = fill(&store, &fence).await;
        assert!(matches!(refused, AppendError::Store(StoreError::Io { .. })), "{refused:?}");
        // Nobody knows what the disk holds after a failed write, so there is no second one.
        let later = store.append(&fence, Expect::Any, batch(&["small"])).await;
        assert!(matches!(later, Err(AppendError::Store(StoreError::Stopped { .. }))), "{later:?}");
        assert_eq!(store.log(&log("a")).await.unwrap().unwrap().head, head, "reading goes on");
        tell(&format!("{head}"));
    });
    tell("done");
}

#[test]
fn a_failed_write_is_the_last() {
    let dir = tempfile::tempdir().unwrap();
    // The limit is counted in blocks of 512 or 1024 bytes, by shell.
    let script = "trap '' XFSZ; ulimit -f 1000; exec \"$@\"";
    let output = child_behind(script, "disk::under_a_file_size_limit", dir.path()).output().unwrap();
    assert_done(&output);
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let acknowledged: u64 = told(&printed)[0].parse().unwrap();
    block_on(async {
        let store = open(dir.path());
        let head = verify(&store, &log("a")).await.unwrap().head;
        assert_eq!(head, acknowledged);
        let claim = store.claim(&log("a"), &node("next")).await.unwrap();
        store.append(&claim.fence, Expect::Head(head), large("more")).await.unwrap();
    });
}

/// Runs on a directory that is mounted read-only and holds a closed store.
#[test]
#[ignore = "run by its parent in a namespace of its own"]
fn on_a_read_only_disk() {
    let Some(dir) = child_dir() else { return };
    let state = dir.join("state");
    let opened = SqliteStore::open(&state);
    assert!(matches!(opened, Err(OpenError::Store(StoreError::ReadOnly { .. }))), "{opened:?}");
    let missing = SqliteStore::open(&dir.join("missing"));
    assert!(matches!(missing, Err(OpenError::Store(StoreError::ReadOnly { .. }))), "{missing:?}");
    check_reading(&state);
    tell("done");
}

#[test]
fn a_store_on_a_read_only_disk_can_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    block_on(async {
        let store = open(&state);
        let fence = claimed(&store, &log("a")).await;
        append_each(&store, &fence, 1..=3).await;
        store.put_blob(b"blob").await.unwrap();
        store.records().insert(new_agent("a")).await.unwrap();
    });
    assert!(!state.join("journal.db-wal").exists(), "the last to leave tidies up");
    let script = format!(
        "mount --bind \"${CHILD_DIR}\" \"${CHILD_DIR}\"; mount -o remount,bind,ro \"${CHILD_DIR}\"; exec \"$@\""
    );
    if let Some(output) = in_namespace(&script, "disk::on_a_read_only_disk", dir.path()) {
        assert_done(&output);
    }
    // And the same where the disk could be written: nothing may be.
    let before = fs::read(state.join("journal.db")).unwrap();
    check_reading(&state);
    assert_eq!(fs::read(state.join("journal.db")).unwrap(), before);
}

fn check_reading(state: &Path) {
    block_on(async {
        let store = SqliteStore::open_read_only(state).unwrap();
        assert_eq!(verify(&store, &log("a")).await.unwrap().head, 3);
        let holder = store.log(&log("a")).await.unwrap().unwrap().holder.unwrap();
        assert!(!holder.alive);
        let blob = store.get_blob(&BlobHash::of(b"blob")).await.unwrap();
        assert_eq!(blob.as_deref(), Some(&b"blob"[..]));
        let answers = [
            store.create(&log("b"), meta("b")).await.err(),
            store.submit(&log("a"), &input("x")).await.err(),
            store.put_blob(b"other").await.err(),
            store.records().archive(&agent("a")).await.err(),
            store.records().delete(&agent("a")).await.err(),
            store.requests().remember(&RequestKey::new("token", "key"), &BlobHash::of(b"request")).await.err(),
        ];
        for answer in answers {
            assert!(matches!(answer, Some(StoreError::ReadOnly { .. })), "{answer:?}");
        }
        let claim = store.claim(&log("a"), &node("n")).await;
        assert!(format!("{claim:?}").contains("ReadOnly"), "{claim:?}");
        assert_eq!(store.records().get(&agent("a")).await.unwrap().unwrap().version, 1);
        let refused = store.records().insert(new_agent("b")).await;
        assert!(format!("{refused:?}").contains("ReadOnly"), "{refused:?}");
    });
}

#[test]
fn a_reader_sees_what_a_writer_adds() {
    let dir = tempfile::tempdir().unwrap();
    block_on(async {
        let writer = open(dir.path());
        let fence = claimed(&writer, &log("a")).await;
        let reader = SqliteStore::open_read_only(dir.path()).unwrap();
        for head in 1..=3 {
            append_each(&writer, &fence, head..=head).await;
            assert_eq!(verify(&reader, &log("a")).await.unwrap().head, head);
        }
        assert!(reader.log(&log("a")).await.unwrap().unwrap().holder.unwrap().alive);
    });
}

/// Runs a child in user and mount namespaces of its own, or says why it cannot be done here.
fn in_namespace(script: &str, name: &str, dir: &Path) -> Option<Output> {
    let probe = Command::new("unshare").args(["-rm", "true"]).output();
    if !probe.as_ref().is_ok_and(|output| output.status.success()) {
        tell(&format!("not run, since this machine gives no namespaces: {name}: {probe:?}"));
        return None;
    }
    let inner = child_behind(script, name, dir);
    let mut command = Command::new("unshare");
    command.arg("-rm").arg(inner.get_program()).args(inner.get_args());
    command.env(CHILD_DIR, dir);
    Some(command.output().unwrap())
}

fn assert_done(output: &Output) {
    let printed = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(told(&printed).last(), Some(&"done"), "{printed}\n{errors}");
}
