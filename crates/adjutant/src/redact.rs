//! Events without what was said: hashes and sizes in its place.

use adj_domain::BlobHash;
use serde_json::{Value, json};

/// Fields that hold what people, models, tools and repositories said.
const SAID: [&str; 19] = [
    "output_schema",
    "text",
    "data",
    "content",
    "input",
    "raw_input",
    "payload",
    "summary",
    "message",
    "errors",
    "prompt_text",
    "title",
    "task",
    "tail",
    "output",
    "why",
    "command",
    "prompt",
    "check",
];

/// Replaces what was said in one line of JSON. The hash of the event stays, so that it can be found again.
pub fn line(line: &str) -> String {
    let Ok(mut event) = serde_json::from_str::<Value>(line) else {
        return String::new();
    };
    if let Some(body) = event.get_mut("body") {
        hide(body);
    }
    event.to_string()
}

fn hide(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let is_said = SAID.contains(&key.as_str());
                match value {
                    // A hash says nothing, and finds the blob.
                    Value::String(text) if is_said && BlobHash::try_from(text.clone()).is_err() => {
                        *value = replacement(text)
                    }
                    Value::Array(_) | Value::Object(_) if is_said && holds_free_text(key) => {
                        *value = replacement(&value.to_string());
                    }
                    other => hide(other),
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(hide),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Keys whose whole value goes, whatever its shape; the others keep their shape and lose their texts.
fn holds_free_text(key: &str) -> bool {
    matches!(key, "input" | "payload" | "errors" | "content" | "output_schema")
}

fn replacement(text: &str) -> Value {
    json!({"bytes": text.len(), "blake3": BlobHash::of(text.as_bytes())})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_was_said_stays() {
        let event = r#"{"log":"sesn_a","seq":3,"type":"agent.tool_use","body":{"type":"agent.tool_use","name":"bash",
            "input":{"command":"canary one"},"vendor_call_id":"x"},"hash":"00"}"#;
        let message =
            r#"{"log":"sesn_a","body":{"type":"user.message","content":[{"type":"text","text":"canary two"}]}}"#;
        for one in [event, message] {
            let hidden = line(&one.replace('\n', ""));
            assert!(!hidden.contains("canary"), "{hidden}");
            assert!(hidden.contains("blake3"), "{hidden}");
        }
        assert!(line(event).contains(r#""name":"bash""#));
    }
}
