//! The conversation of a request of the Responses API, item by item.

use super::read::only_openai;
use crate::endpoint::{
    Refusal, Wire,
    inward::{
        Losses,
        conversation::{Conversation, data_url},
        tools::{Tools, outward},
    },
};
use adj_domain::{Content, Item};
use serde_json::{Value, json};

/// Reads items one after another.
pub(super) struct Reading<'a> {
    conversation: Conversation,
    tools: &'a mut Tools,
    losses: &'a mut Losses,
}

impl<'a> Reading<'a> {
    pub(super) fn new(instructions: &str, tools: &'a mut Tools, losses: &'a mut Losses) -> Self {
        Self { conversation: Conversation::new(Wire::Responses, instructions), tools, losses }
    }

    pub(super) fn finish(self) -> Result<(String, Vec<Item>), Refusal> {
        self.conversation.finish()
    }

    pub(super) fn item(&mut self, item: &Value) -> Result<(), Refusal> {
        let text = |name: &str| item[name].as_str().unwrap_or_default();
        let name = || outward(item["namespace"].as_str(), text("name"));
        match text("type") {
            "message" | "" => self.message(text("role"), &item["content"])?,
            "function_call" => {
                let arguments = text("arguments");
                let input = serde_json::from_str(arguments).unwrap_or_else(|_| json!(arguments));
                self.conversation.call(text("call_id"), name(), input)?;
            }
            "custom_tool_call" => {
                self.conversation.call(text("call_id"), name(), json!({"input": text("input")}))?;
            }
            "tool_search_call" => {
                self.conversation.call(text("call_id"), "tool_search".to_owned(), item["arguments"].clone())?;
            }
            "function_call_output" | "custom_tool_call_output" => {
                let content = self.contents(&item["output"])?;
                self.conversation.result(text("call_id"), content, false)?;
            }
            "tool_search_output" => {
                self.tools.add(&item["tools"], self.losses)?;
                let names = item["tools"].as_array().map_or(&[][..], Vec::as_slice).iter();
                let names = names.filter_map(|tool| tool["name"].as_str()).collect::<Vec<_>>().join(", ");
                let found = vec![Content::Text { text: format!("found and loaded: {names}") }];
                self.conversation.result(text("call_id"), found, false)?;
            }
            "reasoning" => match item["encrypted_content"].as_str() {
                // Without a record there is only what was shown to people.
                None | Some("") => {}
                Some(sealed) if self.conversation.remember(sealed) => {}
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
            "user" => self.conversation.say(contents),
            "assistant" => self.conversation.assistant(Content::join_text(&contents)),
            "system" | "developer" => self.conversation.instruct(&Content::join_text(&contents)),
            _ => return Err(Refusal::invalid("input: a message's role is user, assistant, system or developer")),
        }
        Ok(())
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
