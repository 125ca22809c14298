//! The user's own repository: found, checked, asked questions, and never changed except by refs under `refs/adjutant/`.

use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::alternates;
use crate::git::{Call, Git, GitError, Rules};
use crate::id::{CommitId, Name, TreeId};

/// Why a folder cannot be worked on.
#[derive(Debug, thiserror::Error)]
pub enum OpenRepositoryError {
    #[error("cannot open the folder {}", path.display())]
    Folder { path: PathBuf, source: io::Error },
    #[error("{} is not inside a git repository", path.display())]
    NotARepository { path: PathBuf },
    #[error("{} is a bare repository or inside a git folder; a working tree is needed", path.display())]
    NoWorkTree { path: PathBuf },
    #[error("the repository at {} belongs to another user; git's setting safe.directory can allow it", path.display())]
    ForeignOwner { path: PathBuf },
    #[error("the repository at {} has no commit yet", path.display())]
    NoCommit { path: PathBuf },
    #[error("the repository at {} is a shallow clone; `git fetch --unshallow` completes it", path.display())]
    Shallow { path: PathBuf },
    #[error("the repository at {} is a partial clone: objects may be missing", path.display())]
    Partial { path: PathBuf },
    #[error("the path {} is not valid UTF-8, which the sandbox needs", path.display())]
    NotUtf8 { path: PathBuf },
    #[error("cannot read the alternates of {}", path.display())]
    Alternates { path: PathBuf, source: io::Error },
    #[error("cannot examine the repository at {}", path.display())]
    Git { path: PathBuf, source: GitError },
}

/// A repository with a working tree and at least one commit.
#[derive(Debug, Clone)]
pub struct Repository {
    pub(crate) git: Arc<Git>,
    /// The top folder of the working tree.
    pub root: PathBuf,
    /// The git folder of this working tree.
    pub git_dir: PathBuf,
    /// The git folder that all working trees of this repository share.
    pub common_dir: PathBuf,
    /// Stands for the repository in our state folder; made from `common_dir`.
    pub id: String,
    pub(crate) object_format: String,
    /// Where its objects are: its own folder first, then what that one borrows from.
    pub(crate) object_dirs: Vec<PathBuf>,
}

/// Where the user stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The branch without `refs/heads/`; `None` when detached.
    pub branch: Option<String>,
    pub commit: CommitId,
}

impl Repository {
    pub(crate) async fn open(git: Arc<Git>, folder: &Path) -> Result<Self, OpenRepositoryError> {
        let path = folder.to_owned();
        let folder =
            folder.canonicalize().map_err(|source| OpenRepositoryError::Folder { path: path.clone(), source })?;
        let ask = |arguments: &[&str]| {
            let call = git.call(Rules::Users, "rev-parse").folder(&folder);
            call.argument("--path-format=absolute").arguments(arguments).run()
        };
        let explain = |source: GitError| explain(path.clone(), source);
        // One call per path: a path may contain line breaks.
        let root = ask(&["--show-toplevel"]).await.map_err(explain)?;
        let git_dir = ask(&["--absolute-git-dir"]).await.map_err(explain)?;
        let common_dir = ask(&["--git-common-dir"]).await.map_err(explain)?;
        let objects = ask(&["--git-path", "objects"]).await.map_err(explain)?;
        let facts = ask(&["--is-shallow-repository", "--show-object-format"]).await.map_err(explain)?.text();
        let mut paths = Vec::new();
        for answer in [root, git_dir, common_dir, objects] {
            let found = path_line(answer.stdout);
            let found = found.canonicalize().map_err(|source| OpenRepositoryError::Folder { path: found, source })?;
            if found.to_str().is_none() {
                return Err(OpenRepositoryError::NotUtf8 { path: found });
            }
            paths.push(found);
        }
        let [root, git_dir, common_dir, objects] = <[PathBuf; 4]>::try_from(paths).expect("four paths were asked for");
        let Some((is_shallow, object_format)) = facts.split_once('\n') else {
            return Err(explain(GitError::unexpected("rev-parse", facts.as_bytes())));
        };
        if is_shallow == "true" {
            return Err(OpenRepositoryError::Shallow { path: root });
        }
        let partial = git.call(Rules::Users, "config").folder(&root).accept(&[0, 1]).arguments([
            "--name-only",
            "--get-regexp",
            r"^(extensions\.partialclone|remote\..*\.promisor)$",
        ]);
        if !partial.run().await.map_err(explain)?.stdout.is_empty() {
            return Err(OpenRepositoryError::Partial { path: root });
        }
        let object_dirs = alternates::object_dirs(&objects)
            .map_err(|source| OpenRepositoryError::Alternates { path: objects.clone(), source })?;
        let id = blake3::hash(common_dir.as_os_str().as_encoded_bytes()).to_hex()[..24].to_owned();
        let object_format = object_format.to_owned();
        let repository = Self { git, root, git_dir, common_dir, id, object_format, object_dirs };
        let commit = repository.call("rev-parse").accept(&[0, 1, 128]);
        let commit = commit.arguments(["--verify", "--quiet", "HEAD^{commit}"]).run().await.map_err(explain)?;
        if commit.status != 0 {
            return Err(OpenRepositoryError::NoCommit { path: repository.root });
        }
        Ok(repository)
    }

    /// A git command about the repository itself, with the user's configuration.
    pub(crate) fn call(&self, command: &'static str) -> Call<'_> {
        let call = self.git.call(Rules::Users, command).folder(&self.root);
        call.git_dir(&self.git_dir).variable("GIT_WORK_TREE", &self.root)
    }

    /// The branch and commit that are checked out.
    pub async fn head(&self) -> Result<Head, GitError> {
        let name = self.call("symbolic-ref").accept(&[0, 1]).arguments(["--quiet", "HEAD"]).run().await?;
        let branch = name.text().strip_prefix("refs/heads/").map(str::to_owned);
        let commit = self.call("rev-parse").arguments(["--verify", "HEAD^{commit}"]).run().await?;
        Ok(Head { branch, commit: parse_commit("rev-parse", &commit.stdout)? })
    }

    /// The commit that `revision` (a branch, a tag, an id …) means now, if there is one.
    pub async fn resolve(&self, revision: &str) -> Result<Option<CommitId>, GitError> {
        let call = self.call("rev-parse").accept(&[0, 1, 128]).arguments(["--verify", "--quiet", "--end-of-options"]);
        let answer = call.argument(format!("{revision}^{{commit}}")).run().await?;
        if answer.status == 0 { parse_commit("rev-parse", &answer.stdout).map(Some) } else { Ok(None) }
    }

    /// Where a branch stands now; only the branch of exactly this name counts.
    pub(crate) async fn branch(&self, branch: &str) -> Result<Option<CommitId>, GitError> {
        self.reference(&format!("refs/heads/{branch}")).await
    }

    /// Where a full ref stands now.
    pub(crate) async fn reference(&self, reference: &str) -> Result<Option<CommitId>, GitError> {
        let call = self.call("for-each-ref").argument("--format=%(refname) %(objectname)");
        let answer = call.argument(reference).run().await?;
        let found = String::from_utf8_lossy(&answer.stdout).lines().find_map(|line| {
            let (name, id) = line.split_once(' ')?;
            (name == reference).then(|| id.to_owned())
        });
        found.map(|id| parse_commit("for-each-ref", id.as_bytes())).transpose()
    }

    /// Keeps `commit` from git's garbage collection, by `refs/adjutant/<suffix>`; gives the ref's name.
    pub async fn pin(&self, suffix: &[Name], commit: &CommitId) -> Result<String, GitError> {
        let suffix: Vec<&str> = suffix.iter().map(Name::as_str).collect();
        let reference = format!("refs/adjutant/{}", suffix.join("/"));
        let call = self.call("update-ref").arguments(["-m", "adjutant: keep", "--no-deref"]);
        call.argument(&reference).argument(commit.as_str()).run().await?;
        Ok(reference)
    }

    /// The tree of a commit.
    pub async fn tree_of(&self, commit: &CommitId) -> Result<TreeId, GitError> {
        let call = self.call("rev-parse").arguments(["--verify", "--end-of-options"]);
        parse_tree("rev-parse", &call.argument(format!("{commit}^{{tree}}")).run().await?.stdout)
    }

    pub(crate) async fn is_ancestor(&self, ancestor: &CommitId, descendant: &CommitId) -> Result<bool, GitError> {
        let call = self.call("merge-base").accept(&[0, 1]).argument("--is-ancestor");
        Ok(call.argument(ancestor.as_str()).argument(descendant.as_str()).run().await?.status == 0)
    }
}

fn explain(path: PathBuf, source: GitError) -> OpenRepositoryError {
    let words = match &source {
        GitError::Failed { stderr, .. } => stderr.as_str(),
        _ => "",
    };
    if words.contains("dubious ownership") {
        OpenRepositoryError::ForeignOwner { path }
    } else if words.contains("must be run in a work tree") || words.contains("cannot use bare repository") {
        OpenRepositoryError::NoWorkTree { path }
    } else if words.contains("not a git repository") {
        OpenRepositoryError::NotARepository { path }
    } else {
        OpenRepositoryError::Git { path, source }
    }
}

/// A path that git printed with a line break after it.
fn path_line(mut stdout: Vec<u8>) -> PathBuf {
    if stdout.last() == Some(&b'\n') {
        stdout.pop();
    }
    PathBuf::from(std::ffi::OsString::from_vec(stdout))
}

pub(crate) fn parse_commit(command: &'static str, stdout: &[u8]) -> Result<CommitId, GitError> {
    let text = std::str::from_utf8(stdout).map_err(|_| GitError::unexpected(command, stdout))?;
    text.trim_end().parse().map_err(|_| GitError::unexpected(command, stdout))
}

pub(crate) fn parse_tree(command: &'static str, stdout: &[u8]) -> Result<TreeId, GitError> {
    let text = std::str::from_utf8(stdout).map_err(|_| GitError::unexpected(command, stdout))?;
    text.trim_end().parse().map_err(|_| GitError::unexpected(command, stdout))
}
