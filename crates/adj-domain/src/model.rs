//! Models: how they are named, what they are asked, what they answer, what it used.

use crate::{
    content::Item,
    id::{RunId, SessionId},
    ledger::Refusal,
    money::Cost,
    purse::Charge,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{fmt, str::FromStr};

/// A model of a vendor, written `vendor/name`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ModelRef {
    pub vendor: String,
    pub name: String,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" does not name a model (expected vendor/name, such as anthropic/claude-sonnet-4-5)")]
pub struct ModelRefError(pub String);

impl FromStr for ModelRef {
    type Err = ModelRefError;
    fn from_str(text: &str) -> Result<Self, ModelRefError> {
        match text.split_once('/') {
            // A model's own name may hold slashes (`openrouter/meta/llama`); the vendor's may not.
            Some((vendor, name)) if is_name(vendor) && is_name(name) && !vendor.contains(':') => {
                Ok(Self { vendor: vendor.to_owned(), name: name.to_owned() })
            }
            _ => Err(ModelRefError(text.to_owned())),
        }
    }
}

fn is_name(text: &str) -> bool {
    (1..=200).contains(&text.len()) && text.chars().all(|c| c.is_ascii_graphic())
}

impl fmt::Display for ModelRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.vendor, self.name)
    }
}

impl From<ModelRef> for String {
    fn from(model: ModelRef) -> Self {
        model.to_string()
    }
}

impl TryFrom<String> for ModelRef {
    type Error = ModelRefError;
    fn try_from(text: String) -> Result<Self, ModelRefError> {
        text.parse()
    }
}

/// Tokens, in parts that do not overlap: `input` excludes what was read from or written to the vendor's cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    pub input_tokens: u64,
    pub output_tokens: u64,
    #[serde(default)]
    pub cache_read_tokens: u64,
    #[serde(default)]
    pub cache_write_tokens: u64,
    /// Written to be kept for an hour, which some vendors price apart.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cache_write_1h_tokens: u64,
    /// The part of `output_tokens` that was reasoning.
    #[serde(default)]
    pub reasoning_tokens: u64,
}

pub(crate) fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Usage {
    pub fn plus(self, other: Usage) -> Usage {
        Usage {
            input_tokens: self.input_tokens.saturating_add(other.input_tokens),
            output_tokens: self.output_tokens.saturating_add(other.output_tokens),
            cache_read_tokens: self.cache_read_tokens.saturating_add(other.cache_read_tokens),
            cache_write_tokens: self.cache_write_tokens.saturating_add(other.cache_write_tokens),
            cache_write_1h_tokens: self.cache_write_1h_tokens.saturating_add(other.cache_write_1h_tokens),
            reasoning_tokens: self.reasoning_tokens.saturating_add(other.reasoning_tokens),
        }
    }

    /// What was used since `earlier`.
    pub fn minus(self, earlier: Usage) -> Usage {
        Usage {
            input_tokens: self.input_tokens.saturating_sub(earlier.input_tokens),
            output_tokens: self.output_tokens.saturating_sub(earlier.output_tokens),
            cache_read_tokens: self.cache_read_tokens.saturating_sub(earlier.cache_read_tokens),
            cache_write_tokens: self.cache_write_tokens.saturating_sub(earlier.cache_write_tokens),
            cache_write_1h_tokens: self.cache_write_1h_tokens.saturating_sub(earlier.cache_write_1h_tokens),
            reasoning_tokens: self.reasoning_tokens.saturating_sub(earlier.reasoning_tokens),
        }
    }

    /// Everything that was written to the vendor's cache, for however long.
    pub fn written_tokens(self) -> u64 {
        self.cache_write_tokens.saturating_add(self.cache_write_1h_tokens)
    }

    /// What the model read afresh.
    pub fn uncached_tokens(self) -> u64 {
        self.context_tokens().saturating_sub(self.cache_read_tokens)
    }

    /// Everything the model read.
    pub fn context_tokens(self) -> u64 {
        let parts = [self.input_tokens, self.cache_read_tokens, self.cache_write_tokens, self.cache_write_1h_tokens];
        parts.into_iter().fold(0, u64::saturating_add)
    }

    pub fn total_tokens(self) -> u64 {
        self.context_tokens().saturating_add(self.output_tokens)
    }
}

/// Why a model stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    EndTurn,
    ToolUse,
    MaxTokens,
    Refusal,
    /// A reason this build does not know, in the vendor's word.
    Other(String),
}

/// A tool as a model is told of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolSpec {
    pub name: String,
    pub description: String,
    pub input_schema: Value,
}

/// What a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// The next step of a turn.
    Step,
    /// A summary that replaces the older part of the conversation.
    Compaction,
}

/// Who asks: for metering, for playbooks, for cache keys. No vendor sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    pub session: SessionId,
    /// The run that the session works for, if any: what a limit leaves is shared out between runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    pub agent: String,
    pub role: String,
    pub turn: u32,
    /// Requests of this turn before this one.
    pub step: u32,
}

/// One request to any vendor's model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelRequest {
    pub model: ModelRef,
    pub purpose: Purpose,
    pub caller: Caller,
    pub system: String,
    pub items: Vec<Item>,
    pub tools: Vec<ToolSpec>,
    pub max_output_tokens: u32,
    /// A JSON Schema the final text must fit; a hint to vendors that support it, checked by us in any case.
    pub output_schema: Option<Value>,
    /// Reasoning effort in the field's words (`low`, `medium`, `high`, …), if asked for.
    pub effort: Option<String>,
    /// What our own loop leaves to the vendor, and other people's agents may set.
    #[serde(default, skip_serializing_if = "Sampling::is_default")]
    pub sampling: Sampling,
}

/// Whether and which tools are to be called.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolChoice {
    /// The model decides.
    #[default]
    Auto,
    None,
    /// At least one, whichever.
    Required,
    /// This one.
    Tool(String),
}

/// How an answer is drawn; every default is the vendor's own.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sampling {
    pub tool_choice: ToolChoice,
    /// At most one tool call in the answer.
    pub single_call: bool,
    pub temperature: Option<f64>,
    pub top_p: Option<f64>,
    pub top_k: Option<u32>,
    /// Texts at which the answer ends.
    pub stop: Vec<String>,
}

impl Sampling {
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// One whole block of a model's answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum AnswerBlock {
    Text {
        text: String,
    },
    Reasoning {
        payload: Value,
    },
    /// A call whose input was not JSON arrives with `input` = `Err` of the raw text, and is answered, never run.
    ToolCall {
        vendor_call_id: String,
        name: String,
        input: Result<Value, String>,
    },
}

/// A whole answer: it exists only when the vendor's stream came to its proper end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelAnswer {
    pub model: String,
    pub blocks: Vec<AnswerBlock>,
    pub stop: StopReason,
    pub usage: Usage,
    /// `None` where nobody knows the model's price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<Cost>,
    pub attempts: u32,
    pub first_token_ms: Option<u64>,
    pub latency_ms: u64,
    /// How much of the latency was spent in the gateway's queue, because of some limit.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub queued_ms: u64,
    /// What each hold came to that was opened for it, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub charges: Vec<Charge>,
    /// The model that answered, where that is another than was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered_by: Option<ModelRef>,
    /// How the request went from one model to another.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub moved: Vec<Moved>,
}

/// A request went on to another model, because the one before failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    pub from: ModelRef,
    pub to: ModelRef,
    pub why: FailureKind,
    /// What could not be taken along, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lost: Vec<String>,
}

/// What kind of failure a model call ended with, after all retries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The vendor cannot be reached, or the connection broke.
    Connection,
    Timeout,
    Authentication,
    Billing,
    RateLimit,
    Overloaded,
    /// The vendor refused the request as it is.
    InvalidRequest,
    /// The conversation does not fit the model's window.
    ContextTooLong,
    /// The vendor's answer was not what its protocol says, or it was cut.
    Protocol,
    /// Any other failure on the vendor's side.
    Server,
    Cancelled,
    /// A budget did not let it go on.
    Budget,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct ModelFailure {
    pub kind: FailureKind,
    /// In the vendor's own words where there are any.
    pub message: String,
    pub status: Option<u16>,
    pub retry_after_ms: Option<u64>,
    pub attempts: u32,
    pub latency_ms: u64,
    /// How much of the latency was spent in the gateway's queue, because of some limit.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub queued_ms: u64,
    /// What each hold came to that was opened for it, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub charges: Vec<Charge>,
    /// The budget that did not let it be tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Refusal>,
    /// How the request went from one model to another, before the last one failed too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub moved: Vec<Moved>,
}
