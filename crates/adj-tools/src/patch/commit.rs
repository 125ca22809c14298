//! What a patch asks for → the files on disk. Everything is worked out in memory before the first byte is written.

use super::apply::{HunkError, apply};
use super::parse::{FileChange, HunkLine, ParseError, parse};
use crate::input::ApplyPatch;
use crate::save::{self, SaveError, Staged};
use crate::text::{LARGEST_FILE_BYTES, LoadError, load_bytes, load_text};
use crate::tree::{Area, Found, Place, Tree, TreeError};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// All files of a patch together, since they are held in memory, old and new.
const MOST_BYTES: usize = 64 * 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub(crate) enum PatchError {
    #[error(transparent)]
    Parse(#[from] ParseError),
    #[error("{path}: {source}; nothing was changed")]
    Hunk { path: String, source: HunkError },
    #[error("{0}; nothing was changed")]
    Tree(#[from] TreeError),
    #[error("{0}; nothing was changed")]
    Load(#[from] LoadError),
    #[error("{0}; nothing was changed")]
    Save(#[from] SaveError),
    #[error("{path} exists already; change it with *** Update File. Nothing was changed")]
    Exists { path: String },
    #[error("{path} does not exist (any more) at this point of the patch; nothing was changed")]
    Gone { path: String },
    #[error("the files of this patch are larger than {MOST_BYTES} bytes together; split it. Nothing was changed")]
    TooLarge,
    #[error("{source}; the changes made before it were taken back{}", lost(unrestored))]
    Undone { source: SaveError, unrestored: Vec<String> },
}

fn lost(unrestored: &[String]) -> String {
    if unrestored.is_empty() { String::new() } else { format!(", except in {}", unrestored.join(", ")) }
}

/// One file, before and after.
struct Entry {
    place: Place,
    before: Option<Version>,
    after: Option<Version>,
}

#[derive(Clone, PartialEq)]
struct Version {
    bytes: Vec<u8>,
    /// Absent for new files, which get the usual mode.
    mode: Option<u32>,
}

type Key = (Area, PathBuf);

#[derive(Default)]
struct Files {
    entries: BTreeMap<Key, Entry>,
    bytes: usize,
}

/// Applies a patch; says what it did, and which files of the workspace it changed.
pub(crate) fn apply_patch(tree: &Tree, input: &ApplyPatch) -> Result<(String, Vec<String>), PatchError> {
    let changes = parse(&input.patch)?;
    let mut files = Files::default();
    let mut report = String::new();
    for change in &changes {
        report.push_str(&files.plan(tree, change)?);
        report.push('\n');
    }
    let changed: Vec<Entry> = files.entries.into_values().filter(|entry| entry.before != entry.after).collect();
    commit(&changed)?;
    let paths = changed
        .iter()
        .filter(|entry| entry.place.area == Area::Workspace)
        .map(|entry| entry.place.shown.clone())
        .collect();
    Ok((report, paths))
}

impl Files {
    /// Works one change out, on top of those before it.
    fn plan(&mut self, tree: &Tree, change: &FileChange) -> Result<String, PatchError> {
        match change {
            FileChange::Add { path, lines } => {
                let key = self.open(tree, path, false)?;
                let text: String = lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect();
                let shown = self.vacant(&key)?;
                self.put(&key, Some(Version { bytes: text.into_bytes(), mode: None }))?;
                Ok(format!("added {shown} (+{})", lines.len()))
            }
            FileChange::Delete { path } => {
                let key = self.open(tree, path, false)?;
                let (shown, _) = self.present(&key)?;
                self.put(&key, None)?;
                Ok(format!("deleted {shown}"))
            }
            FileChange::Update { path, move_to, hunks } => {
                // A file that only moves need not be text.
                let key = self.open(tree, path, !hunks.is_empty())?;
                let (shown, version) = self.present(&key)?;
                let mut version = version.clone();
                if !hunks.is_empty() {
                    let text = String::from_utf8_lossy(&version.bytes);
                    let text =
                        apply(&text, hunks).map_err(|source| PatchError::Hunk { path: shown.clone(), source })?;
                    version.bytes = text.into_bytes();
                }
                let all = || hunks.iter().flat_map(|hunk| &hunk.lines);
                let added = all().filter(|line| matches!(line, HunkLine::Add(_))).count();
                let removed = all().filter(|line| matches!(line, HunkLine::Remove(_))).count();
                let target = match move_to {
                    Some(target) => self.open(tree, target, false)?,
                    None => key.clone(),
                };
                if target == key {
                    self.put(&key, Some(version))?;
                    return Ok(format!("updated {shown} (+{added} -{removed})"));
                }
                let to = self.vacant(&target)?;
                self.put(&key, None)?;
                self.put(&target, Some(version))?;
                Ok(format!("moved {shown} to {to} (+{added} -{removed})"))
            }
        }
    }

    fn open(&mut self, tree: &Tree, path: &str, must_be_text: bool) -> Result<Key, PatchError> {
        let place = tree.find(path)?;
        let key = (place.area, place.relative.clone());
        if self.entries.contains_key(&key) {
            return Ok(key);
        }
        save::check(&place)?;
        let before = match &place.found {
            Found::File(stat) => {
                let bytes = if must_be_text { load_text(&place)?.into_bytes() } else { load_bytes(&place)? };
                Some(Version { bytes, mode: Some(stat.st_mode) })
            }
            _ => None,
        };
        self.grow(before.as_ref().map_or(0, |version| version.bytes.len()))?;
        self.entries.insert(key.clone(), Entry { place, after: before.clone(), before });
        Ok(key)
    }

    fn present(&self, key: &Key) -> Result<(String, &Version), PatchError> {
        let entry = &self.entries[key];
        let path = || entry.place.shown.clone();
        entry.after.as_ref().map(|version| (path(), version)).ok_or_else(|| PatchError::Gone { path: path() })
    }

    fn vacant(&self, key: &Key) -> Result<String, PatchError> {
        let entry = &self.entries[key];
        let path = entry.place.shown.clone();
        if entry.after.is_some() { Err(PatchError::Exists { path }) } else { Ok(path) }
    }

    fn put(&mut self, key: &Key, version: Option<Version>) -> Result<(), PatchError> {
        let bytes = version.as_ref().map_or(0, |version| version.bytes.len());
        if bytes as u64 > LARGEST_FILE_BYTES {
            return Err(PatchError::TooLarge);
        }
        self.grow(bytes)?;
        if let Some(entry) = self.entries.get_mut(key) {
            entry.after = version;
        }
        Ok(())
    }

    fn grow(&mut self, bytes: usize) -> Result<(), PatchError> {
        self.bytes += bytes;
        if self.bytes > MOST_BYTES { Err(PatchError::TooLarge) } else { Ok(()) }
    }
}

/// Writes everything beside its target, then renames; a failure on the way takes all of it back.
fn commit(entries: &[Entry]) -> Result<(), PatchError> {
    let mut staged: Vec<Staged> = Vec::new();
    for entry in entries {
        let Some(after) = &entry.after else { continue };
        match save::stage(&entry.place, &after.bytes, after.mode) {
            Ok(stage) => staged.push(stage),
            Err(error) => {
                // In reverse, so that folders made for the first are empty when it goes.
                while staged.pop().is_some() {}
                return Err(error.into());
            }
        }
    }
    let mut staged = staged.into_iter();
    let (written, removed): (Vec<&Entry>, Vec<&Entry>) = entries.iter().partition(|entry| entry.after.is_some());
    let mut done: Vec<&Entry> = Vec::new();
    for entry in written {
        let Some(stage) = staged.next() else { break };
        // A file that appeared since it was looked for belongs to somebody.
        let result = match entry.before {
            None if entry.place.missing_folders.is_empty() && entry.place.is_there() => {
                Err(SaveError::Io { path: entry.place.shown.clone(), source: std::io::ErrorKind::AlreadyExists.into() })
            }
            _ => stage.commit(),
        };
        if let Err(source) = result {
            while staged.next_back().is_some() {}
            return Err(undo(&done, source));
        }
        done.push(entry);
    }
    for entry in removed {
        if let Err(source) = save::remove(&entry.place) {
            return Err(undo(&done, source));
        }
        done.push(entry);
    }
    Ok(())
}

fn undo(done: &[&Entry], source: SaveError) -> PatchError {
    let mut unrestored = Vec::new();
    for entry in done.iter().rev() {
        let restored = match &entry.before {
            Some(before) => save::stage(&entry.place, &before.bytes, before.mode).and_then(Staged::commit),
            None => save::remove_new(&entry.place),
        };
        if restored.is_err() {
            unrestored.push(entry.place.shown.clone());
        }
    }
    PatchError::Undone { source, unrestored }
}
