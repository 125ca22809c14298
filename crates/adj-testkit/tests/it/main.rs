//! The fake vendor is as strict as the real ones: what they refuse, it refuses, and it says why.

use adj_testkit::{FakeVendor, Reply};
use serde_json::{Value, json};
use std::{
    io::{Read, Write},
    net::TcpStream,
};

/// Sends a request with nothing but the standard library, and returns the status and the rest of the answer.
fn post(vendor: &FakeVendor, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, String) {
    let address = vendor.url().replace("http://", "");
    let mut connection = TcpStream::connect(&address).expect("the fake listens");
    let mut head =
        format!("POST {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    connection.write_all(format!("{head}\r\n{body}").as_bytes()).expect("the fake reads");
    let mut answer = Vec::new();
    let _ = connection.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    (status, answer)
}

const HEADERS: [(&str, &str); 4] = [
    ("content-type", "application/json"),
    ("authorization", "Bearer k"),
    ("anthropic-version", "2023-06-01"),
    ("x-goog-api-key", "k"),
];

fn messages(messages: Value) -> (&'static str, Value) {
    let system = json!([{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}]);
    ("/v1/messages", json!({"model": "m", "max_tokens": 9, "stream": true, "system": system, "messages": messages}))
}

fn responses(input: Value) -> (&'static str, Value) {
    ("/v1/responses", json!({"model": "m", "stream": true, "store": false, "prompt_cache_key": "k", "input": input}))
}

fn chat(messages: Value) -> (&'static str, Value) {
    let options = json!({"include_usage": true});
    ("/v1/chat/completions", json!({"model": "m", "stream": true, "stream_options": options, "messages": messages}))
}

fn gemini(contents: Value) -> (&'static str, Value) {
    let path = "/v1beta/models/gemini-3.8-flash:streamGenerateContent?alt=sse";
    (path, json!({"generationConfig": {"maxOutputTokens": 9}, "contents": contents}))
}

#[test]
fn what_a_vendor_refuses_is_refused_with_the_reason() {
    let user = json!({"role": "user", "content": [{"type": "text", "text": "x"}]});
    let tool_use = |id: &str| json!({"type": "tool_use", "id": id, "name": "t", "input": {}});
    let tool_result = |id: &str| json!({"type": "tool_result", "tool_use_id": id, "content": "r"});
    let by = |role: &str, blocks: Value| json!({"role": role, "content": blocks});
    let call = |id: &str| json!({"type": "function_call", "call_id": id, "name": "t", "arguments": "{}"});
    let output = |id: &str| json!({"type": "function_call_output", "call_id": id, "output": "r"});
    let input = json!({"type": "message", "role": "user", "content": [{"type": "input_text", "text": "x"}]});
    let calls = |ids: &[&str]| {
        let calls =
            ids.iter().map(|id| json!({"id": id, "type": "function", "function": {"name": "t", "arguments": "{}"}}));
        json!({"role": "assistant", "content": null, "tool_calls": calls.collect::<Vec<_>>()})
    };
    let tool = |id: &str| json!({"role": "tool", "tool_call_id": id, "content": "r"});
    let hello = json!({"role": "user", "content": "x"});
    let says = |role: &str, parts: Value| json!({"role": role, "parts": parts});
    let asks = says("user", json!([{"text": "x"}]));
    let asked = |id: &str| json!({"functionCall": {"id": id, "name": "t", "args": {}}});
    let signed =
        |id: &str| json!({"functionCall": {"id": id, "name": "t", "args": {}}, "thoughtSignature": "c2lnbmVkx"});
    let answered = |id: &str| json!({"functionResponse": {"id": id, "name": "t", "response": {"output": "r"}}});
    let cases = [
        (messages(json!([user])), ""),
        (
            messages(json!([
                user,
                by("assistant", json!([tool_use("a"), tool_use("b")])),
                by("user", json!([tool_result("b"), tool_result("a")]))
            ])),
            "",
        ),
        (messages(json!([])), "the first message is not a user's"),
        (messages(json!([user, user])), "roles do not alternate"),
        (
            messages(json!([user, by("assistant", json!([tool_use("a")])), user])),
            "not answered in the very next message",
        ),
        (
            messages(json!([
                user,
                by("assistant", json!([tool_use("a")])),
                by("user", json!([tool_result("a"), tool_result("a")]))
            ])),
            "no open call",
        ),
        (
            messages(json!([
                user,
                by("assistant", json!([tool_use("a")])),
                by("user", json!([{"type": "text", "text": "x"}, tool_result("a")]))
            ])),
            "after other blocks",
        ),
        (messages(json!([user, by("assistant", json!([{"type": "text", "text": " "}])), user])), "blank"),
        (
            messages(json!([user, by("assistant", json!([{"type": "text", "text": "x"}]))])),
            "the last message is not a user's",
        ),
        (messages(json!([by("tool", json!([tool_result("a")]))])), "neither user nor assistant"),
        (
            messages(json!([
                user,
                by("assistant", json!([tool_use("a")])),
                by("user", json!([{"type": "tool_result", "tool_use_id": "a", "is_error": true}]))
            ])),
            "not text",
        ),
        (
            messages(json!([
                user,
                by("assistant", json!([{"type": "thinking", "thinking": "x", "signature": "s"}])),
                user
            ])),
            "ends with thinking",
        ),
        (
            responses(json!([input, {"type": "reasoning", "id": "r", "summary": [], "encrypted_content": "e"}, input])),
            "leads to nothing",
        ),
        (responses(json!([input])), ""),
        (responses(json!([input, call("a"), call("b"), output("b"), output("a")])), ""),
        (responses(json!([input, call("a"), input])), "before every call is answered"),
        (
            responses(json!([input, call("a"), call("b"), output("a"), call("c"), output("b"), output("c")])),
            "a call comes before",
        ),
        (responses(json!([input, output("a")])), "no open call"),
        (responses(json!([input, call("a")])), "a call is not answered"),
        (responses(json!([input, call("a"), output("a"), call("a"), output("a")])), "two calls have the id a"),
        (responses(json!([input, {"type": "reasoning", "id": "r", "summary": []}])), "not encrypted"),
        (responses(json!([{"type": "message", "role": "robot", "content": []}])), "is not a role"),
        (chat(json!([hello])), ""),
        (chat(json!([hello, calls(&["a", "b"]), tool("a"), tool("b"), hello])), ""),
        (chat(json!([hello, calls(&["a", "b"]), tool("a"), hello, tool("b")])), "before every call is answered"),
        (chat(json!([hello, calls(&["a"]), tool("a"), tool("a")])), "no open call"),
        (chat(json!([hello, {"role": "system", "content": "x"}])), "not the first"),
        (chat(json!([hello, calls(&["a"])])), "a call is not answered"),
        (gemini(json!([asks])), ""),
        (
            gemini(json!([
                asks,
                says("model", json!([{"text": "I"}, signed("a"), asked("b")])),
                says("user", json!([answered("b"), answered("a"), {"text": "y"}]))
            ])),
            "",
        ),
        (
            gemini(json!([
                asks,
                says("model", json!([{"text": "", "thoughtSignature": "skip_thought_signature_validator"}])),
                asks
            ])),
            "",
        ),
        (gemini(json!([])), "the first content is not a user's"),
        (gemini(json!([asks, asks])), "roles do not alternate"),
        (gemini(json!([asks, says("model", json!([signed("a")])), asks])), "number of function response parts"),
        (
            gemini(json!([asks, says("model", json!([asked("a")])), says("user", json!([answered("a")]))])),
            "missing a thought_signature",
        ),
        (
            gemini(json!([asks, says("model", json!([{"text": "x", "thoughtSignature": "c3R1ZmY="}])), asks])),
            "corrupted thought signature",
        ),
        (gemini(json!([asks, says("model", json!([{"text": " "}])), asks])), "a text part is blank"),
        (gemini(json!([says("user", json!([answered("a")]))])), "no open call"),
        (
            gemini(json!([
                asks,
                says("model", json!([signed("a")])),
                says("user", json!([{"functionResponse": {"id": "a", "name": "u", "response": {}}}]))
            ])),
            "does not name the function that was called",
        ),
        (gemini(json!([says("user", json!([{"functionCall": {}}]))])), "has a part"),
        (gemini(json!([says("assistant", json!([{"text": "x"}]))])), "neither user nor model"),
    ];
    for ((path, body), words) in cases {
        let vendor = FakeVendor::answering([Reply::text("Fine.")]);
        let (status, answer) = post(&vendor, path, &HEADERS, &body.to_string());
        let violations = vendor.take_violations();
        if words.is_empty() {
            assert_eq!((status, violations), (200, Vec::new()), "{body}");
            assert!(answer.contains("Fine."), "{answer}");
        } else {
            assert_eq!(status, 400, "{body}");
            assert!(violations.iter().any(|found| found.contains(words)), "{violations:?} do not say {words:?}");
            assert!(answer.contains(words), "{answer}");
        }
    }
}

#[test]
fn heads_and_tools_are_checked_too() {
    let user = json!([{"role": "user", "content": "x"}]);
    let with = |key: &str, value: Value| {
        let (path, mut body) = chat(user.clone());
        body[key] = value;
        (path, body)
    };
    let tool = |name: &str, parameters: Value| json!([{"type": "function", "function": {"name": name, "parameters": parameters}}]);
    let cases = [
        (with("stream", json!(false)), &HEADERS[..], "stream is not true"),
        (with("model", json!("")), &HEADERS, "model is missing"),
        (with("tools", tool("a b", json!({"type": "object"}))), &HEADERS, "not the name of a tool"),
        (with("tools", tool("t", json!({"type": "array"}))), &HEADERS, "not that of an object"),
        (with("tools", tool("t", json!({"type": "object", "properties": 7}))), &HEADERS, "not a JSON Schema"),
        (with("x", json!(1)), &HEADERS[..1], "there is no key"),
        (with("x", json!(1)), &HEADERS[1..], "not said to be JSON"),
    ];
    for ((path, body), headers, words) in cases {
        let vendor = FakeVendor::answering([Reply::text("Fine.")]);
        let (status, _) = post(&vendor, path, headers, &body.to_string());
        let violations = vendor.take_violations();
        assert_eq!(status, 400, "{body}");
        assert!(violations.iter().any(|found| found.contains(words)), "{violations:?} do not say {words:?}");
    }
    let vendor = FakeVendor::answering([]);
    assert_eq!(post(&vendor, "/v2/nothing", &HEADERS, "{}").0, 404);
    assert_eq!(post(&vendor, "/v1beta/models/m:nothing", &HEADERS, "{}").0, 404);
    assert_eq!(post(&vendor, "/v1/responses", &HEADERS, "not JSON").0, 400);
    let (path, body) = chat(user);
    assert_eq!(post(&vendor, path, &HEADERS, &body.to_string()).0, 400);
    let violations = vendor.take_violations();
    assert!(violations.last().is_some_and(|last| last.contains("more requests than replies")), "{violations:?}");
}

#[test]
fn geminis_heads_and_settings_are_checked_too() {
    let with = |key: &str, value: Value| {
        let (path, mut body) = gemini(json!([{"role": "user", "parts": [{"text": "x"}]}]));
        body[key] = value;
        (path, body)
    };
    let config = |key: &str, value: Value| {
        let (path, mut body) = with("x", Value::Null);
        body.as_object_mut().expect("a body is an object").remove("x");
        body["generationConfig"][key] = value;
        (path, body)
    };
    let old = |(_, body): (&'static str, Value)| ("/v1beta/models/gemini-2.5-pro:streamGenerateContent?alt=sse", body);
    let tools = |parameters: &str| json!([{"functionDeclarations": [{"name": "t", parameters: {"type": "object"}}]}]);
    let structured = || {
        let (path, mut body) = config("responseJsonSchema", json!({"type": "object"}));
        body["generationConfig"]["responseMimeType"] = json!("application/json");
        body["tools"] = tools("parametersJsonSchema");
        (path, body)
    };
    let cases = [
        (structured(), &HEADERS[..], ""),
        (old(structured()), &HEADERS, "function calling with a response mime type: 'application/json' is unsupported"),
        (with("tools", tools("parameters")), &HEADERS, "in the part of JSON Schema that is known"),
        (with("model", json!("m")), &HEADERS, "unknown name \"model\""),
        (config("maxOutputTokens", json!(0)), &HEADERS, "maxOutputTokens is missing"),
        (config("responseJsonSchema", json!({})), &HEADERS, "for an answer that is text"),
        (config("thinkingConfig", json!({"thinkingLevel": "LOW"})), &HEADERS, ""),
        (config("thinkingConfig", json!({"thinkingLevel": "max"})), &HEADERS, "none that the model knows"),
        (old(config("thinkingConfig", json!({"thinkingLevel": "LOW"}))), &HEADERS, "none that the model knows"),
        (
            config("thinkingConfig", json!({"thinkingLevel": "LOW", "thinkingBudget": 9})),
            &HEADERS,
            "a thinking level and a thinking budget",
        ),
        (config("temperature", json!(1)), &HEADERS[..3], "there is no key"),
    ];
    for ((path, body), headers, words) in cases {
        let vendor = FakeVendor::answering([Reply::text("Fine.")]);
        let (status, _) = post(&vendor, path, headers, &body.to_string());
        let violations = vendor.take_violations();
        assert_eq!(status, if words.is_empty() { 200 } else { 400 }, "{body} {violations:?}");
        let is_said = words.is_empty() || violations.iter().any(|found| found.contains(words));
        assert!(is_said, "{violations:?} do not say {words:?}");
    }
    let vendor = FakeVendor::answering([Reply::text("Fine.")]);
    let (path, body) = with("labels", json!({}));
    assert_eq!(post(&vendor, path.trim_end_matches("?alt=sse"), &HEADERS, &body.to_string()).0, 400);
    let asked = vendor.requests().remove(0);
    assert_eq!((asked.model(), asked.last()["role"].as_str()), ("gemini-3.8-flash", Some("user")));
    let violations = vendor.take_violations();
    assert!(violations.iter().any(|found| found.contains("alt=sse")), "{violations:?}");
}

#[test]
fn geminis_contents_may_grow_and_may_not_change() {
    let says = |role: &str, texts: &[&str]| json!({"role": role, "parts": texts.iter().map(|text| json!({"text": text})).collect::<Vec<_>>()});
    let first = json!([says("user", &["one"])]);
    let second = json!([says("user", &["one"]), says("model", &["two"]), says("user", &["three"])]);
    let changed = json!([
        says("user", &["one"]),
        says("model", &["TWO"]),
        says("user", &["3"]),
        says("model", &["4"]),
        says("user", &["5"])
    ]);
    for (last, expected) in [(&second, 0), (&changed, 1)] {
        let vendor = FakeVendor::with(|_| Reply::text("Fine."));
        for contents in [&first, &second, last] {
            let (path, body) = gemini(contents.clone());
            assert_eq!(post(&vendor, path, &HEADERS, &body.to_string()).0, 200);
        }
        assert_eq!(vendor.take_violations().len(), expected, "{last}");
    }
}

#[test]
fn a_changed_past_is_a_violation_although_it_is_answered() {
    let say = |role: &str, text: &str| json!({"role": role, "content": text});
    let first = [say("user", "one")];
    let second = [say("user", "one"), say("assistant", "two"), say("user", "three")];
    let changed =
        [say("user", "one"), say("assistant", "TWO"), say("user", "three"), say("assistant", "4"), say("user", "5")];
    let other = [say("user", "uno"), say("assistant", "due"), say("user", "tre")];
    let cases: [(&[&[Value]], usize); 4] = [
        (&[&first, &second, &second], 0),
        // The same beginning twice, in turns; and a conversation that began elsewhere.
        (&[&first, &first, &second, &second, &other], 0),
        (&[&first, &second, &changed], 1),
        (&[&second, &changed], 1),
    ];
    for (conversation, expected) in cases {
        let vendor = FakeVendor::with(|_| Reply::text("Fine."));
        for entries in conversation {
            let (path, body) = chat(json!(entries));
            assert_eq!(post(&vendor, path, &HEADERS, &body.to_string()).0, 200);
        }
        let violations = vendor.take_violations();
        assert_eq!(violations.len(), expected, "{violations:?}");
    }
    let vendor = FakeVendor::with(|_| Reply::text("Fine."));
    for tools in [json!([]), json!([{"type": "function", "function": {"name": "t", "parameters": {"type": "object"}}}])]
    {
        let entries = if tools == json!([]) { &first[..] } else { &second };
        let (path, mut body) = chat(json!(entries));
        body["tools"] = tools;
        post(&vendor, path, &HEADERS, &body.to_string());
    }
    let violations = vendor.take_violations();
    assert!(violations.iter().any(|found| found.contains("tools or the system prompt changed")), "{violations:?}");
}

#[test]
#[should_panic(expected = "requests that a vendor would not like")]
fn a_violation_that_nobody_took_fails_the_test() {
    let vendor = FakeVendor::answering([Reply::text("Fine.")]);
    post(&vendor, "/v1/responses", &HEADERS, "{}");
}
