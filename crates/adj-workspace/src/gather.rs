//! Turns an agent's tree into git objects, inside the sandbox, with a git folder of ours.
//!
//! Nested repositories become plain files (never gitlinks), submodules stay at the commit that the base names, and names that git
//! cannot hold are left over and reported.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::confined::{Answer, Ask, Confined, ConfinedError};
use crate::id::{CommitId, TreeId};

const ROUNDS: usize = 5;
/// As many paths are put on one command line.
const FOLDERS_PER_CALL: usize = 200;
const NESTED_FOLDERS: usize = 20_000;
const GITLINK: &[u8] = b"160000";

/// Why a tree did not become objects.
#[derive(Debug, thiserror::Error)]
pub enum GatherError {
    #[error(transparent)]
    Confined(#[from] ConfinedError),
    #[error("the changed files have {size_bytes} bytes, more than the {limit_bytes} allowed")]
    TooLarge { size_bytes: u64, limit_bytes: u64 },
    #[error("there are more than {NESTED_FOLDERS} nested repositories")]
    TooManyRepositories,
    #[error("something in the tree cannot be read: {words}")]
    Unreadable { words: String },
}

/// A whole tree as git objects in our scratch git folder.
#[derive(Debug)]
pub(crate) struct Gathered {
    pub tree: TreeId,
    /// What git cannot hold, such as a file named `.GIT`.
    pub skipped: Vec<PathBuf>,
}

/// What belongs into the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// What a person would commit: tracked files, and new ones that no `.gitignore` names.
    Wanted,
    /// Ignored files and the content of submodules too.
    Everything,
}

/// Gathers the tree; what its owner made unreadable is made readable first, if need be.
pub(crate) async fn gather(
    confined: &Confined<'_>,
    base: &CommitId,
    scope: Scope,
    limit_bytes: u64,
) -> Result<Gathered, GatherError> {
    let first = Gathering::new(confined, base, scope, limit_bytes).finish().await;
    match first {
        Err(error) if error.is_denied() => {}
        other => return other,
    }
    open_up(confined).await?;
    Gathering::new(confined, base, scope, limit_bytes).finish().await
}

/// Gives the owner of the tree back the right to read all of it.
pub(crate) async fn open_up(confined: &Confined<'_>) -> Result<(), ConfinedError> {
    let open = ["find", ".", "-type", "d", "!", "-perm", "-u=rwx", "-exec", "chmod", "u+rwx", "{}", ";"];
    let read = ["-o", "-type", "f", "!", "-perm", "-u=r", "-exec", "chmod", "u+r", "{}", ";"];
    confined.writing().program(Ask::new(&[&open[..], &read[..]].concat()).accept(&[0, 1])).await?;
    Ok(())
}

impl GatherError {
    /// Whether the agent's own permissions were in the way.
    pub(crate) fn is_denied(&self) -> bool {
        match self {
            Self::Unreadable { .. } => true,
            Self::Confined(ConfinedError::Failed { stderr, .. }) => is_denied(stderr),
            _ => false,
        }
    }
}

struct Gathering<'a> {
    confined: &'a Confined<'a>,
    base: &'a CommitId,
    scope: Scope,
    limit_bytes: u64,
    size_bytes: u64,
    seen: HashSet<Vec<u8>>,
    /// Whether there may be more to see than the last list showed.
    is_unsettled: bool,
}

impl<'a> Gathering<'a> {
    fn new(confined: &'a Confined<'a>, base: &'a CommitId, scope: Scope, limit_bytes: u64) -> Self {
        Self { confined, base, scope, limit_bytes, size_bytes: 0, seen: HashSet::new(), is_unsettled: false }
    }

    async fn finish(mut self) -> Result<Gathered, GatherError> {
        self.confined.git(Ask::new(&["update-index", "-q", "--refresh"]).accept(&[0, 1])).await?;
        // A file that becomes a folder shows what is in it only after the file is gone from the index; hence rounds.
        let mut skipped = Vec::new();
        for round in 0..ROUNDS {
            let (files, nested) = self.changed_paths().await?;
            skipped = files.iter().filter(|path| self.seen.contains(*path)).cloned().collect();
            let mut fresh: Vec<Vec<u8>> = files.into_iter().filter(|path| self.seen.insert(path.clone())).collect();
            let nested: Vec<Vec<u8>> =
                nested.into_iter().filter(|path| self.seen.insert([path, b"/".as_slice()].concat())).collect();
            fresh.extend(self.nested_files(&nested).await?);
            if fresh.is_empty() && round > 0 {
                break;
            }
            self.is_unsettled = !nested.is_empty();
            self.add(fresh).await?;
            self.resolve_gitlinks().await?;
            if !self.is_unsettled {
                break;
            }
        }
        let answer = self.confined.git(Ask::new(&["write-tree"])).await?;
        let tree = parse_id("git write-tree", &answer.stdout)?;
        let skipped = skipped.into_iter().map(|path| PathBuf::from(OsStr::from_bytes(&path))).collect();
        Ok(Gathered { tree, skipped })
    }

    /// Changed and new files, and new folders that are repositories of their own.
    ///
    /// Changed ones come first: a file must leave the index before a folder can take its name.
    async fn changed_paths(&self) -> Result<(Vec<Vec<u8>>, Vec<Vec<u8>>), GatherError> {
        let mut ask = Ask::new(&["ls-files", "-z", "-t", "--modified", "--others"]);
        if self.scope == Scope::Wanted {
            ask = ask.argument("--exclude-standard");
        }
        let answer = readable(self.confined.git(ask).await?)?;
        let (mut files, mut new, mut nested) = (Vec::new(), Vec::new(), Vec::new());
        for entry in entries(&answer.stdout) {
            let Some(path) = entry.get(2..) else { continue };
            match path.strip_suffix(b"/") {
                Some(folder) => nested.push(folder.to_owned()),
                None if entry.starts_with(b"?") => new.push(path.to_owned()),
                None => files.push(path.to_owned()),
            }
        }
        files.append(&mut new);
        Ok((files, nested))
    }

    /// The plain files and links below `folders`, without any `.git`.
    async fn nested_files(&self, folders: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, GatherError> {
        if folders.len() > NESTED_FOLDERS {
            return Err(GatherError::TooManyRepositories);
        }
        let mut found = Vec::new();
        for chunk in folders.chunks(FOLDERS_PER_CALL) {
            let starts = chunk.iter().map(|folder| [b"./".as_slice(), folder].concat());
            let ask = Ask::new(&["find"]).arguments(starts.map(|path| OsStr::from_bytes(&path).to_owned()));
            let wanted = ["-name", ".git", "-prune", "-o", "(", "-type", "f", "-o", "-type", "l", ")", "-print0"];
            let answer = readable(self.confined.program(ask.arguments(wanted).accept(&[0, 1])).await?)?;
            found.extend(entries(&answer.stdout).map(|path| path.strip_prefix(b"./").unwrap_or(path).to_owned()));
        }
        if self.scope == Scope::Wanted && !found.is_empty() {
            let ask = Ask::new(&["check-ignore", "-z", "--stdin", "--no-index"]).stdin(joined(&found)).accept(&[0, 1]);
            let answer = self.confined.git(ask).await?;
            let ignored: HashSet<&[u8]> = entries(&answer.stdout).collect();
            found.retain(|path| !ignored.contains(path.as_slice()));
        }
        found.retain(|path| !self.seen.contains(path));
        Ok(found)
    }

    /// Puts the paths into the index as they are now: new, changed or gone.
    async fn add(&mut self, paths: Vec<Vec<u8>>) -> Result<(), GatherError> {
        if paths.is_empty() {
            return Ok(());
        }
        let list = joined(&paths);
        self.seen.extend(paths);
        let stat = ["xargs", "-0", "stat", "--printf=%s %F\\n", "--"];
        // The files that are gone make `stat` fail; they need no room.
        let answer = self.confined.program(Ask::new(&stat).stdin(list.clone()).accept(&[0, 123])).await?;
        for line in String::from_utf8_lossy(&answer.stdout).lines() {
            let Some((size, kind)) = line.split_once(' ') else { continue };
            self.is_unsettled |= kind == "directory";
            self.size_bytes = self.size_bytes.saturating_add(size.parse().unwrap_or(0));
        }
        if self.size_bytes > self.limit_bytes {
            return Err(GatherError::TooLarge { size_bytes: self.size_bytes, limit_bytes: self.limit_bytes });
        }
        let ask = Ask::new(&["update-index", "-z", "--add", "--remove", "--replace", "--stdin"]).stdin(list);
        let answer = self.confined.git(ask).await?;
        // Git says so when it leaves out a name that it cannot hold.
        self.is_unsettled |= !answer.stderr.is_empty();
        Ok(())
    }

    /// Undoes what git makes of folders that are repositories.
    async fn resolve_gitlinks(&mut self) -> Result<(), GatherError> {
        let ask = Ask::new(&["diff-index", "--cached", "--raw", "-z", "--no-renames", "--no-abbrev"]);
        let answer = self.confined.git(ask.argument(self.base.as_str())).await?;
        let (mut corrections, mut folders) = (Vec::new(), Vec::new());
        let mut parts = entries(&answer.stdout);
        while let (Some(facts), Some(path)) = (parts.next(), parts.next()) {
            let facts: Vec<&[u8]> = facts.split(|&byte| byte == b' ').collect();
            let [old_mode, new_mode, old_id, ..] = facts[..] else {
                continue;
            };
            if new_mode != GITLINK {
                continue;
            }
            if old_mode == b":160000" {
                corrections.extend([GITLINK, b" ", old_id, b"\t", path, b"\0"].concat());
            } else {
                corrections.extend([b"0 ", old_id, b"\t", path, b"\0"].concat());
                folders.push(path.to_owned());
            }
        }
        self.correct(corrections).await?;
        if self.scope == Scope::Everything {
            let answer = self.confined.git(Ask::new(&["ls-files", "--stage", "-z"])).await?;
            let links = entries(&answer.stdout).filter(|entry| entry.starts_with(GITLINK));
            let paths = links.filter_map(|entry| entry.splitn(2, |&byte| byte == b'\t').nth(1));
            let mut removals = Vec::new();
            for path in paths.map(<[u8]>::to_owned) {
                if !self.nested_files(std::slice::from_ref(&path)).await?.is_empty() {
                    let zeros = "0".repeat(self.base.as_str().len());
                    removals.extend([b"0 ", zeros.as_bytes(), b"\t", &path, b"\0"].concat());
                    folders.push(path);
                }
            }
            self.correct(removals).await?;
        }
        let files = self.nested_files(&folders).await?;
        self.add(files).await
    }

    async fn correct(&self, lines: Vec<u8>) -> Result<(), GatherError> {
        if !lines.is_empty() {
            self.confined.git(Ask::new(&["update-index", "-z", "--index-info"]).stdin(lines)).await?;
        }
        Ok(())
    }
}

fn is_denied(words: &str) -> bool {
    words.contains("Permission denied")
}

/// Git and find go on after a folder they may not read; that must not look like an empty folder.
fn readable(answer: Answer) -> Result<Answer, GatherError> {
    if is_denied(&answer.stderr) { Err(GatherError::Unreadable { words: answer.stderr }) } else { Ok(answer) }
}

pub(crate) fn entries(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|&byte| byte == 0).filter(|entry| !entry.is_empty())
}

fn joined(paths: &[Vec<u8>]) -> Vec<u8> {
    let mut list = Vec::with_capacity(paths.iter().map(|path| path.len() + 1).sum());
    for path in paths {
        list.extend_from_slice(path);
        list.push(0);
    }
    list
}

pub(crate) fn parse_id<T: std::str::FromStr>(program: &str, stdout: &[u8]) -> Result<T, ConfinedError> {
    let text = String::from_utf8_lossy(stdout);
    text.trim_end().parse().map_err(|_| ConfinedError::Unexpected {
        program: program.to_owned(),
        answer: text.chars().take(200).collect(),
    })
}
