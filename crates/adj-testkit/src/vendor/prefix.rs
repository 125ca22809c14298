//! Whether a vendor's prompt cache would hit: each request of a conversation begins with the bytes of the one before it.

use super::Wire;
use serde_json::Value;

/// The part of a request that grows, and the part that must not change.
#[derive(Debug)]
pub(crate) struct Remembered {
    wire: Wire,
    fixed: String,
    entries: Vec<String>,
    /// How many entries stand before the model's last answer: those that were sent to get it.
    asked_before: Option<usize>,
}

/// Remembers a request; returns what breaks the cache, if anything does.
pub(crate) fn remember(memory: &mut Vec<Remembered>, wire: Wire, body: &Value) -> Option<String> {
    let request = Remembered::of(wire, body);
    let same = memory.iter().filter(|old| old.wire == wire && old.beginning() == request.beginning());
    let same = same.collect::<Vec<_>>();
    let broken = match request.asked_before {
        // A conversation may begin again, or may have begun at another vendor; what it may not do is change its past.
        None => None,
        Some(_) if same.is_empty() => None,
        Some(asked) => {
            let came_before =
                |old: &&&Remembered| old.entries == request.entries[..asked] || old.entries == request.entries;
            match same.iter().rev().find(came_before) {
                Some(old) if old.fixed == request.fixed => None,
                Some(_) => Some("the tools or the system prompt changed within a conversation".to_owned()),
                None => {
                    Some("a request does not begin with the bytes of the one that its last answer came from".to_owned())
                }
            }
        }
    };
    memory.push(request);
    broken
}

impl Remembered {
    fn of(wire: Wire, body: &Value) -> Self {
        let mut fixed = Vec::new();
        for key in ["tools", "system", "instructions", "systemInstruction"] {
            fixed.push(without_breakpoints(&body[key]).to_string());
        }
        let list = match wire {
            Wire::Responses => &body["input"],
            Wire::Messages | Wire::Chat => &body["messages"],
            Wire::Gemini => &body["contents"],
        };
        // Two sessions may be given the same task; where the wire names the session, it tells them apart.
        let mut entries = vec![body["prompt_cache_key"].to_string()];
        let mut asked_before = None;
        let mut within_answer = false;
        for entry in list.as_array().map_or(&[][..], Vec::as_slice) {
            let entry = without_breakpoints(entry);
            let is_answer = entry["role"] == "assistant"
                || entry["role"] == "model"
                || entry["type"] == "function_call"
                || entry["type"] == "reasoning";
            if is_answer && !within_answer {
                asked_before = Some(entries.len());
            }
            within_answer = is_answer;
            let blocks = match wire {
                Wire::Messages => entry["content"].as_array(),
                Wire::Gemini => entry["parts"].as_array(),
                Wire::Responses | Wire::Chat => None,
            };
            match blocks {
                // Blocks may be added to the last message, so each block counts for itself.
                Some(blocks) => {
                    entries.extend(blocks.iter().map(|block| format!("{} {block}", entry["role"])));
                }
                None => entries.push(entry.to_string()),
            }
        }
        Self { wire, fixed: fixed.join("\n"), entries, asked_before }
    }

    /// What tells conversations apart.
    fn beginning(&self) -> &[String] {
        &self.entries[..self.entries.len().min(2)]
    }
}

fn without_breakpoints(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.iter().filter(|(key, _)| *key != "cache_control");
            Value::Object(kept.map(|(key, one)| (key.clone(), without_breakpoints(one))).collect())
        }
        Value::Array(list) => list.iter().map(without_breakpoints).collect(),
        other => other.clone(),
    }
}
