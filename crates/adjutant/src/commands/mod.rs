//! The commands, one file each.

mod approvals;
pub(crate) mod budget;
mod daemon;
mod doctor;
mod exec;
mod gateway;
mod models;
mod policy;
mod run;
mod sandbox;
mod secret;
mod token;
mod trace;

pub use sandbox::NOT_RUN;

use crate::{
    cli::{Cli, Command},
    failure::{Code, Failure, Result},
    wiring,
    words::harmless,
};
use adj_domain::Timestamp;
use anyhow::Context;
use clap::CommandFactory;
use std::{
    io::Read,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Carries a command out. Threads are started only for those that need them.
pub fn dispatch(command: Command) -> Result<ExitCode> {
    match command {
        Command::Run(args) => on_runtime(run::run(args)),
        Command::Exec(args) => on_runtime(exec::exec(args)),
        Command::Approvals(command) => on_runtime(approvals::approvals(command)),
        Command::Budget(command) => on_runtime(budget::budget(command)),
        Command::Policy(command) => policy::policy(command),
        Command::Gateway(args) => on_runtime(async { Ok(gateway::gateway(args).await) }),
        Command::Daemon(args) => on_runtime(daemon::daemon(args)),
        Command::Token(command) => token::token(command),
        Command::Sandbox(args) => sandbox::sandbox(*args),
        Command::Secret(command) => secret::secret(command),
        Command::Trace(command) => on_runtime(trace::trace(command)),
        Command::Models { name, json } => models::models(name.as_deref(), json),
        Command::Doctor { json } => on_runtime(doctor::doctor(json)),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "adjutant", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn on_runtime(command: impl Future<Output = Result<ExitCode>>) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(command)
}

/// The folder that is meant, as one absolute path.
fn folder_of(cd: Option<&Path>) -> Result<PathBuf> {
    let folder = cd.unwrap_or(Path::new("."));
    let path = folder.canonicalize().with_context(|| format!("cannot work in {}", folder.display()));
    let path = path.map_err(|error| Failure { code: Code::Usage, error, hint: None })?;
    if !path.is_dir() {
        return Err(Failure::usage(format!("{} is not a folder", path.display())));
    }
    Ok(path)
}

/// A folder that may be shown in a sandbox and changed there.
fn work_folder(cd: Option<&Path>) -> Result<PathBuf> {
    let path = folder_of(cd)?;
    let system = ["/", "/bin", "/dev", "/etc", "/lib", "/proc", "/sbin", "/sys", "/tmp", "/usr", "/var"];
    let holds = |inner: PathBuf| inner.canonicalize().unwrap_or(inner).starts_with(&path);
    if system.iter().any(|folder| path == Path::new(folder)) || wiring::home_dir().is_some_and(&holds) {
        return Err(Failure::usage(format!("{} is too much for an agent to work in", path.display()))
            .hint("name a project's folder with --cd"));
    }
    let state = wiring::state_dir()?;
    if holds(state.clone()) {
        return Err(Failure::usage(format!("{} holds the state folder {}", path.display(), state.display()))
            .hint("keep what agents must not see elsewhere: ADJUTANT_HOME says where"));
    }
    Ok(path)
}

/// Lets this process have as many open files as it may: each connection takes some. Returns how many that are.
fn raise_open_files() -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    match setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        Ok(()) => limit.maximum,
        // Where that is not allowed, there are as many as there were.
        Err(_) => limit.current,
    }
}

/// A moment in a list.
pub fn when(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%MZ").to_string()
}

/// Longest prompt that is read.
const LONGEST_PROMPT: u64 = 1 << 20;

/// The prompt as typed, or from standard input when it is `-`.
fn read_prompt(prompt: String) -> Result<String> {
    if prompt != "-" {
        return checked(prompt);
    }
    let mut bytes = Vec::new();
    std::io::stdin().take(LONGEST_PROMPT + 1).read_to_end(&mut bytes)?;
    checked(String::from_utf8(bytes).map_err(|_| Failure::usage("the prompt is not valid UTF-8"))?)
}

fn checked(text: String) -> Result<String> {
    if text.trim().is_empty() {
        return Err(Failure::usage("the prompt is empty").hint("say what is to be done"));
    }
    if text.len() as u64 > LONGEST_PROMPT {
        return Err(Failure::usage(format!("the prompt is longer than {LONGEST_PROMPT} bytes"))
            .hint("put long material into a file and name the file"));
    }
    Ok(text)
}

/// Writes what an agent said: to programs as it is, on a terminal without anything that steers it.
fn print_theirs(text: &str) -> Result<()> {
    use std::io::IsTerminal;
    if std::io::stdout().is_terminal() { print(&harmless(text)) } else { print(text) }
}

/// Writes to standard output; a reader that went away is no error of ours.
fn print(text: &str) -> Result<()> {
    use std::io::{ErrorKind, Write};
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
