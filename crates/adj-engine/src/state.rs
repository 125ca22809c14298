//! What a session is doing, in the words that lists show and that recovery looks for.

use adj_domain::{Session, SessionEvent, Status};
use adj_store::LogState;
use serde_json::json;

/// What the log of `session` says of itself from these events on; `session` is folded with them. `None`: nothing else than before.
pub(crate) fn state_after<'e>(
    session: &Session,
    events: impl IntoIterator<Item = &'e SessionEvent>,
) -> Option<LogState> {
    let changes = |event: &SessionEvent| {
        matches!(
            event,
            SessionEvent::Created { .. } | SessionEvent::StatusRunning { .. } | SessionEvent::StatusIdle { .. }
        )
    };
    events.into_iter().any(changes).then(|| state_of(session))
}

fn state_of(session: &Session) -> LogState {
    let (word, stop_reason) = match &session.status {
        Status::Running => (LogState::RUNNING, None),
        Status::Idle { reason } => ("idle", reason.as_ref()),
    };
    let summary = json!({
        "turn": session.turn,
        "stop_reason": stop_reason,
        "usage": session.usage,
        "model_requests": session.model_requests,
        "tool_calls": session.tool_calls,
    });
    LogState { word: word.to_owned(), summary: summary.to_string() }
}
