//! Words for what went wrong: what failed, why, and what to do about it; one exit code for each kind.

use crate::words::harmless;
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
    /// A person is asked, and nobody is there.
    Waiting = 7,
    /// A budget lets nothing more be sent.
    BudgetReached = 8,
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

    /// Wrong usage or settings, for which another error is the cause.
    pub fn unusable(cause: impl Error + Send + Sync + 'static, what: impl fmt::Display) -> Self {
        Self { code: Code::Usage, error: anyhow::Error::new(cause).context(what.to_string()), hint: None }
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
            let cause = cause.to_string().trim_end().to_owned();
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
        // Vendors, agents and repositories speak in errors too.
        harmless(&text)
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
    adj_engine::CommandError,
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

/// Whether no sandbox could be built. Transparent wrappers stand for what they hold, and hide it from the chain.
fn is_setup(cause: &(dyn Error + 'static)) -> bool {
    cause.is::<adj_sandbox::SetupError>()
        || matches!(cause.downcast_ref(), Some(adj_sandbox::OpenError::Setup(_)))
        || matches!(cause.downcast_ref(), Some(adj_sandbox::RunError::Setup(_)))
}

/// Whether the journal could not do its work.
fn is_journal(cause: &(dyn Error + 'static)) -> bool {
    cause.is::<adj_store::StoreError>()
        || cause.is::<adj_store::OpenError>()
        || matches!(cause.downcast_ref(), Some(adj_store::AppendError::Store(_)))
        || matches!(cause.downcast_ref(), Some(adj_store::ClaimError::Store(_)))
        || matches!(cause.downcast_ref(), Some(adj_engine::EngineError::Store(_)))
        || matches!(cause.downcast_ref(), Some(adj_squad::SquadError::Store(_)))
        || matches!(cause.downcast_ref(), Some(adj_squad::SquadError::Engine(adj_engine::EngineError::Store(_))))
}

fn classify_one(cause: &(dyn Error + 'static)) -> Option<(Code, Option<String>)> {
    if is_setup(cause) {
        let hint = "the error names what is missing; `--sandbox danger-full-access` runs commands without a sandbox, with \
                    your own rights";
        return Some((Code::NoSandbox, Some(hint.to_owned())));
    }
    if let Some(adj_store::ClaimError::Held { pid, .. }) = cause.downcast_ref() {
        let hint = format!("process {pid} is working on it; wait for it, or stop it with `kill {pid}`");
        return Some((Code::Usage, Some(hint)));
    }
    let command = cause.downcast_ref().and_then(|error| match error {
        adj_engine::CommandError::Guard(error) => Some(error),
        _ => None,
    });
    let guard = command.or_else(|| match cause.downcast_ref() {
        Some(adj_engine::EngineError::Guard(error)) => Some(error),
        _ => None,
    });
    if let Some(error) = guard {
        let hint = match error {
            adj_engine::GuardError::Forbidden { .. } => "`adjutant policy show` says what holds here and who says so",
            _ => "nothing starts under a policy that cannot be read; `adjutant policy check` looks at every file",
        };
        return Some((Code::Usage, Some(hint.to_owned())));
    }
    if cause.is::<adj_engine::ConfinementError>() {
        return Some((Code::Usage, None));
    }
    if cause.is::<adj_engine::AnswerError>() || matches!(cause.downcast_ref(), Some(adj_engine::EngineError::Answer(_)))
    {
        return Some((Code::Usage, Some("`adjutant approvals list` shows what waits for an answer".to_owned())));
    }
    if let Some(adj_engine::EngineError::NoSession(_)) = cause.downcast_ref() {
        return Some((Code::Usage, Some("`adjutant trace list` shows what there is".to_owned())));
    }
    if let Some(adj_engine::EngineError::IsHosted(id)) = cause.downcast_ref() {
        let hint = format!("`adjutant gateway --resume {id} -- CMD` lets a program go on in it");
        return Some((Code::Usage, Some(hint)));
    }
    if let Some(adj_engine::EngineError::NotHosted(id)) = cause.downcast_ref() {
        return Some((Code::Usage, Some(format!("`adjutant exec --resume {id}` goes on with it"))));
    }
    if let Some(adj_squad::SquadError::NoRun(_)) = cause.downcast_ref() {
        return Some((Code::Usage, Some("`adjutant trace list --runs` shows what there is".to_owned())));
    }
    if let Some(adj_store::StoreError::UnknownLog { .. }) = cause.downcast_ref() {
        return Some((Code::Usage, Some("`adjutant trace list` shows what there is".to_owned())));
    }
    if let Some(error) = cause.downcast_ref() {
        return Some((Code::Journal, Some(open_hint(error).to_owned())));
    }
    if is_journal(cause) {
        return Some((Code::Journal, Some(KEPT.to_owned())));
    }
    if let Some(adj_sandbox::OpenError::Plan(_) | adj_sandbox::OpenError::OtherPlan { .. }) = cause.downcast_ref() {
        return Some((Code::Usage, None));
    }
    if let Some(adj_sandbox::RunError::Plan(_)) = cause.downcast_ref() {
        return Some((Code::Usage, None));
    }
    if let Some(adj_workspace::DirtySnapshotError::Conflicted { .. }) = cause.downcast_ref() {
        return Some((Code::Usage, Some("finish the merge that is under way, or abort it".to_owned())));
    }
    if let Some(error) = cause.downcast_ref() {
        return Some((Code::Usage, repository_hint(error).map(str::to_owned)));
    }
    None
}

const KEPT: &str = "nothing that was acknowledged is lost; another place for the state is chosen with ADJUTANT_HOME";

fn open_hint(error: &adj_store::OpenError) -> &'static str {
    use adj_store::OpenError;
    match error {
        OpenError::TooNew { .. } => {
            "a newer adjutant has written it: use that one, or choose another place for the state with ADJUTANT_HOME"
        }
        OpenError::TooOld { .. } => "the next `adjutant run` or `adjutant exec` brings it up to date",
        OpenError::OpenToOthers { .. } => {
            "take the rights of others away with `chmod go-rwx`, or choose another place for the state with ADJUTANT_HOME"
        }
        OpenError::Missing { .. }
        | OpenError::NotADirectory { .. }
        | OpenError::WrongOwner { .. }
        | OpenError::NotOurs { .. } => "choose another place for the state with ADJUTANT_HOME",
        OpenError::Store(_) => KEPT,
    }
}

/// Where the error itself does not say what to do.
fn repository_hint(error: &adj_workspace::OpenRepositoryError) -> Option<&'static str> {
    use adj_workspace::OpenRepositoryError as Unusable;
    match error {
        Unusable::Folder { .. } | Unusable::NotARepository { .. } | Unusable::NoWorkTree { .. } => {
            Some("stand in a git repository, or name one with --dir")
        }
        Unusable::NoCommit { .. } => Some("make a first commit: git add --all && git commit"),
        Unusable::Partial { .. } => Some("work in a full clone"),
        Unusable::ForeignOwner { .. }
        | Unusable::Shallow { .. }
        | Unusable::NotUtf8 { .. }
        | Unusable::Alternates { .. }
        | Unusable::Git { .. } => None,
    }
}
