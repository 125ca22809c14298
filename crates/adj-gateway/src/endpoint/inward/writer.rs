//! One answer in the caller's words, whichever they are.

use super::{Inward, messages, responses};
use crate::endpoint::{Refusal, Wire};
use adj_domain::{EventId, ModelAnswer};
use adj_providers::{ModelEvent, ProviderError};
use serde_json::Value;

#[derive(Debug)]
pub(in crate::endpoint) enum Writer {
    Messages(messages::Writer),
    Responses(responses::Writer),
}

impl Writer {
    pub(in crate::endpoint) fn new(wire: Wire, request: &EventId, asked_model: &str, inward: &Inward) -> Self {
        let (request, asked_model, model) = (request.clone(), asked_model.to_owned(), inward.request.model.clone());
        match wire {
            Wire::Responses => {
                Self::Responses(responses::Writer::new(request, asked_model, model, inward.tools.clone()))
            }
            // Of the other wires nothing was read, so nothing is written.
            Wire::Messages | Wire::Chat | Wire::Gemini => {
                Self::Messages(messages::Writer::new(request, asked_model, model))
            }
        }
    }

    /// Adds what an event becomes to `out`.
    pub(in crate::endpoint) fn push(&mut self, event: ModelEvent, out: &mut String) -> Result<(), ProviderError> {
        match self {
            Self::Messages(writer) => writer.push(event, out),
            Self::Responses(writer) => writer.push(event, out),
        }
    }

    /// Says that somebody is still there.
    pub(in crate::endpoint) fn ping(&mut self, out: &mut String) {
        match self {
            Self::Messages(writer) => writer.ping(out),
            Self::Responses(_) => out.push_str(": ping\n\n"),
        }
    }

    /// Ends the stream with an error.
    pub(in crate::endpoint) fn fail(&mut self, refusal: &Refusal, out: &mut String) {
        match self {
            Self::Messages(_) => out.push_str(&refusal.frame(Wire::Messages)),
            Self::Responses(writer) => writer.fail(refusal, out),
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
        if wire != Wire::Responses {
            let model = inward.request.model.clone();
            return messages::whole(request.clone(), asked_model.to_owned(), model, answer);
        }
        let model = inward.request.model.clone();
        let mut writer = responses::Writer::new(request.clone(), asked_model.to_owned(), model, inward.tools.clone());
        let blocks = answer.blocks.into_iter().map(ModelEvent::Block);
        let end = [ModelEvent::Usage(answer.usage), ModelEvent::Finished { stop: answer.stop }];
        let mut out = String::new();
        for event in blocks.chain(end) {
            writer.push(event, &mut out)?;
            out.clear();
        }
        Ok(writer.into_document().expect("the answer was finished just now"))
    }
}
