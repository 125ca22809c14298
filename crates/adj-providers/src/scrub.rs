//! Blots a key out of bytes that pass by, wherever they are cut, and changes nothing else.

use bytes::Bytes;
use memchr::memmem;
use std::fmt;
use zeroize::Zeroizing;

/// Servers at home take any word for a key; such a word is no secret, and may stand in any sentence.
pub(crate) const SHORTEST_KEY: usize = 8;

/// Holds back only what may be the beginning of the key, which is nothing in almost every chunk.
pub(crate) struct Scrub {
    key: Zeroizing<Vec<u8>>,
    held: Vec<u8>,
}

impl Scrub {
    /// An empty key is never found.
    pub(crate) fn new(key: &str) -> Self {
        Self { key: Zeroizing::new(key.as_bytes().to_vec()), held: Vec::new() }
    }

    pub(crate) fn push(&mut self, bytes: Bytes) -> Bytes {
        if self.key.is_empty() {
            return bytes;
        }
        if self.held.is_empty() && memmem::find(&bytes, &self.key).is_none() {
            let kept = bytes.len() - self.beginning_at_end(&bytes);
            self.held.extend_from_slice(&bytes[kept..]);
            return bytes.slice(..kept);
        }
        let mut whole = std::mem::take(&mut self.held);
        whole.extend_from_slice(&bytes);
        while let Some(place) = memmem::find(&whole, &self.key) {
            // As many bytes as before, because the length was announced.
            whole[place..place + self.key.len()].fill(b'*');
        }
        let kept = whole.len() - self.beginning_at_end(&whole);
        self.held = whole.split_off(kept);
        whole.into()
    }

    /// Returns what is still held; no more bytes come.
    pub(crate) fn finish(&mut self) -> Bytes {
        std::mem::take(&mut self.held).into()
    }

    /// How many of the last bytes are how the key begins.
    fn beginning_at_end(&self, bytes: &[u8]) -> usize {
        let longest = (self.key.len() - 1).min(bytes.len());
        (1..=longest).rev().find(|length| bytes.ends_with(&self.key[..*length])).unwrap_or(0)
    }
}

impl fmt::Debug for Scrub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scrub")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_blotted_out_at_every_cut_and_all_else_stays() {
        let cases = [
            ("", ""),
            ("sk-abc", "******"),
            ("a sk-abc b sk-abcd sk-ab", "a ****** b ******d sk-ab"),
            ("sksk-sk-abc sk-", "sksk-****** sk-"),
            ("no key \u{1f980}", "no key \u{1f980}"),
        ];
        for (text, expected) in cases {
            let bytes = text.as_bytes();
            for size in 1..=bytes.len().max(1) {
                let mut scrub = Scrub::new("sk-abc");
                let mut found = Vec::new();
                for chunk in bytes.chunks(size) {
                    found.extend_from_slice(&scrub.push(Bytes::copy_from_slice(chunk)));
                }
                found.extend_from_slice(&scrub.finish());
                assert_eq!(String::from_utf8_lossy(&found), expected, "{text:?} in pieces of {size}");
            }
        }
        let untouched = Scrub::new("").push(Bytes::from_static(b"as it is"));
        assert_eq!(untouched, "as it is");
    }
}
