//! What was acknowledged survives: the kill of a process after any durable write, and a WAL that ends in rubbish.

use crate::support::*;
use adj_domain::BlobHash;
use adj_store::{Expect, Remembered, Replacement, RequestKey, SqliteStore, Store, verify};
use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::Stdio,
    sync::{Arc, Mutex},
};

/// Appends until it is killed, and tells each number after it was acknowledged.
#[test]
#[ignore = "run by the tests that kill it"]
fn writes_until_killed() {
    let Some(dir) = child_dir() else { return };
    block_on(async {
        let store = open(&dir);
        store.create(&log("a"), meta("a")).await.unwrap();
        let node = node(&format!("n{}", std::process::id()));
        let claim = store.claim(&log("a"), &node).await.unwrap();
        for number in claim.head + 1.. {
            let name = number.to_string();
            store.append(&claim.fence, Expect::Head(number - 1), batch(&[&name])).await.unwrap();
            tell(&name);
        }
    });
}

#[test]
fn what_was_acknowledged_survives_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = 0;
    for lines in [1, 7, 40, 133] {
        let mut running = child("crash::writes_until_killed", dir.path()).stdout(Stdio::piped()).spawn().unwrap();
        let mut told_lines = 0;
        for line in BufReader::new(running.stdout.take().unwrap()).lines() {
            if let Some(number) = line.unwrap().strip_prefix('@') {
                acknowledged = number.parse::<u64>().unwrap();
                told_lines += 1;
                if told_lines == lines {
                    running.kill().unwrap();
                }
            }
        }
        running.wait().unwrap();
        assert!(told_lines >= lines, "the child ended by itself after {told_lines}");
        let store = open(dir.path());
        let head = block_on(verify(&store, &log("a"))).unwrap().head;
        // One more may have been committed without anybody hearing of it.
        assert!((acknowledged..=acknowledged + 1).contains(&head), "{acknowledged} of {head}");
    }
}

/// One of everything that writes durably; dies in the hook after the write whose number is in the directory's name.
#[test]
#[ignore = "run by the test that counts its writes"]
fn dies_after_one_write() {
    let Some(dir) = child_dir() else { return };
    let last: u64 = dir.file_name().unwrap().to_str().unwrap().parse().unwrap();
    block_on(async {
        let store = open(&dir);
        store.set_after_commit(Box::new(move |number| {
            if number == last {
                std::process::abort();
            }
        }));
        if store.create(&log("a"), meta("a")).await.unwrap() {
            tell("created");
        }
        store.submit(&log("a"), &input("in")).await.unwrap();
        tell("submitted");
        let claim = store.claim(&log("a"), &node("mortal")).await.unwrap();
        tell("claimed");
        let mut take = batch(&["in", "2"]);
        take.takes = vec![id("in")];
        take.state = Some(state("running"));
        store.append(&claim.fence, Expect::Head(0), take).await.unwrap();
        tell("appended");
        store.put_blob(b"blob").await.unwrap();
        tell("kept");
        store.release(claim.fence).await.unwrap();
        tell("released");
        let (records, requests) = (store.records(), store.requests());
        let (request, hash) = (RequestKey::new("token", "key"), BlobHash::of(b"request"));
        requests.remember(&request, &hash).await.unwrap();
        tell("remembered");
        records.insert(new_agent("a")).await.unwrap();
        tell("inserted");
        requests.answer(&request, "{}").await.unwrap();
        tell("answered");
        let change =
            Replacement { key: agent("a"), expected: Some(1), name: Some("a".to_owned()), body: "[2]".to_owned() };
        records.replace(change.clone()).await.unwrap();
        tell("replaced");
        records.archive(&agent("a")).await.unwrap();
        tell("archived");
        records.insert(new_agent("b")).await.unwrap();
        tell("inserted again");
        records.delete(&agent("b")).await.unwrap();
        tell("deleted");
        // Nothing of this writes, so nothing of this counts.
        store.create(&log("a"), meta("b")).await.unwrap();
        store.submit(&log("a"), &input("in")).await.unwrap();
        store.put_blob(b"blob").await.unwrap();
        requests.remember(&request, &hash).await.unwrap();
        requests.answer(&request, "[]").await.unwrap();
        assert!(records.insert(new_agent("a")).await.is_err() && records.replace(change).await.is_err());
        records.archive(&agent("a")).await.unwrap();
        records.delete(&agent("b")).await.unwrap();
        tell("done");
    });
}

#[test]
fn the_process_can_be_stopped_after_each_durable_write() {
    let root = tempfile::tempdir().unwrap();
    let steps = [
        "created",
        "submitted",
        "claimed",
        "appended",
        "kept",
        "released",
        "remembered",
        "inserted",
        "answered",
        "replaced",
        "archived",
        "inserted again",
        "deleted",
    ];
    for last in 1..=steps.len() + 1 {
        let dir = root.path().join(last.to_string());
        let output = child("crash::dies_after_one_write", &dir).output().unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        let expected = match steps.get(..last - 1) {
            Some(before) if last <= steps.len() => before.to_vec(),
            _ => [&steps[..], &["done"]].concat(),
        };
        assert_eq!(told(&printed), expected, "stopped after write {last}");
        assert_eq!(output.status.success(), last > steps.len(), "stopped after write {last}");

        // The write was durable although nobody was told.
        block_on(async {
            let store = open(&dir);
            let summary = store.log(&log("a")).await.unwrap().unwrap();
            let waiting = store.pending(&log("a")).await.unwrap().len();
            let holder_is_dead = summary.holder.map(|holder| !holder.alive);
            let blob = store.get_blob(&BlobHash::of(b"blob")).await.unwrap().is_some();
            let expected = (
                if last >= 4 { 2 } else { 0 },
                usize::from(last == 2 || last == 3),
                (3..=5).contains(&last).then_some(true),
                last >= 5,
            );
            assert_eq!((summary.head, waiting, holder_is_dead, blob), expected, "after write {last}");
            // The input that waits, and the turn that was taken up, are found by whoever comes.
            let ready = store.ready(None, 10).await.unwrap().len();
            assert_eq!((ready, summary.state), (usize::from(last >= 2), (last >= 4).then(|| state("running"))));
            check_records(&store, last).await;
            verify(&store, &log("a")).await.unwrap();
            // And the next process goes on at once.
            store.claim(&log("a"), &node("next")).await.unwrap();
        });
    }
}

/// Checks that of the writes 7 to 13 there are those up to `last`, each whole.
async fn check_records(store: &SqliteStore, last: usize) {
    let records = store.records();
    let versions = records.versions(&agent("a"), None, 10).await.unwrap().records;
    let shown: Vec<_> = versions.iter().map(|record| (record.body.as_str(), record.archived_at.is_some())).collect();
    let expected: &[_] = match last {
        0..8 => &[],
        8..10 => &[(r#"{"is":"a"}"#, false)],
        10 => &[("[2]", false), (r#"{"is":"a"}"#, false)],
        _ => &[("[2]", true), (r#"{"is":"a"}"#, true)],
    };
    assert_eq!(shown, expected, "after write {last}");
    assert_eq!(records.get(&agent("b")).await.unwrap().is_some(), last == 12, "after write {last}");
    let known = store.requests().remember(&RequestKey::new("token", "key"), &BlobHash::of(b"request")).await.unwrap();
    match known {
        Remembered::New => assert!(last < 7, "after write {last}"),
        Remembered::Same { answer, .. } => {
            assert!(last >= 7 && answer.is_some() == (last >= 9), "after write {last}: {answer:?}");
        }
        Remembered::Different => panic!("after write {last}"),
    }
}

/// What a power cut leaves: every byte that was synced, and after it anything.
#[test]
fn rubbish_after_the_last_synced_byte_costs_nothing() {
    const EVENTS: u64 = 24;
    let dir = tempfile::tempdir().unwrap();
    let wal = dir.path().join("journal.db-wal");
    let sizes = Arc::new(Mutex::new(Vec::new()));
    let image = tempfile::tempdir().unwrap();
    block_on(async {
        let store = open(dir.path());
        let fence = claimed(&store, &log("a")).await;
        let (sizes, wal) = (Arc::clone(&sizes), wal.clone());
        store.set_after_commit(Box::new(move |_| {
            sizes.lock().unwrap().push(fs::metadata(&wal).unwrap().len() as usize);
        }));
        append_each(&store, &fence, 1..=EVENTS).await;
        for name in ["journal.db", "journal.db-wal"] {
            fs::copy(dir.path().join(name), image.path().join(name)).unwrap();
        }
    });
    let sizes = sizes.lock().unwrap().clone();
    assert_eq!(sizes.len() as u64, EVENTS);
    assert!(sizes.is_sorted_by(|a, b| a < b), "no checkpoint came between: {sizes:?}");
    let whole = fs::read(image.path().join("journal.db-wal")).unwrap();

    for acknowledged in [1, 2, 11, EVENTS - 1, EVENTS] {
        let synced = sizes[acknowledged as usize - 1];
        let rubbish = |byte: &dyn Fn(usize) -> u8| (0..9_000).map(byte).collect::<Vec<_>>();
        let mut garbled = whole[synced..].to_vec();
        garbled.iter_mut().skip(100).step_by(701).for_each(|byte| *byte ^= 0x5a);
        let tails = [
            ("cut", Vec::new()),
            ("cut in a frame", whole[synced..whole.len().min(synced + 5_000)].to_vec()),
            ("one more whole commit", whole[synced..].to_vec()),
            ("garbled", garbled),
            ("zeros", rubbish(&|_| 0)),
            ("noise", rubbish(&|at| (at * 131 % 251) as u8)),
        ];
        for (name, tail) in tails {
            let context = format!("{name} after {acknowledged}");
            let after = tempfile::tempdir().unwrap();
            fs::copy(image.path().join("journal.db"), after.path().join("journal.db")).unwrap();
            let bytes = [&whole[..synced], &tail].concat();
            write_private(&after.path().join("journal.db-wal"), &bytes);
            let head = check_whole(after.path());
            assert!(head >= acknowledged, "{context}: only {head}");
        }
    }

    // Damage to synced bytes is the disk's fault, and beyond what a WAL can repair: what is left is a whole beginning
    // of the log, which only a hash that was kept elsewhere tells from the log.
    let mut bytes = whole;
    bytes[sizes[10] + 300] ^= 1;
    let after = tempfile::tempdir().unwrap();
    fs::copy(image.path().join("journal.db"), after.path().join("journal.db")).unwrap();
    write_private(&after.path().join("journal.db-wal"), &bytes);
    assert_eq!(check_whole(after.path()), 11);
}

fn write_private(path: &Path, bytes: &[u8]) {
    use std::{io::Write, os::unix::fs::OpenOptionsExt};
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(path).unwrap();
    file.write_all(bytes).unwrap();
}

/// Opens, verifies and continues; returns the head that was found.
fn check_whole(dir: &Path) -> u64 {
    block_on(async {
        let store = SqliteStore::open(dir).unwrap();
        let head = verify(&store, &log("a")).await.unwrap().head;
        let events = read_all(&store, &log("a")).await;
        let expected: Vec<_> = (1..=head).map(|number| number.to_string()).collect();
        assert_eq!(names(&events), expected);
        let claim = store.claim(&log("a"), &node("next")).await.unwrap();
        store.append(&claim.fence, Expect::Head(head), batch(&["next"])).await.unwrap();
        verify(&store, &log("a")).await.unwrap();
        head
    })
}
