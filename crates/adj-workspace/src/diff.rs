//! What is different between two commits: per path, and as text for people.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::gather::entries;
use crate::git::GitError;
use crate::id::CommitId;
use crate::repository::Repository;
use crate::store::{Store, StoreError};
use crate::workspaces::Workspaces;

/// What happened to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    Added,
    Modified,
    Deleted,
    /// A file became a link, or the like.
    TypeChanged,
}

/// One path that is different.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangedPath {
    pub path: PathBuf,
    pub change: Change,
    /// Lines added and deleted; `None` for binary content.
    pub lines: Option<(u64, u64)>,
}

/// The difference between two commits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diff {
    pub changed: Vec<ChangedPath>,
    /// In unified format; bytes, because files may hold any.
    pub text: Vec<u8>,
    /// Whether `text` was longer than asked for.
    pub is_cut: bool,
}

impl Workspaces {
    /// The difference from `from` to `to`, with at most `limit_bytes` of text.
    pub async fn diff(
        &self,
        repository: &Repository,
        from: &CommitId,
        to: &CommitId,
        limit_bytes: usize,
    ) -> Result<Diff, StoreError> {
        let store = self.store(repository).await?;
        store.require(from).await?;
        store.require(to).await?;
        let changed = store.changed_paths(from, to).await?;
        let call = store.call("diff-tree").arguments(["-r", "-p", "--find-renames", "--no-color", "--full-index"]);
        let call = call.arguments(["--no-ext-diff", "--no-textconv", from.as_str(), to.as_str(), "--"]);
        let output = call.keep_first(limit_bytes).run().await?;
        Ok(Diff { changed, text: output.stdout, is_cut: output.is_cut })
    }
}

impl Store {
    pub(crate) async fn changed_paths(&self, from: &CommitId, to: &CommitId) -> Result<Vec<ChangedPath>, GitError> {
        if from == to {
            return Ok(Vec::new());
        }
        let call = self.call("diff-tree").arguments(["-r", "-z", "--raw", "--numstat", "--no-renames", "--no-abbrev"]);
        let call = call.arguments(["--no-ext-diff", "--no-textconv", from.as_str(), to.as_str(), "--"]);
        let output = call.run().await?;
        parse(&output.stdout).ok_or_else(|| GitError::unexpected("diff-tree", &output.stdout))
    }
}

/// First all raw records (`:modes ids status`, path), then all counts (`added TAB deleted TAB path`), in the same order.
fn parse(output: &[u8]) -> Option<Vec<ChangedPath>> {
    let mut parts = entries(output).peekable();
    let mut changed: Vec<ChangedPath> = Vec::new();
    while let Some(facts) = parts.next_if(|part| part.starts_with(b":")) {
        let change = match facts.last()? {
            b'A' => Change::Added,
            b'D' => Change::Deleted,
            b'T' => Change::TypeChanged,
            _ => Change::Modified,
        };
        let path = PathBuf::from(OsStr::from_bytes(parts.next()?));
        changed.push(ChangedPath { path, change, lines: None });
    }
    // A path that changed its type is counted twice: gone as one thing, new as the other.
    let mut next = 0;
    for part in parts {
        let mut columns = part.splitn(3, |&byte| byte == b'\t');
        let (added, deleted, path) = (columns.next()?, columns.next()?, columns.next()?);
        let number = |column: &[u8]| std::str::from_utf8(column).ok()?.parse::<u64>().ok();
        if next > 0 && changed[next - 1].path.as_os_str().as_bytes() == path {
            next -= 1;
        }
        let entry = changed.get_mut(next)?;
        if entry.path.as_os_str().as_bytes() != path {
            return None;
        }
        let counted = number(added).zip(number(deleted));
        entry.lines = match (entry.lines, counted) {
            (Some((before, gone)), Some((more, less))) => Some((before + more, gone + less)),
            (_, counted) => counted,
        };
        next += 1;
    }
    Some(changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_and_counts_come_together() {
        let path = |name: &[u8]| PathBuf::from(OsStr::from_bytes(name));
        let entry = |name: &[u8], change, lines| ChangedPath { path: path(name), change, lines };
        let cases: [(&[u8], Option<Vec<ChangedPath>>); 5] = [
            (b"", Some(vec![])),
            (
                b":0 1 a b A\0new\0:1 1 a b M\0odd\n\xff\0\x31\t0\tnew\0-\t-\todd\n\xff\0",
                Some(vec![entry(b"new", Change::Added, Some((1, 0))), entry(b"odd\n\xff", Change::Modified, None)]),
            ),
            (
                b":1 2 a b T\0x\0:1 0 a b D\0y\0\x30\t4\tx\x001\t0\tx\x000\t2\ty\0",
                Some(vec![entry(b"x", Change::TypeChanged, Some((1, 4))), entry(b"y", Change::Deleted, Some((0, 2)))]),
            ),
            (b":1 1 a b M\0x\0\x31\t1\tother\0", None),
            (b"nonsense\0", None),
        ];
        for (output, expected) in cases {
            assert_eq!(parse(output), expected, "{}", String::from_utf8_lossy(output));
        }
    }
}
