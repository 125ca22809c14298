//! A bare store of our own for each of the user's repositories: agents' results and merges live here, never an agent's git folder.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::alternates;
use crate::files::{self, At, FileError};
use crate::git::{Call, Git, GitError, Rules};
use crate::id::{CommitId, TreeId};
use crate::repository::{Repository, parse_commit, parse_tree};

/// Packs up to this size become loose objects, so that hundreds of small results do not become hundreds of packs.
const UNPACK_UP_TO_BYTES: u64 = 1 << 20;

/// Why our own store could not be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Git(#[from] GitError),
    #[error("commit {commit} is not in the repository {}", repository.display())]
    NoSuchCommit { commit: CommitId, repository: PathBuf },
}

/// The store that belongs to one of the user's repositories.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    git: Arc<Git>,
    pub path: PathBuf,
}

impl Store {
    /// The store at `path`, which is there already.
    pub fn at(git: Arc<Git>, path: PathBuf) -> Self {
        Self { git, path }
    }

    /// Opens the store at `path`, making it first if it is not there.
    pub async fn open(repository: &Repository, path: &Path, lock: &Path) -> Result<Self, StoreError> {
        let store = Self { git: repository.git.clone(), path: path.to_owned() };
        let wanted = alternates::text([repository.object_dirs[0].as_path()]);
        let alternates = path.join("objects/info/alternates");
        if std::fs::read(&alternates).is_ok_and(|found| found == wanted) {
            return Ok(store);
        }
        let lock = lock.to_owned();
        let _lock = tokio::task::spawn_blocking(move || files::lock(&lock)).await.expect("locking does not panic")?;
        if !path.exists() {
            let parent = path.parent().expect("a store lies in a folder");
            let fresh = files::Scratch(files::fresh(parent)?);
            let call = store.git.call(Rules::Ours, "init").arguments(["--quiet", "--bare", "--template="]);
            let call = call.argument(format!("--object-format={}", repository.object_format));
            call.argument("--initial-branch=none").argument(&fresh.0).run().await?;
            std::fs::create_dir_all(fresh.0.join("objects/info")).at("make the folder", &fresh.0)?;
            files::write_durably(&fresh.0.join("objects/info/alternates"), &wanted)?;
            std::fs::rename(&fresh.0, path).at("rename to", path)?;
        }
        files::write_durably(&alternates, &wanted)?;
        Ok(store)
    }

    /// A git command in this store.
    pub fn call(&self, command: &'static str) -> Call<'_> {
        self.git.call(Rules::Ours, command).git_dir(&self.path)
    }

    pub fn objects(&self) -> PathBuf {
        self.path.join("objects")
    }

    /// Fails unless the commit is really here (or in the user's repository); names alone are not trusted.
    pub async fn require(&self, commit: &CommitId) -> Result<(), StoreError> {
        let call = self.call("cat-file").accept(&[0, 1, 128]).argument("-t").argument(commit.as_str());
        if call.run().await?.text() == "commit" {
            Ok(())
        } else {
            Err(StoreError::NoSuchCommit { commit: commit.clone(), repository: self.path.clone() })
        }
    }

    pub async fn tree_of(&self, commit: &CommitId) -> Result<TreeId, GitError> {
        let call = self.call("rev-parse").arguments(["--verify", "--end-of-options"]);
        parse_tree("rev-parse", &call.argument(format!("{commit}^{{tree}}")).run().await?.stdout)
    }

    pub async fn is_ancestor(&self, ancestor: &CommitId, descendant: &CommitId) -> Result<bool, GitError> {
        let call = self.call("merge-base").accept(&[0, 1]).argument("--is-ancestor");
        Ok(call.argument(ancestor.as_str()).argument(descendant.as_str()).run().await?.status == 0)
    }

    /// Makes the commit of `tree`; the same input gives the same commit.
    pub async fn commit(
        &self,
        tree: &TreeId,
        parents: &[CommitId],
        message: &str,
        authorship: &crate::Authorship,
    ) -> Result<CommitId, GitError> {
        let mut call = self.call("commit-tree").variables(authorship.environment()).stdin(clean_message(message));
        for parent in parents {
            call = call.argument("-p").argument(parent.as_str());
        }
        parse_commit("commit-tree", &call.argument("-F-").argument(tree.as_str()).run().await?.stdout)
    }

    /// Sets a ref of the store.
    pub async fn set_reference(&self, reference: &str, commit: &CommitId) -> Result<(), GitError> {
        self.call("update-ref").argument("--no-deref").argument(reference).argument(commit.as_str()).run().await?;
        Ok(())
    }

    /// Takes the objects of a pack in as data, checked one by one.
    pub async fn import(&self, pack: File, limit_bytes: u64) -> Result<(), ImportError> {
        import(self.call("unpack-objects"), self.call("index-pack"), pack, limit_bytes).await
    }
}

/// Why a pack was not taken in.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error("the pack has {size_bytes} bytes, more than the {limit_bytes} allowed")]
    TooLarge { size_bytes: u64, limit_bytes: u64 },
    #[error("the pack cannot be read")]
    Read { source: std::io::Error },
    #[error("git does not accept the objects")]
    Git(#[from] GitError),
}

/// Feeds `pack` to one of the two commands, by its size.
pub(crate) async fn import(
    unpack: Call<'_>,
    index: Call<'_>,
    mut pack: File,
    limit_bytes: u64,
) -> Result<(), ImportError> {
    let size_bytes = pack.seek(SeekFrom::End(0)).map_err(|source| ImportError::Read { source })?;
    pack.rewind().map_err(|source| ImportError::Read { source })?;
    if size_bytes > limit_bytes {
        return Err(ImportError::TooLarge { size_bytes, limit_bytes });
    }
    let limit = format!("--max-input-size={limit_bytes}");
    let call = if size_bytes <= UNPACK_UP_TO_BYTES {
        unpack.arguments(["-q", "--strict"])
    } else {
        index.arguments(["--stdin", "--strict"])
    };
    call.argument(limit).stdin_file(pack).run().await?;
    Ok(())
}

/// A message that git stores as it is: with a line break at the end and without NUL, which would end it early.
pub(crate) fn clean_message(message: &str) -> String {
    let mut message = message.replace('\0', "");
    if !message.ends_with('\n') {
        message.push('\n');
    }
    message
}
