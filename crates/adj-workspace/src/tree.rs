//! Lays out the files of a commit once, as the layer that all its workspaces share; never written to afterwards.

use std::path::{Path, PathBuf};

use adj_sandbox::{Bind, Mount};

use crate::alternates;
use crate::confined::{Ask, Confined, ConfinedError};
use crate::files::{self, At, FileError, Scratch};
use crate::git::GitError;
use crate::id::CommitId;
use crate::repository::Repository;
use crate::store::{Store, StoreError};
use crate::workspaces::{Layout, Workspaces};

/// The branch that an agent finds itself on.
const BRANCH: &str = "work";

/// Why the files of a commit could not be laid out.
#[derive(Debug, thiserror::Error)]
pub enum MaterialiseError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cannot write the files of commit {commit}")]
    Checkout { commit: CommitId, source: GitError },
    #[error("cannot keep commit {commit} from garbage collection")]
    Pin { commit: CommitId, source: GitError },
    #[error("cannot write the index as it is seen inside")]
    Index { source: ConfinedError },
    #[error(transparent)]
    File(#[from] FileError),
}

impl Workspaces {
    /// The folder with the files of `commit` and a prepared `.git`, made now unless it is there; one process makes it, others wait.
    pub(crate) async fn materialise(
        &self,
        repository: &Repository,
        store: &Store,
        commit: &CommitId,
    ) -> Result<PathBuf, MaterialiseError> {
        let folder = self.folder.join("trees").join(&repository.id);
        let ready = folder.join(commit.as_str());
        if ready.is_dir() {
            return Ok(ready);
        }
        store.require(commit).await?;
        files::make_private(&folder)?;
        let lock = self.folder.join("locks").join(format!("{}.tree", repository.id));
        let _lock = tokio::task::spawn_blocking(move || files::lock(&lock)).await.expect("locking does not panic")?;
        if ready.is_dir() {
            return Ok(ready);
        }
        let scratch = self.scratch()?;
        let tree = scratch.0.join("tree");
        self.lay_out(repository, store, commit, &tree).await?;
        if self.layout == Layout::Overlay {
            self.refresh_index(repository, store, &scratch, &tree).await?;
        }
        std::fs::rename(&tree, &ready).at("rename to", &ready)?;
        Ok(ready)
    }

    async fn lay_out(
        &self,
        repository: &Repository,
        store: &Store,
        commit: &CommitId,
        tree: &Path,
    ) -> Result<(), MaterialiseError> {
        let checkout = |source| MaterialiseError::Checkout { commit: commit.clone(), source };
        let git = tree.join(".git");
        files::make_private(&git)?;
        let index = git.join("index");
        // Our own store's configuration counts: no filters, so nothing that a tree's attributes name is run.
        let call = store.call("read-tree").option("-c").option("checkout.workers=0");
        let call = call.variable("GIT_WORK_TREE", tree).index(&index).folder(tree);
        call.arguments(["-m", "-u", commit.as_str()]).run().await.map_err(checkout)?;
        // Only the user's repository has it if the base is a commit of the user's; what we made stays in the store anyway.
        if repository.resolve(commit.as_str()).await.map_err(checkout)?.is_some() {
            let suffix = ["bases", commit.as_str()].map(|part| part.parse().expect("hexadecimal is a name"));
            let pin = |source| MaterialiseError::Pin { commit: commit.clone(), source };
            repository.pin(&suffix, commit).await.map_err(pin)?;
        }
        let seconds = store.call("show").arguments(["-s", "--format=%ct", "--no-show-signature", commit.as_str()]);
        let seconds = seconds.run().await.map_err(checkout)?.text().parse().unwrap_or(1);
        let objects: Vec<PathBuf> = [store.objects(), repository.object_dirs[0].clone()].into();
        let sources = alternates::text(objects.iter().map(PathBuf::as_path));
        let (tree, commit) = (tree.to_owned(), commit.clone());
        let format = repository.object_format.clone();
        let store = store.clone();
        let prepared = tokio::task::spawn_blocking(move || -> Result<PathBuf, FileError> {
            prepare_git_folder(&git, &commit, &format, &sources)?;
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs();
            // An edit is always newer than the file was, also when a commit claims to be from the future.
            files::set_times(&tree, i64::clamp(seconds, 1, now.saturating_sub(10) as i64))?;
            Ok(tree)
        });
        let tree = prepared.await.expect("preparing does not panic")?;
        let call = store.call("update-index").variable("GIT_WORK_TREE", &tree).index(&index).folder(&tree);
        call.arguments(["-q", "--refresh"]).accept(&[0, 1]).run().await.map_err(checkout)?;
        Ok(())
    }

    /// Lets git look at every file once through the sandbox, so that the index holds the owners and numbers that agents will see.
    async fn refresh_index(
        &self,
        repository: &Repository,
        store: &Store,
        scratch: &Scratch,
        tree: &Path,
    ) -> Result<(), MaterialiseError> {
        let look = scratch.0.join("look");
        for part in ["upper", "work", "out"] {
            files::make_private(&look.join(part))?;
        }
        let inside = PathBuf::from("/workspace-index");
        let mount = Mount::Overlay {
            lower: tree.to_owned(),
            upper: look.join("upper"),
            work: look.join("work"),
            inside: inside.clone(),
        };
        let folders = repository.object_dirs.iter().cloned().chain([store.objects()]);
        let binds = folders.map(|folder| Bind { host: folder.clone(), inside: folder, writable: false }).collect();
        let out = look.join("out");
        let index = out.join("index");
        files::copy_file(&tree.join(".git/index"), &index)?;
        let mode = self.looking(self.layout);
        let confined = Confined::new(&self.launcher, mode, mount, &inside, binds, &out, &inside.join(".git"));
        let ask = Ask::new(&["update-index", "-q", "--refresh"]).accept(&[0, 1]);
        let confined = confined.variable("GIT_INDEX_FILE", &index);
        confined.git(ask).await.map_err(|source| MaterialiseError::Index { source })?;
        let target = tree.join(".git/index");
        Ok(std::fs::rename(&index, &target).at("rename to", &target)?)
    }
}

/// Makes the `.git` that an agent may do with as it likes: it is in its private layer, and no program outside ever opens it.
fn prepare_git_folder(git: &Path, commit: &CommitId, format: &str, sources: &[u8]) -> Result<(), FileError> {
    for folder in ["objects/info", "objects/pack", "refs/heads", "refs/tags", "info"] {
        let folder = git.join(folder);
        std::fs::create_dir_all(&folder).at("make the folder", &folder)?;
    }
    let (version, extension) = match format {
        "sha1" => (0, String::new()),
        other => (1, format!("[extensions]\n\tobjectFormat = {other}\n")),
    };
    let config = format!(
        "[core]\n\trepositoryFormatVersion = {version}\n\tfileMode = true\n\tbare = false\n\tlogAllRefUpdates = true\n\
         {extension}[user]\n\tname = Agent\n\temail = agent@adjutant.invalid\n[gc]\n\tauto = 0\n[maintenance]\n\tauto = false\n\
         [init]\n\tdefaultBranch = main\n"
    );
    let files = [
        ("HEAD", format!("ref: refs/heads/{BRANCH}\n").into_bytes()),
        ("config", config.into_bytes()),
        ("objects/info/alternates", sources.to_vec()),
        ("info/exclude", Vec::new()),
        ("packed-refs", Vec::new()),
    ];
    for (name, content) in files {
        let path = git.join(name);
        std::fs::write(&path, content).at("write", &path)?;
    }
    let branch = git.join("refs/heads").join(BRANCH);
    std::fs::write(&branch, format!("{commit}\n")).at("write", &branch)
}
