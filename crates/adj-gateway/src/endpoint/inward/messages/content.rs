//! The conversation of a request of the Messages API, item by item.

use super::read::only_anthropic;
use crate::endpoint::{
    Refusal,
    inward::{Losses, fields::list, reasoning},
};
use adj_domain::{Content, EventId, Item};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;
use std::collections::BTreeSet;

/// The id that always stands for a caller's id of a call.
fn own_id(callers: &str) -> EventId {
    EventId::derive(&["messages", callers])
}

/// Where the vendor caches is not told to others; those that cache do so by themselves.
pub(super) fn note_cache(block: &Value, losses: &mut Losses) {
    if block.get("cache_control").is_some_and(|value| !value.is_null()) {
        losses.note("cache_control");
    }
}

/// Reads the messages; instructions that come before all of them join the system prompt.
pub(super) fn items(messages: &[Value], system: &mut String, losses: &mut Losses) -> Result<Vec<Item>, Refusal> {
    let mut reading = Reading { items: Vec::new(), calls: Vec::new(), all_calls: BTreeSet::new(), losses };
    for message in messages {
        let blocks = match &message["content"] {
            Value::String(text) => vec![serde_json::json!({"type": "text", "text": text})],
            blocks => list(blocks, "messages.content")?.to_vec(),
        };
        match message["role"].as_str() {
            Some("user") => reading.user(&blocks)?,
            Some("assistant") => reading.assistant(&blocks)?,
            Some("system") => reading.system(&blocks, system)?,
            _ => return Err(Refusal::invalid("messages.role: user, assistant or system")),
        }
    }
    reading.all_are_answered()?;
    match reading.items.last() {
        None => Err(Refusal::invalid("messages: at least one message is required")),
        Some(Item::User { .. } | Item::ToolResult { .. }) => Ok(reading.items),
        // Others would answer to it as to a finished answer, instead of going on with it.
        Some(_) => Err(only_anthropic("an assistant's message at the end (prefill)")),
    }
}

struct Reading<'a> {
    items: Vec<Item>,
    /// The calls that wait for their results, in the order in which they were made.
    calls: Vec<String>,
    all_calls: BTreeSet<String>,
    losses: &'a mut Losses,
}

impl Reading<'_> {
    fn system(&mut self, blocks: &[Value], system: &mut String) -> Result<(), Refusal> {
        let texts = blocks.iter().filter_map(|block| block["text"].as_str()).filter(|text| !text.trim().is_empty());
        let text = texts.collect::<Vec<_>>().join("\n\n");
        blocks.iter().for_each(|block| note_cache(block, self.losses));
        if text.is_empty() {
            return Ok(());
        }
        if self.items.is_empty() {
            let gap = if system.is_empty() { "" } else { "\n\n" };
            system.push_str(gap);
            system.push_str(&text);
        } else {
            let text = format!("<system-reminder>\n{text}\n</system-reminder>");
            self.say(vec![Content::Text { text }]);
        }
        Ok(())
    }

    /// Adds to what the user said last, or begins anew.
    fn say(&mut self, content: Vec<Content>) {
        match self.items.last_mut() {
            Some(Item::User { content: held }) => held.extend(content),
            _ => self.items.push(Item::User { content }),
        }
    }

    fn user(&mut self, blocks: &[Value]) -> Result<(), Refusal> {
        let mut results = Vec::new();
        let mut said = Vec::new();
        for block in blocks {
            note_cache(block, self.losses);
            if block["type"] == "tool_result" {
                let id = block["tool_use_id"].as_str().unwrap_or_default();
                let Some(place) = self.calls.iter().position(|call| call == id) else {
                    return Err(Refusal::invalid(format!(
                        "messages: a tool_result answers {id:?}, which no open tool_use has as its id"
                    )));
                };
                let content = match &block["content"] {
                    Value::Null => Vec::new(),
                    Value::String(text) => vec![Content::text(text.as_str())],
                    parts => self.contents(list(parts, "tool_result.content")?)?,
                };
                let is_error = block["is_error"] == true;
                results.push((place, Item::ToolResult { call: own_id(id), content, is_error }));
            } else {
                said.extend(self.contents(std::slice::from_ref(block))?);
            }
        }
        if results.iter().map(|(place, _)| place).collect::<BTreeSet<_>>().len() < results.len() {
            return Err(Refusal::invalid("messages: two tool_results answer the same tool_use"));
        }
        // Clients send results as they come in; some vendors want them as the calls were made.
        results.sort_by_key(|(place, _)| *place);
        let answered = results.iter().map(|(place, _)| *place).collect::<Vec<_>>();
        let mut place = 0;
        self.calls.retain(|_| {
            place += 1;
            !answered.contains(&(place - 1))
        });
        self.items.extend(results.into_iter().map(|(_, result)| result));
        self.all_are_answered()?;
        if !said.is_empty() {
            self.say(said);
        }
        Ok(())
    }

    fn all_are_answered(&self) -> Result<(), Refusal> {
        match self.calls.first() {
            None => Ok(()),
            Some(call) => {
                Err(Refusal::invalid(format!("messages: the tool_use {call:?} has no tool_result in the next message")))
            }
        }
    }

    fn assistant(&mut self, blocks: &[Value]) -> Result<(), Refusal> {
        self.all_are_answered()?;
        for block in blocks {
            note_cache(block, self.losses);
            let text = |name: &str| block[name].as_str().unwrap_or_default();
            match text("type") {
                "text" if text("text").trim().is_empty() => {}
                "text" => self.items.push(Item::Assistant { text: text("text").to_owned() }),
                "thinking" => self.thinking(text("signature")),
                "redacted_thinking" => self.thinking(text("data")),
                "tool_use" => {
                    let id = text("id");
                    if id.is_empty() || !self.all_calls.insert(id.to_owned()) {
                        return Err(Refusal::invalid(format!(
                            "messages: the tool_use id {id:?} is empty or not unique"
                        )));
                    }
                    self.calls.push(id.to_owned());
                    let (name, input) = (text("name").to_owned(), block["input"].clone());
                    self.items.push(Item::ToolCall { id: own_id(id), name, input });
                }
                kind => return Err(only_anthropic(&format!("the block {kind} of an assistant's message"))),
            }
        }
        Ok(())
    }

    fn thinking(&mut self, opaque: &str) {
        // Without a signature it was shown to people only, and its record stands elsewhere.
        if !opaque.is_empty() && !reasoning::put_back(opaque, &mut self.items) {
            self.losses.note("thinking of another model");
        }
    }

    fn contents(&mut self, blocks: &[Value]) -> Result<Vec<Content>, Refusal> {
        let mut contents = Vec::new();
        for block in blocks {
            note_cache(block, self.losses);
            let text = |name: &str| block[name].as_str();
            let kind = text("type").unwrap_or_default();
            match kind {
                "text" => {
                    let text = text("text").ok_or_else(|| Refusal::invalid("messages: a text block has no text"))?;
                    if !text.trim().is_empty() {
                        contents.push(Content::text(text));
                    }
                }
                "image" => contents.push(image(&block["source"])?),
                "document" => {
                    if block["citations"]["enabled"] == true {
                        self.losses.note("citations");
                    }
                    contents.extend(self.document(block)?);
                }
                "search_result" => {
                    let parts = self.contents(list(&block["content"], "search_result.content")?)?;
                    let title = text("title").unwrap_or_default();
                    let source = text("source").unwrap_or_default();
                    contents.push(Content::Text { text: format!("{title}\n{source}\n{}", Content::join_text(&parts)) });
                }
                "tool_reference" => self.losses.note("tool_reference"),
                kind => return Err(only_anthropic(&format!("the block {kind:?}"))),
            }
        }
        Ok(contents)
    }

    fn document(&mut self, block: &Value) -> Result<Vec<Content>, Refusal> {
        let source = &block["source"];
        let name = block["title"].as_str().map(str::to_owned);
        let data = source["data"].as_str().unwrap_or_default();
        Ok(match source["type"].as_str() {
            Some("base64") => {
                let media_type = source["media_type"].as_str().unwrap_or("application/pdf").to_owned();
                vec![Content::Document { media_type, data: data.to_owned(), name }]
            }
            Some("text") => {
                vec![Content::Document { media_type: "text/plain".to_owned(), data: STANDARD.encode(data), name }]
            }
            Some("content") => match &source["content"] {
                Value::String(text) => vec![Content::text(text.as_str())],
                parts => self.contents(list(parts, "document.source.content")?)?,
            },
            other => return Err(only_anthropic(&format!("a document of the source {}", other.unwrap_or("(none)")))),
        })
    }
}

fn image(source: &Value) -> Result<Content, Refusal> {
    let text = |name: &str| source[name].as_str().map(str::to_owned);
    match (source["type"].as_str(), text("media_type"), text("data"), text("url")) {
        (Some("base64"), Some(media_type), Some(data), _) => Ok(Content::Image { media_type, data }),
        (Some("url"), _, _, Some(url)) => Ok(Content::ImageUrl { url }),
        (Some("file"), ..) => Err(only_anthropic("an image of the source file")),
        _ => Err(Refusal::invalid("messages: an image needs base64 data with its media_type, or a url")),
    }
}
