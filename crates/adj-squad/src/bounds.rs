//! What agents say and do, cut to what a log, a prompt and a commit message can hold.

use std::path::PathBuf;

const LINE_CHARS: usize = 120;
/// Paths that an event names.
const MOST_PATHS: usize = 1000;
const PATHS_BYTES: usize = 128 << 10;

/// A text of at most about `most` bytes: of a longer one the middle is left out, and the text says so.
pub(crate) fn text(text: String, most: usize) -> String {
    if text.len() <= most {
        return text;
    }
    let head = &text[..text.floor_char_boundary(most / 2)];
    let tail = &text[text.ceil_char_boundary(text.len() - most / 2)..];
    format!("{head}\n[{} bytes left out]\n{tail}", text.len() - head.len() - tail.len())
}

/// The first line that says something, without what a terminal would obey.
pub(crate) fn line(text: &str) -> String {
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    plain(line).chars().take(LINE_CHARS).collect()
}

/// A text without what a terminal would obey, for those who read it with `git log`.
pub(crate) fn plain(text: &str) -> String {
    text.chars().filter(|character| !character.is_control() || matches!(character, '\n' | '\t')).collect()
}

/// The first of many paths, in words, and how many more there are.
pub(crate) fn paths<'a>(paths: impl IntoIterator<Item = &'a PathBuf>) -> (Vec<String>, u64) {
    let (mut shown, mut bytes, mut more) = (Vec::new(), 0, 0);
    for path in paths {
        let path = path.display().to_string();
        bytes += path.len();
        if shown.len() < MOST_PATHS && bytes <= PATHS_BYTES {
            shown.push(path);
        } else {
            more += 1;
        }
    }
    (shown, more)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_keep_their_ends() {
        let cases = [
            ("short", "short"),
            ("exactly-10", "exactly-10"),
            ("0123456789abc", "01234\n[3 bytes left out]\n89abc"),
            ("ääääääää", "ää\n[8 bytes left out]\nää"),
        ];
        for (given, expected) in cases {
            assert_eq!(text(given.to_owned(), 10), expected, "{given}");
        }
    }

    #[test]
    fn a_title_is_one_plain_line() {
        let long = "x".repeat(500);
        let cases = [
            ("Add a parser", "Add a parser"),
            ("\n  \nAdd\nSigned-off-by: someone", "Add"),
            ("red \u{1b}[31mletters\0", "red [31mletters"),
            ("", ""),
            (&long, &long[..120]),
        ];
        for (given, expected) in cases {
            assert_eq!(line(given), expected, "{given:?}");
        }
    }

    #[test]
    fn only_so_many_paths_are_named() {
        let many: Vec<PathBuf> = (0..1500).map(|number| PathBuf::from(number.to_string())).collect();
        let (shown, more) = paths(&many);
        assert_eq!((shown.len(), more), (1000, 500));
        let long: Vec<PathBuf> = (0..100).map(|_| PathBuf::from("d/".repeat(2000))).collect();
        let (shown, more) = paths(&long);
        assert_eq!((shown.len(), more), (32, 68));
    }
}
