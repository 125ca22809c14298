//! Neutral events as the stream, or the document, that clients of the Messages API expect.

use crate::endpoint::{Refusal, RefusalKind, inward::reasoning};
use adj_domain::{AnswerBlock, EventId, ModelAnswer, ModelRef, StopReason, Usage};
use adj_providers::{ModelEvent, ProviderError};
use serde_json::{Value, json};
use std::collections::VecDeque;

/// Writes one answer as events. Texts are shown while they arrive; tool calls wait for the answer's proper end, because clients
/// run a call as soon as they have it, and nothing of a half answer may be run.
#[derive(Debug)]
pub(in crate::endpoint) struct Writer {
    names: Names,
    started: bool,
    /// Blocks that were begun on the wire.
    begun: u32,
    open: Option<Shown>,
    /// Shown and closed, but the whole block has not come yet: some vendors send all of them at the end.
    shown: VecDeque<Shown>,
    /// Whole blocks from the first call on.
    held: Vec<AnswerBlock>,
    holds: bool,
    /// Reasoning whose block on the wire was closed before its record came.
    late: Vec<Value>,
    usage: Usage,
}

/// What an answer is called.
#[derive(Debug, Clone)]
struct Names {
    request: EventId,
    /// As the caller wrote it: Claude Code throws away the thinking of a model that it did not ask for.
    asked_model: String,
    model: ModelRef,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Thinking,
}

#[derive(Debug)]
struct Shown {
    kind: Kind,
    /// The vendor's own number of the block.
    number: u32,
    text: String,
}

impl Names {
    fn message(&self) -> String {
        format!("msg_{}", bare(&self.request))
    }

    fn call(&self, number: usize) -> String {
        let id = EventId::derive(&[self.request.as_str(), &number.to_string()]);
        format!("toolu_{}", bare(&id))
    }
}

fn bare(id: &EventId) -> &str {
    id.as_str().trim_start_matches("sevt_")
}

impl Writer {
    pub(in crate::endpoint) fn new(request: EventId, asked_model: String, model: ModelRef) -> Self {
        Self {
            names: Names { request, asked_model, model },
            started: false,
            begun: 0,
            open: None,
            shown: VecDeque::new(),
            held: Vec::new(),
            holds: false,
            late: Vec::new(),
            usage: Usage::default(),
        }
    }

    /// Adds what an event becomes to `out`.
    pub(in crate::endpoint) fn push(&mut self, event: ModelEvent, out: &mut String) -> Result<(), ProviderError> {
        if let ModelEvent::Usage(usage) = &event {
            self.usage = *usage;
        }
        self.start(out);
        match event {
            ModelEvent::Limits(_) | ModelEvent::Started { .. } | ModelEvent::Usage(_) => {}
            ModelEvent::TextDelta { index, text } => self.grow(Kind::Text, index, &text, out),
            ModelEvent::ReasoningDelta { index, text } => self.grow(Kind::Thinking, index, &text, out),
            ModelEvent::ToolCallDelta { .. } => self.holds = true,
            ModelEvent::Block(block) => self.block(block, out)?,
            ModelEvent::Finished { stop } => self.finish(&stop, out),
        }
        Ok(())
    }

    /// Says that somebody is still there.
    pub(in crate::endpoint) fn ping(&mut self, out: &mut String) {
        self.start(out);
        emit(out, json!({"type": "ping"}));
    }

    fn start(&mut self, out: &mut String) {
        if std::mem::replace(&mut self.started, true) {
            return;
        }
        let mut usage = usage_of(&self.usage);
        usage["output_tokens"] = json!(1);
        let message = json!({"id": self.names.message(), "type": "message", "role": "assistant",
            "model": self.names.asked_model, "content": [], "stop_reason": null, "stop_sequence": null, "usage": usage});
        emit(out, json!({"type": "message_start", "message": message}));
        emit(out, json!({"type": "ping"}));
    }

    fn grow(&mut self, kind: Kind, number: u32, piece: &str, out: &mut String) {
        // From the first call on, only whole blocks count, so that the order stays.
        if self.holds || piece.is_empty() {
            return;
        }
        if !matches!(&self.open, Some(open) if open.kind == kind && open.number == number) {
            if let Some(open) = self.open.take() {
                self.end_block(out);
                self.shown.push_back(open);
            }
            let block = match kind {
                Kind::Text => json!({"type": "text", "text": ""}),
                Kind::Thinking => json!({"type": "thinking", "thinking": "", "signature": ""}),
            };
            self.begin_block(block, out);
            self.open = Some(Shown { kind, number, text: String::new() });
        }
        if let Some(open) = &mut self.open {
            open.text.push_str(piece);
        }
        let delta = match kind {
            Kind::Text => json!({"type": "text_delta", "text": piece}),
            Kind::Thinking => json!({"type": "thinking_delta", "thinking": piece}),
        };
        self.delta(delta, out);
    }

    fn block(&mut self, block: AnswerBlock, out: &mut String) -> Result<(), ProviderError> {
        let kind = match &block {
            AnswerBlock::Text { .. } => Kind::Text,
            AnswerBlock::Reasoning { .. } => Kind::Thinking,
            AnswerBlock::ToolCall { .. } => {
                self.holds = true;
                self.held.push(block);
                return Ok(());
            }
        };
        if let Some(place) = self.shown.iter().position(|shown| shown.kind == kind) {
            let shown = self.shown.remove(place).map(|shown| shown.text).unwrap_or_default();
            match block {
                AnswerBlock::Text { text } if text != shown => return Err(contradiction()),
                AnswerBlock::Reasoning { payload } => self.late.push(payload),
                AnswerBlock::Text { .. } | AnswerBlock::ToolCall { .. } => {}
            }
            return Ok(());
        }
        if let Some(open) = self.open.take_if(|open| open.kind == kind) {
            match block {
                AnswerBlock::Text { text } => match text.strip_prefix(open.text.as_str()) {
                    Some("") => {}
                    Some(rest) => self.delta(json!({"type": "text_delta", "text": rest}), out),
                    None => return Err(contradiction()),
                },
                AnswerBlock::Reasoning { payload } => {
                    let signature = reasoning::wrap(&self.names.model, &payload, false);
                    self.delta(json!({"type": "signature_delta", "signature": signature}), out);
                }
                AnswerBlock::ToolCall { .. } => {}
            }
            self.end_block(out);
        } else if self.holds {
            self.held.push(block);
        } else {
            if let Some(open) = self.open.take() {
                self.end_block(out);
                self.shown.push_back(open);
            }
            match block {
                // It waits for calls: Claude Code takes the last block for the answer, and would find none in this.
                AnswerBlock::Reasoning { payload } if self.shown.iter().any(|shown| shown.kind == Kind::Text) => {
                    self.late.push(payload);
                }
                block => self.whole_block(block, 0, out),
            }
        }
        Ok(())
    }

    fn finish(&mut self, stop: &StopReason, out: &mut String) {
        if self.open.take().is_some() {
            self.end_block(out);
        }
        let held = std::mem::take(&mut self.held);
        let calls = held.iter().filter(|block| matches!(block, AnswerBlock::ToolCall { .. })).count();
        if calls > 0 {
            // The vendor will want it back together with the calls.
            for payload in std::mem::take(&mut self.late) {
                self.late_reasoning(&payload, out);
            }
        }
        for (number, block) in held.into_iter().enumerate() {
            self.whole_block(block, number, out);
        }
        let delta = json!({"stop_reason": stop_reason(stop, calls > 0), "stop_sequence": null});
        emit(out, json!({"type": "message_delta", "delta": delta, "usage": usage_of(&self.usage)}));
        emit(out, json!({"type": "message_stop"}));
    }

    /// Writes a record that belongs before a text which is on the wire already.
    fn late_reasoning(&mut self, payload: &Value, out: &mut String) {
        let block = redacted(&self.names.model, payload, true);
        self.begin_block(block, out);
        self.end_block(out);
    }

    fn whole_block(&mut self, block: AnswerBlock, number: usize, out: &mut String) {
        match block {
            AnswerBlock::Text { text } => {
                self.begin_block(json!({"type": "text", "text": ""}), out);
                self.delta(json!({"type": "text_delta", "text": text}), out);
            }
            AnswerBlock::Reasoning { payload } => {
                let block = redacted(&self.names.model, &payload, false);
                self.begin_block(block, out);
            }
            AnswerBlock::ToolCall { name, input, .. } => {
                let id = self.names.call(number);
                self.begin_block(json!({"type": "tool_use", "id": id, "name": name, "input": {}}), out);
                // What is no JSON goes on as it is: clients answer such a call with an error, and do not run it.
                let arguments = input.map_or_else(|raw| raw, |value| value.to_string());
                self.delta(json!({"type": "input_json_delta", "partial_json": arguments}), out);
            }
        }
        self.end_block(out);
    }

    fn begin_block(&mut self, block: Value, out: &mut String) {
        emit(out, json!({"type": "content_block_start", "index": self.begun, "content_block": block}));
        self.begun += 1;
    }

    fn delta(&self, delta: Value, out: &mut String) {
        emit(out, json!({"type": "content_block_delta", "index": self.begun - 1, "delta": delta}));
    }

    fn end_block(&self, out: &mut String) {
        emit(out, json!({"type": "content_block_stop", "index": self.begun - 1}));
    }
}

/// Writes an answer as one document.
pub(in crate::endpoint) fn whole(
    request: EventId,
    asked_model: String,
    model: ModelRef,
    answer: ModelAnswer,
) -> Result<Value, Refusal> {
    let names = Names { request, asked_model, model };
    let mut content = Vec::new();
    let mut called = false;
    for (number, block) in answer.blocks.into_iter().enumerate() {
        content.push(match block {
            AnswerBlock::Text { text } => json!({"type": "text", "text": text}),
            AnswerBlock::Reasoning { payload } => redacted(&names.model, &payload, false),
            AnswerBlock::ToolCall { name, input: Ok(input), .. } => {
                called = true;
                json!({"type": "tool_use", "id": names.call(number), "name": name, "input": input})
            }
            AnswerBlock::ToolCall { name, input: Err(raw), .. } => {
                let start = &raw[..raw.floor_char_boundary(200)];
                let message = format!("the model called the tool {name} with arguments that are not JSON: {start}");
                return Err(Refusal::new(RefusalKind::Upstream, message));
            }
        });
    }
    Ok(json!({"id": names.message(), "type": "message", "role": "assistant", "model": names.asked_model,
        "content": content, "stop_reason": stop_reason(&answer.stop, called), "stop_sequence": null,
        "usage": usage_of(&answer.usage)}))
}

fn redacted(model: &ModelRef, payload: &Value, before_text: bool) -> Value {
    json!({"type": "redacted_thinking", "data": reasoning::wrap(model, payload, before_text)})
}

fn usage_of(usage: &Usage) -> Value {
    json!({"input_tokens": usage.input_tokens, "cache_creation_input_tokens": usage.written_tokens(),
        "cache_read_input_tokens": usage.cache_read_tokens, "output_tokens": usage.output_tokens,
        "output_tokens_details": {"thinking_tokens": usage.reasoning_tokens}})
}

fn stop_reason(stop: &StopReason, called: bool) -> &'static str {
    match stop {
        StopReason::EndTurn | StopReason::ToolUse | StopReason::Other(_) if called => "tool_use",
        StopReason::EndTurn | StopReason::ToolUse | StopReason::Other(_) => "end_turn",
        StopReason::MaxTokens => "max_tokens",
        StopReason::Refusal => "refusal",
    }
}

fn contradiction() -> ProviderError {
    ProviderError::protocol("the vendor's whole text is not what it sent piece by piece")
}

fn emit(out: &mut String, event: Value) {
    let name = event["type"].as_str().unwrap_or_default();
    out.push_str(&format!("event: {name}\ndata: {event}\n\n"));
}
