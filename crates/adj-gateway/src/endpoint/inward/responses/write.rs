//! Neutral events as the stream, or the document, that clients of the Responses API expect.

use crate::endpoint::{
    Refusal, Wire,
    inward::{reasoning, tools::Tools},
};
use adj_domain::{AnswerBlock, EventId, ModelAnswer, ModelRef, StopReason, Usage};
use adj_providers::{ModelEvent, ProviderError};
use serde_json::{Value, json};

/// Writes one answer as events. Texts are shown while they arrive; calls wait for the answer's proper end, because Codex runs a
/// call as soon as its item is done, and nothing of a half answer may be run.
#[derive(Debug)]
pub(in crate::endpoint) struct Writer {
    request: EventId,
    asked_model: String,
    model: ModelRef,
    tools: Tools,
    started: bool,
    events: u64,
    /// Every item that was begun; its place is its index.
    output: Vec<Value>,
    open: Vec<Open>,
    held: Vec<AnswerBlock>,
    holds: bool,
    usage: Usage,
    response: Option<Value>,
}

/// An item that is shown and not done.
#[derive(Debug)]
struct Open {
    index: usize,
    is_text: bool,
    /// The vendor's own number of the block.
    number: u32,
    text: String,
}

impl Writer {
    pub(in crate::endpoint) fn new(request: EventId, asked_model: String, model: ModelRef, tools: Tools) -> Self {
        Self {
            request,
            asked_model,
            model,
            tools,
            started: false,
            events: 0,
            output: Vec::new(),
            open: Vec::new(),
            held: Vec::new(),
            holds: false,
            usage: Usage::default(),
            response: None,
        }
    }

    /// Adds what an event becomes to `out`.
    pub(in crate::endpoint) fn push(&mut self, event: ModelEvent, out: &mut String) -> Result<(), ProviderError> {
        self.start(out);
        match event {
            ModelEvent::Limits(_) | ModelEvent::Started { .. } => {}
            ModelEvent::Usage(usage) => self.usage = usage,
            ModelEvent::TextDelta { index, text } => self.grow(true, index, &text, out),
            ModelEvent::ReasoningDelta { index, text } => self.grow(false, index, &text, out),
            ModelEvent::ToolCallDelta { .. } => self.holds = true,
            ModelEvent::Block(block) => self.block(block, out)?,
            ModelEvent::Finished { stop } => self.finish(&stop, out),
        }
        Ok(())
    }

    /// Ends the stream with an error that every client of the wire takes notice of.
    pub(in crate::endpoint) fn fail(&mut self, refusal: &Refusal, out: &mut String) {
        self.start(out);
        let document = refusal.document(Wire::Responses);
        let code = document["error"]["code"].as_str().unwrap_or("server_error");
        let mut response = self.head("failed");
        response["error"] = json!({"code": code, "message": refusal.message});
        self.emit("response.failed", json!({"response": response}), out);
    }

    /// Writes an answer as one document.
    pub(in crate::endpoint) fn whole(mut self, answer: ModelAnswer) -> Result<Value, ProviderError> {
        let blocks = answer.blocks.into_iter().map(ModelEvent::Block);
        let end = [ModelEvent::Usage(answer.usage), ModelEvent::Finished { stop: answer.stop }];
        for event in blocks.chain(end) {
            self.push(event, &mut String::new())?;
        }
        Ok(self.response.expect("the answer was finished just now"))
    }

    fn bare(&self) -> &str {
        self.request.as_str().trim_start_matches("sevt_")
    }

    fn head(&self, status: &str) -> Value {
        json!({"id": format!("resp_{}", self.bare()), "object": "response", "created_at": 0, "status": status,
            "model": self.asked_model, "output": [], "parallel_tool_calls": true, "tool_choice": "auto", "tools": [],
            "error": null, "incomplete_details": null})
    }

    fn start(&mut self, out: &mut String) {
        if std::mem::replace(&mut self.started, true) {
            return;
        }
        for name in ["response.created", "response.in_progress"] {
            self.emit(name, json!({"response": self.head("in_progress")}), out);
        }
    }

    fn emit(&mut self, name: &str, fields: Value, out: &mut String) {
        let mut event = json!({"type": name, "sequence_number": self.events});
        self.events += 1;
        if let (Value::Object(event), Value::Object(fields)) = (&mut event, fields) {
            event.extend(fields);
        }
        out.push_str(&format!("event: {name}\ndata: {event}\n\n"));
    }

    fn begin(&mut self, prefix: &str) -> (usize, String) {
        let index = self.output.len();
        self.output.push(Value::Null);
        (index, format!("{prefix}_{}_{index}", self.bare()))
    }

    fn item_id(&self, open: &Open) -> String {
        format!("{}_{}_{}", if open.is_text { "msg" } else { "rs" }, self.bare(), open.index)
    }

    fn grow(&mut self, is_text: bool, number: u32, piece: &str, out: &mut String) {
        // From the first call on, only whole blocks count, so that the order stays.
        if self.holds || piece.is_empty() {
            return;
        }
        if !matches!(self.open.last(), Some(open) if open.is_text == is_text && open.number == number) {
            self.show(is_text, number, out);
        }
        let Some(mut open) = self.open.pop() else { return };
        open.text.push_str(piece);
        let id = self.item_id(&open);
        self.delta(&open, &id, piece, out);
        self.open.push(open);
    }

    /// Begins an item whose text is shown while it arrives.
    fn show(&mut self, is_text: bool, number: u32, out: &mut String) {
        let (index, id) = self.begin(if is_text { "msg" } else { "rs" });
        let (item, name, key, part) = if is_text {
            let item =
                json!({"id": id, "type": "message", "role": "assistant", "status": "in_progress", "content": []});
            let part = json!({"type": "output_text", "text": "", "annotations": []});
            (item, "response.content_part.added", "content_index", part)
        } else {
            let item = json!({"id": id, "type": "reasoning", "summary": []});
            let part = json!({"type": "summary_text", "text": ""});
            (item, "response.reasoning_summary_part.added", "summary_index", part)
        };
        self.emit("response.output_item.added", json!({"output_index": index, "item": item}), out);
        self.emit(name, json!({"item_id": id, "output_index": index, key: 0, "part": part}), out);
        self.open.push(Open { index, is_text, number, text: String::new() });
    }

    fn delta(&mut self, open: &Open, id: &str, piece: &str, out: &mut String) {
        if open.is_text {
            let fields =
                json!({"item_id": id, "output_index": open.index, "content_index": 0, "delta": piece, "logprobs": []});
            self.emit("response.output_text.delta", fields, out);
        } else {
            let fields = json!({"item_id": id, "output_index": open.index, "summary_index": 0, "delta": piece});
            self.emit("response.reasoning_summary_text.delta", fields, out);
        }
    }

    fn block(&mut self, block: AnswerBlock, out: &mut String) -> Result<(), ProviderError> {
        let is_text = match &block {
            AnswerBlock::Text { .. } => true,
            AnswerBlock::Reasoning { .. } => false,
            AnswerBlock::ToolCall { .. } => {
                self.holds = true;
                self.held.push(block);
                return Ok(());
            }
        };
        let Some(place) = self.open.iter().position(|open| open.is_text == is_text) else {
            if self.holds {
                self.held.push(block);
            } else {
                self.whole_block(block, out);
            }
            return Ok(());
        };
        let open = self.open.remove(place);
        match block {
            AnswerBlock::Text { text } => {
                let Some(rest) = text.strip_prefix(open.text.as_str()) else {
                    return Err(ProviderError::protocol("the vendor's whole text is not what it sent piece by piece"));
                };
                if !rest.is_empty() {
                    let id = self.item_id(&open);
                    self.delta(&open, &id, rest, out);
                }
                self.close(Open { text, ..open }, None, out);
            }
            AnswerBlock::Reasoning { payload } => self.close(open, Some(&payload), out),
            AnswerBlock::ToolCall { .. } => {}
        }
        Ok(())
    }

    fn close(&mut self, open: Open, payload: Option<&Value>, out: &mut String) {
        let id = self.item_id(&open);
        let Open { index, is_text, text, .. } = open;
        let at = |key: &str| json!({"item_id": id, "output_index": index, key: 0});
        let item = if is_text {
            let part = json!({"type": "output_text", "text": text, "annotations": []});
            let mut done = at("content_index");
            done["text"] = json!(text);
            done["logprobs"] = json!([]);
            self.emit("response.output_text.done", done, out);
            let mut done = at("content_index");
            done["part"] = part.clone();
            self.emit("response.content_part.done", done, out);
            json!({"id": id, "type": "message", "role": "assistant", "status": "completed", "content": [part]})
        } else {
            let part = json!({"type": "summary_text", "text": text});
            let mut done = at("summary_index");
            done["text"] = json!(text);
            self.emit("response.reasoning_summary_text.done", done, out);
            let mut done = at("summary_index");
            done["part"] = part.clone();
            self.emit("response.reasoning_summary_part.done", done, out);
            let sealed = payload.map(|payload| reasoning::wrap(&self.model, payload, false));
            json!({"id": id, "type": "reasoning", "summary": [part], "encrypted_content": sealed})
        };
        self.done(index, item, out);
    }

    fn done(&mut self, index: usize, item: Value, out: &mut String) {
        self.emit("response.output_item.done", json!({"output_index": index, "item": item}), out);
        self.output[index] = item;
    }

    fn whole_block(&mut self, block: AnswerBlock, out: &mut String) {
        match block {
            AnswerBlock::Text { text } => {
                self.show(true, 0, out);
                if let Some(open) = self.open.pop() {
                    let id = self.item_id(&open);
                    self.delta(&open, &id, &text, out);
                    self.close(Open { text, ..open }, None, out);
                }
            }
            AnswerBlock::Reasoning { payload } => {
                let (index, id) = self.begin("rs");
                let begun = json!({"id": id, "type": "reasoning", "summary": []});
                self.emit("response.output_item.added", json!({"output_index": index, "item": begun}), out);
                let sealed = reasoning::wrap(&self.model, &payload, false);
                let item = json!({"id": id, "type": "reasoning", "summary": [], "encrypted_content": sealed});
                self.done(index, item, out);
            }
            AnswerBlock::ToolCall { name, input, .. } => {
                let (index, id) = self.begin(self.tools.prefix(&name));
                let call = EventId::derive(&[self.request.as_str(), &index.to_string()]);
                let call = format!("call_{}", call.as_str().trim_start_matches("sevt_"));
                let (begun, item) = self.tools.item(&id, &call, &name, &input);
                self.emit("response.output_item.added", json!({"output_index": index, "item": begun}), out);
                let (event, key) = match item["type"].as_str() {
                    Some("function_call") => ("response.function_call_arguments", "arguments"),
                    Some("custom_tool_call") => ("response.custom_tool_call_input", "input"),
                    _ => ("", ""),
                };
                if !event.is_empty() {
                    let delta = json!({"item_id": id, "output_index": index, "delta": item[key]});
                    self.emit(&format!("{event}.delta"), delta, out);
                    let done = json!({"item_id": id, "output_index": index, key: item[key]});
                    self.emit(&format!("{event}.done"), done, out);
                }
                self.done(index, item, out);
            }
        }
    }

    fn finish(&mut self, stop: &StopReason, out: &mut String) {
        for open in std::mem::take(&mut self.open) {
            self.close(open, None, out);
        }
        for block in std::mem::take(&mut self.held) {
            self.whole_block(block, out);
        }
        let (name, status, reason) = match stop {
            StopReason::MaxTokens => ("response.incomplete", "incomplete", Some("max_output_tokens")),
            StopReason::Refusal => ("response.incomplete", "incomplete", Some("content_filter")),
            StopReason::EndTurn | StopReason::ToolUse | StopReason::Other(_) => {
                ("response.completed", "completed", None)
            }
        };
        let mut response = self.head(status);
        response["output"] = Value::Array(std::mem::take(&mut self.output));
        if let Some(reason) = reason {
            response["incomplete_details"] = json!({"reason": reason});
        }
        let usage = self.usage;
        response["usage"] = json!({"input_tokens": usage.context_tokens(),
            "input_tokens_details": {"cached_tokens": usage.cache_read_tokens, "cache_write_tokens": usage.written_tokens()},
            "output_tokens": usage.output_tokens, "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
            "total_tokens": usage.total_tokens()});
        self.response = Some(response.clone());
        self.emit(name, json!({"response": response}), out);
    }
}
