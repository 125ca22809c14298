//! Files as text: what counts as text, its lines, and how they end.

use crate::tree::{Place, TreeError};
use std::io::{self, Read};

pub(crate) const LARGEST_FILE_BYTES: u64 = 10 * 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    #[error(transparent)]
    Tree(#[from] TreeError),
    #[error(
        "{path} is {size} bytes; files of up to {LARGEST_FILE_BYTES} bytes can be opened here, use bash (sed, head, tail) for this one"
    )]
    TooLarge { path: String, size: u64 },
    #[error("{path} is a binary file (it contains NUL bytes); use bash to inspect it")]
    Binary { path: String },
    #[error(
        "{path} is not UTF-8 text (first bad byte in line {line}); change it with bash, so that its other bytes are kept"
    )]
    NotUtf8 { path: String, line: usize },
    #[error("cannot read {path}")]
    Io { path: String, source: io::Error },
}

/// The bytes of a file that is not too large, binary or not.
pub(crate) fn load_bytes(place: &Place) -> Result<Vec<u8>, LoadError> {
    let file = place.open_file()?;
    let io = |source| LoadError::Io { path: place.shown.clone(), source };
    let size = file.metadata().map_err(io)?.len();
    let too_large = |size| LoadError::TooLarge { path: place.shown.clone(), size };
    if size > LARGEST_FILE_BYTES {
        return Err(too_large(size));
    }
    let mut bytes = Vec::with_capacity(size as usize);
    // It may grow while it is read.
    file.take(LARGEST_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > LARGEST_FILE_BYTES {
        return Err(too_large(bytes.len() as u64));
    }
    Ok(bytes)
}

/// The bytes of a file that people can read, in whatever encoding.
pub(crate) fn load_readable(place: &Place) -> Result<Vec<u8>, LoadError> {
    let bytes = load_bytes(place)?;
    if bytes.contains(&0) { Err(LoadError::Binary { path: place.shown.clone() }) } else { Ok(bytes) }
}

/// The text of a file, without loss, so that it can be written back.
pub(crate) fn load_text(place: &Place) -> Result<String, LoadError> {
    String::from_utf8(load_readable(place)?).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + good.iter().filter(|&&byte| byte == b'\n').count();
        LoadError::NotUtf8 { path: place.shown.clone(), line }
    })
}

/// One line and what ended it: `"\n"`, `"\r\n"`, or nothing for a last line without an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Line<'t> {
    pub text: &'t str,
    pub end: &'t str,
}

pub(crate) fn lines(text: &str) -> impl Iterator<Item = Line<'_>> {
    text.split_inclusive('\n').map(|line| match (line.strip_suffix("\r\n"), line.strip_suffix('\n')) {
        (Some(text), _) => Line { text, end: "\r\n" },
        (None, Some(text)) => Line { text, end: "\n" },
        (None, None) => Line { text: line, end: "" },
    })
}

/// How most lines of a text end.
pub(crate) fn usual_end(text: &str) -> &'static str {
    let all = text.matches('\n').count();
    let with_return = text.matches("\r\n").count();
    if with_return * 2 > all { "\r\n" } else { "\n" }
}

/// The line, counted from 1, in which a byte lies.
pub(crate) fn line_of(text: &str, byte: usize) -> usize {
    1 + text.as_bytes()[..byte].iter().filter(|&&byte| byte == b'\n').count()
}

/// `1 line`, `2 lines`.
pub(crate) fn count(number: usize, thing: &str) -> String {
    if number == 1 { format!("1 {thing}") } else { format!("{number} {thing}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_join_back_to_the_text() {
        for text in ["", "a", "a\n", "a\r\nb", "\n\n", "a\r\r\nb\n", "\r", "ä\nö"] {
            let joined: String = lines(text).flat_map(|line| [line.text, line.end]).collect();
            assert_eq!(joined, text);
        }
        assert_eq!(usual_end("a\r\nb\r\nc\n"), "\r\n");
        assert_eq!(usual_end("a\r\nb\n"), "\n");
        assert_eq!(usual_end(""), "\n");
    }
}
