//! `trace verify`: a log that is not what was written is found, and the place is named.

use crate::{
    run::{does, squad},
    support::World,
};
use adj_testkit::{GitRepository, git_repository};
use serde_json::Value;
use std::fs;

/// A run with four sessions, and an output that is kept as a blob.
fn recorded() -> (World, GitRepository, String, String) {
    let world =
        World::playing(&squad("{ id: a, title: Part a, task: Write a }", &does("a", "seq 100000; echo a > a.txt")));
    let repository = git_repository(&[]);
    world.run(repository.path(), &["run", "Do it", "--gate", "echo judged"]).exits(0);
    let run = world.only_run().0;
    let logs = world.list();
    // The specialist's session is the newest.
    let session = logs.last().and_then(|log| log["id"].as_str()).expect("a session").to_owned();
    assert!(session.starts_with("sesn_"), "{logs:?}");
    (world, repository, run, session)
}

/// Panics unless exactly this log is called broken, with words that name the place.
#[track_caller]
fn assert_found(world: &World, session: &str, words: &[&str], what: &str) {
    for arguments in [&["verify"][..], &["verify", session]] {
        let done = world.trace(arguments).exits(6);
        for word in words {
            assert!(done.out.contains(word), "{what}: no {word:?} in {done}");
        }
        assert_eq!(done.out.matches(" BROKEN: ").count(), 1, "{what}: {done}");
        assert!(done.out.contains(&format!("{session}  BROKEN: ")), "{what}: {done}");
        assert!(done.err.starts_with("error: 1 of "), "{what}: {done}");
    }
    let report = world.trace(&["verify", "--json"]).exits(6).lines().remove(0);
    assert_eq!(report["broken"], 1, "{what}: {report}");
}

#[test]
fn what_was_changed_in_the_journal_is_found() {
    let (world, _repository, run, session) = recorded();
    world.verify();
    world.trace(&["verify", &run, &session]).exits(0);
    let journal = fs::read(world.state().join("journal.db")).expect("there is a journal");
    let head: u64 = world.list().last().and_then(|log| log["events"].as_u64()).expect("a number of events");
    let log = format!("log = (SELECT number FROM logs WHERE log = '{session}')");
    let is_last = format!("{log} AND seq = {head}");
    let at_five = "event 5 is not what was written";
    let cut = format!("the log ends at event {}, its head says {head}", head - 1);
    let set_back = format!("UPDATE logs SET head = {} WHERE log = '{session}'", head - 1);
    let cases: [(&str, String, &[&str]); 11] = [
        (
            "a byte of a body",
            format!("UPDATE events SET body = replace(body, 'type', 'tyqe') WHERE {log} AND seq = 5"),
            &[at_five],
        ),
        ("a kind", format!("UPDATE events SET kind = 'session.resumed' WHERE {log} AND seq = 5"), &[at_five]),
        ("a time", format!("UPDATE events SET at = at + 1 WHERE {log} AND seq = 5"), &[at_five]),
        ("an id", format!("UPDATE events SET id = 'sevt_00000000000000000000' WHERE {log} AND seq = 5"), &[at_five]),
        ("an epoch", format!("UPDATE events SET epoch = epoch + 1 WHERE {log} AND seq = 5"), &[at_five]),
        ("a hash", format!("UPDATE events SET hash = zeroblob(32) WHERE {log} AND seq = 5"), &[at_five]),
        (
            "a dropped event",
            format!("DELETE FROM events WHERE {log} AND seq = 5"),
            &["event 5 is missing (event 6 follows event 4)"],
        ),
        (
            "a swapped pair",
            format!(
                "UPDATE events SET seq = -1 WHERE {log} AND seq = 5; UPDATE events SET seq = 5 WHERE {log} AND seq = 6; UPDATE events SET seq = 6 WHERE {log} AND seq = -1"
            ),
            &[at_five],
        ),
        ("a cut tail", format!("DELETE FROM events WHERE {is_last}"), &[&cut]),
        (
            "a cut tail and its head",
            format!("DELETE FROM events WHERE {is_last}; {set_back}"),
            &["is not the last one that was written"],
        ),
        ("a head set back", set_back.clone(), &["is not the last one that was written"]),
    ];
    for (what, sql, words) in cases {
        let changed = world.journal();
        changed.execute_batch(&sql).unwrap_or_else(|error| panic!("{what}: {error}"));
        drop(changed);
        assert_found(&world, &session, words, what);
        for file in ["journal.db-wal", "journal.db-shm"] {
            let _ = fs::remove_file(world.state().join(file));
        }
        fs::write(world.state().join("journal.db"), &journal).expect("the journal can be restored");
        world.verify();
    }
}

#[test]
fn a_blob_that_was_changed_or_lost_is_found() {
    let (world, _repository, _run, session) = recorded();
    let kept = world.trace(&["export", &session]).exits(0).lines();
    let hash = kept.iter().find_map(|event| event["body"]["full_output"].as_str()).expect("the long output is kept");
    let path = world.state().join("blobs").join(&hash[..2]).join(&hash[2..]);
    let bytes = fs::read(&path).expect("the blob is there");
    let mut changed = bytes.clone();
    changed[1000] ^= 1;
    fs::remove_file(&path).expect("the blob can be removed");
    assert_found(&world, &session, &[&format!("blob {hash} is missing")], "lost");
    fs::write(&path, changed).expect("the blob can be written");
    assert_found(&world, &session, &[&format!("blob {hash}")], "changed");
    fs::write(&path, bytes).expect("the blob can be written");
    world.verify();
}

#[test]
fn what_was_changed_in_an_exported_file_is_found() {
    let (world, _repository, run, session) = recorded();
    let text = world.trace(&["export", &run]).exits(0).out;
    let lines: Vec<&str> = text.lines().collect();
    let of_session = |seq: u64| {
        let found = lines.iter().position(|line| {
            let event: Value = serde_json::from_str(line).expect("an exported line is JSON");
            event["log"] == session.as_str() && event["seq"] == seq
        });
        found.expect("the event is there")
    };
    let (fifth, sixth) = (of_session(5), of_session(6));
    let verify = |lines: &[String]| {
        let path = world.path("export.jsonl");
        fs::write(&path, lines.iter().map(|line| format!("{line}\n")).collect::<String>())
            .expect("a file can be written");
        world.trace(&["verify", "--file", path.to_str().expect("a temporary path is UTF-8")])
    };
    let whole: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
    let done = verify(&whole).exits(0);
    assert_eq!(done.out.matches(" whole: ").count(), 5, "{done}");

    let mut dropped = whole.clone();
    dropped.remove(fifth);
    let mut swapped = whole.clone();
    swapped.swap(fifth, sixth);
    let missing = "event 5 is missing (event 6 follows event 4)";
    let mut cases = vec![(dropped, missing), (swapped, missing)];
    // One digit or letter of each field in turn, so that the line stays an event.
    let line: Value = serde_json::from_str(&whole[fifth]).expect("an exported line is JSON");
    for field in ["epoch", "id", "at", "type", "hash"] {
        let value = line[field].to_string();
        let start = whole[fifth].find(&format!("\"{field}\":{value}")).expect("the field is there") + field.len() + 3;
        let place = start + value.trim_end_matches(['"', 'Z']).len() - 1;
        let mut changed = whole.clone();
        let other = if &changed[fifth][place..=place] == "1" { "2" } else { "1" };
        changed[fifth].replace_range(place..=place, other);
        cases.push((changed, "event 5 is not what was written"));
    }
    let mut changed = whole.clone();
    changed[fifth] = changed[fifth].replacen("\"body\":{\"type\":\"agent", "\"body\":{\"type\":\"agenT", 1);
    assert_ne!(changed, whole);
    cases.push((changed, "event 5 is not what was written"));
    for (lines, words) in cases {
        let done = verify(&lines).exits(6);
        assert!(done.out.contains(words), "no {words:?} in {done}");
        assert_eq!(done.out.matches(" BROKEN: ").count(), 1, "{done}");
        assert!(done.out.contains(&format!("{session}  BROKEN: ")), "{done}");
    }

    let cases = [
        (vec!["no JSON".to_owned()], 6, "export.jsonl:1: not an event: "),
        (vec![whole[0].clone(), "{}".to_owned()], 6, "export.jsonl:2: not an event: "),
        (vec![], 2, "holds no events"),
    ];
    for (lines, code, words) in cases {
        let done = verify(&lines).exits(code);
        assert!(done.err.contains(words), "no {words:?} in {done}");
    }
}
