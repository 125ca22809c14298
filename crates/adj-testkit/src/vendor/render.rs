//! An answer in the words of each wire, event by event, as the vendors send them.

use super::{
    Wire,
    reply::{Block, Stop, TokenCounts},
};
use serde_json::{Value, json};

/// How every signature begins that Gemini's wire gives out here.
pub(crate) const SIGNED: &str = "c2lnbmVk";

/// What is rendered: the blocks of an answer and its end.
pub(crate) struct Rendered<'a> {
    pub(crate) model: &'a str,
    /// Tells answers apart, in ids.
    pub(crate) number: usize,
    pub(crate) blocks: &'a [Block],
    pub(crate) counts: TokenCounts,
    pub(crate) stop: Option<Stop>,
}

/// Returns the stream of an answer, one event a text.
pub(crate) fn answer(wire: Wire, answer: &Rendered<'_>) -> Vec<String> {
    match wire {
        Wire::Responses => responses(answer),
        Wire::Messages => messages(answer),
        Wire::Chat => chat(answer),
        Wire::Gemini => gemini(answer),
    }
}

/// Returns an answer in one piece, for those who do not ask for a stream.
pub(crate) fn whole(wire: Wire, answer: &Rendered<'_>) -> Value {
    let events = self::answer(wire, answer);
    let events = events.iter().flat_map(|event| event.lines()).filter_map(|line| line.strip_prefix("data: "));
    let events = events.filter_map(|data| serde_json::from_str(data).ok()).collect::<Vec<Value>>();
    match wire {
        // The last event has all of it.
        Wire::Responses => events.last().map_or(Value::Null, |last| last["response"].clone()),
        Wire::Messages => whole_message(answer, &events),
        Wire::Chat => whole_completion(answer, &events),
        Wire::Gemini => {
            let parts = events.iter().flat_map(|event| event["candidates"][0]["content"]["parts"].as_array());
            let parts = parts.flatten().cloned().collect::<Vec<_>>();
            let mut last = events.last().cloned().unwrap_or_default();
            last["candidates"][0]["content"]["parts"] = json!(parts);
            last
        }
    }
}

fn whole_message(answer: &Rendered<'_>, events: &[Value]) -> Value {
    let mut message = events.first().map_or(Value::Null, |start| start["message"].clone());
    let blocks = answer.blocks.iter().enumerate().map(|(index, block)| match block {
        Block::Text(text) => json!({"type": "text", "text": text}),
        Block::Reasoning(text) => json!({"type": "thinking", "thinking": text, "signature": format!("signed:{text}")}),
        Block::Call { name, arguments, .. } => {
            let input = serde_json::from_str(arguments).unwrap_or_else(|_| json!({}));
            json!({"type": "tool_use", "id": format!("toolu_{}_{index}", answer.number), "name": name, "input": input})
        }
    });
    message["content"] = blocks.collect();
    let end = events.iter().find(|event| event["type"] == "message_delta").cloned().unwrap_or_default();
    message["stop_reason"] = end["delta"]["stop_reason"].clone();
    message["usage"]["output_tokens"] = end["usage"]["output_tokens"].clone();
    message
}

fn whole_completion(answer: &Rendered<'_>, events: &[Value]) -> Value {
    let mut text = String::new();
    let mut calls = Vec::new();
    for (index, block) in answer.blocks.iter().enumerate() {
        match block {
            Block::Text(said) => text.push_str(said),
            Block::Reasoning(_) => {}
            Block::Call { name, arguments, .. } => calls.push(json!({"id": format!("call_{}_{index}", answer.number),
                "type": "function", "function": {"name": name, "arguments": arguments}})),
        }
    }
    let mut message = json!({"role": "assistant", "content": text, "refusal": null});
    if !calls.is_empty() {
        message["tool_calls"] = json!(calls);
    }
    let finish = events.iter().map(|event| &event["choices"][0]["finish_reason"]).find(|finish| finish.is_string());
    json!({"id": format!("chatcmpl-{}", answer.number), "object": "chat.completion", "created": 1_767_323_045, "model": answer.model,
           "choices": [{"index": 0, "message": message, "finish_reason": finish, "logprobs": null}],
           "usage": events.last().map(|last| &last["usage"])})
}

/// Returns a stream that begins well and then reports an error.
pub(crate) fn failed_stream(wire: Wire, model: &str, code: &str, message: &str) -> Vec<String> {
    match wire {
        Wire::Responses => vec![
            named(
                json!({"type": "response.created", "sequence_number": 0, "response": {"id": "resp_0", "model": model, "status": "in_progress"}}),
            ),
            named(json!({"type": "response.failed", "sequence_number": 1, "response": {"id": "resp_0", "model": model,
                "status": "failed", "error": {"code": code, "message": message}}})),
        ],
        Wire::Messages => vec![
            named(message_start(model, 0, TokenCounts { input: 1, cached: 0, output: 1, reasoning: 0 })),
            named(json!({"type": "error", "error": {"type": code, "message": message}})),
        ],
        Wire::Chat => vec![
            data(&chunk(model, 0, json!({"role": "assistant", "content": "I"}), Value::Null)),
            data(&json!({"error": {"message": message, "type": code, "code": null}})),
        ],
        // This vendor leaves the form of the stream where it fails.
        Wire::Gemini => {
            let error = failure(wire, 503, code, message, None);
            let first = gemini_chunk(model, 0, json!([{"text": "I"}]), Value::Null, None);
            vec![first, format!("{error:#}\n")]
        }
    }
}

/// Returns the body of an HTTP error; only Gemini's says in it how long to wait.
pub(crate) fn failure(wire: Wire, status: u16, code: &str, message: &str, wait: Option<&str>) -> Value {
    match wire {
        Wire::Messages => {
            json!({"type": "error", "error": {"type": code, "message": message}, "request_id": "req_0"})
        }
        Wire::Responses | Wire::Chat => {
            json!({"error": {"message": message, "type": code, "param": null, "code": code}})
        }
        Wire::Gemini => {
            let mut error = json!({"code": status, "message": message, "status": code});
            if let Some(wait) = wait {
                error["details"] =
                    json!([{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": format!("{wait}s")}]);
            }
            json!({"error": error})
        }
    }
}

fn named(event: Value) -> String {
    format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap_or_default())
}

fn data(event: &Value) -> String {
    format!("data: {event}\n\n")
}

/// Cuts a text into pieces of a few characters, as tokens would.
fn tokens(text: &str) -> Vec<String> {
    let characters = text.chars().collect::<Vec<_>>();
    characters.chunks(5).map(|piece| piece.iter().collect()).collect()
}

fn responses(answer: &Rendered<'_>) -> Vec<String> {
    let id = format!("resp_{}", answer.number);
    let incomplete = answer.stop == Some(Stop::MaxTokens);
    let mut bodies = vec![
        json!({"type": "response.created", "response": {"id": id, "object": "response", "status": "in_progress", "model": answer.model, "output": []}}),
        json!({"type": "response.in_progress", "response": {"id": id, "status": "in_progress"}}),
    ];
    let mut output = Vec::new();
    for (index, block) in answer.blocks.iter().enumerate() {
        let item_id = format!("item_{}_{index}", answer.number);
        let (item, opened, deltas) = match block {
            Block::Text(text) if answer.stop == Some(Stop::Refusal) => (
                json!({"id": item_id, "type": "message", "role": "assistant", "status": "completed", "content": [{"type": "refusal", "refusal": text}]}),
                json!({"id": item_id, "type": "message", "role": "assistant", "status": "in_progress", "content": []}),
                tokens(text)
                    .into_iter()
                    .map(|delta| json!({"type": "response.refusal.delta", "item_id": item_id, "output_index": index, "content_index": 0, "delta": delta}))
                    .collect::<Vec<_>>(),
            ),
            Block::Text(text) => (
                json!({"id": item_id, "type": "message", "role": "assistant", "status": "completed",
                       "content": [{"type": "output_text", "text": text, "annotations": []}]}),
                json!({"id": item_id, "type": "message", "role": "assistant", "status": "in_progress", "content": []}),
                tokens(text)
                    .into_iter()
                    .map(|delta| json!({"type": "response.output_text.delta", "item_id": item_id, "output_index": index, "content_index": 0, "delta": delta, "obfuscation": "x7"}))
                    .collect(),
            ),
            Block::Reasoning(text) => (
                json!({"id": item_id, "type": "reasoning", "summary": [{"type": "summary_text", "text": text}],
                       "encrypted_content": format!("encrypted:{text}")}),
                json!({"id": item_id, "type": "reasoning", "summary": []}),
                tokens(text)
                    .into_iter()
                    .map(|delta| json!({"type": "response.reasoning_summary_text.delta", "item_id": item_id, "output_index": index, "summary_index": 0, "delta": delta}))
                    .collect(),
            ),
            Block::Call { name, arguments, is_custom: true } => {
                let call_id = format!("call_{}_{index}", answer.number);
                let input = serde_json::from_str::<Value>(arguments).map_or_else(|_| json!(""), |value| value["input"].clone());
                (
                    json!({"id": item_id, "type": "custom_tool_call", "status": "completed", "name": name, "call_id": call_id, "input": input}),
                    json!({"id": item_id, "type": "custom_tool_call", "status": "in_progress", "name": name, "call_id": call_id, "input": ""}),
                    vec![
                        json!({"type": "response.custom_tool_call_input.delta", "item_id": item_id, "output_index": index, "delta": input}),
                    ],
                )
            }
            Block::Call { name, arguments, is_custom: false } => {
                let call_id = format!("call_{}_{index}", answer.number);
                (
                    json!({"id": item_id, "type": "function_call", "status": "completed", "name": name, "call_id": call_id, "arguments": arguments}),
                    json!({"id": item_id, "type": "function_call", "status": "in_progress", "name": name, "call_id": call_id, "arguments": ""}),
                    tokens(arguments)
                        .into_iter()
                        .map(|delta| json!({"type": "response.function_call_arguments.delta", "item_id": item_id, "output_index": index, "delta": delta}))
                        .collect(),
                )
            }
        };
        bodies.push(json!({"type": "response.output_item.added", "output_index": index, "item": opened}));
        let part = &item["content"][0];
        let place = |kind: &str, part: Value| json!({"type": kind, "item_id": item_id, "output_index": index, "content_index": 0, "part": part});
        if !part.is_null() {
            let empty = match part["type"].as_str() {
                Some("refusal") => json!({"type": "refusal", "refusal": ""}),
                _ => json!({"type": "output_text", "text": "", "annotations": []}),
            };
            bodies.push(place("response.content_part.added", empty));
        }
        bodies.extend(deltas);
        if !part.is_null() {
            bodies.push(place("response.content_part.done", part.clone()));
        }
        bodies.push(json!({"type": "response.output_item.done", "output_index": index, "item": item}));
        output.push(item);
    }
    let counts = answer.counts;
    let mut response = json!({"id": id, "object": "response", "status": "completed", "model": answer.model, "output": output,
        "usage": {"input_tokens": counts.input, "input_tokens_details": {"cached_tokens": counts.cached},
                  "output_tokens": counts.output, "output_tokens_details": {"reasoning_tokens": counts.reasoning},
                  "total_tokens": counts.input + counts.output}});
    let mut kind = "response.completed";
    if incomplete {
        kind = "response.incomplete";
        response["status"] = json!("incomplete");
        response["incomplete_details"] = json!({"reason": "max_output_tokens"});
    }
    bodies.push(json!({"type": kind, "response": response}));
    let numbered = bodies.into_iter().enumerate().map(|(number, mut body)| {
        body["sequence_number"] = json!(number);
        named(body)
    });
    numbered.collect()
}

fn message_start(model: &str, number: usize, counts: TokenCounts) -> Value {
    json!({"type": "message_start", "message": {"id": format!("msg_{number}"), "type": "message", "role": "assistant",
        "model": model, "content": [], "stop_reason": null, "stop_sequence": null,
        "usage": {"input_tokens": counts.input - counts.cached, "cache_creation_input_tokens": 0,
                  "cache_read_input_tokens": counts.cached, "output_tokens": 1}}})
}

fn messages(answer: &Rendered<'_>) -> Vec<String> {
    let mut events =
        vec![named(message_start(answer.model, answer.number, answer.counts)), named(json!({"type": "ping"}))];
    let mut called = false;
    for (index, block) in answer.blocks.iter().enumerate() {
        let (opened, mut deltas) = match block {
            Block::Text(text) => (
                json!({"type": "text", "text": ""}),
                tokens(text).into_iter().map(|text| json!({"type": "text_delta", "text": text})).collect::<Vec<_>>(),
            ),
            Block::Reasoning(text) => (
                json!({"type": "thinking", "thinking": "", "signature": ""}),
                tokens(text).into_iter().map(|text| json!({"type": "thinking_delta", "thinking": text})).collect(),
            ),
            Block::Call { name, arguments, .. } => {
                called = true;
                let id = format!("toolu_{}_{index}", answer.number);
                let mut pieces = vec![String::new()];
                pieces.extend(tokens(arguments));
                (
                    json!({"type": "tool_use", "id": id, "name": name, "input": {}}),
                    pieces.into_iter().map(|json| json!({"type": "input_json_delta", "partial_json": json})).collect(),
                )
            }
        };
        if let Block::Reasoning(text) = block {
            deltas.push(json!({"type": "signature_delta", "signature": format!("signed:{text}")}));
        }
        events.push(named(json!({"type": "content_block_start", "index": index, "content_block": opened})));
        let deltas = deltas
            .into_iter()
            .map(|delta| named(json!({"type": "content_block_delta", "index": index, "delta": delta})));
        events.extend(deltas);
        events.push(named(json!({"type": "content_block_stop", "index": index})));
    }
    let reason = match answer.stop {
        Some(Stop::MaxTokens) => "max_tokens",
        Some(Stop::Refusal) => "refusal",
        None if called => "tool_use",
        None => "end_turn",
    };
    events.push(named(json!({"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": null},
                             "usage": {"output_tokens": answer.counts.output}})));
    events.push(named(json!({"type": "message_stop"})));
    events
}

fn chunk(model: &str, number: usize, delta: Value, finish: Value) -> Value {
    json!({"id": format!("chatcmpl-{number}"), "object": "chat.completion.chunk", "created": 1_767_323_045, "model": model,
           "choices": [{"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish}], "usage": null})
}

fn chat(answer: &Rendered<'_>) -> Vec<String> {
    let chunk = |delta, finish| data(&chunk(answer.model, answer.number, delta, finish));
    let mut events = vec![chunk(json!({"role": "assistant", "content": ""}), Value::Null)];
    let mut calls = 0;
    for block in answer.blocks {
        match block {
            Block::Text(text) => {
                let key = if answer.stop == Some(Stop::Refusal) { "refusal" } else { "content" };
                events.extend(tokens(text).into_iter().map(|piece| chunk(json!({key: piece}), Value::Null)));
            }
            Block::Reasoning(text) => {
                events.extend(
                    tokens(text).into_iter().map(|piece| chunk(json!({"reasoning_content": piece}), Value::Null)),
                );
            }
            Block::Call { name, arguments, .. } => {
                let id = format!("call_{}_{calls}", answer.number);
                events.push(chunk(
                    json!({"tool_calls": [{"index": calls, "id": id, "type": "function", "function": {"name": name, "arguments": ""}}]}),
                    Value::Null,
                ));
                events.extend(tokens(arguments).into_iter().map(|piece| {
                    chunk(json!({"tool_calls": [{"index": calls, "function": {"arguments": piece}}]}), Value::Null)
                }));
                calls += 1;
            }
        }
    }
    let reason = match answer.stop {
        Some(Stop::MaxTokens) => "length",
        Some(Stop::Refusal) | None if calls == 0 => "stop",
        Some(Stop::Refusal) | None => "tool_calls",
    };
    events.push(chunk(json!({}), json!(reason)));
    let counts = answer.counts;
    events.push(data(
        &json!({"id": format!("chatcmpl-{}", answer.number), "object": "chat.completion.chunk", "model": answer.model,
        "choices": [], "usage": {"prompt_tokens": counts.input, "completion_tokens": counts.output,
            "total_tokens": counts.input + counts.output, "prompt_tokens_details": {"cached_tokens": counts.cached},
            "completion_tokens_details": {"reasoning_tokens": counts.reasoning}}}),
    ));
    events.push("data: [DONE]\n\n".to_owned());
    events
}

fn gemini_chunk(model: &str, number: usize, parts: Value, finish: Value, usage: Option<TokenCounts>) -> String {
    let mut candidate = json!({"content": {"parts": parts, "role": "model"}, "index": 0});
    if !finish.is_null() {
        candidate["finishReason"] = finish;
    }
    let mut chunk = json!({"candidates": [candidate], "modelVersion": model, "responseId": format!("resp_{number}")});
    if let Some(counts) = usage {
        let said = counts.output - counts.reasoning;
        chunk["usageMetadata"] = json!({"promptTokenCount": counts.input, "cachedContentTokenCount": counts.cached,
            "candidatesTokenCount": said, "thoughtsTokenCount": counts.reasoning,
            "totalTokenCount": counts.input + counts.output});
    }
    format!("data: {chunk}\r\n\r\n")
}

/// Returns the signature of these thoughts. Clients take nothing but base64, and hexadecimal digits by fours are some.
pub fn gemini_signature(thoughts: &str) -> String {
    let digits = thoughts.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
    let padding = "0".repeat(digits.len().next_multiple_of(4) - digits.len());
    format!("{SIGNED}{digits}{padding}")
}

/// The first call is signed, or else the last part of the answer.
fn gemini(answer: &Rendered<'_>) -> Vec<String> {
    let chunk = |part: Value| gemini_chunk(answer.model, answer.number, json!([part]), Value::Null, None);
    let thoughts = answer.blocks.iter().map(|block| match block {
        Block::Reasoning(text) => text.as_str(),
        Block::Text(_) | Block::Call { .. } => "",
    });
    let mut signature = Some(gemini_signature(&thoughts.collect::<String>()));
    let mut events = Vec::new();
    let mut calls = 0;
    for block in answer.blocks {
        match block {
            Block::Text(text) => events.extend(tokens(text).into_iter().map(|piece| chunk(json!({"text": piece})))),
            Block::Reasoning(text) => {
                events.extend(tokens(text).into_iter().map(|piece| chunk(json!({"text": piece, "thought": true}))));
            }
            Block::Call { name, arguments, .. } => {
                // What is no JSON can only stand in a text.
                let args = serde_json::from_str(arguments).unwrap_or_else(|_| json!(arguments));
                let id = format!("fc_{}_{calls}", answer.number);
                let mut part = json!({"functionCall": {"id": id, "name": name, "args": args}});
                if let Some(signature) = signature.take() {
                    part["thoughtSignature"] = json!(signature);
                }
                events.push(chunk(part));
                calls += 1;
            }
        }
    }
    let finish = match answer.stop {
        Some(Stop::MaxTokens) => "MAX_TOKENS",
        Some(Stop::Refusal) => "SAFETY",
        None => "STOP",
    };
    let mut last = json!({"text": ""});
    if let Some(signature) = signature {
        last["thoughtSignature"] = json!(signature);
    }
    let last = gemini_chunk(answer.model, answer.number, json!([last]), json!(finish), Some(answer.counts));
    events.push(last);
    events
}
