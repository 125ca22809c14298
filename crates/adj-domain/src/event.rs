//! The envelope of everything that is remembered.

use crate::{
    Timestamp,
    approval::Confirmation,
    budget::BudgetEvent,
    chain::ChainHash,
    content::Content,
    grants::GrantEvent,
    id::{EventId, LogId},
    run_event::RunEvent,
    session_event::SessionEvent,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};

/// The number of an event in its log: 1, 2, 3, without gaps. 0 stands before the first.
pub type Seq = u64;

/// An event that wants a place in a log.
#[derive(Debug, Clone, PartialEq)]
pub struct NewEvent {
    pub id: EventId,
    /// The wire name, such as `agent.tool_use`.
    pub kind: String,
    /// The event's JSON, as it will be stored to the byte.
    pub body: String,
}

/// What a log can hold: each implementation names its kinds in its own serde tags.
pub trait EventBody: Serialize {
    /// Wraps the body for the journal.
    fn into_new(self, id: EventId) -> NewEvent
    where
        Self: Sized,
    {
        let value = serde_json::to_value(&self).expect("an event body is a JSON object with string keys");
        let kind = value.get("type").and_then(Value::as_str).expect("every event body has a type").to_owned();
        NewEvent { id, kind, body: value.to_string() }
    }
}

impl EventBody for SessionEvent {}
impl EventBody for RunEvent {}

/// An event in its place.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Event {
    pub log: LogId,
    pub seq: Seq,
    /// Which holder of the log's lease wrote it.
    pub epoch: u64,
    pub id: EventId,
    pub at: Timestamp,
    #[serde(rename = "type")]
    pub kind: String,
    pub body: Box<RawValue>,
    pub hash: ChainHash,
}

/// Why a stored body cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("event {seq} of {log} ({kind}) cannot be read")]
pub struct BodyError {
    pub log: LogId,
    pub seq: Seq,
    pub kind: String,
    pub source: serde_json::Error,
}

impl Event {
    /// Returns the hash this event must have when `previous` is the hash of the one before.
    pub fn chained_to(&self, previous: ChainHash) -> ChainHash {
        previous.next(
            self.seq,
            self.epoch,
            self.at.as_millisecond(),
            self.id.as_str(),
            &self.kind,
            self.body.get().as_bytes(),
        )
    }

    pub fn session_event(&self) -> Result<SessionEvent, BodyError> {
        self.parse()
    }

    pub fn run_event(&self) -> Result<RunEvent, BodyError> {
        self.parse()
    }

    pub fn grant_event(&self) -> Result<GrantEvent, BodyError> {
        self.parse()
    }

    pub fn budget_event(&self) -> Result<BudgetEvent, BodyError> {
        self.parse()
    }

    fn parse<T: for<'de> Deserialize<'de>>(&self) -> Result<T, BodyError> {
        serde_json::from_str(self.body.get()).map_err(|source| BodyError {
            log: self.log.clone(),
            seq: self.seq,
            kind: self.kind.clone(),
            source,
        })
    }
}

/// An input that waits in a log's queue until a turn takes it up; only then does it get a place in the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PendingInput {
    pub id: EventId,
    pub input: Input,
}

/// What can be queued for a session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum Input {
    #[serde(rename = "user.message")]
    Message {
        content: Vec<Content>,
        /// A JSON Schema that the turn's final answer must fit.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        output_schema: Option<Value>,
    },
    /// The answer to an approval.
    #[serde(rename = "user.confirmation")]
    Confirmation(Confirmation),
    /// What a call came to that its user runs.
    #[serde(rename = "user.custom_tool_result")]
    CustomToolResult { custom_tool_use_id: EventId, content: Vec<Content>, is_error: bool },
    /// The turn shall end: what a model is saying is cut off, and what waits for people is given up.
    #[serde(rename = "user.interrupt")]
    Interrupt,
}
