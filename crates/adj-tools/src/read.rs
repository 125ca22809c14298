//! The read tool: a file's lines, numbered.

use crate::input::Read;
use crate::text::{LoadError, count, load_readable};
use crate::tree::Tree;

const LONGEST_LINE: usize = 2_000;
const MOST_LINES: usize = 5_000;
/// Room for the notes at the end of an answer.
const NOTES: usize = 300;

#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("{path} has {}; there is nothing from line {first} on", count(*lines, "line"))]
    PastEnd { path: String, lines: usize, first: usize },
}

pub(crate) fn read(tree: &Tree, input: &Read, keep_chars: usize) -> Result<String, ReadError> {
    let place = tree.find(&input.file_path).map_err(LoadError::from)?;
    let bytes = load_readable(&place)?;
    let is_lossy = std::str::from_utf8(&bytes).is_err();
    let text = String::from_utf8_lossy(&bytes);
    let total = text.lines().count();
    let [first, last] = input.view_range.unwrap_or([1, -1]);
    let first = usize::try_from(first).unwrap_or(1).max(1);
    let last = usize::try_from(last).unwrap_or(total).min(total);
    if total == 0 && first == 1 {
        return Ok(format!("({} is empty)", place.shown));
    }
    if first > total {
        return Err(ReadError::PastEnd { path: place.shown, lines: total, first });
    }

    let mut shown = String::new();
    let mut shown_chars = 0;
    let mut next = first;
    let mut has_cut_lines = false;
    for line in text.lines().skip(first - 1).take(last - first + 1) {
        let (line, is_cut) = cut(line);
        let line = format!("{next:>6}\t{line}\n");
        let chars = line.chars().count();
        let is_full = shown_chars + chars + NOTES > keep_chars || next - first >= MOST_LINES;
        // At least one line, or reading on would never get further.
        if is_full && next > first {
            break;
        }
        shown_chars += chars;
        shown.push_str(&line);
        has_cut_lines |= is_cut;
        next += 1;
    }
    if next <= last {
        let end = input.view_range.map_or(-1, |[_, end]| end);
        shown.push_str(&format!(
            "[lines {first} to {} of {total} are shown; read on with view_range [{next}, {end}]]\n",
            next - 1
        ));
    }
    if has_cut_lines {
        shown.push_str(&format!(
            "[lines longer than {LONGEST_LINE} characters were cut; bash can show the rest of them]\n"
        ));
    }
    if is_lossy {
        shown.push_str("[this file is not UTF-8; bytes that are not text are shown as \u{FFFD}]\n");
    }
    Ok(shown)
}

fn cut(line: &str) -> (String, bool) {
    match line.char_indices().nth(LONGEST_LINE) {
        Some((at, _)) => (format!("{} […]", &line[..at]), true),
        None => (line.to_owned(), false),
    }
}
