//! Runs git on the host in such a way that nothing found in a repository is executed.
//!
//! Everything that starts a git process on the host goes through [`Call::run`].

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

const TIMEOUT: Duration = Duration::from_secs(300);
const OUTPUT_CAP_BYTES: usize = 64 << 20;
const STDERR_CAP_BYTES: usize = 16 << 10;

/// Settings for every call. They stand on the command line, which beats every file.
///
/// `merge-tree` and the rest of the plumbing run no hooks, but the list does not depend on knowing which do.
const HARDENING: &[&str] = &[
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.untrackedCache=false",
    "core.sshCommand=false",
    "core.askPass=",
    "core.editor=false",
    "core.pager=cat",
    "core.alternateRefsCommand=true",
    "credential.helper=",
    "safe.bareRepository=explicit",
    "protocol.allow=never",
    "diff.external=",
    "gc.auto=0",
    "maintenance.auto=false",
    "commit.gpgSign=false",
    "submodule.recurse=false",
    "fetch.recurseSubmodules=false",
    "advice.detachedHead=false",
    // An object that a ref names is on the disk before the ref is.
    "core.fsync=committed,reference",
    "core.fsyncMethod=batch",
];

/// Why a git command gave no result.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    #[error("cannot run {}", executable.display())]
    Start { executable: PathBuf, source: io::Error },
    #[error("git {command} failed with status {status}: {stderr}")]
    Failed { command: &'static str, status: i32, stderr: String },
    #[error("git {command} was killed by a signal: {stderr}")]
    Killed { command: &'static str, stderr: String },
    #[error("git {command} did not finish within {} seconds", after.as_secs())]
    TimedOut { command: &'static str, after: Duration },
    #[error("git {command} wrote more than {limit_bytes} bytes")]
    OutputTooLarge { command: &'static str, limit_bytes: usize },
    #[error("git {command} answered something unexpected: {answer:?}")]
    Unexpected { command: &'static str, answer: String },
    #[error("cannot talk to git {command}")]
    Pipe { command: &'static str, source: io::Error },
}

impl GitError {
    /// For an answer that does not have the documented shape.
    pub(crate) fn unexpected(command: &'static str, answer: &[u8]) -> Self {
        Self::Unexpected { command, answer: String::from_utf8_lossy(&answer[..answer.len().min(200)]).into_owned() }
    }
}

/// Why there is no usable git on this machine.
#[derive(Debug, thiserror::Error)]
pub enum FindGitError {
    #[error("no git found in {searched:?}")]
    Missing { searched: OsString },
    #[error("{} is git {found}; at least git 2.38 is needed", path.display())]
    TooOld { path: PathBuf, found: String },
    #[error("cannot ask {} for its version", path.display())]
    Version { path: PathBuf, source: GitError },
}

/// The git program, found once, and the few variables of its user that count for the user's own tree.
#[derive(Debug, Clone)]
pub struct Git {
    executable: PathBuf,
    user_variables: BTreeMap<OsString, OsString>,
}

/// Whose configuration a call obeys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rules {
    /// Only what stands on the command line and in a repository that we made.
    Ours,
    /// The user's own configuration too (line endings, filters, ignore lists); for the user's working tree.
    Users,
}

impl Git {
    /// Finds git in the caller's environment, which is also where the user's own configuration is looked for.
    pub async fn find(environment: impl IntoIterator<Item = (OsString, OsString)>) -> Result<Self, FindGitError> {
        const KEPT: [&str; 8] = [
            "PATH",
            "HOME",
            "USER",
            "LOGNAME",
            "XDG_CONFIG_HOME",
            "GIT_CONFIG_GLOBAL",
            "GIT_CONFIG_SYSTEM",
            "GIT_CONFIG_NOSYSTEM",
        ];
        let user_variables: BTreeMap<OsString, OsString> =
            environment.into_iter().filter(|(name, _)| KEPT.iter().any(|kept| name == kept)).collect();
        let searched = user_variables.get(OsStr::new("PATH")).cloned().unwrap_or_else(|| SYSTEM_PATH.into());
        // A relative entry would find a git that somebody put into the current folder.
        let found = std::env::split_paths(&searched)
            .filter(|folder| folder.is_absolute())
            .map(|folder| folder.join("git"))
            .find(|path| path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0));
        let Some(executable) = found else {
            return Err(FindGitError::Missing { searched });
        };
        let git = Self { executable, user_variables };
        let answer = git.call(Rules::Ours, "version").run().await;
        let answer = answer.map_err(|source| FindGitError::Version { path: git.executable.clone(), source })?.text();
        if new_enough(&answer) { Ok(git) } else { Err(FindGitError::TooOld { path: git.executable, found: answer }) }
    }

    pub(crate) fn call(&self, rules: Rules, command: &'static str) -> Call<'_> {
        Call {
            git: self,
            rules,
            command,
            options: Vec::new(),
            arguments: Vec::new(),
            variables: Vec::new(),
            folder: None,
            stdin: Input::Nothing,
            accepted: &[0],
            output_cap_bytes: OUTPUT_CAP_BYTES,
            cut_output: false,
            timeout: TIMEOUT,
        }
    }
}

const SYSTEM_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// `merge-tree --write-tree` came with 2.38; Debian 12 has 2.39.
fn new_enough(answer: &str) -> bool {
    let numbers: Vec<u32> =
        answer.trim_start_matches("git version ").split(['.', ' ', '-']).map_while(|part| part.parse().ok()).collect();
    numbers.get(..2).is_some_and(|version| version >= &[2, 38])
}

enum Input {
    Nothing,
    Bytes(Vec<u8>),
    File(File),
}

/// One git command that is about to run.
#[must_use]
pub(crate) struct Call<'git> {
    git: &'git Git,
    rules: Rules,
    command: &'static str,
    options: Vec<OsString>,
    arguments: Vec<OsString>,
    variables: Vec<(&'static str, OsString)>,
    folder: Option<PathBuf>,
    stdin: Input,
    accepted: &'static [i32],
    output_cap_bytes: usize,
    cut_output: bool,
    timeout: Duration,
}

/// What a command said.
#[derive(Debug)]
pub(crate) struct Output {
    pub status: i32,
    pub stdout: Vec<u8>,
    /// Whether stdout was longer than what is kept here.
    pub is_cut: bool,
}

impl Output {
    /// stdout as one line of text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim_end_matches('\n').to_owned()
    }
}

impl Call<'_> {
    pub fn argument(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    pub fn arguments(mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// An option of git itself, before the command.
    pub fn option(mut self, option: impl AsRef<OsStr>) -> Self {
        self.options.push(option.as_ref().to_owned());
        self
    }

    pub fn variable(mut self, name: &'static str, value: impl AsRef<OsStr>) -> Self {
        self.variables.push((name, value.as_ref().to_owned()));
        self
    }

    pub fn variables(mut self, variables: impl IntoIterator<Item = (&'static str, String)>) -> Self {
        self.variables.extend(variables.into_iter().map(|(name, value)| (name, value.into())));
        self
    }

    /// Runs in `folder` and lets git find the repository there.
    pub fn folder(mut self, folder: &Path) -> Self {
        self.folder = Some(folder.to_owned());
        self
    }

    pub fn git_dir(self, git_dir: &Path) -> Self {
        self.variable("GIT_DIR", git_dir)
    }

    pub fn index(self, index: &Path) -> Self {
        self.variable("GIT_INDEX_FILE", index)
    }

    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Input::Bytes(bytes.into());
        self
    }

    pub fn stdin_file(mut self, file: File) -> Self {
        self.stdin = Input::File(file);
        self
    }

    /// Statuses that are answers rather than failures.
    pub fn accept(mut self, statuses: &'static [i32]) -> Self {
        self.accepted = statuses;
        self
    }

    /// Keeps the first `limit` bytes of a longer answer instead of failing.
    pub fn keep_first(mut self, limit: usize) -> Self {
        self.output_cap_bytes = limit;
        self.cut_output = true;
        self
    }

    fn command(&mut self) -> Command {
        let mut command = Command::new(&self.git.executable);
        command.env_clear();
        match self.rules {
            Rules::Ours => {
                command.env("PATH", SYSTEM_PATH).env("HOME", "/nonexistent").env("GIT_CONFIG_GLOBAL", "/dev/null");
                command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_ATTR_NOSYSTEM", "1");
            }
            Rules::Users => {
                command.envs(&self.git.user_variables);
            }
        }
        command.env("LC_ALL", "C").env("GIT_TERMINAL_PROMPT", "0").env("GIT_OPTIONAL_LOCKS", "0");
        command.env("GIT_NO_REPLACE_OBJECTS", "1").env("GIT_NO_LAZY_FETCH", "1").env("GIT_PAGER", "cat");
        command.envs(self.variables.drain(..));
        command.args(&self.options);
        for setting in HARDENING {
            command.arg("-c").arg(setting);
        }
        command.arg(self.command).args(&self.arguments);
        command.current_dir(self.folder.as_deref().unwrap_or(Path::new("/")));
        command.stdin(match std::mem::replace(&mut self.stdin, Input::Nothing) {
            Input::Nothing => Stdio::null(),
            Input::File(file) => Stdio::from(file),
            bytes @ Input::Bytes(_) => {
                self.stdin = bytes;
                Stdio::piped()
            }
        });
        // Its own process group: a Ctrl+C in the terminal must not stop git in the middle of an update.
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).process_group(0);
        command
    }

    /// Starts the command for a conversation over its standard streams.
    pub fn start(mut self) -> Result<Child, GitError> {
        self.stdin = Input::Bytes(Vec::new());
        let executable = self.git.executable.clone();
        self.command().spawn().map_err(|source| GitError::Start { executable, source })
    }

    pub async fn run(mut self) -> Result<Output, GitError> {
        let (name, after) = (self.command, self.timeout);
        let executable = self.git.executable.clone();
        let mut child = self.command().spawn().map_err(|source| GitError::Start { executable, source })?;
        let finished = tokio::time::timeout(after, self.converse(&mut child)).await;
        if !matches!(finished, Ok(Ok(_))) {
            // The id is gone once the process was waited for, so this never hits a stranger.
            kill_group(child.id());
        }
        finished.unwrap_or(Err(GitError::TimedOut { command: name, after }))
    }

    async fn converse(self, child: &mut Child) -> Result<Output, GitError> {
        let command = self.command;
        let pipe = |source| GitError::Pipe { command, source };
        let (stdin, bytes) = match self.stdin {
            Input::Bytes(bytes) => (child.stdin.take(), bytes),
            Input::Nothing | Input::File(_) => (None, Vec::new()),
        };
        let feed = async move {
            if let Some(mut stdin) = stdin {
                // Git may stop reading early; its status and its words tell why.
                let _ = stdin.write_all(&bytes).await;
                let _ = stdin.shutdown().await;
            }
        };
        let stdout = child.stdout.take().expect("stdout was asked for");
        let stderr = child.stderr.take().expect("stderr was asked for");
        let limit_bytes = self.output_cap_bytes;
        let cut_output = self.cut_output;
        let read_stdout = async move {
            let (stdout, is_cut) = read_capped(stdout, limit_bytes, cut_output).await.map_err(pipe)?;
            if is_cut && !cut_output {
                return Err(GitError::OutputTooLarge { command, limit_bytes });
            }
            Ok((stdout, is_cut))
        };
        let read_stderr = async move { read_capped(stderr, STDERR_CAP_BYTES, true).await.map_err(pipe) };
        let wait = async { child.wait().await.map_err(pipe) };
        let ((), (stdout, is_cut), (stderr, _), status) = tokio::try_join!(
            async {
                feed.await;
                Ok(())
            },
            read_stdout,
            read_stderr,
            wait
        )?;
        let stderr = String::from_utf8_lossy(&stderr).trim().to_owned();
        match status.code() {
            Some(status) if self.accepted.contains(&status) => Ok(Output { status, stdout, is_cut }),
            Some(status) => Err(GitError::Failed { command, status, stderr }),
            None => Err(GitError::Killed { command, stderr }),
        }
    }
}

/// Reads up to `limit` bytes; what is longer is read on and dropped when `drain`, else left unread.
async fn read_capped(mut source: impl AsyncRead + Unpin, limit: usize, drain: bool) -> io::Result<(Vec<u8>, bool)> {
    let mut kept = Vec::new();
    (&mut source).take(limit as u64).read_to_end(&mut kept).await?;
    let mut rest = [0; 8192];
    let mut is_cut = false;
    if kept.len() == limit {
        while source.read(&mut rest).await? > 0 {
            is_cut = true;
            if !drain {
                break;
            }
        }
    }
    Ok((kept, is_cut))
}

fn kill_group(group: Option<u32>) {
    let group = group.and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
    if let Some(group) = group {
        // It may have left by itself in the meantime.
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_versions_are_refused() {
        let cases = [
            ("git version 2.47.3", true),
            ("git version 2.38.0", true),
            ("git version 2.37.9", false),
            ("git version 3.0", true),
            ("git version 2.50.1 (Apple Git-155)", true),
            ("git version 2.51.0.windows.1", true),
            ("git version 1.99", false),
            ("nonsense", false),
        ];
        for (answer, expected) in cases {
            assert_eq!(new_enough(answer), expected, "{answer}");
        }
    }

    async fn run_it(script: Call<'_>) -> Result<Output, GitError> {
        script.run().await
    }

    #[tokio::test]
    async fn long_answers_fail_or_are_cut_as_asked() {
        let git = Git::find(std::env::vars_os()).await.expect("git is installed");
        let text = vec![b'x'; 100_000];
        let ask = || git.call(Rules::Ours, "stripspace").stdin(text.clone());
        assert_eq!(run_it(ask()).await.expect("fits").stdout.len(), 100_001);
        let cut = run_it(ask().keep_first(1000)).await.expect("is cut");
        assert_eq!((cut.stdout.len(), cut.is_cut), (1000, true));
        let mut refused = ask();
        refused.output_cap_bytes = 1000;
        assert!(matches!(run_it(refused).await, Err(GitError::OutputTooLarge { limit_bytes: 1000, .. })));
    }

    #[tokio::test]
    async fn a_command_that_hangs_is_killed() {
        let git = Git::find(std::env::vars_os()).await.expect("git is installed");
        let (reader, writer) = io::pipe().expect("a pipe");
        let mut call = git.call(Rules::Ours, "stripspace").stdin_file(File::from(std::os::fd::OwnedFd::from(reader)));
        call.timeout = Duration::from_millis(50);
        assert!(matches!(call.run().await, Err(GitError::TimedOut { .. })));
        drop(writer);
    }
}
