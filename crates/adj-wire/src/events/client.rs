//! What clients send: read as a batch, of which one bad event refuses all.

use super::block::{self, Block, LoadedFile, Place, contents, read_blocks};
use crate::{
    abilities::Abilities,
    read::{Invalid, Node, Object, cut},
    record::{object, time},
};
use adj_domain::{ApprovalResult, Confirmation, EventId, PendingInput, Timestamp, event::Input};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

pub const MOST_INITIAL_EVENTS: usize = 50;
const MOST_EVENTS: usize = 1_000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientEvent {
    Message {
        content: Vec<Block>,
    },
    /// Without a thread it is for all of them.
    Interrupt {
        thread: Option<String>,
    },
    Confirmation {
        tool_use_id: EventId,
        result: ApprovalResult,
        deny_message: Option<String>,
    },
    CustomToolResult {
        custom_tool_use_id: EventId,
        content: Vec<Block>,
        is_error: bool,
    },
    SystemMessage {
        content: Vec<Block>,
    },
}

impl ClientEvent {
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Message { .. } => "user.message",
            Self::Interrupt { .. } => "user.interrupt",
            Self::Confirmation { .. } => "user.tool_confirmation",
            Self::CustomToolResult { .. } => "user.custom_tool_result",
            Self::SystemMessage { .. } => "system.message",
        }
    }

    /// The call that it answers.
    pub fn answers(&self) -> Option<&EventId> {
        match self {
            Self::Confirmation { tool_use_id: id, .. } | Self::CustomToolResult { custom_tool_use_id: id, .. } => {
                Some(id)
            }
            Self::Message { .. } | Self::Interrupt { .. } | Self::SystemMessage { .. } => None,
        }
    }

    /// The event as it waits in a session's queue. `by` is who sent it; `load` finds the files that it names.
    pub fn input(&self, by: &str, load: impl FnMut(&str) -> Option<LoadedFile>) -> Result<Input, Invalid> {
        Ok(match self {
            Self::Message { content } => Input::Message { content: contents(content, load)?, output_schema: None },
            Self::Interrupt { .. } => Input::Interrupt,
            Self::Confirmation { tool_use_id, result, deny_message } => Input::Confirmation(Confirmation {
                approval_id: tool_use_id.clone(),
                binding: None,
                result: *result,
                deny_message: deny_message.clone(),
                by: by.to_owned(),
            }),
            Self::CustomToolResult { custom_tool_use_id, content, is_error } => Input::CustomToolResult {
                custom_tool_use_id: custom_tool_use_id.clone(),
                content: contents(content, load)?,
                is_error: *is_error,
            },
            Self::SystemMessage { .. } => {
                return Err(Invalid::new("type", "system.message is not supported by this server"));
            }
        })
    }

    /// The event as it was sent, with the id that it got. It is not processed while it waits in a queue.
    pub fn answer(&self, id: &EventId, processed_at: Option<Timestamp>) -> Value {
        let fields = match self {
            Self::Message { content } | Self::SystemMessage { content } => json!({"content": content}),
            Self::Interrupt { thread } => json!({"session_thread_id": thread}),
            Self::Confirmation { tool_use_id, result, deny_message } => {
                confirmation(tool_use_id, *result, deny_message.as_deref())
            }
            Self::CustomToolResult { custom_tool_use_id, content, is_error } => {
                custom_result(custom_tool_use_id, json!(content), *is_error)
            }
        };
        event(self.kind(), id, processed_at, object(fields))
    }
}

/// An event with what all events have.
pub(super) fn event(kind: &str, id: &EventId, processed_at: Option<Timestamp>, fields: Map<String, Value>) -> Value {
    let mut event = object(json!({"id": id, "type": kind, "processed_at": processed_at.map(time)}));
    event.extend(fields);
    Value::Object(event)
}

pub(super) fn confirmation(tool_use_id: &EventId, result: ApprovalResult, deny_message: Option<&str>) -> Value {
    json!({"tool_use_id": tool_use_id, "result": result, "deny_message": deny_message})
}

pub(super) fn custom_result(call: &EventId, content: Value, is_error: bool) -> Value {
    json!({"custom_tool_use_id": call, "content": content, "is_error": is_error})
}

/// An input that waits, as the list of events shows it: without a time.
pub fn queued(input: &PendingInput) -> Value {
    let (kind, fields) = match &input.input {
        Input::Message { content, .. } => ("user.message", json!({"content": block::answers(content)})),
        Input::Confirmation(answer) => {
            ("user.tool_confirmation", confirmation(&answer.approval_id, answer.result, answer.deny_message.as_deref()))
        }
        Input::CustomToolResult { custom_tool_use_id, content, is_error } => {
            ("user.custom_tool_result", custom_result(custom_tool_use_id, block::answers(content), *is_error))
        }
        Input::Interrupt => ("user.interrupt", json!({"session_thread_id": null})),
    };
    event(kind, &input.id, None, object(fields))
}

/// Reads the body of `POST /v1/sessions/{id}/events`.
pub fn send(body: &Value, can: Abilities) -> Result<Vec<ClientEvent>, Invalid> {
    let list = Node::root(body).object()?.need("events")?;
    let nodes = list.list_up_to(MOST_EVENTS)?;
    if nodes.is_empty() {
        return Err(list.wrong("must hold an event"));
    }
    let events = nodes.iter().map(|node| read_event(node, can)).collect::<Result<Vec<_>, _>>()?;
    let mut answered = BTreeSet::new();
    for (index, (event, node)) in events.iter().zip(&nodes).enumerate() {
        if let Some(call) = event.answers()
            && !answered.insert(call)
        {
            return Err(node.wrong(format!("{call} is answered twice")));
        }
        if let ClientEvent::SystemMessage { .. } = event {
            let before = index.checked_sub(1).map(|before| &events[before]);
            let follows_well =
                matches!(before, Some(ClientEvent::Message { .. } | ClientEvent::CustomToolResult { .. }));
            if index + 1 != events.len() || !follows_well {
                return Err(node.wrong("must be the last event, right after a message or a tool's result"));
            }
        }
    }
    Ok(events)
}

pub(crate) fn read_initial_events(list: &Node<'_>, can: Abilities) -> Result<Vec<ClientEvent>, Invalid> {
    let read = |node: &Node<'_>| match read_event(node, can)? {
        event @ ClientEvent::Message { .. } => Ok(event),
        other => Err(node.wrong(format!("a session cannot start with {}", other.kind()))),
    };
    list.list_up_to(MOST_INITIAL_EVENTS)?.iter().map(read).collect()
}

#[derive(Clone, Copy)]
enum Kind {
    Message,
    Interrupt,
    Confirmation,
    CustomToolResult,
    SystemMessage,
    ToolResult,
    DefineOutcome,
}

const KINDS: [(&str, Kind); 7] = [
    ("user.message", Kind::Message),
    ("user.interrupt", Kind::Interrupt),
    ("user.tool_confirmation", Kind::Confirmation),
    ("user.custom_tool_result", Kind::CustomToolResult),
    ("system.message", Kind::SystemMessage),
    ("user.tool_result", Kind::ToolResult),
    ("user.define_outcome", Kind::DefineOutcome),
];

fn read_event(node: &Node<'_>, can: Abilities) -> Result<ClientEvent, Invalid> {
    let fields = node.object()?;
    let kind = fields.need("type")?;
    let word = kind.text()?;
    if ["agent.", "session.", "span.", "workflow_run.", "event_"].iter().any(|start| word.starts_with(start)) {
        return Err(kind.wrong(format!("{:?} is an event of the server's", cut(word))));
    }
    match kind.word(&KINDS)? {
        Kind::ToolResult => Err(node.unsupported("user.tool_result is for self-hosted environments, which are")),
        Kind::DefineOutcome => Err(node.unsupported("outcomes are")),
        Kind::Message => {
            let list = fields.need("content")?;
            let content = read_blocks(&list, Place::Message, can)?;
            if content.is_empty() {
                return Err(list.wrong("must hold a block"));
            }
            Ok(ClientEvent::Message { content })
        }
        Kind::Interrupt => {
            let thread = fields.get("session_thread_id").map(|node| node.text_of(1..=128)).transpose()?;
            Ok(ClientEvent::Interrupt { thread: thread.map(str::to_owned) })
        }
        Kind::Confirmation => {
            let words = [("allow", ApprovalResult::Allow), ("deny", ApprovalResult::Deny)];
            let result = fields.need("result")?.word(&words)?;
            let message = fields.get("deny_message");
            if let Some(message) = message.as_ref().filter(|_| result == ApprovalResult::Allow) {
                return Err(message.wrong("goes only with deny"));
            }
            let deny_message = message.map(|message| message.text_of(0..=10_000)).transpose()?;
            Ok(ClientEvent::Confirmation {
                tool_use_id: read_id(&fields, "tool_use_id")?,
                result,
                deny_message: deny_message.filter(|text| !text.is_empty()).map(str::to_owned),
            })
        }
        Kind::CustomToolResult => {
            let content = fields.get("content").map(|list| read_blocks(&list, Place::Result, can)).transpose()?;
            Ok(ClientEvent::CustomToolResult {
                custom_tool_use_id: read_id(&fields, "custom_tool_use_id")?,
                content: content.unwrap_or_default(),
                is_error: fields.get("is_error").map_or(Ok(false), |node| node.boolean())?,
            })
        }
        Kind::SystemMessage if !can.system_messages => Err(node.unsupported("system.message is")),
        Kind::SystemMessage => {
            let list = fields.need("content")?;
            let content = read_blocks(&list, Place::System, can)?;
            if content.is_empty() {
                return Err(list.wrong("must hold a block"));
            }
            Ok(ClientEvent::SystemMessage { content })
        }
    }
}

fn read_id(fields: &Object<'_>, name: &str) -> Result<EventId, Invalid> {
    let node = fields.need(name)?;
    node.text_of(1..=128)?.parse().map_err(|_| node.wrong("is no event's id (sevt_…)"))
}
