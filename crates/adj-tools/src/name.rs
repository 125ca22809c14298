//! The tools by name.

use std::fmt;
use std::str::FromStr;

/// A built-in tool; the names are those of the Managed Agents toolset, and `apply_patch`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ToolName {
    Bash,
    Read,
    Write,
    Edit,
    Glob,
    Grep,
    ApplyPatch,
}

impl ToolName {
    pub const ALL: [Self; 7] =
        [Self::Bash, Self::Read, Self::Write, Self::Edit, Self::Glob, Self::Grep, Self::ApplyPatch];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bash => "bash",
            Self::Read => "read",
            Self::Write => "write",
            Self::Edit => "edit",
            Self::Glob => "glob",
            Self::Grep => "grep",
            Self::ApplyPatch => "apply_patch",
        }
    }

    /// Whether a call may be made twice without doing anything twice.
    pub fn is_repeatable(self) -> bool {
        matches!(self, Self::Read | Self::Glob | Self::Grep)
    }
}

/// Whether a call of the tool of this name may be made twice; of an unknown tool it may not.
pub fn is_repeatable(name: &str) -> bool {
    name.parse().is_ok_and(ToolName::is_repeatable)
}

impl fmt::Display for ToolName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no tool called \"{0}\" (there are bash, read, write, edit, glob, grep, apply_patch)")]
pub struct ParseToolNameError(pub String);

impl FromStr for ToolName {
    type Err = ParseToolNameError;
    fn from_str(text: &str) -> Result<Self, ParseToolNameError> {
        // A hostile name may be long; what an error says of it may not.
        Self::ALL
            .into_iter()
            .find(|tool| tool.as_str() == text)
            .ok_or_else(|| ParseToolNameError(text.chars().take(100).collect()))
    }
}
