//! Rules for commands, in the files that Codex reads: `prefix_rule`, `host_executable`, `network_rule`, with examples that are
//! tested when a file is loaded.
//!
//! Must not know: command lines (only the words of one command), layers, or what follows from a decision.
//! Start at [`RuleSet::load`] and [`RuleSet::judge`].

mod build;
mod evaluate;
mod examples;
mod output;
mod set;
mod shape;
mod source;

pub use output::{CheckOutput, MatchedRule};
pub use set::{Decision, NetworkRule, Rule, RuleMatch, RuleSet};

use std::path::PathBuf;

/// The longest file of rules.
pub const MAX_RULES_BYTES: usize = 1024 * 1024;
/// The most rules in one file.
pub const MAX_RULES: usize = 10_000;

/// Why a file of rules cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}:{line}:{column}: {message}", file.display())]
pub struct RuleError {
    pub file: PathBuf,
    pub line: u32,
    pub column: u32,
    pub message: String,
}

/// What is wrong, and at which byte of the text.
#[derive(Debug)]
struct Fault {
    at: usize,
    message: String,
}

impl Fault {
    fn new(at: usize, message: impl Into<String>) -> Self {
        Self { at, message: message.into() }
    }
}
