//! The edit tool: one text in a file gives way to another.

use crate::input::Edit;
use crate::near::ranked;
use crate::save::{self, SaveError};
use crate::text::{LoadError, count, line_of, load_text, usual_end};
use crate::tree::{Place, Tree};

const MOST_HINTS: usize = 3;
const MOST_LINES_COMPARED: usize = 20_000;
const LONGEST_HINT: usize = 200;

#[derive(Debug, thiserror::Error)]
pub(crate) enum EditError {
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Save(#[from] SaveError),
    #[error("old_string does not occur in {path}{hint}")]
    NotFound { path: String, hint: String },
    #[error(
        "old_string occurs {times} times in {path}, starting in lines {lines}; add lines around it until it is unique, or set replace_all"
    )]
    NotUnique { path: String, times: usize, lines: String },
    #[error("the edited {path} would be {bytes} bytes, more than files may have here")]
    TooLarge { path: String, bytes: usize },
}

pub(crate) fn edit(tree: &Tree, input: &Edit) -> Result<(String, Place), EditError> {
    let place = tree.find(&input.file_path).map_err(LoadError::from)?;
    save::check(&place)?;
    let text = load_text(&place)?;
    let (old, new) = in_the_files_endings(&text, input);
    let starts: Vec<usize> = text.match_indices(old.as_str()).map(|(at, _)| at).collect();
    if starts.is_empty() {
        return Err(EditError::NotFound { hint: hint(&text, &input.old_string), path: place.shown });
    }
    if starts.len() > 1 && input.replace_all != Some(true) {
        let lines: Vec<String> = starts.iter().take(20).map(|&at| line_of(&text, at).to_string()).collect();
        let more = if starts.len() > 20 { ", …" } else { "" };
        let lines = format!("{}{more}", lines.join(", "));
        return Err(EditError::NotUnique { path: place.shown, times: starts.len(), lines });
    }
    let bytes = text.len() - starts.len() * old.len() + starts.len().saturating_mul(new.len());
    if bytes as u64 > crate::text::LARGEST_FILE_BYTES {
        return Err(EditError::TooLarge { path: place.shown, bytes });
    }
    let edited = text.replace(old.as_str(), &new);
    save::save(&place, edited.as_bytes())?;
    let first = line_of(&text, starts[0]);
    let times = count(starts.len(), "occurrence");
    let from = if starts.len() > 1 { "first in" } else { "in" };
    Ok((format!("replaced {times} in {} ({from} line {first})", place.shown), place))
}

/// Models write `\n`; in a file whose lines end otherwise, their text means lines that end in the file's way.
fn in_the_files_endings(text: &str, input: &Edit) -> (String, String) {
    let (old, new) = (&input.old_string, &input.new_string);
    let to_file = |text: &str| text.replace("\r\n", "\n").replace('\n', "\r\n");
    if usual_end(text) == "\r\n" && !old.contains('\r') && (old.contains('\n') && !text.contains(old.as_str())) {
        return (to_file(old), to_file(new));
    }
    if usual_end(text) == "\r\n" && !old.contains('\n') && !new.contains('\r') {
        return (old.clone(), to_file(new));
    }
    (old.clone(), new.clone())
}

/// Where the text may have been meant.
fn hint(text: &str, old: &str) -> String {
    let wanted = old.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    if squeezed(text).contains(&squeezed(old)) && !wanted.is_empty() {
        let line = text.lines().position(|line| squeezed(line).contains(&squeezed(wanted)));
        let at = line.map_or(String::new(), |line| format!(", near line {}", line + 1));
        return format!(": something that differs only in white space does{at}; copy the indentation exactly");
    }
    let lines: Vec<&str> = text.lines().take(MOST_LINES_COMPARED).collect();
    let near = ranked(lines.iter().copied(), wanted, MOST_HINTS);
    if near.is_empty() {
        return "; read the file to see what it holds".to_owned();
    }
    let near: Vec<String> = near
        .into_iter()
        .map(|(index, _)| {
            format!("\n{:>6}\t{}", index + 1, lines[index].chars().take(LONGEST_HINT).collect::<String>())
        })
        .collect();
    format!("; the lines most like its first one are:{}", near.concat())
}

fn squeezed(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace()).collect()
}
