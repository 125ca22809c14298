//! Records of reasoning in a body that passes through. Those that another vendor made have to come out: a vendor that is shown
//! one that it cannot read refuses the whole request.

use super::{Wire, inward::is_sealed};
use adj_providers::gemini::NO_SIGNATURE;
use bytes::Bytes;
use memchr::memmem;
use serde_json::Value;

/// Which records come out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    /// Those that this door has sealed, because its caller's wire has no place for them.
    Sealed,
    /// All: nobody can tell which of a wire's own records an account cannot read.
    All,
}

/// How what was sealed begins: as it is, and in base64.
const SEALS: [&[u8]; 2] = [b"\"adj1:", b"\"YWRqMTp"];

/// Returns the body without these records, and how many came out; `None` where there is none.
pub(super) fn without(wire: Wire, body: &[u8], whose: Whose) -> Option<(Bytes, usize)> {
    if whose == Whose::Sealed && !SEALS.iter().any(|seal| memmem::find(body, seal).is_some()) {
        return None;
    }
    let mut body: Value = serde_json::from_slice(body).ok()?;
    let mut taken = Taken { whose, count: 0 };
    match wire {
        Wire::Responses => taken.blocks(body.get_mut("input")),
        Wire::Messages => taken.within_each(body.get_mut("messages"), "content"),
        Wire::Gemini => taken.within_each(body.get_mut("contents"), "parts"),
        Wire::Chat => {
            for message in body.get_mut("messages").and_then(Value::as_array_mut).into_iter().flatten() {
                taken.blocks(message.get_mut("reasoning_details"));
            }
        }
    }
    if taken.count > 0 && wire == Wire::Messages {
        forgo_thinking(&mut body);
    }
    (taken.count > 0).then(|| (body.to_string().into(), taken.count))
}

/// With a budget for thinking, a turn that goes on after tools must have begun with it, or the request is refused.
fn forgo_thinking(body: &mut Value) {
    let messages = body["messages"].as_array().map_or(&[][..], Vec::as_slice);
    let goes_on = messages.last().is_some_and(|last| last["content"][0]["type"] == "tool_result");
    let turn = messages.iter().rev().find(|message| message["role"] == "assistant");
    let kind = |message: &Value| message["content"][0]["type"].as_str().unwrap_or_default().to_owned();
    let has_begun_with_it = turn.is_none_or(|message| kind(message).contains("thinking"));
    if goes_on
        && !has_begun_with_it
        && body["thinking"]["type"] == "enabled"
        && let Some(body) = body.as_object_mut()
    {
        body.remove("thinking");
    }
}

struct Taken {
    whose: Whose,
    count: usize,
}

impl Taken {
    /// Nobody takes a message of which nothing is left.
    fn within_each(&mut self, messages: Option<&mut Value>, inner: &str) {
        let Some(messages) = messages.and_then(Value::as_array_mut) else { return };
        messages.retain_mut(|message| {
            let before = self.count;
            self.blocks(message.get_mut(inner));
            self.count == before || message[inner].as_array().is_none_or(|blocks| !blocks.is_empty())
        });
    }

    fn blocks(&mut self, blocks: Option<&mut Value>) {
        let Some(blocks) = blocks.and_then(Value::as_array_mut) else { return };
        blocks.retain_mut(|block| {
            // A signature of Gemini's stands on the part that it led to, and goes alone.
            for key in ["thoughtSignature", "thought_signature"] {
                if self.comes_out(&block[key])
                    && let Some(part) = block.as_object_mut()
                {
                    self.count += 1;
                    match part.contains_key("functionCall") {
                        true => drop(part.insert(key.to_owned(), NO_SIGNATURE.into())),
                        false => drop(part.remove(key)),
                    }
                }
            }
            let opaque = match block["type"].as_str() {
                Some("thinking") => &block["signature"],
                Some("reasoning") => &block["encrypted_content"],
                Some("redacted_thinking" | "reasoning.encrypted") => &block["data"],
                _ => return true,
            };
            let comes_out = self.comes_out(opaque);
            self.count += usize::from(comes_out);
            !comes_out
        });
    }

    fn comes_out(&self, opaque: &Value) -> bool {
        let comes_out = |opaque: &str| self.whose == Whose::All && opaque != NO_SIGNATURE || is_sealed(opaque);
        opaque.as_str().is_some_and(comes_out)
    }
}

/// Says how many came out, as a loss is told.
pub(super) fn told(count: usize) -> String {
    if count == 1 { "1 record of reasoning".to_owned() } else { format!("{count} records of reasoning") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::inward::seal;
    use serde_json::json;

    fn left(wire: Wire, body: &Value, whose: Whose) -> Option<(Value, usize)> {
        let (bytes, count) = without(wire, body.to_string().as_bytes(), whose)?;
        Some((serde_json::from_slice(&bytes).expect("it is JSON"), count))
    }

    #[test]
    fn sealed_records_come_out_and_a_vendors_own_only_when_all_do() {
        let model = "openai/gpt".parse().expect("a model");
        let (sealed, in_base64) = seal(&model, &json!({"encrypted_content": "x"}));
        let call = json!({"type": "tool_use", "id": "a", "name": "t", "input": {"type": "thinking", "signature": "s"}});
        let own = json!({"type": "thinking", "thinking": "Hm.", "signature": "EqQB"});
        let cases = [
            (
                Wire::Messages,
                json!({"model": "m", "messages": [
                    {"role": "assistant", "content": [{"type": "thinking", "thinking": "", "signature": sealed}]},
                    {"role": "assistant", "content": [own, call]}, {"role": "user", "content": "Go on."}]}),
                json!({"model": "m", "messages": [
                    {"role": "assistant", "content": [own, call]}, {"role": "user", "content": "Go on."}]}),
                json!({"model": "m", "messages": [
                    {"role": "assistant", "content": [call]}, {"role": "user", "content": "Go on."}]}),
            ),
            (
                Wire::Responses,
                json!({"input": [{"type": "reasoning", "summary": [], "encrypted_content": sealed},
                    {"type": "reasoning", "encrypted_content": "gAAA"}, {"role": "user", "content": "Hi."}]}),
                json!({"input": [{"type": "reasoning", "encrypted_content": "gAAA"}, {"role": "user", "content": "Hi."}]}),
                json!({"input": [{"role": "user", "content": "Hi."}]}),
            ),
            (
                Wire::Gemini,
                json!({"contents": [{"role": "model", "parts": [{"text": "a", "thoughtSignature": in_base64},
                    {"functionCall": {"name": "t", "args": {}}, "thoughtSignature": "CiQB"}]}]}),
                json!({"contents": [{"role": "model", "parts": [{"text": "a"},
                    {"functionCall": {"name": "t", "args": {}}, "thoughtSignature": "CiQB"}]}]}),
                json!({"contents": [{"role": "model", "parts": [{"text": "a"},
                    {"functionCall": {"name": "t", "args": {}}, "thoughtSignature": NO_SIGNATURE}]}]}),
            ),
            (
                Wire::Chat,
                json!({"messages": [{"role": "assistant", "content": "a", "reasoning_details": [
                    {"type": "reasoning.encrypted", "data": sealed}, {"type": "reasoning.encrypted", "data": "x"}]}]}),
                json!({"messages": [{"role": "assistant", "content": "a", "reasoning_details": [
                    {"type": "reasoning.encrypted", "data": "x"}]}]}),
                json!({"messages": [{"role": "assistant", "content": "a", "reasoning_details": []}]}),
            ),
        ];
        for (wire, body, without_sealed, without_all) in cases {
            assert_eq!(left(wire, &body, Whose::Sealed), Some((without_sealed.clone(), 1)), "{wire:?}");
            assert_eq!(left(wire, &body, Whose::All), Some((without_all.clone(), 2)), "{wire:?}");
            assert_eq!(left(wire, &without_sealed, Whose::Sealed), None, "{wire:?}");
            assert_eq!(left(wire, &without_all, Whose::All), None, "{wire:?}");
        }
    }

    #[test]
    fn a_turn_that_has_lost_its_thinking_goes_on_without() {
        let body = |thinking: &str| {
            json!({"thinking": {"type": thinking, "budget_tokens": 2048}, "messages": [
                {"role": "assistant", "content": [{"type": "thinking", "thinking": "", "signature": "EqQB"},
                    {"type": "tool_use", "id": "a", "name": "t", "input": {}}]},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a"}]}]})
        };
        for (thinking, expected) in [("enabled", false), ("adaptive", true)] {
            let (left, _) = left(Wire::Messages, &body(thinking), Whose::All).expect("something came out");
            assert_eq!(left.get("thinking").is_some(), expected, "{thinking}");
        }
    }

    #[test]
    fn what_only_speaks_of_a_seal_stays_as_it_is() {
        for body in [r#"{"messages":[{"role":"user","content":"adj1:x"}]}"#, "{", r#"{"messages":7}"#, "[]", "7"] {
            for wire in [Wire::Messages, Wire::Responses, Wire::Chat, Wire::Gemini] {
                for whose in [Whose::Sealed, Whose::All] {
                    assert_eq!(without(wire, body.as_bytes(), whose), None, "{wire:?} {body}");
                }
            }
        }
    }
}
