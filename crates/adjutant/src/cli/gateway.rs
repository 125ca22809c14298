//! `adjutant gateway …`

use super::{BudgetArgs, ModelArgs};
use adj_domain::{ModelRef, SessionId};
use clap::Args;
use std::{ffi::OsString, path::PathBuf};

/// Run any agent on any model, and record what it asks for
///
/// The program gets an address on this machine and a token of its own in place of the vendors' keys. Whatever protocol it
/// speaks (Responses, Messages, chat completions, generateContent), its requests go to the vendor that you set up: as they
/// come where the vendor speaks the same, else converted. Each request is an event of a session, with tokens, cost and time:
/// `adjutant trace show` shows them. Codex, Claude Code and Gemini CLI are told where to go; other programs find it in
/// `OPENAI_BASE_URL`, `ANTHROPIC_BASE_URL` and `GOOGLE_GEMINI_BASE_URL`.
///
/// Without a program it serves until Ctrl+C, and prints what a shell has to export. The program runs with your own rights.
#[derive(Debug, Args)]
#[command(
    after_help = "Which model answers: the one of --model, if you name one; else the one that the request names as vendor/name; \
                        else the\nrequest's own, at the vendor whose protocol it speaks; else your default model.\n\n\
                        Examples:\n  adjutant gateway -- claude -p \"why does the build fail?\"\n  \
                        adjutant gateway --model vllm/qwen3 -- codex exec \"fix the tests\"\n  \
                        adjutant gateway --model anthropic/claude-sonnet-4-5 -- gemini -p \"explain main.rs\"\n  \
                        adjutant gateway --port 8080\n\n\
                        Exit codes:\n    \
                        N  the program's own; 128+N where a signal ended it\n  \
                        125  it was not run: wrong usage or settings\n  \
                        126  it cannot be executed\n  \
                        127  it was not found"
)]
pub struct GatewayArgs {
    #[command(flatten)]
    pub model: ModelArgs,

    /// A model to go on with when the one before it fails; may be repeated (--model route/NAME takes a list out of models.toml)
    #[arg(long, value_name = "VENDOR/NAME", requires = "model")]
    pub fallback: Vec<ModelRef>,

    /// Where to listen on the loopback (default: a port that is free)
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,

    /// The folder to work in (default: where you stand)
    #[arg(long, short = 'C', value_name = "DIR")]
    pub cd: Option<PathBuf>,

    /// Record into an earlier session of `adjutant gateway`, as its next turn
    #[arg(long, value_name = "SESSION")]
    pub resume: Option<SessionId>,

    #[command(flatten)]
    pub budget: BudgetArgs,

    /// Say nothing at the end
    #[arg(long, short = 'q')]
    pub quiet: bool,

    /// The program, behind two hyphens
    #[arg(last = true, value_name = "CMD")]
    pub argv: Vec<OsString>,
}
