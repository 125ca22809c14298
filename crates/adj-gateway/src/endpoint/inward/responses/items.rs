//! The conversation of a request of the Responses API, item by item.

use super::tools::{Tools, only_openai, outward};
use crate::endpoint::{
    Refusal,
    inward::{Losses, reasoning},
};
use adj_domain::{Content, EventId, Item};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Reads items one after another. Results may come in any order and with messages in between; neutral, all the results of a
/// batch follow its calls, in the order of the calls, and the messages follow them.
pub(super) struct Reading<'a> {
    system: String,
    items: Vec<Item>,
    /// The calls of the batch under way, in order.
    batch: Vec<String>,
    results: BTreeMap<String, Item>,
    waiting: Vec<Content>,
    seen: BTreeSet<String>,
    tools: &'a mut Tools,
    losses: &'a mut Losses,
}

impl<'a> Reading<'a> {
    pub(super) fn new(instructions: &str, tools: &'a mut Tools, losses: &'a mut Losses) -> Self {
        Self {
            system: instructions.to_owned(),
            items: Vec::new(),
            batch: Vec::new(),
            results: BTreeMap::new(),
            waiting: Vec::new(),
            seen: BTreeSet::new(),
            tools,
            losses,
        }
    }

    pub(super) fn finish(mut self) -> Result<(String, Vec<Item>), Refusal> {
        self.end_batch();
        if let Some(call) = self.batch.iter().find(|call| !self.results.contains_key(*call)) {
            return Err(Refusal::invalid(format!("input: the call {call:?} has no output")));
        }
        match self.items.last() {
            None => Err(Refusal::invalid("input: at least one message is required")),
            Some(Item::User { .. } | Item::ToolResult { .. }) => Ok((self.system, self.items)),
            Some(_) => Err(only_openai("an assistant's message at the end (prefill)")),
        }
    }

    pub(super) fn item(&mut self, item: &Value) -> Result<(), Refusal> {
        let text = |name: &str| item[name].as_str().unwrap_or_default();
        match text("type") {
            "message" | "" => self.message(text("role"), &item["content"])?,
            "function_call" => {
                let arguments = text("arguments");
                let input = serde_json::from_str(arguments).unwrap_or_else(|_| json!(arguments));
                self.call(text("call_id"), outward(item["namespace"].as_str(), text("name")), input)?;
            }
            "custom_tool_call" => {
                let name = outward(item["namespace"].as_str(), text("name"));
                self.call(text("call_id"), name, json!({"input": text("input")}))?;
            }
            "tool_search_call" => {
                self.call(text("call_id"), "tool_search".to_owned(), item["arguments"].clone())?;
            }
            "function_call_output" | "custom_tool_call_output" => {
                let content = self.contents(&item["output"])?;
                self.result(text("call_id"), content)?;
            }
            "tool_search_output" => {
                self.tools.add(&item["tools"], self.losses)?;
                let names = item["tools"].as_array().map_or(&[][..], Vec::as_slice).iter();
                let names = names.filter_map(|tool| tool["name"].as_str()).collect::<Vec<_>>().join(", ");
                self.result(text("call_id"), vec![Content::Text { text: format!("found and loaded: {names}") }])?;
            }
            "reasoning" => match item["encrypted_content"].as_str() {
                // Without a record there is only what was shown to people.
                None | Some("") => {}
                Some(sealed) if reasoning::put_back(sealed, &mut self.items) => {}
                Some(_) => self.losses.note("reasoning of another model"),
            },
            "additional_tools" => self.tools.add(&item["tools"], self.losses)?,
            "agent_message" if item.get("encrypted_content").is_none_or(Value::is_null) => {
                self.message("user", &item["content"])?;
            }
            kind if kind.ends_with("_call") && matches!(kind, "web_search_call" | "file_search_call") => {
                self.losses.note(kind.to_owned());
            }
            kind => return Err(only_openai(&format!("the item {kind:?}"))),
        }
        Ok(())
    }

    fn message(&mut self, role: &str, content: &Value) -> Result<(), Refusal> {
        let contents = self.contents(content)?;
        match role {
            "user" => self.say(contents),
            "assistant" => {
                self.end_batch();
                let text = Content::join_text(&contents);
                if !text.trim().is_empty() {
                    self.items.push(Item::Assistant { text });
                }
            }
            "system" | "developer" => {
                let text = Content::join_text(&contents);
                if text.trim().is_empty() {
                    return Ok(());
                }
                if self.items.is_empty() {
                    let gap = if self.system.is_empty() { "" } else { "\n\n" };
                    self.system.push_str(gap);
                    self.system.push_str(&text);
                } else {
                    let text = format!("<system-reminder>\n{text}\n</system-reminder>");
                    self.say(vec![Content::Text { text }]);
                }
            }
            _ => return Err(Refusal::invalid("input: a message's role is user, assistant, system or developer")),
        }
        Ok(())
    }

    fn say(&mut self, contents: Vec<Content>) {
        if contents.is_empty() {
            return;
        }
        self.end_batch();
        if !self.batch.is_empty() {
            self.waiting.extend(contents);
            return;
        }
        match self.items.last_mut() {
            Some(Item::User { content }) => content.extend(contents),
            _ => self.items.push(Item::User { content: contents }),
        }
    }

    fn call(&mut self, id: &str, name: String, input: Value) -> Result<(), Refusal> {
        self.end_batch();
        if id.is_empty() || !self.seen.insert(id.to_owned()) {
            return Err(Refusal::invalid(format!("input: the call_id {id:?} is empty or not unique")));
        }
        self.batch.push(id.to_owned());
        self.items.push(Item::ToolCall { id: own_id(id), name, input });
        Ok(())
    }

    fn result(&mut self, id: &str, content: Vec<Content>) -> Result<(), Refusal> {
        let is_open = self.batch.iter().any(|call| call == id);
        let result = Item::ToolResult { call: own_id(id), content, is_error: false };
        if !is_open || self.results.insert(id.to_owned(), result).is_some() {
            return Err(Refusal::invalid(format!(
                "input: an output answers {id:?}, which no open call has as its call_id"
            )));
        }
        Ok(())
    }

    /// Puts the results where they belong, once all of them are there.
    fn end_batch(&mut self) {
        if self.batch.is_empty() || self.results.len() < self.batch.len() {
            return;
        }
        for call in std::mem::take(&mut self.batch) {
            self.items.extend(self.results.remove(&call));
        }
        let waiting = std::mem::take(&mut self.waiting);
        if !waiting.is_empty() {
            self.items.push(Item::User { content: waiting });
        }
    }

    fn contents(&mut self, value: &Value) -> Result<Vec<Content>, Refusal> {
        let parts = match value {
            Value::Null => return Ok(Vec::new()),
            Value::String(text) => return Ok(vec![Content::text(text.as_str())]),
            Value::Array(parts) => parts,
            _ => return Err(Refusal::invalid("input: content is a text or a list of parts")),
        };
        let mut contents = Vec::new();
        for part in parts {
            let text = |name: &str| part[name].as_str();
            contents.push(match (text("type").unwrap_or_default(), text("text").or(text("refusal"))) {
                ("input_text" | "output_text" | "text" | "refusal", Some(text)) => Content::text(text),
                ("input_image", _) => match text("image_url").map(|url| (url, data_url(url))) {
                    Some((_, Some((media_type, data)))) => Content::Image { media_type, data },
                    Some((url, None)) if url.starts_with("http") => Content::ImageUrl { url: url.to_owned() },
                    _ => return Err(only_openai("an image by file_id")),
                },
                ("input_file", _) => match text("file_data").and_then(data_url) {
                    Some((media_type, data)) => {
                        Content::Document { media_type, data, name: text("filename").map(str::to_owned) }
                    }
                    None => return Err(only_openai("a file by file_id or file_url")),
                },
                (kind, _) => return Err(only_openai(&format!("the part {kind:?}"))),
            });
        }
        Ok(contents)
    }
}

/// The id that always stands for a caller's id of a call.
fn own_id(callers: &str) -> EventId {
    EventId::derive(&["responses", callers])
}

/// Takes a `data:` address apart.
fn data_url(url: &str) -> Option<(String, String)> {
    let (media_type, data) = url.strip_prefix("data:")?.split_once(";base64,")?;
    Some((media_type.to_owned(), data.to_owned()))
}
