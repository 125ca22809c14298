//! The hunks of one file → its new text.

use super::parse::{Hunk, HunkLine};
use crate::near::ranked;
use crate::text::{Line, lines, usual_end};

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HunkError {
    #[error("the change in line {patch_line} of the patch: no line \"{anchor}\" (from its @@) follows line {after}")]
    NoAnchor { patch_line: usize, anchor: String, after: usize },
    #[error("the change in line {patch_line} of the patch: its lines are not in the file{hint}")]
    NotFound { patch_line: usize, hint: String },
    #[error(
        "the change in line {patch_line} of the patch: its lines are in the file, at line {at}, but before an earlier change of this patch; put the changes in the order of the file"
    )]
    OutOfOrder { patch_line: usize, at: usize },
    #[error(
        "the change in line {patch_line} of the patch fits at lines {places}; add unchanged lines around it, or an @@ line from above it"
    )]
    Ambiguous { patch_line: usize, places: String },
}

/// How much two lines may differ and still be the same line, strictest first.
const SAMENESS: [fn(&str, &str) -> bool; 4] = [
    |left, right| left == right,
    |left, right| left.trim_end() == right.trim_end(),
    |left, right| left.trim() == right.trim(),
    |left, right| plain(left) == plain(right),
];
const MOST_LINES_COMPARED: usize = 20_000;

/// Applies all hunks or none.
pub(crate) fn apply(text: &str, hunks: &[Hunk]) -> Result<String, HunkError> {
    let file: Vec<Line<'_>> = lines(text).collect();
    let end = usual_end(text);
    let mut result: Vec<Line<'_>> = Vec::with_capacity(file.len());
    let mut cursor = 0;
    for hunk in hunks {
        let at = find(&file, cursor, hunk)?;
        result.extend(&file[cursor..at]);
        cursor = at;
        for line in &hunk.lines {
            match line {
                // The file's own line: where the patch only resembled it, the file is right.
                HunkLine::Keep(_) => {
                    result.push(file[cursor]);
                    cursor += 1;
                }
                HunkLine::Remove(_) => cursor += 1,
                HunkLine::Add(text) => result.push(Line { text, end }),
            }
        }
    }
    result.extend(&file[cursor..]);

    let ends_with_newline = text.is_empty() || text.ends_with('\n');
    let last = result.len().saturating_sub(1);
    let mut applied = String::with_capacity(text.len() + 256);
    for (index, line) in result.iter().enumerate() {
        applied.push_str(line.text);
        if index < last || ends_with_newline {
            applied.push_str(if line.end.is_empty() { end } else { line.end });
        }
    }
    Ok(applied)
}

/// The line where a hunk's own lines start.
fn find(file: &[Line<'_>], cursor: usize, hunk: &Hunk) -> Result<usize, HunkError> {
    let patch_line = hunk.patch_line;
    let mut from = cursor;
    let mut anchor_line = None;
    for anchor in &hunk.anchors {
        let at = find_anchor(file, from, anchor).ok_or_else(|| HunkError::NoAnchor {
            patch_line,
            anchor: anchor.clone(),
            after: from,
        })?;
        anchor_line = Some(at);
        from = at + 1;
    }
    let old: Vec<&str> = hunk
        .lines
        .iter()
        .filter_map(|line| match line {
            HunkLine::Keep(text) | HunkLine::Remove(text) => Some(text.as_str()),
            HunkLine::Add(_) => None,
        })
        .collect();
    if old.is_empty() {
        // Only added lines: right below the anchor, or at the end.
        return Ok(if anchor_line.is_some() && !hunk.is_at_end { from } else { file.len() });
    }
    // The anchor may be repeated as the first line of context.
    let start = anchor_line.unwrap_or(cursor);
    for is_same in SAMENESS {
        let fits = |at: usize| old.iter().zip(&file[at..]).all(|(old, line)| is_same(old, line.text));
        let Some(latest) = file.len().checked_sub(old.len()) else {
            break;
        };
        if hunk.is_at_end && latest >= start && fits(latest) {
            return Ok(latest);
        }
        let mut places = (start..=latest).filter(|&at| fits(at));
        let Some(first) = places.next() else { continue };
        let others: Vec<usize> = if anchor_line.is_some() { Vec::new() } else { places.take(5).collect() };
        if others.is_empty() {
            return Ok(first);
        }
        let places: Vec<String> = std::iter::once(first).chain(others).map(|at| (at + 1).to_string()).collect();
        return Err(HunkError::Ambiguous { patch_line, places: places.join(", ") });
    }
    Err(not_found(file, start, &old, patch_line))
}

fn find_anchor(file: &[Line<'_>], from: usize, anchor: &str) -> Option<usize> {
    let starts: fn(&str, &str) -> bool = |anchor, line| line.trim().starts_with(anchor.trim());
    let below = file.get(from..)?;
    SAMENESS
        .into_iter()
        .chain([starts])
        .find_map(|is_same| below.iter().position(|line| is_same(anchor, line.text)))
        .map(|index| from + index)
}

fn not_found(file: &[Line<'_>], start: usize, old: &[&str], patch_line: usize) -> HunkError {
    let earlier = (0..start.min(file.len())).find(|&at| {
        file.len() - at >= old.len() && old.iter().zip(&file[at..]).all(|(old, line)| old.trim() == line.text.trim())
    });
    if let Some(at) = earlier {
        return HunkError::OutOfOrder { patch_line, at: at + 1 };
    }
    let is_anywhere = |wanted: &&&str| !file.iter().any(|line| line.text.trim() == wanted.trim());
    let Some(strange) = old.iter().find(is_anywhere) else {
        return HunkError::NotFound {
            patch_line,
            hint: "; each of them is, but not in this order one after the other".into(),
        };
    };
    let shown: String = strange.chars().take(200).collect();
    let near = ranked(file.iter().take(MOST_LINES_COMPARED).map(|line| line.text), strange, 1);
    let near = near.first().map_or(String::new(), |&(index, _)| {
        let line: String = file[index].text.chars().take(200).collect();
        format!("; the most similar is line {}: \"{line}\"", index + 1)
    });
    HunkError::NotFound { patch_line, hint: format!(": there is no line \"{shown}\"{near}") }
}

/// A line without white space at its ends, its typographic marks as a keyboard would type them.
fn plain(text: &str) -> String {
    text.trim()
        .chars()
        .map(|c| match c {
            '\u{2010}'..='\u{2015}' | '\u{2212}' => '-',
            '\u{2018}'..='\u{201B}' => '\'',
            '\u{201C}'..='\u{201F}' => '"',
            '\u{00A0}' | '\u{2002}'..='\u{200A}' | '\u{202F}' | '\u{3000}' => ' ',
            other => other,
        })
        .collect()
}
