//! Words for what went wrong: what failed, why, and what to do about it; one exit code for each kind.

use std::{error::Error, fmt, process::ExitCode};

/// The exit codes, as the help documents them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    WorkFailed = 1,
    Usage = 2,
    OutputInvalid = 3,
    NoSandbox = 4,
    Journal = 5,
    TraceBroken = 6,
    Interrupted = 130,
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        ExitCode::from(code as u8)
    }
}

/// An error on its way to a person.
#[derive(Debug)]
pub struct Failure {
    pub code: Code,
    pub error: anyhow::Error,
    pub hint: Option<String>,
}

pub type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    pub fn new(code: Code, error: impl fmt::Display + fmt::Debug + Send + Sync + 'static) -> Self {
        Self { code, error: anyhow::Error::msg(error), hint: None }
    }

    pub fn usage(error: impl fmt::Display + fmt::Debug + Send + Sync + 'static) -> Self {
        Self::new(Code::Usage, error)
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The text for a terminal: what failed, its causes, a hint.
    pub fn render(&self) -> String {
        let mut text = format!("error: {}\n", self.error);
        let mut causes: Vec<String> = Vec::new();
        for cause in self.error.chain().skip(1) {
            let cause = cause.to_string();
            // Transparent wrappers say the same again.
            if causes.last() != Some(&cause) && cause != self.error.to_string() {
                causes.push(cause);
            }
        }
        if !causes.is_empty() {
            text.push_str("Caused by:\n");
            for cause in causes {
                text.push_str(&format!("  {}\n", cause.replace('\n', "\n  ")));
            }
        }
        if let Some(hint) = &self.hint {
            text.push_str(&format!("Hint: {hint}\n"));
        }
        text
    }
}

/// Finds code and hint by what lies at the root.
impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        let (code, hint) = classify(&error);
        Self { code, error, hint }
    }
}

macro_rules! from_error {
    ($($kind:ty),* $(,)?) => { $(
        impl From<$kind> for Failure {
            fn from(error: $kind) -> Self {
                anyhow::Error::new(error).into()
            }
        }
    )* };
}

from_error!(
    std::io::Error,
    adj_engine::EngineError,
    adj_squad::SquadError,
    adj_store::StoreError,
    adj_store::OpenError,
    adj_workspace::OpenRepositoryError,
    adj_workspace::OpenWorkspacesError,
    adj_workspace::GitError,
    adj_workspace::DirtySnapshotError,
);

fn classify(error: &anyhow::Error) -> (Code, Option<String>) {
    for cause in error.chain() {
        if let Some(found) = classify_one(cause) {
            return found;
        }
    }
    (Code::WorkFailed, None)
}

fn classify_one(cause: &(dyn Error + 'static)) -> Option<(Code, Option<String>)> {
    if cause.downcast_ref::<adj_sandbox::SetupError>().is_some() {
        let hint = "the error names what is missing; `--sandbox danger-full-access` runs commands without a sandbox, with \
                    your own rights";
        return Some((Code::NoSandbox, Some(hint.to_owned())));
    }
    if let Some(adj_store::ClaimError::Held { pid, .. }) = cause.downcast_ref() {
        let hint = format!("process {pid} is working on it; wait for it, or stop it with `kill {pid}`");
        return Some((Code::Usage, Some(hint)));
    }
    if let Some(adj_engine::EngineError::NoSession(_)) = cause.downcast_ref() {
        return Some((Code::Usage, Some("`adjutant trace list` shows what there is".to_owned())));
    }
    if let Some(adj_squad::SquadError::NoRun(_)) = cause.downcast_ref() {
        return Some((Code::Usage, Some("`adjutant trace list --runs` shows what there is".to_owned())));
    }
    if let Some(adj_store::StoreError::UnknownLog { .. }) = cause.downcast_ref() {
        return Some((Code::Usage, Some("`adjutant trace list` shows what there is".to_owned())));
    }
    if cause.downcast_ref::<adj_store::StoreError>().is_some() || cause.downcast_ref::<adj_store::OpenError>().is_some()
    {
        let hint = "nothing that was acknowledged is lost; another place for the state is chosen with ADJUTANT_HOME";
        return Some((Code::Journal, Some(hint.to_owned())));
    }
    if cause.downcast_ref::<adj_workspace::OpenRepositoryError>().is_some() {
        let hint = "stand in a git repository with at least one commit, or name one with --dir";
        return Some((Code::Usage, Some(hint.to_owned())));
    }
    None
}
