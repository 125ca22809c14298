//! What in the user's working tree is not committed, and how it is kept without touching tree or index.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::authorship::Authorship;
use crate::files::{self, FileError, Scratch};
use crate::gather::entries;
use crate::git::GitError;
use crate::id::{CommitId, Name, TreeId};
use crate::repository::{Repository, parse_commit, parse_tree};
use crate::store::clean_message;
use crate::workspaces::Workspaces;

const STATUS_CAP_BYTES: usize = 16 << 20;
const PATHS_NAMED: usize = 100;

/// Some paths by name and all of them by number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Paths {
    /// At most a hundred.
    pub first: Vec<PathBuf>,
    pub count: usize,
}

impl Paths {
    fn push(&mut self, path: &[u8]) {
        if self.first.len() < PATHS_NAMED {
            self.first.push(PathBuf::from(OsStr::from_bytes(path)));
        }
        self.count += 1;
    }
}

/// What is different from the commit that is checked out. A path can be in several lists.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dirtiness {
    pub staged: Paths,
    pub unstaged: Paths,
    /// A folder that is new as a whole counts as one, with a slash at the end.
    pub untracked: Paths,
    pub conflicted: Paths,
    /// There was more than could be counted.
    pub is_cut: bool,
}

impl Dirtiness {
    /// Whether the working tree is exactly the commit, apart from ignored files.
    pub fn is_clean(&self) -> bool {
        *self == Self::default()
    }
}

/// The user's uncommitted work, kept as a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirtySnapshot {
    /// On top of the commit that was checked out; that commit itself when nothing was dirty.
    pub commit: CommitId,
    pub tree: TreeId,
    /// Keeps the commit in the user's repository.
    pub reference: String,
    /// Keeps the index as it was, if it was neither the commit nor the working tree.
    pub index_reference: Option<String>,
}

/// Why the user's uncommitted work could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum DirtySnapshotError {
    #[error("{} of the user's paths are in conflict, the first is {}", paths.count, paths.first[0].display())]
    Conflicted { paths: Paths },
    #[error(transparent)]
    Git(#[from] GitError),
    #[error(transparent)]
    File(#[from] FileError),
}

impl Repository {
    /// What is not committed. Changes nothing, not even the index.
    pub async fn dirtiness(&self) -> Result<Dirtiness, GitError> {
        let call = self.call("status").arguments(["--porcelain=v2", "-z", "--untracked-files=normal"]);
        let call = call.arguments(["--no-renames", "--ignore-submodules=none", "--no-ahead-behind", "--no-show-stash"]);
        let output = call.keep_first(STATUS_CAP_BYTES).run().await?;
        let mut dirtiness = Dirtiness { is_cut: output.is_cut, ..Dirtiness::default() };
        let end = output.stdout.iter().rposition(|&byte| byte == 0).unwrap_or(0);
        for entry in entries(&output.stdout[..end]) {
            add(&mut dirtiness, entry).ok_or_else(|| GitError::unexpected("status", entry))?;
        }
        Ok(dirtiness)
    }

    /// The tree that a commit of everything (tracked and new files, not ignored ones) would have now.
    ///
    /// Works on a copy of the index in `scratch`. The user's own filters run, as they would on `git add`.
    pub(crate) async fn tree_now(&self, scratch: &Scratch) -> Result<TreeId, DirtySnapshotError> {
        let index = scratch.0.join("index");
        self.copy_index(&index)?;
        let list =
            self.call("ls-files").index(&index).arguments(["-z", "-t", "--modified", "--others", "--exclude-standard"]);
        let list = list.run().await?.stdout;
        // A file must leave the index before a folder can take its name, so what is new comes last.
        let (mut changed, mut new) = (Vec::new(), Vec::new());
        for entry in entries(&list).filter(|entry| entry.len() > 2) {
            let list = if entry.starts_with(b"?") { &mut new } else { &mut changed };
            // A repository inside the user's own is the user's business and stays where it is.
            if !entry.ends_with(b"/") {
                list.extend([&entry[2..], b"\0"].concat());
            }
        }
        changed.append(&mut new);
        let call = self.call("update-index").index(&index);
        call.arguments(["-z", "--add", "--remove", "--replace", "--stdin"]).stdin(changed).run().await?;
        let call = self.call("write-tree").index(&index);
        Ok(parse_tree("write-tree", &call.run().await?.stdout)?)
    }

    fn copy_index(&self, to: &Path) -> Result<(), FileError> {
        let from = self.git_dir.join("index");
        // A repository whose files were all removed from the index may have none.
        if from.symlink_metadata().is_err() {
            return Ok(());
        }
        files::copy_file(&from, to)
    }
}

impl Workspaces {
    /// Keeps the user's uncommitted work as a commit, under `refs/adjutant/dirty/<label>` in the user's repository.
    ///
    /// Neither the working tree nor the index is touched. The same state and words give the same commit.
    pub async fn snapshot_dirty(
        &self,
        repository: &Repository,
        label: &Name,
        message: &str,
        authorship: &Authorship,
    ) -> Result<DirtySnapshot, DirtySnapshotError> {
        let conflicted = repository.dirtiness().await?.conflicted;
        if conflicted.count > 0 {
            return Err(DirtySnapshotError::Conflicted { paths: conflicted });
        }
        let head = repository.head().await?.commit;
        let head_tree = repository.tree_of(&head).await?;
        let scratch = self.scratch()?;
        let tree = repository.tree_now(&scratch).await?;
        let keep = async |tree: &TreeId, kind: &str| -> Result<(CommitId, String), GitError> {
            let commit = if *tree == head_tree {
                head.clone()
            } else {
                let call = repository.call("commit-tree").variables(authorship.environment());
                let call = call.stdin(clean_message(message)).arguments(["-F-", "-p", head.as_str(), tree.as_str()]);
                parse_commit("commit-tree", &call.run().await?.stdout)?
            };
            let kind: Name = kind.parse().expect("a fixed word");
            let reference = repository.pin(&[kind, label.clone()], &commit).await?;
            Ok((commit, reference))
        };
        let (commit, reference) = keep(&tree, "dirty").await?;
        let index = scratch.0.join("staged");
        repository.copy_index(&index)?;
        let staged = parse_tree("write-tree", &repository.call("write-tree").index(&index).run().await?.stdout)?;
        let index_reference =
            if staged == tree || staged == head_tree { None } else { Some(keep(&staged, "dirty-index").await?.1) };
        Ok(DirtySnapshot { commit, tree, reference, index_reference })
    }
}

/// One entry of `status --porcelain=v2 -z`.
fn add(dirtiness: &mut Dirtiness, entry: &[u8]) -> Option<()> {
    let field = |count: usize| entry.splitn(count + 1, |&byte| byte == b' ').nth(count);
    match entry.first()? {
        b'1' => {
            let (states, path) = (field(1)?, field(8)?);
            let states = states.split(|&byte| byte == b' ').next()?;
            if *states.first()? != b'.' {
                dirtiness.staged.push(path);
            }
            if *states.get(1)? != b'.' {
                dirtiness.unstaged.push(path);
            }
        }
        b'u' => dirtiness.conflicted.push(field(10)?),
        b'?' => dirtiness.untracked.push(field(1)?),
        b'!' | b'#' => {}
        _ => return None,
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_entries_are_sorted_into_lists() {
        let cases: [(&[u8], [&[&str]; 4]); 6] = [
            (b"1 .M N... 100644 100644 100644 a b src/x y", [&[], &["src/x y"], &[], &[]]),
            (b"1 MM N... 100644 100644 100644 a b z", [&["z"], &["z"], &[], &[]]),
            (b"1 A. N... 000000 100644 100644 a b new\nline", [&["new\nline"], &[], &[], &[]]),
            (b"u UU N... 1 2 3 4 a b c both", [&[], &[], &[], &["both"]]),
            (b"? folder/", [&[], &[], &["folder/"], &[]]),
            (b"# branch.oid x", [&[], &[], &[], &[]]),
        ];
        for (entry, expected) in cases {
            let mut found = Dirtiness::default();
            add(&mut found, entry).expect("a known kind");
            let lists = [&found.staged, &found.unstaged, &found.untracked, &found.conflicted];
            for (list, expected) in lists.into_iter().zip(expected) {
                let expected: Vec<PathBuf> = expected.iter().map(PathBuf::from).collect();
                assert_eq!(list.first, expected, "{}", String::from_utf8_lossy(entry));
            }
        }
        assert!(add(&mut Dirtiness::default(), b"9 what").is_none());
        assert!(add(&mut Dirtiness::default(), b"1 .M").is_none());
    }
}
