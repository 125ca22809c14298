//! `adjutant sandbox`: one command, confined as sessions are, for somebody who waits for it.
//!
//! Without a network nothing here starts a thread: the way from the shell to the command is as short as it can be.

mod explain;
mod limits;
mod network;

use super::work_folder;
use crate::{
    cli::{SandboxArgs, SandboxCommand, SandboxPlace},
    confinement::{Asked, has_terminal, policy_at},
    failure::{Failure, Result},
    wiring,
};
use adj_engine::{CommandSpec, ConfinedCommand, trust_file};
use adj_policy::Limit;
use adj_sandbox::{Exit, Here, Mode, Mount, NetworkPlan, Plan, RunError, Streams};
use rustix::fs::OFlags;
use std::{
    ffi::OsString,
    fs::{File, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// What the command itself would not answer, as `env` and `timeout` spell it.
const TOO_LONG: u8 = 124;
pub const NOT_RUN: u8 = 125;
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;
const KILLED: u8 = 128 + 9;

pub fn sandbox(args: SandboxArgs) -> Result<ExitCode> {
    match args.command {
        Some(SandboxCommand::Explain(args)) => explain::explain(&args),
        None => Ok(run(&args).unwrap_or_else(|failure| not_run(&failure))),
    }
}

/// Whoever reads our exit code must be able to tell the command's from ours.
fn not_run(failure: &Failure) -> ExitCode {
    say(&failure.render());
    ExitCode::from(NOT_RUN)
}

/// What is asked for, and the sandbox that comes out.
struct Wanted {
    asked: Asked,
    confined: ConfinedCommand,
    /// What placeholders and certificates of this command are called by.
    id: String,
}

impl Wanted {
    fn of(place: &SandboxPlace) -> Result<Self> {
        let folder = work_folder(place.cd.as_deref())?;
        let asked = Asked::of(&policy_at(&folder)?, &place.confinement)?;
        if let (Some(name), false) = (place.confinement.secret.first(), asked.has_network()) {
            return Err(Failure::usage(format!(
                "no host may be reached, so nothing could be done with the secret {name}"
            ))
            .hint("allow the hosts that it is for: --allow-host HOST"));
        }
        let id = command_id()?;
        let confined = ConfinedCommand::new(CommandSpec {
            policy: asked.policy.clone(),
            mode: asked.profile.mode,
            confinement: asked.confinement(),
            has_people: has_terminal(),
            folder,
            home: wiring::home_dir(),
            trust: trust_file(&wiring::state_dir()?, &id),
        })?;
        Ok(Self { asked, confined, id })
    }

    fn has_network(&self) -> bool {
        self.confined.plan().network != NetworkPlan::Off
    }

    /// Whether somebody may be asked about hosts while the command runs.
    fn asks(&self) -> bool {
        self.has_network() && self.asked.profile.network.ask && has_terminal()
    }

    /// Output is counted where somebody limits it: then it goes through our hands.
    fn streams(&self) -> Streams {
        let is_limited = self.asked.profile.limits.contains_key(&Limit::Output)
            || self.asked.policy.limits().iter().any(|least| least.limit == Limit::Output);
        if is_limited { Streams::Counted } else { Streams::Inherited }
    }
}

fn command_id() -> Result<String> {
    let random = wiring::random()?;
    Ok(random.iter().fold("sandbox_".to_owned(), |id, byte| format!("{id}{byte:02x}")))
}

fn run(args: &SandboxArgs) -> Result<ExitCode> {
    let wanted = Wanted::of(&args.place)?;
    let log = args.log.as_deref().map(|path| open_log(path, wanted.confined.plan())).transpose()?;
    // Before anything secret is read: the helper is a copy of this process.
    let mut here = if wanted.asks() { Here::fork_apart() } else { Here::fork() }.map_err(failed)?;
    let streams = wanted.streams();
    let ended = if wanted.has_network() {
        network::run(wanted, here, &args.argv, streams, log)?
    } else {
        let plan = with_terminal(wanted.confined.plan().clone(), &here);
        here.start(&plan, &args.argv, streams).and_then(|()| here.wait(drop)).map(|exit| (exit, plan))
    };
    match ended {
        Ok((exit, plan)) => Ok(code(exit, &plan)),
        Err(error) => could_not(error, &args.argv),
    }
}

/// The terminal's name is the one thing that a command learns of ours: without it nothing can be drawn there.
fn with_terminal(mut plan: Plan, here: &Here) -> Plan {
    let is_plain = |name: &String| {
        name.len() <= 64 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte))
    };
    if here.terminal().is_some()
        && let Some(name) = std::env::var("TERM").ok().filter(is_plain)
    {
        plan.env.entry("TERM".to_owned()).and_modify(|value| *value = name);
    }
    plan
}

/// Opens the log where the command can neither change it nor lead it elsewhere.
fn open_log(path: &Path, plan: &Plan) -> Result<File> {
    let parent = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    if let Ok(parent) = parent.canonicalize()
        && let Some(folder) = written_to(plan).into_iter().find(|folder| parent.starts_with(folder))
    {
        return Err(Failure::usage(format!(
            "the log {} would lie in {}, where the command may change it",
            path.display(),
            folder.display()
        ))
        .hint("name a file elsewhere, such as --log /tmp/egress.jsonl"));
    }
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o600).custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
    options.open(path).map_err(|error| Failure::unusable(error, format_args!("cannot write to {}", path.display())))
}

/// The folders outside that the command may write to, as they are really called.
fn written_to(plan: &Plan) -> Vec<PathBuf> {
    let workspace = match &plan.workspace {
        Mount::Direct { host, .. } if plan.mode == Mode::WorkspaceWrite => Some(host),
        _ => None,
    };
    let binds = plan.binds.iter().filter(|bind| bind.writable).map(|bind| &bind.host);
    workspace.into_iter().chain(binds).filter_map(|folder| folder.canonicalize().ok()).collect()
}

fn code(exit: Exit, plan: &Plan) -> ExitCode {
    let code = match exit {
        Exit::Code(code) => u8::try_from(code).unwrap_or(u8::MAX),
        Exit::Signal(signal) => u8::try_from(128 + signal).unwrap_or(u8::MAX),
        Exit::TimedOut => TOO_LONG,
        Exit::OutputLimit | Exit::MemoryLimit | Exit::ProcessLimit | Exit::CpuLimit | Exit::DiskLimit => KILLED,
    };
    if let Some(why) = exit.reached(&plan.limits) {
        say(&format!(
            "error: the command was ended: {why}\nHint: `adjutant sandbox explain` says who set it; --limit sets another\n"
        ));
    }
    ExitCode::from(code)
}

fn failed(error: RunError) -> Failure {
    anyhow::Error::new(error).into()
}

fn could_not(error: RunError, argv: &[OsString]) -> Result<ExitCode> {
    let RunError::CannotStart { source, .. } = &error else { return Err(failed(error)) };
    let is_missing = source.kind() == std::io::ErrorKind::NotFound;
    let hint = match (is_missing, argv.first().is_some_and(|name| name.as_encoded_bytes().contains(&b'/'))) {
        (true, false) => "only the machine's programs and toolchains are there; one in the folder is named ./NAME",
        (true, true) => {
            "only the folder, the machine's programs and toolchains are there; `adjutant sandbox explain` lists them"
        }
        (false, _) => "it has to be a program that may be executed: chmod +x, or name its interpreter",
    };
    say(&failed(error).hint(hint).render());
    Ok(ExitCode::from(if is_missing { NOT_FOUND } else { NOT_EXECUTABLE }))
}

fn say(text: &str) {
    // When standard error is gone, there is nobody left to tell.
    let _ = write!(anstream::stderr(), "{text}");
}
