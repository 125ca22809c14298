//! What is lossless comes back as it was: neutral, to a wire, and neutral again; and nothing that a caller sends breaks us.

use super::{
    Inward, Wishes, Writer,
    random::{Random, disturb, numbered},
    tools::Tools,
    understand,
};
use crate::endpoint::Wire;
use adj_domain::{AnswerBlock, Content, EventId, Item, ModelRequest, Sampling, StopReason};
use adj_providers::{ModelEvent, WireKind, anthropic, chat, gemini, openai};
use proptest::{collection, prelude::*, sample};
use serde_json::{Map, Value, json};

const WIRES: [Wire; 4] = [Wire::Messages, Wire::Responses, Wire::Chat, Wire::Gemini];

fn read(wire: Wire, body: &[u8], request: &ModelRequest) -> Result<ModelRequest, String> {
    let understood = understand(wire, body, &request.model, &request.caller.session);
    understood.map(|(request, _)| request).map_err(|refusal| refusal.message)
}

/// Writes a request as our own encoder of the wire does.
fn encoded(wire: Wire, request: &ModelRequest) -> Vec<u8> {
    let encoded = match wire {
        Wire::Messages => anthropic::encode(request),
        Wire::Responses => openai::encode(request),
        Wire::Chat => chat::encode(request, chat::Variant::Compatible),
        Wire::Gemini => gemini::encode(request),
    };
    encoded.expect("the wire has words for all of it").body
}

/// Takes out, or changes, what a wire has no place for; this is the list of its losses.
fn as_the_wire_has_it(wire: Wire, request: &mut ModelRequest) {
    request.system = request.system.trim_start().to_owned();
    let Sampling { single_call, top_k, stop, .. } = &mut request.sampling;
    match wire {
        Wire::Messages => return,
        Wire::Responses => {
            *top_k = None;
            stop.clear();
        }
        Wire::Chat => {}
        Wire::Gemini => *single_call = false,
    }
    for item in &mut request.items {
        match item {
            Item::ToolResult { content, is_error, .. } => {
                *is_error &= wire == Wire::Gemini;
                as_contents(wire, content);
                if content.iter().all(|block| matches!(block, Content::Text { .. })) {
                    *content = vec![Content::Text { text: Content::join_text(content) }];
                }
            }
            Item::User { content } => {
                as_contents(wire, content);
                if wire == Wire::Chat && content.iter().all(|block| matches!(block, Content::Text { .. })) {
                    *content = vec![Content::Text { text: Content::join_text(content) }];
                }
            }
            _ => {}
        }
    }
    if wire != Wire::Responses {
        images_follow(&mut request.items);
    }
}

fn as_contents(wire: Wire, content: &mut Vec<Content>) {
    for block in content {
        match block {
            Content::Document { name, .. } if wire == Wire::Gemini => *name = None,
            Content::Document { name, .. } => {
                name.get_or_insert_with(|| "document".to_owned());
            }
            Content::ImageUrl { .. } if wire == Wire::Gemini => *block = Content::text("x"),
            _ => {}
        }
    }
}

/// Results hold only text, and what else there is follows all of them.
fn images_follow(items: &mut Vec<Item>) {
    let mut others = Vec::new();
    for item in std::mem::take(items) {
        match item {
            Item::ToolResult { call, mut content, is_error } => {
                let mut text = Content::join_text(&content);
                content.retain(|block| !matches!(block, Content::Text { .. }));
                if text.is_empty() {
                    text.push_str("(an image; it follows)");
                }
                others.extend(content);
                items.push(Item::ToolResult { call, content: vec![Content::Text { text }], is_error });
            }
            Item::User { content } => {
                others.extend(content);
                items.push(Item::User { content: std::mem::take(&mut others) });
            }
            other => {
                if !others.is_empty() {
                    items.push(Item::User { content: std::mem::take(&mut others) });
                }
                items.push(other);
            }
        }
    }
    if !others.is_empty() {
        items.push(Item::User { content: others });
    }
}

#[test]
fn a_neutral_request_comes_back_from_the_wire_as_it_was() {
    for wire in WIRES {
        for seed in 0..400 {
            let mut before = Random(seed).request();
            as_the_wire_has_it(wire, &mut before);
            let after = read(wire, &encoded(wire, &before), &before);
            let mut after = after.unwrap_or_else(|error| panic!("{wire:?}, seed {seed}: {error}"));
            numbered(&mut before);
            numbered(&mut after);
            assert_eq!(after, before, "{wire:?}, seed {seed}");
        }
    }
}

#[test]
fn small_changes_of_a_request_are_understood_or_refused_and_never_a_panic() {
    for wire in WIRES {
        for seed in 0..600 {
            let mut random = Random(seed);
            let mut request = random.request();
            as_the_wire_has_it(wire, &mut request);
            let mut body: Value = serde_json::from_slice(&encoded(wire, &request)).expect("it is JSON");
            for _ in 0..=random.below(3) {
                disturb(&mut body, &mut random);
            }
            let _ = read(wire, body.to_string().as_bytes(), &request);
        }
    }
}

/// Any JSON, made of the words that the wires know.
fn any_json() -> impl Strategy<Value = Value> {
    let words = "model messages input contents role user model assistant tool system content parts text type function \
                 tools tool_choice functionDeclarations function_declarations functionCall function_call functionResponse \
                 name id args arguments response output error inlineData inline_data mimeType data fileData fileUri \
                 thoughtSignature thought tool_calls tool_call_id reasoning_details generationConfig thinkingConfig \
                 thinkingBudget responseSchema response_format json_schema schema properties items nullable enum \
                 systemInstruction image_url url file file_data stop n max_tokens message function_call_output call_id \
                 reasoning encrypted_content tool_use tool_result tool_use_id input_schema custom namespace";
    let words = words.split_whitespace().collect::<Vec<_>>();
    let word = sample::select(words.clone()).prop_map(str::to_owned);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        word.clone().prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
        Just(json!("data:image/png;base64,aGk=")),
        Just(json!("adj1:e30=")),
    ];
    leaf.prop_recursive(6, 96, 6, move |inner| {
        prop_oneof![
            collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            collection::vec((sample::select(words.clone()), inner), 0..7)
                .prop_map(|fields| fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_json_is_understood_or_refused(
        list in collection::vec(any_json(), 0..6),
        fields in collection::vec(any_json(), 4),
    ) {
        let request = Random(1).request();
        for wire in WIRES {
            let (messages, others) = match wire {
                Wire::Messages => ("messages", ["system", "tools", "tool_choice", "thinking"]),
                Wire::Responses => ("input", ["instructions", "tools", "tool_choice", "text"]),
                Wire::Chat => ("messages", ["response_format", "tools", "tool_choice", "stop"]),
                Wire::Gemini => ("contents", ["systemInstruction", "tools", "toolConfig", "generationConfig"]),
            };
            for known in 0..=others.len() {
                let mut body = Map::from_iter([("max_tokens".to_owned(), json!(9)), (messages.to_owned(), json!(list))]);
                body.extend(others.iter().zip(&fields).take(known).map(|(name, value)| ((*name).to_owned(), value.clone())));
                let body = Value::Object(body).to_string();
                if let Ok(understood) = read(wire, body.as_bytes(), &request) {
                    // What was understood is no larger than what was said, but for names and frames.
                    let understood = serde_json::to_vec(&understood).expect("it is JSON").len();
                    prop_assert!(understood < 40 * body.len() + 4000, "{understood} of {}", body.len());
                }
            }
        }
    }

    #[test]
    fn any_bytes_are_refused(bytes in collection::vec(any::<u8>(), 0..64)) {
        let request = Random(1).request();
        for wire in WIRES {
            prop_assert!(read(wire, &bytes, &request).is_err());
        }
    }
}

/// The ways in which vendors send an answer.
#[derive(Debug, Clone, Copy)]
enum Sending {
    InOrder,
    /// All blocks at the end.
    BlocksLast,
    BlocksOnly,
}

fn events(blocks: &[AnswerBlock], sending: Sending) -> Vec<ModelEvent> {
    let mut events = Vec::new();
    for (index, block) in (0..).zip(blocks) {
        if !matches!(sending, Sending::BlocksOnly) {
            match block {
                AnswerBlock::Text { text } => {
                    let (head, tail) = text.split_at(text.ceil_char_boundary(text.len() / 2));
                    events.extend([head, tail].map(|text| ModelEvent::TextDelta { index, text: text.to_owned() }));
                }
                AnswerBlock::Reasoning { .. } => {
                    events.push(ModelEvent::ReasoningDelta { index, text: "hm".to_owned() });
                }
                AnswerBlock::ToolCall { name, .. } => {
                    let name = Some(name.clone());
                    events.push(ModelEvent::ToolCallDelta { index, name, arguments: String::new() });
                }
            }
        }
        if !matches!(sending, Sending::BlocksLast) {
            events.push(ModelEvent::Block(block.clone()));
        }
    }
    if matches!(sending, Sending::BlocksLast) {
        events.extend(blocks.iter().cloned().map(ModelEvent::Block));
    }
    events.push(ModelEvent::Finished { stop: StopReason::ToolUse });
    events
}

/// Puts a stream's pieces together as clients do, and returns the next request's conversation.
fn next_request(wire: Wire, stream: &str) -> Value {
    let frames = stream.split("\n\n").filter_map(|frame| frame.strip_prefix("data: ")).filter(|data| *data != "[DONE]");
    let frames = frames.map(|data| serde_json::from_str::<Value>(data).expect("it is JSON")).collect::<Vec<_>>();
    let user = json!({"role": "user", "content": "x"});
    if wire == Wire::Gemini {
        let parts = frames
            .iter()
            .flat_map(|frame| frame["candidates"][0]["content"]["parts"].as_array().expect("a list").clone());
        // Gemini CLI throws away what was shown of thoughts; Python's client writes the other alphabet.
        let mut parts = parts.filter(|part| part["thought"] != true).collect::<Vec<_>>();
        for signature in parts.iter_mut().filter_map(|part| part.get_mut("thoughtSignature")) {
            *signature = json!(signature.as_str().expect("a text").replace('+', "-").replace('/', "_"));
        }
        let results = parts.iter().filter(|part| part["functionCall"].is_object()).map(|part| {
            json!({"functionResponse": {"id": part["functionCall"]["id"], "name": "bash", "response": {"output": "ok"}}})
        });
        let results = results.rev().collect::<Value>();
        return json!({"contents": [{"role": "user", "parts": [{"text": "x"}]},
            {"role": "model", "parts": parts}, {"role": "user", "parts": results}]});
    }
    let (mut content, mut details, mut calls) = (String::new(), Vec::new(), Vec::<Value>::new());
    for delta in frames.iter().map(|frame| &frame["choices"][0]["delta"]) {
        content.push_str(delta["content"].as_str().unwrap_or_default());
        details.extend(delta["reasoning_details"].as_array().cloned().unwrap_or_default());
        for call in delta["tool_calls"].as_array().map_or(&[][..], Vec::as_slice) {
            let place = call["index"].as_u64().expect("a number") as usize;
            if call["id"].is_string() {
                assert_eq!(place, calls.len(), "no gaps, and no name twice");
                calls.push(call.clone());
            } else {
                calls[place]["function"]["arguments"] = call["function"]["arguments"].clone();
            }
        }
    }
    let results = calls.iter().map(|call| json!({"role": "tool", "tool_call_id": call["id"], "content": "ok"})).rev();
    let answer = json!({"role": "assistant", "content": content, "reasoning_details": details, "tool_calls": calls});
    let messages = [user, answer].into_iter().chain(results);
    json!({"messages": messages.collect::<Value>()})
}

#[test]
fn an_answer_comes_back_with_the_next_request_as_the_vendor_gave_it() {
    let request = Random(1).request();
    let model = &request.model;
    for wire in [Wire::Chat, Wire::Gemini] {
        for (seed, sending) in (0..200)
            .flat_map(|seed| [Sending::InOrder, Sending::BlocksLast, Sending::BlocksOnly].map(|how| (seed, how)))
        {
            let blocks = Random(seed).answer();
            let wishes = Wishes { thoughts: true, ..Wishes::default() };
            let inward =
                Inward { request: request.clone(), losses: Default::default(), tools: Tools::new(wire), wishes };
            let mut writer = Writer::new(wire, &EventId::derive(&["r"]), "m", &inward);
            let mut out = String::new();
            for event in events(&blocks, sending) {
                writer.push(event, &mut out).expect("the answer is in order");
            }
            let body = next_request(wire, &out);
            let mut after = read(wire, body.to_string().as_bytes(), &request).expect("it is in order");
            let mut number = 0;
            let mut before = request.clone();
            before.items = vec![Item::User { content: vec![Content::text("x")] }];
            let items = blocks.into_iter().map(|block| match block {
                AnswerBlock::Text { text } => Item::Assistant { text },
                AnswerBlock::Reasoning { payload } => {
                    Item::Reasoning { vendor: model.vendor.clone(), model: model.name.clone(), payload }
                }
                AnswerBlock::ToolCall { name, input, .. } => {
                    number += 1;
                    let id = EventId::derive(&["r", &number.to_string()]);
                    Item::ToolCall { id, name, input: input.expect("it is JSON") }
                }
            });
            before.items.extend(items);
            for number in 1..=number {
                let call = EventId::derive(&["r", &number.to_string()]);
                before.items.push(Item::ToolResult { call, content: vec![Content::text("ok")], is_error: false });
            }
            numbered(&mut before);
            numbered(&mut after);
            assert_eq!(after.items, before.items, "{wire:?}, seed {seed}, {sending:?}: {out}");
        }
    }
}

#[test]
fn sampling_is_left_out_only_where_a_model_refuses_it() {
    use WireKind::{Anthropic, Chat, Gemini, OpenAi};
    let cases = [
        (OpenAi, "gpt-5.5", None, "temperature, top_k, top_p"),
        (OpenAi, "gpt-5.5", Some("none"), "top_k"),
        (OpenAi, "gpt-4o", None, "top_k"),
        (OpenAi, "local", Some("low"), "temperature, top_k, top_p"),
        (Chat, "openai/gpt-5.5", None, "temperature, top_k, top_p"),
        (Chat, "o3-mini", Some("low"), "temperature, top_k, top_p"),
        (Chat, "gpt-oss-120b", Some("low"), ""),
        (Chat, "olmo-3", None, ""),
        (Anthropic, "claude-sonnet-4-6", None, "top_p"),
        (Gemini, "gemini-3-pro", Some("low"), ""),
    ];
    for (outward, name, effort, expected) in cases {
        let mut request = Random(1).request();
        request.model.name = name.to_owned();
        request.effort = effort.map(str::to_owned);
        request.sampling = Sampling { temperature: Some(0.5), top_p: Some(0.5), top_k: Some(5), ..Sampling::default() };
        let (tools, wishes) = (Tools::new(Wire::Gemini), Wishes::default());
        let mut inward = Inward { request, losses: Default::default(), tools, wishes };
        inward.fit(outward);
        assert_eq!(inward.losses.list().join(", "), expected, "{outward:?} {name} {effort:?}");
        let Sampling { temperature, top_p, top_k, .. } = inward.request.sampling;
        let kept = [temperature.is_some(), top_k.is_some(), top_p.is_some()];
        let lost = ["temperature", "top_k", "top_p"].map(|name| expected.contains(name));
        assert_eq!(kept.map(|kept| !kept), lost, "{outward:?} {name} {effort:?}");
    }
}

/// What follows a batch's results stands behind them, a record of reasoning too.
#[test]
fn a_record_between_two_batches_stays_between_them() {
    let request = Random(1).request();
    let sealed = super::reasoning::wrap(&request.model, &json!({"n": 2}), false);
    let call = |id: &str| json!({"type": "function_call", "call_id": id, "name": "bash", "arguments": "{}"});
    let output = |id: &str| json!({"type": "function_call_output", "call_id": id, "output": "ok"});
    let input = json!([{"role": "user", "content": "x"}, call("a"), output("a"),
        {"type": "reasoning", "summary": [], "encrypted_content": sealed}, call("b"), output("b")]);
    let body = json!({"input": input}).to_string();
    let items = read(Wire::Responses, body.as_bytes(), &request).expect("it is in order").items;
    let kinds = items.iter().map(|item| serde_json::to_value(item).expect("it is JSON")["type"].clone());
    assert_eq!(
        kinds.collect::<Vec<_>>(),
        ["user", "tool_call", "tool_result", "reasoning", "tool_call", "tool_result"]
    );
}

/// Claude Code puts instructions into the middle, for models that it does not know.
#[test]
fn instructions_between_calls_and_their_results_stand_behind_both() {
    let request = Random(1).request();
    let call = json!({"type": "tool_use", "id": "a", "name": "bash", "input": {}});
    let body = json!({"max_tokens": 9, "messages": [
        {"role": "user", "content": "x"}, {"role": "assistant", "content": [call]}, {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": "ok"}]}]});
    let items = read(Wire::Messages, body.to_string().as_bytes(), &request).expect("it is in order").items;
    let [Item::User { .. }, Item::ToolCall { .. }, Item::ToolResult { .. }, Item::User { content }] = items.as_slice()
    else {
        panic!("{items:?}")
    };
    assert_eq!(content, &[Content::text("<system-reminder>\nBe brief.\n</system-reminder>")]);
}
