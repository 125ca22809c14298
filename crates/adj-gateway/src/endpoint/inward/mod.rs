//! From a caller's wire to the neutral form, and from neutral events back to the caller's wire.

mod chat;
mod conversation;
mod encoded;
mod fields;
mod gemini;
mod messages;
#[cfg(test)]
mod random;
mod reasoning;
mod responses;
mod shown;
#[cfg(test)]
mod tests;
mod tools;
mod writer;

pub(super) use reasoning::is_ours as is_sealed;
#[cfg(test)]
pub(super) use reasoning::seal;
pub(super) use writer::Writer;

use self::tools::Tools;
use super::{
    Refusal, Wire,
    body::{self, Body},
    call::{Ask, Streams},
    meter::Operation,
};
use crate::size;
use adj_domain::{AnswerBlock, Content, Item, ModelRef, ModelRequest, SessionId, ToolChoice};
use adj_providers::{EventStream, ModelEvent, ProviderError, WireKind};
use futures_util::{StreamExt, stream};
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
    wishes: Wishes,
}

/// What a caller wants to see of an answer, where its wire leaves a choice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Wishes {
    /// What was used, at the end of a stream.
    usage: bool,
    thoughts: bool,
    /// A stream as one long list.
    as_list: bool,
    /// Nobody asked for thoughts, and clients take the first block for the text. Those that lead to a call are passed on with
    /// it, because the vendor will want them back.
    hides_thoughts: bool,
    /// The vendor cannot be told so: the first call is passed on, and those beside it are not.
    one_call: bool,
}

impl Inward {
    /// Reads a caller's request that this model is to answer.
    pub(super) fn read(ask: &Ask, body: &[u8], model: &ModelRef, session: &SessionId) -> Result<Self, Refusal> {
        let mut inward = match ask.wire {
            Wire::Messages => messages::read(body, model, session),
            Wire::Responses => responses::read(body, model, session),
            Wire::Chat => chat::read(body, model, session),
            Wire::Gemini => gemini::read(body, model, session),
        }?;
        inward.wishes.as_list = ask.in_path.as_ref().is_some_and(|path| path.streams == Streams::List);
        Ok(inward)
    }

    /// Changes what the vendor's own wire has no words for into what it has, and leaves out what is only a matter of taste.
    pub(super) fn fit(&mut self, outward: WireKind) {
        let Self { request, losses, tools: _, wishes } = self;
        if outward == WireKind::Gemini && std::mem::take(&mut request.sampling.single_call) && !request.tools.is_empty()
        {
            wishes.one_call = true;
            losses.note("parallel_tool_calls");
        }
        if matches!(outward, WireKind::OpenAi | WireKind::Chat) {
            let name = request.model.name.as_str();
            let sampling = &mut request.sampling;
            let takes_top_k = outward == WireKind::Chat && generation_of_gpt(name).is_none();
            if !takes_top_k && sampling.top_k.take().is_some() {
                losses.note("top_k");
            }
            let reasons = match request.effort.as_deref() {
                Some("none") => false,
                Some(_) if outward == WireKind::OpenAi => true,
                _ => generation_of_gpt(name).is_some_and(|generation| generation >= 5),
            };
            if reasons && sampling.temperature.take().is_some() {
                losses.note("temperature");
            }
            if reasons && sampling.top_p.take().is_some() {
                losses.note("top_p");
            }
        }
        if outward == WireKind::Anthropic {
            // Its newer models take one of the two; Gemini's clients always send both.
            if request.sampling.temperature.is_some() && request.sampling.top_p.take().is_some() {
                losses.note("top_p");
            }
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

/// Reads a caller's request as it would be asked of this model, in neutral form, with the names of what would be lost.
pub fn understand(
    wire: Wire,
    body: &[u8],
    model: &ModelRef,
    session: &SessionId,
) -> Result<(ModelRequest, Vec<String>), Refusal> {
    let ask = Ask { wire, operation: Operation::Generate, in_path: None };
    let inward = Inward::read(&ask, body, model, session)?;
    Ok((inward.request, inward.losses.list()))
}

/// The generation of one of OpenAI's own models; from 5 on they reason unless they are told not to, as the o-series does.
fn generation_of_gpt(model: &str) -> Option<u32> {
    let name = model.rsplit('/').next().unwrap_or(model);
    let number = |rest: &str| rest.split(|one: char| !one.is_ascii_digit()).next().unwrap_or_default().parse().ok();
    match name.strip_prefix("chatgpt-").or_else(|| name.strip_prefix("gpt-")) {
        Some(rest) => number(rest),
        None => name.strip_prefix('o').and_then(number).map(|_: u32| 5),
    }
}

/// Refuses what only the vendors of the caller's own wire have.
fn only_own(wire: Wire, what: &str) -> Refusal {
    let own = match wire {
        Wire::Messages => "an Anthropic model",
        Wire::Responses => "an OpenAI model",
        Wire::Chat => "a vendor that speaks chat completions",
        Wire::Gemini => "a Gemini model",
    };
    Refusal::invalid(format!("adjutant: {what} needs {own}, and this request goes to another vendor's"))
}

impl Inward {
    /// Leaves out of an answer what its caller is not to get.
    pub(super) fn filtered(&self, events: EventStream) -> EventStream {
        let Wishes { one_call, hides_thoughts, .. } = self.wishes;
        if !one_call && !hides_thoughts {
            return events;
        }
        let mut filter = Filter { one_call, hides_thoughts, first: None, calls: 0, held: Vec::new() };
        events.flat_map(move |event| stream::iter(filter.pass(event))).boxed()
    }
}

struct Filter {
    one_call: bool,
    hides_thoughts: bool,
    /// The number of the first call's block.
    first: Option<u32>,
    calls: usize,
    /// Records of reasoning that only matter together with calls.
    held: Vec<ModelEvent>,
}

impl Filter {
    fn pass(&mut self, event: Result<ModelEvent, ProviderError>) -> Vec<Result<ModelEvent, ProviderError>> {
        match &event {
            Ok(ModelEvent::ToolCallDelta { index, .. })
                if *self.first.get_or_insert(*index) != *index && self.one_call =>
            {
                Vec::new()
            }
            Ok(ModelEvent::Block(AnswerBlock::ToolCall { .. })) => {
                self.calls += 1;
                if self.calls > 1 && self.one_call {
                    return Vec::new();
                }
                std::mem::take(&mut self.held).into_iter().map(Ok).chain([event]).collect()
            }
            Ok(ModelEvent::ReasoningDelta { .. }) if self.hides_thoughts => Vec::new(),
            Ok(ModelEvent::Block(AnswerBlock::Reasoning { .. })) if self.hides_thoughts => {
                self.held.extend(event);
                Vec::new()
            }
            _ => vec![event],
        }
    }
}

/// Answers how many tokens a request has, where nobody can be asked who knows: four bytes are one, more or less.
pub(super) fn estimate(wire: Wire, request: &[u8]) -> Response<Body> {
    let tokens = serde_json::from_slice(request).map_or(request.len().div_ceil(4) as u64, |body| size::of_wire(&body));
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
