//! The conversation of a request of the Messages API, item by item.

use super::read::only_anthropic;
use crate::endpoint::{
    Refusal, Wire,
    inward::{Losses, conversation::Conversation, encoded, fields::list},
};
use adj_domain::{Content, Item};
use serde_json::{Value, json};

/// Where the vendor caches is not told to others; those that cache do so by themselves.
pub(super) fn note_cache(block: &Value, losses: &mut Losses) {
    if block.get("cache_control").is_some_and(|value| !value.is_null()) {
        losses.note("cache_control");
    }
}

/// Reads the messages, and returns what the system prompt has become by those instructions that come before all of them.
pub(super) fn items(messages: &[Value], system: &str, losses: &mut Losses) -> Result<(String, Vec<Item>), Refusal> {
    let mut reading = Reading { conversation: Conversation::new(Wire::Messages, system), losses };
    for message in messages {
        let blocks = match &message["content"] {
            Value::String(text) => vec![json!({"type": "text", "text": text})],
            blocks => list(blocks, "messages.content")?.to_vec(),
        };
        match message["role"].as_str() {
            Some("user") => reading.user(&blocks)?,
            Some("assistant") => reading.assistant(&blocks)?,
            Some("system") => reading.system(&blocks),
            _ => return Err(Refusal::invalid("messages.role: user, assistant or system")),
        }
    }
    reading.conversation.finish()
}

struct Reading<'a> {
    conversation: Conversation,
    losses: &'a mut Losses,
}

impl Reading<'_> {
    fn system(&mut self, blocks: &[Value]) {
        let texts = blocks.iter().filter_map(|block| block["text"].as_str()).filter(|text| !text.trim().is_empty());
        blocks.iter().for_each(|block| note_cache(block, self.losses));
        self.conversation.instruct(&texts.collect::<Vec<_>>().join("\n\n"));
    }

    fn user(&mut self, blocks: &[Value]) -> Result<(), Refusal> {
        let mut said = Vec::new();
        for block in blocks {
            note_cache(block, self.losses);
            if block["type"] == "tool_result" {
                let content = match &block["content"] {
                    Value::Null => Vec::new(),
                    Value::String(text) => vec![Content::text(text.as_str())],
                    parts => self.contents(list(parts, "tool_result.content")?)?,
                };
                let id = block["tool_use_id"].as_str().unwrap_or_default();
                self.conversation.result(id, content, block["is_error"] == true)?;
            } else {
                said.extend(self.contents(std::slice::from_ref(block))?);
            }
        }
        self.conversation.say(said);
        Ok(())
    }

    fn assistant(&mut self, blocks: &[Value]) -> Result<(), Refusal> {
        for block in blocks {
            note_cache(block, self.losses);
            let text = |name: &str| block[name].as_str().unwrap_or_default();
            match text("type") {
                "text" => self.conversation.assistant(text("text").to_owned()),
                "thinking" => self.thinking(text("signature")),
                "redacted_thinking" => self.thinking(text("data")),
                "tool_use" => self.conversation.call(text("id"), text("name").to_owned(), block["input"].clone())?,
                kind => return Err(only_anthropic(&format!("the block {kind} of an assistant's message"))),
            }
        }
        Ok(())
    }

    fn thinking(&mut self, opaque: &str) {
        // Without a signature it was shown to people only, and its record stands elsewhere.
        if !opaque.is_empty() && !self.conversation.remember(opaque) {
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
                vec![Content::Document { media_type: "text/plain".to_owned(), data: encoded::encode(data), name }]
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
