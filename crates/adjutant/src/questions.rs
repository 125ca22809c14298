//! Questions that wait for people: found in the journal, put into words.
//!
//! Must not know: terminals, or how an answer gets back.

use crate::{
    board,
    failure::{Failure, Result},
    wiring,
    words::{harmless, one_line},
};
use adj_domain::{
    Approval, ApprovalSubject, Event, EventId, IdleReason, LogId, Ruling, Session, SessionEvent, SessionId, Timestamp,
    WorkspaceSpec, event::Input,
};
use adj_store::{LogFilter, LogKind, Store};
use serde_json::{Value, json};

/// One open question, with everything that an answer should know.
#[derive(Debug, Clone)]
pub struct Question {
    pub session: SessionId,
    pub id: EventId,
    pub agent: String,
    pub about: About,
    /// Why a person is asked.
    pub why: Option<Ruling>,
    /// Why it is asked again.
    pub again: Option<String>,
    /// The folder or repository that is worked on.
    pub repository: String,
    pub asked_at: Timestamp,
    pub expires_at: Timestamp,
    /// The process that works on the session now, and so takes the answer up by itself.
    pub process: Option<u32>,
    /// Who has answered, where the session has not gone on since.
    pub answered_by: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum About {
    Tool { name: String, input: Value },
    Host { host: String, port: u16 },
}

/// Longest part of a call that is put before a person; one that is longer says so.
const LONGEST_SHOWN: usize = 8_000;

impl About {
    /// In one line.
    pub fn short(&self) -> String {
        match self {
            Self::Tool { name, input } => board::call(name, input),
            Self::Host { host, port } => one_line(&format!("reach {host}:{port}"), 100),
        }
    }

    /// The whole of it, without anything that steers a terminal.
    pub fn full(&self) -> String {
        let text = match self {
            Self::Tool { name, input } if name == "bash" => {
                let script = input.get("command").and_then(Value::as_str);
                let others = input.as_object().map(|keys| keys.len() > 1).unwrap_or(true);
                match script {
                    Some(script) if !others => script.to_owned(),
                    _ => serde_json::to_string_pretty(input).unwrap_or_default(),
                }
            }
            Self::Tool { input, .. } => serde_json::to_string_pretty(input).unwrap_or_default(),
            Self::Host { host, port } => format!("{host}:{port}"),
        };
        let shown: String = text.chars().take(LONGEST_SHOWN).collect();
        let left_out = text.chars().count() - shown.chars().count();
        let shown = visible(&shown);
        if left_out > 0 { format!("{shown}\n… and {left_out} characters more") } else { shown }
    }

    fn json(&self) -> Value {
        match self {
            Self::Tool { name, input } => json!({"type": "tool", "tool": name, "input": input}),
            Self::Host { host, port } => json!({"type": "host", "host": host, "port": port}),
        }
    }
}

/// Like [`harmless`], and nothing that looks like something else: marks that turn the direction of text, or have no width.
fn visible(text: &str) -> String {
    let is_hidden = |c: char| matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}');
    harmless(text).chars().map(|c| if is_hidden(c) { '\u{fffd}' } else { c }).collect()
}

impl Question {
    /// The open questions of a session, in the order in which they were asked.
    pub fn of(session: &Session, events: &[Event], process: Option<u32>) -> Vec<Self> {
        let repository = match &session.spec.workspace {
            WorkspaceSpec::Direct { path } => path.clone(),
            WorkspaceSpec::Private { repository, .. } => repository.clone(),
        };
        let question = |open: &Approval| {
            let (mut asked_at, mut again, mut why) = (Timestamp::UNIX_EPOCH, None, None);
            for event in events {
                match event.session_event() {
                    Ok(SessionEvent::ApprovalRequested { subject, again: said, .. })
                        if id_of(&subject, &event.id) == open.id =>
                    {
                        (asked_at, again) = (event.at, said);
                    }
                    Ok(SessionEvent::PolicyDecided { tool_use_id, ruling }) if tool_use_id == open.id => {
                        why = Some(ruling);
                    }
                    _ => {}
                }
            }
            let about = match &open.subject {
                ApprovalSubject::Tool { tool_use_id, .. } => {
                    let call = session.calls.iter().find(|call| call.id == *tool_use_id)?;
                    About::Tool { name: call.name.clone(), input: call.input.clone() }
                }
                ApprovalSubject::Host { to } => About::Host { host: to.host.clone(), port: to.port },
            };
            Some(Self {
                session: session.id.clone(),
                id: open.id.clone(),
                agent: session.spec.agent.name.clone(),
                about,
                why,
                again,
                repository: repository.clone(),
                asked_at,
                expires_at: open.expires_at,
                process,
                answered_by: None,
            })
        };
        session.approvals.iter().filter_map(question).collect()
    }

    pub fn json(&self) -> Value {
        json!({
            "id": self.id,
            "session": self.session,
            "agent": self.agent,
            "about": self.about.json(),
            "why": self.why,
            "again": self.again,
            "repository": self.repository,
            "asked_at": self.asked_at,
            "expires_at": self.expires_at,
            "process": self.process,
            "answered_by": self.answered_by,
        })
    }
}

fn id_of(subject: &ApprovalSubject, event: &EventId) -> EventId {
    match subject {
        ApprovalSubject::Tool { tool_use_id, .. } => tool_use_id.clone(),
        ApprovalSubject::Host { .. } => event.clone(),
    }
}

/// Finds every question that is open now, the oldest first.
pub async fn open(store: &dyn Store) -> Result<Vec<Question>> {
    let mut found = Vec::new();
    let mut before = None;
    loop {
        let filter = LogFilter { kind: Some(LogKind::Session), before: before.take(), ..LogFilter::default() };
        let page = store.logs(&filter).await?;
        let Some(last) = page.last() else { break };
        before = Some(last.log.clone());
        for summary in page {
            let process = summary.holder.as_ref().filter(|holder| holder.alive).map(|holder| holder.pid);
            let LogId::Session(id) = &summary.log else { continue };
            // One at rest says in its last event whether it waits; only one at work may ask for a host besides.
            if process.is_none() && !rests_on_people(store, &summary.log, summary.head).await? {
                continue;
            }
            found.extend(of_session(store, id, process).await?);
        }
    }
    found.sort_by_key(|question| (question.asked_at, question.id.to_string()));
    Ok(found)
}

async fn rests_on_people(store: &dyn Store, log: &LogId, head: u64) -> Result<bool> {
    let last = store.read(log, head.saturating_sub(1), 1).await?;
    let last = last.first().and_then(|event| event.session_event().ok());
    let waits = |event: &SessionEvent| {
        matches!(event, SessionEvent::StatusIdle { stop_reason: IdleReason::RequiresAction { .. } })
            // A refused answer changes nothing.
            || matches!(event, SessionEvent::AnswerRefused { .. })
    };
    Ok(last.as_ref().is_some_and(waits))
}

/// The open questions of one session.
pub async fn of_session(store: &dyn Store, id: &SessionId, process: Option<u32>) -> Result<Vec<Question>> {
    let events = wiring::read_events(store, &id.clone().into()).await?;
    let mut bodies = Vec::new();
    for event in &events {
        bodies.push((event.id.clone(), event.session_event().map_err(anyhow::Error::new)?));
    }
    let session = Session::replay(id, bodies).map_err(anyhow::Error::new)?;
    let mut questions = session.map(|session| Question::of(&session, &events, process)).unwrap_or_default();
    if !questions.is_empty() {
        for input in store.pending(&id.clone().into()).await? {
            let Input::Confirmation(answer) = input.input else { continue };
            if let Some(question) = questions.iter_mut().find(|question| question.id == answer.approval_id) {
                question.answered_by.get_or_insert(answer.by);
            }
        }
    }
    Ok(questions)
}

/// The one thing whose id begins like this.
pub fn by_prefix<'t, T>(all: &'t [T], prefix: &str, id: impl Fn(&T) -> String, what: &str) -> Result<Option<&'t T>> {
    let is_meant = |item: &&T| {
        let id = id(item);
        let short = id.strip_prefix("sevt_").unwrap_or(&id);
        id.starts_with(prefix) || short.starts_with(prefix)
    };
    if prefix.is_empty() || prefix == "sevt_" {
        return Err(Failure::usage(format!("which {what}? the id is empty")));
    }
    let found: Vec<&T> = all.iter().filter(is_meant).collect();
    match found.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(one)),
        several => {
            let ids: Vec<String> = several.iter().take(5).map(|item| id(item)).collect();
            Err(Failure::usage(format!("{} {what}s begin with {prefix}: {}", several.len(), ids.join(", ")))
                .hint("write more of the id"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_person_is_shown_is_what_will_run() {
        let bash = |input: Value| About::Tool { name: "bash".to_owned(), input }.full();
        assert_eq!(bash(json!({"command": "a\u{1b}[2Kb\r\u{202e}c\n"})), "a\u{fffd}[2Kb\u{fffd}\u{fffd}c\n");
        // Nothing beside the command is left out.
        assert!(bash(json!({"command": "a", "timeout_ms": 5})).contains("timeout_ms"));
        let long = bash(json!({"command": "x".repeat(LONGEST_SHOWN + 7)}));
        assert!(long.ends_with("… and 7 characters more"), "{}", long.len());
    }

    #[test]
    fn an_id_may_be_written_in_short() {
        let all = ["sevt_abc", "sevt_abd", "sevt_x"];
        let find =
            |prefix: &str| by_prefix(&all, prefix, |id| (*id).to_owned(), "question").map(|found| found.copied());
        assert_eq!(find("sevt_abc").ok(), Some(Some("sevt_abc")));
        assert_eq!(find("x").ok(), Some(Some("sevt_x")));
        assert_eq!(find("y").ok(), Some(None));
        for unclear in ["sevt_ab", "ab", "sevt_", ""] {
            assert!(find(unclear).is_err(), "{unclear:?}");
        }
    }
}
