//! Merges commits without a working tree, and so predicts conflicts too: no ref is moved and no file is written.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::slice;

use crate::authorship::Authorship;
use crate::files::At;
use crate::gather::entries;
use crate::git::GitError;
use crate::id::{CommitId, TreeId};
use crate::repository::Repository;
use crate::store::{Store, StoreError};
use crate::workspaces::Workspaces;

/// More than any sensible file of attributes.
const ATTRIBUTE_FILE_CAP_BYTES: usize = 16 << 20;
const ATTRIBUTE_FILES: usize = 1000;

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
        let (left, right) = match base {
            None => (ours.clone(), theirs.clone()),
            // Two commits that have nothing but the base in common; git learned to be told a base only in 2.40.
            Some(base) => {
                let alone = async |commit: &CommitId| -> Result<CommitId, GitError> {
                    store
                        .commit(&store.tree_of(commit).await?, slice::from_ref(base), "side of a merge", authorship)
                        .await
                };
                (alone(ours).await.map_err(failed)?, alone(theirs).await.map_err(failed)?)
            }
        };
        let scratch = self.scratch().map_err(StoreError::from)?;
        let mut call = store.call("merge-tree").accept(&[0, 1]);
        if store.lay_out_attributes(ours, &scratch.0).await? {
            call = call.option("-c").option("core.bare=false").variable("GIT_WORK_TREE", &scratch.0).folder(&scratch.0);
        }
        let call = call.arguments(["--write-tree", "-z", "--name-only", "--messages", left.as_str(), right.as_str()]);
        let output = call.run().await.map_err(failed)?;
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

impl Store {
    /// Writes the `.gitattributes` files of a commit into `folder`, since a merge in a working tree obeys those of its tree.
    async fn lay_out_attributes(&self, commit: &CommitId, folder: &Path) -> Result<bool, StoreError> {
        let listed = self.call("ls-tree").arguments(["-r", "-z", commit.as_str()]).run().await?;
        let mut found = 0;
        for entry in entries(&listed.stdout) {
            let Some(end) = entry.iter().position(|&byte| byte == b'\t') else { continue };
            let path = Path::new(OsStr::from_bytes(&entry[end + 1..]));
            let is_plain = entry.starts_with(b"100644 ") || entry.starts_with(b"100755 ");
            // A tree that was never checked may hold names that lead out of the folder.
            let is_inside = path.components().all(|part| matches!(part, Component::Normal(name) if name != ".git"));
            if path.file_name() != Some(OsStr::new(".gitattributes")) || !is_plain || !is_inside {
                continue;
            }
            found += 1;
            if found > ATTRIBUTE_FILES {
                break;
            }
            let object = String::from_utf8_lossy(&entry[..end]);
            let object = object.rsplit(' ').next().unwrap_or_default();
            let call = self.call("cat-file").arguments(["blob", object]);
            let content = call.keep_first(ATTRIBUTE_FILE_CAP_BYTES).run().await?.stdout;
            let path = folder.join(path);
            let parent = path.parent().expect("it is below the folder");
            std::fs::create_dir_all(parent).at("make the folder", parent)?;
            std::fs::write(&path, content).at("write", &path)?;
        }
        Ok(found > 0)
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
