//! The glob tool, and walking the workspace's files for it and for grep.

use crate::cancel::Cancel;
use crate::input::Glob;
use crate::text::count;
use crate::tree::{Found, Place, Tree, TreeError};
use globset::{GlobBuilder, GlobMatcher};
use ignore::{DirEntry, Walk, WalkBuilder};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

const MOST_SHOWN: usize = 500;
/// What a search may hold in memory; of more files only the number is known.
const MOST_KEPT: usize = 200_000;
/// A search of a huge tree ends by itself, and says that it did.
pub(crate) const LONGEST_SEARCH: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
pub(crate) enum GlobError {
    #[error(transparent)]
    Tree(#[from] TreeError),
    #[error("\"{pattern}\" is not a glob pattern")]
    Pattern { pattern: String, source: globset::Error },
    #[error("{path} is not a folder; the pattern goes into pattern, a folder into path")]
    NotAFolder { path: String },
    #[error("the search was cancelled")]
    Cancelled,
}

pub(crate) fn glob(tree: &Tree, input: &Glob, cancel: &Cancel) -> Result<String, GlobError> {
    let place = tree.find(input.path.as_deref().unwrap_or("."))?;
    match place.found {
        Found::Folder => {}
        Found::Missing => {
            return Err(TreeError::Missing { path: place.shown, hint: String::new() }.into());
        }
        Found::File(_) | Found::Special(_) => return Err(GlobError::NotAFolder { path: place.shown }),
    }
    let start = tree.path_of(&place);
    // An absolute pattern below the start means what is left of it.
    let pattern = match Path::new(&input.pattern).strip_prefix(&start) {
        Ok(below) => below.to_string_lossy().into_owned(),
        Err(_) if input.pattern.starts_with('/') => {
            return Err(TreeError::Outside { path: input.pattern.clone(), allowed: place.shown }.into());
        }
        Err(_) => input.pattern.clone(),
    };
    let matcher = matcher(&pattern)?;

    let mut found: Vec<(SystemTime, PathBuf)> = Vec::new();
    let mut matched = 0;
    let mut unread = 0;
    let mut is_cut_short = false;
    let deadline = Instant::now() + LONGEST_SEARCH;
    for entry in walk(&start) {
        if cancel.is_cancelled() {
            return Err(GlobError::Cancelled);
        }
        if Instant::now() > deadline {
            is_cut_short = true;
            break;
        }
        let Ok(entry) = entry else {
            unread += 1;
            continue;
        };
        let Some(below) = below(&entry, &start) else { continue };
        if matcher.is_match(below) {
            matched += 1;
            if found.len() < MOST_KEPT {
                let changed = entry.metadata().ok().and_then(|metadata| metadata.modified().ok());
                found.push((changed.unwrap_or(SystemTime::UNIX_EPOCH), below.to_owned()));
            }
        }
    }
    found.sort_by(|left, right| right.0.cmp(&left.0).then_with(|| left.1.cmp(&right.1)));
    let mut lines: Vec<String> = found.iter().take(MOST_SHOWN).map(|(_, below)| show(&place, below)).collect();
    if lines.is_empty() {
        lines.push(format!("no files match {pattern} in {} (files excluded by .gitignore are left out)", place.shown));
    }
    if matched > MOST_SHOWN {
        lines.push(format!("[{MOST_SHOWN} of {} are shown; make the pattern narrower]", count(matched, "file")));
    }
    if is_cut_short {
        lines.push(format!("[stopped after {} seconds; search a smaller folder]", LONGEST_SEARCH.as_secs()));
    }
    if unread > 0 {
        lines.push(format!("[{} could not be read]", count(unread, "folder")));
    }
    Ok(lines.join("\n") + "\n")
}

pub(crate) fn matcher(pattern: &str) -> Result<GlobMatcher, GlobError> {
    let pattern = pattern.strip_prefix("./").unwrap_or(pattern);
    GlobBuilder::new(pattern)
        .literal_separator(true)
        .build()
        .map(|glob| glob.compile_matcher())
        .map_err(|source| GlobError::Pattern { pattern: pattern.chars().take(200).collect(), source })
}

/// Every entry below `start` in the order of names: hidden ones too, git's own never, and no links are followed.
pub(crate) fn walk(start: &Path) -> Walk {
    WalkBuilder::new(start)
        .hidden(false)
        .follow_links(false)
        .git_global(false)
        .require_git(false)
        .sort_by_file_name(|left, right| left.cmp(right))
        .filter_entry(|entry| entry.depth() == 0 || entry.file_name() != ".git")
        .build()
}

/// The path of a regular file or link below `start`.
pub(crate) fn below<'e>(entry: &'e DirEntry, start: &Path) -> Option<&'e Path> {
    let kind = entry.file_type()?;
    if !kind.is_file() && !kind.is_symlink() {
        return None;
    }
    entry.path().strip_prefix(start).ok()
}

/// A file found below a place, as the other tools will take it.
pub(crate) fn show(place: &Place, below: &Path) -> String {
    if below.as_os_str().is_empty() || place.shown == "." {
        let path = if below.as_os_str().is_empty() { Path::new(&place.shown) } else { below };
        return path.display().to_string();
    }
    Path::new(&place.shown).join(below).display().to_string()
}
