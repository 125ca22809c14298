//! A log that is not what was written is found out.

use adj_domain::{ChainBreak, ChainHash, ChainVerifier, Event, EventId, LogId};
use proptest::prelude::*;
use serde_json::value::RawValue;

fn log_id(name: &str) -> LogId {
    name.parse().unwrap()
}

/// A log of as many events, each holder of which wrote two.
fn log(name: &str, length: u64) -> Vec<Event> {
    let log = log_id(name);
    let mut hash = ChainHash::start(&log);
    let events = (1..=length).map(|seq| {
        let mut event = Event {
            log: log.clone(),
            seq,
            epoch: seq.div_ceil(2),
            id: EventId::derive(&[name, &seq.to_string()]),
            at: adj_domain::Timestamp::from_millisecond(1_700_000_000_000 + seq as i64).unwrap(),
            kind: "user.message".to_owned(),
            body: body(&format!(r#"{{"type":"user.message","n":{seq}}}"#)),
            hash,
        };
        hash = event.chained_to(hash);
        event.hash = hash;
        event
    });
    events.collect()
}

fn body(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned()).unwrap()
}

fn verify(name: &str, events: &[Event], head: u64) -> Result<(), ChainBreak> {
    let mut verifier = ChainVerifier::new(log_id(name));
    events.iter().try_for_each(|event| verifier.check(event))?;
    verifier.finish(head)
}

/// Seals the events anew from `first` on, as somebody would who knows how it is done.
fn seal(events: &mut [Event], first: usize) {
    for index in first..events.len() {
        let before = if index == 0 { ChainHash::start(&events[0].log) } else { events[index - 1].hash };
        events[index].hash = events[index].chained_to(before);
    }
}

#[test]
fn every_change_is_found_where_it_is() {
    type Change = fn(&mut Vec<Event>);
    let cases: [(&str, Change, &str); 16] = [
        ("nothing", |_| {}, "ok"),
        ("a body", |log| log[2].body = body(r#"{"type":"user.message","n":4}"#), "changed 3"),
        ("white space in a body", |log| log[2].body = body(r#"{"type":"user.message", "n":3}"#), "changed 3"),
        ("a kind", |log| log[2].kind.push('x'), "changed 3"),
        ("an id", |log| log[2].id = EventId::derive(&["other"]), "changed 3"),
        ("a time", |log| log[2].at = log[1].at, "changed 3"),
        ("an epoch", |log| log[2].epoch += 1, "changed 3"),
        ("a hash", |log| log[2].hash.0[31] ^= 1, "changed 3"),
        ("a number", |log| log[2].seq = 9, "missing 3"),
        ("one dropped", |log| drop(log.remove(2)), "missing 3"),
        ("the first dropped", |log| drop(log.remove(0)), "missing 1"),
        ("two swapped", |log| log.swap(2, 3), "missing 3"),
        (
            "two swapped, with their numbers",
            |log| {
                log.swap(2, 3);
                (log[2].seq, log[3].seq) = (3, 4);
            },
            "changed 3",
        ),
        ("the tail cut", |log| log.truncate(4), "tail 6, not 4"),
        (
            "the epoch goes back, and all is sealed anew",
            |log| {
                log[4].epoch = 1;
                seal(log, 4);
            },
            "epoch 5",
        ),
        ("events of another log", |log| *log = self::log("sesn_b", 6), "changed 1"),
    ];
    for (title, change, expected) in cases {
        let mut events = log("sesn_a", 6);
        change(&mut events);
        let found = match verify("sesn_a", &events, 6) {
            Ok(()) => "ok".to_owned(),
            Err(ChainBreak::Missing { expected, .. }) => format!("missing {expected}"),
            Err(ChainBreak::Changed { seq, .. }) => format!("changed {seq}"),
            Err(ChainBreak::EpochWentBack { seq, .. }) => format!("epoch {seq}"),
            Err(ChainBreak::TailMissing { expected, found, .. }) => format!("tail {expected}, not {found}"),
        };
        assert_eq!(found, expected, "{title}");
    }
}

#[test]
fn fields_cannot_flow_into_each_other() {
    let start = ChainHash::start(&log_id("sesn_a"));
    assert_ne!(start.next(1, 1, 1, "ab", "c", b"d"), start.next(1, 1, 1, "a", "bc", b"d"));
    assert_ne!(start.next(1, 1, 1, "a", "b", b"cd"), start.next(1, 1, 1, "a", "bc", b"d"));
    assert_ne!(start, ChainHash::start(&log_id("run_a")));
}

#[test]
fn hashes_stay_what_they_are() {
    let events = log("sesn_a", 2);
    insta::assert_snapshot!(serde_json::to_string_pretty(&events).unwrap());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn one_flipped_bit_of_a_stored_line_is_found(at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let events = log("sesn_a", 3);
        let mut lines: Vec<Vec<u8>> = events.iter().map(|event| serde_json::to_vec(event).unwrap()).collect();
        let total: usize = lines.iter().map(Vec::len).sum();
        let mut place = at.index(total);
        let line = lines.iter_mut().find(|line| {
            let is_here = place < line.len();
            if !is_here { place -= line.len(); }
            is_here
        });
        line.unwrap()[place] ^= 1 << bit;
        let read: Result<Vec<Event>, _> = lines.iter().map(|line| serde_json::from_slice::<Event>(line)).collect();
        let is_found = match read {
            Err(_) => true,
            Ok(read) => {
                // The log's name stands in every line, but is sealed only into where the chain starts.
                let is_same_log = read.iter().all(|event| event.log == log_id("sesn_a"));
                // `T` and `t` in a time, or `a` and `A` in a hash, mean the same.
                let means_the_same = format!("{read:?}") == format!("{events:?}");
                !is_same_log || means_the_same || verify("sesn_a", &read, 3).is_err()
            }
        };
        prop_assert!(is_found, "byte {place}, bit {bit}");
    }
}
