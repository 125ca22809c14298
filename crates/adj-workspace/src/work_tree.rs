//! Moves the user's working tree and index from one commit to another, touching nothing that is not exactly one of the two.
//!
//! It can be killed anywhere and run again: paths that have the new content already count as done.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::files::{At, FileError, Scratch};
use crate::gather::entries;
use crate::git::GitError;
use crate::id::CommitId;
use crate::repository::Repository;

/// Why the working tree stayed as it was.
#[derive(Debug, thiserror::Error)]
pub enum WorkTreeError {
    #[error("{} paths that would change hold other work, the first is {}", paths.len(), paths[0].display())]
    Dirty { paths: Vec<PathBuf> },
    #[error(transparent)]
    Git(#[from] GitError),
    #[error(transparent)]
    File(#[from] FileError),
}

/// What one of the two commits has at a path: mode and object.
type Content = Option<(Vec<u8>, Vec<u8>)>;

struct Difference {
    path: Vec<u8>,
    old: Content,
    new: Content,
}

/// What stands at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Old,
    New,
    /// Nothing, or the beginning of the new content: a git of ours was killed while it wrote this file.
    Begun,
    Other,
}

const GITLINK: &[u8] = b"160000";
const BEGUN_CAP_BYTES: u64 = 64 << 20;

/// Brings tree and index from `old` to `new`; changes of the user's at other paths stay.
///
/// `is_resumed` says that this very step was begun before and cut short; then half-written files count as ours.
pub(crate) async fn advance(
    repository: &Repository,
    scratch: &Scratch,
    old: &CommitId,
    new: &CommitId,
    is_resumed: bool,
) -> Result<(), WorkTreeError> {
    // Without fresh times git takes every touched file for a changed one.
    repository.call("update-index").arguments(["-q", "--refresh"]).accept(&[0, 1]).run().await?;
    let differences = differences(repository, &["diff-tree", "-r"], &[old.as_str(), new.as_str()]).await?;
    let hidden = hidden(repository).await?;
    let seen: Vec<&Difference> = differences
        .iter()
        .filter(|difference| !difference.is_gitlink() && !hidden.contains(&difference.path))
        .collect();
    let not_old = deviating(repository, scratch, "old", &seen, |difference| &difference.old).await?;
    let not_new = deviating(repository, scratch, "new", &seen, |difference| &difference.new).await?;
    let staged = staged(repository, old).await?;
    let mut dirty = Vec::new();
    let (mut corrections, mut begun) = (Vec::new(), Vec::new());
    for difference in seen {
        let mut tree = match (not_new.contains(&difference.path), not_old.contains(&difference.path)) {
            (false, _) => State::New,
            (true, false) => State::Old,
            (true, true) if is_resumed && is_begun(repository, difference).await? => State::Begun,
            (true, true) => State::Other,
        };
        let index = match staged.iter().find(|staged| staged.path == difference.path) {
            None => State::Old,
            Some(staged) if staged.new == difference.new => State::New,
            Some(_) => State::Other,
        };
        if tree == State::Other || index == State::Other {
            dirty.push(PathBuf::from(OsStr::from_bytes(&difference.path)));
            continue;
        }
        if tree == State::Begun {
            // With the old entry in the index and no file in the tree, git writes the new one.
            begun.push(&difference.path);
            tree = State::Old;
        }
        if tree != index {
            let content = if tree == State::New { &difference.new } else { &difference.old };
            corrections.extend(index_line(content, &difference.path, old));
        }
    }
    dirty.extend(in_the_way(repository, &differences).await?);
    if !dirty.is_empty() {
        dirty.sort();
        dirty.dedup();
        return Err(WorkTreeError::Dirty { paths: dirty });
    }
    for path in begun {
        let path = repository.root.join(OsStr::from_bytes(path));
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).at("remove", &path)?,
            _ => {}
        }
    }
    if !corrections.is_empty() {
        repository.call("update-index").arguments(["-z", "--index-info"]).stdin(corrections).run().await?;
        repository.call("update-index").arguments(["-q", "--refresh"]).accept(&[0, 1]).run().await?;
    }
    let call = repository.call("read-tree").arguments(["-m", "-u", "--no-recurse-submodules"]);
    call.arguments([old.as_str(), new.as_str()]).run().await?;
    Ok(())
}

impl Difference {
    fn is_gitlink(&self) -> bool {
        [&self.old, &self.new].into_iter().flatten().any(|(mode, _)| mode == GITLINK)
    }
}

async fn differences(
    repository: &Repository,
    command: &[&'static str; 2],
    commits: &[&str],
) -> Result<Vec<Difference>, GitError> {
    let call = repository.call(command[0]).argument(command[1]);
    let call = call.arguments(["--raw", "-z", "--no-renames", "--no-abbrev", "--ignore-submodules=none"]);
    let output = call.arguments(commits).argument("--").run().await?;
    let mut parts = entries(&output.stdout);
    let mut found = Vec::new();
    while let (Some(facts), Some(path)) = (parts.next(), parts.next()) {
        let columns: Vec<&[u8]> = facts.split(|&byte| byte == b' ').collect();
        let [old_mode, new_mode, old_id, new_id, ..] = columns[..] else {
            return Err(GitError::unexpected(command[0], facts));
        };
        let content = |mode: &[u8], id: &[u8]| (mode != b"000000").then(|| (mode.to_owned(), id.to_owned()));
        let old = content(old_mode.strip_prefix(b":").unwrap_or(old_mode), old_id);
        found.push(Difference { path: path.to_owned(), old, new: content(new_mode, new_id) });
    }
    Ok(found)
}

/// What the index has in another way than `old`.
async fn staged(repository: &Repository, old: &CommitId) -> Result<Vec<Difference>, GitError> {
    differences(repository, &["diff-index", "--cached"], &[old.as_str()]).await
}

/// Paths that a sparse checkout leaves out of the working tree.
async fn hidden(repository: &Repository) -> Result<HashSet<Vec<u8>>, GitError> {
    let call = repository.call("config").arguments(["--type=bool", "--default=false", "--get", "core.sparseCheckout"]);
    if call.run().await?.text() != "true" {
        return Ok(HashSet::new());
    }
    let output = repository.call("ls-files").arguments(["-z", "-t"]).run().await?;
    Ok(entries(&output.stdout).filter_map(|entry| Some(entry.strip_prefix(b"S ")?.to_owned())).collect())
}

/// The paths at which the working tree does not have what `side` says.
async fn deviating(
    repository: &Repository,
    scratch: &Scratch,
    name: &str,
    differences: &[&Difference],
    side: impl Fn(&Difference) -> &Content,
) -> Result<HashSet<Vec<u8>>, GitError> {
    let index = scratch.0.join(format!("{name}.index"));
    let mut lines = Vec::new();
    let mut found = HashSet::new();
    for difference in differences {
        match side(difference) {
            Some((mode, id)) => lines.extend([mode.as_slice(), b" ", id, b"\t", &difference.path, b"\0"].concat()),
            None if is_absent(&repository.root, &difference.path) => {}
            None => {
                found.insert(difference.path.clone());
            }
        }
    }
    // A private index with just these paths lets git compare them by its own rules for line endings and filters.
    repository.call("update-index").index(&index).arguments(["-z", "--index-info"]).stdin(lines).run().await?;
    repository.call("update-index").index(&index).arguments(["-q", "--refresh"]).accept(&[0, 1]).run().await?;
    let output = repository.call("diff-files").index(&index).arguments(["-z", "--name-only"]).run().await?;
    found.extend(entries(&output.stdout).map(<[u8]>::to_owned));
    Ok(found)
}

/// Whether what stands at a path is nothing, or how the new content begins.
async fn is_begun(repository: &Repository, difference: &Difference) -> Result<bool, WorkTreeError> {
    let path = repository.root.join(OsStr::from_bytes(&difference.path));
    let meta = match path.symlink_metadata() {
        Ok(meta) => meta,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(error).at("examine", &path)?,
    };
    let Some((_, id)) = &difference.new else {
        return Ok(false);
    };
    if !meta.is_file() || obstacle(&repository.root, &difference.path).is_some() || meta.len() > BEGUN_CAP_BYTES {
        return Ok(false);
    }
    let found = std::fs::read(&path).at("read", &path)?;
    let mut named = b"--path=".to_vec();
    named.extend(&difference.path);
    let call = repository.call("cat-file").argument("--filters").argument(OsStr::from_bytes(&named));
    let wanted = call.argument(OsStr::from_bytes(id)).keep_first(BEGUN_CAP_BYTES as usize).run().await?;
    Ok(wanted.stdout.starts_with(&found))
}

/// Whether there is no file at a path; a folder there, or a link or file above it, is looked at by [`in_the_way`].
fn is_absent(root: &Path, path: &[u8]) -> bool {
    let full = root.join(OsStr::from_bytes(path));
    obstacle(root, path).is_some() || full.symlink_metadata().map_or(true, |meta| meta.is_dir())
}

/// The file or link that stands where a folder above `path` should be.
fn obstacle(root: &Path, path: &[u8]) -> Option<Vec<u8>> {
    let ends = path.iter().enumerate().filter(|&(_, &byte)| byte == b'/').map(|(end, _)| end);
    for end in ends {
        match root.join(OsStr::from_bytes(&path[..end])).symlink_metadata() {
            Ok(meta) if meta.is_dir() => {}
            Ok(_) => return Some(path[..end].to_owned()),
            Err(_) => return None,
        }
    }
    None
}

/// Untracked and ignored files that would have to give way; git itself would overwrite the ignored ones without a word.
async fn in_the_way(repository: &Repository, differences: &[Difference]) -> Result<Vec<PathBuf>, GitError> {
    let ours: HashSet<&[u8]> = differences.iter().map(|difference| difference.path.as_slice()).collect();
    let mut found = HashSet::new();
    for difference in differences.iter().filter(|difference| difference.new.is_some()) {
        if let Some(obstacle) = obstacle(&repository.root, &difference.path) {
            if !ours.contains(obstacle.as_slice()) {
                found.insert(obstacle);
            }
            continue;
        }
        let full = repository.root.join(OsStr::from_bytes(&difference.path));
        if !difference.is_gitlink() && full.symlink_metadata().is_ok_and(|meta| meta.is_dir()) {
            let mut pathspec = b":(top,literal)".to_vec();
            pathspec.extend(&difference.path);
            let call = repository.call("ls-files").arguments(["-z", "--others", "--"]);
            let output = call.argument(OsStr::from_bytes(&pathspec)).run().await?;
            found.extend(entries(&output.stdout).map(<[u8]>::to_owned));
        }
    }
    Ok(found.iter().map(|path| PathBuf::from(OsStr::from_bytes(path))).collect())
}

fn index_line(content: &Content, path: &[u8], like: &CommitId) -> Vec<u8> {
    match content {
        Some((mode, id)) => [mode.as_slice(), b" ", id, b"\t", path, b"\0"].concat(),
        None => [b"0 ", "0".repeat(like.as_str().len()).as_bytes(), b"\t", path, b"\0"].concat(),
    }
}
