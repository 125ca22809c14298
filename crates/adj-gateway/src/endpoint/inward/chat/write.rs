//! Neutral events as the stream, or the document, that clients of the chat completions API expect.

use crate::endpoint::inward::{
    Wishes, reasoning,
    shown::Shown,
    tools::{Tools, raw},
};
use adj_domain::{AnswerBlock, EventId, ModelAnswer, ModelRef, StopReason, Usage};
use adj_providers::{ModelEvent, ProviderError};
use serde_json::{Value, json};

/// Writes one answer as chunks. Texts are shown while they arrive; tool calls wait for the answer's proper end, because nothing
/// of a half answer may be run. A message of this wire is one text and then its calls, whatever their order was.
#[derive(Debug)]
pub(in crate::endpoint) struct Writer {
    request: EventId,
    asked_model: String,
    model: ModelRef,
    tools: Tools,
    wishes: Wishes,
    started: bool,
    shown: Shown,
    /// A whole block of text came.
    spoke: bool,
    /// Records of reasoning that are on the wire.
    records: usize,
    calls: Vec<Value>,
    usage: Usage,
}

impl Writer {
    pub(in crate::endpoint) fn new(
        request: EventId,
        asked_model: String,
        model: ModelRef,
        tools: Tools,
        wishes: Wishes,
    ) -> Self {
        Self {
            request,
            asked_model,
            model,
            tools,
            wishes,
            started: false,
            shown: Shown::default(),
            spoke: false,
            records: 0,
            calls: Vec::new(),
            usage: Usage::default(),
        }
    }

    /// Adds what an event becomes to `out`.
    pub(in crate::endpoint) fn push(&mut self, event: ModelEvent, out: &mut String) -> Result<(), ProviderError> {
        if !std::mem::replace(&mut self.started, true) {
            self.delta(json!({"role": "assistant", "content": ""}), out);
        }
        match event {
            ModelEvent::Limits(_) | ModelEvent::Started { .. } | ModelEvent::ToolCallDelta { .. } => {}
            ModelEvent::Usage(usage) => self.usage = usage,
            ModelEvent::TextDelta { text, .. } => {
                self.shown.grow(&text);
                self.text(&text, out);
            }
            ModelEvent::ReasoningDelta { text, .. } => {
                if !text.is_empty() {
                    self.delta(json!({"reasoning_content": text}), out);
                }
            }
            ModelEvent::Block(AnswerBlock::Text { text }) => {
                let rest = self.shown.claim(&text)?;
                self.spoke = true;
                self.text(&rest, out);
            }
            ModelEvent::Block(AnswerBlock::Reasoning { payload }) => {
                let record = self.record(&payload);
                self.delta(json!({"reasoning_details": [record]}), out);
            }
            ModelEvent::Block(AnswerBlock::ToolCall { name, input, .. }) => self.call(&name, &input),
            ModelEvent::Finished { stop } => self.finish(&stop, out),
        }
        Ok(())
    }

    /// Writes an answer as one document.
    pub(in crate::endpoint) fn whole(mut self, answer: ModelAnswer) -> Value {
        let (mut said, mut thought, mut records) = (String::new(), Vec::new(), Vec::new());
        for block in answer.blocks {
            match block {
                AnswerBlock::Text { text } => {
                    self.spoke = true;
                    said.push_str(&text);
                }
                AnswerBlock::Reasoning { payload } => {
                    records.push(self.record(&payload));
                    thought.push(reasoning::words(&payload));
                }
                AnswerBlock::ToolCall { name, input, .. } => self.call(&name, &input),
            }
        }
        let content = if said.is_empty() { Value::Null } else { json!(said) };
        let mut message = json!({"role": "assistant", "content": content, "refusal": null});
        thought.retain(|words| !words.is_empty());
        if !thought.is_empty() {
            message["reasoning_content"] = json!(thought.join("\n\n"));
        }
        if !records.is_empty() {
            message["reasoning_details"] = json!(records);
        }
        let reason = finish_reason(&answer.stop, !self.calls.is_empty());
        if !self.calls.is_empty() {
            message["tool_calls"] = json!(self.calls);
        }
        json!({"id": self.id(), "object": "chat.completion", "created": 0, "model": self.asked_model,
            "choices": [{"index": 0, "message": message, "logprobs": null, "finish_reason": reason}],
            "usage": usage_of(&answer.usage)})
    }

    fn bare(&self) -> &str {
        self.request.as_str().trim_start_matches("sevt_")
    }

    fn id(&self) -> String {
        format!("chatcmpl-{}", self.bare())
    }

    fn chunk(&self, choices: Value, usage: Value, out: &mut String) {
        let mut chunk = json!({"id": self.id(), "object": "chat.completion.chunk", "created": 0,
            "model": self.asked_model, "choices": choices});
        if self.wishes.usage {
            chunk["usage"] = usage;
        }
        out.push_str(&format!("data: {chunk}\n\n"));
    }

    fn delta(&self, delta: Value, out: &mut String) {
        self.chunk(json!([{"index": 0, "delta": delta, "finish_reason": null}]), Value::Null, out);
    }

    fn text(&self, text: &str, out: &mut String) {
        if !text.is_empty() {
            self.delta(json!({"content": text}), out);
        }
    }

    /// Seals a record in the place where clients that know of reasoning keep it, which OpenRouter was the first to have.
    fn record(&mut self, payload: &Value) -> Value {
        let before_call = (self.spoke || !self.calls.is_empty()).then_some(self.calls.len());
        let data = reasoning::wrap_for(&self.model, payload, before_call);
        let record =
            json!({"type": "reasoning.encrypted", "data": data, "format": "adjutant-v1", "index": self.records});
        self.records += 1;
        record
    }

    fn call(&mut self, name: &str, input: &Result<Value, String>) {
        let id = EventId::derive(&[self.request.as_str(), &self.calls.len().to_string()]);
        let id = format!("call_{}", id.as_str().trim_start_matches("sevt_"));
        let called = self.tools.callers_name(name);
        self.calls.push(match self.tools.free_text(name, input) {
            Some(text) => json!({"id": id, "type": "custom", "custom": {"name": called, "input": text}}),
            // What is no JSON goes on as it is: clients answer such a call with an error, and do not run it.
            None => {
                json!({"id": id, "type": "function", "function": {"name": called, "arguments": raw(input)}})
            }
        });
    }

    fn finish(&mut self, stop: &StopReason, out: &mut String) {
        let calls = std::mem::take(&mut self.calls);
        let called = !calls.is_empty();
        for (index, mut call) in calls.into_iter().enumerate() {
            // Clients put the pieces together by the index, and would double what comes twice.
            let (kind, key) = if call["type"] == "custom" { ("custom", "input") } else { ("function", "arguments") };
            let arguments = call[kind][key].take();
            call[kind][key] = json!("");
            call["index"] = json!(index);
            self.delta(json!({"tool_calls": [call]}), out);
            self.delta(json!({"tool_calls": [{"index": index, kind: {key: arguments}}]}), out);
        }
        let reason = finish_reason(stop, called);
        self.chunk(json!([{"index": 0, "delta": {}, "finish_reason": reason}]), Value::Null, out);
        if self.wishes.usage {
            self.chunk(json!([]), usage_of(&self.usage), out);
        }
        out.push_str("data: [DONE]\n\n");
    }
}

fn usage_of(usage: &Usage) -> Value {
    json!({"prompt_tokens": usage.context_tokens(), "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens(),
        "prompt_tokens_details": {"cached_tokens": usage.cache_read_tokens, "cache_write_tokens": usage.written_tokens()},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens}})
}

fn finish_reason(stop: &StopReason, called: bool) -> &'static str {
    match stop {
        StopReason::EndTurn | StopReason::ToolUse | StopReason::Other(_) if called => "tool_calls",
        StopReason::EndTurn | StopReason::ToolUse | StopReason::Other(_) => "stop",
        StopReason::MaxTokens => "length",
        StopReason::Refusal => "content_filter",
    }
}
