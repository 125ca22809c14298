//! Moves the user's branch to a result: the only thing in this room that changes the user's branch, index and files.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::dirty::DirtySnapshotError;
use crate::files::{self, At, FileError};
use crate::gather::entries;
use crate::git::GitError;
use crate::id::CommitId;
use crate::publish::TransferError;
use crate::refs::{Move, checked_out};
use crate::repository::{OpenRepositoryError, Repository};
use crate::work_tree::{WorkTreeError, advance};
use crate::workspaces::Workspaces;

/// How long another git may hold a lock before we give up.
const PATIENCE: Duration = Duration::from_secs(10);

/// The branch is where it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Landed {
    pub branch: String,
    pub commit: CommitId,
    /// Where the branch is checked out, if it is.
    pub work_tree: Option<PathBuf>,
}

/// Why the branch is where it was.
#[derive(Debug, thiserror::Error)]
pub enum LandError {
    #[error("the branch {branch} has moved: it was expected at {expected}")]
    Moved { branch: String, expected: CommitId, now: Option<CommitId> },
    #[error("commit {new} does not contain {old}, so the branch {branch} cannot move there")]
    NotForward { branch: String, old: CommitId, new: CommitId },
    #[error("a {operation} is going on in {}", work_tree.display())]
    Busy { work_tree: PathBuf, operation: &'static str },
    #[error("the branch {branch} is not checked out in {}", work_tree.display())]
    NotCheckedOut { branch: String, work_tree: PathBuf },
    #[error("the working tree {} has changed since its snapshot", work_tree.display())]
    Changed { work_tree: PathBuf, paths: Vec<PathBuf> },
    #[error("the lock {} stays; if no git is running, it can be deleted", path.display())]
    Locked { path: PathBuf },
    #[error("the working tree {} was not moved", work_tree.display())]
    WorkTree { work_tree: PathBuf, source: WorkTreeError },
    #[error(transparent)]
    Transfer(#[from] TransferError),
    #[error("cannot examine the working tree that has the branch")]
    Open(#[from] OpenRepositoryError),
    #[error("cannot examine the user's uncommitted work")]
    Dirty(#[from] DirtySnapshotError),
    #[error("cannot move the branch {branch}")]
    Git { branch: String, source: GitError },
    #[error(transparent)]
    File(#[from] FileError),
}

impl Workspaces {
    /// Moves `branch` from `old` forwards to `new`, with the working tree if it is checked out somewhere.
    ///
    /// Uncommitted work at other paths than those that change stays as it is. Asking again after success or a crash is safe.
    pub async fn land(
        &self,
        repository: &Repository,
        branch: &str,
        old: &CommitId,
        new: &CommitId,
    ) -> Result<Landed, LandError> {
        let failed = |source| LandError::Git { branch: branch.to_owned(), source };
        self.transfer(repository, new).await?;
        let reference = format!("refs/heads/{branch}");
        let work_tree = checked_out(repository, &reference).await.map_err(failed)?;
        let landed = Landed { branch: branch.to_owned(), commit: new.clone(), work_tree: work_tree.clone() };
        let now = repository.branch(branch).await.map_err(failed)?;
        // The tree moves before the branch, so a branch at its place means that all is done.
        if now.as_ref() == Some(new) {
            return Ok(landed);
        }
        if now.as_ref() != Some(old) {
            // Somebody has built on what landed before we could say so.
            if let Some(now) = &now
                && repository.is_ancestor(new, now).await.map_err(failed)?
            {
                return Ok(landed);
            }
            return Err(LandError::Moved { branch: branch.to_owned(), expected: old.clone(), now });
        }
        if !repository.is_ancestor(old, new).await.map_err(failed)? {
            return Err(LandError::NotForward { branch: branch.to_owned(), old: old.clone(), new: new.clone() });
        }
        let Some(work_tree) = work_tree else {
            let locks = [repository.common_dir.join(format!("{reference}.lock"))];
            wait_for_locks(&locks, &repository.root, &self.intent(repository, branch)).await?;
            let step = Move::prepare(repository, &reference, old, new).await.map_err(failed)?;
            step.commit().await.map_err(failed)?;
            return Ok(landed);
        };
        let there = if work_tree == repository.root {
            repository.clone()
        } else {
            Repository::open(self.git.clone(), &work_tree).await?
        };
        let is_resumed = std::fs::read(self.intent(&there, branch)).is_ok_and(|found| found == intent_text(old, new));
        let step = self.start_move(&there, branch, old, new).await?;
        let scratch = self.scratch()?;
        if let Err(source) = advance(&there, &scratch, old, new, is_resumed).await {
            step.abort().await;
            // A git that was killed leaves its lock; one that refused does not.
            if !matches!(source, WorkTreeError::Git(GitError::Killed { .. } | GitError::TimedOut { .. })) {
                self.forget_intent(&there, branch)?;
            }
            return Err(LandError::WorkTree { work_tree, source });
        }
        step.commit().await.map_err(failed)?;
        self.forget_intent(&there, branch)?;
        Ok(landed)
    }

    /// [`Workspaces::land`] for a result that was built on a snapshot of the user's uncommitted work.
    ///
    /// If the working tree still is that snapshot, branch and index first move to the snapshot, no file being touched, and then
    /// forwards. If it has changed since, nothing is touched.
    pub async fn land_over_snapshot(
        &self,
        repository: &Repository,
        branch: &str,
        old: &CommitId,
        snapshot: &CommitId,
        new: &CommitId,
    ) -> Result<Landed, LandError> {
        let failed = |source| LandError::Git { branch: branch.to_owned(), source };
        let now = repository.branch(branch).await.map_err(failed)?;
        if old == snapshot || now.as_ref() == Some(snapshot) || now.as_ref() == Some(new) {
            return self.land(repository, branch, snapshot, new).await;
        }
        if now.as_ref() != Some(old) {
            return Err(LandError::Moved { branch: branch.to_owned(), expected: old.clone(), now });
        }
        self.transfer(repository, new).await?;
        for (older, newer) in [(old, snapshot), (snapshot, new)] {
            if !repository.is_ancestor(older, newer).await.map_err(failed)? {
                let (old, new) = (older.clone(), newer.clone());
                return Err(LandError::NotForward { branch: branch.to_owned(), old, new });
            }
        }
        let work_tree = repository.root.clone();
        if repository.head().await.map_err(failed)?.branch.as_deref() != Some(branch) {
            return Err(LandError::NotCheckedOut { branch: branch.to_owned(), work_tree });
        }
        let step = self.start_move(repository, branch, old, snapshot).await?;
        let moved = async {
            let scratch = self.scratch()?;
            let tree = repository.tree_now(&scratch).await?;
            let wanted = repository.tree_of(snapshot).await.map_err(failed)?;
            if tree != wanted {
                let call = repository.call("diff-tree").arguments(["-r", "-z", "--name-only", "--no-renames"]);
                let names =
                    call.arguments([wanted.as_str(), tree.as_str()]).keep_first(1 << 20).run().await.map_err(failed)?;
                let paths = entries(&names.stdout).take(100).map(|path| {
                    use std::os::unix::ffi::OsStrExt;
                    PathBuf::from(std::ffi::OsStr::from_bytes(path))
                });
                return Err(LandError::Changed { work_tree, paths: paths.collect() });
            }
            let call = repository.call("read-tree").arguments(["-i", "-m", snapshot.as_str()]);
            call.run().await.map_err(failed)?;
            Ok(())
        };
        if let Err(error) = moved.await {
            step.abort().await;
            if !matches!(&error, LandError::Git { source: GitError::Killed { .. } | GitError::TimedOut { .. }, .. }) {
                self.forget_intent(repository, branch)?;
            }
            return Err(error);
        }
        step.commit().await.map_err(failed)?;
        self.land(repository, branch, snapshot, new).await
    }

    /// Locks the branch for the step, after everything that could be in the way was looked at.
    async fn start_move(
        &self,
        repository: &Repository,
        branch: &str,
        old: &CommitId,
        new: &CommitId,
    ) -> Result<Move, LandError> {
        if let Some(operation) = operation(&repository.git_dir) {
            return Err(LandError::Busy { work_tree: repository.root.clone(), operation });
        }
        let reference = format!("refs/heads/{branch}");
        let locks = [
            repository.git_dir.join("index.lock"),
            repository.git_dir.join("HEAD.lock"),
            repository.common_dir.join(format!("{reference}.lock")),
        ];
        let intent = self.intent(repository, branch);
        wait_for_locks(&locks, &repository.root, &intent).await?;
        files::write_durably(&intent, &intent_text(old, new))?;
        let failed = |source| LandError::Git { branch: branch.to_owned(), source };
        Move::prepare(repository, &reference, old, new).await.map_err(failed)
    }

    /// The note that says: a git that holds a lock here may be one of ours that was killed.
    fn intent(&self, repository: &Repository, branch: &str) -> PathBuf {
        let mut hash = blake3::Hasher::new();
        hash.update(repository.git_dir.as_os_str().as_encoded_bytes()).update(b"\0").update(branch.as_bytes());
        self.folder.join("landings").join(&hash.finalize().to_hex()[..32])
    }

    fn forget_intent(&self, repository: &Repository, branch: &str) -> Result<(), FileError> {
        let path = self.intent(repository, branch);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).at("remove", &path),
            _ => Ok(()),
        }
    }
}

fn intent_text(old: &CommitId, new: &CommitId) -> Vec<u8> {
    format!("{old} {new}\n").into_bytes()
}

/// What the user is in the middle of.
fn operation(git_dir: &Path) -> Option<&'static str> {
    let signs = [
        ("MERGE_HEAD", "merge"),
        ("rebase-merge", "rebase"),
        ("rebase-apply", "rebase"),
        ("CHERRY_PICK_HEAD", "cherry-pick"),
        ("REVERT_HEAD", "revert"),
        ("BISECT_LOG", "bisection"),
    ];
    signs.into_iter().find(|(name, _)| git_dir.join(name).exists()).map(|(_, operation)| operation)
}

/// Waits until no lock is left. A lock that nobody can be holding any more is removed, if we were landing there when it appeared.
async fn wait_for_locks(locks: &[PathBuf], work_tree: &Path, intent: &Path) -> Result<(), LandError> {
    let start = tokio::time::Instant::now();
    loop {
        let Some(path) = locks.iter().find(|path| path.symlink_metadata().is_ok()) else {
            return Ok(());
        };
        if intent.exists() && is_old(path) && !is_git_running(work_tree) {
            // It may be gone by itself by now.
            let _ = std::fs::remove_file(path);
            continue;
        }
        if start.elapsed() > PATIENCE {
            return Err(LandError::Locked { path: path.clone() });
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A lock that an editor's own git library takes is gone much sooner than this.
fn is_old(lock: &Path) -> bool {
    let age = lock.symlink_metadata().and_then(|meta| meta.modified()).map(|time| time.elapsed().unwrap_or_default());
    age.is_ok_and(|age| age >= Duration::from_secs(1))
}

/// Whether any process called git stands in this working tree.
fn is_git_running(work_tree: &Path) -> bool {
    let Ok(processes) = std::fs::read_dir("/proc") else {
        return true;
    };
    processes.flatten().any(|process| {
        let is_git = std::fs::read(process.path().join("comm")).is_ok_and(|name| name.starts_with(b"git"));
        // A git of another user's, whose folder we may not see, counts as running.
        is_git && std::fs::read_link(process.path().join("cwd")).map_or(true, |cwd| cwd.starts_with(work_tree))
    })
}
