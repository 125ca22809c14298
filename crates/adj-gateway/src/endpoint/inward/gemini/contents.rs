//! The conversation of a request of the generateContent API, part by part.

use super::{proto::Proto, read::only_gemini};
use crate::endpoint::{
    Refusal, Wire,
    inward::{Losses, conversation::Conversation, encoded, fields::shortened, reasoning, tools::outward},
};
use adj_domain::{Content, Item};
use adj_providers::gemini::NO_SIGNATURE;
use serde_json::{Value, json};

pub(super) struct Reading<'a> {
    conversation: Conversation,
    calls: usize,
    losses: &'a mut Losses,
}

impl<'a> Reading<'a> {
    pub(super) fn new(losses: &'a mut Losses) -> Self {
        Self { conversation: Conversation::new(Wire::Gemini, ""), calls: 0, losses }
    }

    pub(super) fn finish(self) -> Result<(String, Vec<Item>), Refusal> {
        self.conversation.finish()
    }

    pub(super) fn instructions(&mut self, value: &Value) -> Result<(), Refusal> {
        if let Value::String(text) = value {
            self.conversation.instruct(text);
            return Ok(());
        }
        let mut texts = Vec::new();
        for part in Proto::of(value).list("parts")? {
            let text = part.get("text").as_str();
            texts.push(text.ok_or_else(|| Refusal::invalid("systemInstruction: only text is understood"))?);
        }
        self.conversation.instruct(&texts.join("\n\n"));
        Ok(())
    }

    pub(super) fn content(&mut self, content: Proto<'_>) -> Result<(), Refusal> {
        match content.text("role") {
            "" | "user" | "function" | "tool" => self.user(content),
            "model" => self.model(content),
            _ => Err(Refusal::invalid("contents.role: user or model")),
        }
    }

    fn user(&mut self, content: Proto<'_>) -> Result<(), Refusal> {
        let mut said = Vec::new();
        for part in content.list("parts")? {
            if part.has("functionResponse") {
                self.result(part.proto("functionResponse"))?;
            } else {
                said.extend(self.part(part)?);
            }
        }
        self.conversation.say(said);
        Ok(())
    }

    /// Results name the call by its id where there is one, and else by the function: the first of its calls that is not
    /// answered yet. There are clients that make up ids for answers to calls that had none.
    fn result(&mut self, response: Proto<'_>) -> Result<(), Refusal> {
        for lost in ["willContinue", "scheduling"] {
            if response.has(lost) {
                self.losses.note(format!("functionResponse.{lost}"));
            }
        }
        let (mut content, is_error) = result_of(response.get("response"));
        for part in response.list("parts")? {
            content.extend(self.part(part)?);
        }
        let (id, name) = (response.text("id"), response.text("name"));
        let call = match self.conversation.is_open(id) {
            true => Some(id.to_owned()),
            false => self.conversation.first_open(&outward(None, name)),
        };
        let call = call.ok_or_else(|| {
            let (id, name) = (shortened(id), shortened(name));
            Refusal::invalid(format!("contents: a functionResponse of {name:?} (id {id:?}) answers no open call"))
        })?;
        self.conversation.result(&call, content, is_error)
    }

    fn model(&mut self, content: Proto<'_>) -> Result<(), Refusal> {
        // Texts of one message are pieces of one text, as they arrived.
        let mut text = String::new();
        for part in content.list("parts")? {
            let record = self.record(part);
            if part.has("functionCall") || record.is_some() {
                self.conversation.assistant(std::mem::take(&mut text));
            }
            if let Some(record) = record {
                self.conversation.remember(record);
            }
            if part.has("functionCall") {
                self.call(part.proto("functionCall"))?;
            } else if part.get("thought") == &json!(true) {
                // Shown to people; its record stands elsewhere.
            } else if let Some(held) = part.get("text").as_str() {
                text.push_str(held);
            } else if let Some((kind, _)) = part.fields().find(|(name, _)| name != "thoughtSignature") {
                return Err(only_gemini(&format!("the part {} of a model's message", shortened(&kind))));
            }
        }
        self.conversation.assistant(text);
        Ok(())
    }

    /// Returns a part's signature if it holds what we sealed.
    fn record<'b>(&mut self, part: Proto<'b>) -> Option<&'b str> {
        let signature = part.text("thoughtSignature");
        if signature.is_empty() || signature == NO_SIGNATURE {
            return None;
        }
        if reasoning::is_ours(signature) {
            return Some(signature);
        }
        self.losses.note("thoughtSignature of another model");
        None
    }

    fn call(&mut self, call: Proto<'_>) -> Result<(), Refusal> {
        self.calls += 1;
        let id = match call.text("id") {
            "" => format!("(call {})", self.calls),
            id => id.to_owned(),
        };
        let input = match call.get("args") {
            Value::Null => json!({}),
            args => args.clone(),
        };
        self.conversation.call(&id, outward(None, call.text("name")), input)
    }

    fn part(&mut self, part: Proto<'_>) -> Result<Option<Content>, Refusal> {
        for lost in ["videoMetadata", "mediaResolution"] {
            if part.has(lost) {
                self.losses.note(lost);
            }
        }
        if let Some(text) = part.get("text").as_str() {
            return Ok((!text.is_empty()).then(|| Content::text(text)));
        }
        let (inline, file) = (part.proto("inlineData"), part.proto("fileData"));
        if part.has("inlineData") {
            return media(inline.text("mimeType"), inline).map(Some);
        }
        if part.has("fileData") {
            return by_address(file).map(Some);
        }
        match part.fields().next() {
            None => Ok(None),
            Some((kind, _)) => Err(only_gemini(&format!("the part {}", shortened(&kind)))),
        }
    }
}

fn media(media_type: &str, inline: Proto<'_>) -> Result<Content, Refusal> {
    if media_type.is_empty() {
        return Err(Refusal::invalid("contents: inlineData needs its mimeType"));
    }
    // Python's client writes the alphabet that is meant for addresses.
    let (media_type, data) = (media_type.to_owned(), encoded::standard(inline.text("data")));
    match media_type.split('/').next() {
        Some("image") => Ok(Content::Image { media_type, data }),
        Some("audio" | "video") => Err(only_gemini(&format!("inlineData of the type {}", shortened(&media_type)))),
        _ => Ok(Content::Document { media_type, data, name: inline.get("displayName").as_str().map(str::to_owned) }),
    }
}

fn by_address(file: Proto<'_>) -> Result<Content, Refusal> {
    let (url, media_type) = (file.text("fileUri"), file.text("mimeType"));
    let is_googles = url.contains("generativelanguage.googleapis.com/");
    if media_type.starts_with("image/") && url.starts_with("http") && !is_googles {
        return Ok(Content::ImageUrl { url: url.to_owned() });
    }
    Err(only_gemini(&format!("fileData of the type {:?} at {:?}", shortened(media_type), shortened(url))))
}

/// What a function returned: under `output`, or under `error`, or else all of it.
fn result_of(response: &Value) -> (Vec<Content>, bool) {
    let only = |name: &str| response.as_object().filter(|fields| fields.len() == 1).and_then(|fields| fields.get(name));
    let (value, is_error) = match (only("output"), only("error")) {
        (Some(output), _) => (output, false),
        (None, Some(error)) => (error, true),
        (None, None) => (response, false),
    };
    let content = match value {
        Value::Null => Vec::new(),
        Value::String(text) if text.is_empty() => Vec::new(),
        Value::String(text) => vec![Content::text(text.as_str())],
        other => vec![Content::text(other.to_string())],
    };
    (content, is_error)
}
