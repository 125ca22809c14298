//! Looks for texts in streams: placeholders on their way out, secrets on their way back in.

use base64::{
    Engine as _,
    prelude::{BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD},
};
use memchr::memmem;
use std::{collections::BTreeSet, fmt};
use zeroize::{Zeroize as _, Zeroizing};

/// Derived spellings that are shorter would be found by chance.
const SHORTEST_DERIVED: usize = 6;

/// Finds whether one of several texts passes by, also across the borders of pieces.
pub struct Finder {
    texts: Vec<String>,
    tail: Vec<u8>,
}

impl Finder {
    pub fn new(texts: impl IntoIterator<Item = String>) -> Self {
        Self { texts: texts.into_iter().filter(|text| !text.is_empty()).collect(), tail: Vec::new() }
    }

    /// Gives the number of a text that was found; what was found once may be found again.
    pub fn find(&mut self, piece: &[u8]) -> Option<usize> {
        let longest = self.texts.iter().map(String::len).max()?;
        self.tail.extend_from_slice(piece);
        let found = self.texts.iter().position(|text| memmem::find(&self.tail, text.as_bytes()).is_some());
        let surplus = self.tail.len().saturating_sub(longest - 1);
        self.tail.drain(..surplus);
        found
    }
}

impl fmt::Debug for Finder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Finder").field("texts", &self.texts.len()).finish()
    }
}

/// Overwrites secrets in a stream with as many asterisks, in the spellings in which a server may give them back: as they are,
/// in base64 (at any position of a longer text, in both alphabets), percent-encoded, in hex, in JSON.
///
/// Holds back only what may be the beginning of one, so that a stream of events is not delayed.
pub struct Scrubber {
    spellings: Vec<Zeroizing<Vec<u8>>>,
    held: Zeroizing<Vec<u8>>,
    /// Which of the held bytes belong to a secret that began earlier.
    is_hidden: Vec<bool>,
}

impl Scrubber {
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Self {
        let mut spellings = BTreeSet::new();
        for secret in secrets.into_iter().filter(|secret| !secret.is_empty()) {
            spellings.insert(secret.as_bytes().to_vec());
            spellings.extend(derived(secret).into_iter().filter(|spelling| spelling.len() >= SHORTEST_DERIVED));
        }
        let spellings = spellings.into_iter().map(Zeroizing::new).collect();
        Self { spellings, held: Zeroizing::default(), is_hidden: Vec::new() }
    }

    /// Takes a piece and gives what can go on.
    pub fn push(&mut self, piece: &[u8]) -> Vec<u8> {
        if self.spellings.is_empty() {
            return piece.to_vec();
        }
        self.held.extend_from_slice(piece);
        self.is_hidden.resize(self.held.len(), false);
        for spelling in &self.spellings {
            let finder = memmem::Finder::new(spelling.as_slice());
            let (mut from, mut hidden_until) = (0, 0);
            while let Some(found) = finder.find(&self.held[from..]) {
                let (start, end) = (from + found, from + found + spelling.len());
                self.is_hidden[start.max(hidden_until)..end].fill(true);
                hidden_until = end;
                // A text may overlap with itself.
                from = start + 1;
            }
        }
        let keep = self.spellings.iter().map(|spelling| begun(&self.held, spelling)).max().unwrap_or(0);
        self.take(self.held.len() - keep)
    }

    /// Gives the rest, at the end of the stream.
    pub fn flush(&mut self) -> Vec<u8> {
        self.take(self.held.len())
    }

    fn take(&mut self, length: usize) -> Vec<u8> {
        let bytes = self.held[..length].iter().zip(&self.is_hidden);
        let out = bytes.map(|(byte, is_hidden)| if *is_hidden { b'*' } else { *byte }).collect();
        self.held[..length].zeroize();
        self.held.drain(..length);
        self.is_hidden.drain(..length);
        out
    }
}

impl fmt::Debug for Scrubber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scrubber").field("spellings", &self.spellings.len()).finish_non_exhaustive()
    }
}

/// How many bytes at the end of `text` are the beginning of `wanted`, but not all of it.
fn begun(text: &[u8], wanted: &[u8]) -> usize {
    let most = text.len().min(wanted.len() - 1);
    let window = &text[text.len() - most..];
    memchr::memchr_iter(wanted[0], window)
        .map(|at| most - at)
        .find(|length| text.ends_with(&wanted[..*length]))
        .unwrap_or(0)
}

fn derived(secret: &str) -> Vec<Vec<u8>> {
    let bytes = secret.as_bytes();
    let mut spellings = Vec::new();
    for offset in 0..3 {
        let shifted = Zeroizing::new([&[0; 2][..offset], bytes].concat());
        // Only the characters that hold nothing but bits of the secret; those at the borders depend on the neighbours.
        let first = [0, 2, 3][offset];
        let end = shifted.len() * 8 / 6;
        for engine in [BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD] {
            let text = Zeroizing::new(engine.encode(shifted.as_slice()));
            spellings.extend(text.get(first..end).map(|text| text.as_bytes().to_vec()));
        }
    }
    let percent = |is_kept: fn(u8) -> bool, is_upper: bool| {
        let encode = |byte: &u8| match (is_kept(*byte), is_upper) {
            (true, _) => vec![*byte],
            (_, true) => format!("%{byte:02X}").into_bytes(),
            _ => format!("%{byte:02x}").into_bytes(),
        };
        bytes.iter().flat_map(encode).collect::<Vec<u8>>()
    };
    for is_upper in [true, false] {
        spellings.push(percent(|byte| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte), is_upper));
        spellings.push(percent(|byte| byte.is_ascii_alphanumeric(), is_upper));
        spellings.push(percent(|_| false, is_upper));
    }
    spellings.push(bytes.iter().flat_map(|byte| format!("{byte:02x}").into_bytes()).collect());
    spellings.push(bytes.iter().flat_map(|byte| format!("{byte:02X}").into_bytes()).collect());
    spellings.push(secret.replace('\\', "\\\\").replace('"', "\\\"").into_bytes());
    spellings.push(secret.replace('\\', "\\\\").replace('"', "\\\"").replace('/', "\\/").into_bytes());
    for (character, entity) in [('&', "&amp;"), ('<', "&lt;"), ('>', "&gt;"), ('"', "&quot;")] {
        if secret.contains(character) {
            spellings.push(secret.replace('&', "&amp;").replace(character, entity).into_bytes());
        }
    }
    spellings
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::prelude::BASE64_STANDARD;
    use proptest::prelude::*;

    const SECRET: &str = "sk-live/4f+9Q=x\"y";

    fn scrub(secrets: &[&str], text: &[u8], piece: usize) -> Vec<u8> {
        let mut scrubber = Scrubber::new(secrets.iter().copied());
        let mut out = Vec::new();
        for piece in text.chunks(piece) {
            out.extend(scrubber.push(piece));
        }
        out.extend(scrubber.flush());
        out
    }

    #[test]
    fn every_spelling_is_overwritten_wherever_a_piece_ends() {
        let percent: String = SECRET.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let cases = [
            SECRET.to_owned(),
            SECRET.replace('"', "\\\""),
            SECRET.replace('"', "\\\"").replace('/', "\\/"),
            "sk-live%2F4f%2B9Q%3Dx%22y".to_owned(),
            "sk-live%2f4f%2b9Q%3dx%22y".to_owned(),
            percent,
            SECRET.bytes().map(|byte| format!("{byte:02x}")).collect(),
        ];
        for spelling in cases {
            let text = format!("before {spelling} after {spelling}");
            let expected = text.replace(&spelling, &"*".repeat(spelling.len()));
            for piece in 1..text.len() {
                let found = scrub(&[SECRET], text.as_bytes(), piece);
                assert_eq!(String::from_utf8_lossy(&found), expected, "pieces of {piece}");
            }
        }
    }

    #[test]
    fn base64_of_a_longer_text_gives_nothing_away() {
        for before in ["", "u", "us", "user:", "x-access-token:"] {
            for after in ["", "!", "!!", "and more"] {
                let text = BASE64_STANDARD.encode(format!("{before}{SECRET}{after}"));
                let found = scrub(&[SECRET], text.as_bytes(), 5);
                // What is left are the neighbours and at most two characters that the secret shares with them.
                let left = found.iter().filter(|byte| **byte != b'*').count();
                let most = (before.len() + after.len()) * 4 / 3 + 8;
                assert!(left <= most, "{} of {text}", String::from_utf8_lossy(&found));
                assert!(found.len() == text.len() && left < text.len() - 15);
            }
        }
    }

    #[test]
    fn secrets_may_overlap() {
        assert_eq!(scrub(&["abab"], b"xababababx", 3), b"x********x");
        assert_eq!(scrub(&["abcd", "cdef"], b"xabcdefx", 1), b"x******x");
        assert_eq!(scrub(&["abcd", "cdef"], b"xabcdefx", 100), b"x******x");
        assert_eq!(scrub(&["aaab"], b"aaaaab", 1), b"aa****");
        assert_eq!(scrub(&[], b"abc", 1), b"abc");
    }

    #[test]
    fn only_what_may_be_a_beginning_is_held_back() {
        let mut scrubber = Scrubber::new(["secret-value"]);
        assert_eq!(scrubber.push(b"data: hello\n\n"), b"data: hello\n\n");
        assert_eq!(scrubber.push(b"data: secret-"), b"data: ");
        assert_eq!(scrubber.push(b"garden\n\n"), b"secret-garden\n\n");
        assert_eq!(scrubber.push(b"sec"), b"");
        assert_eq!(scrubber.flush(), b"sec");
    }

    #[test]
    fn texts_are_found_across_borders() {
        let mut finder = Finder::new(["PLACE".to_owned(), "HOLDER-2".to_owned()]);
        assert_eq!(finder.find(b"xxPLA"), None);
        assert_eq!(finder.find(b"C"), None);
        assert_eq!(finder.find(b"Exx"), Some(0));
        let mut finder = Finder::new(["PLACE".to_owned(), "HOLDER-2".to_owned()]);
        assert_eq!(finder.find(b"HOLDER-"), None);
        assert_eq!(finder.find(b"2"), Some(1));
        assert_eq!(Finder::new([]).find(b"anything"), None);
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(text in "[abc]{0,60}", secret in "[abc]{1,6}", other in "[abc]{1,6}", piece in 1_usize..20) {
            let whole = scrub(&[&secret, &other], text.as_bytes(), 1000);
            prop_assert_eq!(&scrub(&[&secret, &other], text.as_bytes(), piece), &whole);
            prop_assert_eq!(whole.len(), text.len());
            prop_assert!(memmem::find(&whole, secret.as_bytes()).is_none());
        }
    }
}
