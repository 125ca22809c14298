//! Reads what a vendor says of its limits: nothing breaks, and no wait is longer than any real limit asks for.
//!
//! The input is headers, one a line, then an empty line and a body.

use adj_domain::Timestamp;
use adj_providers::headers::{asked_in_words, pause, readings};
use std::time::Duration;

const LONGEST: Duration = Duration::from_secs(35 * 24 * 3600);

pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (head, body) = text.split_once("\n\n").unwrap_or((&text, ""));
    let headers = head.lines().filter_map(|line| line.split_once(':')).collect::<Vec<_>>();
    let now = Timestamp::from_second(1_772_366_400).expect("the moment exists");
    let found = readings(&headers, now);
    for (place, reading) in found.iter().enumerate() {
        assert!(reading.limit != Some(0), "a limit of nothing is no limit");
        assert!(found[..place].iter().all(|other| other.resource != reading.resource), "said twice: {reading:?}");
    }
    let asked = pause(&headers, body.as_bytes(), now);
    assert!(asked.wait.is_none_or(|wait| !wait.is_zero() && wait <= LONGEST), "{asked:?}");
    assert_eq!(asked, pause(&headers, body.as_bytes(), now));
    let _ = asked_in_words(body);
}
