//! `adjutant sandbox …`

use super::ConfinementArgs;
use clap::{Args, Subcommand};
use std::{ffi::OsString, path::PathBuf};

/// Run any command in a sandbox
///
/// The command gets the folder, the machine's programs, a private /tmp and home, and nothing else of yours: no file, no
/// process, no variable of the environment, no network unless hosts are allowed. Standard input and output are passed
/// through, and the terminal, its keys and signals reach it. When it ends, so does everything that it started.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(after_help = "Examples:\n  adjutant sandbox -- make test\n  \
                        adjutant sandbox --sandbox read-only -- ./unknown-tool --help\n  \
                        adjutant sandbox --profile packages -- npm install\n  \
                        adjutant sandbox --allow-host api.example.org --log /tmp/egress.jsonl -- ./fetch.sh\n  \
                        adjutant sandbox --limit memory=1GiB --limit wall=10m -- cargo test\n  \
                        adjutant sandbox explain --profile packages\n\n\
                        Exit codes:\n    \
                        N  the command's own; 128+N where a signal ended it\n  \
                        124  it took longer than its limit `wall`\n  \
                        125  it was not run: wrong usage, policy, or no sandbox here\n  \
                        126  it cannot be executed\n  \
                        127  it was not found\n  \
                        137  killed, also for its limits of memory, processes, disk or output\n\n\
                        SIGINT, SIGTERM and SIGHUP are passed on. Ten seconds after SIGTERM or SIGHUP, or with the second\n\
                        one, all that is left is killed.")]
pub struct SandboxArgs {
    #[command(subcommand)]
    pub command: Option<SandboxCommand>,

    #[command(flatten)]
    pub place: SandboxPlace,

    /// Write what is decided about hosts into this file, one JSON object a line
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,

    /// The command, behind two hyphens
    #[arg(last = true, required = true, value_name = "CMD")]
    pub argv: Vec<OsString>,
}

#[derive(Debug, Subcommand)]
pub enum SandboxCommand {
    Explain(ExplainSandboxArgs),
}

/// Say what a command would be allowed, and why; nothing is run
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  adjutant sandbox explain\n  adjutant sandbox explain --profile packages --limit memory=1GiB\n  \
                        adjutant sandbox explain --allow-host api.example.org --json"
)]
pub struct ExplainSandboxArgs {
    #[command(flatten)]
    pub place: SandboxPlace,

    /// Print it as one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Where, and how far.
#[derive(Debug, Clone, Args)]
pub struct SandboxPlace {
    /// The folder to work in (default: where you stand)
    #[arg(long, short = 'C', value_name = "DIR")]
    pub cd: Option<PathBuf>,

    #[command(flatten)]
    pub confinement: ConfinementArgs,
}
