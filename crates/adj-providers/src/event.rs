//! The neutral stream: what every vendor's answer becomes while it arrives.

use crate::{HttpProvider, ProviderError, headers::Reading};
use adj_domain::{AnswerBlock, ModelRequest, StopReason, Usage};
use futures_util::stream::BoxStream;
use std::fmt;

/// One step of an answer that is arriving. Deltas are for eyes only; what counts are the whole blocks.
#[derive(Debug, Clone, PartialEq)]
pub enum ModelEvent {
    /// What the head of the answer says of the vendor's limits; vendors that say nothing send none.
    Limits(Vec<Reading>),
    Started {
        model: String,
    },
    TextDelta {
        index: u32,
        text: String,
    },
    ReasoningDelta {
        index: u32,
        text: String,
    },
    /// A piece of a tool call's arguments; the first piece of a call carries its name.
    ToolCallDelta {
        index: u32,
        name: Option<String>,
        arguments: String,
    },
    /// One whole block; each is sent exactly once, in the order of the answer.
    Block(AnswerBlock),
    /// What was used so far; the last one counts.
    Usage(Usage),
    /// The vendor's own end of the answer. Nothing of a stream without it may be used.
    Finished {
        stop: StopReason,
    },
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
