//! Callers of the Responses API on other vendors' models.

use super::{
    Door,
    client::{Answer, ask},
    puppet::Puppet,
    reply_calling,
};
use adj_domain::Usage;
use adj_gateway::endpoint::Outcome;
use adj_providers::WireKind;
use adj_testkit::{FakeVendor, Reply, Wire};
use serde_json::{Value, json};

const OTHERS: [WireKind; 2] = [WireKind::Anthropic, WireKind::Chat];

/// A request as Codex writes them: no `tools`, but an item that holds them.
fn request(stream: bool) -> Value {
    let message = json!({"type": "object", "properties": {"message": {"type": "string", "encrypted": true}}});
    json!({
        "model": "gpt-6", "stream": stream, "store": false, "include": ["reasoning.encrypted_content"],
        "reasoning": {"effort": "high", "context": "all_turns"}, "text": {"verbosity": "low"},
        "tool_choice": "auto", "parallel_tool_calls": true, "prompt_cache_key": "t", "client_metadata": {"thread_id": "t"},
        "input": [
            {"type": "additional_tools", "role": "developer", "tools": [
                {"type": "namespace", "name": "functions", "tools": [
                    {"type": "custom", "name": "exec", "description": "Runs code.",
                     "format": {"type": "grammar", "syntax": "lark", "definition": "start: /.+/"}}]},
                {"type": "namespace", "name": "clock", "tools": [
                    {"type": "function", "name": "sleep", "description": "Waits.", "strict": false, "parameters": message},
                    {"type": "function", "name": "later", "defer_loading": true, "parameters": {}}]},
                {"type": "tool_search", "execution": "client", "description": "Finds tools.", "parameters": null},
                {"type": "web_search", "search_content_types": ["text"]}]},
            {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "You fix programs."}]},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Fix it."}]}
        ]
    })
}

async fn post(door: &Door, body: &Value) -> Answer {
    ask(door.address, &door.request(WireKind::OpenAi, "/v1/responses", body.to_string().as_bytes())).await
}

/// Puts a fixed word in the place of what is different each time.
fn without_ids(text: &str) -> String {
    let mut found = text.to_owned();
    for mark in ["resp_", "call_"] {
        while let Some(place) = found.match_indices(mark).map(|(place, _)| place + mark.len()).find(|place| {
            let id = found[*place..].chars().take_while(char::is_ascii_alphanumeric).count();
            id == 20
        }) {
            let id = found[place..place + 20].to_owned();
            found = found.replace(&id, "ID");
        }
    }
    found
}

/// Takes a stream apart as the official client does, and is as strict; returns the last event.
fn accumulate(text: &str) -> Value {
    let mut items: Vec<Value> = Vec::new();
    let mut done = 0;
    let mut id = Value::Null;
    let mut last = Value::Null;
    for (number, frame) in text.split("\n\n").filter(|frame| !frame.is_empty()).enumerate() {
        let (name, data) = frame.split_once('\n').expect("every frame has a name and data");
        let event: Value =
            serde_json::from_str(data.strip_prefix("data: ").expect("data follows")).expect("it is JSON");
        assert_eq!(
            (name.strip_prefix("event: "), event["sequence_number"].as_u64()),
            (event["type"].as_str(), Some(number as u64))
        );
        if number == 0 {
            assert_eq!(event["type"], "response.created");
            id = event["response"]["id"].clone();
        }
        let place = event["output_index"].as_u64().unwrap_or(0) as usize;
        match event["type"].as_str().unwrap_or_default() {
            "response.output_item.added" => {
                assert_eq!(place, items.len());
                items.push(event["item"].clone());
            }
            "response.output_item.done" => {
                assert_eq!(
                    (&event["item"]["id"], &event["item"]["type"]),
                    (&items[place]["id"], &items[place]["type"])
                );
                items[place] = event["item"].clone();
                done += 1;
            }
            kind if kind.starts_with("response.output") || kind.contains("_call_") => {
                assert_eq!(event["item_id"], items[place]["id"], "{kind}");
            }
            _ => {}
        }
        if event["response"].is_object() {
            assert_eq!(event["response"]["id"], id);
        }
        last = event;
    }
    if last["type"] == "response.completed" {
        assert_eq!((&last["response"]["output"], done), (&json!(items), items.len()));
    }
    last
}

fn reply() -> Reply {
    reply_calling(&[
        ("exec", json!({"input": "await run(\"make\")"})),
        ("clock__sleep", json!({"message": "1s"})),
        ("tool_search", json!({"query": "mail"})),
    ])
}

#[tokio::test]
async fn a_stream_of_another_vendor_is_written_as_codex_expects() {
    for wire in OTHERS {
        let vendor = FakeVendor::answering([reply()]);
        let door = Door::to(wire, &vendor.url()).await;
        let answer = post(&door, &request(true)).await;
        assert_eq!((answer.status, answer.whole), (200, true), "{}", answer.text());
        let losses = "client_metadata, grammar, prompt_cache_key, reasoning.context, text.verbosity, web_search";
        assert_eq!(answer.header("x-adjutant-losses"), Some(losses));
        let last = accumulate(&answer.text());
        assert_eq!(last["type"], "response.completed");
        assert_eq!(last["response"]["usage"]["input_tokens"], 1000);
        insta::assert_snapshot!(format!("responses_on_{wire:?}"), without_ids(&answer.text()));
        insta::assert_snapshot!(format!("responses_to_{wire:?}"), format!("{:#}", vendor.requests().remove(0).body));
        let closing = door.closed().await.remove(0);
        assert_eq!((closing.outcome, closing.losses.join(", ").as_str()), (Outcome::Answered, losses));
        let usage = closing.usage.unwrap_or_default();
        assert_eq!(
            Usage { reasoning_tokens: 0, ..usage },
            Usage { input_tokens: 100, output_tokens: 50, cache_read_tokens: 900, ..Usage::default() }
        );
    }
}

#[tokio::test]
async fn a_conversation_goes_on_with_tools_that_were_found_and_the_vendors_own_reasoning() {
    for wire in OTHERS {
        for stream in [true, false] {
            let vendor = FakeVendor::answering([reply(), Reply::text("Done.").in_chunks_of(3)]);
            let door = Door::to(wire, &vendor.url()).await;
            let mut body = request(stream);
            let answer = post(&door, &body).await;
            let response = if stream { accumulate(&answer.text())["response"].clone() } else { answer.json() };
            assert_eq!(response["status"], "completed", "{}", answer.text());
            let output = response["output"].as_array().expect("a list").clone();
            let kinds = output.iter().map(|item| item["type"].as_str().unwrap_or_default()).collect::<Vec<_>>();
            assert_eq!(kinds, ["reasoning", "message", "custom_tool_call", "function_call", "tool_search_call"]);
            assert_eq!((&output[2]["name"], &output[2]["input"]), (&json!("exec"), &json!("await run(\"make\")")));
            assert_eq!((&output[3]["name"], &output[3]["namespace"]), (&json!("sleep"), &json!("clock")));
            assert_eq!(
                (&output[4]["arguments"], &output[4]["execution"]),
                (&json!({"query": "mail"}), &json!("client"))
            );
            let input = body["input"].as_array_mut().expect("a list");
            let call = |place: usize| output[place]["call_id"].clone();
            let found = json!([{"type": "namespace", "name": "mail", "tools": [{"type": "function", "name": "send", "parameters": {"type": "object"}}]}]);
            let answers = [
                json!({"type": "tool_search_output", "call_id": call(4), "execution": "client", "tools": found}),
                json!({"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Be brief."}]}),
                json!({"type": "function_call_output", "call_id": call(3), "output": "slept"}),
                json!({"type": "custom_tool_call_output", "call_id": call(2), "output": [{"type": "input_text", "text": "made"}]}),
            ];
            input.extend(output.iter().cloned());
            input.extend(answers);
            // The tools of a conversation must not change for the vendor's cache, but here they do, and rightly so.
            let answer = post(&door, &body).await;
            let _ = vendor.take_violations();
            assert_eq!(answer.status, 200, "{}", answer.text());
            let asked = vendor.requests().remove(1);
            let text = asked.body.to_string();
            match asked.wire {
                Wire::Chat => assert!(text.contains("\"reasoning_content\":\"Let me see.\""), "{text}"),
                _ => assert!(text.contains("\"signature\":\"signed:Let me see.\""), "{text}"),
            }
            assert!(text.contains("\"mail__send\"") && text.contains("<system-reminder>"), "{text}");
            let places =
                ["made", "slept", "found and loaded: mail", "Be brief."].map(|word| text.rfind(word).unwrap_or(0));
            assert!(places.is_sorted() && places[0] > 0, "{places:?} {text}");
        }
    }
}

#[tokio::test]
async fn what_no_other_vendor_has_is_refused_by_name() {
    let mut vendor = Puppet::playing(Vec::new()).await;
    let door = Door::to(WireKind::Chat, &vendor.url()).await;
    let item = |item: Value| ("/input", json!([{"role": "user", "content": "x"}, item]));
    let cases = [
        (("/previous_response_id", json!("resp_1")), "previous_response_id needs an OpenAI model"),
        (("/background", json!(true)), "background"),
        (("/top_logprobs", json!(3)), "top_logprobs"),
        (("/tools", json!([{"type": "code_interpreter"}])), "code_interpreter"),
        (("/tools", json!([{"type": "mcp"}])), "mcp"),
        (("/tool_choice", json!({"type": "function", "name": "nope"})), "no tool \"nope\""),
        (("/tool_choice", json!({"type": "web_search_preview"})), "web_search_preview"),
        (("/input", json!(7)), "input: a text or a list"),
        (("/input", json!([])), "at least one message"),
        (item(json!({"type": "item_reference", "id": "x"})), "item_reference"),
        (item(json!({"type": "compaction_trigger"})), "compaction_trigger"),
        (item(json!({"type": "agent_message", "encrypted_content": "x"})), "agent_message"),
        (item(json!({"type": "function_call_output", "call_id": "c", "output": ""})), "no open call"),
        (item(json!({"type": "function_call", "call_id": "c", "name": "f", "arguments": ""})), "has no result"),
        (item(json!({"role": "user", "content": [{"type": "input_image", "file_id": "f"}]})), "file_id"),
        (item(json!({"role": "user", "content": [{"type": "input_audio"}]})), "input_audio"),
        (item(json!({"role": "assistant", "content": "Sure"})), "prefill"),
    ];
    for ((place, value), words) in cases {
        let mut body = request(true);
        body[&place[1..]] = value;
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
async fn a_cut_answer_fails_in_the_same_response_and_no_call_of_it_is_ever_sent() {
    let vendor = FakeVendor::answering([reply().broken_after(2600)]);
    let door = Door::to(WireKind::Anthropic, &vendor.url()).await;
    let answer = post(&door, &request(true)).await;
    let text = answer.text();
    let last = accumulate(&text);
    assert!(answer.whole && text.contains("I run"), "{text}");
    assert!(!text.contains("_call\""), "{text}");
    assert_eq!((&last["type"], &last["response"]["error"]["code"]), (&json!("response.failed"), &json!("bad_gateway")));
    assert!(matches!(door.closed().await.remove(0).outcome, Outcome::Failed { .. }));
}

#[tokio::test]
async fn an_answer_that_is_out_of_tokens_or_refused_says_so() {
    for (reply, reason) in
        [(Reply::text("Half").out_of_tokens(), "max_output_tokens"), (Reply::text("No.").refusing(), "content_filter")]
    {
        let vendor = FakeVendor::answering([reply]);
        let door = Door::to(WireKind::Anthropic, &vendor.url()).await;
        let last = accumulate(&post(&door, &request(true)).await.text());
        assert_eq!(
            (&last["type"], &last["response"]["incomplete_details"]["reason"]),
            (&json!("response.incomplete"), &json!(reason))
        );
    }
}
