//! Runs git, and a few other plain programs, inside the sandbox with an agent's tree in view.
//!
//! The git folder is one that we made; nothing of the agent's own git folder is obeyed, and whatever a tree manages to run
//! all the same is confined like the agent itself.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

use adj_sandbox::{Bind, Command, Exit, Launcher, Limits, Mode, Mount, Plan, RunError, base_environment};

/// Lists of a million paths fit.
const OUTPUT_CAP_BYTES: usize = 96 << 20;
const STDERR_KEPT_CHARACTERS: usize = 2000;

/// Why a program inside gave no result.
#[derive(Debug, thiserror::Error)]
pub enum ConfinedError {
    #[error("cannot run {program} in the sandbox")]
    Run { program: String, source: RunError },
    #[error("{program} ended with {exit:?} in the sandbox: {stderr}")]
    Failed { program: String, exit: Exit, stderr: String },
    #[error("{program} wrote {size_bytes} bytes in the sandbox, more than the {limit_bytes} allowed")]
    OutputTooLarge { program: String, size_bytes: u64, limit_bytes: usize },
    #[error("{program} answered something unexpected in the sandbox: {answer:?}")]
    Unexpected { program: String, answer: String },
}

/// A prepared view; each call is a sandbox of its own.
#[derive(Debug)]
pub(crate) struct Confined<'launcher> {
    launcher: &'launcher Launcher,
    plan: Plan,
    git_dir: PathBuf,
}

/// What a program said.
#[derive(Debug)]
pub(crate) struct Answer {
    pub stdout: Vec<u8>,
    pub stderr: String,
}

/// One program to run inside.
#[derive(Debug)]
pub(crate) struct Ask<'text> {
    program: &'text [&'text str],
    more: Vec<OsString>,
    stdin: Vec<u8>,
    accepted: &'static [i32],
}

impl<'text> Ask<'text> {
    pub fn new(program: &'text [&'text str]) -> Self {
        Self { program, more: Vec::new(), stdin: Vec::new(), accepted: &[0] }
    }

    pub fn argument(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.more.push(argument.as_ref().to_owned());
        self
    }

    pub fn arguments(mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.more.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    pub fn accept(mut self, statuses: &'static [i32]) -> Self {
        self.accepted = statuses;
        self
    }
}

impl<'launcher> Confined<'launcher> {
    /// A view of `workspace` with `objects` readable, `scratch` writable, and git working on `git_dir`.
    pub fn new(
        launcher: &'launcher Launcher,
        mode: Mode,
        workspace: Mount,
        tree: &Path,
        binds: Vec<Bind>,
        scratch: &Path,
        git_dir: &Path,
    ) -> Self {
        let mut plan = Plan::new(mode);
        plan.workspace = workspace;
        plan.cwd = tree.to_owned();
        plan.binds = binds;
        plan.binds.push(Bind { host: scratch.to_owned(), inside: scratch.to_owned(), writable: true });
        plan.limits = Limits {
            output_bytes: 2 * OUTPUT_CAP_BYTES as u64,
            file_size_bytes: 8 << 30,
            // A checkout is as large as its repository; what fits is the disk's business.
            disk_bytes: 1 << 50,
            ..Limits::default()
        };
        plan.env = base_environment();
        let fixed = [
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("GIT_ATTR_NOSYSTEM", "1"),
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GIT_OPTIONAL_LOCKS", "0"),
            ("GIT_NO_REPLACE_OBJECTS", "1"),
            ("GIT_NO_LAZY_FETCH", "1"),
            ("LC_ALL", "C"),
        ];
        plan.env.extend(fixed.map(|(name, value)| (name.to_owned(), value.to_owned())));
        Self { launcher, plan, git_dir: git_dir.to_owned() }.variable("GIT_WORK_TREE", tree)
    }

    pub fn variable(mut self, name: &str, value: impl AsRef<Path>) -> Self {
        let value = value.as_ref().to_str().expect("our paths are UTF-8").to_owned();
        self.plan.env.insert(name.to_owned(), value);
        self
    }

    /// The same view with more variables.
    pub fn with(&self, variables: impl IntoIterator<Item = (&'static str, String)>) -> Self {
        let mut plan = self.plan.clone();
        plan.env.extend(variables.into_iter().map(|(name, value)| (name.to_owned(), value)));
        Self { launcher: self.launcher, plan, git_dir: self.git_dir.clone() }
    }

    /// The same view, but able to change the tree.
    pub fn writing(&self) -> Self {
        let mut plan = self.plan.clone();
        if plan.mode == Mode::ReadOnly {
            plan.mode = Mode::WorkspaceWrite;
        }
        Self { launcher: self.launcher, plan, git_dir: self.git_dir.clone() }
    }

    /// Runs git on our git folder.
    pub async fn git(&self, ask: Ask<'_>) -> Result<Answer, ConfinedError> {
        let mut argv: Vec<OsString> = vec!["git".into()];
        for setting in ["core.hooksPath=/dev/null", "core.fsmonitor=false", "safe.directory=*", "gc.auto=0"] {
            argv.extend(["-c".into(), setting.into()]);
        }
        let mut git_dir = OsString::from("--git-dir=");
        git_dir.push(&self.git_dir);
        argv.push(git_dir);
        let name = format!("git {}", ask.program[0]);
        argv.extend(ask.program.iter().map(OsString::from));
        self.start(name, argv, ask).await
    }

    /// Runs another program.
    pub async fn program(&self, ask: Ask<'_>) -> Result<Answer, ConfinedError> {
        let argv = ask.program.iter().map(OsString::from).collect();
        self.start(ask.program[0].to_owned(), argv, ask).await
    }

    async fn start(&self, program: String, mut argv: Vec<OsString>, ask: Ask<'_>) -> Result<Answer, ConfinedError> {
        argv.extend(ask.more);
        let mut command = Command::new(argv);
        command.stdin = ask.stdin;
        command.timeout = Duration::from_secs(600);
        command.keep_output_bytes = OUTPUT_CAP_BYTES;
        let finished = match self.launcher.run(&self.plan, &command).await {
            Ok(finished) => finished,
            Err(source) => return Err(ConfinedError::Run { program, source }),
        };
        let stderr = String::from_utf8_lossy(&finished.stderr);
        let stderr = stderr.trim().chars().take(STDERR_KEPT_CHARACTERS).collect();
        match finished.exit {
            Exit::Code(status) if ask.accepted.contains(&status) => {
                if finished.stdout_bytes > OUTPUT_CAP_BYTES as u64 {
                    let size_bytes = finished.stdout_bytes;
                    return Err(ConfinedError::OutputTooLarge { program, size_bytes, limit_bytes: OUTPUT_CAP_BYTES });
                }
                Ok(Answer { stdout: finished.stdout, stderr })
            }
            exit => Err(ConfinedError::Failed { program, exit, stderr }),
        }
    }
}
