//! What a body says of its own size: how long an answer it asks for, and whether its tokens can be told from its bytes.

use bytes::Bytes;
use serde_json::Value;
use std::fmt;

/// A request's body, which only those look at who have to.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Asks(Bytes);

/// What a limit has to know of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// No picture, document, address, earlier answer or tool of the vendor's own is in it.
    pub is_text: bool,
    pub max_output: Option<u32>,
}

/// Things whose tokens are not among the bytes, by what their types and keys hold.
const ELSEWHERE: [&str; 9] = ["image", "document", "file", "audio", "video", "reference", "inline", "upload", "url"];
/// Tools that the vendor runs itself, and whose results it reads.
const HOSTED: [&str; 5] = ["search", "fetch", "code_", "mcp", "computer_use"];

impl Asks {
    pub fn new(body: Bytes) -> Self {
        Self(body)
    }

    pub fn facts(&self) -> Facts {
        let Ok(Value::Object(body)) = serde_json::from_slice(&self.0) else {
            return Facts { is_text: false, max_output: None };
        };
        let number = |value: Option<&Value>| value.and_then(Value::as_u64);
        let config = body.get("generationConfig");
        let of_config = |key: &str| number(config.and_then(|config| config.get(key)));
        let longest = ["max_output_tokens", "max_completion_tokens", "max_tokens"];
        let longest = longest.iter().find_map(|key| number(body.get(*key))).or(of_config("maxOutputTokens"));
        let answers = number(body.get("n")).or(of_config("candidateCount")).unwrap_or(1).max(1);
        let named = ["previous_response_id", "conversation", "cachedContent", "mcp_servers", "container"];
        let names_nothing = named.iter().all(|key| body.get(*key).is_none_or(Value::is_null));
        let spoken = ["messages", "input", "contents", "system", "instructions", "systemInstruction"];
        let is_spoken = spoken.iter().filter_map(|key| body.get(*key)).all(is_text);
        Facts {
            is_text: names_nothing && is_spoken && body.get("tools").is_none_or(is_ours),
            max_output: longest.and_then(|longest| u32::try_from(longest.saturating_mul(answers)).ok()),
        }
    }
}

fn is_text(value: &Value) -> bool {
    let is_elsewhere = |text: &str| ELSEWHERE.iter().any(|part| text.to_ascii_lowercase().contains(part));
    match value {
        Value::Array(list) => list.iter().all(is_text),
        Value::Object(map) => map.iter().all(|(key, inner)| match (key.as_str(), inner) {
            ("type", Value::String(kind)) => !is_elsewhere(kind),
            // What a tool is called with is text, whatever its keys are.
            ("input" | "args" | "response", Value::Object(_)) => true,
            (key, inner) => (inner.is_null() || !is_elsewhere(key)) && is_text(inner),
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
    }
}

/// Whether the caller runs all of these tools.
fn is_ours(tools: &Value) -> bool {
    let hosted = |name: &str| HOSTED.iter().any(|part| name.to_ascii_lowercase().contains(part));
    tools.as_array().is_some_and(|tools| {
        tools.iter().all(|tool| match (tool.get("type").and_then(Value::as_str), tool.as_object()) {
            (Some("function" | "custom"), _) => true,
            (Some(kind), _) => !hosted(kind),
            // Google names its own tools by their keys.
            (None, Some(tool)) => !tool.keys().any(|key| hosted(key) || key.starts_with("google")),
            (None, None) => false,
        })
    })
}

impl fmt::Debug for Asks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Asks({} bytes)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_text_is_told_from_what_is_not() {
        let cases = [
            (r#"{"max_tokens":5,"messages":[{"role":"user","content":"an image of a file"}]}"#, true, Some(5)),
            (
                r#"{"max_tokens":5,"messages":[{"role":"assistant","content":[{"type":"tool_use","id":"a","name":"read",
                    "input":{"file_path":"x"}}]}],"tools":[{"name":"read","input_schema":{}},{"type":"custom","name":"a"}]}"#,
                true,
                Some(5),
            ),
            (r#"{"max_tokens":5,"messages":[{"content":[{"type":"image","source":{}}]}]}"#, false, Some(5)),
            (r#"{"max_tokens":5,"messages":[{"content":[{"type":"\u0069mage","source":{}}]}]}"#, false, Some(5)),
            (r#"{"max_tokens":5,"messages":[],"tools":[{"type":"web_search_20250305"}]}"#, false, Some(5)),
            (r#"{"max_output_tokens":7,"input":"hi","previous_response_id":null}"#, true, Some(7)),
            (r#"{"max_output_tokens":7,"input":"hi","previous_response_id":"resp_1"}"#, false, Some(7)),
            (r#"{"input":[{"type":"input_image","image_url":"x"}]}"#, false, None),
            (r#"{"input":[{"type":"item_reference","id":"x"}]}"#, false, None),
            (r#"{"max_completion_tokens":9,"n":3,"messages":[]}"#, true, Some(27)),
            (r#"{"contents":[{"parts":[{"text":"x"}]}],"generationConfig":{"maxOutputTokens":4}}"#, true, Some(4)),
            (r#"{"contents":[{"parts":[{"inlineData":{"data":"x"}}]}]}"#, false, None),
            (r#"{"contents":[],"tools":[{"functionDeclarations":[]}]}"#, true, None),
            (r#"{"contents":[],"tools":[{"googleSearch":{}}]}"#, false, None),
            ("not JSON", false, None),
        ];
        for (body, is_text, max_output) in cases {
            let facts = Asks::new(Bytes::from_static(body.as_bytes())).facts();
            assert_eq!(facts, Facts { is_text, max_output }, "{body}");
        }
    }
}
