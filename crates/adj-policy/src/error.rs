//! Why a policy cannot be loaded: each reason names the file, and the place in it.

use crate::rules::RuleError;
use std::{io, path::PathBuf};

/// A policy that cannot be read whole is not used at all: half of it might allow what the other half forbids.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    #[error("{}:{line}:{column}: {message}", file.display())]
    Invalid { file: PathBuf, line: u32, column: u32, message: String },
    #[error(transparent)]
    Rule(#[from] RuleError),
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is a symbolic link; policy is read from plain files and folders only", path.display())]
    Link { path: PathBuf },
    #[error("{} is not a {expected}", path.display())]
    Kind { path: PathBuf, expected: &'static str },
    #[error("{} is larger than {limit} bytes", path.display())]
    TooLarge { path: PathBuf, limit: u64 },
    #[error("{} is not UTF-8 text (at byte {offset})", path.display())]
    NotText { path: PathBuf, offset: usize },
    #[error("{} holds more than {limit} files of rules", path.display())]
    TooManyFiles { path: PathBuf, limit: usize },
    #[error(
        "{} belongs to user {found}, not to user {expected}, so it is not the administrator's (mend it with `chown {expected} {}`)",
        path.display(),
        path.display()
    )]
    Owner { path: PathBuf, found: u32, expected: u32 },
    #[error(
        "{} can be written by others than its owner (mode {mode:04o}; mend it with `chmod go-w {}`)",
        path.display(),
        path.display()
    )]
    Writable { path: PathBuf, mode: u32 },
}
