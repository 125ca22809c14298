//! `adjutant policy …`

use super::{ApprovalArgs, ConfinementArgs};
use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Show, check and question what is allowed
///
/// Layers, each of which only narrows what the ones before it permit: the administrator's
/// (/etc/adjutant/requirements.toml), the organisation's (adjutant/policy.toml in the XDG configuration directory), the
/// repository's (.adjutant/policy.toml), and the flags of a call. Each may have files of rules on commands beside it, in a
/// folder rules/.
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:\n  adjutant policy show\n  adjutant policy check .adjutant/policy.toml\n  \
                        adjutant policy explain -- git push origin main\n  adjutant policy explain --host crates.io:443\n  \
                        adjutant policy test")]
pub enum PolicyCommand {
    /// Show what holds here, and who says it in which line
    Show {
        #[command(flatten)]
        place: PlaceArgs,
        /// Print it as one JSON object
        #[arg(long)]
        json: bool,
    },
    Check(CheckArgs),
    Explain(ExplainArgs),
    /// Run the examples that rules carry
    ///
    /// The exit code is 1 where a rule does not do what its examples say.
    Test {
        #[command(flatten)]
        place: PlaceArgs,
    },
}

#[derive(Debug, Clone, Default, Args)]
pub struct PlaceArgs {
    /// The folder whose policy is meant (default: where you stand)
    #[arg(long, short = 'C', value_name = "DIR")]
    pub cd: Option<PathBuf>,
}

/// Check policy files, and note what has no effect
///
/// Without files, everything that holds here. With --rules and a command, what these files of rules say of it, as JSON.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  adjutant policy check\n  adjutant policy check .adjutant/policy.toml rules/team.rules\n  \
                        adjutant policy check --rules team.rules -- git push --force"
)]
pub struct CheckArgs {
    /// Policy files (.toml) and files of rules (.rules)
    #[arg(value_name = "FILE", conflicts_with = "rules")]
    pub files: Vec<PathBuf>,
    #[command(flatten)]
    pub place: PlaceArgs,
    /// Whose file it is (default: what its place says)
    #[arg(long, value_name = "LAYER")]
    pub layer: Option<LayerArg>,
    /// A file of rules to ask about a command; may be repeated
    #[arg(long, value_name = "FILE", requires = "command")]
    pub rules: Vec<PathBuf>,
    /// The command to ask about
    #[arg(last = true, value_name = "COMMAND", requires = "rules")]
    pub command: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LayerArg {
    Administrator,
    Organisation,
    Repository,
}

/// Say what would be decided about a command, a tool or a host, and why
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  adjutant policy explain -- cargo test\n  \
                        adjutant policy explain --approval untrusted -- 'make && git push'\n  \
                        adjutant policy explain --tool write\n  \
                        adjutant policy explain --profile packages --host crates.io")]
pub struct ExplainArgs {
    /// The host to ask about
    #[arg(long, value_name = "HOST[:PORT]", conflicts_with_all = ["tool", "command"])]
    pub host: Option<String>,
    /// The tool to ask about
    #[arg(long, value_name = "TOOL", default_value = "bash")]
    pub tool: String,
    #[command(flatten)]
    pub place: PlaceArgs,
    #[command(flatten)]
    pub confinement: ConfinementArgs,
    #[command(flatten)]
    pub approval: ApprovalArgs,
    /// Print it as one JSON object
    #[arg(long)]
    pub json: bool,
    /// The command to ask about: its words, or one text for the shell
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}
