//! Callers of generateContent on other vendors' models.

use super::{
    Door,
    client::{Answer, ask},
    puppet::{Puppet, whole},
    reply_calling,
};
use adj_domain::{FailureKind, Usage};
use adj_gateway::endpoint::Outcome;
use adj_providers::WireKind;
use adj_testkit::{FakeVendor, Reply, Wire};
use serde_json::{Value, json};

const OTHERS: [WireKind; 3] = [WireKind::Anthropic, WireKind::OpenAi, WireKind::Chat];

const STREAM: &str = "streamGenerateContent?alt=sse";

/// A request as Gemini CLI writes them.
fn request() -> Value {
    let schema = json!({"type": "OBJECT", "properties": {"command": {"type": "STRING", "nullable": true}}, "required": ["command"]});
    json!({
        "systemInstruction": {"role": "user", "parts": [{"text": "You fix programs."}]},
        "contents": [{"role": "user", "parts": [{"text": "Fix it."}, {"inlineData": {"mimeType": "image/png", "data": "-_8"}}]}],
        "tools": [
            {"functionDeclarations": [{"name": "bash", "description": "Runs a command.", "parametersJsonSchema": schema}]},
            {"google_search": {}}],
        "toolConfig": {"functionCallingConfig": {"mode": "AUTO"}},
        "generationConfig": {"temperature": 1, "topP": 0.95, "topK": 64, "thinkingConfig": {"includeThoughts": true, "thinking_budget": 8192}},
        "safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "OFF"}], "labels": {}
    })
}

async fn post(door: &Door, method: &str, body: &Value) -> Answer {
    let body = body.to_string();
    let request = format!(
        "POST /v1beta/models/gemini-3-pro:{method} HTTP/1.1\r\nhost: d\r\nx-goog-api-key: {}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        door.token.expose(),
        body.len()
    );
    ask(door.address, request.as_bytes()).await
}

/// Puts a fixed word in the place of what is different each time.
fn without_ids(text: &str) -> String {
    let mut found = String::new();
    let mut rest = text;
    while let Some(place) =
        ["\"responseId\":\"", "call_"].iter().filter_map(|mark| Some(rest.find(mark)? + mark.len())).min()
    {
        found.push_str(&rest[..place]);
        let id = rest[place..].chars().take_while(char::is_ascii_alphanumeric).count();
        found.push_str(if id == 20 { "ID" } else { &rest[place..place + id] });
        rest = &rest[place + id..];
    }
    found + rest
}

/// Returns the chunks of an answer in whichever form it is.
fn chunks(method: &str, text: &str) -> Vec<Value> {
    match method {
        STREAM => {
            let frames = text.strip_suffix("\n\n").expect("the last chunk is whole").split("\n\n");
            // Python's client takes no other line than this.
            let data = frames.map(|frame| frame.strip_prefix("data: {").expect("nothing but data"));
            data.map(|rest| serde_json::from_str(&format!("{{{rest}")).expect("it is JSON")).collect()
        }
        "streamGenerateContent" => serde_json::from_str(text).expect("it is one list"),
        _ => vec![serde_json::from_str(text).expect("it is JSON")],
    }
}

/// Puts the parts together as the official client does: returns them, and the last chunk.
fn accumulate(method: &str, text: &str) -> (Vec<Value>, Value) {
    let mut parts = Vec::new();
    let chunks = chunks(method, text);
    for (number, chunk) in chunks.iter().enumerate() {
        assert_eq!(chunk["modelVersion"], "gemini-3-pro");
        let candidate = &chunk["candidates"][0];
        parts.extend(candidate["content"]["parts"].as_array().expect("a list").iter().cloned());
        assert_eq!(candidate["finishReason"].is_string(), number + 1 == chunks.len(), "the last one says why: {text}");
    }
    (parts, chunks.last().cloned().unwrap_or_default())
}

fn text_of(parts: &[Value], thought: bool) -> String {
    let parts = parts.iter().filter(|part| (part["thought"] == true) == thought);
    parts.filter_map(|part| part["text"].as_str()).collect()
}

fn reply() -> Reply {
    reply_calling(&[("bash", json!({"command": "make"})), ("bash", json!({"command": "ls"}))])
}

#[tokio::test]
async fn a_stream_of_another_vendor_is_written_as_googles_clients_expect() {
    for wire in OTHERS {
        let vendor = FakeVendor::answering([reply()]);
        let door = Door::to(wire, &vendor.url()).await;
        let answer = post(&door, STREAM, &request()).await;
        assert_eq!((answer.status, answer.whole), (200, true), "{}", answer.text());
        let losses = match wire {
            WireKind::OpenAi => "googleSearch, labels, safetySettings, temperature, top_k, top_p",
            WireKind::Anthropic => "googleSearch, labels, safetySettings, top_p",
            _ => "googleSearch, labels, safetySettings",
        };
        assert_eq!(answer.header("x-adjutant-losses"), Some(losses));
        let (parts, last) = accumulate(STREAM, &answer.text());
        assert_eq!((text_of(&parts, true), text_of(&parts, false)), ("Let me see.".to_owned(), "I run it.".to_owned()));
        assert_eq!(last["candidates"][0]["finishReason"], "STOP");
        let usage = &last["usageMetadata"];
        let counts =
            ["promptTokenCount", "cachedContentTokenCount", "totalTokenCount"].map(|name| usage[name].as_u64());
        assert_eq!(counts, [Some(1000), Some(900), Some(1050)]);
        let output = ["candidatesTokenCount", "thoughtsTokenCount"].map(|name| usage[name].as_u64().unwrap_or(0));
        assert_eq!(output.iter().sum::<u64>(), 50);
        insta::assert_snapshot!(format!("gemini_on_{wire:?}"), without_ids(&answer.text()));
        insta::assert_snapshot!(format!("gemini_to_{wire:?}"), format!("{:#}", vendor.requests().remove(0).body));
        let closing = door.closed().await.remove(0);
        assert_eq!((closing.outcome, closing.losses.join(", ").as_str()), (Outcome::Answered, losses));
        let usage = Usage { reasoning_tokens: 0, ..closing.usage.unwrap_or_default() };
        let expected = Usage { input_tokens: 100, output_tokens: 50, cache_read_tokens: 900, ..Usage::default() };
        assert_eq!(usage, expected);
    }
}

#[tokio::test]
async fn a_conversation_goes_on_with_or_without_ids_and_with_the_vendors_own_reasoning() {
    for wire in OTHERS {
        for (method, content_type, has_ids) in [
            (STREAM, "text/event-stream; charset=utf-8", true),
            ("streamGenerateContent", "application/json; charset=utf-8", false),
            ("generateContent", "application/json", false),
        ] {
            let vendor = FakeVendor::answering([reply(), Reply::text("Done.").in_chunks_of(3)]);
            let door = Door::to(wire, &vendor.url()).await;
            let mut body = request();
            let answer = post(&door, method, &body).await;
            assert_eq!((answer.status, answer.header("content-type")), (200, Some(content_type)), "{}", answer.text());
            let (mut parts, _) = accumulate(method, &answer.text());
            assert_eq!(
                (text_of(&parts, true), text_of(&parts, false)),
                ("Let me see.".to_owned(), "I run it.".to_owned())
            );
            let mut calls = parts.iter_mut().filter_map(|part| part.get_mut("functionCall")).collect::<Vec<_>>();
            assert_eq!((calls.len(), &calls[1]["args"]), (2, &json!({"command": "ls"})));
            assert_ne!(calls[0]["id"], calls[1]["id"]);
            let mut results = ["made", "listed"].map(|said| json!({"name": "bash", "response": {"output": said}}));
            for (call, result) in calls.iter_mut().zip(&mut results) {
                match has_ids {
                    true => result["id"] = call["id"].clone(),
                    // Gemini CLI makes up ids for calls that had none.
                    false => result["id"] = json!(format!("bash_1763_{}", result["response"]["output"])),
                }
            }
            if has_ids {
                results.reverse();
            } else {
                calls.into_iter().for_each(|call| *call = json!({"name": "bash", "args": call["args"]}));
            }
            parts.retain(|part| part["thought"] != true);
            let contents = body["contents"].as_array_mut().expect("a list");
            contents.push(json!({"role": "model", "parts": parts}));
            let results = results.map(|result| json!({"functionResponse": result}));
            contents.push(json!({"role": "user", "parts": [{"text": "Go on."}, results[0], results[1]]}));
            let answer = post(&door, method, &body).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            let asked = vendor.requests().remove(1);
            let text = asked.body.to_string();
            // The vendor is strict: every call answered, in its place; here is what it cannot know.
            let own = match asked.wire {
                Wire::Responses => "\"encrypted_content\":\"encrypted:Let me see.\"",
                Wire::Messages => "\"signature\":\"signed:Let me see.\"",
                _ => "\"reasoning_content\":\"Let me see.\"",
            };
            assert!(text.contains(own), "{text}");
            assert_eq!(text.matches("\"I run it.\"").count(), 1, "the pieces of a text are one text: {text}");
            let places = ["made", "listed", "Go on."].map(|word| text.rfind(word).unwrap_or(0));
            assert!(places.is_sorted() && places[0] > 0, "{places:?} {text}");
            let (parts, last) = accumulate(method, &answer.text());
            assert_eq!(
                (text_of(&parts, false).as_str(), &last["candidates"][0]["finishReason"]),
                ("Done.", &json!("STOP"))
            );
        }
    }
}

#[tokio::test]
async fn what_the_client_knows_of_signatures_is_taken_for_what_it_is() {
    let part = |part: Value| {
        json!({"contents": [
        {"parts": [{"text": "x"}]}, {"role": "model", "parts": [part]},
        {"role": "function", "parts": [{"functionResponse": {"name": "f", "response": {"error": "no"}}}]}]})
    };
    let cases = [
        (json!({"functionCall": {"name": "f"}, "thoughtSignature": "skip_thought_signature_validator"}), None),
        (
            json!({"function_call": {"name": "f"}, "thought_signature": "Q2lRQg=="}),
            Some("thoughtSignature of another model"),
        ),
    ];
    for (call, losses) in cases {
        let vendor = FakeVendor::answering([Reply::text("Done.")]);
        let door = Door::to(WireKind::Anthropic, &vendor.url()).await;
        let answer = post(&door, "generateContent", &part(call)).await;
        assert_eq!((answer.status, answer.header("x-adjutant-losses")), (200, losses), "{}", answer.text());
        let result = &vendor.requests()[0].body["messages"][2]["content"][0];
        assert_eq!((&result["is_error"], &result["content"][0]["text"]), (&json!(true), &json!("no")));
    }
}

#[tokio::test]
async fn thoughts_are_shown_only_to_who_asked_for_them() {
    let vendor = FakeVendor::answering([reply(), reply()]);
    let door = Door::to(WireKind::OpenAi, &vendor.url()).await;
    let mut body = request();
    body["generationConfig"]["thinkingConfig"] = json!({"thinkingLevel": "LOW"});
    for method in [STREAM, "generateContent"] {
        let answer = post(&door, method, &body).await;
        let (parts, _) = accumulate(method, &answer.text());
        assert_eq!(text_of(&parts, true), "");
        assert!(parts.iter().any(|part| part["thoughtSignature"].is_string()), "and carried all the same: {parts:?}");
    }
    assert_eq!(vendor.requests()[0].body["reasoning"]["effort"], "low");
}

#[tokio::test]
async fn a_form_of_the_answer_is_asked_for_in_lower_case() {
    let schema = json!({"type": "OBJECT", "properties": {"type": {"type": "STRING"}}, "propertyOrdering": ["type"]});
    for name in ["responseSchema", "response_json_schema"] {
        let vendor = FakeVendor::answering([Reply::text("{}")]);
        let door = Door::to(WireKind::Chat, &vendor.url()).await;
        let config = json!({"responseMimeType": "application/json", name: schema, "maxOutputTokens": 9.0, "stopSequences": ["END"]});
        let body = json!({"contents": [{"parts": [{"text": "x"}]}], "generation_config": config});
        let answer = post(&door, "generateContent", &body).await;
        assert_eq!(text_of(&accumulate("generateContent", &answer.text()).0, false), "{}");
        let asked = vendor.requests().remove(0).body;
        let lowered = json!({"type": "object", "properties": {"type": {"type": "string"}}});
        assert_eq!(asked["response_format"]["json_schema"]["schema"], lowered);
        assert_eq!((&asked["max_tokens"], &asked["stop"]), (&json!(9), &json!(["END"])));
    }
}

#[tokio::test]
async fn what_no_other_vendor_has_is_refused_by_name() {
    let mut vendor = Puppet::playing(Vec::new()).await;
    let door = Door::to(WireKind::OpenAi, &vendor.url()).await;
    let part = |part: Value| ("/contents/0/parts", json!([part]));
    let said = |role: &str, part: Value| ("/contents/-", json!({"role": role, "parts": [part]}));
    let cases = [
        (("/cachedContent", json!("cachedContents/x")), "cachedContent needs a Gemini model"),
        (("/generationConfig/candidateCount", json!(2)), "candidateCount"),
        (("/generationConfig/responseLogprobs", json!(true)), "responseLogprobs"),
        (("/generationConfig/responseModalities", json!(["TEXT", "IMAGE"])), "responseModalities"),
        (("/generationConfig/speechConfig", json!({})), "speechConfig"),
        (("/generationConfig/responseMimeType", json!("text/x.enum")), "responseMimeType text/x.enum"),
        (("/generationConfig/stopSequences", json!(["END"])), "stop sequences"),
        (("/generationConfig/thinkingConfig", json!({"thinkingBudget": "much"})), "thinkingBudget"),
        (("/tools", json!([{"codeExecution": {}}])), "the tool codeExecution"),
        (("/tools", json!([{"url_context": {}}])), "the tool urlContext"),
        (("/tools", json!([{"googleSearch": {}}])), "the tool googleSearch"),
        (("/tools", json!([{"functionDeclarations": [{}]}])), "each needs a name"),
        (("/toolConfig", json!({"functionCallingConfig": {"mode": "SOME"}})), "functionCallingConfig.mode"),
        (
            ("/toolConfig", json!({"function_calling_config": {"mode": "ANY", "allowed_function_names": ["nope"]}})),
            "no tool \"nope\"",
        ),
        (("/contents", json!([])), "at least one message"),
        (("/contents", json!("hi")), "contents: a list"),
        (("/systemInstruction", json!({"parts": [{"inlineData": {}}]})), "only text"),
        (part(json!({"inlineData": {"mimeType": "audio/mp3", "data": ""}})), "audio/mp3"),
        (part(json!({"inlineData": {"data": ""}})), "mimeType"),
        (
            part(
                json!({"fileData": {"mimeType": "image/png", "fileUri": "https://generativelanguage.googleapis.com/v1beta/files/x"}}),
            ),
            "fileData",
        ),
        (
            part(json!({"fileData": {"mimeType": "application/pdf", "fileUri": "https://example.com/a.pdf"}})),
            "application/pdf",
        ),
        (part(json!({"toolResponse": {}})), "toolResponse"),
        (part(json!({"functionResponse": {"name": "bash", "response": {}}})), "answers no open call"),
        (said("robot", json!({"text": "x"})), "contents.role"),
        (said("model", json!({"text": "Sure, "})), "prefill"),
        (said("model", json!({"functionCall": {"name": "bash"}})), "has no result"),
        (said("model", json!({"executableCode": {"code": "x"}})), "executableCode of a model's message"),
    ];
    for ((place, value), words) in cases {
        let mut body = request();
        match (place, body.pointer_mut(place)) {
            ("/contents/-", _) => body["contents"].as_array_mut().expect("a list").push(value),
            (_, Some(held)) => *held = value,
            (_, None) => {
                let (above, name) = place.rsplit_once('/').expect("a place has a name");
                body.pointer_mut(above).expect("it is there")[name] = value;
            }
        }
        let answer = post(&door, STREAM, &body).await;
        let error = answer.json();
        let message = error["error"]["message"].as_str().unwrap_or_default();
        assert_eq!((answer.status, &error["error"]["status"]), (400, &json!("INVALID_ARGUMENT")), "{words}: {message}");
        assert!(message.contains(words), "{words}: {message}");
    }
    assert!(vendor.was_left_alone());
}

#[tokio::test]
async fn failures_have_the_shape_that_the_client_acts_on() {
    let failure = |status: &str, headers: &str, message: &str| {
        whole(status, headers, json!({"error": {"message": message}}).to_string())
    };
    let cases = [
        (failure("429 Slow", "retry-after: 90\r\n", "slow down"), 429, "RESOURCE_EXHAUSTED"),
        (failure("400 Bad", "", "no such field"), 400, "INVALID_ARGUMENT"),
        (failure("401 No", "", "no such key"), 401, "UNAUTHENTICATED"),
        (failure("404 No", "", "no such model"), 404, "NOT_FOUND"),
        (whole("200 OK", "content-type: text/html\r\n", "<html>"), 502, "UNAVAILABLE"),
    ];
    for (acts, status, word) in cases {
        for method in [STREAM, "streamGenerateContent", "generateContent"] {
            let vendor = Puppet::playing(acts.clone()).await;
            let door = Door::to(WireKind::OpenAi, &vendor.url()).await;
            let answer = post(&door, method, &request()).await;
            let error = &answer.json()["error"];
            assert_eq!((answer.status, &error["code"], &error["status"]), (status, &json!(status), &json!(word)));
        }
    }
}

#[tokio::test]
async fn a_cut_answer_becomes_an_error_and_no_call_of_it_is_ever_sent() {
    for method in [STREAM, "streamGenerateContent"] {
        let vendor = FakeVendor::answering([reply().broken_after(2600)]);
        let door = Door::to(WireKind::OpenAi, &vendor.url()).await;
        let answer = post(&door, method, &request()).await;
        let chunks = chunks(method, &answer.text());
        assert!(answer.whole && answer.text().contains("I run"), "{}", answer.text());
        assert!(
            !answer.text().contains("functionCall") && !answer.text().contains("finishReason"),
            "{}",
            answer.text()
        );
        assert_eq!(chunks.last().map(|last| last["error"]["status"].clone()), Some(json!("UNAVAILABLE")));
        let Outcome::Failed { kind, .. } = door.closed().await.remove(0).outcome else { panic!("it failed") };
        assert_eq!(kind, FailureKind::Connection);
    }
}

#[tokio::test]
async fn an_answer_says_why_it_ended() {
    let cases = [
        (Reply::text("Half").out_of_tokens(), "MAX_TOKENS", "Half"),
        (Reply::text("No.").refusing(), "SAFETY", "No."),
        // The client asks again, as it does with Google's own models.
        (Reply::text("So: ").and_raw_call("bash", "{\"command\": rm"), "MALFORMED_FUNCTION_CALL", "So: "),
        (Reply::empty().and_raw_call("bash", "[1]"), "MALFORMED_FUNCTION_CALL", ""),
    ];
    for (reply, expected, text) in cases {
        for method in [STREAM, "generateContent"] {
            let vendor = FakeVendor::answering([reply.clone()]);
            let door = Door::to(WireKind::Chat, &vendor.url()).await;
            let answer = post(&door, method, &request()).await;
            let (parts, last) = accumulate(method, &answer.text());
            assert_eq!(
                (&last["candidates"][0]["finishReason"], text_of(&parts, false).as_str()),
                (&json!(expected), text)
            );
            assert!(!answer.text().contains("functionCall\""), "{}", answer.text());
        }
    }
}

#[tokio::test]
async fn tokens_are_estimated_and_a_picture_is_not_counted_by_its_bytes() {
    let door = Door::to(WireKind::Chat, "http://127.0.0.1:1").await;
    let mut body = json!({"contents": [{"parts": [{"text": "Fix it. ".repeat(50)}]}]});
    for expected in [60..200, 1500..1800] {
        let answer = post(&door, "countTokens", &body).await;
        assert_eq!((answer.status, answer.header("x-adjutant-estimated")), (200, Some("true")), "{}", answer.text());
        let count = answer.json()["totalTokens"].as_u64().unwrap_or(0);
        assert!(expected.contains(&count), "{count}");
        let picture = json!({"inlineData": {"mimeType": "image/png", "data": "aGk".repeat(99_999)}});
        body["contents"][0]["parts"].as_array_mut().expect("a list").push(picture);
    }
}
