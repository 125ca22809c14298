//! Keeps keys out of what is written down.

use crate::{
    Secret,
    scrub::{SHORTEST_KEY, Scrub},
};
use bytes::Bytes;
use std::fmt;
use zeroize::Zeroizing;

/// JSON within JSON within a line: so deep does a vendor's stream wrap what a model writes.
const DEEPEST: usize = 3;

/// Every known key, in each spelling that it has within a line.
#[derive(Default)]
pub(super) struct Blot {
    keys: Vec<Zeroizing<String>>,
}

impl Blot {
    pub(super) fn new(secrets: &[Secret]) -> Self {
        let mut keys: Vec<Zeroizing<String>> = Vec::new();
        for secret in secrets.iter().filter(|secret| secret.expose().len() >= SHORTEST_KEY) {
            let mut spelling = Zeroizing::new(secret.expose().to_owned());
            for _ in 0..=DEEPEST {
                let escaped = Zeroizing::new(spelling.replace('\\', "\\\\").replace('"', "\\\""));
                let is_plain = *escaped == *spelling;
                if !keys.contains(&spelling) {
                    keys.push(std::mem::replace(&mut spelling, escaped));
                }
                if is_plain {
                    break;
                }
            }
        }
        // A key may hold another.
        keys.sort_by_key(|key| std::cmp::Reverse(key.len()));
        Self { keys }
    }

    pub(super) fn text(&self, text: String) -> String {
        let stars = |key: &str| "*".repeat(key.len());
        self.keys.iter().fold(text, |text, key| match text.contains(key.as_str()) {
            true => text.replace(key.as_str(), &stars(key)),
            false => text,
        })
    }

    /// For text that comes in pieces.
    pub(super) fn pieces(&self) -> Pieces {
        Pieces(self.keys.iter().map(|key| Scrub::new(key)).collect())
    }
}

impl fmt::Debug for Blot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blot({})", self.keys.len())
    }
}

/// One scrub for each key, one behind the other.
#[derive(Debug, Default)]
pub(super) struct Pieces(Vec<Scrub>);

impl Pieces {
    pub(super) fn push(&mut self, bytes: Bytes) -> Bytes {
        self.0.iter_mut().fold(bytes, |bytes, scrub| scrub.push(bytes))
    }

    /// Returns what was held back.
    pub(super) fn finish(&mut self) -> Bytes {
        let mut rest = Vec::new();
        for place in 0..self.0.len() {
            let held = self.0[place].finish();
            let passed = self.0[place + 1..].iter_mut().fold(held, |bytes, scrub| scrub.push(bytes));
            rest.extend_from_slice(&passed);
        }
        rest.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blot(keys: &[&str]) -> Blot {
        let secrets = keys.iter().map(|key| Secret::parse("TEST", (*key).to_owned()).expect("the key is good"));
        Blot::new(&secrets.collect::<Vec<_>>())
    }

    #[test]
    fn keys_are_blotted_out_in_every_spelling_and_at_every_cut() {
        let cases = [
            (&["sk-0123456"][..], "a sk-0123456 b", "a ********** b"),
            (&["sk-0123456", "sk-0123456-more"], "sk-0123456-more sk-0123456", "*************** **********"),
            (&["sk\"0123456"], r#"{"a":"sk\"0123456","b":"{\"c\":\"sk\\\"0123456\"}"}"#, ""),
            (&["short"], "a short word", "a short word"),
            (&["sk-0123456", "6789-0123-key"], "sk-01234789-0123-key sk-0123456", "sk-01234789-0123-key **********"),
        ];
        for (keys, text, expected) in cases {
            let blot = blot(keys);
            let whole = blot.text(text.to_owned());
            if expected.is_empty() {
                assert!(!whole.contains("0123456"), "{whole}");
            } else {
                assert_eq!(whole, expected);
            }
            for size in 1..text.len() {
                let mut pieces = blot.pieces();
                let mut found = Vec::new();
                for piece in text.as_bytes().chunks(size) {
                    found.extend_from_slice(&pieces.push(Bytes::copy_from_slice(piece)));
                }
                found.extend_from_slice(&pieces.finish());
                assert_eq!(String::from_utf8_lossy(&found), whole, "{text} in pieces of {size}");
            }
        }
    }
}
