//! What is made of vendors' bytes, whole, cut, split and broken.

use adj_domain::{AnswerBlock, FailureKind, StopReason, Usage};
use adj_providers::{
    Accumulator, Dialect, ModelEvent, ProviderError, StreamDecoder, accumulator::MAX_ANSWER_BYTES, anthropic::Messages,
    chat::Chat, gemini::GenerateContent, openai::Responses,
};
use proptest::prelude::*;
use serde_json::json;
use std::time::Duration;

const ANTHROPIC: &[u8] = include_bytes!("recordings/anthropic.sse");
const OPENAI: &[u8] = include_bytes!("recordings/openai.sse");
const CHAT: &[u8] = include_bytes!("recordings/chat.sse");
const GEMINI: &[u8] = include_bytes!("recordings/gemini.sse");

fn decode<'a, D: Dialect>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<ModelEvent>, ProviderError> {
    let mut decoder = StreamDecoder::<D>::new();
    let mut events = Vec::new();
    for chunk in chunks {
        events.extend(decoder.push(chunk)?);
    }
    events.extend(decoder.finish()?);
    Ok(events)
}

#[test]
fn recordings_become_the_golden_events() {
    let shown = |events: Result<Vec<ModelEvent>, ProviderError>| {
        let events = events.expect("a recording is whole");
        events.iter().map(|event| format!("{event:?}\n")).collect::<String>()
    };
    insta::assert_snapshot!("events_anthropic", shown(decode::<Messages>([ANTHROPIC])));
    insta::assert_snapshot!("events_openai", shown(decode::<Responses>([OPENAI])));
    insta::assert_snapshot!("events_chat", shown(decode::<Chat>([CHAT])));
    insta::assert_snapshot!("events_gemini", shown(decode::<GenerateContent>([GEMINI])));
}

fn check_every_split<D: Dialect>(recording: &[u8]) {
    let whole = decode::<D>([recording]).expect("a recording is whole");
    for place in 0..=recording.len() {
        let (head, tail) = recording.split_at(place);
        assert_eq!(decode::<D>([head, tail]), Ok(whole.clone()), "split at {place}");
    }
    assert_eq!(decode::<D>(recording.chunks(1)), Ok(whole.clone()), "byte by byte");
    let with_returns = String::from_utf8_lossy(recording).replace('\n', "\r\n");
    assert_eq!(decode::<D>(with_returns.as_bytes().chunks(7)), Ok(whole), "with carriage returns");
}

#[test]
fn the_events_are_the_same_wherever_the_stream_is_split() {
    check_every_split::<Messages>(ANTHROPIC);
    check_every_split::<Responses>(OPENAI);
    check_every_split::<Chat>(CHAT);
    check_every_split::<GenerateContent>(GEMINI);
}

fn check_every_cut<D: Dialect>(recording: &[u8], end: &[u8]) {
    // From the line break on that ends the vendor's last event, nothing is missing any more.
    let end =
        recording.windows(end.len()).rposition(|window| window == end).expect("a recording has an end") + end.len();
    for place in 0..recording.len() {
        let mut decoder = StreamDecoder::<D>::new();
        let mut accumulator = Accumulator::new();
        let events = decoder.push(&recording[..place]).expect("the beginning of a recording is legal");
        let last = decoder.finish();
        let whole = place >= end;
        assert_eq!(last.is_ok(), whole, "cut at {place}");
        for event in events.into_iter().chain(last.unwrap_or_default()) {
            accumulator.push(event).expect("a recording is no stream without an end");
        }
        assert_eq!(accumulator.finish().is_ok(), whole, "an answer from a stream that was cut at {place}");
    }
}

#[test]
fn a_stream_that_is_cut_at_any_byte_gives_no_answer() {
    check_every_cut::<Messages>(ANTHROPIC, b"data: {\"type\":\"message_stop\"}\n\n");
    check_every_cut::<Responses>(OPENAI, b"\"total_tokens\":4401}}}\n\n");
    check_every_cut::<Chat>(CHAT, b"data: [DONE]\n\n");
    check_every_cut::<GenerateContent>(GEMINI, b"\"responseId\":\"resp_1\"}\n\n");
}

#[test]
fn a_stream_that_lost_an_event_gives_no_wrong_calls() {
    // Whichever single event is missing: an error, or an answer whose calls are among the true ones or malformed.
    fn check<D: Dialect>(recording: &[u8]) {
        let text = String::from_utf8_lossy(recording).into_owned();
        let frames = text.split_inclusive("\n\n").collect::<Vec<_>>();
        let calls = |events: &[ModelEvent]| {
            let calls = events.iter().filter_map(|event| match event {
                ModelEvent::Block(AnswerBlock::ToolCall { name, input: Ok(input), .. }) => {
                    Some((name.clone(), input.clone()))
                }
                _ => None,
            });
            calls.collect::<Vec<_>>()
        };
        let truth = calls(&decode::<D>([recording]).expect("a recording is whole"));
        for missing in 0..frames.len() {
            let rest =
                frames.iter().enumerate().filter(|(place, _)| *place != missing).map(|(_, frame)| frame.as_bytes());
            if let Ok(events) = decode::<D>(rest) {
                for (name, input) in calls(&events) {
                    let empty = input == json!({});
                    assert!(truth.contains(&(name, input)) || empty, "without {}", frames[missing]);
                }
            }
        }
    }
    check::<Messages>(ANTHROPIC);
    check::<Responses>(OPENAI);
    check::<Chat>(CHAT);
    check::<GenerateContent>(GEMINI);
}

fn stream(events: &[&str]) -> Vec<u8> {
    events.iter().map(|event| format!("data: {event}\n\n")).collect::<String>().into_bytes()
}

fn check_error<D: Dialect>(events: &[&str], kind: FailureKind, words: &str) {
    let error = decode::<D>([stream(events).as_slice()]).expect_err(words);
    assert_eq!(error.kind, kind, "{error}");
    assert!(error.message.contains(words), "{error} does not say {words:?}");
}

#[test]
fn errors_within_a_stream_keep_the_vendors_words() {
    use FailureKind::*;
    let start = r#"{"type":"message_start","message":{"model":"m"}}"#;
    let text = r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#;
    let delta = r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"x"}}"#;
    let json = r#"{"type":"content_block_delta","index":0,"delta":{"type":"input_json_delta","partial_json":"x"}}"#;
    let stop = r#"{"type":"message_stop"}"#;
    let overloaded = r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#;
    check_error::<Messages>(&[overloaded], Overloaded, "Overloaded");
    check_error::<Messages>(&[start, text, overloaded], Overloaded, "overloaded_error: Overloaded");
    check_error::<Messages>(
        &[
            start,
            r#"{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 9 tokens"}}"#,
        ],
        ContextTooLong,
        "prompt is too long",
    );
    check_error::<Messages>(&[start, r#"{"type":"error","error":{"type":"new_error"}}"#], Server, "new_error");
    check_error::<Messages>(&[text], Protocol, "does not begin");
    check_error::<Messages>(&[start, start], Protocol, "began twice");
    check_error::<Messages>(&[start, text, text], Protocol, "block 0 began twice");
    check_error::<Messages>(&[start, delta], Protocol, "without having begun");
    check_error::<Messages>(&[start, text, json], Protocol, "did not begin as");
    check_error::<Messages>(&[start, text, stop], Protocol, "while block 0 was open");
    check_error::<Messages>(&[start, stop], Protocol, "without a stop reason");
    check_error::<Messages>(&[start, "<html>"], Protocol, "<html>");
    check_error::<Messages>(&[], Protocol, "broke off");

    let created = r#"{"type":"response.created","response":{"model":"m"}}"#;
    check_error::<Responses>(
        &[
            created,
            r#"{"type":"response.failed","response":{"error":{"code":"rate_limit_exceeded","message":"Slow down."}}}"#,
        ],
        RateLimit,
        "rate_limit_exceeded: Slow down.",
    );
    check_error::<Responses>(
        &[r#"{"type":"error","code":"context_length_exceeded","message":"Too long.","param":null}"#],
        ContextTooLong,
        "Too long.",
    );
    check_error::<Responses>(
        &[r#"{"type":"error","error":{"type":"invalid_request_error","code":null,"message":"No."}}"#],
        InvalidRequest,
        "No.",
    );
    check_error::<Responses>(&[created, r#"{"type":"response.failed","response":{}}"#], Server, "without a word");
    check_error::<Responses>(&[created, r#"{"type":"response.cancelled"}"#], Protocol, "cancelled");
    check_error::<Responses>(&[created, created], Protocol, "began twice");
    check_error::<Responses>(&[created, r#"{"type":"response.output_item.done"}"#], Protocol, "lacks its content");
    check_error::<Responses>(
        &[
            created,
            r#"{"type":"response.output_item.done","item":{"type":"message","content":[]}}"#,
            r#"{"type":"response.completed","response":{"output":[{"type":"message"},{"type":"function_call"}]}}"#,
        ],
        Protocol,
        "only 1 of them arrived",
    );

    let chunk = r#"{"model":"m","choices":[{"delta":{"content":"x"}}]}"#;
    check_error::<Chat>(&[chunk, r#"{"error":{"message":"Busy.","code":503}}"#], Server, "Busy.");
    check_error::<Chat>(&[chunk, r#"{"error":{"message":"Busy.","type":"overloaded_error"}}"#], Overloaded, "Busy.");
    check_error::<Chat>(&[chunk, r#"{"error":"out of memory"}"#], Server, "out of memory");
    check_error::<Chat>(&[chunk, "[DONE]"], Protocol, "without a finish reason");
    check_error::<Chat>(
        &[r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{}"}}]}}]}"#],
        Protocol,
        "without a name",
    );

    let chunk = r#"{"candidates":[{"content":{"parts":[{"text":"x"}]}}],"modelVersion":"m"}"#;
    let call = r#"{"candidates":[{"content":{"parts":[{"functionCall":{"name":"t","args":{}}}]}}]}"#;
    let busy = r#"{"error":{"code":503,"message":"The model is overloaded.","status":"UNAVAILABLE"}}"#;
    check_error::<GenerateContent>(&[busy], Overloaded, "UNAVAILABLE: The model is overloaded.");
    check_error::<GenerateContent>(&[chunk, busy], Overloaded, "UNAVAILABLE: The model is overloaded.");
    check_error::<GenerateContent>(&[chunk, r#"{"error":"out of memory"}"#], Server, "out of memory");
    check_error::<GenerateContent>(&[chunk, "[DONE]"], Protocol, "broke off");
    check_error::<GenerateContent>(&[chunk, "<html>"], Protocol, "<html>");
    check_error::<GenerateContent>(&[], Protocol, "broke off");
    let ended = |reason: &str| format!(r#"{{"candidates":[{{"finishReason":"{reason}","finishMessage":"Oh: t("}}]}}"#);
    for reason in ["MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "MALFORMED_RESPONSE"] {
        check_error::<GenerateContent>(&[call, &ended(reason)], Protocol, &format!("{reason}: Oh: t("));
    }
    check_error::<GenerateContent>(&[chunk, &ended("MISSING_THOUGHT_SIGNATURE")], InvalidRequest, "MISSING_THOUGHT");
    check_error::<GenerateContent>(&[call, &ended("OTHER")], Protocol, "its calls are not run: OTHER");
    check_error::<GenerateContent>(&[chunk, &ended("FINISH_REASON_UNSPECIFIED")], Protocol, "broke off");
    check_error::<GenerateContent>(
        &[r#"{"candidates":[{"content":{"parts":[{"functionCall":{"args":{}}}]}}]}"#],
        Protocol,
        "no name",
    );
    check_error::<GenerateContent>(
        &[r#"{"candidates":[{"content":{"parts":[{"functionCall":{"name":"t","willContinue":true}}]}}]}"#],
        Protocol,
        "in pieces",
    );
}

#[test]
fn an_error_that_is_written_into_the_stream_as_it_is_keeps_its_words() {
    let error = r#"{
  "error": {
    "code": 429,
    "message": "Slow down.",
    "status": "RESOURCE_EXHAUSTED",
    "details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "1.5s"}]
  }
}
"#;
    fn check<D: Dialect>(recording: &[u8], error: &str, wait: Option<Duration>) {
        let frames = String::from_utf8_lossy(recording).into_owned();
        let first = frames.split_inclusive("\n\n").next().unwrap_or_default();
        for error in [error.to_owned(), error.replace('\n', "\r\n"), format!("[{}]", error.trim())] {
            let stream = format!("{first}{error}");
            for size in [1, 7, stream.len()] {
                let found = decode::<D>(stream.as_bytes().chunks(size)).expect_err("the stream is an error");
                assert_eq!(found.message, "RESOURCE_EXHAUSTED: Slow down.");
                assert_eq!((found.kind, found.retry_after), (FailureKind::RateLimit, wait));
            }
        }
        // Behind the end of an answer it says nothing about that answer, where the wire has an event for the end.
        let whole = format!("{frames}{error}");
        let found = decode::<D>([whole.as_bytes()]);
        assert_eq!(found.is_ok(), std::any::type_name::<D>() != std::any::type_name::<GenerateContent>());
    }
    let wait = Some(Duration::from_millis(1500));
    check::<Messages>(ANTHROPIC, error, wait);
    check::<Responses>(OPENAI, error, wait);
    check::<Chat>(CHAT, error, wait);
    check::<GenerateContent>(GEMINI, error, wait);
}

fn answer<D: Dialect>(events: &[&str]) -> (Vec<AnswerBlock>, StopReason) {
    let mut accumulator = Accumulator::new();
    for event in decode::<D>([stream(events).as_slice()]).expect("the stream is whole") {
        accumulator.push(event).expect("the stream ends once");
    }
    let answer = accumulator.finish().expect("the stream is whole");
    (answer.blocks, answer.stop)
}

#[test]
fn vendors_that_bend_the_protocol_are_understood() {
    let call = |id: &str, name: &str, input| AnswerBlock::ToolCall {
        vendor_call_id: id.to_owned(),
        name: name.to_owned(),
        input: Ok(input),
    };
    let text = |text: &str| AnswerBlock::Text { text: text.to_owned() };

    // Every call whole, and every one of them number 0.
    let found = answer::<Chat>(&[
        r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"a","function":{"name":"x","arguments":"{}"}}]}}]}"#,
        r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"b","function":{"name":"y","arguments":"{\"n\":1}"}}]}}]}"#,
        r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#,
        "[DONE]",
    ]);
    assert_eq!(found, (vec![call("a", "x", json!({})), call("b", "y", json!({"n": 1}))], StopReason::ToolUse));

    // No index, the name and the id in every piece, the usage in the last chunk with a choice.
    let found = answer::<Chat>(&[
        r#"{"choices":[{"delta":{"tool_calls":[{"id":"a","function":{"name":"x","arguments":"{\"n\""}}]}}]}"#,
        r#"{"choices":[{"delta":{"tool_calls":[{"id":"a","function":{"name":"x","arguments":":2}"}}]}}]}"#,
        r#"{"choices":[{"delta":{"content":""},"finish_reason":"tool_calls"}],"usage":{"prompt_tokens":1,"completion_tokens":1}}"#,
        "[DONE]",
    ]);
    assert_eq!(found, (vec![call("a", "x", json!({"n": 2}))], StopReason::ToolUse));

    // No id at all.
    let found = answer::<Chat>(&[
        r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"name":"x","arguments":"{}"}}]},"finish_reason":"stop"}]}"#,
        "[DONE]",
    ]);
    assert_eq!(found, (vec![call("call_0", "x", json!({}))], StopReason::ToolUse));

    let found = answer::<Chat>(&[
        r#"{"choices":[{"index":1,"delta":{"content":"no"}},{"index":0,"delta":{"refusal":"I won't."},"finish_reason":"stop"}]}"#,
        "[DONE]",
    ]);
    assert_eq!(found, (vec![text("I won't.")], StopReason::Refusal));

    // Only the last event, as the smallest compatible servers send it.
    let found = answer::<Responses>(&[
        r#"{"type":"response.completed","response":{"id":"r","output":[{"type":"message","content":[{"type":"output_text","text":"Hi."}]}]}}"#,
    ]);
    assert_eq!(found, (vec![text("Hi.")], StopReason::EndTurn));

    let found = answer::<Responses>(&[
        r#"{"type":"response.output_item.done","item":{"type":"message","content":[{"type":"output_text","text":"Hi"}]}}"#,
        r#"{"type":"response.incomplete","response":{"incomplete_details":{"reason":"max_output_tokens"}}}"#,
        "[DONE]",
    ]);
    assert_eq!(found, (vec![text("Hi")], StopReason::MaxTokens));

    // The input whole, in the block's start.
    let found = answer::<Messages>(&[
        r#"{"type":"message_start","message":{}}"#,
        r#"{"type":"content_block_start","index":0,"content_block":{"type":"tool_use","id":"a","name":"x","input":{"n":3}}}"#,
        r#"{"type":"content_block_stop","index":0}"#,
        r#"{"type":"message_delta","delta":{"stop_reason":"tool_use"}}"#,
        r#"{"type":"message_stop"}"#,
        r#"{"type":"after the end, nothing counts"}"#,
    ]);
    assert_eq!(found, (vec![call("a", "x", json!({"n": 3}))], StopReason::ToolUse));

    // A reason to end with every chunk, another candidate, counts that come and go, nulls.
    let found = answer::<GenerateContent>(&[
        r#"{"candidates":[{"content":{"parts":null},"finishReason":"STOP"},{"index":1,"content":{"parts":[{"text":"no"}]}}]}"#,
        r#"{"candidates":[{"content":{"parts":[{"text":"Hi"}]},"finishReason":"STOP","finishMessage":null}],"usageMetadata":{}}"#,
        r#"{"candidates":[{"content":null,"finishReason":"MAX_TOKENS"}],"promptFeedback":{"safetyRatings":[]},"error":null}"#,
        r#"{"usageMetadata":{"promptTokenCount":3}}"#,
    ]);
    assert_eq!(found, (vec![text("Hi")], StopReason::MaxTokens));

    // Arguments in a text, as other wires have them; none at all; and such as are no JSON.
    let found = answer::<GenerateContent>(&[
        r#"{"candidates":[{"content":{"parts":[{"functionCall":{"id":"a","name":"x","args":"{\"n\":4}"}}]}}]}"#,
        r#"{"candidates":[{"content":{"parts":[{"functionCall":{"name":"y","args":null}},{"functionCall":{"id":"","name":"z","args":"{"}}]}}]}"#,
        r#"{"candidates":[{"finishReason":"STOP"}]}"#,
    ]);
    let broken =
        AnswerBlock::ToolCall { vendor_call_id: "call_2".to_owned(), name: "z".to_owned(), input: Err("{".to_owned()) };
    let expected = vec![call("a", "x", json!({"n": 4})), call("call_1", "y", json!({})), broken];
    assert_eq!(found, (expected, StopReason::ToolUse));
}

#[test]
fn gemini_signs_parts_and_the_signatures_stand_before_their_blocks() {
    let parts = |parts: &str| format!(r#"{{"candidates":[{{"content":{{"parts":[{parts}]}}}}]}}"#);
    let end = r#"{"candidates":[{"finishReason":"STOP"}]}"#;
    let cases = [
        (
            "behind a text",
            r#"{"text":"Üb"},{"text":"er"},{"text":"","thoughtSignature":"s"}"#,
            r#"{"thoughtSignature":"s","from":5} "Über""#,
        ),
        (
            "within a text",
            r#"{"text":"a"},{"text":"b","thoughtSignature":"s"},{"text":"c"},{"text":"d","thoughtSignature":"t"}"#,
            r#"{"thoughtSignature":"s","from":1} {"thoughtSignature":"t","from":3} "abcd""#,
        ),
        (
            "on the first of two calls",
            r#"{"text":"a"},{"functionCall":{"name":"x"},"thoughtSignature":"s"},{"functionCall":{"name":"y"}}"#,
            r#""a" {"thoughtSignature":"s"} x y"#,
        ),
        (
            "on a thought",
            r#"{"text":"A","thought":true},{"text":"B","thought":true,"thoughtSignature":"s"},{"text":"C","thought":true},{"text":"d"}"#,
            r#"{"thought":"A"} {"thought":"B","thoughtSignature":"s"} {"thought":"C"} "d""#,
        ),
        ("on nothing", r#"{"thoughtSignature":"s"}"#, r#"{"thoughtSignature":"s","from":0}"#),
    ];
    for (name, given, expected) in cases {
        let (blocks, _) = answer::<GenerateContent>(&[&parts(given), end]);
        let shown = blocks.iter().map(|block| match block {
            AnswerBlock::Text { text } => json!(text).to_string(),
            AnswerBlock::Reasoning { payload } => payload.to_string(),
            AnswerBlock::ToolCall { name, .. } => name.clone(),
        });
        assert_eq!(shown.collect::<Vec<_>>().join(" "), expected, "{name}");
    }
}

#[test]
fn what_gemini_blocks_is_a_refusal_of_which_nothing_is_run() {
    let call = r#"{"candidates":[{"content":{"parts":[{"text":"x"},{"functionCall":{"name":"t","args":{}}}]}}]}"#;
    let reasons = ["SAFETY", "RECITATION", "PROHIBITED_CONTENT", "BLOCKLIST", "SPII", "ESCALATION", "MODEL_ARMOR"];
    for reason in reasons {
        let end = format!(r#"{{"candidates":[{{"finishReason":"{reason}","finishMessage":"No."}}]}}"#);
        let (blocks, stop) = answer::<GenerateContent>(&[call, &end]);
        let record = AnswerBlock::Reasoning { payload: json!({"refusal": reason, "message": "No."}) };
        assert_eq!((blocks, stop), (vec![AnswerBlock::Text { text: "x".to_owned() }, record], StopReason::Refusal));
    }
    let (blocks, stop) =
        answer::<GenerateContent>(&[r#"{"promptFeedback":{"blockReason":"SAFETY"},"modelVersion":"m"}"#]);
    let record =
        AnswerBlock::Reasoning { payload: json!({"refusal": "the prompt was blocked: SAFETY", "message": ""}) };
    assert_eq!((blocks, stop), (vec![record], StopReason::Refusal));
    let other = answer::<GenerateContent>(&[r#"{"candidates":[{"finishReason":"LANGUAGE"}]}"#]);
    assert_eq!(other, (Vec::new(), StopReason::Other("LANGUAGE".to_owned())));
}

#[test]
fn tokens_of_gemini_are_counted_once() {
    let counts = r#"{"candidates":[{"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":100,
        "cachedContentTokenCount":60,"toolUsePromptTokenCount":5,"candidatesTokenCount":20,"thoughtsTokenCount":7}}"#;
    let events = decode::<GenerateContent>([stream(&[&counts.replace('\n', "")]).as_slice()]).expect("it is whole");
    let expected = Usage {
        input_tokens: 45,
        output_tokens: 27,
        cache_read_tokens: 60,
        cache_write_tokens: 0,
        cache_write_1h_tokens: 0,
        reasoning_tokens: 7,
    };
    assert!(events.contains(&ModelEvent::Usage(expected)), "{events:?}");
}

#[test]
fn an_answer_that_never_ends_is_ended() {
    let piece = "y".repeat(64 * 1024);
    let delta =
        format!(r#"{{"type":"content_block_delta","index":0,"delta":{{"type":"text_delta","text":"{piece}"}}}}"#);
    let start = [
        r#"{"type":"message_start","message":{}}"#,
        r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#,
    ];
    let mut decoder = StreamDecoder::<Messages>::new();
    decoder.push(&stream(&start)).expect("the start is legal");
    let delta = stream(&[&delta]);
    let mut taken = 0;
    let error = loop {
        match decoder.push(&delta) {
            Ok(_) => taken += piece.len(),
            Err(error) => break error,
        }
    };
    assert!(taken <= MAX_ANSWER_BYTES && error.message.contains("larger than"), "{error}");
    assert!(decoder.push(b"\n\n").is_err(), "a broken decoder stays broken");

    let mut decoder = StreamDecoder::<Messages>::new();
    decoder.push(&stream(&start[..1])).expect("the start is legal");
    let opened = (0..2000).try_for_each(|index| {
        let block = format!(r#"{{"type":"content_block_start","index":{index},"content_block":{{"type":"text"}}}}"#);
        decoder.push(&stream(&[&block])).map(drop)
    });
    let error = opened.expect_err("so many blocks are no answer");
    assert!(error.message.contains("blocks"), "{error}");

    // A wire without whole blocks on the way is held to the same, whatever it is that never ends.
    let parts = [
        format!(r#"{{"text":"{piece}"}}"#),
        format!(r#"{{"text":"{piece}","thought":true}}"#),
        format!(r#"{{"text":"{piece}","thought":true,"thoughtSignature":"s"}}"#),
        format!(r#"{{"text":"","thoughtSignature":"{piece}"}}"#),
        r#"{"text":"","thoughtSignature":"s"}"#.to_owned(),
        format!(r#"{{"functionCall":{{"name":"x","args":{{"a":"{piece}"}}}}}}"#),
        r#"{"functionCall":{"name":"x"}}"#.to_owned(),
    ];
    for part in parts {
        let chunk =
            stream(&[&format!(r#"{{"candidates":[{{"content":{{"parts":[{part}]}},"finishReason":"STOP"}}]}}"#)]);
        let mut decoder = StreamDecoder::<GenerateContent>::new();
        let grown = (0..2000).try_for_each(|_| decoder.push(&chunk).map(drop));
        let error = grown.expect_err("so much is no answer");
        assert!(error.message.contains("the answer"), "{error}");
    }
}

/// Lines that resemble the wires, so that garbage gets past the first check.
fn near_garbage() -> impl Strategy<Value = Vec<u8>> {
    let recordings = [ANTHROPIC, OPENAI, CHAT, GEMINI];
    let line = (0..4usize, any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()).prop_map(
        move |(which, line, byte, value)| {
            let lines = recordings[which].split_inclusive(|byte| *byte == b'\n').collect::<Vec<_>>();
            let mut bytes = lines[line.index(lines.len())].to_vec();
            if value < 64 {
                let place = byte.index(bytes.len());
                bytes[place] = value.wrapping_mul(5);
            }
            bytes.extend_from_slice(b"\n");
            bytes
        },
    );
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..300),
        prop::collection::vec(line, 0..30).prop_map(|lines| lines.concat()),
    ]
}

fn feed<D: Dialect>(bytes: &[u8], size: usize) {
    let mut decoder = StreamDecoder::<D>::new();
    let mut accumulator = Accumulator::new();
    for chunk in bytes.chunks(size) {
        let Ok(events) = decoder.push(chunk) else { return };
        for event in events {
            if accumulator.push(event).is_err() {
                return;
            }
        }
    }
    let last = decoder.finish();
    let finished = last.is_ok();
    for event in last.unwrap_or_default() {
        if accumulator.push(event).is_err() {
            return;
        }
    }
    assert_eq!(accumulator.finish().is_ok(), finished);
}

proptest! {
    #[test]
    fn garbage_is_an_error_or_nothing_but_never_a_panic(bytes in near_garbage(), size in 1..50usize) {
        feed::<Messages>(&bytes, size);
        feed::<Responses>(&bytes, size);
        feed::<Chat>(&bytes, size);
        feed::<GenerateContent>(&bytes, size);
    }
}
