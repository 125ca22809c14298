//! What an answer in one piece says of its end and its tokens, whatever its wire.

use super::Wire;
use adj_domain::{StopReason, Usage};
use serde::Deserialize;

/// The facts of one answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Facts {
    pub(super) model: Option<String>,
    pub(super) stop: Option<StopReason>,
    pub(super) usage: Option<Usage>,
}

impl Facts {
    /// Reads a whole answer, or one event of Gemini's stream, which is an answer too; what cannot be read says nothing.
    pub(super) fn read(wire: Wire, document: &[u8]) -> Self {
        let Ok(document) = serde_json::from_slice::<Document>(document) else { return Self::default() };
        let stop = match wire {
            Wire::Messages => document.stop_reason.as_deref().map(of_messages),
            Wire::Responses => document.status.as_deref().map(|status| document.of_responses(status)),
            Wire::Chat => document.choices.iter().find_map(|choice| choice.finish_reason.as_deref()).map(of_chat),
            Wire::Gemini => document.candidates.iter().find_map(|one| one.finish_reason.as_deref()).map(of_gemini),
        };
        let usage = match wire {
            Wire::Gemini => document.usage_metadata.map(WireUsage::gemini),
            Wire::Messages => document.usage.map(WireUsage::apart),
            Wire::Responses | Wire::Chat => document.usage.map(WireUsage::inclusive),
        };
        Self { model: document.model.or(document.model_version), stop, usage }
    }
}

fn of_messages(word: &str) -> StopReason {
    match word {
        "end_turn" | "stop_sequence" => StopReason::EndTurn,
        "tool_use" => StopReason::ToolUse,
        "max_tokens" => StopReason::MaxTokens,
        "refusal" => StopReason::Refusal,
        _ => StopReason::Other(word.to_owned()),
    }
}

fn of_chat(word: &str) -> StopReason {
    match word {
        "stop" => StopReason::EndTurn,
        "tool_calls" | "function_call" => StopReason::ToolUse,
        "length" => StopReason::MaxTokens,
        "content_filter" => StopReason::Refusal,
        _ => StopReason::Other(word.to_owned()),
    }
}

fn of_gemini(word: &str) -> StopReason {
    match word {
        "STOP" => StopReason::EndTurn,
        "MAX_TOKENS" => StopReason::MaxTokens,
        "SAFETY" | "RECITATION" | "BLOCKLIST" | "PROHIBITED_CONTENT" | "SPII" => StopReason::Refusal,
        _ => StopReason::Other(word.to_owned()),
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Document {
    model: Option<String>,
    #[serde(rename = "modelVersion")]
    model_version: Option<String>,
    usage: Option<WireUsage>,
    #[serde(rename = "usageMetadata")]
    usage_metadata: Option<WireUsage>,
    stop_reason: Option<String>,
    status: Option<String>,
    incomplete_details: Option<Incomplete>,
    output: Vec<Typed>,
    choices: Vec<Ended>,
    candidates: Vec<Ended>,
}

impl Document {
    fn of_responses(&self, status: &str) -> StopReason {
        let reason = self.incomplete_details.as_ref().map_or("", |details| details.reason.as_str());
        match (status, reason) {
            ("incomplete", "max_output_tokens") => StopReason::MaxTokens,
            ("incomplete", "content_filter") => StopReason::Refusal,
            ("completed", _) if self.output.iter().any(|item| item.kind.ends_with("_call")) => StopReason::ToolUse,
            ("completed", _) => StopReason::EndTurn,
            _ => StopReason::Other(status.to_owned()),
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Incomplete {
    reason: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Typed {
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Ended {
    #[serde(alias = "finishReason")]
    finish_reason: Option<String>,
}

/// Every wire's counts under their own names.
#[derive(Default, Deserialize)]
#[serde(default)]
struct WireUsage {
    #[serde(alias = "prompt_tokens", alias = "promptTokenCount")]
    input_tokens: Option<u64>,
    #[serde(alias = "completion_tokens", alias = "candidatesTokenCount")]
    output_tokens: Option<u64>,
    #[serde(alias = "prompt_tokens_details")]
    input_tokens_details: Option<Details>,
    #[serde(alias = "completion_tokens_details")]
    output_tokens_details: Option<Details>,
    cache_creation_input_tokens: Option<u64>,
    cache_creation: Option<Lifetimes>,
    cache_read_input_tokens: Option<u64>,
    #[serde(rename = "cachedContentTokenCount")]
    cached: Option<u64>,
    #[serde(rename = "thoughtsTokenCount")]
    thoughts: Option<u64>,
    #[serde(rename = "toolUsePromptTokenCount")]
    tool_use_prompt: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Lifetimes {
    ephemeral_1h_input_tokens: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Details {
    cached_tokens: Option<u64>,
    cache_write_tokens: Option<u64>,
    #[serde(alias = "thinking_tokens")]
    reasoning_tokens: Option<u64>,
}

impl WireUsage {
    /// Cached tokens are counted apart.
    fn apart(self) -> Usage {
        let written = self.cache_creation_input_tokens.unwrap_or(0);
        let hour = self.cache_creation.unwrap_or_default().ephemeral_1h_input_tokens.unwrap_or(0).min(written);
        Usage {
            input_tokens: self.input_tokens.unwrap_or(0),
            output_tokens: self.output_tokens.unwrap_or(0),
            cache_read_tokens: self.cache_read_input_tokens.unwrap_or(0),
            cache_write_tokens: written - hour,
            cache_write_1h_tokens: hour,
            reasoning_tokens: self.output_tokens_details.unwrap_or_default().reasoning_tokens.unwrap_or(0),
        }
    }

    /// Cached tokens are among the others.
    fn inclusive(self) -> Usage {
        let read = self.input_tokens_details.unwrap_or_default();
        let (cached, written) = (read.cached_tokens.unwrap_or(0), read.cache_write_tokens.unwrap_or(0));
        Usage {
            input_tokens: self.input_tokens.unwrap_or(0).saturating_sub(cached).saturating_sub(written),
            output_tokens: self.output_tokens.unwrap_or(0),
            cache_read_tokens: cached,
            cache_write_tokens: written,
            cache_write_1h_tokens: 0,
            reasoning_tokens: self.output_tokens_details.unwrap_or_default().reasoning_tokens.unwrap_or(0),
        }
    }

    /// Cached tokens are among the others, and thoughts are apart from what was said.
    fn gemini(self) -> Usage {
        let (cached, thoughts) = (self.cached.unwrap_or(0), self.thoughts.unwrap_or(0));
        let read = self.input_tokens.unwrap_or(0).saturating_add(self.tool_use_prompt.unwrap_or(0));
        Usage {
            input_tokens: read.saturating_sub(cached),
            output_tokens: self.output_tokens.unwrap_or(0).saturating_add(thoughts),
            cache_read_tokens: cached,
            cache_write_tokens: 0,
            cache_write_1h_tokens: 0,
            reasoning_tokens: thoughts,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wire_counts_in_its_own_way() {
        let usage = |input, output, read, write, reasoning| Usage {
            input_tokens: input,
            output_tokens: output,
            cache_read_tokens: read,
            cache_write_tokens: write,
            cache_write_1h_tokens: 0,
            reasoning_tokens: reasoning,
        };
        let cases = [
            (
                Wire::Messages,
                r#"{"model":"m","stop_reason":"tool_use","usage":{"input_tokens":10,"output_tokens":5,
                    "cache_read_input_tokens":3,"cache_creation_input_tokens":2,"output_tokens_details":{"thinking_tokens":4}}}"#,
                (Some(StopReason::ToolUse), Some(usage(10, 5, 3, 2, 4))),
            ),
            (
                Wire::Responses,
                r#"{"model":"m","status":"completed","output":[{"type":"reasoning"},{"type":"custom_tool_call"}],"usage":
                    {"input_tokens":10,"input_tokens_details":{"cached_tokens":4,"cache_write_tokens":1},"output_tokens":5,
                     "output_tokens_details":{"reasoning_tokens":2},"total_tokens":15}}"#,
                (Some(StopReason::ToolUse), Some(usage(5, 5, 4, 1, 2))),
            ),
            (
                Wire::Chat,
                r#"{"model":"m","choices":[{"finish_reason":"length"}],"usage":{"prompt_tokens":10,"completion_tokens":5,
                    "prompt_tokens_details":null,"completion_tokens_details":{"reasoning_tokens":null}}}"#,
                (Some(StopReason::MaxTokens), Some(usage(10, 5, 0, 0, 0))),
            ),
            (
                Wire::Gemini,
                r#"{"modelVersion":"m","candidates":[{"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":10,
                    "cachedContentTokenCount":4,"candidatesTokenCount":5,"thoughtsTokenCount":7,"toolUsePromptTokenCount":1}}"#,
                (Some(StopReason::EndTurn), Some(usage(7, 12, 4, 0, 7))),
            ),
            (Wire::Gemini, r#"{"modelVersion":"m","candidates":[{"content":{}}]}"#, (None, None)),
        ];
        for (wire, document, (stop, usage)) in cases {
            let expected = Facts { model: Some("m".to_owned()), stop, usage };
            assert_eq!(Facts::read(wire, document.as_bytes()), expected, "{wire:?}");
        }
        assert_eq!(Facts::read(Wire::Chat, b"<html>"), Facts::default());
    }
}
