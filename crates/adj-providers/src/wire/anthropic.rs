//! Anthropic's Messages API.
//!
//! Cached prefix: tools, then system, then messages. Breakpoints stand on the last tool, on the system block, and on the
//! last two user messages: the newest one writes the cache, the one before it is where the previous request wrote it.

use super::{Encoded, is_loose_reasoning, not_expressible, object_input, own_reasoning, plain_text, schema_in_words};
use crate::{
    Dialect, ModelEvent, ProviderError, StreamDecoder,
    decoder::{Budget, parse, tool_call},
    schema::{Demand, qualifies},
    sse::Frame,
};
use adj_domain::{AnswerBlock, Content, Item, ModelRequest, Sampling, StopReason, ToolChoice, Usage};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

pub const VERSION: &str = "2023-06-01";

/// Writes a request; the credentials are added where the key is known.
pub fn encode(request: &ModelRequest) -> Result<Encoded, ProviderError> {
    let messages = messages(request)?;
    let mut body = Map::new();
    body.insert("model".to_owned(), json!(request.model.name));
    body.insert("max_tokens".to_owned(), json!(request.max_output_tokens));
    body.insert("stream".to_owned(), json!(true));
    let thinking = thinking(request, &messages);
    sampling(request, thinking.is_some(), &mut body)?;
    if let Some(thinking) = thinking {
        body.insert("thinking".to_owned(), thinking);
    }
    let native_schema = request
        .output_schema
        .as_ref()
        .filter(|schema| is_recent(&request.model.name) && qualifies(schema, Demand::Closed));
    let mut output = Map::new();
    if let Some(effort) = request.effort.as_ref().filter(|_| is_adaptive(&request.model.name)) {
        output.insert("effort".to_owned(), json!(effort));
    }
    if let Some(schema) = native_schema {
        output.insert("format".to_owned(), json!({"type": "json_schema", "schema": schema}));
    }
    if !output.is_empty() {
        body.insert("output_config".to_owned(), Value::Object(output));
    }
    let mut system = request.system.clone();
    if let (Some(schema), None) = (&request.output_schema, native_schema) {
        system.push_str(&schema_in_words(schema));
    }
    if !system.trim().is_empty() {
        body.insert(
            "system".to_owned(),
            json!([{"type": "text", "text": system.trim_start(), "cache_control": cache()}]),
        );
    }
    if !request.tools.is_empty() {
        let mut tools = request
            .tools
            .iter()
            .map(|tool| json!({"name": tool.name, "description": tool.description, "input_schema": tool.input_schema}))
            .collect::<Vec<_>>();
        if let Some(last) = tools.last_mut() {
            last["cache_control"] = cache();
        }
        body.insert("tools".to_owned(), Value::Array(tools));
    }
    body.insert("messages".to_owned(), Value::Array(messages));
    let mut encoded = Encoded::new("/v1/messages", &Value::Object(body));
    encoded.headers.push(("anthropic-version", VERSION.to_owned()));
    Ok(encoded)
}

/// While a model thinks, the API takes neither a temperature nor a demand for a tool.
fn sampling(request: &ModelRequest, thinks: bool, body: &mut Map<String, Value>) -> Result<(), ProviderError> {
    let Sampling { tool_choice, single_call, temperature, top_p, top_k, stop } = &request.sampling;
    let choice = match tool_choice {
        ToolChoice::Auto => json!({"type": "auto"}),
        ToolChoice::None => json!({"type": "none"}),
        ToolChoice::Required | ToolChoice::Tool(_) if thinks => {
            return Err(not_expressible("a demand for a tool call together with reasoning", request));
        }
        ToolChoice::Required => json!({"type": "any"}),
        ToolChoice::Tool(name) => json!({"type": "tool", "name": name}),
    };
    if !request.tools.is_empty() && (*tool_choice != ToolChoice::Auto || *single_call) {
        let mut choice = choice;
        if *single_call && *tool_choice != ToolChoice::None {
            choice["disable_parallel_tool_use"] = json!(true);
        }
        body.insert("tool_choice".to_owned(), choice);
    }
    if let Some(temperature) = temperature.filter(|_| !thinks) {
        // This wire's scale ends where others only begin to be bold.
        body.insert("temperature".to_owned(), json!(temperature.min(1.0)));
    }
    if let Some(top_p) = top_p {
        body.insert("top_p".to_owned(), json!(top_p));
    }
    if let Some(top_k) = top_k.filter(|_| !thinks) {
        body.insert("top_k".to_owned(), json!(top_k));
    }
    if !stop.is_empty() {
        body.insert("stop_sequences".to_owned(), json!(stop));
    }
    Ok(())
}

fn cache() -> Value {
    json!({"type": "ephemeral"})
}

fn messages(request: &ModelRequest) -> Result<Vec<Value>, ProviderError> {
    // Consecutive blocks of one role become one message, because roles must alternate.
    let mut messages: Vec<(&str, Vec<Value>)> = Vec::new();
    for (place, item) in request.items.iter().enumerate() {
        let (role, blocks) = match item {
            Item::Reasoning { .. } if is_loose_reasoning(&request.items, place) => continue,
            Item::User { content } => ("user", blocks_of(content)?),
            Item::Assistant { text } => ("assistant", text_block(text).into_iter().collect()),
            Item::Reasoning { .. } => ("assistant", own_reasoning(item, request).cloned().into_iter().collect()),
            Item::ToolCall { id, name, input } => {
                let input = object_input(input);
                ("assistant", vec![json!({"type": "tool_use", "id": id, "name": name, "input": input})])
            }
            Item::ToolResult { call, content, is_error } => {
                let mut block = json!({"type": "tool_result", "tool_use_id": call});
                let mut content = blocks_of(content)?;
                if *is_error {
                    // The API takes an error only in words, and not without any.
                    content.retain(|block| block["type"] == "text");
                    if content.is_empty() {
                        content.push(json!({"type": "text", "text": "(no output)"}));
                    }
                }
                if !content.is_empty() {
                    block["content"] = Value::Array(content);
                }
                if *is_error {
                    block["is_error"] = json!(true);
                }
                ("user", vec![block])
            }
        };
        if blocks.is_empty() {
            continue;
        }
        match messages.last_mut() {
            Some((last, held)) if *last == role => held.extend(blocks),
            _ => messages.push((role, blocks)),
        }
    }
    for (_, blocks) in messages.iter_mut().filter(|(role, _)| *role == "user") {
        // Results must stand before any text of the message that answers a call; the sort keeps the order otherwise.
        blocks.sort_by_key(|block| block["type"] != "tool_result");
    }
    let users = messages.iter_mut().rev().filter(|(role, _)| *role == "user");
    for (_, blocks) in users.take(2) {
        if let Some(last) = blocks.last_mut() {
            last["cache_control"] = cache();
        }
    }
    if messages.is_empty() {
        messages.push(("user", vec![json!({"type": "text", "text": "(nothing was said)"})]));
    }
    Ok(messages.into_iter().map(|(role, content)| json!({"role": role, "content": content})).collect())
}

/// The API refuses blocks that are blank.
fn text_block(text: &str) -> Option<Value> {
    (!text.trim().is_empty()).then(|| json!({"type": "text", "text": text}))
}

fn blocks_of(content: &[Content]) -> Result<Vec<Value>, ProviderError> {
    let mut blocks = Vec::new();
    for block in content {
        blocks.extend(match block {
            Content::Text { text } => text_block(text),
            Content::Image { media_type, data } => {
                Some(json!({"type": "image", "source": {"type": "base64", "media_type": media_type, "data": data}}))
            }
            Content::ImageUrl { url } => Some(json!({"type": "image", "source": {"type": "url", "url": url}})),
            Content::Document { media_type, data, name } => {
                let source = match media_type.as_str() {
                    // Plain text travels as it is.
                    "text/plain" => json!({"type": "text", "media_type": media_type, "data": plain_text(data)?}),
                    _ => json!({"type": "base64", "media_type": media_type, "data": data}),
                };
                let mut block = json!({"type": "document", "source": source});
                if let Some(name) = name {
                    block["title"] = json!(name);
                }
                Some(block)
            }
        });
    }
    Ok(blocks)
}

/// Models up to this generation take a thinking budget; later ones are told an effort and decide for themselves.
fn is_adaptive(model: &str) -> bool {
    const BUDGETED: [&str; 9] = [
        "claude-2",
        "claude-3",
        "claude-instant",
        "-4-0",
        "-4-1",
        "-4-2025",
        "-4-5",
        "claude-opus-4@",
        "claude-sonnet-4@",
    ];
    model.starts_with("claude") && !BUDGETED.iter().any(|part| model.contains(part))
}

/// Whether structured output is known to the model.
fn is_recent(model: &str) -> bool {
    is_adaptive(model) || (model.starts_with("claude") && model.contains("-4-5"))
}

fn thinking(request: &ModelRequest, messages: &[Value]) -> Option<Value> {
    let effort = request.effort.as_deref()?;
    if effort == "none" || !request.model.name.starts_with("claude") {
        return None;
    }
    if is_adaptive(&request.model.name) {
        return Some(json!({"type": "adaptive"}));
    }
    // With a budget, the turn under way must have begun with thinking of the same model; after a change of models it has not.
    let open_turn = messages.iter().rev().find(|message| message["role"] == "assistant");
    let answers_a_call =
        messages.last().is_some_and(|last| last["role"] == "user" && last["content"][0]["type"] == "tool_result");
    let begins_with_thinking = open_turn
        .is_none_or(|message| message["content"][0]["type"].as_str().is_some_and(|kind| kind.contains("thinking")));
    if answers_a_call && !begins_with_thinking {
        return None;
    }
    let wanted: u32 = match effort {
        "minimal" | "low" => 2048,
        "medium" => 8192,
        _ => 24_576,
    };
    let budget = wanted.min(request.max_output_tokens / 2);
    (budget >= 1024).then(|| json!({"type": "enabled", "budget_tokens": budget}))
}

/// Reads an answer of the Messages API.
pub type Decoder = StreamDecoder<Messages>;

/// What the Messages API's events mean.
#[derive(Debug, Default)]
pub struct Messages {
    started: bool,
    open: BTreeMap<u32, Open>,
    budget: Budget,
    usage: WireUsage,
    stop: Option<StopReason>,
}

#[derive(Debug)]
enum Open {
    Text(String),
    Thinking { thinking: String, signature: String },
    Redacted(String),
    ToolUse { id: String, name: String, given: Option<Value>, arguments: String },
    Unknown,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum WireEvent {
    MessageStart {
        message: WireMessage,
    },
    ContentBlockStart {
        index: u32,
        content_block: WireBlock,
    },
    ContentBlockDelta {
        index: u32,
        delta: WireDelta,
    },
    ContentBlockStop {
        index: u32,
    },
    MessageDelta {
        delta: WireEnd,
        #[serde(default)]
        usage: WireUsage,
    },
    MessageStop,
    Error {
        error: WireError,
    },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct WireMessage {
    #[serde(default)]
    model: String,
    #[serde(default)]
    usage: WireUsage,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum WireBlock {
    Text {
        #[serde(default)]
        text: String,
    },
    Thinking {
        #[serde(default)]
        thinking: String,
        #[serde(default)]
        signature: String,
    },
    RedactedThinking {
        data: String,
    },
    ToolUse {
        id: String,
        name: String,
        #[serde(default)]
        input: Option<Value>,
    },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum WireDelta {
    TextDelta {
        text: String,
    },
    InputJsonDelta {
        partial_json: String,
    },
    ThinkingDelta {
        thinking: String,
    },
    SignatureDelta {
        signature: String,
    },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct WireEnd {
    #[serde(default)]
    stop_reason: Option<String>,
}

/// Every count is cumulative; a later event repeats or replaces what an earlier one said.
#[derive(Debug, Default, Deserialize)]
struct WireUsage {
    #[serde(default)]
    input_tokens: Option<u64>,
    #[serde(default)]
    output_tokens: Option<u64>,
    #[serde(default)]
    cache_creation_input_tokens: Option<u64>,
    #[serde(default)]
    cache_read_input_tokens: Option<u64>,
    #[serde(default)]
    cache_creation: Option<WireCacheCreation>,
    #[serde(default)]
    output_tokens_details: Option<WireOutputDetails>,
}

#[derive(Debug, Default, Deserialize)]
struct WireCacheCreation {
    #[serde(default)]
    ephemeral_1h_input_tokens: u64,
}

#[derive(Debug, Default, Deserialize)]
struct WireOutputDetails {
    #[serde(default)]
    thinking_tokens: u64,
}

impl WireUsage {
    fn update(&mut self, later: WireUsage) {
        self.input_tokens = later.input_tokens.or(self.input_tokens);
        self.output_tokens = later.output_tokens.or(self.output_tokens);
        self.cache_creation_input_tokens = later.cache_creation_input_tokens.or(self.cache_creation_input_tokens);
        self.cache_read_input_tokens = later.cache_read_input_tokens.or(self.cache_read_input_tokens);
        self.cache_creation = later.cache_creation.or(self.cache_creation.take());
        self.output_tokens_details = later.output_tokens_details.or(self.output_tokens_details.take());
    }

    fn neutral(&self) -> Usage {
        let hour = self.cache_creation.as_ref().map_or(0, |parts| parts.ephemeral_1h_input_tokens);
        let hour = hour.min(self.cache_creation_input_tokens.unwrap_or(0));
        Usage {
            input_tokens: self.input_tokens.unwrap_or(0),
            output_tokens: self.output_tokens.unwrap_or(0),
            cache_read_tokens: self.cache_read_input_tokens.unwrap_or(0),
            // The hour's part is contained in the whole.
            cache_write_tokens: self.cache_creation_input_tokens.unwrap_or(0).saturating_sub(hour),
            cache_write_1h_tokens: hour,
            reasoning_tokens: self.output_tokens_details.as_ref().map_or(0, |details| details.thinking_tokens),
        }
    }
}

#[derive(Deserialize)]
struct WireError {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    message: String,
}

impl Dialect for Messages {
    fn frame(&mut self, frame: &Frame, events: &mut Vec<ModelEvent>) -> Result<(), ProviderError> {
        let event: WireEvent = parse(frame)?;
        if !self.started
            && !matches!(event, WireEvent::MessageStart { .. } | WireEvent::Error { .. } | WireEvent::Other)
        {
            return Err(ProviderError::protocol("the vendor's stream does not begin with message_start"));
        }
        match event {
            WireEvent::MessageStart { message } => {
                if std::mem::replace(&mut self.started, true) {
                    return Err(ProviderError::protocol("the vendor's stream began twice"));
                }
                self.usage.update(message.usage);
                events.push(ModelEvent::Started { model: message.model });
                events.push(ModelEvent::Usage(self.usage.neutral()));
            }
            WireEvent::ContentBlockStart { index, content_block } => self.open(index, content_block, events)?,
            WireEvent::ContentBlockDelta { index, delta } => self.grow(index, delta, events)?,
            WireEvent::ContentBlockStop { index } => {
                let Some(open) = self.open.remove(&index) else {
                    return Err(ProviderError::protocol(format!("block {index} ended without having begun")));
                };
                events.extend(open.close().map(ModelEvent::Block));
            }
            WireEvent::MessageDelta { delta, usage } => {
                self.usage.update(usage);
                events.push(ModelEvent::Usage(self.usage.neutral()));
                if let Some(reason) = delta.stop_reason {
                    self.stop = Some(stop_reason(reason));
                }
            }
            WireEvent::MessageStop => {
                if let Some(index) = self.open.keys().next() {
                    return Err(ProviderError::protocol(format!("the answer ended while block {index} was open")));
                }
                let Some(stop) = self.stop.take() else {
                    return Err(ProviderError::protocol("the answer ended without a stop reason"));
                };
                events.push(ModelEvent::Finished { stop });
            }
            WireEvent::Error { error } => return Err(ProviderError::from_words(&error.kind, &error.message)),
            WireEvent::Other => {}
        }
        Ok(())
    }
}

impl Messages {
    fn open(&mut self, index: u32, block: WireBlock, events: &mut Vec<ModelEvent>) -> Result<(), ProviderError> {
        self.budget.open_block()?;
        let open = match block {
            WireBlock::Text { text } => {
                self.budget.spend(text.len())?;
                if !text.is_empty() {
                    events.push(ModelEvent::TextDelta { index, text: text.clone() });
                }
                Open::Text(text)
            }
            WireBlock::Thinking { thinking, signature } => {
                self.budget.spend(thinking.len() + signature.len())?;
                Open::Thinking { thinking, signature }
            }
            WireBlock::RedactedThinking { data } => {
                self.budget.spend(data.len())?;
                Open::Redacted(data)
            }
            WireBlock::ToolUse { id, name, input } => {
                self.budget.spend(id.len() + name.len())?;
                events.push(ModelEvent::ToolCallDelta { index, name: Some(name.clone()), arguments: String::new() });
                // Some compatible vendors send the whole input here and no deltas.
                let given =
                    input.filter(|input| input.as_object().is_none_or(|map| !map.is_empty()) && !input.is_null());
                Open::ToolUse { id, name, given, arguments: String::new() }
            }
            WireBlock::Other => Open::Unknown,
        };
        if self.open.insert(index, open).is_some() {
            return Err(ProviderError::protocol(format!("block {index} began twice")));
        }
        Ok(())
    }

    fn grow(&mut self, index: u32, delta: WireDelta, events: &mut Vec<ModelEvent>) -> Result<(), ProviderError> {
        let Some(open) = self.open.get_mut(&index) else {
            return Err(ProviderError::protocol(format!("block {index} goes on without having begun")));
        };
        match (open, delta) {
            (Open::Text(held), WireDelta::TextDelta { text }) => {
                self.budget.grow(held, &text)?;
                events.push(ModelEvent::TextDelta { index, text });
            }
            (Open::Thinking { thinking: held, .. }, WireDelta::ThinkingDelta { thinking }) => {
                self.budget.grow(held, &thinking)?;
                events.push(ModelEvent::ReasoningDelta { index, text: thinking });
            }
            (Open::Thinking { signature: held, .. }, WireDelta::SignatureDelta { signature }) => {
                self.budget.grow(held, &signature)?;
            }
            (Open::ToolUse { arguments: held, .. }, WireDelta::InputJsonDelta { partial_json }) => {
                self.budget.grow(held, &partial_json)?;
                events.push(ModelEvent::ToolCallDelta { index, name: None, arguments: partial_json });
            }
            (Open::Unknown, _) | (_, WireDelta::Other) => {}
            _ => {
                return Err(ProviderError::protocol(format!(
                    "block {index} goes on as something that it did not begin as"
                )));
            }
        }
        Ok(())
    }
}

impl Open {
    fn close(self) -> Option<AnswerBlock> {
        match self {
            Open::Text(text) if text.is_empty() => None,
            Open::Text(text) => Some(AnswerBlock::Text { text }),
            Open::Thinking { thinking, signature } => Some(AnswerBlock::Reasoning {
                payload: json!({"type": "thinking", "thinking": thinking, "signature": signature}),
            }),
            Open::Redacted(data) => {
                Some(AnswerBlock::Reasoning { payload: json!({"type": "redacted_thinking", "data": data}) })
            }
            Open::ToolUse { id, name, given: Some(input), arguments } if arguments.is_empty() => {
                Some(AnswerBlock::ToolCall { vendor_call_id: id, name, input: Ok(input) })
            }
            Open::ToolUse { id, name, arguments, .. } => Some(tool_call(id, name, arguments)),
            Open::Unknown => None,
        }
    }
}

fn stop_reason(word: String) -> StopReason {
    match word.as_str() {
        "end_turn" | "stop_sequence" => StopReason::EndTurn,
        "tool_use" => StopReason::ToolUse,
        "max_tokens" => StopReason::MaxTokens,
        "refusal" => StopReason::Refusal,
        _ => StopReason::Other(word),
    }
}
