//! What is sent to vendors, to the byte.

use crate::fixtures::{assistant, call, conversation, event_id, request, result, user};
use adj_domain::{Content, Item, ModelRequest, Sampling, ToolChoice};
use adj_providers::{ProviderError, anthropic, chat, gemini, openai, wire::Encoded};
use serde_json::{Value, json};

const MODELS: [&str; 4] =
    ["openai/gpt-5.5", "anthropic/claude-sonnet-4-5", "openai-chat/local", "gemini/gemini-3.8-flash"];

fn try_encode(request: &ModelRequest) -> Result<Encoded, ProviderError> {
    match request.model.vendor.as_str() {
        "openai" => openai::encode(request),
        "anthropic" => anthropic::encode(request),
        "gemini" => gemini::encode(request),
        _ => chat::encode(request, chat::Variant::Compatible),
    }
}

fn encode(request: &ModelRequest) -> Encoded {
    try_encode(request).unwrap_or_else(|error| panic!("{error}"))
}

fn body(encoded: &Encoded) -> Value {
    serde_json::from_slice(&encoded.body).expect("a body is JSON")
}

fn shown(encoded: &Encoded) -> String {
    let headers = encoded.headers.iter().map(|(name, value)| format!("{name}: {value}\n"));
    let body = serde_json::to_string_pretty(&body(encoded)).expect("JSON can be printed");
    format!("POST {}\n{}\n{body}\n", encoded.path, headers.collect::<String>())
}

#[test]
fn each_wire_has_its_golden_request() {
    for model in MODELS {
        let mut request = request(model, conversation());
        request.effort = Some("high".to_owned());
        request.output_schema = Some(json!({
            "type": "object",
            "properties": {"done": {"type": "boolean"}},
            "required": ["done"],
            "additionalProperties": false,
        }));
        let name = format!("request_{}", request.model.vendor);
        insta::assert_snapshot!(name, shown(&encode(&request)));
    }
}

#[test]
fn each_wire_has_its_smallest_request() {
    for model in MODELS {
        let mut request = request(model, vec![user("Hello.")]);
        request.tools.clear();
        request.system.clear();
        let name = format!("smallest_{}", request.model.vendor);
        insta::assert_snapshot!(name, shown(&encode(&request)));
    }
}

/// Everything that other people's agents may ask for beside a conversation, as far as the wire has words for it.
#[test]
fn each_wire_has_its_golden_options() {
    for model in MODELS {
        let document = Content::Document {
            media_type: "application/pdf".to_owned(),
            data: "JVBERi0=".to_owned(),
            name: Some("plan.pdf".to_owned()),
        };
        let text = Content::Document { media_type: "text/plain".to_owned(), data: "aGk=".to_owned(), name: None };
        let image = Content::ImageUrl { url: "https://example.com/a.png".to_owned() };
        let wire = request(model, Vec::new()).model.vendor;
        let shown_images = if wire == "gemini" { Vec::new() } else { vec![image] };
        let read = [vec![Content::text("Read these."), document.clone(), text], shown_images].concat();
        let items = vec![
            Item::User { content: read },
            call("a", "read", json!({"path": "plan.pdf"})),
            Item::ToolResult { call: event_id("a"), content: vec![Content::text("it"), document], is_error: false },
        ];
        let mut request = request(model, items);
        request.sampling = Sampling {
            tool_choice: ToolChoice::Tool("bash".to_owned()),
            single_call: wire != "gemini",
            temperature: Some(1.5),
            top_p: Some(0.9),
            top_k: (wire != "openai").then_some(40),
            stop: if wire == "openai" { Vec::new() } else { vec!["END".to_owned()] },
        };
        let name = format!("options_{wire}");
        insta::assert_snapshot!(name, shown(&encode(&request)));
    }
}

#[test]
fn what_a_wire_has_no_words_for_is_refused_by_name() {
    let demanded = Sampling { tool_choice: ToolChoice::Required, ..Sampling::default() };
    let ranked = Sampling { top_k: Some(5), ..Sampling::default() };
    let single = Sampling { single_call: true, ..Sampling::default() };
    let stopped = Sampling { stop: vec!["END".to_owned()], ..Sampling::default() };
    let cases = [
        ("openai/gpt-5.5", ranked, "top_k"),
        ("openai/gpt-5.5", stopped, "stop sequences"),
        ("anthropic/claude-opus-4-6", demanded, "a demand for a tool call together with reasoning"),
        ("gemini/gemini-3.8-flash", single, "no more than one tool call"),
    ];
    for (model, sampling, named) in cases {
        let mut request = request(model, vec![user("Hello.")]);
        request.effort = Some("high".to_owned());
        request.sampling = sampling;
        let error = try_encode(&request).expect_err("it cannot be said");
        assert_eq!(error.kind, adj_domain::FailureKind::InvalidRequest);
        assert!(error.message.contains(named) && error.message.contains(model), "{error}");
    }
    let image = Content::ImageUrl { url: "https://example.com/a.png".to_owned() };
    let request_with_image = request("gemini/gemini-3.8-flash", vec![Item::User { content: vec![image] }]);
    assert!(try_encode(&request_with_image).expect_err("it cannot be said").message.contains("image by its address"));
    let text = Content::Document { media_type: "text/plain".to_owned(), data: "no base64!".to_owned(), name: None };
    let request = request("anthropic/claude-opus-4-6", vec![Item::User { content: vec![text] }]);
    assert!(try_encode(&request).is_err());
}

/// A conversation as it grows, request by request, in the ways that agents' conversations do.
fn growing() -> Vec<Vec<Item>> {
    let additions: Vec<Vec<Item>> = vec![
        vec![user("Fix the program.")],
        vec![call("a", "bash", json!({"command": "make"})), result("a", "error")],
        vec![
            assistant("Two at once."),
            call("b", "read", json!({"path": "x"})),
            call("c", "read", json!({"path": "y"})),
            result("b", "x x x"),
            result("c", "y y y"),
            user("Mind the tests."),
        ],
        vec![assistant("Done."), user("One more."), user("And another.")],
        vec![call("d", "bash", json!({"z": 1, "a": {"y": 2, "b": [1.5, null]}})), result("d", "")],
    ];
    let mut items = Vec::new();
    additions
        .into_iter()
        .map(|more| {
            items.extend(more);
            items.clone()
        })
        .collect()
}

#[test]
fn every_request_begins_with_the_bytes_of_the_one_before_it() {
    const MARKER: &str = ",\"cache_control\":{\"type\":\"ephemeral\"}";
    for model in MODELS {
        let bodies = growing().into_iter().map(|items| {
            let encoded = encode(&request(model, items));
            let text = String::from_utf8(encoded.body).expect("a body is UTF-8");
            // Where a cache may be written moves with the conversation; it is no part of what is cached.
            text.replace(MARKER, "")
        });
        let bodies = bodies.collect::<Vec<_>>();
        for pair in bodies.windows(2) {
            let [before, after] = pair else { panic!("windows of two") };
            // The conversation is the last thing of a body, so all but its closing brackets must come again.
            let kept = before.trim_end_matches(['}', ']']);
            assert!(after.starts_with(kept), "{model}:\n{before}\n{after}");
            assert!(before.len() - kept.len() <= 8, "{before}");
        }
    }
}

#[test]
fn anthropic_caches_up_to_the_end_and_finds_what_the_last_request_cached() {
    for items in growing() {
        let count = items.len();
        let body = body(&encode(&request("anthropic/claude-sonnet-4-5", items)));
        let marked = |value: &Value| value.get("cache_control").is_some();
        assert!(marked(&body["system"][0]), "{body}");
        assert!(marked(&body["tools"][1]) && !marked(&body["tools"][0]), "{body}");
        let messages = body["messages"].as_array().expect("messages are a list");
        let users = messages.iter().filter(|message| message["role"] == "user").collect::<Vec<_>>();
        for (place, message) in users.iter().enumerate() {
            let blocks = message["content"].as_array().expect("content is a list");
            let (last, others) = blocks.split_last().expect("no message is empty");
            assert_eq!(marked(last), place + 2 >= users.len(), "{count} items: {message}");
            assert!(!others.iter().any(marked), "{message}");
        }
    }
}

#[test]
fn results_stand_first_and_roles_alternate_for_anthropic() {
    let items = vec![
        user("Go."),
        call("a", "bash", json!({})),
        call("b", "bash", json!("not an object")),
        user("Faster!"),
        result("a", ""),
        result("b", "b"),
        user("  "),
    ];
    let body = body(&encode(&request("anthropic/claude-sonnet-4-5", items)));
    let shape = body["messages"].as_array().expect("messages are a list").iter().map(|message| {
        let blocks = message["content"].as_array().expect("content is a list").iter();
        let kinds = blocks.map(|block| block["type"].as_str().unwrap_or_default()).collect::<Vec<_>>();
        format!("{} {}", message["role"].as_str().unwrap_or_default(), kinds.join(" "))
    });
    let shape = shape.collect::<Vec<_>>();
    assert_eq!(shape, ["user text", "assistant tool_use tool_use", "user tool_result tool_result text"]);
    assert_eq!(body["messages"][1]["content"][1]["input"], json!({"input": "not an object"}));
    assert_eq!(body["messages"][2]["content"][0].get("content"), None, "an empty result has no content");
}

#[test]
fn ids_are_ours_on_every_wire() {
    let ours = event_id("a").to_string();
    for model in MODELS {
        let items = vec![user("Go."), call("a", "bash", json!({})), result("a", "done")];
        let text = String::from_utf8(encode(&request(model, items)).body).expect("a body is UTF-8");
        assert_eq!(text.matches(&ours).count(), 2, "{text}");
    }
}

#[test]
fn a_schema_is_strict_only_where_it_qualifies_and_is_never_lost() {
    let loose = json!({"type": "object", "properties": {"n": {"type": "integer", "minimum": 1}}});
    for model in MODELS {
        let mut request = request(model, vec![user("Count.")]);
        request.output_schema = Some(loose.clone());
        let body = body(&encode(&request));
        match request.model.vendor.as_str() {
            "openai" => {
                assert_eq!(body["text"]["format"]["strict"], false);
                assert_eq!(body["text"]["format"]["schema"], loose);
            }
            "anthropic" => {
                assert_eq!(body.get("output_config"), None);
                let system = body["system"][0]["text"].as_str().unwrap_or_default();
                assert!(system.starts_with("You fix programs.") && system.ends_with(&loose.to_string()), "{system}");
            }
            "gemini" => {
                assert_eq!(body["generationConfig"]["responseMimeType"], "application/json");
                assert_eq!(body["generationConfig"]["responseJsonSchema"], loose);
            }
            _ => {
                assert_eq!(body["response_format"]["json_schema"]["strict"], false);
                assert_eq!(body["response_format"]["json_schema"]["schema"], loose);
            }
        }
    }
}

#[test]
fn effort_is_said_in_the_words_of_each_generation() {
    let cases = [
        // model, effort, max tokens → thinking, output_config
        ("claude-sonnet-4-5", Some("low"), 8192, json!({"type": "enabled", "budget_tokens": 2048}), Value::Null),
        ("claude-sonnet-4-5", Some("high"), 8192, json!({"type": "enabled", "budget_tokens": 4096}), Value::Null),
        ("claude-sonnet-4-5", Some("high"), 1500, Value::Null, Value::Null),
        ("claude-sonnet-4-5", None, 8192, Value::Null, Value::Null),
        ("claude-opus-4-6", Some("high"), 8192, json!({"type": "adaptive"}), json!({"effort": "high"})),
        ("MiniMax-M3", Some("high"), 8192, Value::Null, Value::Null),
    ];
    for (model, effort, bound, thinking, output) in cases {
        let mut request = request(&format!("anthropic/{model}"), vec![user("Think.")]);
        request.effort = effort.map(str::to_owned);
        request.max_output_tokens = bound;
        let body = body(&encode(&request));
        assert_eq!(body["thinking"], thinking, "{model} {effort:?}");
        assert_eq!(body["output_config"], output, "{model} {effort:?}");
    }
    // A turn that another model began has no thinking to show, and the vendor insists on it.
    let items = vec![user("Go."), call("a", "bash", json!({})), result("a", "done")];
    let mut request = request("anthropic/claude-sonnet-4-5", items);
    request.effort = Some("high".to_owned());
    assert_eq!(body(&encode(&request)).get("thinking"), None);
}

#[test]
fn openai_is_not_asked_for_what_older_models_refuse() {
    for (model, expected) in [("gpt-5.5", true), ("o4-mini", true), ("gpt-4.1", false), ("gpt-4o-mini", false)] {
        let body = body(&encode(&request(&format!("openai/{model}"), vec![user("Hello.")])));
        assert_eq!(body.get("include").is_some(), expected, "{model}");
    }
    let body = |variant| {
        let encoded = chat::encode(&request("openai-chat/x", vec![user("Hello.")]), variant);
        body(&encoded.unwrap_or_else(|error| panic!("{error}")))
    };
    assert_eq!(body(chat::Variant::OpenAi)["max_completion_tokens"], 4096);
    assert_eq!(body(chat::Variant::Compatible)["max_tokens"], 4096);
}

#[test]
fn images_of_results_follow_their_text_in_chat() {
    let image = Content::Image { media_type: "image/png".to_owned(), data: "AAAA".to_owned() };
    let items = vec![
        user("Look."),
        call("a", "read", json!({})),
        call("b", "read", json!({})),
        Item::ToolResult { call: event_id("a"), content: vec![image], is_error: false },
        result("b", "text"),
    ];
    let body = body(&encode(&request("openai-chat/x", items)));
    let roles = body["messages"].as_array().expect("messages are a list").iter();
    let roles = roles.map(|message| message["role"].as_str().unwrap_or_default()).collect::<Vec<_>>();
    assert_eq!(roles, ["system", "user", "assistant", "tool", "tool", "user"]);
}

#[test]
fn reasoning_that_led_to_nothing_is_left_out() {
    let reasoning = |vendor: &str, model: &str| Item::Reasoning {
        vendor: vendor.to_owned(),
        model: model.to_owned(),
        payload: json!({"type": "thinking", "thinking": "cut", "signature": "s", "summary": [], "encrypted_content": "cut",
                        "reasoning_content": "cut", "thoughtSignature": "cut"}),
    };
    for model in MODELS {
        let (vendor, name) = model.split_once('/').expect("a model has a vendor");
        let loose = reasoning(vendor, name);
        let items = vec![user("Think."), loose.clone(), loose.clone(), user("Well?"), loose.clone()];
        let text = String::from_utf8(encode(&request(model, items)).body).expect("a body is UTF-8");
        assert!(!text.contains("cut"), "{text}");
        let items = vec![user("Think."), loose.clone(), loose, assistant("Thought."), user("Well?")];
        let text = String::from_utf8(encode(&request(model, items)).body).expect("a body is UTF-8");
        assert!(text.contains("cut"), "{text}");
    }
}

fn reasoning(model: &str, payload: Value) -> Item {
    let (vendor, model) = model.split_once('/').expect("a model has a vendor");
    Item::Reasoning { vendor: vendor.to_owned(), model: model.to_owned(), payload }
}

/// Returns the parts of each content, each as its role and what stands out in it.
fn gemini_parts(request: &ModelRequest) -> Vec<String> {
    let body = body(&encode(request));
    let contents = body["contents"].as_array().expect("contents are a list").iter();
    let shown = contents.map(|content| {
        let parts = content["parts"].as_array().expect("parts are a list").iter().map(|part| {
            let mut shown = match part {
                Value::Object(part) if part.contains_key("functionCall") => part["functionCall"]["name"].to_string(),
                Value::Object(part) if part.contains_key("functionResponse") => {
                    let response = &part["functionResponse"];
                    let count = response["parts"].as_array().map_or(0, Vec::len);
                    format!("{} {} +{count}", response["name"], response["response"])
                }
                Value::Object(part) if part.contains_key("inlineData") => "image".to_owned(),
                part => part["text"].to_string(),
            };
            if part["thought"] == true {
                shown.push_str(" thought");
            }
            if let Some(signature) = part["thoughtSignature"].as_str() {
                shown.push_str(&format!(" by {signature}"));
            }
            shown
        });
        format!("{}: {}", content["role"].as_str().unwrap_or_default(), parts.collect::<Vec<_>>().join(", "))
    });
    shown.collect()
}

#[test]
fn signatures_go_back_to_gemini_on_the_parts_that_they_came_with() {
    const MODEL: &str = "gemini/gemini-3.8-flash";
    let signed = |text: &str| reasoning(MODEL, json!({"thoughtSignature": text}));
    let within = |text: &str, from: u64| reasoning(MODEL, json!({"thoughtSignature": text, "from": from}));
    let ls = || call("a", "ls", json!({}));
    let cases: [(&str, Vec<Item>, &str); 8] = [
        ("a call", vec![signed("s"), ls()], r#""ls" by s"#),
        ("text and a call", vec![assistant("T"), signed("s"), ls()], r#""T", "ls" by s"#),
        ("parallel calls", vec![signed("s"), ls(), call("b", "cat", json!({}))], r#""ls" by s, "cat""#),
        ("behind a text", vec![within("s", 5), assistant("Über")], r#""Über", "" by s"#),
        (
            "within a text, twice",
            vec![within("s", 3), within("t", 5), assistant("Übers Meer")],
            r#""Üb", "er" by s, "s Meer" by t"#,
        ),
        (
            "a thought",
            vec![reasoning(MODEL, json!({"thought": "Hm", "thoughtSignature": "s"})), assistant("T")],
            r#""Hm" thought by s, "T""#,
        ),
        ("only a summary", vec![reasoning(MODEL, json!({"thought": "Hm"})), assistant("T")], r#""T""#),
        (
            "of another model",
            vec![
                reasoning("gemini/gemini-3-pro", json!({"thoughtSignature": "never"})),
                ls(),
                call("b", "cat", json!({})),
            ],
            r#""ls" by skip_thought_signature_validator, "cat""#,
        ),
    ];
    for (name, answer, expected) in cases {
        let results = ["a", "b"].into_iter().filter(|id| {
            answer.iter().any(|item| matches!(item, Item::ToolCall { id: called, .. } if *called == event_id(id)))
        });
        let results = results.map(|id| result(id, "r")).collect::<Vec<_>>();
        let items = [vec![user("Go.")], answer, results, vec![user("On.")]].concat();
        let shown = gemini_parts(&request(MODEL, items));
        assert_eq!(shown[1], format!("model: {expected}"), "{name}");
    }
    // What a newer model insists on, an older one never heard of.
    let items = vec![user("Go."), ls(), result("a", "r")];
    assert_eq!(gemini_parts(&request("gemini/gemini-2.5-pro", items))[1], r#"model: "ls""#);
}

#[test]
fn results_for_gemini_name_their_call_and_stand_before_what_is_said() {
    let image = || Content::Image { media_type: "image/png".to_owned(), data: "AAAA".to_owned() };
    let items = vec![
        user("Look."),
        call("a", "read", json!({})),
        call("b", "bash", json!("not an object")),
        user("Faster!"),
        // In the order in which they ended.
        Item::ToolResult { call: event_id("b"), content: vec![Content::text("no")], is_error: true },
        Item::ToolResult { call: event_id("a"), content: vec![image()], is_error: false },
        user("  "),
    ];
    let newer = r#"user: "read" {"output":"(an image; it follows)"} +1, "bash" {"error":"no"} +0, "Faster!""#;
    let older = r#"user: "read" {"output":"(an image; it follows)"} +0, "bash" {"error":"no"} +0, "Faster!", image"#;
    assert_eq!(gemini_parts(&request("gemini/gemini-flash-latest", items.clone()))[2], newer);
    assert_eq!(gemini_parts(&request("gemini/gemini-2.5-flash", items.clone()))[2], older);
    let body = body(&encode(&request("gemini/gemini-2.5-flash", items)));
    assert_eq!(body["contents"][1]["parts"][1]["functionCall"]["args"], json!({"input": "not an object"}));
    assert_eq!(gemini_parts(&request("gemini/gemini-2.5-flash", Vec::new())), [r#"user: "(nothing was said)""#]);
}

#[test]
fn gemini_is_told_of_efforts_and_schemas_as_its_generation_takes_them() {
    let cases = [
        // model, effort, max tokens → thinkingConfig
        ("gemini-2.0-flash", Some("high"), 8192, Value::Null),
        ("gemma-3-27b-it", Some("high"), 8192, Value::Null),
        ("gemini-2.5-pro", None, 8192, Value::Null),
        ("gemini-2.5-pro", Some("none"), 8192, json!({"thinkingBudget": 512, "includeThoughts": true})),
        ("gemini-2.5-flash", Some("none"), 8192, json!({"thinkingBudget": 0})),
        ("gemini-2.5-flash", Some("low"), 8192, json!({"thinkingBudget": 2048, "includeThoughts": true})),
        ("gemini-2.5-flash-lite", Some("high"), 64, json!({"thinkingBudget": 512, "includeThoughts": true})),
        ("gemini-2.5-flash", Some("high"), 8192, json!({"thinkingBudget": 4096, "includeThoughts": true})),
        ("gemini-3.8-flash", None, 8192, Value::Null),
        ("gemini-3.8-flash", Some("minimal"), 8192, json!({"thinkingLevel": "LOW", "includeThoughts": true})),
        ("gemini-3.5-flash-lite", Some("minimal"), 8192, json!({"thinkingLevel": "MINIMAL", "includeThoughts": true})),
        ("gemini-3-pro-preview", Some("medium"), 8192, json!({"thinkingLevel": "HIGH", "includeThoughts": true})),
        ("gemini-4-argon", Some("medium"), 8192, json!({"thinkingLevel": "MEDIUM", "includeThoughts": true})),
        ("gemini-pro-latest", Some("xhigh"), 8192, json!({"thinkingLevel": "HIGH", "includeThoughts": true})),
    ];
    for (model, effort, bound, thinking) in cases {
        let mut request = request(&format!("gemini/{model}"), vec![user("Think.")]);
        request.effort = effort.map(str::to_owned);
        request.max_output_tokens = bound;
        let body = body(&encode(&request));
        assert_eq!(body["generationConfig"]["thinkingConfig"], thinking, "{model} {effort:?}");
    }
    let schema = json!({"type": "object", "properties": {"n": {"type": "integer"}}});
    for (model, has_tools, is_native) in
        [("gemini-2.5-pro", true, false), ("gemini-2.5-pro", false, true), ("gemini-3.8-flash", true, true)]
    {
        let mut request = request(&format!("gemini/{model}"), vec![user("Count.")]);
        request.output_schema = Some(schema.clone());
        if !has_tools {
            request.tools.clear();
        }
        let body = body(&encode(&request));
        let system = body["systemInstruction"]["parts"][0]["text"].as_str().unwrap_or_default();
        assert_eq!(body["generationConfig"]["responseJsonSchema"] == schema, is_native, "{model}");
        assert_eq!(system.ends_with(&schema.to_string()), !is_native, "{model}: {system}");
    }
}

#[test]
fn a_models_name_is_one_part_of_a_path() {
    let cases = [
        ("gemini-3.8-flash", "models/gemini-3.8-flash"),
        ("models/gemini-3.8-flash", "models/gemini-3.8-flash"),
        ("tunedModels/my-model", "tunedModels/my-model"),
        ("../../v1/files?x=1#:", "models/..%2F..%2Fv1%2Ffiles%3Fx%3D1%23%3A"),
    ];
    for (model, resource) in cases {
        let encoded = encode(&request(&format!("gemini/{model}"), vec![user("Hello.")]));
        assert_eq!(encoded.path, format!("/v1beta/{resource}:streamGenerateContent?alt=sse"));
    }
}
