//! What can be typed. The doc comments are the manual.

mod approvals;
mod budget;
mod cassette;
mod confinement;
mod daemon;
mod gateway;
mod policy;
mod sandbox;
mod secret;
mod token;

pub use approvals::{AllowArgs, ApprovalsCommand, Remember};
pub use budget::{BudgetArgs, BudgetCommand, BudgetTarget};
pub use cassette::CassetteArgs;
pub use confinement::{ApprovalArgs, CONFINEMENT, ConfinementArgs};
pub use daemon::{DEFAULT_PORT, DaemonArgs, DaemonCommand, Listen, ServeArgs};
pub use gateway::GatewayArgs;
pub use policy::{CheckArgs, ExplainArgs, LayerArg, PlaceArgs, PolicyCommand};
pub use sandbox::{ExplainSandboxArgs, SandboxArgs, SandboxCommand, SandboxPlace};
pub use secret::{SecretCommand, SetArgs};
pub use token::{ScopeArg, TokenCommand};

use adj_domain::{Limit, LogId, ModelRef, RunId, SessionId};
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// Run, supervise and record fleets of coding agents
#[derive(Debug, Parser)]
#[command(name = "adjutant", version, max_term_width = 100, subcommand_required = true, arg_required_else_help = true)]
#[command(after_help = "State:     ADJUTANT_HOME, or adjutant in the XDG state directory (~/.local/state/adjutant)\n\
                        Settings:  adjutant/config.toml in the XDG configuration directory (~/.config)\n\
                        Policy:    /etc/adjutant/requirements.toml, adjutant/policy.toml beside the settings,\n           \
                        .adjutant/policy.toml in a repository\n\n\
                        Exit codes:\n    \
                        0  done\n    \
                        1  the work failed\n    \
                        2  wrong usage or settings\n    \
                        3  the answer did not fit its schema\n    \
                        4  no sandbox here\n    \
                        5  trouble with the journal\n    \
                        6  a trace is not what was written\n    \
                        7  waiting for an approval\n    \
                        8  a budget is reached\n  \
                        130  interrupted")]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Run(RunArgs),
    Exec(ExecArgs),
    Gateway(GatewayArgs),
    Daemon(DaemonArgs),
    #[command(subcommand)]
    Token(TokenCommand),
    Sandbox(Box<SandboxArgs>),
    #[command(subcommand)]
    Approvals(ApprovalsCommand),
    #[command(subcommand)]
    Budget(BudgetCommand),
    #[command(subcommand)]
    Policy(PolicyCommand),
    #[command(subcommand)]
    Secret(SecretCommand),
    #[command(subcommand)]
    Trace(TraceCommand),
    /// List the models whose prices and sizes are known, and which of them can be called
    ///
    /// Prices are for a million tokens. A model that is not listed works all the same; what it costs is then not known. Your own
    /// entries, for other models or other prices, go into models.toml beside the settings file and come before the built-in ones.
    #[command(after_help = "Examples:\n  adjutant models\n  adjutant models sonnet\n  adjutant models --json")]
    Models {
        /// Only those whose name holds this text
        name: Option<String>,
        /// Print them as one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Look whether agents can be confined on this machine
    ///
    /// Builds a sandbox and says what it is made of, what is missing, what follows from that and what to do about it. The
    /// exit code is 4 where sessions cannot run confined, and 2 where policy, vault or git keep them from starting.
    #[command(after_help = "Examples:\n  adjutant doctor\n  adjutant doctor --json")]
    Doctor {
        /// Print it as one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Print a completion script for a shell
    #[command(
        after_help = "Example:\n  adjutant completions bash > ~/.local/share/bash-completion/completions/adjutant"
    )]
    Completions {
        /// The shell to write the script for
        shell: clap_complete::Shell,
    },
}

/// Plan, build in parallel, check and merge one piece of work on a repository
///
/// A planner, a researcher and a builder turn the prompt into a blueprint of specialists. These work side by side, each in
/// a private copy of the repository and in a sandbox. A gate (the repository's test command) judges each result and the
/// merged whole; only then is your branch moved, by one fast-forward. What does not pass stays on branches of its own.
///
/// Ctrl+C lets everybody finish the step they are in and stops; `--resume` goes on from there, also after a crash.
/// Ctrl+C twice stops at once.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  adjutant run --demo\n  adjutant run \"add a --json flag to the list command\"\n  \
                        adjutant run --model anthropic/claude-sonnet-4-5 --gate 'make test' \"fix issue 12\"\n  \
                        adjutant run --resume run_0123456789abcdef"
)]
pub struct RunArgs {
    /// What is to be done; `-` reads it from standard input
    #[arg(required_unless_present_any = ["demo", "resume"], conflicts_with_all = ["demo", "resume"])]
    pub prompt: Option<String>,

    /// Work on an embedded sample project with scripted models: no key, no network
    #[arg(long, conflicts_with_all = ["resume", "gate", "no_gate", "model", "include_dirty", "replay", "fallback"])]
    pub demo: bool,

    /// Go on with a run that was interrupted or died
    #[arg(long, value_name = "RUN", conflicts_with_all = ["dir", "include_dirty", "gate", "no_gate", "gate_timeout",
        "attempts", "agents", "max_specialists", "model", "effort", "approval", "unpriced"])]
    #[arg(conflicts_with_all = CONFINEMENT)]
    pub resume: Option<RunId>,

    /// The repository to work on (default: the one you stand in), or with --demo the new folder to unpack into
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,

    /// Keep the agents' workspaces after the run
    #[arg(long)]
    pub keep: bool,

    /// Start from the uncommitted changes too: they are kept in a snapshot ref and become a commit of their own
    #[arg(long)]
    pub include_dirty: bool,

    /// The command that judges each result and the merged whole (default: found in the repository)
    #[arg(long, value_name = "COMMAND", conflicts_with = "no_gate")]
    pub gate: Option<String>,

    /// Merge without any check
    #[arg(long)]
    pub no_gate: bool,

    /// Longest time for one check, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub gate_timeout: u64,

    /// Turns a specialist gets to pass its check
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=20))]
    pub attempts: u32,

    /// Agents at work at the same time
    #[arg(long, short = 'j', value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub agents: u32,

    /// Specialists a blueprint may have
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub max_specialists: u32,

    #[command(flatten)]
    pub model: ModelArgs,

    /// A model to go on with when the one before it fails; may be repeated (--model route/NAME takes a list out of models.toml)
    #[arg(long, value_name = "VENDOR/NAME")]
    pub fallback: Vec<ModelRef>,

    #[command(flatten)]
    pub confinement: ConfinementArgs,

    #[command(flatten)]
    pub approval: ApprovalArgs,

    #[command(flatten)]
    pub budget: BudgetArgs,

    /// The most that each of its agents may spend; as --budget
    #[arg(long, value_name = "AMOUNT")]
    pub budget_session: Vec<Limit>,

    /// Print each event as one line of JSON, and a report at the end
    #[arg(long)]
    pub json: bool,
}

/// Run one agent on a folder, in the foreground
///
/// Progress goes to standard error, the agent's last message to standard output. Where a person has to be asked and there
/// is no terminal, the exit code is 7; `adjutant approvals` answers, and `--resume` goes on.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  adjutant exec \"why does the build fail?\" --sandbox read-only\n  \
                        adjutant exec \"update the dependencies\" --profile packages --limit memory=4GiB\n  \
                        git diff | adjutant exec - --output-schema review.json --last-message review.out\n  \
                        adjutant exec --resume sesn_0123456789abcdef \"and now the tests\"")]
pub struct ExecArgs {
    /// What is to be done; `-` reads it from standard input
    #[arg(required_unless_present = "resume")]
    pub prompt: Option<String>,

    /// The folder to work in (default: where you stand)
    #[arg(long, short = 'C', value_name = "DIR")]
    pub cd: Option<PathBuf>,

    #[command(flatten)]
    pub model: ModelArgs,

    /// A model to go on with when the one before it fails; may be repeated (--model route/NAME takes a list out of models.toml)
    #[arg(long, value_name = "VENDOR/NAME")]
    pub fallback: Vec<ModelRef>,

    #[command(flatten)]
    pub confinement: ConfinementArgs,

    #[command(flatten)]
    pub approval: ApprovalArgs,

    #[command(flatten)]
    pub budget: BudgetArgs,

    /// A JSON Schema that the last message must fit: one that does not is sent back once, then the exit code is 3
    #[arg(long, value_name = "FILE")]
    pub output_schema: Option<PathBuf>,

    /// Write the last message into this file too
    #[arg(long, value_name = "FILE")]
    pub last_message: Option<PathBuf>,

    /// Go on with an earlier session
    #[arg(long, value_name = "SESSION", conflicts_with_all = ["cd", "model", "effort", "max_steps", "approval", "unpriced"])]
    #[arg(conflicts_with_all = CONFINEMENT)]
    pub resume: Option<SessionId>,

    /// Model requests that one turn may take
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub max_steps: u32,

    /// Print each event as one line of JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Clone, Args)]
pub struct ModelArgs {
    /// The model, as vendor/name: anthropic/…, openai/…, gemini/…, openai-chat/…, scripted/… (default: ADJUTANT_MODEL,
    /// then the settings file, then the vendor whose key is in the environment)
    // Not read by clap, for which a variable of the environment would contradict --resume.
    #[arg(long, short = 'm', value_name = "VENDOR/NAME")]
    pub model: Option<ModelRef>,

    /// Reasoning effort: low, medium, high, or another word the vendor knows
    #[arg(long, short = 'r', value_name = "EFFORT")]
    pub effort: Option<String>,

    /// The playbook, or the cassette, that scripted models play
    #[arg(long, value_name = "FILE", env = "ADJUTANT_PLAYBOOK", hide_env_values = true)]
    pub playbook: Option<PathBuf>,

    #[command(flatten)]
    pub cassette: CassetteArgs,
}

/// Show, export and verify what happened
#[derive(Debug, Subcommand)]
pub enum TraceCommand {
    /// List runs and sessions, newest first
    List {
        /// Runs only, without their sessions
        #[arg(long)]
        runs: bool,
        /// How many to list at most
        #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
        /// Print one JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Show a run with its sessions, or one session, as a timeline
    Show {
        /// A run (run_…) or a session (sesn_…)
        #[arg(value_parser = log_id)]
        id: LogId,
        /// Show everything in full, instead of the first lines
        #[arg(long)]
        full: bool,
        /// Show hashes and sizes in place of what was said
        #[arg(long, conflicts_with = "full")]
        no_text: bool,
        /// Show everything in full, and also each whole prompt as it was sent
        #[arg(long, conflicts_with = "no_text")]
        prompts: bool,
    },
    /// Print a run with its sessions, or one session, as JSON lines
    Export {
        /// A run (run_…) or a session (sesn_…)
        #[arg(value_parser = log_id)]
        id: LogId,
        /// Put hashes and sizes in place of what was said; such an export cannot be verified
        #[arg(long)]
        no_text: bool,
    },
    /// Check that logs are whole and unchanged
    ///
    /// Walks the hash chain of each log, folds it again, looks for each blob that it names, and holds each prompt's hash
    /// against the prompt rebuilt from the log. The exit code is 6 where something is not what was written.
    Verify {
        /// Runs (with their sessions) or sessions; none: everything
        #[arg(value_parser = log_id)]
        ids: Vec<LogId>,
        /// Check an exported file instead
        #[arg(long, value_name = "FILE", conflicts_with = "ids")]
        file: Option<PathBuf>,
        /// Print the findings as JSON
        #[arg(long)]
        json: bool,
    },
}

/// A run or a session, with an error that names both.
fn log_id(text: &str) -> Result<LogId, String> {
    text.parse().map_err(|_| format!("{text:?} is neither a run id (run_…) nor a session id (sesn_…)"))
}
