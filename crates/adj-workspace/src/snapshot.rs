//! Brings an agent's work out of its workspace: as git objects, imported as data, named by a ref of our store.

use std::fs::File;
use std::path::{Path, PathBuf};

use adj_sandbox::Mount;

use crate::alternates;
use crate::authorship::Authorship;
use crate::confined::{Answer, Ask, Confined, ConfinedError};
use crate::diff::ChangedPath;
use crate::files::{self, At, FileError, Scratch};
use crate::gather::{GatherError, Gathered, Scope, gather, parse_id};
use crate::git::GitError;
use crate::id::{CommitId, TreeId};
use crate::store::{ImportError, Store, StoreError, clean_message};
use crate::workspaces::{Layout, Workspace, Workspaces};

/// Why there is no snapshot. The workspace is as it was.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("cannot turn the files of workspace {workspace} into git objects")]
    Gather { workspace: String, source: GatherError },
    #[error("cannot pack the changes of workspace {workspace}")]
    Pack { workspace: String, source: ConfinedError },
    #[error("cannot take in the changes of workspace {workspace}")]
    Import { workspace: String, source: ImportError },
    #[error("the pack of workspace {workspace} does not hold what it should")]
    Forged { workspace: String },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    File(#[from] FileError),
}

impl From<GitError> for SnapshotError {
    fn from(error: GitError) -> Self {
        Self::Store(StoreError::Git(error))
    }
}

/// The state of a workspace as a commit on its base.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The base itself when nothing changed.
    pub commit: CommitId,
    pub tree: TreeId,
    /// Keeps the commit in our store.
    pub reference: String,
    /// What is different from the base.
    pub changed: Vec<ChangedPath>,
    /// Paths that git cannot hold and that are therefore missing here.
    pub skipped: Vec<PathBuf>,
}

/// A scratch git folder and a read-only view of a workspace, for one snapshot.
pub(crate) struct Session<'a> {
    pub confined: Confined<'a>,
    /// Written to by the programs inside; visible at the same path there.
    pub out: PathBuf,
    pub _scratch: Option<Scratch>,
}

impl Workspaces {
    /// Commits the present state of the workspace onto its base, without touching it.
    ///
    /// The same state with the same words gives the same commit, however often it is asked for.
    pub async fn snapshot(
        &self,
        workspace: &Workspace,
        message: &str,
        authorship: &Authorship,
    ) -> Result<Snapshot, SnapshotError> {
        let name = || workspace.name().to_string();
        let store = self.store_of(workspace);
        let base = workspace.base();
        let tree = store.tree_of(base).await?;
        let (commit, gathered) = if workspace.is_untouched() {
            (base.clone(), Gathered { tree, skipped: Vec::new() })
        } else {
            let session = self.session(workspace, &store)?;
            let gathered = gather(&session.confined, base, Scope::Wanted, self.snapshot_limit_bytes).await;
            let gathered = gathered.map_err(|source| SnapshotError::Gather { workspace: name(), source })?;
            let wanted = Wanted { tree: &gathered.tree, parents: std::slice::from_ref(base), message, authorship };
            let commit = if gathered.tree == tree {
                base.clone()
            } else {
                self.bring_in(workspace, &store, &session, wanted).await?
            };
            (commit, gathered)
        };
        let reference = format!("refs/adjutant/snapshots/{}/{commit}", workspace.name());
        store.set_reference(&reference, &commit).await?;
        let changed = store.changed_paths(workspace.base(), &commit).await?;
        Ok(Snapshot { commit, tree: gathered.tree, reference, changed, skipped: gathered.skipped })
    }

    pub(crate) fn session(&self, workspace: &Workspace, store: &Store) -> Result<Session<'_>, SnapshotError> {
        let scratch = self.scratch()?;
        let out = scratch.0.join("out");
        let git_dir = out.join("git");
        prepare_scratch_git(&git_dir, workspace, store)?;
        let mut mount = workspace.mount();
        // The agent's own sandbox may still be using its work folder.
        if let Mount::Overlay { work, .. } = &mut mount {
            *work = scratch.0.join("work");
            files::make_private(work)?;
        }
        let mode = self.looking(workspace.record.layout);
        let (tree, binds) = (workspace.inside(), workspace.object_binds());
        let confined = Confined::new(&self.launcher, mode, mount, tree, binds, &out, &git_dir);
        Ok(Session { confined, out, _scratch: Some(scratch) })
    }

    /// Commits inside, packs what the base does not have, imports it, and makes the same commit from what was imported.
    pub(crate) async fn bring_in(
        &self,
        workspace: &Workspace,
        store: &Store,
        session: &Session<'_>,
        wanted: Wanted<'_>,
    ) -> Result<CommitId, SnapshotError> {
        let name = || workspace.name().to_string();
        let packed = session.pack(workspace.base(), &wanted).await;
        let (commit, pack) = packed.map_err(|source| SnapshotError::Pack { workspace: name(), source })?;
        let pack = open_plain(&pack)?;
        let imported = store.import(pack, self.snapshot_limit_bytes).await;
        imported.map_err(|source| SnapshotError::Import { workspace: name(), source })?;
        for parent in wanted.parents {
            store.require(parent).await?;
        }
        let ours = store.commit(wanted.tree, wanted.parents, wanted.message, wanted.authorship).await?;
        if ours == commit { Ok(ours) } else { Err(SnapshotError::Forged { workspace: name() }) }
    }
}

/// The commit that is to come out.
#[derive(Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub tree: &'a TreeId,
    pub parents: &'a [CommitId],
    pub message: &'a str,
    pub authorship: &'a Authorship,
}

impl Session<'_> {
    async fn pack(&self, base: &CommitId, wanted: &Wanted<'_>) -> Result<(CommitId, PathBuf), ConfinedError> {
        let parents = wanted.parents.iter().flat_map(|parent| ["-p", parent.as_str()]);
        let ask = Ask::new(&["commit-tree", "-F-"]).arguments(parents).argument(wanted.tree.as_str());
        let environment = wanted.authorship.environment();
        let written = self.confined.with(environment).git(ask.stdin(clean_message(wanted.message))).await?;
        let commit: CommitId = parse_id("git commit-tree", &written.stdout)?;
        let ask = Ask::new(&["pack-objects", "-q", "--revs", "--delta-base-offset"]).argument(self.out.join("result"));
        let answer: Answer = self.confined.git(ask.stdin(format!("{commit}\n^{base}\n"))).await?;
        // The name of a pack is a hash, like the name of a commit.
        let hash: CommitId = parse_id("git pack-objects", &answer.stdout)?;
        Ok((commit, self.out.join(format!("result-{hash}.pack"))))
    }
}

fn prepare_scratch_git(git_dir: &Path, workspace: &Workspace, store: &Store) -> Result<(), FileError> {
    for folder in ["objects/info", "objects/pack", "refs", "info"] {
        files::make_private(&git_dir.join(folder))?;
    }
    let format = match workspace.base().as_str().len() {
        40 => "\trepositoryFormatVersion = 0\n",
        _ => "\trepositoryFormatVersion = 1\n[extensions]\n\tobjectFormat = sha256\n[core]\n",
    };
    // Names that are `.git` on another system are refused here as they would be on import.
    let config =
        format!("[core]\n{format}\tbare = false\n\tprotectHFS = true\n\tprotectNTFS = true\n\tsafecrlf = false\n");
    let objects = store.objects();
    let sources = [objects.as_path(), workspace.record.object_dirs[0].as_path()];
    let contents = [
        ("HEAD", b"ref: refs/heads/none\n".to_vec()),
        ("config", config.into_bytes()),
        ("objects/info/alternates", alternates::text(sources)),
    ];
    for (name, content) in contents {
        let path = git_dir.join(name);
        std::fs::write(&path, content).at("write", &path)?;
    }
    // The shared layer is never written to, so its index is ours; an agent's own index is not looked at.
    let (from, to) = (workspace.record.lower.join(".git/index"), git_dir.join("index"));
    files::copy_file(&from, &to)
}

/// Opens a file that was written inside, if it is a plain one.
fn open_plain(path: &Path) -> Result<File, FileError> {
    use std::os::unix::fs::OpenOptionsExt;
    let flags = (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits();
    let file = File::options().read(true).custom_flags(flags.cast_signed()).open(path).at("open", path)?;
    if file.metadata().at("examine", path)?.is_file() {
        Ok(file)
    } else {
        Err(std::io::Error::other("not a plain file")).at("open", path)
    }
}

impl Workspace {
    /// Whether nothing at all was written into the private layer.
    pub(crate) fn is_untouched(&self) -> bool {
        let upper = self.folder.join("upper");
        self.record.layout == Layout::Overlay
            && std::fs::read_dir(upper).is_ok_and(|mut entries| entries.next().is_none())
    }
}
