//! One answer in the caller's words, whichever they are.

use super::{Inward, chat, gemini, messages, responses};
use crate::endpoint::{Refusal, Wire};
use adj_domain::{EventId, ModelAnswer};
use adj_providers::{ModelEvent, ProviderError};
use serde_json::Value;

#[derive(Debug)]
pub(in crate::endpoint) enum Writer {
    Messages(messages::Writer),
    Responses(responses::Writer),
    Chat(chat::Writer),
    Gemini(gemini::Writer),
}

impl Writer {
    pub(in crate::endpoint) fn new(wire: Wire, request: &EventId, asked_model: &str, inward: &Inward) -> Self {
        let (request, asked_model, model) = (request.clone(), asked_model.to_owned(), inward.request.model.clone());
        let (tools, wishes) = (inward.tools.clone(), inward.wishes);
        match wire {
            Wire::Messages => Self::Messages(messages::Writer::new(request, asked_model, model)),
            Wire::Responses => Self::Responses(responses::Writer::new(request, asked_model, model, tools)),
            Wire::Chat => Self::Chat(chat::Writer::new(request, asked_model, model, tools, wishes)),
            Wire::Gemini => Self::Gemini(gemini::Writer::new(request, asked_model, model, tools, wishes)),
        }
    }

    pub(in crate::endpoint) fn content_type(&self) -> &'static str {
        match self {
            Self::Gemini(writer) => writer.content_type(),
            Self::Messages(_) | Self::Responses(_) | Self::Chat(_) => "text/event-stream; charset=utf-8",
        }
    }

    /// Adds what an event becomes to `out`.
    pub(in crate::endpoint) fn push(&mut self, event: ModelEvent, out: &mut String) -> Result<(), ProviderError> {
        match self {
            Self::Messages(writer) => writer.push(event, out),
            Self::Responses(writer) => writer.push(event, out),
            Self::Chat(writer) => writer.push(event, out),
            Self::Gemini(writer) => writer.push(event, out),
        }
    }

    /// Says that somebody is still there.
    pub(in crate::endpoint) fn ping(&mut self, out: &mut String) {
        match self {
            Self::Messages(writer) => writer.ping(out),
            Self::Responses(_) | Self::Chat(_) => out.push_str(": ping\n\n"),
            Self::Gemini(writer) => writer.ping(out),
        }
    }

    /// Ends the stream with an error.
    pub(in crate::endpoint) fn fail(&mut self, refusal: &Refusal, out: &mut String) {
        match self {
            Self::Messages(_) => out.push_str(&refusal.frame(Wire::Messages)),
            Self::Responses(writer) => writer.fail(refusal, out),
            Self::Chat(_) => out.push_str(&refusal.frame(Wire::Chat)),
            Self::Gemini(writer) => writer.fail(refusal, out),
        }
    }

    /// Writes a whole answer as one document.
    pub(in crate::endpoint) fn whole(
        wire: Wire,
        request: &EventId,
        asked_model: &str,
        inward: &Inward,
        answer: ModelAnswer,
    ) -> Result<Value, Refusal> {
        match Self::new(wire, request, asked_model, inward) {
            Self::Messages(_) => {
                messages::whole(request.clone(), asked_model.to_owned(), inward.request.model.clone(), answer)
            }
            Self::Responses(writer) => Ok(writer.whole(answer)?),
            Self::Chat(writer) => Ok(writer.whole(answer)),
            Self::Gemini(writer) => Ok(writer.whole(answer)?),
        }
    }
}
