//! From a caller's wire to the neutral form, and from neutral events back to the caller's wire.

mod messages;
#[cfg(test)]
mod random;
mod reasoning;
mod responses;
mod writer;

pub(super) use writer::Writer;

use self::responses::Tools;

use super::{
    Refusal, Wire,
    body::{self, Body},
};
use adj_domain::{Content, Item, ModelRef, ModelRequest, SessionId, ToolChoice};
use adj_providers::WireKind;
use hyper::{Response, StatusCode, header::HeaderValue};
use serde_json::json;
use std::collections::BTreeSet;

/// A caller's request in neutral form.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Inward {
    pub(super) request: ModelRequest,
    pub(super) losses: Losses,
    /// What the caller's tools are, where that is more than functions.
    tools: Tools,
}

impl Inward {
    /// Reads a caller's request that this model is to answer.
    pub(super) fn read(wire: Wire, body: &[u8], model: &ModelRef, session: &SessionId) -> Result<Self, Refusal> {
        match wire {
            Wire::Messages => messages::read(body, model, session),
            Wire::Responses => responses::read(body, model, session),
            Wire::Chat | Wire::Gemini => {
                let message = format!(
                    "adjutant: {model} does not speak {wire:?}, and requests of that wire are not converted yet"
                );
                Err(Refusal::invalid(message))
            }
        }
    }

    /// Changes what the vendor's own wire has no words for into what it has, and leaves out what is only a matter of taste.
    pub(super) fn fit(&mut self, outward: WireKind) {
        let Self { request, losses, tools: _ } = self;
        let reasons = request.effort.as_deref().is_some_and(|effort| effort != "none");
        if outward == WireKind::OpenAi {
            let sampling = &mut request.sampling;
            if sampling.top_k.take().is_some() {
                losses.note("top_k");
            }
            if reasons && sampling.temperature.take().is_some() {
                losses.note("temperature");
            }
            if reasons && sampling.top_p.take().is_some() {
                losses.note("top_p");
            }
        }
        if outward == WireKind::Anthropic {
            match request.effort.as_deref() {
                Some("none") => request.effort = None,
                Some("minimal") => request.effort = Some("low".to_owned()),
                // While a model thinks, this vendor does not take a demand for a tool.
                Some(_) if matches!(request.sampling.tool_choice, ToolChoice::Required | ToolChoice::Tool(_)) => {
                    request.effort = None;
                    losses.note("reasoning.effort");
                }
                Some(_) | None => {}
            }
        }
        if matches!(outward, WireKind::OpenAi | WireKind::Chat) {
            for item in &mut request.items {
                if let Item::ToolResult { content, is_error: true, .. } = item {
                    match content.first_mut() {
                        Some(Content::Text { text }) => text.insert_str(0, "Error: "),
                        _ => content.insert(0, Content::text("Error:")),
                    }
                }
            }
        }
    }
}

/// Answers how many tokens a request has, where nobody can be asked who knows: four bytes are one, more or less.
pub(super) fn estimate(wire: Wire, request: &[u8]) -> Response<Body> {
    let tokens = request.len().div_ceil(4);
    let document = match wire {
        Wire::Messages | Wire::Responses | Wire::Chat => json!({"input_tokens": tokens}),
        Wire::Gemini => json!({"totalTokens": tokens}),
    };
    let mut response = body::json(StatusCode::OK, &document);
    response.headers_mut().insert("x-adjutant-estimated", HeaderValue::from_static("true"));
    response
}

/// What the target cannot be told, by the caller's names for it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Losses(BTreeSet<String>);

impl Losses {
    pub(super) fn note(&mut self, what: impl Into<String>) {
        self.0.insert(what.into());
    }

    pub(super) fn list(&self) -> Vec<String> {
        self.0.iter().cloned().collect()
    }
}
