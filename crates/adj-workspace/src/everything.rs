//! The snapshot before a removal: every file, ignored ones too, the agent's own commits, and as a tar what git cannot hold.
//!
//! The tree of the commit has `files/` (all files with their modes) and `rest.tar` (every `.git`, also those of nested repositories, names that
//! git refuses, empty folders). The agent's commits, stashes included, are further parents as far as they are sound; their bytes are
//! in the tar in any case.

use std::collections::HashSet;

use crate::authorship::Authorship;
use crate::confined::{Answer, Ask, ConfinedError};
use crate::gather::{GatherError, Gathered, Scope, gather, open_up, parse_id};
use crate::id::{CommitId, TreeId};
use crate::snapshot::{Session, Snapshot, SnapshotError, Wanted};
use crate::workspaces::{Workspace, Workspaces};

const TIPS: usize = 200;
const MESSAGE: &str = "everything in a workspace before its removal\n\nfiles/: all files, ignored ones too\nrest.tar: git folders, \
                       and what git cannot hold";

impl Workspaces {
    /// Saves every byte of the workspace, as data. The same state gives the same commit.
    pub async fn snapshot_everything(
        &self,
        workspace: &Workspace,
        authorship: &Authorship,
    ) -> Result<Snapshot, SnapshotError> {
        let name = workspace.name().to_string();
        let store = self.store_of(workspace);
        let session = self.session(workspace, &store)?;
        let limit = self.snapshot_limit_bytes;
        let gathered = gather(&session.confined, workspace.base(), Scope::Everything, limit).await;
        let gathered = gathered.map_err(|source| SnapshotError::Gather { workspace: name.clone(), source })?;
        let pack = |source| SnapshotError::Pack { workspace: name.clone(), source };
        let gather_failed = |source| SnapshotError::Gather { workspace: name.clone(), source };
        let mut tree = session.with_rest(&gathered, limit).await;
        if tree.as_ref().is_err_and(GatherError::is_denied) {
            open_up(&session.confined).await.map_err(pack)?;
            tree = session.with_rest(&gathered, limit).await;
        }
        let tree = tree.map_err(gather_failed)?;
        let base = workspace.base().clone();
        let tips = session.tips(workspace).await.map_err(pack)?;
        let parents = [vec![base.clone()], tips].concat();
        let wanted = Wanted { tree: &tree, parents: &parents, message: MESSAGE, authorship };
        // What the agent made of its own object folder may be broken or forbidden; then its commits come along in the tar alone.
        let borrowing = session.borrowing(workspace);
        let commit = match self.bring_in(workspace, &store, &borrowing, wanted).await {
            Err(SnapshotError::Pack { .. } | SnapshotError::Import { .. } | SnapshotError::Forged { .. })
                if parents.len() > 1 =>
            {
                let wanted = Wanted { parents: &parents[..1], ..wanted };
                self.bring_in(workspace, &store, &session, wanted).await?
            }
            other => other?,
        };
        let reference = format!("refs/adjutant/removed/{}/{commit}", workspace.name());
        store.set_reference(&reference, &commit).await?;
        Ok(Snapshot { commit, tree, reference, changed: Vec::new(), skipped: Vec::new() })
    }
}

impl Session<'_> {
    /// The tree of `files/` and `rest.tar`.
    async fn with_rest(&self, gathered: &Gathered, limit_bytes: u64) -> Result<TreeId, GatherError> {
        let find = ["find", ".", "-mindepth", "1", "(", "-name", ".git", "-prune", "-print0", ")"];
        let more = ["-o", "(", "-type", "d", "-empty", "-print0", ")", "-o", "(", "-type", "p", "-print0", ")"];
        let mut list = self.confined.program(Ask::new(&[&find[..], &more[..]].concat())).await?.stdout;
        for path in &gathered.skipped {
            list.extend([b"./", path.as_os_str().as_encoded_bytes(), b"\0"].concat());
        }
        let size = ["xargs", "-0", "du", "-s", "--block-size=1", "-c", "--"];
        let sizes = self.confined.program(Ask::new(&size).stdin(list.clone())).await?.stdout;
        let sizes = String::from_utf8_lossy(&sizes);
        let totals = sizes.lines().filter_map(|line| line.strip_suffix("\ttotal")?.parse::<u64>().ok());
        let size_bytes = totals.fold(0, u64::saturating_add);
        if size_bytes > limit_bytes {
            return Err(GatherError::TooLarge { size_bytes, limit_bytes });
        }
        let rest = self.out.join("rest.tar");
        let tar =
            ["tar", "--create", "--format=gnu", "--owner=0", "--group=0", "--numeric-owner", "--sort=name", "--file"];
        let tar = Ask::new(&tar).argument(&rest).arguments(["--null", "--files-from=-"]).stdin(list);
        self.confined.program(tar).await?;
        let ask = Ask::new(&["hash-object", "-w", "--no-filters"]).argument(&rest);
        let blob: TreeId = parse_id("git hash-object", &self.confined.git(ask).await?.stdout)?;
        let lines = format!("040000 tree {}\tfiles\0100644 blob {blob}\trest.tar\0", gathered.tree);
        let answer = self.confined.git(Ask::new(&["mktree", "-z"]).stdin(lines)).await?;
        Ok(parse_id("git mktree", &answer.stdout)?)
    }

    /// The same session with the agent's own objects readable.
    fn borrowing(&self, workspace: &Workspace) -> Session<'_> {
        let objects = workspace.inside().join(".git/objects");
        let objects = objects.to_str().expect("our paths are UTF-8");
        let objects = [("GIT_ALTERNATE_OBJECT_DIRECTORIES", format!("\"{}\"", objects.replace('"', "\\\"")))];
        Session { confined: self.confined.with(objects), out: self.out.clone(), _scratch: None }
    }

    /// Commits of the agent's that nothing else leads to; none if its git folder makes no sense.
    async fn tips(&self, workspace: &Workspace) -> Result<Vec<CommitId>, ConfinedError> {
        let places = [".git/HEAD", ".git/ORIG_HEAD", ".git/packed-refs", ".git/refs", ".git/logs"];
        let find = Ask::new(&["find", "-H"]).arguments(places).arguments(["-type", "f", "-exec", "cat", "{}", "+"]);
        let Some(answer) = sound(self.confined.program(find.accept(&[0, 1])).await)? else {
            return Ok(Vec::new());
        };
        let length = workspace.base().as_str().len();
        let mut seen = HashSet::from([workspace.base().clone()]);
        let words = answer.stdout.split(|byte| !byte.is_ascii_alphanumeric()).filter(|word| word.len() == length);
        let ids = words.filter_map(|word| std::str::from_utf8(word).ok()?.parse::<CommitId>().ok());
        let ids: Vec<CommitId> = ids.filter(|id| seen.insert(id.clone())).take(50 * TIPS).collect();
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let borrowing = self.borrowing(workspace);
        let list: String = ids.iter().map(|id| format!("{id}\n")).collect();
        let ask = Ask::new(&["cat-file", "--batch-check=%(objectname) %(objecttype)"]).stdin(list);
        let Some(answer) = sound(borrowing.confined.git(ask).await)? else {
            return Ok(Vec::new());
        };
        let lines = String::from_utf8_lossy(&answer.stdout).into_owned();
        let commits = lines.lines().filter_map(|line| line.strip_suffix(" commit")).take(TIPS);
        let ask = Ask::new(&["merge-base", "--independent"]).argument(workspace.base().as_str()).arguments(commits);
        let Some(answer) = sound(borrowing.confined.git(ask).await)? else {
            return Ok(Vec::new());
        };
        let tips = String::from_utf8_lossy(&answer.stdout).into_owned();
        Ok(tips.lines().filter_map(|line| line.parse().ok()).filter(|tip| tip != workspace.base()).collect())
    }
}

/// A program that fails on the agent's data is no reason to stop; a sandbox that cannot be made is.
fn sound(answer: Result<Answer, ConfinedError>) -> Result<Option<Answer>, ConfinedError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error @ ConfinedError::Run { .. }) => Err(error),
        Err(_) => Ok(None),
    }
}
