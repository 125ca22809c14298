//! Brings commits from our store into the user's repository: objects as data, then a ref.

use crate::git::GitError;
use crate::id::CommitId;
use crate::refs::checked_out;
use crate::repository::{Repository, parse_commit};
use crate::store::{ImportError, StoreError, import};
use crate::workspaces::Workspaces;

/// Why a commit did not get into the user's repository.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cannot take commit {commit} into the repository")]
    Import { commit: CommitId, source: ImportError },
}

impl From<GitError> for TransferError {
    fn from(error: GitError) -> Self {
        Self::Store(StoreError::Git(error))
    }
}

/// Why a ref of the user's repository was not set.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    #[error("{name:?} cannot be the name of a branch or ref")]
    Name { name: String },
    #[error("{reference} is at {found}, which commit {commit} does not contain")]
    NotForward { reference: String, found: CommitId, commit: CommitId },
    #[error("{reference} is checked out in {}", work_tree.display())]
    CheckedOut { reference: String, work_tree: std::path::PathBuf },
    #[error(transparent)]
    Transfer(#[from] TransferError),
    #[error("cannot set {reference}")]
    Set { reference: String, source: GitError },
}

impl Workspaces {
    /// Sets a branch (or a full ref, if the name starts with `refs/`) of the user's repository to `commit`; gives the full name.
    ///
    /// A ref that is there already is only moved forwards, and never one that is checked out: that is what `land` is for.
    pub async fn publish(
        &self,
        repository: &Repository,
        name: &str,
        commit: &CommitId,
    ) -> Result<String, PublishError> {
        let reference = full_name(repository, name).await?;
        self.transfer(repository, commit).await?;
        let found = repository.reference(&reference).await.map_err(TransferError::from)?;
        if found.as_ref() == Some(commit) {
            return Ok(reference);
        }
        if let Some(found) = &found
            && !repository.is_ancestor(found, commit).await.map_err(TransferError::from)?
        {
            return Err(PublishError::NotForward { reference, found: found.clone(), commit: commit.clone() });
        }
        if let Some(work_tree) = checked_out(repository, &reference).await.map_err(TransferError::from)? {
            return Err(PublishError::CheckedOut { reference, work_tree });
        }
        let before = found.map_or_else(|| "0".repeat(commit.as_str().len()), String::from);
        let call =
            repository.call("update-ref").arguments(["--no-deref", "--create-reflog", "-m", "adjutant: publish"]);
        let set = call.arguments([reference.as_str(), commit.as_str(), &before]).run().await;
        match set {
            Ok(_) => Ok(reference),
            Err(source) => Err(PublishError::Set { reference, source }),
        }
    }

    /// Copies what the user's repository does not have of `commit`, from our store, without setting a ref.
    pub(crate) async fn transfer(&self, repository: &Repository, commit: &CommitId) -> Result<(), TransferError> {
        let store = self.store(repository).await?;
        store.require(commit).await?;
        let scratch = self.scratch().map_err(StoreError::from)?;
        let revisions = revisions(repository, commit).await?;
        // `--local` leaves out what the store itself only borrows from the user's repository.
        let call = store.call("pack-objects").arguments(["-q", "--revs", "--local", "--delta-base-offset"]);
        let answer = call.argument(scratch.0.join("pack")).stdin(revisions).run().await?.text();
        if answer.is_empty() {
            return Ok(());
        }
        let hash = parse_commit("pack-objects", answer.as_bytes())?;
        let path = scratch.0.join(format!("pack-{hash}.pack"));
        let failed = |source| TransferError::Import { commit: commit.clone(), source };
        let pack = std::fs::File::open(path).map_err(|source| failed(ImportError::Read { source }))?;
        let (unpack, index) = (repository.call("unpack-objects"), repository.call("index-pack"));
        import(unpack, index, pack, i64::MAX as u64).await.map_err(failed)
    }
}

/// `commit`, without what the user's branches lead to already.
async fn revisions(repository: &Repository, commit: &CommitId) -> Result<String, GitError> {
    let call = repository.call("for-each-ref").arguments(["--format=%(objecttype) %(objectname)"]);
    let known = call.arguments(["refs/heads", "refs/adjutant"]).run().await?.text();
    let head = repository.head().await?.commit;
    let mut text = format!("{commit}\n^{head}\n");
    for id in known.lines().filter_map(|line| line.strip_prefix("commit ")) {
        text.push_str(&format!("^{id}\n"));
    }
    Ok(text)
}

async fn full_name(repository: &Repository, name: &str) -> Result<String, PublishError> {
    let refuse = || PublishError::Name { name: name.chars().take(200).collect() };
    let reference = if name.starts_with("refs/") { name.to_owned() } else { format!("refs/heads/{name}") };
    // A leading dash would be legal for git but not for people who type it afterwards.
    if name.starts_with('-') || name == "HEAD" || reference.contains('\0') {
        return Err(refuse());
    }
    let check = repository.call("check-ref-format").argument(&reference).run().await;
    check.map(|_| reference).map_err(|_| refuse())
}
