//! How large a request is, roughly: for limits, where an estimate is good enough.

use adj_domain::{Content, Item, ModelRequest};
use serde_json::Value;

/// Four bytes a token is what English and code come to.
const BYTES_PER_TOKEN: usize = 4;
/// What an image or a page of a document comes to, whatever its bytes.
const TOKENS_PER_PICTURE: usize = 1500;

/// Estimates the tokens of a request's input without writing it out.
pub fn tokens(request: &ModelRequest) -> u64 {
    let items = request.items.iter().map(|item| match item {
        Item::User { content } | Item::ToolResult { content, .. } => content.iter().map(of_content).sum(),
        Item::Assistant { text } => text.len(),
        Item::Reasoning { payload, .. } => of_json(payload),
        Item::ToolCall { name, input, .. } => name.len() + of_json(input),
    });
    let tools = request.tools.iter();
    let tools = tools.map(|tool| tool.name.len() + tool.description.len() + of_json(&tool.input_schema));
    let bytes = request.system.len() + items.sum::<usize>() + tools.sum::<usize>();
    of_bytes(bytes)
}

/// Estimates the tokens of a request out of its length alone.
pub fn of_bytes(bytes: usize) -> u64 {
    (bytes / BYTES_PER_TOKEN) as u64 + 1
}

/// Estimates the tokens of a request as it stands on a caller's wire.
pub(crate) fn of_wire(body: &Value) -> u64 {
    (of_json(body) / BYTES_PER_TOKEN) as u64 + 1
}

fn of_content(content: &Content) -> usize {
    match content {
        Content::Text { text } => text.len(),
        Content::Image { .. } | Content::Document { .. } | Content::ImageUrl { .. } => {
            TOKENS_PER_PICTURE * BYTES_PER_TOKEN
        }
    }
}

fn of_json(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 4,
        Value::String(text) if is_data(text) => TOKENS_PER_PICTURE * BYTES_PER_TOKEN,
        Value::String(text) => text.len() + 2,
        Value::Array(list) => list.iter().map(|one| of_json(one) + 1).sum(),
        Value::Object(map) => map.iter().map(|(key, one)| key.len() + of_json(one) + 4).sum(),
    }
}

/// Whether a text is a picture or the like: long, and nothing but base64 as far as one looks.
fn is_data(text: &str) -> bool {
    const LOOKED_AT: usize = 4096;
    let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/-_=".contains(byte);
    text.len() > LOOKED_AT && (text.starts_with("data:") || text.as_bytes()[..LOOKED_AT].iter().all(is_base64))
}
