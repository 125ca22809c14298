//! The chat completions API: OpenAI's older wire, and everybody else's (vLLM, Ollama, llama.cpp, DeepSeek, …).

use super::{Encoded, not_expressible, object_input, own_reasoning};
use crate::{
    Dialect, ModelEvent, ProviderError, StreamDecoder,
    decoder::{Budget, parse, tool_call},
    schema::{Demand, qualifies},
    sse::Frame,
};
use adj_domain::{AnswerBlock, Content, Item, ModelRequest, Sampling, StopReason, ToolChoice, Usage};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// Where vendors of this wire differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// OpenAI's own endpoint, which renamed the bound on the output.
    OpenAi,
    /// Everybody else.
    Compatible,
}

/// Writes a request; the credentials are added where the key is known.
pub fn encode(request: &ModelRequest, variant: Variant) -> Result<Encoded, ProviderError> {
    let mut body = Map::new();
    body.insert("model".to_owned(), json!(request.model.name));
    body.insert("stream".to_owned(), json!(true));
    body.insert("stream_options".to_owned(), json!({"include_usage": true}));
    let bound = match variant {
        Variant::OpenAi => "max_completion_tokens",
        Variant::Compatible => "max_tokens",
    };
    body.insert(bound.to_owned(), json!(request.max_output_tokens));
    if let Some(effort) = &request.effort {
        body.insert("reasoning_effort".to_owned(), json!(effort));
    }
    if let Some(schema) = &request.output_schema {
        let strict = qualifies(schema, Demand::AllRequired);
        body.insert(
            "response_format".to_owned(),
            json!({"type": "json_schema", "json_schema": {"name": "answer", "strict": strict, "schema": schema}}),
        );
    }
    if !request.tools.is_empty() {
        let tools = request.tools.iter().map(|tool| {
            json!({"type": "function", "function": {"name": tool.name, "description": tool.description,
                   "parameters": tool.input_schema}})
        });
        body.insert("tools".to_owned(), tools.collect());
        if request.sampling.single_call {
            body.insert("parallel_tool_calls".to_owned(), json!(false));
        }
    }
    sampling(request, variant, &mut body)?;
    body.insert("messages".to_owned(), Value::Array(messages(request)));
    Ok(Encoded::new("/chat/completions", &Value::Object(body)))
}

fn sampling(request: &ModelRequest, variant: Variant, body: &mut Map<String, Value>) -> Result<(), ProviderError> {
    let Sampling { tool_choice, single_call: _, temperature, top_p, top_k, stop } = &request.sampling;
    match tool_choice {
        ToolChoice::Auto => None,
        ToolChoice::None => Some(json!("none")),
        ToolChoice::Required => Some(json!("required")),
        ToolChoice::Tool(name) => Some(json!({"type": "function", "function": {"name": name}})),
    }
    .and_then(|choice| body.insert("tool_choice".to_owned(), choice));
    if let Some(temperature) = temperature {
        body.insert("temperature".to_owned(), json!(temperature));
    }
    if let Some(top_p) = top_p {
        body.insert("top_p".to_owned(), json!(top_p));
    }
    match (top_k, variant) {
        (None, _) => {}
        (Some(_), Variant::OpenAi) => return Err(not_expressible("top_k", request)),
        (Some(top_k), Variant::Compatible) => {
            body.insert("top_k".to_owned(), json!(top_k));
        }
    }
    if !stop.is_empty() {
        body.insert("stop".to_owned(), json!(stop));
    }
    Ok(())
}

/// An assistant's message that is being put together out of several items.
#[derive(Default)]
struct Draft {
    text: Option<String>,
    reasoning: Option<String>,
    calls: Vec<Value>,
}

impl Draft {
    fn close(&mut self, messages: &mut Vec<Value>) {
        let Draft { text, reasoning, calls } = std::mem::take(self);
        if text.is_none() && calls.is_empty() {
            return;
        }
        let mut message = json!({"role": "assistant", "content": text});
        if let Some(reasoning) = reasoning {
            message["reasoning_content"] = json!(reasoning);
        }
        if !calls.is_empty() {
            message["tool_calls"] = Value::Array(calls);
        }
        messages.push(message);
    }
}

fn messages(request: &ModelRequest) -> Vec<Value> {
    let mut messages = Vec::new();
    if !request.system.trim().is_empty() {
        messages.push(json!({"role": "system", "content": request.system}));
    }
    let mut draft = Draft::default();
    // A tool message holds only text, so what else results hold follows once all of the calls are answered.
    let mut others: Vec<Content> = Vec::new();
    for item in &request.items {
        if !matches!(item, Item::ToolResult { .. }) && !others.is_empty() {
            let held = std::mem::take(&mut others);
            messages.push(json!({"role": "user", "content": parts_of(&held)}));
        }
        match item {
            Item::User { content } => {
                draft.close(&mut messages);
                messages.push(json!({"role": "user", "content": parts_of(content)}));
            }
            Item::Assistant { text } => {
                // Text after calls begins a new message; the calls before it are answered in between.
                if draft.text.is_some() || !draft.calls.is_empty() {
                    draft.close(&mut messages);
                }
                draft.text = Some(text.clone());
            }
            Item::Reasoning { .. } => {
                let text = own_reasoning(item, request).and_then(|payload| payload.get("reasoning_content"));
                if let Some(text) = text.and_then(Value::as_str) {
                    draft.reasoning.get_or_insert_default().push_str(text);
                }
            }
            Item::ToolCall { id, name, input } => draft.calls.push(
                json!({"id": id, "type": "function", "function": {"name": name, "arguments": object_input(input).to_string()}}),
            ),
            Item::ToolResult { call, content, .. } => {
                draft.close(&mut messages);
                others.extend(content.iter().filter(|block| !matches!(block, Content::Text { .. })).cloned());
                let mut text = Content::join_text(content);
                if text.is_empty() && !content.is_empty() {
                    text.push_str("(an image; it follows)");
                }
                messages.push(json!({"role": "tool", "tool_call_id": call, "content": text}));
            }
        }
    }
    draft.close(&mut messages);
    if !others.is_empty() {
        messages.push(json!({"role": "user", "content": parts_of(&others)}));
    }
    messages
}

/// Plain text stays a string, which every vendor understands.
fn parts_of(content: &[Content]) -> Value {
    if content.iter().all(|block| matches!(block, Content::Text { .. })) {
        return json!(Content::join_text(content));
    }
    content
        .iter()
        .map(|block| match block {
            Content::Text { text } => json!({"type": "text", "text": text}),
            Content::Image { media_type, data } => {
                json!({"type": "image_url", "image_url": {"url": format!("data:{media_type};base64,{data}")}})
            }
            Content::ImageUrl { url } => json!({"type": "image_url", "image_url": {"url": url}}),
            Content::Document { media_type, data, name } => json!({"type": "file", "file": {
                "filename": name.as_deref().unwrap_or("document"),
                "file_data": format!("data:{media_type};base64,{data}")
            }}),
        })
        .collect()
}

/// Reads an answer of the chat completions API.
pub type Decoder = StreamDecoder<Chat>;

/// What the chat completions API's chunks mean.
#[derive(Debug, Default)]
pub struct Chat {
    started: bool,
    text: String,
    refusal: String,
    reasoning: String,
    calls: Vec<OpenCall>,
    budget: Budget,
    usage: Usage,
    reason: Option<String>,
}

#[derive(Debug)]
struct OpenCall {
    index: Option<u32>,
    id: String,
    name: String,
    arguments: String,
}

#[derive(Deserialize)]
struct WireChunk {
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    choices: Option<Vec<WireChoice>>,
    #[serde(default)]
    usage: Option<WireUsage>,
    #[serde(default)]
    error: Option<Value>,
}

#[derive(Deserialize)]
struct WireChoice {
    #[serde(default)]
    index: Option<u32>,
    #[serde(default)]
    delta: Option<WireDelta>,
    #[serde(default)]
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct WireDelta {
    #[serde(default)]
    content: Option<String>,
    #[serde(default)]
    refusal: Option<String>,
    #[serde(default)]
    reasoning_content: Option<String>,
    /// What OpenRouter and newer vLLM call the same.
    #[serde(default)]
    reasoning: Option<String>,
    #[serde(default)]
    tool_calls: Option<Vec<WireCall>>,
}

#[derive(Deserialize)]
struct WireCall {
    #[serde(default)]
    index: Option<u32>,
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    function: Option<WireFunction>,
}

#[derive(Default, Deserialize)]
struct WireFunction {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    arguments: Option<String>,
}

#[derive(Default, Deserialize)]
struct WireUsage {
    #[serde(default)]
    prompt_tokens: Option<u64>,
    #[serde(default)]
    completion_tokens: Option<u64>,
    #[serde(default)]
    prompt_tokens_details: Option<WirePromptDetails>,
    #[serde(default)]
    completion_tokens_details: Option<WireCompletionDetails>,
    /// DeepSeek's name for the cached part.
    #[serde(default)]
    prompt_cache_hit_tokens: Option<u64>,
}

#[derive(Default, Deserialize)]
struct WirePromptDetails {
    #[serde(default)]
    cached_tokens: Option<u64>,
}

#[derive(Default, Deserialize)]
struct WireCompletionDetails {
    #[serde(default)]
    reasoning_tokens: Option<u64>,
}

impl WireUsage {
    fn neutral(self) -> Usage {
        let details = self.prompt_tokens_details.unwrap_or_default();
        let cached = details.cached_tokens.or(self.prompt_cache_hit_tokens).unwrap_or(0);
        Usage {
            // The vendor's count holds the cached part too; ours does not.
            input_tokens: self.prompt_tokens.unwrap_or(0).saturating_sub(cached),
            output_tokens: self.completion_tokens.unwrap_or(0),
            cache_read_tokens: cached,
            cache_write_tokens: 0,
            cache_write_1h_tokens: 0,
            reasoning_tokens: self.completion_tokens_details.and_then(|details| details.reasoning_tokens).unwrap_or(0),
        }
    }
}

impl Dialect for Chat {
    fn frame(&mut self, frame: &Frame, events: &mut Vec<ModelEvent>) -> Result<(), ProviderError> {
        if frame.data.trim() == "[DONE]" {
            return self.end(events);
        }
        let chunk: WireChunk = parse(frame)?;
        if chunk.error.as_ref().is_some_and(|error| !error.is_null()) {
            let error = ProviderError::in_document(frame.data.as_bytes());
            return Err(error.unwrap_or_else(|| ProviderError::protocol("the vendor reported an error")));
        }
        if frame.event == "error" {
            return Err(ProviderError::from_words("", &frame.data));
        }
        if !self.started
            && let Some(model) = chunk.model
        {
            self.started = true;
            events.push(ModelEvent::Started { model });
        }
        if let Some(usage) = chunk.usage {
            self.usage = usage.neutral();
        }
        // Only one choice was asked for.
        for choice in chunk.choices.unwrap_or_default() {
            if choice.index.unwrap_or(0) != 0 {
                continue;
            }
            if let Some(delta) = choice.delta {
                self.grow(delta, events)?;
            }
            self.reason = choice.finish_reason.or(self.reason.take());
        }
        Ok(())
    }
}

/// Deltas name their block by these places: reasoning, text, then the calls.
const REASONING_INDEX: u32 = 0;
const TEXT_INDEX: u32 = 1;
const FIRST_CALL_INDEX: u32 = 2;

impl Chat {
    fn grow(&mut self, delta: WireDelta, events: &mut Vec<ModelEvent>) -> Result<(), ProviderError> {
        if let Some(text) = delta.reasoning_content.or(delta.reasoning).filter(|text| !text.is_empty()) {
            self.budget.grow(&mut self.reasoning, &text)?;
            events.push(ModelEvent::ReasoningDelta { index: REASONING_INDEX, text });
        }
        if let Some(text) = delta.content.filter(|text| !text.is_empty()) {
            self.budget.grow(&mut self.text, &text)?;
            events.push(ModelEvent::TextDelta { index: TEXT_INDEX, text });
        }
        if let Some(text) = delta.refusal.filter(|text| !text.is_empty()) {
            self.budget.grow(&mut self.refusal, &text)?;
            events.push(ModelEvent::TextDelta { index: TEXT_INDEX, text });
        }
        for call in delta.tool_calls.unwrap_or_default() {
            self.grow_call(call, events)?;
        }
        Ok(())
    }

    fn grow_call(&mut self, call: WireCall, events: &mut Vec<ModelEvent>) -> Result<(), ProviderError> {
        let function = call.function.unwrap_or_default();
        let id = call.id.filter(|id| !id.is_empty());
        let name = function.name.filter(|name| !name.is_empty());
        // Some vendors number every call 0, or none; then a new id is what tells that a new call begins.
        let goes_on = self.calls.iter().rposition(|open| {
            let same_place = call.index.is_none() || open.index == call.index;
            same_place && id.as_ref().is_none_or(|id| open.id == *id || open.id.is_empty())
        });
        let place = match (goes_on, name) {
            (Some(place), name) => {
                let open = &mut self.calls[place];
                if let Some(id) = id {
                    open.id = id;
                }
                // Some vendors repeat the name in each piece.
                if let Some(name) = name.filter(|_| open.name.is_empty()) {
                    self.budget.grow(&mut open.name, &name)?;
                }
                place
            }
            (None, Some(name)) => {
                self.budget.open_block()?;
                let id = id.unwrap_or_default();
                self.budget.spend(id.len() + name.len())?;
                self.calls.push(OpenCall { index: call.index, id, name, arguments: String::new() });
                self.calls.len() - 1
            }
            (None, None) => return Err(ProviderError::protocol("a tool call began without a name")),
        };
        let is_new = goes_on.is_none();
        let open = &mut self.calls[place];
        let arguments = function.arguments.unwrap_or_default();
        self.budget.grow(&mut open.arguments, &arguments)?;
        events.push(ModelEvent::ToolCallDelta {
            index: FIRST_CALL_INDEX + u32::try_from(place).unwrap_or(u32::MAX - FIRST_CALL_INDEX),
            name: is_new.then(|| open.name.clone()),
            arguments,
        });
        Ok(())
    }

    fn end(&mut self, events: &mut Vec<ModelEvent>) -> Result<(), ProviderError> {
        let Some(reason) = self.reason.take() else {
            return Err(ProviderError::protocol("the answer ended without a finish reason"));
        };
        let mut block = |block| events.push(ModelEvent::Block(block));
        let whole = std::mem::take(self);
        if !whole.reasoning.is_empty() {
            block(AnswerBlock::Reasoning { payload: json!({"reasoning_content": whole.reasoning}) });
        }
        let refused = !whole.refusal.is_empty();
        let text = whole.text + &whole.refusal;
        if !text.is_empty() {
            block(AnswerBlock::Text { text });
        }
        let called = !whole.calls.is_empty();
        for (place, call) in whole.calls.into_iter().enumerate() {
            let id = if call.id.is_empty() { format!("call_{place}") } else { call.id };
            block(tool_call(id, call.name, call.arguments));
        }
        events.push(ModelEvent::Usage(whole.usage));
        let stop = match reason.as_str() {
            "length" => StopReason::MaxTokens,
            "content_filter" => StopReason::Refusal,
            "stop" | "tool_calls" | "function_call" if called => StopReason::ToolUse,
            "stop" if refused => StopReason::Refusal,
            "stop" => StopReason::EndTurn,
            _ => StopReason::Other(reason),
        };
        events.push(ModelEvent::Finished { stop });
        Ok(())
    }
}
