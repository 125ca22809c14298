//! The conversation of a request of the chat completions API, message by message.

use super::read::only_chat;
use crate::endpoint::{
    Refusal, Wire,
    inward::{
        Losses,
        conversation::{Conversation, data_url},
        reasoning,
        tools::outward,
    },
};
use adj_domain::{Content, Item};
use serde_json::{Value, json};

pub(super) struct Reading<'a> {
    conversation: Conversation,
    losses: &'a mut Losses,
}

impl<'a> Reading<'a> {
    pub(super) fn new(losses: &'a mut Losses) -> Self {
        Self { conversation: Conversation::new(Wire::Chat, ""), losses }
    }

    pub(super) fn finish(self) -> Result<(String, Vec<Item>), Refusal> {
        self.conversation.finish()
    }

    pub(super) fn message(&mut self, message: &Value) -> Result<(), Refusal> {
        if message["name"].is_string() {
            self.losses.note("messages.name");
        }
        match message["role"].as_str() {
            Some("system" | "developer") => {
                let contents = self.contents(&message["content"])?;
                self.conversation.instruct(&Content::join_text(&contents));
                Ok(())
            }
            Some("user") => {
                let contents = self.contents(&message["content"])?;
                self.conversation.say(contents);
                Ok(())
            }
            Some("assistant") => self.assistant(message),
            Some("tool") => {
                let contents = self.contents(&message["content"])?;
                self.conversation.result(message["tool_call_id"].as_str().unwrap_or_default(), contents, false)
            }
            _ => Err(Refusal::invalid("messages: a message's role is system, developer, user, assistant or tool")),
        }
    }

    fn assistant(&mut self, message: &Value) -> Result<(), Refusal> {
        for old in ["function_call", "audio"] {
            if message[old].is_object() {
                return Err(only_chat(&format!("{old} of an assistant's message")));
            }
        }
        let mut records = self.records(message);
        let mut text = Content::join_text(&self.contents(&message["content"])?);
        text.push_str(message["refusal"].as_str().unwrap_or_default());
        self.remember(&mut records, None);
        self.conversation.assistant(text);
        let calls = message["tool_calls"].as_array().map_or(&[][..], Vec::as_slice);
        for (place, call) in calls.iter().enumerate() {
            self.remember(&mut records, Some(place));
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let (name, input) = match call["type"].as_str() {
                Some("custom") => (&call["custom"]["name"], json!({"input": call["custom"]["input"]})),
                None | Some("function") => {
                    let arguments = text(&call["function"]["arguments"]);
                    let input = match arguments.trim() {
                        // A tool without parameters is called with nothing at all by some vendors.
                        "" => json!({}),
                        _ => serde_json::from_str(&arguments).unwrap_or(Value::String(arguments)),
                    };
                    (&call["function"]["name"], input)
                }
                Some(kind) => return Err(only_chat(&format!("a call of the kind {kind:?}"))),
            };
            self.conversation.call(&text(&call["id"]), outward(None, &text(name)), input)?;
        }
        self.remember(&mut records, Some(usize::MAX));
        Ok(())
    }

    /// Adds the records that belong up to here.
    fn remember(&mut self, records: &mut Vec<(Option<usize>, Item)>, place: Option<usize>) {
        let later = records.iter().position(|(before, _)| *before > place).unwrap_or(records.len());
        records.drain(..later).for_each(|(_, record)| self.conversation.reasoning(record));
    }

    /// Takes out the records of reasoning that we gave to the caller; the words beside them were for people.
    fn records(&mut self, message: &Value) -> Vec<(Option<usize>, Item)> {
        let details = message["reasoning_details"].as_array().map_or(&[][..], Vec::as_slice);
        let sealed = details.iter().filter_map(|detail| detail["data"].as_str());
        let mut records = sealed.filter_map(reasoning::unwrap_for).collect::<Vec<_>>();
        records.sort_by_key(|(before, _)| *before);
        let words = ["reasoning_content", "reasoning"].into_iter().filter_map(|name| message[name].as_str());
        let was_shown = words.chain(details.iter().filter_map(|detail| detail["type"].as_str()));
        if records.is_empty() && was_shown.into_iter().any(|words| !words.is_empty()) {
            self.losses.note("reasoning of another model");
        }
        records
    }

    fn contents(&mut self, value: &Value) -> Result<Vec<Content>, Refusal> {
        let parts = match value {
            Value::Null => return Ok(Vec::new()),
            Value::String(text) => return Ok(vec![Content::text(text.as_str())]),
            Value::Array(parts) => parts,
            _ => return Err(Refusal::invalid("messages: content is a text or a list of parts")),
        };
        let mut contents = Vec::new();
        for part in parts {
            for cache in ["cache_control", "prompt_cache_breakpoint"] {
                if part[cache].is_object() {
                    self.losses.note(cache);
                }
            }
            let kind = part["type"].as_str().unwrap_or_default();
            contents.push(match kind {
                "text" | "refusal" => {
                    Content::text(part[kind].as_str().ok_or_else(|| Refusal::invalid("messages: a part has no text"))?)
                }
                "image_url" => self.image(&part["image_url"])?,
                "file" => file(&part["file"])?,
                kind => return Err(only_chat(&format!("the part {kind:?}"))),
            });
        }
        Ok(contents)
    }

    fn image(&mut self, image: &Value) -> Result<Content, Refusal> {
        if image["detail"].as_str().is_some_and(|detail| detail != "auto") {
            self.losses.note("image_url.detail");
        }
        let url = image["url"].as_str().or(image.as_str()).unwrap_or_default();
        match data_url(url) {
            Some((media_type, data)) if media_type.starts_with("image/") => Ok(Content::Image { media_type, data }),
            Some((media_type, data)) => Ok(Content::Document { media_type, data, name: None }),
            None if url.starts_with("http") => Ok(Content::ImageUrl { url: url.to_owned() }),
            None => Err(Refusal::invalid("messages: an image_url is an address, or data: with base64")),
        }
    }
}

fn file(file: &Value) -> Result<Content, Refusal> {
    match file["file_data"].as_str().map(data_url) {
        Some(Some((media_type, data))) => {
            Ok(Content::Document { media_type, data, name: file["filename"].as_str().map(str::to_owned) })
        }
        Some(None) => Err(Refusal::invalid("messages: file_data is data: with a media type and base64")),
        None => Err(only_chat("a file by file_id")),
    }
}
