//! The neutral stream: what every vendor's answer becomes while it arrives.

use crate::{HttpProvider, ProviderError, headers::Reading};
use adj_domain::{AnswerBlock, ModelRequest, StopReason, Usage};
use futures_util::stream::BoxStream;
use serde::{Deserialize, Serialize};
use std::fmt;

/// One step of an answer that is arriving. Deltas are for eyes only; what counts are the whole blocks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ModelEvent {
    /// What the head of the answer says of the vendor's limits; vendors that say nothing send none.
    #[serde(rename = "limits")]
    Limits(Vec<Reading>),
    #[serde(rename = "started")]
    Started { model: String },
    #[serde(rename = "text_delta")]
    TextDelta { index: u32, text: String },
    #[serde(rename = "reasoning_delta")]
    ReasoningDelta { index: u32, text: String },
    /// A piece of a tool call's arguments; the first piece of a call carries its name.
    #[serde(rename = "tool_call_delta")]
    ToolCallDelta {
        index: u32,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        arguments: String,
    },
    /// One whole block; each is sent exactly once, in the order of the answer.
    #[serde(rename = "block")]
    Block(AnswerBlock),
    /// What was used so far; the last one counts.
    #[serde(rename = "usage")]
    Usage(Usage),
    /// The vendor's own end of the answer. Nothing of a stream without it may be used.
    #[serde(rename = "finished")]
    Finished { stop: StopReason },
}

pub type EventStream = BoxStream<'static, Result<ModelEvent, ProviderError>>;

/// A vendor, ready to be asked.
pub trait Provider: fmt::Debug + Send + Sync {
    /// Makes one attempt at a request, without any retry; dropping the stream cancels the call.
    ///
    /// `attempt` counts from 1. The stream ends after [`ModelEvent::Finished`] or after its first error.
    fn stream(&self, request: &ModelRequest, attempt: u32) -> EventStream;

    /// The vendor behind it, where requests can also be passed on in the vendor's own words.
    fn http(&self) -> Option<&HttpProvider> {
        None
    }
}
