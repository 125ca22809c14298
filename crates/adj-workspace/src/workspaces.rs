//! The state folder: which stores, trees and workspaces there are, and how a workspace is made and found again.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use adj_sandbox::{Bind, GUARDED, Launcher, Mode, Mount, Plan};
use serde::{Deserialize, Serialize};

use crate::files::{self, At, FileError, Scratch};
use crate::git::{FindGitError, Git, GitError, Rules};
use crate::id::{CommitId, Name};
use crate::repository::{OpenRepositoryError, Repository};
use crate::store::{Store, StoreError};
use crate::tree::MaterialiseError;

/// Where a workspace is seen inside the sandbox.
const INSIDE: &str = "/workspace";
/// For the rare repository that itself lies below [`INSIDE`].
const INSIDE_INSTEAD: &str = "/adjutant-workspace";
const RECORD: &str = "workspace.json";
const FORMAT: u32 = 1;

/// How a workspace is kept apart from the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// A private layer over a tree that all workspaces of the same commit share.
    Overlay,
    /// A private copy of the tree, for kernels without unprivileged overlays.
    Copy,
    /// A private copy at its own path on the host, for work without a sandbox; our own git runs without one too.
    Unconfined,
}

/// The door to this room: everything we keep, below one folder.
#[derive(Debug, Clone)]
pub struct Workspaces {
    pub(crate) git: Arc<Git>,
    pub(crate) launcher: Launcher,
    pub(crate) layout: Layout,
    pub(crate) folder: PathBuf,
    /// No snapshot holds more new bytes than this.
    pub(crate) snapshot_limit_bytes: u64,
}

/// Why the state folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenWorkspacesError {
    #[error(transparent)]
    Git(#[from] FindGitError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("the path {} is not valid UTF-8, which the sandbox needs", path.display())]
    NotUtf8 { path: PathBuf },
}

/// Why there is no such workspace.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    #[error("the workspace {name} is there already, for commit {found}")]
    OtherCommit { name: Name, found: CommitId },
    #[error("the workspace {name} is there already, for the repository at {}", found.display())]
    OtherRepository { name: Name, found: PathBuf },
    #[error("commit {commit} is not in the repository at {}", repository.display())]
    NoSuchCommit { commit: CommitId, repository: PathBuf },
    #[error("cannot lay out the files of the commit")]
    Materialise(#[from] MaterialiseError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Find(#[from] FindWorkspaceError),
}

/// Why a workspace that should be there cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FindWorkspaceError {
    #[error("there is no workspace {name}")]
    Missing { name: Name },
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} does not describe a workspace", path.display())]
    Corrupt { path: PathBuf, source: serde_json::Error },
    #[error("{} has format {found}; this build reads up to {FORMAT}", path.display())]
    TooNew { path: PathBuf, found: u32 },
}

/// What is written down about a workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    format: u32,
    name: Name,
    base: CommitId,
    pub layout: Layout,
    /// Made only to look at a commit: what is changed in it counts for nothing.
    disposable: bool,
    inside: PathBuf,
    repository: PathBuf,
    repository_id: String,
    pub object_dirs: Vec<PathBuf>,
    pub lower: PathBuf,
}

/// A private tree of one commit, for one agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workspace {
    pub(crate) record: Record,
    pub(crate) folder: PathBuf,
    pub(crate) store: PathBuf,
}

impl Workspace {
    pub fn name(&self) -> &Name {
        &self.record.name
    }

    /// The commit that the workspace started from.
    pub fn base(&self) -> &CommitId {
        &self.record.base
    }

    /// The top folder of the user's working tree that it was made for.
    pub fn repository(&self) -> &Path {
        &self.record.repository
    }

    /// The path of the tree for those who work in it.
    pub fn inside(&self) -> &Path {
        &self.record.inside
    }

    /// A folder on the host that shows the tree of the base, for reading what a repository says about itself.
    pub fn base_tree(&self) -> &Path {
        &self.record.lower
    }

    /// Whether its content counts for nothing and goes without a snapshot.
    pub fn is_disposable(&self) -> bool {
        self.record.disposable
    }

    /// How a sandbox gets to see it.
    pub fn mount(&self) -> Mount {
        let inside = self.record.inside.clone();
        match self.record.layout {
            Layout::Overlay => Mount::Overlay {
                lower: self.record.lower.clone(),
                upper: self.folder.join("upper"),
                work: self.folder.join("work"),
                inside,
            },
            Layout::Copy | Layout::Unconfined => Mount::Direct { host: self.folder.join("tree"), inside },
        }
    }

    /// Puts it into a plan: the tree, the history, and the right to change all of it. Its `.git` is the agent's own, which no program outside
    /// ever opens; nor does anybody work in the copy, so what editors and shells would run there is as free as in a layer.
    pub fn place_in(&self, plan: &mut Plan) {
        plan.workspace = self.mount();
        plan.binds.extend(self.object_binds());
        plan.cwd = self.inside().to_owned();
        plan.own_git = true;
        plan.unprotect = GUARDED.map(str::to_owned).into();
    }

    /// Folders that must be visible, read-only and at the same path, for git inside to find the history.
    pub fn object_binds(&self) -> Vec<Bind> {
        let folders = self.record.object_dirs.iter().cloned().chain([self.store.join("objects")]);
        folders.map(|folder| Bind { host: folder.clone(), inside: folder, writable: false }).collect()
    }
}

impl Workspaces {
    /// Opens the state folder `state`, making it if needed; git is looked for in the environment of this process.
    pub async fn open(state: &Path, launcher: Launcher, layout: Layout) -> Result<Self, OpenWorkspacesError> {
        // Collected, because the iterator itself cannot move between threads.
        Self::open_with(state, launcher, layout, std::env::vars_os().collect::<Vec<_>>()).await
    }

    /// The same with an environment given: `PATH` for git, `HOME` and the like for the user's own git configuration.
    pub async fn open_with(
        state: &Path,
        launcher: Launcher,
        layout: Layout,
        environment: impl IntoIterator<Item = (std::ffi::OsString, std::ffi::OsString)>,
    ) -> Result<Self, OpenWorkspacesError> {
        let git = Arc::new(Git::find(environment).await?);
        files::make_private(state)?;
        let folder = state.canonicalize().at("open the folder", state)?;
        if folder.to_str().is_none() {
            return Err(OpenWorkspacesError::NotUtf8 { path: folder });
        }
        let workspaces = Self { git, launcher, layout, folder, snapshot_limit_bytes: 4 << 30 };
        for part in ["repos", "trees", "workspaces", "scratch", "trash", "removed", "locks", "landings"] {
            files::make_private(&workspaces.folder.join(part))?;
        }
        Ok(workspaces)
    }

    /// The same, with another limit for the new bytes of one snapshot.
    pub fn with_snapshot_limit(mut self, bytes: u64) -> Self {
        self.snapshot_limit_bytes = bytes;
        self
    }

    /// The repository whose working tree `folder` lies in.
    pub async fn repository(&self, folder: &Path) -> Result<Repository, OpenRepositoryError> {
        Repository::open(self.git.clone(), folder).await
    }

    /// The folder of hooks that the user has configured for the repository of `folder`, if there is one: `core.hooksPath`.
    pub async fn hooks_folder(&self, folder: &Path) -> Result<Option<PathBuf>, GitError> {
        let Some(top) = folder.ancestors().find(|above| above.join(".git").exists()) else { return Ok(None) };
        let call = self.git.call(Rules::Users, "config").folder(top).accept(&[0, 1]);
        let answer =
            call.arguments(["--null", "--show-scope", "--type=path", "--get-all", "core.hooksPath"]).run().await?;
        // Scope and value by turns; the last one counts, but for the one that we give ourselves.
        let mut fields = answer.stdout.split(|byte| *byte == 0);
        let mut found = None;
        while let (Some(scope), Some(value)) = (fields.next(), fields.next()) {
            if scope != b"command" && !value.is_empty() {
                found = Some(top.join(OsStr::from_bytes(value)));
            }
        }
        Ok(found)
    }

    /// Where the store of `repository` is: a bare git repository with all snapshots and merges.
    pub fn store_path(&self, repository: &Repository) -> PathBuf {
        self.store_folder(&repository.id)
    }

    fn store_folder(&self, repository_id: &str) -> PathBuf {
        self.folder.join("repos").join(format!("{repository_id}.git"))
    }

    pub(crate) async fn store(&self, repository: &Repository) -> Result<Store, StoreError> {
        let lock = self.folder.join("locks").join(format!("{}.store", repository.id));
        Store::open(repository, &self.store_path(repository), &lock).await
    }

    pub(crate) fn store_of(&self, workspace: &Workspace) -> Store {
        Store::at(self.git.clone(), workspace.store.clone())
    }

    /// A scratch folder for one operation.
    pub(crate) fn scratch(&self) -> Result<Scratch, FileError> {
        files::fresh(&self.folder.join("scratch")).map(Scratch)
    }

    /// How our own programs look at a tree: without changing it.
    pub(crate) fn looking(&self, layout: Layout) -> Mode {
        if layout == Layout::Unconfined { Mode::DangerFullAccess } else { Mode::ReadOnly }
    }

    /// The workspace `name` on `commit`, made if it is not there yet.
    pub async fn prepare(
        &self,
        repository: &Repository,
        commit: &CommitId,
        name: &Name,
    ) -> Result<Workspace, PrepareError> {
        self.prepare_as(repository, commit, name, false).await
    }

    /// A throw-away workspace that shows exactly `commit`, for running a check; [`Workspaces::remove`] keeps nothing of it.
    pub async fn prepare_check(
        &self,
        repository: &Repository,
        commit: &CommitId,
        name: &Name,
    ) -> Result<Workspace, PrepareError> {
        self.prepare_as(repository, commit, name, true).await
    }

    async fn prepare_as(
        &self,
        repository: &Repository,
        commit: &CommitId,
        name: &Name,
        disposable: bool,
    ) -> Result<Workspace, PrepareError> {
        match self.existing(name) {
            Err(FindWorkspaceError::Missing { .. }) => {}
            found => return same(found?, repository, commit),
        }
        let lock = self.pruning_lock(&repository.id);
        let lock = tokio::task::spawn_blocking(move || files::lock_shared(&lock));
        // Until the workspace is there, nothing else says that its tree is in use.
        let _lock = lock.await.expect("locking does not panic")?;
        let store = self.store(repository).await?;
        let lower = self.materialise(repository, &store, commit).await?;
        let folder = self.folder.join("workspaces").join(name.as_str());
        let (layout, inside) = (self.layout, self.inside(repository, &folder));
        let record = Record {
            format: FORMAT,
            name: name.clone(),
            base: commit.clone(),
            layout,
            disposable,
            inside,
            repository: repository.root.clone(),
            repository_id: repository.id.clone(),
            object_dirs: repository.object_dirs.clone(),
            lower: lower.clone(),
        };
        let scratch = self.scratch()?;
        let build = move || -> Result<(), PrepareError> {
            let record = serde_json::to_vec_pretty(&record).expect("a record is plain data");
            match layout {
                Layout::Overlay => {
                    files::make_private(&scratch.0.join("upper"))?;
                    files::make_private(&scratch.0.join("work"))?;
                }
                Layout::Copy | Layout::Unconfined => files::copy_tree(&lower, &scratch.0.join("tree"))?,
            }
            files::write_durably(&scratch.0.join(RECORD), &record)?;
            match std::fs::rename(&scratch.0, &folder) {
                // Somebody else made it in the meantime; whether it is the same is looked at below.
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists) =>
                {
                    Ok(())
                }
                renamed => Ok(renamed.at("rename to", &folder)?),
            }
        };
        tokio::task::spawn_blocking(build).await.expect("building a workspace does not panic")?;
        same(self.existing(name)?, repository, commit)
    }

    /// Held by those who make workspaces, and alone by whoever removes trees.
    pub(crate) fn pruning_lock(&self, repository_id: &str) -> PathBuf {
        self.folder.join("locks").join(format!("{repository_id}.prune"))
    }

    fn inside(&self, repository: &Repository, folder: &Path) -> PathBuf {
        if self.layout == Layout::Unconfined {
            return folder.join("tree");
        }
        let is_taken = |path: &Path| path.starts_with(INSIDE);
        let is_taken = is_taken(&self.folder) || repository.object_dirs.iter().any(|path| is_taken(path));
        PathBuf::from(if is_taken { INSIDE_INSTEAD } else { INSIDE })
    }

    /// The workspace of this name.
    pub fn existing(&self, name: &Name) -> Result<Workspace, FindWorkspaceError> {
        self.read(self.folder.join("workspaces").join(name.as_str()), name)
    }

    pub(crate) fn read(&self, folder: PathBuf, name: &Name) -> Result<Workspace, FindWorkspaceError> {
        #[derive(Deserialize)]
        struct Version {
            format: u32,
        }
        let path = folder.join(RECORD);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(FindWorkspaceError::Missing { name: name.clone() });
            }
            Err(source) => return Err(FindWorkspaceError::Read { path, source }),
        };
        let corrupt = |source| FindWorkspaceError::Corrupt { path: path.clone(), source };
        let version: Version = serde_json::from_slice(&text).map_err(corrupt)?;
        if version.format > FORMAT {
            return Err(FindWorkspaceError::TooNew { path, found: version.format });
        }
        let record: Record = serde_json::from_slice(&text).map_err(corrupt)?;
        let store = self.store_folder(&record.repository_id);
        Ok(Workspace { record, folder, store })
    }

    /// All workspaces, by name. One that cannot be read is an error in the list, not of the list.
    pub fn list(&self) -> Result<Vec<Result<Workspace, FindWorkspaceError>>, FileError> {
        let folder = self.folder.join("workspaces");
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&folder).at("read the folder", &folder)? {
            let name = entry.at("read the folder", &folder)?.file_name();
            names.extend(name.to_str().and_then(|name| name.parse::<Name>().ok()));
        }
        names.sort();
        Ok(names.iter().map(|name| self.existing(name)).collect())
    }
}

fn same(found: Workspace, repository: &Repository, commit: &CommitId) -> Result<Workspace, PrepareError> {
    if found.record.repository_id != repository.id {
        return Err(PrepareError::OtherRepository { name: found.record.name, found: found.record.repository });
    }
    if found.record.base != *commit {
        return Err(PrepareError::OtherCommit { name: found.record.name, found: found.record.base });
    }
    Ok(found)
}

impl From<GitError> for PrepareError {
    fn from(error: GitError) -> Self {
        Self::Store(StoreError::Git(error))
    }
}
