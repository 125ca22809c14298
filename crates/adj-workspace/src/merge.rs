//! Merges commits without a working tree, and so predicts conflicts too: no ref is moved and no file is written.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::authorship::Authorship;
use crate::git::GitError;
use crate::id::{CommitId, TreeId};
use crate::repository::Repository;
use crate::store::StoreError;
use crate::workspaces::Workspaces;

/// How two commits come together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Merge {
    /// `ours` contains `theirs` already.
    UpToDate,
    /// `theirs` contains `ours`: it is the result as it is.
    FastForward {
        commit: CommitId,
    },
    /// A new commit with both as parents.
    Clean {
        commit: CommitId,
        tree: TreeId,
    },
    Conflict {
        conflicts: Vec<Conflict>,
    },
}

/// One thing that git could not decide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    pub paths: Vec<PathBuf>,
    /// Git's short name for the kind, such as `CONFLICT (contents)`.
    pub kind: String,
    /// Git's sentence about it.
    pub message: String,
}

/// Why it is not known how two commits come together.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cannot merge {theirs} into {ours}")]
    Git { ours: CommitId, theirs: CommitId, source: GitError },
}

/// What is to be merged.
#[derive(Debug, Clone, Copy)]
pub struct MergeRequest<'a> {
    /// Compared against this instead of the common ancestor.
    pub base: Option<&'a CommitId>,
    pub ours: &'a CommitId,
    pub theirs: &'a CommitId,
    pub message: &'a str,
    pub authorship: &'a Authorship,
}

impl Workspaces {
    /// The tree of a commit that is ours or the user's.
    pub async fn tree_of(&self, repository: &Repository, commit: &CommitId) -> Result<TreeId, StoreError> {
        let store = self.store(repository).await?;
        store.require(commit).await?;
        Ok(store.tree_of(commit).await?)
    }

    /// Merges `theirs` into `ours`. The same request gives the same commit.
    pub async fn merge(&self, repository: &Repository, request: MergeRequest<'_>) -> Result<Merge, MergeError> {
        let MergeRequest { base, ours, theirs, message, authorship } = request;
        let store = self.store(repository).await?;
        // `merge-tree` exits with 1 for a conflict and for a missing commit alike, so the commits are looked up first.
        for commit in base.into_iter().chain([ours, theirs]) {
            store.require(commit).await?;
        }
        let failed = |source| MergeError::Git { ours: ours.clone(), theirs: theirs.clone(), source };
        if store.is_ancestor(theirs, ours).await.map_err(failed)? {
            return Ok(Merge::UpToDate);
        }
        if base.is_none() && store.is_ancestor(ours, theirs).await.map_err(failed)? {
            return Ok(Merge::FastForward { commit: theirs.clone() });
        }
        // A merge in a working tree obeys the attributes of `ours`; a bare store has to be told.
        let call = store.call("merge-tree").option(format!("--attr-source={ours}")).accept(&[0, 1]);
        let call = call.arguments(["--write-tree", "-z", "--name-only", "--messages"]);
        let call = call.arguments(base.map(|base| format!("--merge-base={base}")));
        let output = call.argument(ours.as_str()).argument(theirs.as_str()).run().await.map_err(failed)?;
        let unexpected = || failed(GitError::unexpected("merge-tree", &output.stdout));
        let (tree, conflicts) = parse(&output.stdout).ok_or_else(unexpected)?;
        match (output.status, conflicts.is_empty()) {
            (0, true) => {
                let parents = [ours.clone(), theirs.clone()];
                let commit = store.commit(&tree, &parents, message, authorship).await.map_err(failed)?;
                let reference = format!("refs/adjutant/merges/{commit}");
                store.set_reference(&reference, &commit).await.map_err(failed)?;
                Ok(Merge::Clean { commit, tree })
            }
            (1, false) => Ok(Merge::Conflict { conflicts }),
            _ => Err(unexpected()),
        }
    }
}

/// The tree, then the paths in conflict, an empty entry, then messages: number of paths, the paths, kind, sentence.
///
/// Messages about paths that came out well are left out.
fn parse(output: &[u8]) -> Option<(TreeId, Vec<Conflict>)> {
    let mut parts = output.split(|&byte| byte == 0);
    let tree = std::str::from_utf8(parts.next()?).ok()?.parse().ok()?;
    let path = |part: &[u8]| PathBuf::from(OsStr::from_bytes(part));
    let in_conflict: Vec<PathBuf> = parts.by_ref().take_while(|part| !part.is_empty()).map(path).collect();
    let mut conflicts: Vec<Conflict> = Vec::new();
    while let Some(count) = parts.next().filter(|part| !part.is_empty()) {
        let count: usize = std::str::from_utf8(count).ok()?.parse().ok()?;
        let paths: Vec<PathBuf> = parts.by_ref().take(count).map(path).collect();
        let kind = String::from_utf8_lossy(parts.next()?).into_owned();
        let message = String::from_utf8_lossy(parts.next()?).trim_end().to_owned();
        if paths.len() != count {
            return None;
        }
        if kind.starts_with("CONFLICT") {
            conflicts.push(Conflict { paths, kind, message });
        }
    }
    for path in in_conflict {
        if !conflicts.iter().any(|conflict| conflict.paths.contains(&path)) {
            conflicts.push(Conflict { paths: vec![path], kind: "CONFLICT".to_owned(), message: String::new() });
        }
    }
    Some((tree, conflicts))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_merge_tree_are_understood() {
        let id = "0123456789abcdef0123456789abcdef01234567";
        let conflict = |paths: &[&str], kind: &str, message: &str| Conflict {
            paths: paths.iter().map(PathBuf::from).collect(),
            kind: kind.to_owned(),
            message: message.to_owned(),
        };
        let cases = [
            (format!("{id}\0"), Some(vec![])),
            (format!("{id}\0\0"), Some(vec![])),
            (format!("{id}\0\x001\0u\0Auto-merging\0Auto-merging u\n\0"), Some(vec![])),
            (
                format!("{id}\0a\nb\0\x001\0a\nb\0CONFLICT (contents)\0words\n\0"),
                Some(vec![conflict(&["a\nb"], "CONFLICT (contents)", "words")]),
            ),
            (
                format!("{id}\0x\0y\0\x002\0x\0y\0CONFLICT (rename/delete)\0w\n\0"),
                Some(vec![conflict(&["x", "y"], "CONFLICT (rename/delete)", "w")]),
            ),
            (format!("{id}\0x\0\0"), Some(vec![conflict(&["x"], "CONFLICT", "")])),
            (format!("{id}\0x\0\x003\0x\0"), None),
            ("error: no".to_owned(), None),
        ];
        for (output, expected) in cases {
            assert_eq!(parse(output.as_bytes()).map(|(_, conflicts)| conflicts), expected, "{output:?}");
        }
    }
}
