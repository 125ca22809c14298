//! Events that the server itself makes, about a session or about threads of it.

use super::{block, client::event};
use crate::record::object;
use adj_domain::{Content, EventId, IdleReason, Timestamp};
use serde_json::{Map, Value, json};

#[derive(Debug, Clone, PartialEq)]
pub enum Announcement {
    /// With the fields that changed.
    Updated {
        changed: Map<String, Value>,
    },
    Rescheduled,
    Terminated,
    /// The last one of a stream.
    Deleted,
    ThreadCreated {
        thread: String,
        agent_name: String,
    },
    Thread {
        thread: String,
        agent_name: String,
        status: ThreadStatus,
    },
    /// To a thread; the thread that got it says `received`.
    MessageSent {
        to: String,
        to_agent_name: Option<String>,
        content: Vec<Content>,
    },
    MessageReceived {
        from: String,
        from_agent_name: Option<String>,
        content: Vec<Content>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ThreadStatus {
    Running,
    Idle { reason: IdleReason },
    Rescheduled,
    Terminated,
}

impl Announcement {
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Updated { .. } => "session.updated",
            Self::Rescheduled => "session.status_rescheduled",
            Self::Terminated => "session.status_terminated",
            Self::Deleted => "session.deleted",
            Self::ThreadCreated { .. } => "session.thread_created",
            Self::Thread { status: ThreadStatus::Running, .. } => "session.thread_status_running",
            Self::Thread { status: ThreadStatus::Idle { .. }, .. } => "session.thread_status_idle",
            Self::Thread { status: ThreadStatus::Rescheduled, .. } => "session.thread_status_rescheduled",
            Self::Thread { status: ThreadStatus::Terminated, .. } => "session.thread_status_terminated",
            Self::MessageSent { .. } => "agent.thread_message_sent",
            Self::MessageReceived { .. } => "agent.thread_message_received",
        }
    }

    pub fn answer(&self, id: &EventId, at: Timestamp) -> Value {
        let fields = match self {
            Self::Updated { changed } => changed.clone(),
            Self::Rescheduled | Self::Terminated | Self::Deleted => Map::new(),
            Self::ThreadCreated { thread, agent_name } => {
                let fields = json!({"session_thread_id": thread, "agent_name": agent_name, "workflow_run_id": null});
                object(fields)
            }
            Self::Thread { thread, agent_name, status } => {
                let mut fields = object(json!({"session_thread_id": thread, "agent_name": agent_name}));
                if let ThreadStatus::Idle { reason } = status {
                    let (reason, details) = super::stop::stop(reason);
                    fields.insert("stop_reason".to_owned(), reason);
                    fields.insert("stop_details".to_owned(), details);
                }
                fields
            }
            Self::MessageSent { to, to_agent_name, content } => object(json!({
                "to_session_thread_id": to,
                "to_agent_name": to_agent_name,
                "content": block::answers(content),
            })),
            Self::MessageReceived { from, from_agent_name, content } => object(json!({
                "from_session_thread_id": from,
                "from_agent_name": from_agent_name,
                "content": block::answers(content),
            })),
        };
        event(self.kind(), id, Some(at), fields)
    }
}
