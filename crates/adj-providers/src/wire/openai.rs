//! OpenAI's Responses API, without anything stored at the vendor: reasoning travels encrypted, in the request.

use super::{Encoded, is_loose_reasoning, not_expressible, object_input, own_reasoning};
use crate::{
    Dialect, ModelEvent, ProviderError, StreamDecoder,
    decoder::{Budget, parse, tool_call},
    schema::{Demand, qualifies},
    sse::Frame,
};
use adj_domain::{AnswerBlock, Content, Item, ModelRequest, Sampling, StopReason, ToolChoice, Usage};
use serde::Deserialize;
use serde_json::{Map, Value, json, value::RawValue};

/// Writes a request; the credentials are added where the key is known.
pub fn encode(request: &ModelRequest) -> Result<Encoded, ProviderError> {
    let mut body = Map::new();
    body.insert("model".to_owned(), json!(request.model.name));
    body.insert("stream".to_owned(), json!(true));
    body.insert("store".to_owned(), json!(false));
    if reasons(&request.model.name) {
        body.insert("include".to_owned(), json!(["reasoning.encrypted_content"]));
    }
    body.insert("prompt_cache_key".to_owned(), json!(request.caller.session));
    body.insert("max_output_tokens".to_owned(), json!(request.max_output_tokens));
    if let Some(effort) = &request.effort {
        body.insert("reasoning".to_owned(), json!({"effort": effort, "summary": "auto"}));
    }
    if let Some(schema) = &request.output_schema {
        let strict = qualifies(schema, Demand::AllRequired);
        body.insert(
            "text".to_owned(),
            json!({"format": {"type": "json_schema", "name": "answer", "strict": strict, "schema": schema}}),
        );
    }
    if !request.system.trim().is_empty() {
        body.insert("instructions".to_owned(), json!(request.system));
    }
    if !request.tools.is_empty() {
        let tools = request.tools.iter().map(|tool| {
            json!({"type": "function", "name": tool.name, "description": tool.description, "strict": false,
                   "parameters": tool.input_schema})
        });
        body.insert("tools".to_owned(), tools.collect());
        body.insert("parallel_tool_calls".to_owned(), json!(!request.sampling.single_call));
    }
    sampling(request, &mut body)?;
    let items = request.items.iter().enumerate();
    let input = items
        .filter(|(place, _)| !is_loose_reasoning(&request.items, *place))
        .filter_map(|(_, item)| input_item(item, request));
    body.insert("input".to_owned(), input.collect());
    Ok(Encoded::new("/responses", &Value::Object(body)))
}

fn sampling(request: &ModelRequest, body: &mut Map<String, Value>) -> Result<(), ProviderError> {
    let Sampling { tool_choice, single_call: _, temperature, top_p, top_k, stop } = &request.sampling;
    match tool_choice {
        ToolChoice::Auto => None,
        ToolChoice::None => Some(json!("none")),
        ToolChoice::Required => Some(json!("required")),
        ToolChoice::Tool(name) => Some(json!({"type": "function", "name": name})),
    }
    .and_then(|choice| body.insert("tool_choice".to_owned(), choice));
    if let Some(temperature) = temperature {
        body.insert("temperature".to_owned(), json!(temperature));
    }
    if let Some(top_p) = top_p {
        body.insert("top_p".to_owned(), json!(top_p));
    }
    if top_k.is_some() {
        return Err(not_expressible("top_k", request));
    }
    if !stop.is_empty() {
        return Err(not_expressible("stop sequences", request));
    }
    Ok(())
}

/// The families before the reasoning models refuse to be asked for encrypted reasoning.
fn reasons(model: &str) -> bool {
    !["gpt-3", "gpt-4", "chatgpt-4"].iter().any(|family| model.starts_with(family))
}

fn input_item(item: &Item, request: &ModelRequest) -> Option<Value> {
    match item {
        Item::User { content } => Some(json!({"type": "message", "role": "user", "content": parts_of(content)})),
        Item::Assistant { text } => {
            Some(json!({"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}))
        }
        Item::Reasoning { .. } => {
            let payload = own_reasoning(item, request)?;
            // Without its encrypted content the vendor would look for a stored item, and nothing is stored.
            payload.get("encrypted_content").filter(|content| content.is_string())?;
            let mut sent = Map::new();
            for key in ["type", "id", "summary", "content", "encrypted_content"] {
                if let Some(value) = payload.get(key).filter(|value| !value.is_null()) {
                    sent.insert(key.to_owned(), value.clone());
                }
            }
            Some(Value::Object(sent))
        }
        Item::ToolCall { id, name, input } => Some(
            json!({"type": "function_call", "call_id": id, "name": name, "arguments": object_input(input).to_string()}),
        ),
        Item::ToolResult { call, content, .. } => {
            let only_text = content.iter().all(|block| matches!(block, Content::Text { .. }));
            let output = if only_text { json!(Content::join_text(content)) } else { json!(parts_of(content)) };
            Some(json!({"type": "function_call_output", "call_id": call, "output": output}))
        }
    }
}

fn parts_of(content: &[Content]) -> Vec<Value> {
    content
        .iter()
        .map(|block| match block {
            Content::Text { text } => json!({"type": "input_text", "text": text}),
            Content::Image { media_type, data } => {
                json!({"type": "input_image", "image_url": format!("data:{media_type};base64,{data}")})
            }
            Content::ImageUrl { url } => json!({"type": "input_image", "image_url": url}),
            Content::Document { media_type, data, name } => json!({
                "type": "input_file", "filename": name.as_deref().unwrap_or("document"),
                "file_data": format!("data:{media_type};base64,{data}")
            }),
        })
        .collect()
}

/// Reads an answer of the Responses API.
pub type Decoder = StreamDecoder<Responses>;

/// What the Responses API's events mean.
#[derive(Debug, Default)]
pub struct Responses {
    started: bool,
    items: usize,
    budget: Budget,
    called: bool,
    refused: bool,
}

#[derive(Deserialize)]
struct WireEvent<'a> {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    output_index: Option<u32>,
    // Other events than the known ones may carry anything under these names, so they are read where they are used.
    #[serde(borrow, default)]
    delta: Option<&'a RawValue>,
    #[serde(borrow, default)]
    item: Option<&'a RawValue>,
    #[serde(borrow, default)]
    response: Option<&'a RawValue>,
    // An `error` event carries its words at the top, or one level down.
    #[serde(borrow, default)]
    code: Option<&'a RawValue>,
    #[serde(borrow, default)]
    message: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
struct WireError {
    #[serde(default)]
    code: Option<Value>,
    #[serde(rename = "type", default)]
    kind: Option<Value>,
    #[serde(default)]
    message: Option<Value>,
}

impl WireError {
    fn into_error(self) -> ProviderError {
        let word = |value: Option<Value>| match value {
            Some(Value::String(text)) => Some(text),
            Some(Value::Null) | None => None,
            Some(other) => Some(other.to_string()),
        };
        let code = word(self.code).or_else(|| word(self.kind)).unwrap_or_default();
        ProviderError::from_words(&code, &word(self.message).unwrap_or_default())
    }
}

#[derive(Default, Deserialize)]
struct WireResponse<'a> {
    #[serde(default)]
    model: String,
    #[serde(default)]
    usage: Option<WireUsage>,
    #[serde(default)]
    error: Option<WireError>,
    #[serde(default)]
    incomplete_details: Option<WireIncomplete>,
    #[serde(borrow, default)]
    output: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct WireIncomplete {
    #[serde(default)]
    reason: String,
}

#[derive(Default, Deserialize)]
struct WireUsage {
    #[serde(default)]
    input_tokens: u64,
    #[serde(default)]
    output_tokens: u64,
    #[serde(default)]
    input_tokens_details: Option<WireInputDetails>,
    #[serde(default)]
    output_tokens_details: Option<WireOutputDetails>,
}

#[derive(Default, Deserialize)]
struct WireInputDetails {
    #[serde(default)]
    cached_tokens: Option<u64>,
    #[serde(default)]
    cache_write_tokens: Option<u64>,
}

#[derive(Default, Deserialize)]
struct WireOutputDetails {
    #[serde(default)]
    reasoning_tokens: Option<u64>,
}

impl WireUsage {
    fn neutral(self) -> Usage {
        let input = self.input_tokens_details.unwrap_or_default();
        let output = self.output_tokens_details.unwrap_or_default();
        let (read, written) = (input.cached_tokens.unwrap_or(0), input.cache_write_tokens.unwrap_or(0));
        Usage {
            // The vendor's count holds the cached part too; ours does not.
            input_tokens: self.input_tokens.saturating_sub(read).saturating_sub(written),
            output_tokens: self.output_tokens,
            cache_read_tokens: read,
            cache_write_tokens: written,
            cache_write_1h_tokens: 0,
            reasoning_tokens: output.reasoning_tokens.unwrap_or(0),
        }
    }
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum WireItem {
    Message {
        #[serde(default)]
        content: Vec<WirePart>,
    },
    FunctionCall {
        call_id: String,
        name: String,
        #[serde(default)]
        arguments: String,
    },
    Reasoning {},
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum WirePart {
    OutputText {
        text: String,
    },
    Refusal {
        refusal: String,
    },
    #[serde(other)]
    Other,
}

impl Dialect for Responses {
    fn frame(&mut self, frame: &Frame, events: &mut Vec<ModelEvent>) -> Result<(), ProviderError> {
        if frame.data.trim() == "[DONE]" {
            return Ok(());
        }
        let event: WireEvent<'_> = parse(frame)?;
        let kind = if event.kind.is_empty() { frame.event.as_str() } else { event.kind.as_str() };
        let index = event.output_index.unwrap_or(0);
        match kind {
            "response.created" => {
                let response: WireResponse<'_> = inner(event.response)?;
                if std::mem::replace(&mut self.started, true) {
                    return Err(ProviderError::protocol("the vendor's stream began twice"));
                }
                events.push(ModelEvent::Started { model: response.model });
            }
            "response.output_item.added" => {
                if let WireItem::FunctionCall { name, .. } = inner_item(event.item)? {
                    events.push(ModelEvent::ToolCallDelta { index, name: Some(name), arguments: String::new() });
                }
            }
            "response.output_text.delta" | "response.refusal.delta" => {
                let text = inner(event.delta)?;
                events.push(ModelEvent::TextDelta { index, text });
            }
            "response.reasoning_summary_text.delta" | "response.reasoning_text.delta" => {
                let text = inner(event.delta)?;
                events.push(ModelEvent::ReasoningDelta { index, text });
            }
            "response.function_call_arguments.delta" => {
                let arguments = inner(event.delta)?;
                events.push(ModelEvent::ToolCallDelta { index, name: None, arguments });
            }
            "response.output_item.done" => self.item(event.item, events)?,
            "response.completed" | "response.incomplete" => self.end(kind, event.response, events)?,
            "response.failed" => {
                let response: WireResponse<'_> = inner(event.response)?;
                return Err(response.error.unwrap_or_default().into_error());
            }
            "response.cancelled" => return Err(ProviderError::protocol("the vendor cancelled the answer")),
            "error" => {
                let error = match event.error {
                    Some(_) => inner(event.error)?,
                    None => {
                        let at_top = |raw: Option<&RawValue>| raw.and_then(|raw| serde_json::from_str(raw.get()).ok());
                        WireError { code: at_top(event.code), kind: None, message: at_top(event.message) }
                    }
                };
                return Err(error.into_error());
            }
            _ => {}
        }
        Ok(())
    }
}

/// A reasoning record is kept whole; a value in memory is many times the size of its text.
const MAX_REASONING_BYTES: usize = 2 * 1024 * 1024;

impl Responses {
    fn item(&mut self, raw: Option<&RawValue>, events: &mut Vec<ModelEvent>) -> Result<(), ProviderError> {
        let item = inner_item(raw)?;
        let text = raw.map_or("", RawValue::get);
        self.items += 1;
        self.budget.open_block()?;
        self.budget.spend(text.len())?;
        match item {
            WireItem::Message { content } => {
                let mut whole = String::new();
                for part in content {
                    match part {
                        WirePart::OutputText { text } => whole.push_str(&text),
                        WirePart::Refusal { refusal } => {
                            self.refused = true;
                            whole.push_str(&refusal);
                        }
                        WirePart::Other => {}
                    }
                }
                if !whole.is_empty() {
                    events.push(ModelEvent::Block(AnswerBlock::Text { text: whole }));
                }
            }
            WireItem::FunctionCall { call_id, name, arguments } => {
                self.called = true;
                events.push(ModelEvent::Block(tool_call(call_id, name, arguments)));
            }
            WireItem::Reasoning {} => {
                if text.len() > MAX_REASONING_BYTES {
                    return Err(ProviderError::protocol("a reasoning record of the answer is too large"));
                }
                let payload = serde_json::from_str(text).map_err(|error| unreadable(&error))?;
                events.push(ModelEvent::Block(AnswerBlock::Reasoning { payload }));
            }
            WireItem::Other => {}
        }
        Ok(())
    }

    fn end(
        &mut self,
        kind: &str,
        response: Option<&RawValue>,
        events: &mut Vec<ModelEvent>,
    ) -> Result<(), ProviderError> {
        let response: WireResponse<'_> = inner(response)?;
        if !std::mem::replace(&mut self.started, true) {
            events.push(ModelEvent::Started { model: response.model });
        }
        if self.items == 0 {
            // Some compatible vendors send the items only here.
            for item in response.output {
                self.item(Some(item), events)?;
            }
        } else if response.output.len() > self.items {
            return Err(ProviderError::protocol(format!(
                "the answer has {} items, but only {} of them arrived",
                response.output.len(),
                self.items
            )));
        }
        events.push(ModelEvent::Usage(response.usage.unwrap_or_default().neutral()));
        let stop = if kind == "response.incomplete" {
            match response.incomplete_details.map(|details| details.reason).unwrap_or_default().as_str() {
                "max_output_tokens" => StopReason::MaxTokens,
                "content_filter" => StopReason::Refusal,
                reason => StopReason::Other(format!("incomplete: {reason}")),
            }
        } else if self.called {
            StopReason::ToolUse
        } else if self.refused {
            StopReason::Refusal
        } else {
            StopReason::EndTurn
        };
        events.push(ModelEvent::Finished { stop });
        Ok(())
    }
}

fn inner<'a, T: Deserialize<'a>>(raw: Option<&'a RawValue>) -> Result<T, ProviderError> {
    let raw = raw.ok_or_else(|| ProviderError::protocol("an event of the vendor's stream lacks its content"))?;
    serde_json::from_str(raw.get()).map_err(|error| unreadable(&error))
}

fn inner_item(raw: Option<&RawValue>) -> Result<WireItem, ProviderError> {
    inner(raw)
}

fn unreadable(error: &serde_json::Error) -> ProviderError {
    ProviderError::protocol(format!("an event of the vendor's stream cannot be read: {error}"))
}
