//! Callers of chat completions on other vendors' models.

use super::{
    Door,
    client::Answer,
    puppet::{Puppet, whole},
    reply_calling,
};
use adj_domain::{FailureKind, Usage};
use adj_gateway::endpoint::Outcome;
use adj_providers::WireKind;
use adj_testkit::{FakeVendor, Reply, Wire};
use serde_json::{Value, json};

const OTHERS: [WireKind; 3] = [WireKind::Anthropic, WireKind::OpenAi, WireKind::Gemini];

fn request(stream: bool) -> Value {
    let schema = json!({"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]});
    json!({
        "model": "gemini-3-pro", "stream": stream, "stream_options": {"include_usage": true},
        "max_completion_tokens": 4096, "reasoning_effort": "high", "seed": 7, "user": "u", "frequency_penalty": 0,
        "n": 1, "parallel_tool_calls": true, "tool_choice": "auto",
        "messages": [
            {"role": "developer", "content": "You fix programs."},
            {"role": "user", "name": "ann", "content": [
                {"type": "text", "text": "Fix it."},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk=", "detail": "high"}}]}],
        "tools": [
            {"type": "function", "function": {"name": "bash", "description": "Runs a command.", "strict": true, "parameters": schema}},
            {"type": "custom", "custom": {"name": "patch", "description": "Patches.",
                "format": {"type": "grammar", "grammar": {"syntax": "lark", "definition": "start: /.+/"}}}}]
    })
}

async fn post(door: &Door, body: &Value) -> Answer {
    door.post(WireKind::Chat, body.to_string().as_bytes()).await
}

/// Puts a fixed word in the place of what is different each time.
fn without_ids(text: &str) -> String {
    let mut found = String::new();
    let mut rest = text;
    while let Some(place) = ["chatcmpl-", "call_"].iter().filter_map(|mark| Some(rest.find(mark)? + mark.len())).min() {
        found.push_str(&rest[..place]);
        let id = rest[place..].chars().take_while(char::is_ascii_alphanumeric).count();
        found.push_str(if id == 20 { "ID" } else { &rest[place..place + id] });
        rest = &rest[place + id..];
    }
    found + rest
}

/// Takes a stream apart as the official client does, and is as strict: returns the message, its reason to end, and the usage.
fn accumulate(text: &str) -> (Value, Value, Value) {
    let mut message = json!({"content": "", "reasoning_content": "", "reasoning_details": []});
    let mut calls: Vec<Value> = Vec::new();
    let (mut reason, mut usage) = (Value::Null, Value::Null);
    let mut id = Value::Null;
    let frames = text.strip_suffix("data: [DONE]\n\n").expect("it ends as it should");
    for (number, frame) in frames.split("\n\n").filter(|frame| !frame.is_empty()).enumerate() {
        let data = frame.strip_prefix("data: ").expect("nothing but data");
        let chunk: Value = serde_json::from_str(data).expect("it is JSON");
        assert_eq!((&chunk["object"], &chunk["model"]), (&json!("chat.completion.chunk"), &json!("gemini-3-pro")));
        assert!(usage.is_null(), "usage is the last word");
        if number == 0 {
            id = chunk["id"].clone();
            assert_eq!(chunk["choices"][0]["delta"]["role"], "assistant");
        }
        assert_eq!(chunk["id"], id);
        usage = chunk["usage"].clone();
        let Some(choice) = chunk["choices"].get(0) else { continue };
        assert!(reason.is_null(), "nothing follows the end");
        reason = choice["finish_reason"].clone();
        let delta = &choice["delta"];
        for name in ["content", "reasoning_content"] {
            let whole = message[name].as_str().unwrap_or_default().to_owned();
            message[name] = json!(whole + delta[name].as_str().unwrap_or_default());
        }
        for detail in delta["reasoning_details"].as_array().into_iter().flatten() {
            let details = message["reasoning_details"].as_array_mut().expect("a list");
            assert_eq!(detail["index"], details.len(), "no gaps");
            details.push(detail.clone());
        }
        for call in delta["tool_calls"].as_array().into_iter().flatten() {
            let place = call["index"].as_u64().expect("a number") as usize;
            match calls.get_mut(place) {
                None => {
                    assert_eq!(place, calls.len(), "no gaps");
                    calls.push(call.clone());
                }
                Some(held) => {
                    let kind = if held["type"] == "custom" { "custom" } else { "function" };
                    assert!(call["id"].is_null() && call[kind]["name"].is_null(), "names come once");
                    for key in ["arguments", "input"] {
                        if let Some(piece) = call[kind][key].as_str() {
                            held[kind][key] = json!(held[kind][key].as_str().unwrap_or_default().to_owned() + piece);
                        }
                    }
                }
            }
        }
    }
    message["role"] = json!("assistant");
    if !calls.is_empty() {
        message["tool_calls"] = json!(calls);
    }
    (message, reason, usage)
}

fn reply() -> Reply {
    reply_calling(&[("bash", json!({"command": "make"})), ("patch", json!({"input": "+ x"}))])
}

#[tokio::test]
async fn a_stream_of_another_vendor_is_written_as_openais_client_expects() {
    for wire in OTHERS {
        let vendor = FakeVendor::answering([reply()]);
        let door = Door::to(wire, &vendor.url()).await;
        let answer = post(&door, &request(true)).await;
        assert_eq!((answer.status, answer.whole), (200, true), "{}", answer.text());
        let losses = "grammar, image_url.detail, messages.name, seed, tools.strict, user";
        assert_eq!(answer.header("x-adjutant-losses"), Some(losses));
        assert_eq!(answer.header("content-type"), Some("text/event-stream; charset=utf-8"));
        let (message, reason, usage) = accumulate(&answer.text());
        assert_eq!((&message["content"], &reason), (&json!("I run it."), &json!("tool_calls")));
        assert_eq!((&usage["prompt_tokens"], &usage["total_tokens"]), (&json!(1000), &json!(1050)));
        insta::assert_snapshot!(format!("chat_on_{wire:?}"), without_ids(&answer.text()));
        insta::assert_snapshot!(format!("chat_to_{wire:?}"), format!("{:#}", vendor.requests().remove(0).body));
        let closing = door.closed().await.remove(0);
        assert_eq!((closing.outcome, closing.losses.join(", ").as_str()), (Outcome::Answered, losses));
        let usage = Usage { reasoning_tokens: 0, ..closing.usage.unwrap_or_default() };
        let expected = Usage { input_tokens: 100, output_tokens: 50, cache_read_tokens: 900, ..Usage::default() };
        assert_eq!(usage, expected);
    }
}

#[tokio::test]
async fn a_conversation_goes_on_with_results_in_any_order_and_the_vendors_own_reasoning() {
    for wire in OTHERS {
        for stream in [true, false] {
            let vendor = FakeVendor::answering([reply(), Reply::text("Done.").in_chunks_of(3)]);
            let door = Door::to(wire, &vendor.url()).await;
            let mut body = request(stream);
            let answer = post(&door, &body).await;
            let (message, reason, usage) = match stream {
                true => accumulate(&answer.text()),
                false => {
                    let mut whole = answer.json();
                    assert_eq!(whole["object"], "chat.completion");
                    let choice = &mut whole["choices"][0];
                    (choice["message"].take(), choice["finish_reason"].take(), whole["usage"].take())
                }
            };
            assert_eq!(
                (&reason, &usage["prompt_tokens_details"]["cached_tokens"]),
                (&json!("tool_calls"), &json!(900))
            );
            assert_eq!(message["content"], "I run it.");
            assert_eq!(message["reasoning_content"], "Let me see.");
            let calls = message["tool_calls"].as_array().expect("a list").clone();
            assert_eq!(calls[0]["function"], json!({"name": "bash", "arguments": "{\"command\":\"make\"}"}));
            assert_eq!(
                (&calls[1]["type"], &calls[1]["custom"]),
                (&json!("custom"), &json!({"name": "patch", "input": "+ x"}))
            );
            assert_ne!(calls[0]["id"], calls[1]["id"]);
            let result =
                |place: usize, text: &str| json!({"role": "tool", "tool_call_id": calls[place]["id"], "content": text});
            let said = [
                message.clone(),
                result(1, "patched"),
                result(0, "made"),
                json!({"role": "system", "content": "Be brief."}),
            ];
            body["messages"].as_array_mut().expect("a list").extend(said);
            let answer = post(&door, &body).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            let asked = vendor.requests().remove(1);
            let text = asked.body.to_string();
            // The vendor is strict: every call answered, in its place; here is what it cannot know.
            let own = match asked.wire {
                Wire::Responses => "\"encrypted_content\":\"encrypted:Let me see.\"",
                Wire::Messages => "\"signature\":\"signed:Let me see.\"",
                _ => "\"thoughtSignature\":\"c2lnbmVk",
            };
            assert!(text.contains(own), "{text}");
            let places = ["made", "patched", "<system-reminder>"].map(|word| text.rfind(word).unwrap_or(0));
            assert!(places.is_sorted() && places[0] > 0, "{places:?} {text}");
            if stream {
                let (message, reason, _) = accumulate(&answer.text());
                assert_eq!((&message["content"], &reason), (&json!("Done."), &json!("stop")));
            }
        }
    }
}

#[tokio::test]
async fn an_answer_in_a_form_is_asked_for_in_each_vendors_own_words() {
    let schema = json!({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": false});
    let strict = json!({"type": "json_schema", "json_schema": {"name": "n", "schema": schema, "strict": true}});
    for (wire, model, format, expected) in [
        (
            WireKind::OpenAi,
            "gpt-5.5",
            &strict,
            "\"format\":{\"type\":\"json_schema\",\"name\":\"answer\",\"strict\":true",
        ),
        (WireKind::Anthropic, "claude-sonnet-4-6", &strict, "\"output_config\":{\"format\":{\"type\":\"json_schema\""),
        (WireKind::Anthropic, "claude-sonnet-4-6", &json!({"type": "json_object"}), "one JSON value, and nothing else"),
        (
            WireKind::Gemini,
            "gemini-3-pro",
            &strict,
            "\"responseJsonSchema\":{\"type\":\"object\",\"properties\":{\"n\"",
        ),
    ] {
        let vendor = FakeVendor::answering([Reply::text("{\"n\": 1}")]);
        let door = Door::to(wire, &vendor.url()).await;
        let body =
            json!({"model": model, "messages": [{"role": "user", "content": "Count."}], "response_format": format});
        let answer = post(&door, &body).await;
        assert_eq!(answer.json()["choices"][0]["message"]["content"], "{\"n\": 1}", "{}", answer.text());
        let asked = vendor.requests().remove(0).body.to_string();
        assert!(asked.contains(expected), "{asked}");
    }
}

#[tokio::test]
async fn what_no_other_vendor_has_is_refused_by_name() {
    let mut vendor = Puppet::playing(Vec::new()).await;
    let door = Door::to(WireKind::OpenAi, &vendor.url()).await;
    let part = |part: Value| ("/messages/1/content", json!([part]));
    let call = |fields: Value| ("/messages/-", json!([fields]));
    let cases = [
        (("/n", json!(2)), "n (more than one answer) needs a vendor that speaks chat completions"),
        (("/logprobs", json!(true)), "logprobs"),
        (("/top_logprobs", json!(3)), "top_logprobs"),
        (("/logit_bias", json!({"50256": -100})), "logit_bias"),
        (("/prediction", json!({"type": "content", "content": "x"})), "prediction"),
        (("/modalities", json!(["text", "audio"])), "modalities"),
        (("/audio", json!({"voice": "x"})), "audio"),
        (("/functions", json!([{"name": "f"}])), "functions"),
        (("/stop", json!("END")), "stop sequences"),
        (("/max_completion_tokens", json!(0)), "max_completion_tokens: a whole number"),
        (("/response_format", json!({"type": "grammar"})), "response_format"),
        (("/tools", json!([{"type": "code_interpreter"}])), "code_interpreter"),
        (("/tools", json!([{"type": "function"}])), "each needs a name"),
        (("/tool_choice", json!({"type": "function", "function": {"name": "nope"}})), "no tool \"nope\""),
        (("/messages", json!([])), "at least one message"),
        (("/messages", json!("hi")), "messages: a list"),
        (("/messages/1/role", json!("function")), "a message's role"),
        (part(json!({"type": "input_audio", "input_audio": {}})), "input_audio"),
        (part(json!({"type": "file", "file": {"file_id": "f"}})), "file_id"),
        (part(json!({"type": "image_url", "image_url": {"url": "aGk="}})), "image_url"),
        (call(json!({"role": "tool", "tool_call_id": "t", "content": ""})), "no open call"),
        (call(json!({"role": "assistant", "content": "Sure, "})), "prefill"),
        (
            call(
                json!({"role": "assistant", "tool_calls": [{"id": "t", "function": {"name": "bash", "arguments": ""}}]}),
            ),
            "has no result",
        ),
        (call(json!({"role": "assistant", "function_call": {"name": "f"}})), "function_call of an assistant's message"),
    ];
    for ((place, value), words) in cases {
        let mut body = request(true);
        match (place, body.pointer_mut(place)) {
            ("/messages/-", _) => body["messages"].as_array_mut().expect("a list").push(value[0].clone()),
            (_, Some(held)) => *held = value,
            (_, None) => body[&place[1..]] = value,
        }
        let answer = post(&door, &body).await;
        let error = answer.json();
        let message = error["error"]["message"].as_str().unwrap_or_default();
        assert_eq!(
            (answer.status, &error["error"]["type"]),
            (400, &json!("invalid_request_error")),
            "{words}: {message}"
        );
        assert!(message.contains(words), "{words}: {message}");
    }
    assert!(vendor.was_left_alone());
}

#[tokio::test]
async fn search_at_the_vendor_is_left_out_only_where_other_tools_remain() {
    let vendor = FakeVendor::answering([Reply::text("Done.")]);
    let door = Door::to(WireKind::Anthropic, &vendor.url()).await;
    let mut body = request(false);
    body["web_search_options"] = json!({});
    let answer = post(&door, &body).await;
    assert!(answer.header("x-adjutant-losses").is_some_and(|losses| losses.contains("web_search_options")));
    body["tools"] = json!([]);
    let answer = post(&door, &body).await;
    assert!(answer.status == 400 && answer.text().contains("web_search_options"), "{}", answer.text());
}

#[tokio::test]
async fn failures_have_the_shape_and_the_words_that_the_client_acts_on() {
    let failure = |status: &str, headers: &str, message: &str| {
        whole(status, headers, json!({"error": {"message": message}}).to_string())
    };
    let cases = [
        (failure("429 Slow", "retry-after: 90\r\n", "slow down"), 429, json!("rate_limit_exceeded"), "slow down"),
        (
            failure("400 Bad", "", "maximum context length is 9"),
            400,
            json!("context_length_exceeded"),
            "context length",
        ),
        (failure("401 No", "", "no such key"), 401, json!("invalid_api_key"), "no such key"),
        (whole("200 OK", "content-type: text/html\r\n", "<html>"), 502, json!("bad_gateway"), "text/html"),
    ];
    for (acts, status, code, words) in cases {
        for stream in [true, false] {
            let vendor = Puppet::playing(acts.clone()).await;
            let door = Door::to(WireKind::OpenAi, &vendor.url()).await;
            let answer = post(&door, &request(stream)).await;
            assert_eq!((answer.status, &answer.json()["error"]["code"]), (status, &code), "{}", answer.text());
            assert!(answer.text().contains(words), "{}", answer.text());
            assert!(matches!(door.closed().await.remove(0).outcome, Outcome::Failed { .. }));
        }
    }
}

#[tokio::test]
async fn a_cut_answer_becomes_an_error_and_no_call_of_it_is_ever_sent() {
    let vendor = FakeVendor::answering([reply().broken_after(2600)]);
    let door = Door::to(WireKind::OpenAi, &vendor.url()).await;
    let answer = post(&door, &request(true)).await;
    let text = answer.text();
    assert!(answer.whole && text.contains("I run"), "{text}");
    assert!(!text.contains("tool_calls") && !text.contains("[DONE]"), "{text}");
    let last = text.trim_end().rsplit("\n\n").next().unwrap_or_default();
    assert!(last.starts_with("data: {\"error\":{\"message\":") && last.contains("bad_gateway"), "{last}");
    let Outcome::Failed { kind, .. } = door.closed().await.remove(0).outcome else { panic!("it failed") };
    assert_eq!(kind, FailureKind::Connection);
}

#[tokio::test]
async fn an_answer_says_why_it_ended_and_usage_only_where_it_was_asked_for() {
    let cases = [
        (Reply::text("Half").out_of_tokens(), "length"),
        (Reply::text("No.").refusing(), "content_filter"),
        (Reply::text("Done."), "stop"),
    ];
    for (reply, expected) in cases {
        let vendor = FakeVendor::answering([reply]);
        let door = Door::to(WireKind::Anthropic, &vendor.url()).await;
        let mut body = request(true);
        body["stream_options"] = json!(null);
        let answer = post(&door, &body).await;
        let (_, reason, _) = accumulate(&answer.text());
        assert_eq!(reason, expected);
        assert!(!answer.text().contains("usage"), "{}", answer.text());
    }
}

#[tokio::test]
async fn arguments_that_are_not_json_are_not_made_into_some() {
    for stream in [true, false] {
        let vendor = FakeVendor::answering([Reply::empty().and_raw_call("bash", "{\"command\": rm")]);
        let door = Door::to(WireKind::OpenAi, &vendor.url()).await;
        let answer = post(&door, &request(stream)).await;
        let message = if stream { accumulate(&answer.text()).0 } else { answer.json()["choices"][0]["message"].take() };
        assert_eq!(message["tool_calls"][0]["function"]["arguments"], "{\"command\": rm", "{}", answer.text());
    }
}
