//! From a wire to the same wire: nothing changes but who asks.

use super::{
    Door, KEY, WIRES,
    client::{self, ask, header},
    path,
    puppet::{Act, Heard, Puppet, chunk, stream_end, stream_head, whole},
};
use adj_domain::{FailureKind, StopReason, Usage};
use adj_gateway::endpoint::Outcome;
use adj_providers::WireKind;
use adj_testkit::{FakeVendor, Reply, TokenCounts};
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::{io::AsyncWriteExt, net::TcpStream};

/// A body that a strict vendor takes, with fields that nobody here knows.
fn strict_body(wire: WireKind) -> String {
    let body = match wire {
        WireKind::OpenAi => json!({"model": "m", "stream": true, "store": false, "prompt_cache_key": "k",
            "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi 🦀"}]}]}),
        WireKind::Anthropic => json!({"model": "m", "stream": true, "max_tokens": 9, "messages": [{"role": "user",
            "content": [{"type": "text", "text": "Hi 🦀", "cache_control": {"type": "ephemeral"}}]}]}),
        _ => json!({"model": "m", "stream": true, "stream_options": {"include_usage": true},
            "messages": [{"role": "user", "content": "Hi 🦀"}]}),
    };
    body.to_string().replacen('{', "{ \"x_new\" : [1.0e40, {\"model\":\"no\"}],\n", 1)
}

fn reply() -> Reply {
    Reply::empty()
        .and_reasoning("Let me see.")
        .and_text("Ich prüfe das.")
        .and_call("bash", json!({"command": "make \"all\"\n"}))
        .using(TokenCounts { input: 1000, cached: 900, output: 50, reasoning: 0 })
        .in_chunks_of(11)
}

#[tokio::test]
async fn every_wire_passes_through_byte_for_byte_and_is_read_along() {
    for wire in WIRES {
        let body = strict_body(wire);
        let direct = {
            let vendor = FakeVendor::answering([reply()]);
            let address = vendor.url().trim_start_matches("http://").parse().expect("an address");
            let request = format!(
                "POST {} HTTP/1.1\r\nhost: v\r\nauthorization: Bearer k\r\nanthropic-version: 2023-06-01\r\n\
                 content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                path(wire),
                body.len()
            );
            ask(address, request.as_bytes()).await
        };
        let vendor = FakeVendor::answering([reply()]);
        let door = Door::to(wire, &vendor.url()).await;
        let answer = door.post(wire, body.as_bytes()).await;
        assert_eq!((answer.status, answer.whole), (200, true), "{wire:?}");
        assert_eq!(answer.text(), direct.text(), "{wire:?}");
        assert_eq!(answer.header("content-type"), direct.header("content-type"));
        assert_eq!(answer.header("x-adjutant-model"), Some("vendor/m"));

        let asked = vendor.requests().remove(0);
        assert_eq!(String::from_utf8_lossy(&asked.bytes), body, "{wire:?}");
        let names = ["x-own", "user-agent", "x-adjutant-own", "accept-encoding", "host"];
        let expected = [Some("kept"), Some("test/1"), None, None];
        assert_eq!(names[..4].iter().map(|name| asked.header(name)).collect::<Vec<_>>(), expected);
        assert_ne!(asked.header("host"), Some("door"));
        let seen = format!("{:?}", asked.headers);
        assert!(!seen.contains(door.token.expose()) && seen.contains(KEY), "{seen}");

        let closing = door.closed().await.remove(0);
        assert_eq!(closing.outcome, Outcome::Answered, "{wire:?}");
        assert_eq!((closing.status, closing.stop), (Some(200), Some(StopReason::ToolUse)));
        let usage = Usage { input_tokens: 100, output_tokens: 50, cache_read_tokens: 900, ..Usage::default() };
        assert_eq!(closing.usage, Some(usage), "{wire:?}");
        assert_eq!(closing.model_answered.as_deref(), Some("m"));
        assert_eq!(closing.answer_bytes, answer.body.len() as u64);
        assert!(closing.first_byte <= closing.first_token && closing.first_token.is_some());
        assert!(closing.latency >= closing.first_token.unwrap_or_default());
    }
}

/// A small generator (SplitMix64), so that a failing case can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((bits ^ (bits >> 31)) % bound as u64) as usize
    }

    fn json(&mut self, depth: usize) -> String {
        let space = [" ", "", "\n\t", "\r\n"][self.below(4)];
        match self.below(if depth == 0 { 4 } else { 6 }) {
            0 => format!("{space}{}e{}{space}", self.below(1 << 40), self.below(500)),
            1 => format!("\"\\u{:04x} é \\\\ {}\"", 0x20 + self.below(0x700), self.below(99)),
            2 => ["true", "null", "-0.0", "\"model\"", "\"\\ud83e\\udd80\""][self.below(5)].to_owned(),
            3 => format!("[{space}]"),
            4 => format!("[{},{space}{}]", self.json(depth - 1), self.json(depth - 1)),
            _ => {
                let keys = [self.below(9), self.below(9)];
                format!(
                    "{{\"model\":{},\"k{}\"{space}:{}}}",
                    self.json(depth - 1),
                    keys[0] + keys[1],
                    self.json(depth - 1)
                )
            }
        }
    }
}

/// No event that any wire knows, whatever came before it.
const NOTHING: &str = "\n\ndata: not json at all\n\n";

#[tokio::test]
async fn what_nobody_here_understands_passes_through_in_any_pieces() {
    for seed in 0..24 {
        let mut random = Random(seed);
        let wire = WIRES[random.below(3)];
        let fields = (0..random.below(6)).map(|place| format!("\"x{place}\" : {}", random.json(4)));
        let fields = fields.collect::<Vec<_>>();
        let cut = random.below(fields.len() + 1);
        let renamed = random.below(2) == 0;
        let body = |name: &str| {
            let mut fields = fields.clone();
            fields.insert(cut, format!("\"model\"\n:{name}"));
            fields.push("\"stream\":true".to_owned());
            format!(" {{{}}} ", fields.join(" ,"))
        };
        let (sent, expected) = match renamed {
            true => (body("\"other\""), body("\"the \\\"real\\\" one\"")),
            false => (body("\"m\\u00e4\""), body("\"m\\u00e4\"")),
        };
        let answer = (0..random.below(3000)).map(|_| b"data: \n\r{}\"\xff\x00e"[random.below(14)]).collect::<Vec<_>>();
        let mut acts = vec![stream_head()];
        let mut rest = answer.as_slice();
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(1 + random.below(rest.len().min(200)));
            acts.push(chunk(piece));
            rest = after;
        }
        // What begins like an answer but is none is not for this test: the end tells the two apart.
        acts.push(chunk(NOTHING));
        acts.push(stream_end());
        let mut vendor = Puppet::playing(acts).await;
        let door = Door::to(wire, &vendor.url()).await;
        let got = door.post(wire, sent.as_bytes()).await;
        let (_, heard) = vendor.request().await;
        assert_eq!(String::from_utf8_lossy(&heard), expected, "seed {seed}");
        assert!(got.whole, "seed {seed}: {}", got.head);
        assert_eq!(got.body, [answer.as_slice(), NOTHING.as_bytes()].concat(), "seed {seed}");
        let closing = door.closed().await.remove(0);
        assert_eq!((closing.outcome, closing.usage), (Outcome::Answered, None), "seed {seed}");
    }
}

#[tokio::test]
async fn failures_of_the_vendor_pass_with_their_headers_and_without_its_key() {
    let cases = [
        (
            "429 Too Many Requests",
            "retry-after: 70\r\nx-ratelimit-reset-tokens: 6m0s\r\nanthropic-ratelimit-unified-status: rejected\r\nset-cookie: a=b\r\nrequest-id: req_7\r\n",
            "{\"error\": {\"message\":\"slow  down\"}, \"x\":1}".to_owned(),
            FailureKind::RateLimit,
        ),
        ("413 Too Large", "content-type: text/html\r\n", "<html>too large".to_owned(), FailureKind::ContextTooLong),
        ("529 Overloaded", "", String::new(), FailureKind::Overloaded),
        (
            "401 Unauthorized",
            "x-seen: Bearer sk-vendor-0123456789\r\n",
            format!("{{\"error\":{{\"message\":\"the key {KEY} is not good\"}}}}"),
            FailureKind::Authentication,
        ),
    ];
    for (status, headers, body, kind) in cases {
        for wire in WIRES {
            let vendor = Puppet::playing(whole(status, headers, &body)).await;
            let door = Door::to(wire, &vendor.url()).await;
            let answer = door.post(wire, b"{\"model\":\"m\",\"stream\":true}").await;
            assert_eq!(answer.status.to_string(), status[..3], "{status}");
            assert_eq!(answer.text(), body.replace(KEY, &"*".repeat(KEY.len())), "{status}");
            assert!(!answer.head.contains(KEY) && !answer.head.contains("set-cookie"), "{}", answer.head);
            for line in headers.lines().filter(|line| !line.contains("cookie") && !line.contains(KEY)) {
                let (name, value) = line.split_once(": ").expect("a test's header has a value");
                assert_eq!(answer.header(name), Some(value), "{status}");
            }
            let closing = door.closed().await.remove(0);
            let Outcome::Failed { kind: found, message } = closing.outcome else { panic!("{:?}", closing.outcome) };
            assert_eq!((found, closing.status), (kind, status[..3].parse().ok()), "{status}: {message}");
            assert!(!message.contains(KEY), "{message}");
            if headers.contains("request-id") {
                assert_eq!(closing.vendor_request.as_deref(), Some("req_7"));
            }
        }
    }
}

#[tokio::test]
async fn a_page_is_no_answer() {
    let page = "<html><body>Please log in</body></html>";
    let cases = [
        // content type, body, asked for a stream, words of the refusal (None: it passes)
        ("text/html", page, true, Some("text/html and not with a stream of events: <html><body>Please log in")),
        ("text/html", page, false, Some("text/html and not with a JSON document")),
        ("", page, true, Some("something without a type")),
        ("", page, false, Some("something without a type")),
        ("application/json", "{\"error\":{\"message\":\"no such tier\"}}", true, Some("no such tier")),
        ("application/json", "{\"id\":\"x\"}", true, Some("application/json and not with a stream")),
        ("text/event-stream", "data: {}\n\n", false, Some("not with a JSON document")),
        ("application/json; charset=utf-8", " {\"model\":\"m2\"}", false, None),
        ("", "{}", false, None),
    ];
    for (content_type, body, stream, words) in cases {
        for wire in WIRES {
            let headers =
                if content_type.is_empty() { String::new() } else { format!("content-type: {content_type}\r\n") };
            let vendor = Puppet::playing(whole("200 OK", &headers, body)).await;
            let door = Door::to(wire, &vendor.url()).await;
            let answer = door.post(wire, format!("{{\"model\":\"m\",\"stream\":{stream}}}").as_bytes()).await;
            let Some(words) = words else {
                assert_eq!((answer.status, answer.text().as_str()), (200, body));
                continue;
            };
            assert_eq!(answer.status, 502, "{content_type} {body}");
            let error = answer.json();
            let message = error["error"]["message"].as_str().unwrap_or_default();
            assert!(message.contains(words), "{message}");
            match wire {
                WireKind::Anthropic => {
                    assert_eq!((&error["type"], &error["error"]["type"]), (&json!("error"), &json!("api_error")))
                }
                _ => assert_eq!(error["error"]["type"], "server_error"),
            }
        }
    }
}

/// The beginning of an answer, whole events of it.
fn begun(wire: WireKind) -> &'static str {
    match wire {
        WireKind::OpenAi => {
            "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"model\":\"m\"}}\n\n"
        }
        WireKind::Anthropic => {
            "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"model\":\"m\"}}\n\n"
        }
        _ => "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"}}]}\n\n",
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_says_so() {
    for wire in WIRES {
        let ends: [(&str, Vec<Act>); 3] = [
            ("broke off", vec![stream_end()]),
            ("broke off", vec![]),
            ("stood still", vec![Act::Wait(Duration::from_secs(20))]),
        ];
        for (words, end) in ends {
            let acts = [vec![stream_head(), chunk(begun(wire))], end].concat();
            let vendor = Puppet::playing(acts).await;
            let door = Door::to(wire, &vendor.url()).await;
            let answer = door.post(wire, b"{\"model\":\"m\",\"stream\":true}").await;
            let told = answer.text();
            let told = told.strip_prefix(begun(wire)).expect("what the vendor said is there");
            let expected = match wire {
                WireKind::OpenAi => "event: response.failed\ndata: {\"type\":\"response.failed\"",
                WireKind::Anthropic => "event: error\ndata: {\"type\":\"error\"",
                _ => "data: {\"error\":{",
            };
            assert!(answer.whole && told.starts_with(expected) && told.contains(words), "{wire:?} {words}: {told}");
            assert!(told.ends_with("\n\n") && told.matches("data: ").count() == 1, "{told}");
            let closing = door.closed().await.remove(0);
            assert!(matches!(closing.outcome, Outcome::Failed { .. }), "{:?}", closing.outcome);
        }
        // In the middle of an event nothing can be said, and the connection breaks as the vendor's did.
        let acts = vec![stream_head(), chunk(begun(wire)), chunk("data: {\"ty")];
        let vendor = Puppet::playing(acts).await;
        let door = Door::to(wire, &vendor.url()).await;
        let answer = door.post(wire, b"{\"model\":\"m\",\"stream\":true}").await;
        assert!(!answer.whole && answer.text().ends_with("data: {\"ty"), "{answer:?}");
    }
}

#[tokio::test]
async fn a_vendor_that_cannot_be_reached_or_says_nothing_is_named_in_time() {
    let nobody = { TcpStream::connect("127.0.0.1:1").await.is_err() };
    assert!(nobody, "the test needs a port where nobody listens");
    for wire in WIRES {
        let door = Door::to(wire, "http://127.0.0.1:1").await;
        let answer = door.post(wire, b"{\"model\":\"m\"}").await;
        assert_eq!(answer.status, 502, "{}", answer.text());
        let vendor = Puppet::playing(vec![Act::Listen]).await;
        let door = Door::to(wire, &vendor.url()).await;
        let answer = door.post(wire, b"{\"model\":\"m\"}").await;
        assert_eq!(answer.status, 504, "{}", answer.text());
        assert!(answer.text().contains("sent nothing for 3 s"), "{}", answer.text());
        let vendor = Puppet::playing(whole("307 Moved", "location: http://elsewhere/\r\n", "")).await;
        let door = Door::to(wire, &vendor.url()).await;
        let answer = door.post(wire, b"{\"model\":\"m\"}").await;
        assert_eq!(answer.status, 502, "{}", answer.text());
    }
}

#[tokio::test]
async fn a_caller_that_hangs_up_ends_the_vendors_stream_at_once() {
    let silent = vec![Act::Listen];
    let talking = vec![stream_head(), chunk(begun(WireKind::Chat)), Act::Listen];
    for (acts, talks) in [(silent, false), (talking, true)] {
        let mut vendor = Puppet::playing(acts).await;
        let door = Door::to(WireKind::Chat, &vendor.url()).await;
        let mut caller = TcpStream::connect(door.address).await.expect("the door listens");
        let request = door.request(WireKind::Chat, "/v1/chat/completions", b"{\"model\":\"m\",\"stream\":true}");
        caller.write_all(&request).await.expect("the door reads");
        vendor.request().await;
        if talks {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let hung_up = Instant::now();
        drop(caller);
        assert!(matches!(vendor.heard().await, Heard::HungUp));
        assert!(hung_up.elapsed() < Duration::from_secs(1), "{:?}", hung_up.elapsed());
        let closing = door.closed().await.remove(0);
        assert_eq!(closing.outcome, Outcome::Abandoned);
        assert_eq!(closing.status, talks.then_some(200));
    }
}

#[tokio::test]
async fn a_caller_that_reads_slowly_slows_the_vendor_down() {
    // Far more than all the buffers on the way hold.
    let event = format!("data: {{\"choices\":[],\"pad\":\"{}\"}}\n\n", "x".repeat(64 * 1024));
    let acts = [vec![stream_head()], vec![chunk(&event); 800], vec![stream_end(), Act::Wait(Duration::ZERO)]].concat();
    let vendor = Puppet::playing(acts).await;
    let door = Door::to(WireKind::Chat, &vendor.url()).await;
    let mut caller = TcpStream::connect(door.address).await.expect("the door listens");
    let request = door.request(WireKind::Chat, "/v1/chat/completions", b"{\"model\":\"m\",\"stream\":true}");
    caller.write_all(&request).await.expect("the door reads");
    tokio::time::sleep(Duration::from_millis(1500)).await;
    drop(caller);
    let passed = door.closed().await.remove(0).answer_bytes;
    assert!((1..30_000_000).contains(&passed), "{passed} bytes were taken for a caller that read none");
}

#[tokio::test]
async fn several_requests_share_a_connection() {
    let vendor = Puppet::playing(whole("200 OK", "content-type: application/json\r\n", "{}")).await;
    let door = Door::to(WireKind::Chat, &vendor.url()).await;
    let mut caller = TcpStream::connect(door.address).await.expect("the door listens");
    for _ in 0..3 {
        let request = door.request(WireKind::Chat, "/v1/chat/completions", b"{\"model\":\"m\"}");
        caller.write_all(&request).await.expect("the door reads");
        let answer = client::read(&mut caller).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "{}"));
        assert_eq!(header(&answer.head, "connection"), None);
    }
    assert_eq!(door.closed().await.len(), 3);
}

#[tokio::test]
async fn a_limit_is_waited_for_and_no_caller_sees_it() {
    for wire in WIRES {
        let vendor = FakeVendor::with(|asked| match asked.number {
            0 => Reply::failure(429, "rate_limit_error", "slow down").retry_after("1"),
            _ => Reply::text("Said."),
        });
        let base = if wire == WireKind::Anthropic { vendor.url() } else { vendor.v1_url() };
        let door = Door::to(wire, &base).await;
        let body = strict_body(wire);
        let begun = Instant::now();
        let answers = futures_util::future::join_all((0..8).map(|_| door.post(wire, body.as_bytes()))).await;
        assert!(answers.iter().all(|answer| answer.status == 200 && answer.text().contains("Said.")), "{wire:?}");
        assert!(begun.elapsed() >= Duration::from_secs(1), "the vendor's own time is waited for");
        assert_eq!(vendor.requests().len(), 9, "{wire:?}: nobody but the refused one asks twice");
        let closings = door.closed().await;
        assert_eq!(closings.iter().map(|closing| closing.retries).sum::<u32>(), 1);
        assert!(closings.iter().any(|closing| closing.queued >= Duration::from_millis(900)), "{closings:?}");
    }
}
