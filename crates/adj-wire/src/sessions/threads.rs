//! Threads: the primary one, which every session has, and those of agents that it started.

use super::{
    list::SessionStatus,
    record::{AgentSnapshot, Moment},
};
use crate::record::{Stamp, object};
use adj_domain::SessionId;
use serde_json::{Value, json};

/// One thread of a session.
#[derive(Debug, Clone, PartialEq)]
pub struct Thread<'a> {
    pub session: &'a SessionId,
    /// `None` for the primary thread.
    pub parent: Option<&'a str>,
    pub agent: &'a AgentSnapshot,
    /// Whether it ever ran.
    pub has_started: bool,
}

impl Thread<'_> {
    /// The whole resource; `stamp.id` is the thread's.
    pub fn answer(&self, stamp: &Stamp, at: &Moment<'_>) -> Value {
        let stats = self.has_started.then(|| {
            let mut stats = at.tally.stats(stamp, at.now);
            stats["startup_seconds"] = json!(0.0);
            stats
        });
        let has_rested = self.has_started && (at.tally.active_ms > 0 || at.status != SessionStatus::Running);
        let mut thread = object(json!({
            "id": stamp.id,
            "type": "session_thread",
            "session_id": self.session,
            "parent_thread_id": self.parent,
            "agent": self.agent.answer(),
            "status": at.status.as_str(),
            "stats": stats,
            "usage": has_rested.then(|| at.tally.answer(at.now)),
            "workflow_run_id": null,
        }));
        stamp.add_times(&mut thread);
        Value::Object(thread)
    }
}

/// The primary thread has the session's own letters, so that nobody needs to remember it.
pub fn primary_thread_id(session: &SessionId) -> String {
    let text = session.as_str();
    format!("sthr_{}", text.strip_prefix("sesn_").unwrap_or(text))
}
