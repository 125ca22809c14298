//! Neutral events as the stream, the list, or the document, that clients of the generateContent API expect.

use crate::endpoint::{
    Refusal, Wire,
    inward::{
        Wishes, reasoning,
        shown::Shown,
        tools::{Tools, raw},
    },
};
use adj_domain::{AnswerBlock, EventId, ModelAnswer, ModelRef, StopReason, Usage};
use adj_providers::{ModelEvent, ProviderError};
use serde_json::{Value, json};

/// Writes one answer as chunks. Texts are shown while they arrive; calls wait for the answer's proper end, because nothing of a
/// half answer may be run. Records of reasoning go as the signature of the part that they led to.
#[derive(Debug)]
pub(in crate::endpoint) struct Writer {
    request: EventId,
    asked_model: String,
    model: ModelRef,
    tools: Tools,
    wishes: Wishes,
    /// Whether a list was begun.
    began: bool,
    shown: Shown,
    /// Records that no part bears yet; those that belong before a text which is on the wire already are marked.
    records: Vec<(Value, bool)>,
    /// Whole blocks from the first call on.
    held: Vec<AnswerBlock>,
    holds: bool,
    calls: usize,
    usage: Usage,
}

/// How an answer ends.
struct End {
    reason: &'static str,
    message: Option<String>,
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
            began: false,
            shown: Shown::default(),
            records: Vec::new(),
            held: Vec::new(),
            holds: false,
            calls: 0,
            usage: Usage::default(),
        }
    }

    pub(in crate::endpoint) fn content_type(&self) -> &'static str {
        if self.wishes.as_list { "application/json; charset=utf-8" } else { "text/event-stream; charset=utf-8" }
    }

    /// Adds what an event becomes to `out`.
    pub(in crate::endpoint) fn push(&mut self, event: ModelEvent, out: &mut String) -> Result<(), ProviderError> {
        let mut parts = Vec::new();
        let end = self.take(event, &mut parts)?;
        if end.is_some() || !parts.is_empty() {
            let chunk = self.document(parts, end.as_ref());
            self.emit(&chunk, out);
        }
        if end.is_some() {
            self.close(out);
        }
        Ok(())
    }

    /// Says that somebody is still there. The wire has no word for that, and its clients take no other lines than data, but they
    /// take a chunk in which nothing is said.
    pub(in crate::endpoint) fn ping(&mut self, out: &mut String) {
        let chunk = self.document(Vec::new(), None);
        self.emit(&chunk, out);
    }

    /// Ends the stream with an error.
    pub(in crate::endpoint) fn fail(&mut self, refusal: &Refusal, out: &mut String) {
        self.emit(&refusal.document(Wire::Gemini), out);
        self.close(out);
    }

    /// Writes an answer as one document.
    pub(in crate::endpoint) fn whole(mut self, answer: ModelAnswer) -> Result<Value, ProviderError> {
        let mut parts = Vec::new();
        self.usage = answer.usage;
        for block in answer.blocks {
            if let AnswerBlock::Reasoning { payload } = &block {
                self.thought(reasoning::words(payload), &mut parts);
            }
            self.take(ModelEvent::Block(block), &mut parts)?;
        }
        let end = self.finish(&answer.stop, &mut parts);
        Ok(self.document(parts, Some(&end)))
    }

    fn emit(&mut self, document: &Value, out: &mut String) {
        let began = std::mem::replace(&mut self.began, true);
        if self.wishes.as_list {
            out.push_str(&format!("{}{document}", if began { ",\n" } else { "[" }));
        } else {
            out.push_str(&format!("data: {document}\n\n"));
        }
    }

    fn close(&self, out: &mut String) {
        if self.wishes.as_list {
            out.push_str("]\n");
        }
    }

    fn bare(&self) -> &str {
        self.request.as_str().trim_start_matches("sevt_")
    }

    fn document(&self, parts: Vec<Value>, end: Option<&End>) -> Value {
        let mut candidate = json!({"content": {"role": "model", "parts": parts}, "index": 0});
        let mut document = json!({"modelVersion": self.asked_model, "responseId": self.bare()});
        if let Some(end) = end {
            candidate["finishReason"] = json!(end.reason);
            if let Some(message) = &end.message {
                candidate["finishMessage"] = json!(message);
            }
            document["usageMetadata"] = usage_of(&self.usage);
        }
        document["candidates"] = json!([candidate]);
        document
    }

    /// Adds the parts that an event becomes.
    fn take(&mut self, event: ModelEvent, parts: &mut Vec<Value>) -> Result<Option<End>, ProviderError> {
        match event {
            ModelEvent::Limits(_) | ModelEvent::Started { .. } => {}
            ModelEvent::Usage(usage) => self.usage = usage,
            // From the first call on, only whole blocks count, so that the order stays.
            ModelEvent::TextDelta { .. } | ModelEvent::ReasoningDelta { .. } if self.holds => {}
            ModelEvent::TextDelta { text, .. } => {
                self.shown.grow(&text);
                self.text(text, parts);
            }
            ModelEvent::ReasoningDelta { text, .. } => self.thought(text, parts),
            ModelEvent::ToolCallDelta { .. } => self.holds = true,
            ModelEvent::Block(AnswerBlock::Text { text }) => {
                let rest = self.shown.claim(&text)?;
                match self.holds && !rest.is_empty() {
                    true => self.held.push(AnswerBlock::Text { text: rest }),
                    false => self.text(rest, parts),
                }
            }
            ModelEvent::Block(AnswerBlock::Reasoning { payload }) => {
                let is_late = !self.shown.is_empty();
                // What is before all calls waits for the first of them, or for a text.
                match self.held.is_empty() {
                    true => self.records.push((payload, is_late)),
                    false => self.held.push(AnswerBlock::Reasoning { payload }),
                }
            }
            ModelEvent::Block(block @ AnswerBlock::ToolCall { .. }) => {
                self.holds = true;
                self.held.push(block);
            }
            ModelEvent::Finished { stop } => return Ok(Some(self.finish(&stop, parts))),
        }
        Ok(None)
    }

    fn thought(&self, text: String, parts: &mut Vec<Value>) {
        if self.wishes.thoughts && !text.is_empty() {
            parts.push(json!({"text": text, "thought": true}));
        }
    }

    fn text(&mut self, text: String, parts: &mut Vec<Value>) {
        if text.is_empty() {
            return;
        }
        let part = json!({"text": text});
        // A record that is late belongs to this text's beginning, so it goes with a call, or nowhere.
        let is_late = self.records.iter().any(|(_, is_late)| *is_late);
        parts.push(if is_late { part } else { self.signed(part) });
    }

    /// Lets a part bear the records that led to it.
    fn signed(&mut self, mut part: Value) -> Value {
        if !self.records.is_empty() {
            part["thoughtSignature"] = json!(reasoning::wrap_in_base64(&self.model, &self.records));
            self.records.clear();
        }
        part
    }

    fn finish(&mut self, stop: &StopReason, parts: &mut Vec<Value>) -> End {
        let held = std::mem::take(&mut self.held);
        let unreadable = held.iter().find_map(|block| match block {
            AnswerBlock::ToolCall { name, input, .. } if !matches!(input, Ok(Value::Object(_))) => {
                let written = raw(input);
                Some(format!("{name} was called with {}", &written[..written.floor_char_boundary(200)]))
            }
            _ => None,
        });
        // The wire has no place for arguments that are no object, and nothing of such an answer is to be run.
        if unreadable.is_some() {
            return End { reason: "MALFORMED_FUNCTION_CALL", message: unreadable };
        }
        for block in held {
            match block {
                AnswerBlock::Text { text } => self.text(text, parts),
                AnswerBlock::Reasoning { payload } => self.records.push((payload, false)),
                AnswerBlock::ToolCall { name, input, .. } => {
                    let id = EventId::derive(&[self.request.as_str(), &self.calls.to_string()]);
                    let id = format!("call_{}", id.as_str().trim_start_matches("sevt_"));
                    self.calls += 1;
                    let name = self.tools.callers_name(&name).to_owned();
                    let call = json!({"functionCall": {"id": id, "name": name, "args": input.unwrap_or_default()}});
                    parts.push(self.signed(call));
                }
            }
        }
        let reason = match stop {
            StopReason::EndTurn | StopReason::ToolUse | StopReason::Other(_) => "STOP",
            StopReason::MaxTokens => "MAX_TOKENS",
            StopReason::Refusal => "SAFETY",
        };
        End { reason, message: None }
    }
}

fn usage_of(usage: &Usage) -> Value {
    // This wire counts thoughts apart from the rest of an answer.
    let candidates = usage.output_tokens.saturating_sub(usage.reasoning_tokens);
    json!({"promptTokenCount": usage.context_tokens(), "cachedContentTokenCount": usage.cache_read_tokens,
        "candidatesTokenCount": candidates, "thoughtsTokenCount": usage.output_tokens - candidates,
        "totalTokenCount": usage.total_tokens()})
}
