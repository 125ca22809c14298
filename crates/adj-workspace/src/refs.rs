//! The user's refs: where a branch is checked out, and moving a branch in two steps, so that the tree can be changed in between.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout};

use crate::git::GitError;
use crate::id::CommitId;
use crate::repository::Repository;

const COMMAND: &str = "update-ref";
const PATIENCE: Duration = Duration::from_secs(60);

/// The working tree in which `reference` is checked out, if any.
pub(crate) async fn checked_out(repository: &Repository, reference: &str) -> Result<Option<PathBuf>, GitError> {
    let output = repository.call("worktree").arguments(["list", "--porcelain", "-z"]).run().await?;
    let wanted = format!("branch {reference}");
    let mut folder = None;
    for line in output.stdout.split(|&byte| byte == 0) {
        if let Some(path) = line.strip_prefix(b"worktree ") {
            folder = Some(PathBuf::from(OsStr::from_bytes(path)));
        } else if line == wanted.as_bytes()
            && let Some(folder) = folder.take().filter(|folder| folder.is_dir())
        {
            return Ok(Some(folder));
        }
    }
    Ok(None)
}

/// A branch that is about to move: it is locked at its old place until this is committed or dropped.
///
/// If we die, git sees the end of its input and lets go.
pub(crate) struct Move {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Move {
    /// Locks `reference` for the step from `from` to `to`; fails if it is not at `from`.
    pub async fn prepare(
        repository: &Repository,
        reference: &str,
        from: &CommitId,
        to: &CommitId,
    ) -> Result<Self, GitError> {
        let call = repository.call(COMMAND).arguments(["--stdin", "-z", "--create-reflog", "-m", "adjutant: land"]);
        let mut child = call.start()?;
        let stdin = child.stdin.take().expect("stdin was asked for");
        let stdout = BufReader::new(child.stdout.take().expect("stdout was asked for"));
        let mut this = Self { child, stdin, stdout };
        this.say(format!("start\0update {reference}\0{to}\0{from}\0prepare\0").as_bytes(), &["start", "prepare"])
            .await?;
        Ok(this)
    }

    pub async fn commit(mut self) -> Result<(), GitError> {
        self.say(b"commit\0", &["commit"]).await?;
        drop(self.stdin);
        // What was asked for is done; git only has to leave.
        let _ = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        Ok(())
    }

    /// Lets go, and waits until the lock is gone.
    pub async fn abort(mut self) {
        drop(self.stdin);
        let _ = tokio::time::timeout(PATIENCE, self.child.wait()).await;
    }

    async fn say(&mut self, words: &[u8], expected: &[&str]) -> Result<(), GitError> {
        let conversation = async {
            // When git has left already, its error stream says why.
            let _ = self.stdin.write_all(words).await;
            let _ = self.stdin.flush().await;
            for word in expected {
                let mut line = String::new();
                (&mut self.stdout).take(1000).read_line(&mut line).await?;
                if line.trim_end() != format!("{word}: ok") {
                    let mut stderr = Vec::new();
                    if let Some(source) = self.child.stderr.take() {
                        source.take(16 << 10).read_to_end(&mut stderr).await?;
                    }
                    return Ok(Some(String::from_utf8_lossy(&stderr).trim().to_owned()));
                }
            }
            Ok(None)
        };
        match tokio::time::timeout(PATIENCE, conversation).await {
            Err(_) => Err(GitError::TimedOut { command: COMMAND, after: PATIENCE }),
            Ok(Err(source)) => Err(GitError::Pipe { command: COMMAND, source }),
            Ok(Ok(Some(stderr))) => Err(GitError::Failed { command: COMMAND, status: 128, stderr }),
            Ok(Ok(None)) => Ok(()),
        }
    }
}
