//! Keeps the head and the tail of an output of unknown length in bounded memory.

use std::collections::VecDeque;

/// Bytes as they arrive; the middle is dropped once more than `keep` of them came.
#[derive(Debug)]
pub(crate) struct Kept {
    keep_head: usize,
    keep_tail: usize,
    head: Vec<u8>,
    tail: VecDeque<u8>,
    total: u64,
}

impl Kept {
    pub(crate) fn new(keep: usize) -> Kept {
        let keep_head = keep / 2;
        Kept { keep_head, keep_tail: keep - keep_head, head: Vec::new(), tail: VecDeque::new(), total: 0 }
    }

    pub(crate) fn push(&mut self, mut bytes: &[u8]) {
        self.total += bytes.len() as u64;
        let room = self.keep_head - self.head.len();
        let (first, rest) = bytes.split_at(room.min(bytes.len()));
        self.head.extend_from_slice(first);
        bytes = rest;
        if bytes.len() > self.keep_tail {
            bytes = &bytes[bytes.len() - self.keep_tail..];
        }
        let excess = (self.tail.len() + bytes.len()).saturating_sub(self.keep_tail);
        self.tail.drain(..excess);
        self.tail.extend(bytes);
    }

    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// Everything, or head, a line that says how much is missing, and tail.
    pub(crate) fn finish(self) -> Vec<u8> {
        let kept = (self.head.len() + self.tail.len()) as u64;
        let mut bytes = self.head;
        if kept < self.total {
            let missing = self.total - kept;
            let noun = if missing == 1 { "byte" } else { "bytes" };
            bytes.extend_from_slice(format!("\n[… {missing} {noun} left out …]\n").as_bytes());
        }
        bytes.extend(self.tail);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_is_left_out() {
        let cases: [(usize, &[&str], &str); 7] = [
            (10, &[], ""),
            (10, &["hello"], "hello"),
            (10, &["hello", "world"], "helloworld"),
            (10, &["hello", "world", "!"], "hello\n[… 1 byte left out …]\norld!"),
            (4, &["abcdefgh"], "ab\n[… 4 bytes left out …]\ngh"),
            (3, &["a", "b", "c", "d", "e"], "a\n[… 2 bytes left out …]\nde"),
            (0, &["abc"], "\n[… 3 bytes left out …]\n"),
        ];
        for (keep, parts, expected) in cases {
            let mut kept = Kept::new(keep);
            for part in parts {
                kept.push(part.as_bytes());
            }
            assert_eq!(kept.total() as usize, parts.concat().len(), "{parts:?}");
            assert_eq!(String::from_utf8_lossy(&kept.finish()), expected, "{keep} of {parts:?}");
        }
    }
}
