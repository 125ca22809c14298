//! Keeping long output short: the beginning and the end stay, the middle is counted.

use crate::text::count;
use std::collections::VecDeque;

/// The cut text, or nothing if it fits in `keep` characters.
pub(crate) fn clip(text: &str, keep: usize) -> Option<String> {
    // Bytes bound characters, so most texts are not counted.
    if text.len() <= keep || text.chars().count() <= keep {
        return None;
    }
    let head_end = byte_of(text, keep / 2);
    let tail_start = text.char_indices().rev().nth(keep.saturating_sub(keep / 2).max(1) - 1).map_or(0, |(at, _)| at);
    let tail_start = tail_start.max(head_end);
    // A whole line reads better than a piece, if one ends near the cut.
    let near = |from: usize, to: usize| text[from..to].chars().count() <= 200;
    let head_end = match text[..head_end].rfind('\n') {
        Some(at) if near(at + 1, head_end) => at + 1,
        _ => head_end,
    };
    let tail_start = match text[tail_start..].find('\n') {
        Some(at) if near(tail_start, tail_start + at + 1) && tail_start + at + 1 < text.len() => tail_start + at + 1,
        _ => tail_start,
    };
    let (head, dropped, tail) = (&text[..head_end], &text[head_end..tail_start], &text[tail_start..]);
    let separator = if head.is_empty() || head.ends_with('\n') { "" } else { "\n" };
    let dropped_lines = dropped.matches('\n').count();
    let dropped = count(dropped.chars().count(), "character");
    Some(format!("{head}{separator}[… {dropped} ({}) left out …]\n{tail}", count(dropped_lines, "line")))
}

fn byte_of(text: &str, character: usize) -> usize {
    text.char_indices().nth(character).map_or(text.len(), |(at, _)| at)
}

/// Output as it arrives, in bounded memory: the first half of the bound, and the latest half.
#[derive(Debug)]
pub(crate) struct Kept {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    head_most: usize,
    tail_most: usize,
    total: u64,
}

impl Kept {
    pub(crate) fn new(most_bytes: usize) -> Self {
        let head_most = most_bytes / 2;
        Self { head: Vec::new(), tail: VecDeque::new(), head_most, tail_most: most_bytes - head_most, total: 0 }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.total += bytes.len() as u64;
        let (first, rest) = bytes.split_at(bytes.len().min(self.head_most - self.head.len()));
        self.head.extend_from_slice(first);
        let rest = &rest[rest.len().saturating_sub(self.tail_most)..];
        let too_many = (self.tail.len() + rest.len()).saturating_sub(self.tail_most);
        self.tail.drain(..too_many);
        self.tail.extend(rest);
    }

    /// Everything kept, as text: what is not UTF-8, and NUL, which many stores cannot hold, become U+FFFD.
    pub(crate) fn into_text(self) -> String {
        let dropped = self.total - (self.head.len() + self.tail.len()) as u64;
        let mut bytes = self.head;
        if dropped > 0 {
            bytes.extend_from_slice(format!("\n[… {dropped} bytes were not kept …]\n").as_bytes());
        }
        bytes.extend(self.tail);
        printable(&bytes)
    }
}

pub(crate) fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    if text.contains('\0') { text.replace('\0', "\u{FFFD}") } else { text.into_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_lose_their_middle() {
        let cases = [
            ("", 4, None),
            ("abcd", 4, None),
            ("äöüß", 4, None),
            ("abcdefgh", 4, Some("ab\n[… 4 characters (0 lines) left out …]\ngh")),
            ("äöüßäöüß", 5, Some("äö\n[… 3 characters (0 lines) left out …]\nöüß")),
            ("one\ntwo\nthree\nfour\n", 10, Some("one\n[… 10 characters (2 lines) left out …]\nfour\n")),
            ("abc", 0, Some("[… 2 characters (0 lines) left out …]\nc")),
        ];
        for (text, keep, expected) in cases {
            assert_eq!(clip(text, keep).as_deref(), expected, "{text:?} to {keep}");
        }
    }

    #[test]
    fn what_arrives_is_kept_in_bounds() {
        let cases = [
            (&["abc", "def"][..], 6, "abcdef"),
            (&["abc", "def", "ghi"], 6, "abc\n[… 3 bytes were not kept …]\nghi"),
            (&["abcdefghijklmno"], 4, "ab\n[… 11 bytes were not kept …]\nno"),
            (&["a", "b", "c", "d", "e"], 3, "a\n[… 2 bytes were not kept …]\nde"),
            (&["x\0y"], 10, "x\u{FFFD}y"),
        ];
        for (pieces, most, expected) in cases {
            let mut kept = Kept::new(most);
            for piece in pieces {
                kept.push(piece.as_bytes());
            }
            assert_eq!(kept.into_text(), expected, "{pieces:?} in {most}");
        }
        let mut kept = Kept::new(100);
        kept.push(b"a\xFFb");
        assert_eq!(kept.into_text(), "a\u{FFFD}b");
    }
}
