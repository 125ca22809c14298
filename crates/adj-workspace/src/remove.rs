//! Removes workspaces, never before every byte of them is in a commit of our store.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::authorship::Authorship;
use crate::files::{self, At, FileError};
use crate::id::{CommitId, Name};
use crate::snapshot::SnapshotError;
use crate::workspaces::{FindWorkspaceError, Workspace, Workspaces};

/// Why a workspace is still there.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    #[error("workspace {name} stays, because it could not be saved")]
    Snapshot { name: Name, source: SnapshotError },
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Find(#[from] FindWorkspaceError),
    #[error("the note about the removal of workspace {name} cannot be read")]
    Note { name: Name, source: serde_json::Error },
}

/// Where the bytes of a removed workspace are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    pub name: Name,
    pub base: CommitId,
    /// The bare repository that holds the commit.
    pub store: PathBuf,
    /// The commit with everything; the base itself when nothing was changed or nothing counted.
    pub commit: CommitId,
    /// Keeps the commit; `None` when the base is all there is.
    pub reference: Option<String>,
}

/// What [`Workspaces::sweep`] finished.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    pub trash: usize,
    pub scratch: usize,
}

impl Workspaces {
    /// Saves everything in the workspace and removes it. Nothing may run in it any more. Removing it again gives the same answer.
    pub async fn remove(&self, name: &Name, authorship: &Authorship) -> Result<Removed, RemoveError> {
        let note = self.folder.join("removed").join(format!("{name}.json"));
        let workspace = match self.existing(name) {
            Err(FindWorkspaceError::Missing { .. }) if note.exists() => {
                let text = std::fs::read(&note).at("read", &note)?;
                return serde_json::from_slice(&text)
                    .map_err(|source| RemoveError::Note { name: name.clone(), source });
            }
            found => found?,
        };
        let removed = self.save(&workspace, authorship).await?;
        files::write_durably(&note, &serde_json::to_vec_pretty(&removed).expect("a note is plain data"))?;
        let trash = files::fresh(&self.folder.join("trash"))?;
        std::fs::rename(&workspace.folder, &trash).at("move to the trash", &workspace.folder)?;
        discard(trash).await?;
        Ok(removed)
    }

    async fn save(&self, workspace: &Workspace, authorship: &Authorship) -> Result<Removed, RemoveError> {
        let (commit, reference) = if workspace.is_disposable() || workspace.is_untouched() {
            (workspace.base().clone(), None)
        } else {
            let saved = self.snapshot_everything(workspace, authorship).await;
            let saved = saved.map_err(|source| RemoveError::Snapshot { name: workspace.name().clone(), source })?;
            (saved.commit, Some(saved.reference))
        };
        let (name, base) = (workspace.name().clone(), workspace.base().clone());
        Ok(Removed { name, base, store: workspace.store.clone(), commit, reference })
    }

    /// Finishes what a crash left: half removed workspaces and scratch folders of processes that are gone.
    ///
    /// What lies in the trash was saved before it got there.
    pub async fn sweep(&self) -> Result<Swept, FileError> {
        let mut swept = Swept::default();
        for path in folders(&self.folder.join("trash"))? {
            discard(path).await?;
            swept.trash += 1;
        }
        for path in folders(&self.folder.join("scratch"))? {
            let owner = path.file_name().and_then(|name| name.to_str()?.split('-').next()?.parse::<u32>().ok());
            if owner.is_some_and(|owner| Path::new("/proc").join(owner.to_string()).exists()) {
                continue;
            }
            discard(path).await?;
            swept.scratch += 1;
        }
        Ok(swept)
    }

    /// Removes laid-out trees that no workspace stands on, except for the `keep` youngest; gives how many. Does nothing while workspaces are being made.
    pub async fn prune_trees(&self, repository_id: &str, keep: usize) -> Result<usize, FileError> {
        let lock = self.pruning_lock(repository_id);
        let Some(_lock) = files::try_lock(&lock)? else { return Ok(0) };
        // A workspace that cannot be read, of a newer build perhaps, may stand on any of them.
        let Ok(workspaces) = self.list()?.into_iter().collect::<Result<Vec<_>, _>>() else { return Ok(0) };
        let used: Vec<PathBuf> = workspaces.into_iter().map(|workspace| workspace.record.lower).collect();
        let mut trees = Vec::new();
        for path in folders(&self.folder.join("trees").join(repository_id))? {
            let age = path.metadata().and_then(|meta| meta.modified()).at("examine", &path)?;
            trees.push((age, path));
        }
        trees.sort();
        trees.reverse();
        let mut pruned = 0;
        for (_, path) in trees.into_iter().skip(keep).filter(|(_, path)| !used.contains(path)) {
            let trash = files::fresh(&self.folder.join("trash"))?;
            std::fs::rename(&path, &trash).at("move to the trash", &path)?;
            discard(trash).await?;
            pruned += 1;
        }
        Ok(pruned)
    }
}

async fn discard(path: PathBuf) -> Result<(), FileError> {
    tokio::task::spawn_blocking(move || files::remove_tree(&path)).await.expect("removing does not panic")
}

fn folders(parent: &Path) -> Result<Vec<PathBuf>, FileError> {
    let entries = match std::fs::read_dir(parent) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.at("read the folder", parent)?,
    };
    entries.map(|entry| Ok(entry.at("read the folder", parent)?.path())).collect()
}
