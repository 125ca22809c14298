//! What is said: by people, by agents, by tools.

use crate::id::EventId;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One block of a message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum Content {
    #[serde(rename = "text")]
    Text { text: String },
    /// An image; `data` is base64.
    #[serde(rename = "image")]
    Image { media_type: String, data: String },
    /// An image that the vendor fetches itself.
    #[serde(rename = "image_url")]
    ImageUrl { url: String },
    /// A document, such as a PDF; `data` is base64.
    #[serde(rename = "document")]
    Document {
        media_type: String,
        data: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
    },
}

impl Content {
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text { text: text.into() }
    }

    /// Returns the text blocks, joined by line breaks.
    pub fn join_text(blocks: &[Content]) -> String {
        let texts = blocks.iter().filter_map(|block| match block {
            Content::Text { text } => Some(text.as_str()),
            Content::Image { .. } | Content::ImageUrl { .. } | Content::Document { .. } => None,
        });
        texts.collect::<Vec<_>>().join("\n")
    }
}

/// One entry of a conversation as a model sees it; every vendor's format is made from these.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum Item {
    #[serde(rename = "user")]
    User { content: Vec<Content> },
    #[serde(rename = "assistant")]
    Assistant { text: String },
    /// A vendor's own record of its reasoning, handed back unread to the vendor and model that made it and to nobody else.
    #[serde(rename = "reasoning")]
    Reasoning { vendor: String, model: String, payload: Value },
    /// `id` is our own; a vendor's id is never sent back, so that a conversation can move from one vendor to another.
    #[serde(rename = "tool_call")]
    ToolCall { id: EventId, name: String, input: Value },
    #[serde(rename = "tool_result")]
    ToolResult { call: EventId, content: Vec<Content>, is_error: bool },
}
