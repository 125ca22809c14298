//! Whose request this is within its session, as far as the caller's headers tell.

use hyper::HeaderMap;
use serde::Deserialize;

/// What a caller says of itself. It is told, not proven: good for tables, not for decisions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attribution {
    /// The caller's own name for its session.
    pub session: Option<String>,
    /// The thread, or the sub-agent, that asks.
    pub thread: Option<String>,
    pub parent_thread: Option<String>,
    /// What a sub-agent is for: `review`, `collab_spawn`.
    pub subagent: Option<String>,
    /// An agent's place among the others: `/root/builder`.
    pub agent: Option<String>,
    pub turn: Option<String>,
    /// `turn`, `compaction`.
    pub request_kind: Option<String>,
    /// How often the caller itself has tried already.
    pub retries: u32,
}

/// Codex's own account of a request; other fields mean nothing here.
#[derive(Default, Deserialize)]
#[serde(default)]
struct TurnMetadata {
    session_id: Option<String>,
    thread_id: Option<String>,
    agent_name: Option<String>,
    turn_id: Option<String>,
    request_kind: Option<String>,
}

const LONGEST: usize = 200;

impl Attribution {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).and_then(short);
        let metadata = headers.get("x-codex-turn-metadata");
        let metadata = metadata.and_then(|value| serde_json::from_slice::<TurnMetadata>(value.as_bytes()).ok());
        let metadata = metadata.unwrap_or_default();
        let said = |field: &Option<String>| field.as_deref().and_then(short);
        Self {
            session: text("session-id")
                .or_else(|| said(&metadata.session_id))
                .or_else(|| text("x-claude-code-session-id")),
            thread: text("thread-id").or_else(|| said(&metadata.thread_id)).or_else(|| text("x-claude-code-agent-id")),
            parent_thread: text("x-codex-parent-thread-id").or_else(|| text("x-claude-code-parent-agent-id")),
            subagent: text("x-openai-subagent"),
            agent: said(&metadata.agent_name),
            turn: said(&metadata.turn_id),
            request_kind: said(&metadata.request_kind),
            retries: text("x-stainless-retry-count").and_then(|count| count.parse().ok()).unwrap_or(0),
        }
    }
}

/// A name worth keeping: short, and good to be shown.
fn short(text: &str) -> Option<String> {
    let good = (1..=LONGEST).contains(&text.len()) && text.chars().all(|character| !character.is_control());
    good.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(fields: &[(&'static str, &str)]) -> Attribution {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.insert(*name, value.parse().expect("a test's value fits into a header"));
        }
        Attribution::of(&headers)
    }

    #[test]
    fn callers_tell_who_asks_in_their_own_ways() {
        let some = |text: &str| Some(text.to_owned());
        let codex = of(&[
            ("session-id", "s"),
            ("thread-id", "t"),
            ("x-codex-parent-thread-id", "p"),
            ("x-openai-subagent", "review"),
            (
                "x-codex-turn-metadata",
                r#"{"thread_id":"other","agent_name":"/root/a","turn_id":"7","request_kind":"turn","more":[1]}"#,
            ),
        ]);
        let expected = Attribution {
            session: some("s"),
            thread: some("t"),
            parent_thread: some("p"),
            subagent: some("review"),
            agent: some("/root/a"),
            turn: some("7"),
            request_kind: some("turn"),
            retries: 0,
        };
        assert_eq!(codex, expected);
        let claude = of(&[
            ("x-claude-code-session-id", "s"),
            ("x-claude-code-agent-id", "a"),
            ("x-claude-code-parent-agent-id", "p"),
            ("x-stainless-retry-count", "2"),
        ]);
        let expected = Attribution {
            session: some("s"),
            thread: some("a"),
            parent_thread: some("p"),
            retries: 2,
            ..Attribution::default()
        };
        assert_eq!(claude, expected);
        let long = "x".repeat(LONGEST + 1);
        let nonsense = of(&[("session-id", &long), ("thread-id", ""), ("x-codex-turn-metadata", "{not json")]);
        assert_eq!(nonsense, Attribution::default());
    }
}
