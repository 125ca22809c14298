//! Whole attempts over HTTP against a vendor on this machine.

use crate::fixtures::{assistant, call, conversation, request, result, user};
use adj_domain::{AnswerBlock, FailureKind, Item, ModelAnswer, ModelRequest, StopReason, Usage};
use adj_providers::{
    Accumulator, HttpProvider, ModelEvent, Provider, ProviderError, Reading, Resource, Scope, Secret, Timeouts,
    WireKind, http::Credentials,
};
use adj_testkit::{FakeVendor, Reply, TokenCounts, gemini_signature};
use futures_util::StreamExt;
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

const MODELS: [(&str, WireKind); 4] = [
    ("openai/gpt-5.5", WireKind::OpenAi),
    ("anthropic/claude-sonnet-4-5", WireKind::Anthropic),
    ("openai-chat/local", WireKind::Chat),
    ("gemini/gemini-3.8-flash", WireKind::Gemini),
];

fn provider(vendor: &FakeVendor, wire: WireKind) -> HttpProvider {
    let timeouts = Timeouts {
        connect: Duration::from_secs(5),
        first_byte: Duration::from_secs(20),
        between_chunks: Duration::from_secs(20),
        ..Timeouts::default()
    };
    with_timeouts(vendor, wire, timeouts)
}

fn with_timeouts(vendor: &FakeVendor, wire: WireKind, timeouts: Timeouts) -> HttpProvider {
    let key = Secret::parse("TEST", "sk-fake-key".to_owned()).expect("the key is good");
    let credentials = match wire {
        WireKind::Anthropic | WireKind::Gemini => Credentials::ApiKey(key),
        WireKind::OpenAi | WireKind::Chat => Credentials::Bearer(key),
    };
    HttpProvider::new(wire, vendor.url().parse().expect("the address is a URL"), credentials, timeouts)
}

async fn ask(provider: &HttpProvider, request: &ModelRequest) -> Result<ModelAnswer, ProviderError> {
    let mut accumulator = Accumulator::new();
    let mut events = provider.stream(request, 1);
    while let Some(event) = events.next().await {
        accumulator.push(event?)?;
    }
    accumulator.finish()
}

#[tokio::test]
async fn an_answer_of_every_kind_of_block_comes_through_every_wire() {
    for (model, wire) in MODELS {
        for chunk in [None, Some(1), Some(13)] {
            let mut reply = Reply::empty()
                .and_reasoning("Let me see.")
                .and_text("Ich prüfe das: 🦀")
                .and_call("bash", json!({"command": "make \"all\"\n"}))
                .and_call("read", json!({"path": "x"}))
                .using(TokenCounts { input: 1000, cached: 900, output: 50, reasoning: 0 });
            if let Some(bytes) = chunk {
                reply = reply.in_chunks_of(bytes);
            }
            let vendor = FakeVendor::answering([reply]);
            let answer = ask(&provider(&vendor, wire), &request(model, vec![user("Fix it.")])).await;
            let answer = answer.unwrap_or_else(|error| panic!("{model}: {error}"));
            assert_eq!(answer.stop, StopReason::ToolUse, "{model}");
            let usage = Usage { input_tokens: 100, output_tokens: 50, cache_read_tokens: 900, ..Usage::default() };
            assert_eq!(answer.usage, usage, "{model}");
            let shapes = answer.blocks.iter().map(|block| match block {
                AnswerBlock::Reasoning { payload } => {
                    assert!(holds(&payload.to_string(), "Let me see."), "{payload}");
                    "reasoning".to_owned()
                }
                AnswerBlock::Text { text } => text.clone(),
                AnswerBlock::ToolCall { name, input, .. } => {
                    format!("{name} {}", input.as_ref().expect("the input is JSON"))
                }
            });
            let mut expected =
                vec!["reasoning", "Ich prüfe das: 🦀", r#"bash {"command":"make \"all\"\n"}"#, r#"read {"path":"x"}"#];
            if wire == WireKind::Gemini {
                // Its signature belongs to the first call, and stands before that.
                expected.insert(2, "reasoning");
            }
            assert_eq!(shapes.collect::<Vec<_>>(), expected, "{model}");
        }
    }
}

#[tokio::test]
async fn a_conversation_keeps_its_prefix_and_its_connection() {
    for (model, wire) in MODELS {
        let vendor = FakeVendor::answering([
            Reply::empty().and_reasoning("Hm.").and_text("First.").and_call("bash", json!({"command": "ls"})),
            Reply::call("read", json!({"path": "a"})).and_call("read", json!({"path": "b"})),
            Reply::text("Done."),
        ]);
        let provider = provider(&vendor, wire);
        let mut items = vec![user("Look around.")];
        for round in 0..3 {
            let answer = ask(&provider, &request(model, items.clone())).await;
            let answer = answer.unwrap_or_else(|error| panic!("{model}: {error}"));
            let mut results = Vec::new();
            for (place, block) in answer.blocks.into_iter().enumerate() {
                let id = format!("{round} {place}");
                items.push(match block {
                    AnswerBlock::Text { text } => assistant(&text),
                    AnswerBlock::Reasoning { payload } => {
                        let (vendor, model) = model.split_once('/').expect("a model has a vendor");
                        Item::Reasoning { vendor: vendor.to_owned(), model: model.to_owned(), payload }
                    }
                    AnswerBlock::ToolCall { name, input, .. } => {
                        results.push(result(&id, "a result"));
                        call(&id, &name, input.expect("the input is JSON"))
                    }
                });
            }
            items.extend(results);
        }
        assert_eq!(vendor.requests().len(), 3);
        assert_eq!(vendor.violations(), Vec::<String>::new());
        assert_eq!(vendor.connections(), 1, "{model}");
        let sent = String::from_utf8(vendor.requests()[1].bytes.clone()).expect("a body is UTF-8");
        assert!(holds(&sent, "Hm."), "the reasoning goes back to where it came from: {sent}");
    }
}

#[tokio::test]
async fn failures_are_told_apart_and_keep_the_vendors_words() {
    use FailureKind::*;
    let cases = [
        (Reply::failure(400, "invalid_request_error", "bad tool"), InvalidRequest, "bad tool", Some(400)),
        (Reply::failure(400, "context_length_exceeded", "too much"), ContextTooLong, "too much", Some(400)),
        (
            Reply::failure(400, "invalid_request_error", "prompt is too long: 250000 tokens > 200000"),
            ContextTooLong,
            "250000",
            Some(400),
        ),
        (Reply::failure(400, "invalid_request_error", "Your credit balance is too low"), Billing, "credit", Some(400)),
        (
            Reply::failure(401, "authentication_error", "invalid x-api-key"),
            Authentication,
            "invalid x-api-key",
            Some(401),
        ),
        (Reply::failure(403, "permission_error", "not yours"), Authentication, "not yours", Some(403)),
        (Reply::failure(404, "not_found_error", "model: x"), InvalidRequest, "model: x", Some(404)),
        (Reply::failure(413, "request_too_large", "32 MB"), ContextTooLong, "32 MB", Some(413)),
        (Reply::failure(429, "rate_limit_error", "slower"), RateLimit, "slower", Some(429)),
        (Reply::failure(429, "insufficient_quota", "pay"), Billing, "insufficient_quota: pay", Some(429)),
        (Reply::failure(500, "api_error", "oops"), Server, "oops", Some(500)),
        (Reply::failure(503, "", "later"), Overloaded, "later", Some(503)),
        (Reply::failure(529, "overloaded_error", "Overloaded"), Overloaded, "Overloaded", Some(529)),
        (Reply::failed_stream("overloaded_error", "Overloaded"), Overloaded, "Overloaded", None),
        (Reply::page("text/html", "<html><h1>Welcome  to\nthe hotel</h1>"), Protocol, "<h1>Welcome to the hotel", None),
        (Reply::page("application/json", "{\"error\":{\"message\":\"loading model\"}}"), Server, "loading model", None),
        (Reply::text("A long answer.").broken_after(300), Connection, "broke off", None),
        (Reply::text("A long answer.").ended_after(300), Protocol, "broke off", None),
        (Reply::text("x").broken_after(0), Connection, "broke off", None),
        (Reply::text("x").ended_after(0), Protocol, "broke off", None),
    ];
    for (model, wire) in MODELS {
        for (reply, kind, words, status) in &cases {
            let vendor = FakeVendor::answering([reply.clone()]);
            let error = ask(&provider(&vendor, wire), &request(model, vec![user("Hello.")])).await;
            let error = error.expect_err("the reply is a failure");
            assert_eq!((error.kind, error.status), (*kind, *status), "{model}: {error}");
            assert!(error.message.contains(words), "{model}: {error} {reply:?}");
        }
    }
}

#[tokio::test]
async fn the_wait_that_a_vendor_asks_for_is_read() {
    let vendor = FakeVendor::answering([Reply::failure(429, "rate_limit_error", "slower").retry_after("17")]);
    let error = ask(&provider(&vendor, WireKind::Anthropic), &request("anthropic/m", vec![user("Hello.")])).await;
    assert_eq!(error.expect_err("the reply is a failure").retry_after, Some(Duration::from_secs(17)));
    let vendor = FakeVendor::answering([Reply::failure(429, "RESOURCE_EXHAUSTED", "slower").retry_after("17.25")]);
    let error =
        ask(&provider(&vendor, WireKind::Gemini), &request("gemini/gemini-3.8-flash", vec![user("Hello.")])).await;
    assert_eq!(error.expect_err("the reply is a failure").retry_after, Some(Duration::from_millis(17_250)));
}

#[tokio::test]
async fn a_conversation_that_began_with_other_models_goes_on_over_every_wire() {
    for (model, wire) in MODELS {
        let vendor = FakeVendor::answering([Reply::text("Done.")]);
        let mut items = conversation();
        items.retain(|item| !matches!(item, Item::Reasoning { vendor, .. } if model.starts_with(vendor.as_str())));
        let mut request = request(model, items);
        request.effort = Some("high".to_owned());
        request.max_output_tokens = 8192;
        let answer = ask(&provider(&vendor, wire), &request).await;
        assert!(answer.is_ok(), "{model}: {answer:?} {:?}", vendor.take_violations());
    }
}

#[tokio::test]
async fn each_key_goes_into_its_own_header_and_no_other_place() {
    for (model, wire) in MODELS {
        let vendor = FakeVendor::answering([Reply::failure(400, "bad", "the key sk-fake-key is bad")]);
        let error = ask(&provider(&vendor, wire), &request(model, vec![user("Hello.")])).await.expect_err("it failed");
        assert!(!error.message.contains("sk-fake-key"), "{error}");
        let asked = vendor.requests().remove(0);
        let named = asked.headers.iter().filter(|(_, value)| value.contains("sk-fake-key"));
        let named = named.map(|(name, _)| name.as_str()).collect::<Vec<_>>();
        let expected = match wire {
            WireKind::Anthropic => "x-api-key",
            WireKind::Gemini => "x-goog-api-key",
            WireKind::OpenAi | WireKind::Chat => "authorization",
        };
        assert_eq!(named, [expected], "{model}");
        assert!(!asked.path.contains("sk-fake-key"), "{}", asked.path);
    }
}

#[tokio::test]
async fn every_wait_has_an_end() {
    let short = Duration::from_millis(150);
    let long = Duration::from_secs(20);
    let long_waits = Timeouts { connect: long, first_byte: long, between_chunks: long, progress: long, whole: long };
    let trickle = Reply::text("A long answer.".repeat(100)).in_chunks_of(5).with_pauses(Duration::from_millis(10));
    let cases = [
        (Timeouts { first_byte: short, ..long_waits }, Reply::text("x").after(long), "sent nothing for 0.15 s"),
        (
            Timeouts { between_chunks: short, ..long_waits },
            Reply::text("x").in_chunks_of(100).with_pauses(long),
            "stood still",
        ),
        (Timeouts { whole: short, ..long_waits }, trickle, "took too long as a whole"),
    ];
    for (timeouts, reply, words) in cases {
        let vendor = FakeVendor::answering([reply]);
        let started = Instant::now();
        let error =
            ask(&with_timeouts(&vendor, WireKind::Chat, timeouts), &request("openai-chat/m", vec![user("Hello.")]))
                .await;
        let error = error.expect_err("nothing comes");
        assert_eq!(error.kind, FailureKind::Timeout, "{error}");
        assert!(error.message.contains(words), "{error}");
        assert!(started.elapsed() < Duration::from_secs(10));
    }
}

/// A vendor that keeps its stream open with pings, and says nothing.
async fn pinging() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("the listener has an address");
    tokio::spawn(async move {
        let (mut connection, _) = listener.accept().await?;
        connection.read_buf(&mut Vec::with_capacity(65_536)).await?;
        connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n").await?;
        for ping in ["event: ping\ndata: {\"type\":\"ping\"}\n\n", ": still here\n\n"].iter().cycle() {
            connection.write_all(ping.as_bytes()).await?;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        std::io::Result::Ok(())
    });
    format!("http://{address}")
}

#[tokio::test]
async fn pings_keep_a_stream_open_but_are_no_progress() {
    let timeouts = Timeouts {
        between_chunks: Duration::from_secs(20),
        progress: Duration::from_millis(200),
        ..Timeouts::default()
    };
    let url = pinging().await.parse().expect("the address is a URL");
    let provider = HttpProvider::new(WireKind::Anthropic, url, Credentials::None, timeouts);
    let started = Instant::now();
    let error = ask(&provider, &request("anthropic/m", vec![user("Hello.")])).await.expect_err("nothing is said");
    assert_eq!(error.kind, FailureKind::Timeout, "{error}");
    assert!(error.message.contains("said nothing for too long"), "{error}");
    assert!((200..10_000).contains(&started.elapsed().as_millis()), "{:?}", started.elapsed());
}

#[tokio::test]
async fn nobody_at_home_is_a_connection_failure() {
    let vendor = FakeVendor::answering([]);
    let provider = provider(&vendor, WireKind::OpenAi);
    drop(vendor);
    let error = ask(&provider, &request("openai/m", vec![user("Hello.")])).await.expect_err("nobody listens");
    assert_eq!((error.kind, error.is_unsent), (FailureKind::Connection, true), "{error}");
    assert!(error.message.to_lowercase().contains("connection refused"), "{error}");
}

#[tokio::test]
async fn an_https_address_gets_a_client_with_roots() {
    // Nothing on this port speaks TLS; that the failure is one of the connection shows that the client was made.
    let vendor = FakeVendor::answering([]);
    let url = vendor.url().replace("http:", "https:").parse().expect("the address is a URL");
    let provider = HttpProvider::new(WireKind::OpenAi, url, Credentials::None, Timeouts::default());
    let error = ask(&provider, &request("openai/m", vec![user("Hello.")])).await.expect_err("that is no TLS");
    assert_eq!(error.kind, FailureKind::Connection, "{error}");
    assert!(!error.message.contains("cannot set up"), "{error}");
}

#[tokio::test]
async fn the_limits_in_the_head_of_any_answer_are_handed_up() {
    let limited = |reply: Reply| {
        reply
            .header("x-ratelimit-limit-requests", "50")
            .header("x-ratelimit-remaining-requests", "7")
            .header("x-ratelimit-reset-requests", "1m30s")
    };
    let expected = Reading {
        resource: Resource::Requests,
        limit: Some(50),
        remaining: Some(7),
        reset: Some(Duration::from_secs(90)),
    };
    let refusal = Reply::failure(429, "insufficient_quota", "Try again in 3s.");
    let vendor = FakeVendor::answering([limited(Reply::text("Done.")), limited(refusal), Reply::text("Done.")]);
    let provider = provider(&vendor, WireKind::OpenAi);
    let asked = request("openai/m", vec![user("Hello.")]);
    let first = provider.stream(&asked, 1).next().await.expect("something comes").expect("the answer is good");
    assert_eq!(first, ModelEvent::Limits(vec![expected]));
    let error = provider.stream(&asked, 1).next().await.expect("something comes").expect_err("a refusal");
    assert_eq!((error.readings, error.scope), (vec![expected], Scope::Account));
    assert_eq!((error.retry_after, error.is_unsent), (Some(Duration::from_secs(3)), false));
    let first = provider.stream(&asked, 1).next().await.expect("something comes").expect("the answer is good");
    assert!(matches!(first, ModelEvent::Started { .. }), "a vendor that says nothing: {first:?}");
}

#[tokio::test]
async fn a_limit_in_the_middle_of_a_stream_keeps_its_wait() {
    let vendor = FakeVendor::answering([Reply::failed_stream("rate_limit_exceeded", "Please try again in 11.5s.")]);
    let error = ask(&provider(&vendor, WireKind::OpenAi), &request("openai/m", vec![user("Hello.")])).await;
    let error = error.expect_err("the stream ends with an error");
    assert_eq!((error.kind, error.retry_after), (FailureKind::RateLimit, Some(Duration::from_millis(11_500))));
}

/// Whether these thoughts are there, as a text or as the signature that stands for them.
fn holds(text: &str, thoughts: &str) -> bool {
    text.contains(thoughts) || text.contains(&gemini_signature(thoughts))
}
