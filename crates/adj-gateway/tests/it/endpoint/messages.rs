//! Callers of the Messages API on other vendors' models.

use super::{
    Door,
    client::{Answer, ask},
    puppet::{Puppet, chunk, say, stream_end, stream_head, whole},
    reply_calling,
};
use adj_domain::{FailureKind, Usage};
use adj_gateway::endpoint::Outcome;
use adj_providers::WireKind;
use adj_testkit::{FakeVendor, Reply, Wire};
use serde_json::{Value, json};
use std::time::Duration;

const OTHERS: [WireKind; 2] = [WireKind::OpenAi, WireKind::Chat];

fn request(stream: bool) -> Value {
    json!({
        "model": "claude-sonnet-4-6", "max_tokens": 4096, "stream": stream,
        "system": [
            {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1"},
            {"type": "text", "text": "You fix programs.", "cache_control": {"type": "ephemeral"}}
        ],
        "messages": [{"role": "user", "content": "Fix it."}],
        "tools": [{"name": "bash", "description": "Runs a command.", "input_schema": {
            "$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object",
            "properties": {"command": {"type": "string"}}, "required": ["command"]}}],
        "thinking": {"type": "adaptive"}, "output_config": {"effort": "high"},
        "metadata": {"user_id": "{}"},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}
    })
}

async fn post(door: &Door, path: &str, body: &Value) -> Answer {
    ask(door.address, &door.request(WireKind::Anthropic, path, body.to_string().as_bytes())).await
}

/// Puts a fixed word in the place of what is different each time.
fn without_ids(text: &str) -> String {
    let mut found = String::new();
    let mut rest = text;
    while let Some(place) = ["msg_", "toolu_"].iter().filter_map(|mark| Some(rest.find(mark)? + mark.len())).min() {
        found.push_str(&rest[..place]);
        let id = rest[place..].chars().take_while(char::is_ascii_alphanumeric).count();
        found.push_str(if id == 20 { "ID" } else { &rest[place..place + id] });
        rest = &rest[place + id..];
    }
    found + rest
}

/// Takes a stream apart as the official client does, and is as strict.
fn accumulate(text: &str) -> (Vec<Value>, Value) {
    let mut blocks: Vec<Value> = Vec::new();
    let mut arguments = String::new();
    let mut end = Value::Null;
    for frame in text.split("\n\n").filter(|frame| !frame.is_empty()) {
        let (name, data) = frame.split_once('\n').expect("every frame has a name and data");
        let event: Value =
            serde_json::from_str(data.strip_prefix("data: ").expect("data follows")).expect("it is JSON");
        assert_eq!(name.strip_prefix("event: "), event["type"].as_str());
        let place = event["index"].as_u64().unwrap_or(0) as usize;
        match event["type"].as_str().unwrap_or_default() {
            "message_start" => {
                assert!(blocks.is_empty() && event["message"]["usage"]["input_tokens"].is_u64());
                assert_eq!(event["message"]["model"], "claude-sonnet-4-6", "the name that was asked for");
            }
            "content_block_start" => {
                assert_eq!(place, blocks.len(), "no gaps");
                blocks.push(event["content_block"].clone());
                arguments.clear();
            }
            "content_block_delta" => {
                let (block, delta) = (&mut blocks[place], &event["delta"]);
                let mut append = |name: &str| {
                    let whole =
                        block[name].as_str().unwrap_or_default().to_owned() + delta[name].as_str().expect("a text");
                    block[name] = json!(whole);
                };
                match delta["type"].as_str().unwrap_or_default() {
                    "text_delta" => append("text"),
                    "thinking_delta" => append("thinking"),
                    "signature_delta" => block["signature"] = delta["signature"].clone(),
                    _ => arguments.push_str(delta["partial_json"].as_str().expect("a text")),
                }
            }
            "content_block_stop" if blocks[place]["type"] == "tool_use" => {
                blocks[place]["input"] = serde_json::from_str(&arguments).unwrap_or(json!(arguments));
            }
            "message_delta" => end = event,
            _ => {}
        }
    }
    (blocks, end)
}

fn reply() -> Reply {
    reply_calling(&[("bash", json!({"command": "make"})), ("bash", json!({"command": "ls"}))])
}

#[tokio::test]
async fn a_stream_of_another_vendor_is_written_as_claudes_client_expects() {
    for wire in OTHERS {
        let vendor = FakeVendor::answering([reply()]);
        let door = Door::to(wire, &vendor.url()).await;
        let answer = post(&door, "/v1/messages?beta=true", &request(true)).await;
        assert_eq!((answer.status, answer.whole), (200, true), "{}", answer.text());
        assert_eq!(answer.header("x-adjutant-model"), Some("vendor/claude-sonnet-4-6"));
        let losses = "cache_control, context_management, metadata, x-anthropic-billing-header";
        assert_eq!(answer.header("x-adjutant-losses"), Some(losses));
        insta::assert_snapshot!(format!("messages_on_{wire:?}"), without_ids(&answer.text()));
        let asked = vendor.requests().remove(0);
        insta::assert_snapshot!(format!("messages_to_{wire:?}"), format!("{:#}", asked.body));
        let closing = door.closed().await.remove(0);
        assert_eq!((closing.outcome, closing.losses.join(", ").as_str()), (Outcome::Answered, losses));
        let usage = Usage {
            input_tokens: 100,
            output_tokens: 50,
            cache_read_tokens: 900,
            reasoning_tokens: 20,
            ..Usage::default()
        };
        assert_eq!(closing.usage, Some(usage));
        assert!(door.opened()[0].converted && closing.first_token.is_some());
    }
}

#[tokio::test]
async fn a_conversation_goes_on_with_results_in_any_order_and_the_vendors_own_reasoning() {
    for wire in OTHERS {
        for stream in [true, false] {
            let vendor = FakeVendor::answering([reply(), Reply::text("Done.").in_chunks_of(3)]);
            let door = Door::to(wire, &vendor.url()).await;
            let mut body = request(stream);
            let answer = post(&door, "/v1/messages", &body).await;
            let (blocks, end) = match stream {
                true => accumulate(&answer.text()),
                false => {
                    let message = answer.json();
                    let end = json!({"delta": {"stop_reason": message["stop_reason"]}, "usage": message["usage"]});
                    (message["content"].as_array().expect("a list").clone(), end)
                }
            };
            assert_eq!(end["delta"]["stop_reason"], "tool_use");
            assert_eq!(
                (&end["usage"]["input_tokens"], &end["usage"]["cache_read_input_tokens"]),
                (&json!(100), &json!(900))
            );
            let calls = blocks.iter().filter(|block| block["type"] == "tool_use").cloned().collect::<Vec<_>>();
            assert_eq!(calls.len(), 2, "{blocks:?}");
            assert_ne!(calls[0]["id"], calls[1]["id"]);
            let mut results = calls.iter().map(|call| {
                json!({"type": "tool_result", "tool_use_id": call["id"], "content": [{"type": "text", "text": call["input"]["command"]}]})
            });
            let results = [results.next(), results.next()].map(|result| result.expect("two calls"));
            let said = json!([{"type": "text", "text": "Go on."}, results[1], results[0]]);
            let messages = body["messages"].as_array_mut().expect("a list");
            messages.push(json!({"role": "assistant", "content": blocks}));
            messages.push(json!({"role": "user", "content": said}));
            let answer = post(&door, "/v1/messages", &body).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            let asked = vendor.requests().remove(1);
            let text = asked.body.to_string();
            // The vendor of this wire is strict: every call answered, in its place; here is what it cannot know.
            match asked.wire {
                Wire::Responses => assert!(text.contains("\"encrypted_content\":\"encrypted:Let me see.\""), "{text}"),
                _ => assert!(text.contains("\"reasoning_content\":\"Let me see.\""), "{text}"),
            }
            let (make, ls) = (text.rfind("\"make\"").expect("a result"), text.rfind("\"ls\"").expect("a result"));
            assert!(make < ls, "results come in the order of their calls");
            if stream {
                let (blocks, end) = accumulate(&answer.text());
                assert_eq!(
                    (blocks, &end["delta"]["stop_reason"]),
                    (vec![json!({"type": "text", "text": "Done."})], &json!("end_turn"))
                );
            }
        }
    }
}

#[tokio::test]
async fn what_no_other_vendor_has_is_refused_by_name() {
    let mut vendor = Puppet::playing(Vec::new()).await;
    let door = Door::to(WireKind::OpenAi, &vendor.url()).await;
    let cases = [
        ("/max_tokens", json!(null), "max_tokens"),
        ("/container", json!({"id": "c"}), "container needs an Anthropic model"),
        ("/mcp_servers", json!([]), "mcp_servers"),
        ("/context_management", json!({"edits": [{"type": "clear_tool_uses_20250919"}]}), "clear_tool_uses_20250919"),
        ("/tools", json!([{"type": "code_execution_20250825", "name": "x"}]), "code_execution_20250825"),
        ("/tools", json!([{"type": "web_search_20250305", "name": "web_search"}]), "web_search"),
        ("/tool_choice", json!({"type": "tool", "name": "nope"}), "no tool \"nope\""),
        ("/messages", json!([]), "at least one message"),
        ("/messages/0/role", json!("robot"), "messages.role"),
        ("/messages/0/content", json!([{"type": "image", "source": {"type": "file", "file_id": "f"}}]), "source file"),
        ("/messages/0/content", json!([{"type": "document", "source": {"type": "url", "url": "u"}}]), "source url"),
        ("/messages/0/content", json!([{"type": "container_upload"}]), "container_upload"),
        ("/messages/0/content", json!([{"type": "tool_result", "tool_use_id": "t"}]), "no open call"),
        ("/messages/1", json!({"role": "assistant", "content": "Sure, "}), "prefill"),
        (
            "/messages/1",
            json!({"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "b", "input": {}}]}),
            "has no result",
        ),
        ("/messages/1", json!({"role": "assistant", "content": [{"type": "server_tool_use"}]}), "server_tool_use"),
        ("/stop_sequences", json!(["END"]), "stop sequences"),
    ];
    for (place, value, words) in cases {
        let mut body = request(true);
        match place {
            "/messages/1" => body["messages"].as_array_mut().expect("a list").push(value),
            _ => match body.pointer_mut(place) {
                Some(held) => *held = value,
                None => body[&place[1..]] = value,
            },
        }
        let answer = post(&door, "/v1/messages", &body).await;
        let error = answer.json();
        let message = error["error"]["message"].as_str().unwrap_or_default();
        assert_eq!(
            (answer.status, &error["error"]["type"]),
            (400, &json!("invalid_request_error")),
            "{place}: {message}"
        );
        assert!(message.contains(words), "{place}: {message}");
    }
    assert!(vendor.was_left_alone());
}

#[tokio::test]
async fn failures_have_the_shape_and_the_words_that_the_client_acts_on() {
    let page = whole("200 OK", "content-type: text/html\r\n", "<html>");
    let failure = |status: &str, headers: &str, message: &str| {
        whole(status, headers, json!({"error": {"message": message}}).to_string())
    };
    let head_then_error = vec![
        say("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nx-ratelimit-limit-requests: 50\r\n\
             x-ratelimit-remaining-requests: 49\r\ntransfer-encoding: chunked\r\n\r\n"),
        chunk("data: {\"error\":{\"code\":\"server_is_overloaded\",\"message\":\"too many of you\"}}\n\n"),
        stream_end(),
    ];
    let cases = [
        (failure("429 Slow", "retry-after: 70\r\n", "slow down"), 429, "rate_limit_error", "slow down"),
        (
            failure("400 Bad", "", "maximum context length is 9"),
            400,
            "invalid_request_error",
            "prompt is too long: maximum",
        ),
        (failure("401 No", "", "no such key"), 401, "authentication_error", "no such key"),
        (failure("400 Bad", "", "no such field"), 400, "invalid_request_error", "no such field"),
        (page, 502, "api_error", "text/html"),
        // Nothing was said but what the head says of limits: it is repeated, and then told with its own status.
        (head_then_error, 529, "overloaded_error", "too many of you"),
    ];
    for (acts, status, kind, words) in cases {
        for stream in [true, false] {
            let vendor = Puppet::playing(acts.clone()).await;
            let door = Door::to(WireKind::Chat, &vendor.url()).await;
            let answer = post(&door, "/v1/messages", &request(stream)).await;
            let error = answer.json();
            assert_eq!((answer.status, &error["error"]["type"]), (status, &json!(kind)), "{}", answer.text());
            assert!(answer.text().contains(words), "{}", answer.text());
            if status == 429 {
                assert_eq!(answer.header("retry-after"), Some("70"));
            }
            let closing = door.closed().await.remove(0);
            assert!(matches!(closing.outcome, Outcome::Failed { .. }));
        }
    }
}

#[tokio::test]
async fn a_cut_answer_becomes_an_error_and_no_call_of_it_is_ever_sent() {
    let vendor = FakeVendor::answering([reply().broken_after(2600)]);
    let door = Door::to(WireKind::OpenAi, &vendor.url()).await;
    let answer = post(&door, "/v1/messages", &request(true)).await;
    let text = answer.text();
    assert!(answer.whole && text.contains("I run"), "{text}");
    assert!(!text.contains("tool_use") && !text.contains("message_stop"), "{text}");
    let last = text.trim_end().rsplit("\n\n").next().unwrap_or_default();
    assert!(last.starts_with("event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"api_error\""), "{last}");
    let Outcome::Failed { kind, .. } = door.closed().await.remove(0).outcome else { panic!("it failed") };
    assert_eq!(kind, FailureKind::Connection);
}

#[tokio::test]
async fn a_failed_beginning_is_repeated_and_counted() {
    let vendor =
        FakeVendor::answering([Reply::failure(503, "overloaded", "later").retry_after("0.01"), Reply::text("Done.")]);
    let door = Door::to(WireKind::Chat, &vendor.url()).await;
    let answer = post(&door, "/v1/messages", &request(true)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let closing = door.closed().await.remove(0);
    assert_eq!((closing.retries, closing.outcome), (1, Outcome::Answered));
}

#[tokio::test]
async fn arguments_that_are_not_json_are_not_made_into_some() {
    for stream in [true, false] {
        let vendor = FakeVendor::answering([Reply::empty().and_raw_call("bash", "{\"command\": rm")]);
        let door = Door::to(WireKind::Chat, &vendor.url()).await;
        let answer = post(&door, "/v1/messages", &request(stream)).await;
        if stream {
            let (blocks, _) = accumulate(&answer.text());
            assert_eq!(blocks[0]["input"], "{\"command\": rm");
        } else {
            assert_eq!(answer.status, 502);
            assert!(answer.text().contains("bash with arguments that are not JSON"), "{}", answer.text());
        }
    }
}

#[tokio::test]
async fn tokens_are_estimated_and_said_to_be() {
    let door = Door::to(WireKind::Chat, "http://127.0.0.1:1").await;
    let answer = post(&door, "/v1/messages/count_tokens?beta=true", &request(false)).await;
    assert_eq!((answer.status, answer.header("x-adjutant-estimated")), (200, Some("true")), "{}", answer.text());
    let count = answer.json()["input_tokens"].as_u64().unwrap_or(0);
    assert!((20..400).contains(&count), "{count}");
    assert!(door.opened().is_empty());
}

#[tokio::test]
async fn a_caller_that_hangs_up_ends_the_other_vendors_stream_too() {
    use tokio::io::AsyncWriteExt;
    let event = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"}}]}\n\n";
    let mut vendor = Puppet::playing(vec![stream_head(), chunk(event), super::puppet::Act::Listen]).await;
    let door = Door::to(WireKind::Chat, &vendor.url()).await;
    let mut caller = tokio::net::TcpStream::connect(door.address).await.expect("the door listens");
    let request = door.request(WireKind::Anthropic, "/v1/messages", request(true).to_string().as_bytes());
    caller.write_all(&request).await.expect("the door reads");
    vendor.request().await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    drop(caller);
    assert!(matches!(vendor.heard().await, super::puppet::Heard::HungUp));
    assert_eq!(door.closed().await.remove(0).outcome, Outcome::Abandoned);
}
