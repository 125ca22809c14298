//! Gemini's wire, which names the model in the path: as it is, and as a target for callers of other wires.

use super::{
    Door, KEY,
    client::ask,
    puppet::{Puppet, chunk, stream_end, stream_head, whole},
};
use adj_domain::{StopReason, Usage};
use adj_gateway::endpoint::Outcome;
use adj_providers::WireKind;
use adj_testkit::{FakeVendor, Reply, TokenCounts};
use serde_json::json;

async fn post(door: &Door, path: &str, body: &str) -> super::client::Answer {
    let token = door.token.expose();
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: d\r\nx-goog-api-key: {token}\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    ask(door.address, request.as_bytes()).await
}

#[tokio::test]
async fn a_stream_passes_byte_for_byte_and_is_read_along() {
    let events = "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"Hi\"}]}}],\"modelVersion\":\"g-3-1\"}\r\n\r\n\
                  data: {\"candidates\":[{\"finishReason\":\"STOP\"}],\"usageMetadata\":{\"promptTokenCount\":9,\
                  \"cachedContentTokenCount\":4,\"candidatesTokenCount\":2,\"thoughtsTokenCount\":3},\"modelVersion\":\"g-3-1\"}\r\n\r\n";
    for (version, model, sent) in
        [("v1beta", "g-3", "g-3"), ("v1", "models%2Fg", "models%2Fg"), ("v1beta", "other", "the%20%22real%22%20one")]
    {
        let acts = [vec![stream_head()], events.as_bytes().chunks(7).map(chunk).collect(), vec![stream_end()]].concat();
        let mut vendor = Puppet::playing(acts).await;
        let door = Door::to(WireKind::Gemini, &vendor.url()).await;
        let body = " {\"contents\" : [], \"model\":\"kept\"}\n";
        let answer =
            post(&door, &format!("/{version}/models/{model}:streamGenerateContent?alt=sse&key=adjt_no"), body).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, events));
        let (head, heard) = vendor.request().await;
        assert!(
            head.starts_with(&format!("POST /{version}/models/{sent}:streamGenerateContent?alt=sse HTTP")),
            "{head}"
        );
        assert!(head.contains(&format!("x-goog-api-key: {KEY}")) && !head.contains("adjt_"), "{head}");
        assert_eq!(String::from_utf8_lossy(&heard), body);
        let closing = door.closed().await.remove(0);
        assert_eq!((closing.outcome, closing.stop), (Outcome::Answered, Some(StopReason::EndTurn)));
        let usage =
            Usage { input_tokens: 5, output_tokens: 5, cache_read_tokens: 4, reasoning_tokens: 3, ..Usage::default() };
        assert_eq!((closing.usage, closing.model_answered.as_deref()), (Some(usage), Some("g-3-1")));
    }
}

#[tokio::test]
async fn documents_lists_pages_and_cuts_are_told_apart() {
    let json_type = "content-type: application/json\r\n";
    let cut = vec![stream_head(), chunk("data: {\"candidates\":[]}\n\n"), stream_end()];
    let cases = [
        ("generateContent", whole("200 OK", json_type, "{\"candidates\":[]}"), 200, "{\"candidates\":[]}"),
        ("countTokens", whole("200 OK", json_type, "{\"totalTokens\":3}"), 200, "{\"totalTokens\":3}"),
        ("streamGenerateContent", whole("200 OK", json_type, "[{}]"), 200, "[{}]"),
        ("streamGenerateContent?alt=sse", whole("200 OK", json_type, "[{}]"), 502, "{\"error\":{\"code\":502,"),
        ("generateContent", whole("200 OK", "content-type: text/html\r\n", "<html>"), 502, "{\"error\":{\"code\":502,"),
        ("streamGenerateContent?alt=sse", cut, 200, "data: {\"candidates\":[]}\n\ndata: {\"error\":{\"code\":502,"),
    ];
    for (method, acts, status, beginning) in cases {
        let vendor = Puppet::playing(acts).await;
        let door = Door::to(WireKind::Gemini, &vendor.url()).await;
        let answer = post(&door, &format!("/v1beta/models/m:{method}"), "{}").await;
        assert_eq!(answer.status, status, "{method}");
        assert!(answer.whole && answer.text().starts_with(beginning), "{method}: {}", answer.text());
    }
}

#[tokio::test]
async fn callers_of_other_wires_go_on_with_a_conversation_on_gemini() {
    let reply = || {
        Reply::text("I run it.")
            .and_call("bash", json!({"command": "make"}))
            .and_call("bash", json!({"command": "ls"}))
            .using(TokenCounts { input: 1000, cached: 900, output: 50, reasoning: 0 })
    };
    let schema = json!({"type": "object", "properties": {"command": {"type": "string"}}});
    let vendor = FakeVendor::answering([reply(), Reply::text("Done."), reply(), Reply::text("Done.")]);
    let door = Door::to(WireKind::Gemini, &vendor.url()).await;

    let mut body = json!({"model": "gemini-3-pro", "max_tokens": 99, "messages": [{"role": "user", "content": "Fix it."}],
        "tools": [{"name": "bash", "description": "Runs.", "input_schema": schema}]});
    let answer = post(&door, "/v1/messages", &body.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let message = answer.json();
    assert_eq!(message["stop_reason"], "tool_use");
    let calls = message["content"].as_array().expect("a list").iter().filter(|block| block["type"] == "tool_use");
    let results = calls.map(|call| json!({"type": "tool_result", "tool_use_id": call["id"], "content": "ok"}));
    let results = results.rev().collect::<Vec<_>>();
    let messages = body["messages"].as_array_mut().expect("a list");
    messages.push(json!({"role": "assistant", "content": message["content"]}));
    messages.push(json!({"role": "user", "content": results}));
    let answer = post(&door, "/v1/messages", &body.to_string()).await;
    assert!(answer.text().contains("{\"type\":\"text\",\"text\":\"Done.\"}"), "{}", answer.text());

    let mut body = json!({"model": "gemini-3-pro", "input": [{"role": "user", "content": "Fix that."}],
        "tools": [{"type": "function", "name": "bash", "description": "Runs.", "parameters": schema}]});
    let answer = post(&door, "/v1/responses", &body.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let output = answer.json()["output"].as_array().expect("a list").clone();
    let input = body["input"].as_array_mut().expect("a list");
    input.extend(output.iter().cloned());
    let calls = output.iter().filter(|item| item["type"] == "function_call");
    input.extend(
        calls.map(|call| json!({"type": "function_call_output", "call_id": call["call_id"], "output": "ok"})).rev(),
    );
    let answer = post(&door, "/v1/responses", &body.to_string()).await;
    assert!(answer.text().contains("\"text\":\"Done.\""), "{}", answer.text());
}

/// Gemini signs texts when they are over, and Claude Code takes the last block for the answer.
#[tokio::test]
async fn a_signature_that_comes_after_the_last_word_does_not_become_the_last_word() {
    let vendor = FakeVendor::answering([Reply::empty().and_reasoning("Nearly.").and_text("Done.")]);
    let door = Door::to(WireKind::Gemini, &vendor.url()).await;
    let body = json!({"model": "gemini-3-pro", "max_tokens": 99, "stream": true,
        "messages": [{"role": "user", "content": "Fix it."}]});
    let answer = post(&door, "/v1/messages", &body.to_string()).await;
    let text = answer.text();
    let mut blocks = text.lines().filter_map(|line| line.strip_prefix("data: {\"type\":\"content_block_start\""));
    let last = blocks.next_back().expect("there are blocks");
    assert!(last.contains("\"content_block\":{\"type\":\"text\""), "{text}");
}

/// Codex asks for that, and nothing on this wire can say it.
#[tokio::test]
async fn of_several_calls_a_caller_gets_one_if_it_wants_no_more() {
    let replies = (0..4).map(|_| {
        let first = Reply::text("Two things.").and_call("look", json!({"at": "one"}));
        first.and_call("look", json!({"at": "two"}))
    });
    let vendor = FakeVendor::answering(replies);
    let door = Door::to(WireKind::Gemini, &vendor.url()).await;
    for (stream, single) in [(true, true), (false, true), (true, false), (false, false)] {
        let body = json!({"model": "m", "input": "look", "stream": stream, "parallel_tool_calls": !single,
            "tools": [{"type": "function", "name": "look", "parameters": {"type": "object"}}]});
        let answer = post(&door, "/v1/responses", &body.to_string()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let losses = answer.header("x-adjutant-losses").unwrap_or_default();
        assert_eq!(losses.contains("parallel_tool_calls"), single, "{losses}");
        let text = answer.text().replace([' ', '\\'], "");
        assert!(text.contains("{\"at\":\"one\"}"), "{text}");
        assert_eq!(text.contains("two\""), !single, "{text}");
    }
}
