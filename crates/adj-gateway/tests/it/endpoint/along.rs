//! Callers' requests along a list of models: each vendor is asked in its own words.

use super::{
    Book, Door,
    puppet::{Puppet, chunk, stream_end, stream_head, whole},
    reply_calling,
};
use adj_domain::{FailureKind, ModelRef, Moved};
use adj_gateway::{
    Failover, Gateway, RetryPolicy,
    endpoint::{Bounds, Outcome},
};
use adj_providers::WireKind::{self, Anthropic, Chat, Gemini};
use adj_testkit::{FakeVendor, Reply};
use serde_json::{Value, json};
use std::time::Duration;

fn model(name: &str) -> ModelRef {
    name.parse().expect("a test's model has a name")
}

/// A door behind which `route/x` leads over these vendors, in this order.
async fn over(vendors: &[(WireKind, &str)]) -> Door {
    let policy = RetryPolicy { first_wait: Duration::from_millis(1), seed: Some(1), ..RetryPolicy::default() };
    let mut gateway = Gateway::new(policy);
    let mut targets = Vec::new();
    for (place, (wire, url)) in vendors.iter().enumerate() {
        gateway = gateway.with(format!("v{place}"), Door::provider(*wire, url));
        targets.push(model(&format!("v{place}/m")));
    }
    let route = model("route/x");
    let gateway = gateway.with_failover(&route, Failover::to(targets));
    Door::before(gateway, Some(route), Bounds::default(), Book::default()).await
}

fn moved(from: &str, to: &str, why: FailureKind, lost: &[&str]) -> Moved {
    let lost = lost.iter().map(|lost| (*lost).to_owned()).collect();
    Moved { from: model(from), to: model(to), why, lost }
}

fn messages(stream: bool, messages: &Value) -> Vec<u8> {
    json!({"model": "claude", "max_tokens": 100, "stream": stream, "messages": messages}).to_string().into_bytes()
}

fn hello() -> Value {
    json!([{"role": "user", "content": "Hello."}])
}

const DONE: &str = r#"{"type":"message","role":"assistant","model":"m","content":[{"type":"text","text":"Done."}],
    "stop_reason":"end_turn","usage":{"input_tokens":9,"output_tokens":2}}"#;
const JSON: &str = "content-type: application/json\r\n";

#[tokio::test]
async fn a_request_goes_on_in_other_words_and_its_conversation_stays_there() {
    let overloaded = r#"{"type":"error","error":{"type":"overloaded_error","message":"busy"}}"#;
    for stream in [false, true] {
        let mut first = Puppet::playing(whole("529 Overloaded", JSON, overloaded)).await;
        let second = FakeVendor::answering([Reply::text("Done."), Reply::text("Again.")]);
        let door = over(&[(Anthropic, &first.url()), (Chat, &second.url())]).await;
        let answer = door.post(Anthropic, &messages(stream, &hello())).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.header("x-adjutant-model"), Some("v1/m"));
        for _ in 0..3 {
            let (_, body) = first.request().await;
            assert_eq!(serde_json::from_slice::<Value>(&body).expect("it is JSON")["model"], "m");
        }
        let closing = door.closed().await.remove(0);
        let step = moved("v0/m", "v1/m", FailureKind::Overloaded, &[]);
        assert_eq!((closing.moved, closing.answered_by), (vec![step], Some(model("v1/m"))));
        assert_eq!((closing.retries, closing.unsettled, closing.outcome), (3, 0, Outcome::Answered));
        assert_eq!(door.opened()[0].model, model("route/x"));
        let answer = door.post(Anthropic, &messages(stream, &hello())).await;
        assert_eq!((answer.status, second.requests().len()), (200, 2), "{}", answer.text());
        assert!(first.was_left_alone(), "it begins where it was led");
        assert_eq!(door.closed().await[1].moved, Vec::new());
    }
}

#[tokio::test]
async fn each_failure_has_its_patience_and_some_never_move() {
    use FailureKind::*;
    let slow = "retry-after: 60\r\n";
    let cases = [
        ("429 Too Many", slow, "{}", 1, Some(RateLimit)),
        ("401 Unauthorized", "", "{}", 1, Some(Authentication)),
        ("402 Pay", "", "{}", 1, Some(Billing)),
        ("500 Oh", "", "{}", 3, Some(Server)),
        ("529 Busy", slow, "{}", 1, Some(Overloaded)),
        ("200 OK", "", "<html>", 1, Some(Protocol)),
        ("400 No", "", r#"{"error":{"message":"wrong"}}"#, 1, None),
    ];
    for (status, header, body, attempts, why) in cases {
        let mut first = Puppet::playing(whole(status, &format!("{JSON}{header}"), body)).await;
        let second = FakeVendor::answering([Reply::text("Done.")]);
        let door = over(&[(Chat, &first.url()), (Chat, &second.url())]).await;
        let body =
            json!({"model": "m", "stream": true, "stream_options": {"include_usage": true}, "messages": hello()})
                .to_string();
        let answer = door.post(Chat, body.as_bytes()).await;
        for _ in 0..attempts {
            first.request().await;
        }
        assert!(first.was_left_alone(), "{status}");
        let closing = door.closed().await.remove(0);
        let steps: Vec<_> = closing.moved.iter().map(|moved| moved.why).collect();
        assert_eq!(steps, Vec::from_iter(why), "{status}");
        match why {
            Some(_) => assert_eq!((answer.status, second.requests().len()), (200, 1), "{status}: {}", answer.text()),
            None => assert_eq!((answer.status, answer.text().as_str()), (400, r#"{"error":{"message":"wrong"}}"#)),
        }
        // What was refused is not billed; what broke may be.
        let unsettled = match why {
            Some(Server) => attempts,
            Some(Protocol) => 1,
            _ => 0,
        };
        assert_eq!(closing.unsettled, unsettled, "{status}");
    }
}

#[tokio::test]
async fn where_all_fail_the_last_ones_words_are_the_answer() {
    let first = Puppet::playing(whole("401 Unauthorized", JSON, "{}")).await;
    let own = r#"{"error":{"message":"no money here"}}"#;
    let last = Puppet::playing(whole("402 Pay", JSON, own)).await;
    let door = over(&[(Chat, &first.url()), (Chat, &last.url())]).await;
    let body = json!({"model": "m", "messages": hello()}).to_string();
    let answer = door.post(Chat, body.as_bytes()).await;
    assert_eq!((answer.status, answer.text().as_str()), (402, own));
    let door = over(&[(Chat, &first.url()), (Anthropic, &last.url())]).await;
    let answer = door.post(Chat, body.as_bytes()).await;
    let said = answer.text();
    assert!(said.contains("no money here") && said.contains("before that v0/m was left (auth)"), "{said}");
    let closing = door.closed().await.remove(0);
    assert_eq!(closing.moved.len(), 1);
    assert!(matches!(closing.outcome, Outcome::Failed { kind: FailureKind::Billing, .. }), "{:?}", closing.outcome);
}

#[tokio::test]
async fn an_answer_that_has_begun_stays_where_it_is() {
    let event = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"}}]}\n\n";
    for wire in [Chat, Anthropic] {
        let first = Puppet::playing(vec![stream_head(), chunk(event), stream_end()]).await;
        let mut second = Puppet::playing(Vec::new()).await;
        let door = over(&[(Chat, &first.url()), (Chat, &second.url())]).await;
        let answer = door.post(wire, &messages(true, &hello())).await;
        assert!(answer.text().contains("error"), "{}", answer.text());
        assert!(second.was_left_alone());
        let closing = door.closed().await.remove(0);
        assert!(matches!(closing.outcome, Outcome::Failed { .. }), "{:?}", closing.outcome);
    }
}

#[tokio::test]
async fn who_cannot_be_asked_is_passed_over() {
    let first = Puppet::playing(whole("401 Unauthorized", JSON, "{}")).await;
    let mut second = Puppet::playing(Vec::new()).await;
    let third = Puppet::playing(whole("200 OK", JSON, DONE)).await;
    let door = over(&[(Anthropic, &first.url()), (Gemini, &second.url()), (Anthropic, &third.url())]).await;
    let body = json!({"model": "claude", "max_tokens": 100, "messages": hello(),
        "tools": [{"type": "web_search_20250305", "name": "web_search"}]});
    let answer = door.post(Anthropic, body.to_string().as_bytes()).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, DONE));
    assert!(second.was_left_alone());
    let step = moved("v0/m", "v2/m", FailureKind::Authentication, &[]);
    assert_eq!(door.closed().await[0].moved, [step]);
}

#[tokio::test]
async fn records_of_reasoning_do_not_follow_to_whom_they_mean_nothing() {
    // The first is at home for this wire, fails once, and is there again later.
    let mut home = Puppet::playing(whole("401 Unauthorized", JSON, "{}")).await;
    let away = FakeVendor::answering([reply_calling(&[("t", json!({}))])]);
    let door = over(&[(Anthropic, &home.url()), (WireKind::OpenAi, &away.url())]).await;
    let answer = door.post(Anthropic, &messages(false, &hello())).await.json();
    home.request().await;
    let content = answer["content"].as_array().expect("it has content").clone();
    let is_record = |block: &&Value| block["type"].as_str().is_some_and(|kind| kind.ends_with("thinking"));
    let sealed = content.iter().filter(is_record).count();
    assert!(sealed > 0, "{answer}");
    // Whoever comes as somebody else has not been led away.
    let back = Puppet::playing(whole("200 OK", JSON, DONE)).await;
    let door = over(&[(Anthropic, &back.url()), (Chat, &away.url())]).await;
    let mut back = back;
    let conversation = json!([{"role": "user", "content": "Hello."}, {"role": "assistant", "content": content},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "x", "content": "ok"}]}]);
    let answer = door.post(Anthropic, &messages(false, &conversation)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(
        answer.header("x-adjutant-losses").is_some_and(|losses| losses.contains("of reasoning")),
        "{}",
        answer.head
    );
    let (_, body) = back.request().await;
    let body: Value = serde_json::from_slice(&body).expect("it is JSON");
    let left = body["messages"][1]["content"].as_array().expect("something is left");
    assert!(!left.iter().any(|block| is_record(&block)) && left.len() == content.len() - sealed, "{body}");
}

#[tokio::test]
async fn what_another_account_cannot_read_is_left_out_once_it_says_so() {
    let refusal = r#"{"type":"error","error":{"type":"invalid_request_error","message":"Invalid `signature` in `thinking` block"}}"#;
    let thinking = json!([{"role": "user", "content": "Hello."},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "Hm.", "signature": "EqQB"},
            {"type": "text", "text": "Hi."}]}, {"role": "user", "content": "Go on."}]);
    let mut vendor = Puppet::playing(whole("400 Bad Request", JSON, refusal)).await;
    let door = over(&[(Anthropic, &vendor.url()), (Anthropic, "http://127.0.0.1:1")]).await;
    let answer = door.post(Anthropic, &messages(false, &thinking)).await;
    assert_eq!((answer.status, answer.text().as_str()), (400, refusal), "the second refusal stands");
    let heard = [vendor.request().await.1, vendor.request().await.1];
    let [with, without] = heard.map(|body| String::from_utf8_lossy(&body).into_owned());
    assert!(with.contains("EqQB") && !without.contains("EqQB") && without.contains("Hi."), "{without}");
    assert!(vendor.was_left_alone());
    assert_eq!(door.closed().await[0].losses, ["1 record of reasoning"]);
    // Where there is but one account, its words are passed on.
    let door = Door::to(Anthropic, &vendor.url()).await;
    door.post(Anthropic, &messages(false, &thinking)).await;
    vendor.request().await;
    assert!(vendor.was_left_alone());
}

#[tokio::test]
async fn a_lonely_model_counts_each_attempt_once() {
    // What the caller repeats itself is one attempt here.
    let mut vendor = Puppet::playing(whole("500 Oh", JSON, "{}")).await;
    let door = Door::to(Chat, &vendor.url()).await;
    let body = json!({"model": "m", "messages": hello()}).to_string();
    assert_eq!(door.post(Chat, body.as_bytes()).await.status, 500);
    vendor.request().await;
    assert!(vendor.was_left_alone());
    assert_eq!(door.closed().await[0].unsettled, 1);
}

#[tokio::test]
async fn counts_go_to_the_first_model_once_and_lead_nobody_anywhere() {
    let count = json!({"model": "claude", "messages": hello()}).to_string();
    let post = async |door: &Door| {
        let request = door.request(Anthropic, "/v1/messages/count_tokens", count.as_bytes());
        super::client::ask(door.address, &request).await
    };
    let mut first = Puppet::playing(whole("429 Slow", JSON, "{}")).await;
    let mut second = Puppet::playing(whole("200 OK", JSON, DONE)).await;
    let door = over(&[(Anthropic, &first.url()), (Anthropic, &second.url())]).await;
    assert_eq!(post(&door).await.status, 429, "its caller repeats it or not");
    first.request().await;
    assert!(first.was_left_alone() && second.was_left_alone());
    // Where nobody can be asked it is an estimate, of a body that asks for no answer.
    let door = over(&[(Chat, "http://127.0.0.1:1"), (Anthropic, &second.url())]).await;
    let answer = post(&door).await;
    assert_eq!((answer.status, answer.header("x-adjutant-estimated")), (200, Some("true")), "{}", answer.text());
    assert!(second.was_left_alone());
}

#[tokio::test]
async fn who_was_led_to_a_vendor_that_cannot_be_asked_for_this_is_answered_elsewhere() {
    let first = Puppet::playing(whole("401 Unauthorized", JSON, "{}")).await;
    let away = FakeVendor::answering([Reply::text("Done.")]);
    let third = Puppet::playing(whole("200 OK", JSON, DONE)).await;
    let door = over(&[(Anthropic, &first.url()), (Chat, &away.url()), (Anthropic, &third.url())]).await;
    assert_eq!(door.post(Anthropic, &messages(false, &hello())).await.header("x-adjutant-model"), Some("v1/m"));
    let body = json!({"model": "claude", "max_tokens": 100, "messages": hello(),
        "tools": [{"type": "web_search_20250305", "name": "web_search"}]});
    let answer = door.post(Anthropic, body.to_string().as_bytes()).await;
    assert_eq!((answer.status, answer.header("x-adjutant-model")), (200, Some("v2/m")), "{}", answer.text());
}
