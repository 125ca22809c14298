//! Google's generateContent API, as a stream of chunks.
//!
//! The stream has no event for its end: it ends when the connection does, and the answer is whole if a finish reason came
//! before that. Reasoning is remembered by signatures, each on the part that it led to, and goes back on that very part.

use super::{Encoded, is_loose_reasoning, not_expressible, object_input, own_reasoning, schema_in_words};
use crate::{
    Dialect, ModelEvent, ProviderError, StreamDecoder,
    decoder::{Budget, broke_off, parse, tool_call},
    sse::Frame,
};
use adj_domain::{
    AnswerBlock, Content, EventId, FailureKind, Item, ModelRequest, Sampling, StopReason, ToolChoice, Usage,
};
use serde::Deserialize;
use serde_json::{Map, Value, json, value::RawValue};
use std::{collections::BTreeMap, fmt::Write};

/// What the vendor documents for a call that came without a signature, because another model made it.
pub const NO_SIGNATURE: &str = "skip_thought_signature_validator";

/// Writes a request; the credentials are added where the key is known.
pub fn encode(request: &ModelRequest) -> Result<Encoded, ProviderError> {
    let contents_of = request.items.iter().filter_map(|item| match item {
        Item::User { content } | Item::ToolResult { content, .. } => Some(content),
        _ => None,
    });
    if contents_of.flatten().any(|content| matches!(content, Content::ImageUrl { .. })) {
        return Err(not_expressible("an image by its address", request));
    }
    let generation = Generation::of(&request.model.name);
    let mut body = Map::new();
    let mut system = request.system.clone();
    let mut config = Map::new();
    config.insert("maxOutputTokens".to_owned(), json!(request.max_output_tokens));
    if let Some(schema) = &request.output_schema {
        // Older models refuse a schema for the answer together with tools.
        if request.tools.is_empty() || generation >= Generation::Levels {
            config.insert("responseMimeType".to_owned(), json!("application/json"));
            config.insert("responseJsonSchema".to_owned(), schema.clone());
        } else {
            system.push_str(&schema_in_words(schema));
        }
    }
    if let Some(thinking) = thinking(request, generation) {
        config.insert("thinkingConfig".to_owned(), thinking);
    }
    if !system.trim().is_empty() {
        body.insert("systemInstruction".to_owned(), json!({"parts": [{"text": system.trim_start()}]}));
    }
    if !request.tools.is_empty() {
        // The other way to declare parameters, `parameters`, knows a part of JSON Schema and refuses the rest.
        let tools = request.tools.iter().map(|tool| {
            json!({"name": tool.name, "description": tool.description, "parametersJsonSchema": tool.input_schema})
        });
        body.insert("tools".to_owned(), json!([{"functionDeclarations": tools.collect::<Value>()}]));
        body.insert("toolConfig".to_owned(), json!({"functionCallingConfig": calling(request)}));
    }
    sampling(request, &mut config)?;
    body.insert("generationConfig".to_owned(), Value::Object(config));
    body.insert("contents".to_owned(), Value::Array(contents(request, generation)));
    let path = format!("/v1beta/{}:streamGenerateContent?alt=sse", resource(&request.model.name));
    Ok(Encoded::new(path, &Value::Object(body)))
}

fn calling(request: &ModelRequest) -> Value {
    match &request.sampling.tool_choice {
        ToolChoice::Auto => json!({"mode": "AUTO"}),
        ToolChoice::None => json!({"mode": "NONE"}),
        ToolChoice::Required => json!({"mode": "ANY"}),
        ToolChoice::Tool(name) => json!({"mode": "ANY", "allowedFunctionNames": [name]}),
    }
}

fn sampling(request: &ModelRequest, config: &mut Map<String, Value>) -> Result<(), ProviderError> {
    let Sampling { tool_choice: _, single_call, temperature, top_p, top_k, stop } = &request.sampling;
    if *single_call && !request.tools.is_empty() {
        return Err(not_expressible("no more than one tool call", request));
    }
    if let Some(temperature) = temperature {
        config.insert("temperature".to_owned(), json!(temperature));
    }
    if let Some(top_p) = top_p {
        config.insert("topP".to_owned(), json!(top_p));
    }
    if let Some(top_k) = top_k {
        config.insert("topK".to_owned(), json!(top_k));
    }
    if !stop.is_empty() {
        config.insert("stopSequences".to_owned(), json!(stop));
    }
    Ok(())
}

/// Writes a model's name as a part of a path. A name that is a resource already (`tunedModels/…`) stays one.
fn resource(model: &str) -> String {
    let (collection, name) = match model.split_once('/') {
        Some((collection @ ("models" | "tunedModels"), name)) => (collection, name),
        _ => ("models", model),
    };
    let mut path = format!("{collection}/");
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            path.push(char::from(byte));
        } else {
            let _ = write!(path, "%{byte:02X}");
        }
    }
    path
}

/// How a model is told to think, as far as its name tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Generation {
    /// Not of the Gemini family, or from before it thought.
    Plain,
    /// 2.5: thinks within a budget.
    Budget,
    /// From 3 on: thinks at a level, insists on signatures, reads images in results.
    Levels,
}

impl Generation {
    fn of(model: &str) -> Self {
        let name = model.rsplit('/').next().unwrap_or(model);
        let Some(rest) = name.strip_prefix("gemini-") else { return Self::Plain };
        match rest.split('-').next().unwrap_or(rest).parse::<f32>() {
            Ok(number) if number < 2.5 => Self::Plain,
            Ok(number) if number < 3.0 => Self::Budget,
            // Names without a number (`gemini-flash-latest`) follow the newest.
            _ => Self::Levels,
        }
    }
}

fn thinking(request: &ModelRequest, generation: Generation) -> Option<Value> {
    let (effort, model) = (request.effort.as_deref()?, request.model.name.as_str());
    match generation {
        Generation::Plain => None,
        Generation::Budget => {
            let is_pro = model.contains("-pro");
            let wanted: u32 = match effort {
                "none" if !is_pro => return Some(json!({"thinkingBudget": 0})),
                // The least that every model takes; this one cannot be kept from thinking.
                "none" => 512,
                "minimal" | "low" => 2048,
                "medium" => 8192,
                _ => 24_576,
            };
            // Thinking counts as output.
            let budget = wanted.min((request.max_output_tokens / 2).max(512));
            Some(json!({"thinkingBudget": budget, "includeThoughts": true}))
        }
        Generation::Levels => {
            let level = match effort {
                "none" | "minimal" if model.contains("flash-lite") || model.contains("gemini-3-flash") => "MINIMAL",
                "none" | "minimal" | "low" => "LOW",
                "medium" if !model.contains("gemini-3-pro") => "MEDIUM",
                _ => "HIGH",
            };
            Some(json!({"thinkingLevel": level, "includeThoughts": true}))
        }
    }
}

fn contents(request: &ModelRequest, generation: Generation) -> Vec<Value> {
    let mut contents = Contents::default();
    // A result names the function that was called, and stands where its call stood.
    let mut calls: BTreeMap<EventId, (usize, &str)> = BTreeMap::new();
    let mut reasoning: Vec<&Value> = Vec::new();
    for (place, item) in request.items.iter().enumerate() {
        match item {
            Item::User { content } => contents.extend("user", content.iter().filter_map(part_of)),
            Item::Reasoning { .. } => {
                let own = own_reasoning(item, request).filter(|_| !is_loose_reasoning(&request.items, place));
                reasoning.extend(own);
            }
            Item::Assistant { text } => {
                let mut signatures = Signatures::of(std::mem::take(&mut reasoning));
                signatures.of_text.splice(..0, signatures.unplaced.map(|signature| (0, signature)));
                contents.extend("model", signatures.thoughts);
                contents.extend("model", text_parts(text, &signatures.of_text));
            }
            Item::ToolCall { id, name, input } => {
                calls.insert(id.clone(), (place, name));
                let signatures = Signatures::of(std::mem::take(&mut reasoning));
                contents.extend("model", signatures.thoughts);
                contents.extend("model", text_parts("", &signatures.of_text));
                let mut part = json!({"functionCall": {"id": id, "name": name, "args": object_input(input)}});
                if let Some(signature) = signatures.unplaced {
                    part["thoughtSignature"] = json!(signature);
                }
                contents.extend("model", [part]);
            }
            Item::ToolResult { call, content, is_error } => {
                let (rank, name) = calls.get(call).copied().unwrap_or((0, "unknown"));
                let (result, beside) = result_parts(call, name, content, *is_error, generation);
                contents.push("user", rank, result);
                contents.extend("user", beside);
            }
        }
    }
    contents.finish(generation)
}

/// Parts of one role become one content, so that roles alternate; each with its rank within that.
#[derive(Default)]
struct Contents(Vec<(&'static str, Vec<(usize, Value)>)>);

impl Contents {
    fn extend(&mut self, role: &'static str, parts: impl IntoIterator<Item = Value>) {
        for part in parts {
            self.push(role, usize::MAX, part);
        }
    }

    fn push(&mut self, role: &'static str, rank: usize, part: Value) {
        match self.0.last_mut() {
            Some((last, held)) if *last == role => held.push((rank, part)),
            _ => self.0.push((role, vec![(rank, part)])),
        }
    }

    fn finish(mut self, generation: Generation) -> Vec<Value> {
        for (role, parts) in &mut self.0 {
            // Results answer the calls before them, in their order where ids are not known; the rest keeps its own.
            parts.sort_by_key(|(rank, _)| *rank);
            if *role == "model" && generation >= Generation::Levels {
                // The first call of each step must be signed. It is done for past turns too, which nobody checks, so that
                // a request goes on to begin with the bytes of the one before it.
                let first = parts.iter_mut().map(|(_, part)| part).find(|part| part.get("functionCall").is_some());
                if let Some(part) = first.filter(|part| part.get("thoughtSignature").is_none()) {
                    part["thoughtSignature"] = json!(NO_SIGNATURE);
                }
            }
        }
        if self.0.is_empty() {
            self.extend("user", [json!({"text": "(nothing was said)"})]);
        }
        let parts_of = |parts: Vec<(usize, Value)>| parts.into_iter().map(|(_, part)| part).collect::<Value>();
        self.0.into_iter().map(|(role, parts)| json!({"role": role, "parts": parts_of(parts)})).collect()
    }
}

fn part_of(content: &Content) -> Option<Value> {
    match content {
        // The API refuses parts that are empty.
        Content::Text { text } => (!text.trim().is_empty()).then(|| json!({"text": text})),
        Content::Image { media_type, data } | Content::Document { media_type, data, .. } => {
            Some(json!({"inlineData": {"mimeType": media_type, "data": data}}))
        }
        // Refused before.
        Content::ImageUrl { .. } => None,
    }
}

/// Returns the part of a result, and what can only stand beside it.
fn result_parts(
    call: &EventId,
    name: &str,
    content: &[Content],
    is_error: bool,
    generation: Generation,
) -> (Value, Vec<Value>) {
    let images = content.iter().filter(|block| !matches!(block, Content::Text { .. }));
    let images = images.filter_map(part_of).collect::<Vec<_>>();
    let mut text = Content::join_text(content);
    if text.is_empty() && !images.is_empty() {
        text.push_str("(an image; it follows)");
    }
    let key = if is_error { "error" } else { "output" };
    let mut part = json!({"functionResponse": {"id": call, "name": name, "response": {key: text}}});
    // Older models read images only beside the results.
    if images.is_empty() || generation < Generation::Levels {
        return (part, images);
    }
    part["functionResponse"]["parts"] = Value::Array(images);
    (part, Vec::new())
}

/// The signatures that stand before a block, by what they were on.
#[derive(Default)]
struct Signatures<'a> {
    /// Whole parts: thoughts that were signed themselves.
    thoughts: Vec<Value>,
    /// Where in the text the signed part begins.
    of_text: Vec<(usize, &'a str)>,
    /// Of the whole block, which is a call's case.
    unplaced: Option<&'a str>,
}

impl<'a> Signatures<'a> {
    fn of(payloads: Vec<&'a Value>) -> Self {
        let mut found = Self::default();
        for payload in payloads {
            // A summary of thoughts is for people; without a signature it says nothing to the model.
            let Some(signature) = payload["thoughtSignature"].as_str() else { continue };
            match (payload["thought"].as_str(), payload["from"].as_u64()) {
                (Some(thought), _) => {
                    found.thoughts.push(json!({"text": thought, "thought": true, "thoughtSignature": signature}))
                }
                (None, Some(from)) => found.of_text.push((usize::try_from(from).unwrap_or(usize::MAX), signature)),
                (None, None) => found.unplaced = Some(signature),
            }
        }
        found
    }
}

/// Cuts a text into the parts that it arrived in, as far as one of them was signed.
fn text_parts(text: &str, signatures: &[(usize, &str)]) -> Vec<Value> {
    let mut parts = Vec::new();
    let unsigned = |piece: &str, parts: &mut Vec<Value>| {
        if !piece.trim().is_empty() {
            parts.push(json!({"text": piece}));
        }
    };
    let Some(&(first, _)) = signatures.first() else {
        unsigned(text, &mut parts);
        return parts;
    };
    let cut = |from: usize| text.floor_char_boundary(from.min(text.len()));
    unsigned(&text[..cut(first)], &mut parts);
    for (place, &(from, signature)) in signatures.iter().enumerate() {
        let to = signatures.get(place + 1).map_or(text.len(), |&(next, _)| cut(next).max(cut(from)));
        parts.push(json!({"text": text[cut(from)..to], "thoughtSignature": signature}));
    }
    parts
}

/// Reads an answer of the generateContent API.
pub type Decoder = StreamDecoder<GenerateContent>;

/// What the generateContent API's chunks mean.
#[derive(Debug, Default)]
pub struct GenerateContent {
    started: bool,
    open: Open,
    /// Nothing of an answer may be used before its reason to end is known, which may be a filter's.
    blocks: Vec<AnswerBlock>,
    /// Blocks that were begun; it numbers the deltas.
    index: u32,
    called: bool,
    budget: Budget,
    usage: WireUsage,
    /// The finish reason, and what the vendor says about it. Some servers send one with every chunk, so the last counts.
    reason: Option<(String, String)>,
}

/// A block that may go on with the next part.
#[derive(Debug, Default)]
enum Open {
    #[default]
    Nothing,
    Thought(String),
    Text {
        text: String,
        /// Where a signed part begins, and its signature.
        signatures: Vec<(usize, String)>,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireChunk<'a> {
    #[serde(borrow, default)]
    candidates: Option<Vec<WireCandidate<'a>>>,
    #[serde(default)]
    prompt_feedback: Option<WireFeedback>,
    #[serde(default)]
    usage_metadata: Option<WireUsage>,
    #[serde(default)]
    model_version: Option<String>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireCandidate<'a> {
    #[serde(default)]
    index: Option<u32>,
    #[serde(borrow, default)]
    content: Option<WireContent<'a>>,
    #[serde(default)]
    finish_reason: Option<String>,
    #[serde(default)]
    finish_message: Option<String>,
}

#[derive(Deserialize)]
struct WireContent<'a> {
    #[serde(borrow, default)]
    parts: Option<Vec<WirePart<'a>>>,
}

/// Other kinds of parts (code that the vendor ran, media) are asked for by nobody here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WirePart<'a> {
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    thought: Option<bool>,
    #[serde(default)]
    thought_signature: Option<String>,
    #[serde(borrow, default)]
    function_call: Option<WireCall<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireCall<'a> {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    name: Option<String>,
    #[serde(borrow, default)]
    args: Option<&'a RawValue>,
    #[serde(default)]
    will_continue: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireFeedback {
    #[serde(default)]
    block_reason: Option<String>,
    #[serde(default)]
    block_reason_message: Option<String>,
}

/// Every count is of the whole answer so far; a chunk need not repeat them all.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireUsage {
    #[serde(default)]
    prompt_token_count: Option<u64>,
    #[serde(default)]
    cached_content_token_count: Option<u64>,
    #[serde(default)]
    tool_use_prompt_token_count: Option<u64>,
    #[serde(default)]
    candidates_token_count: Option<u64>,
    #[serde(default)]
    thoughts_token_count: Option<u64>,
}

impl WireUsage {
    fn update(&mut self, later: WireUsage) {
        self.prompt_token_count = later.prompt_token_count.or(self.prompt_token_count);
        self.cached_content_token_count = later.cached_content_token_count.or(self.cached_content_token_count);
        self.tool_use_prompt_token_count = later.tool_use_prompt_token_count.or(self.tool_use_prompt_token_count);
        self.candidates_token_count = later.candidates_token_count.or(self.candidates_token_count);
        self.thoughts_token_count = later.thoughts_token_count.or(self.thoughts_token_count);
    }

    fn neutral(&self) -> Usage {
        let cached = self.cached_content_token_count.unwrap_or(0);
        let thoughts = self.thoughts_token_count.unwrap_or(0);
        // The vendor's count of the prompt holds the cached part too; ours does not.
        let prompt = self.prompt_token_count.unwrap_or(0).saturating_sub(cached);
        Usage {
            input_tokens: prompt.saturating_add(self.tool_use_prompt_token_count.unwrap_or(0)),
            // The vendor counts thoughts apart from the rest of the answer; ours is all of the output.
            output_tokens: self.candidates_token_count.unwrap_or(0).saturating_add(thoughts),
            cache_read_tokens: cached,
            cache_write_tokens: 0,
            cache_write_1h_tokens: 0,
            reasoning_tokens: thoughts,
        }
    }
}

impl Dialect for GenerateContent {
    fn frame(&mut self, frame: &Frame, events: &mut Vec<ModelEvent>) -> Result<(), ProviderError> {
        if frame.data.trim() == "[DONE]" {
            return Ok(());
        }
        let chunk: WireChunk<'_> = parse(frame)?;
        if chunk.error.is_some() {
            let error = ProviderError::in_document(frame.data.as_bytes());
            return Err(error.unwrap_or_else(|| ProviderError::protocol("the vendor reported an error")));
        }
        if !self.started
            && let Some(model) = chunk.model_version
        {
            self.started = true;
            events.push(ModelEvent::Started { model });
        }
        // Only one candidate was asked for.
        for candidate in chunk.candidates.unwrap_or_default() {
            if candidate.index.unwrap_or(0) != 0 {
                continue;
            }
            for part in candidate.content.and_then(|content| content.parts).unwrap_or_default() {
                self.part(part, events)?;
            }
            if let Some(reason) = candidate.finish_reason.filter(|reason| is_said(reason)) {
                self.reason = Some((reason, candidate.finish_message.unwrap_or_default()));
            }
        }
        if let Some(feedback) = chunk.prompt_feedback
            && let Some(reason) = feedback.block_reason.filter(|reason| is_said(reason))
        {
            self.reason = Some((format!("{BLOCKED}{reason}"), feedback.block_reason_message.unwrap_or_default()));
        }
        if let Some(usage) = chunk.usage_metadata {
            let before = self.usage.neutral();
            self.usage.update(usage);
            // Most chunks repeat it.
            let now = self.usage.neutral();
            if now != before {
                events.push(ModelEvent::Usage(now));
            }
        }
        Ok(())
    }

    fn end(&mut self, events: &mut Vec<ModelEvent>) -> Result<(), ProviderError> {
        let (reason, message) = self.reason.take().ok_or_else(broke_off)?;
        self.close()?;
        let stop = self.stop_reason(&reason, &message)?;
        if stop == StopReason::Refusal {
            // What a filter cut off is not run. Its reason has no other place; the model is never shown it.
            self.blocks.retain(|block| !matches!(block, AnswerBlock::ToolCall { .. }));
            self.blocks.push(AnswerBlock::Reasoning { payload: json!({"refusal": reason, "message": message}) });
        }
        events.extend(std::mem::take(&mut self.blocks).into_iter().map(ModelEvent::Block));
        events.push(ModelEvent::Finished { stop });
        Ok(())
    }
}

/// Begins the reason of a prompt that was never answered.
const BLOCKED: &str = "the prompt was blocked: ";

/// Enumerations have a value that stands for none.
fn is_said(reason: &str) -> bool {
    !reason.is_empty() && !reason.ends_with("_UNSPECIFIED")
}

impl GenerateContent {
    fn part(&mut self, part: WirePart<'_>, events: &mut Vec<ModelEvent>) -> Result<(), ProviderError> {
        let signature = part.thought_signature.filter(|signature| !signature.is_empty());
        self.budget.spend(signature.as_ref().map_or(0, String::len))?;
        if let Some(call) = part.function_call {
            return self.call(call, signature, events);
        }
        let text = part.text.unwrap_or_default();
        if part.thought == Some(true) {
            return self.thought(text, signature, events);
        }
        if text.is_empty() && signature.is_none() {
            return Ok(());
        }
        if !matches!(self.open, Open::Text { .. }) {
            self.close()?;
            self.open = Open::Text { text: String::new(), signatures: Vec::new() };
        }
        if let Open::Text { text: held, signatures } = &mut self.open {
            if let Some(signature) = signature {
                self.budget.open_block()?;
                signatures.push((held.len(), signature));
            }
            self.budget.grow(held, &text)?;
            if !text.is_empty() {
                events.push(ModelEvent::TextDelta { index: self.index, text });
            }
        }
        Ok(())
    }

    fn thought(
        &mut self,
        text: String,
        signature: Option<String>,
        events: &mut Vec<ModelEvent>,
    ) -> Result<(), ProviderError> {
        if let Some(signature) = signature {
            // A signed thought goes back as it is, so it stays a block of its own.
            self.close()?;
            self.budget.spend(text.len())?;
            events.push(ModelEvent::ReasoningDelta { index: self.index, text: text.clone() });
            let payload = json!({"thought": text, "thoughtSignature": signature});
            return self.block(AnswerBlock::Reasoning { payload });
        }
        if text.is_empty() {
            return Ok(());
        }
        if !matches!(self.open, Open::Thought(_)) {
            self.close()?;
            self.open = Open::Thought(String::new());
        }
        if let Open::Thought(held) = &mut self.open {
            self.budget.grow(held, &text)?;
            events.push(ModelEvent::ReasoningDelta { index: self.index, text });
        }
        Ok(())
    }

    fn call(
        &mut self,
        call: WireCall<'_>,
        signature: Option<String>,
        events: &mut Vec<ModelEvent>,
    ) -> Result<(), ProviderError> {
        self.close()?;
        if call.will_continue == Some(true) {
            return Err(ProviderError::protocol("a tool call arrives in pieces, which was not asked for"));
        }
        let Some(name) = call.name.filter(|name| !name.is_empty()) else {
            return Err(ProviderError::protocol("a tool call has no name"));
        };
        if let Some(signature) = signature {
            self.block(AnswerBlock::Reasoning { payload: json!({"thoughtSignature": signature}) })?;
        }
        let arguments = call.args.map_or("", RawValue::get);
        // Servers that translate from other wires leave the arguments in the text that they were.
        let arguments = match serde_json::from_str::<Option<String>>(arguments) {
            Ok(text) => text.unwrap_or_default(),
            Err(_) => arguments.to_owned(),
        };
        // Before the newest models calls have no ids, and need none: results are told apart by their order.
        let id = call.id.filter(|id| !id.is_empty()).unwrap_or_else(|| format!("call_{}", self.index));
        self.budget.spend(id.len() + name.len() + arguments.len())?;
        self.called = true;
        events.push(ModelEvent::ToolCallDelta {
            index: self.index,
            name: Some(name.clone()),
            arguments: arguments.clone(),
        });
        self.block(tool_call(id, name, arguments))
    }

    fn close(&mut self) -> Result<(), ProviderError> {
        match std::mem::take(&mut self.open) {
            Open::Nothing => {}
            Open::Thought(text) => self.block(AnswerBlock::Reasoning { payload: json!({"thought": text}) })?,
            Open::Text { text, signatures } => {
                // A signature stands before its block, as on every wire, although the part that bears it comes last.
                for (from, signature) in signatures {
                    let payload = json!({"thoughtSignature": signature, "from": from});
                    self.blocks.push(AnswerBlock::Reasoning { payload });
                }
                if !text.is_empty() {
                    self.block(AnswerBlock::Text { text })?;
                }
            }
        }
        Ok(())
    }

    fn block(&mut self, block: AnswerBlock) -> Result<(), ProviderError> {
        self.budget.open_block()?;
        self.blocks.push(block);
        self.index += 1;
        Ok(())
    }

    fn stop_reason(&self, reason: &str, message: &str) -> Result<StopReason, ProviderError> {
        let words = if message.is_empty() { reason.to_owned() } else { format!("{reason}: {message}") };
        Ok(match reason {
            "STOP" if self.called => StopReason::ToolUse,
            "STOP" => StopReason::EndTurn,
            "MAX_TOKENS" | "CONTINUATION" => StopReason::MaxTokens,
            "SAFETY"
            | "RECITATION"
            | "BLOCKLIST"
            | "PROHIBITED_CONTENT"
            | "SPII"
            | "ESCALATION"
            | "MODEL_ARMOR"
            | "PUP_LIMITED_DISABLED" => StopReason::Refusal,
            _ if reason.starts_with(BLOCKED) => StopReason::Refusal,
            // The model wrote a call that the vendor cannot read, or one of something that it was not offered. There is
            // nothing to answer, and most often the next attempt goes well.
            "MALFORMED_FUNCTION_CALL" | "UNEXPECTED_TOOL_CALL" | "TOO_MANY_TOOL_CALLS" | "MALFORMED_RESPONSE" => {
                return Err(ProviderError::protocol(format!("the vendor cannot read the model's answer: {words}")));
            }
            "MISSING_THOUGHT_SIGNATURE" => return Err(ProviderError::new(FailureKind::InvalidRequest, words)),
            _ if self.called => {
                return Err(ProviderError::protocol(format!(
                    "the answer was ended, so its calls are not run: {words}"
                )));
            }
            _ => StopReason::Other(words),
        })
    }
}
