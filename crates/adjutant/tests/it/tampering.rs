//! `trace verify`, event by event: any bit, any lost event, any swapped pair, and rows that can no longer be read at all.

use crate::{
    run::{does, squad},
    support::{Done, World},
};
use adj_testkit::git_repository;
use rusqlite::{Connection, params};
use std::{fs, path::PathBuf};

/// A run that has landed, and its journal as it was then.
struct Recorded {
    world: World,
    run: String,
    pristine: PathBuf,
}

/// One event of the pristine journal.
struct Stored {
    number: i64,
    log: String,
    seq: i64,
    body: String,
}

fn recorded() -> Recorded {
    let world = World::playing(&squad("{ id: a, title: Part a, task: Write a }", &does("a", "echo a > a.txt")));
    let repository = git_repository(&[]);
    world.run(repository.path(), &["run", "Do it", "--gate", "echo checked"]).exits(0);
    let (run, _) = world.only_run();
    let pristine = world.path("pristine.db");
    // Everything into the one file.
    world.journal().query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).expect("nobody else has it open");
    fs::copy(world.state().join("journal.db"), &pristine).expect("a journal can be copied");
    Recorded { world, run, pristine }
}

impl Recorded {
    /// Verifies the run after a change of the pristine journal.
    fn verify_after(&self, change: impl FnOnce(&Connection)) -> Done {
        for beside in ["journal.db-wal", "journal.db-shm"] {
            let path = self.world.state().join(beside);
            if path.exists() {
                fs::remove_file(path).expect("nobody has it open");
            }
        }
        fs::copy(&self.pristine, self.world.state().join("journal.db")).expect("a journal can be copied");
        let journal = self.world.journal();
        change(&journal);
        drop(journal);
        self.world.trace(&["verify", &self.run])
    }

    fn verify_after_sql(&self, sql: &str) -> Done {
        self.verify_after(|journal| journal.execute_batch(sql).unwrap_or_else(|error| panic!("{sql}: {error}")))
    }

    fn events(&self) -> Vec<Stored> {
        let journal = Connection::open(&self.pristine).expect("the copy can be opened");
        let mut statement = journal
            .prepare(
                "SELECT number, logs.log, seq, body FROM events JOIN logs ON number = events.log ORDER BY number, seq",
            )
            .expect("the tables are there");
        let rows = statement.query_map([], |row| {
            Ok(Stored { number: row.get(0)?, log: row.get(1)?, seq: row.get(2)?, body: row.get(3)? })
        });
        rows.expect("events can be read").map(|row| row.expect("an event can be read")).collect()
    }
}

/// Text with one bit of one ASCII character turned.
fn flipped(text: &str, at: usize) -> String {
    let mut bytes = text.as_bytes().to_vec();
    let place = (at..bytes.len()).chain(0..at).find(|place| bytes[*place].is_ascii()).expect("JSON holds ASCII");
    bytes[place] ^= 1;
    String::from_utf8(bytes).expect("another ASCII character stands there")
}

/// Exactly this log is broken, and the place is named.
#[track_caller]
fn assert_found(done: &Done, log: &str, place: &str, what: &str) {
    assert_eq!(done.code, Some(6), "{what}\n{done}");
    assert!(done.err.starts_with("error: 1 of ") && done.err.contains("not what was written"), "{what}\n{done}");
    let broken: Vec<&str> = done.out.lines().filter(|line| line.contains("BROKEN")).collect();
    assert!(broken.len() == 1 && broken[0].starts_with(log), "{what}\n{done}");
    let mut problems = done.out.lines().skip_while(|line| *line != broken[0]).skip(1);
    assert!(problems.any(|line| line.starts_with("  ") && line.contains(place)), "{place}: {what}\n{done}");
}

#[test]
fn a_bit_in_any_event_is_found() {
    let recorded = recorded();
    recorded.verify_after(|_| ()).exits(0);
    for event in recorded.events() {
        let place = usize::try_from(event.seq * 7919).expect("a number above zero") % event.body.len();
        let changed = flipped(&event.body, place);
        let done = recorded.verify_after(|journal| {
            let sql = "UPDATE events SET body = ?3 WHERE log = ?1 AND seq = ?2";
            journal.execute(sql, params![event.number, event.seq, changed]).expect("an event can be changed");
        });
        assert_found(&done, &event.log, &format!("event {}", event.seq), &changed);
    }
}

#[test]
fn an_event_that_was_dropped_anywhere_is_found() {
    let recorded = recorded();
    let events = recorded.events();
    for (index, event) in events.iter().enumerate() {
        let sql = format!("DELETE FROM events WHERE log = {} AND seq = {}", event.number, event.seq);
        let is_last = events.get(index + 1).is_none_or(|next| next.number != event.number);
        let place = if is_last {
            format!("the log ends at event {}, its head says {}", event.seq - 1, event.seq)
        } else {
            format!("event {0} is missing (event {1} follows event {2})", event.seq, event.seq + 1, event.seq - 1)
        };
        assert_found(&recorded.verify_after_sql(&sql), &event.log, &place, &sql);
    }
}

#[test]
fn a_pair_that_was_swapped_anywhere_is_found() {
    let recorded = recorded();
    let events = recorded.events();
    for pair in events.windows(2).filter(|pair| pair[0].number == pair[1].number) {
        let (log, one, two) = (pair[0].number, pair[0].seq, pair[1].seq);
        let sql = format!(
            "UPDATE events SET seq = -1 WHERE log = {log} AND seq = {one};
             UPDATE events SET seq = {one} WHERE log = {log} AND seq = {two};
             UPDATE events SET seq = {two} WHERE log = {log} AND seq = -1"
        );
        let place = format!("event {one} is not what was written");
        assert_found(&recorded.verify_after_sql(&sql), &pair[0].log, &place, &sql);
    }
}

#[test]
fn rows_that_cannot_be_read_and_ends_that_do_not_fit_are_found() {
    let recorded = recorded();
    let events = recorded.events();
    let logs = [&events[0], events.last().expect("there are events")];
    let cases = [
        ("UPDATE events SET hash = x'00' WHERE EVENT", "event 3 of"),
        ("UPDATE events SET body = '{' WHERE EVENT", "event 3 of"),
        ("UPDATE events SET body = CAST(x'ff' AS TEXT) WHERE EVENT", "event 3 of"),
        ("UPDATE events SET id = '' WHERE EVENT", "event 3 of"),
        ("UPDATE events SET body = 'null' WHERE EVENT", "event 3 is not what was written"),
        ("DELETE FROM events WHERE log = LOG", "the log ends at event 0, its head says"),
        ("UPDATE logs SET head = head + 1 WHERE number = LOG", "its head says"),
        (
            "UPDATE logs SET head = 3, head_hash = (SELECT hash FROM events WHERE EVENT) WHERE number = LOG",
            "event 4 stands behind the head, which is event 3",
        ),
        (
            "INSERT INTO events SELECT log, seq + 1, epoch, id, at, kind, body, hash FROM events
             WHERE log = LOG ORDER BY seq DESC LIMIT 1",
            "stands behind the head",
        ),
    ];
    for event in logs {
        for (sql, place) in cases {
            let sql = sql.replace("EVENT", "log = LOG AND seq = 3").replace("LOG", &event.number.to_string());
            assert_found(&recorded.verify_after_sql(&sql), &event.log, place, &sql);
        }
    }
}

/// FIXME: the store reads a body through `RawValue::from_string`, which drops spaces around it before anybody can hash them.
/// No reader ever sees them; this goes to the table above once the store compares the lengths.
#[test]
fn spaces_around_a_body_are_not_found_yet() {
    let recorded = recorded();
    let sql = "UPDATE events SET body = ' ' || body || ' ' WHERE log = 1 AND seq = 3";
    recorded.verify_after_sql(sql).exits(0);
}

#[test]
fn a_session_that_was_removed_whole_is_found() {
    let recorded = recorded();
    let gone = recorded.events().last().expect("there are events").log.clone();
    let sql = format!(
        "DELETE FROM events WHERE log = (SELECT number FROM logs WHERE log = '{gone}');
         DELETE FROM logs WHERE log = '{gone}'"
    );
    let place = format!("the session {gone} of a is missing");
    assert_found(&recorded.verify_after_sql(&sql), &recorded.run, &place, &sql);
}
