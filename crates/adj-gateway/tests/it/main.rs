//! The gateway between its callers and vendors: scripted ones with paused time, and one over HTTP.

mod bound;
mod breaker;
mod bucket;
mod endpoint;
mod failover;
mod fair;
mod governor;
mod limits;
mod seeds;

use adj_domain::{
    AnswerBlock, Caller, Content, FailureKind, Item, ModelAnswer, ModelFailure, ModelRequest, Purpose, SessionId,
};
use adj_gateway::{CancellationToken, Delta, Gateway, ModelCaller, OnDelta, RetryPolicy, ignore_deltas};
use adj_providers::{Playbook, Scripted, Settings};
use adj_testkit::{FakeVendor, Reply};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::time::Instant;

fn request(model: &str) -> ModelRequest {
    ModelRequest {
        model: model.parse().expect("a test's model has a name"),
        purpose: Purpose::Step,
        caller: Caller {
            session: SessionId::derive(&["test"]),
            run: None,
            agent: "builder".to_owned(),
            role: "builder".to_owned(),
            turn: 1,
            step: 0,
        },
        system: "You fix programs.".to_owned(),
        items: vec![Item::User { content: vec![Content::text("Fix it.")] }],
        tools: Vec::new(),
        max_output_tokens: 1000,
        output_schema: None,
        effort: None,
        sampling: Default::default(),
    }
}

fn gateway(playbook: &str) -> Gateway {
    let playbook = Playbook::parse(playbook, "test.yaml").unwrap_or_else(|error| panic!("{error}"));
    let policy = RetryPolicy { seed: Some(1), ..RetryPolicy::default() };
    Gateway::new(policy).with("scripted", Arc::new(Scripted::new(playbook)))
}

/// Keeps what it is told.
fn recorder() -> (OnDelta, Arc<Mutex<Vec<Delta>>>) {
    let told = Arc::new(Mutex::new(Vec::new()));
    let recorded = Arc::clone(&told);
    (Arc::new(move |delta| recorded.lock().expect("nobody panics with the lock").push(delta)), told)
}

fn text_of(answer: &ModelAnswer) -> String {
    let texts = answer.blocks.iter().map(|block| match block {
        AnswerBlock::Text { text } => text.as_str(),
        // One vendor signs its texts.
        AnswerBlock::Reasoning { .. } => "",
        AnswerBlock::ToolCall { .. } => "?",
    });
    texts.collect()
}

async fn call(playbook: &str) -> Result<ModelAnswer, ModelFailure> {
    gateway(playbook).call(request("scripted/x"), ignore_deltas(), CancellationToken::new()).await
}

#[tokio::test(start_paused = true)]
async fn what_may_pass_is_tried_again_and_what_cannot_is_not() {
    use FailureKind::*;
    let cases = [
        // failures of the playbook, attempts, kind of the final failure
        ("[]", 1, None),
        ("{status: 429, times: 2}", 3, None),
        (
            "[{status: 500, times: 1}, {cut_after_chars: 3, times: 1}, {malformed: true, times: 1}, {status: 529, times: 1}]",
            5,
            None,
        ),
        ("{status: 529, times: 5}", 5, Some(Overloaded)),
        ("{status: 503}", 5, Some(Overloaded)),
        ("{cut_after_chars: 3}", 5, Some(Connection)),
        ("{malformed: true}", 5, Some(Protocol)),
        ("{status: 504}", 5, Some(Timeout)),
        ("{status: 400}", 1, Some(InvalidRequest)),
        ("{status: 401}", 1, Some(Authentication)),
        ("{status: 402}", 1, Some(Billing)),
        ("{status: 413}", 1, Some(ContextTooLong)),
        ("{status: 400, message: prompt is too long}", 1, Some(ContextTooLong)),
        ("[{status: 429, times: 1}, {status: 401}]", 2, Some(Authentication)),
        ("{status: 429, retry_after_ms: 120001}", 1, Some(RateLimit)),
    ];
    for (fail, attempts, kind) in cases {
        let outcome = call(&format!("rules: [{{say: done, fail: {fail}}}]")).await;
        match (outcome, kind) {
            (Ok(answer), None) => {
                assert_eq!((answer.attempts, text_of(&answer).as_str()), (attempts, "done"), "{fail}");
            }
            (Err(failure), Some(kind)) => {
                assert_eq!((failure.attempts, failure.kind), (attempts, kind), "{fail}: {failure}");
            }
            (outcome, _) => panic!("{fail}: {outcome:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_vendors_wait_is_kept_and_the_whole_is_bounded() {
    let started = Instant::now();
    let answer = call("rules: [{say: done, fail: {status: 429, retry_after_ms: 60000, times: 1}}]").await;
    let answer = answer.expect("the second attempt goes through");
    let waited = started.elapsed();
    assert!((60_000..=60_501).contains(&waited.as_millis()), "{waited:?}");
    assert_eq!(u128::from(answer.latency_ms), waited.as_millis());

    let started = Instant::now();
    let failure = call("rules: [{fail: {status: 529}}]").await.expect_err("every attempt fails");
    let waited = started.elapsed();
    // 0.5 + 1 + 2 + 4 seconds at most, half of it at least.
    assert!((3_750..=7_501).contains(&waited.as_millis()), "{waited:?}");
    assert_eq!(failure.status, Some(529));

    let failure = call("rules: [{fail: {status: 429, message: see you tomorrow, retry_after_ms: 86400000}}]").await;
    let failure = failure.expect_err("nobody waits for a day");
    assert_eq!((failure.retry_after_ms, failure.latency_ms), (Some(86_400_000), 0));
    assert_eq!(failure.message, "see you tomorrow (HTTP status 429)");
}

#[tokio::test(start_paused = true)]
async fn nothing_of_a_cut_answer_survives_and_watchers_are_told() {
    let playbook = "
rules:
  - say: the answer
    delay_ms: 40
    chunk: 5
    chunk_delay_ms: 10
    calls: [{tool: bash, input: {command: ls}}]
    fail: {cut_after_chars: 7, times: 1}
";
    let (on_delta, told) = recorder();
    let answer = gateway(playbook).call(request("scripted/x"), on_delta, CancellationToken::new()).await;
    let answer = answer.expect("the second attempt goes through");
    assert_eq!(answer.blocks.len(), 2);
    assert_eq!((answer.attempts, answer.first_token_ms), (2, Some(40)));
    let told = told.lock().expect("nobody panics with the lock").clone();
    let shown = told.into_iter().map(|delta| match delta {
        Delta::Text { index, text } => format!("text {index}: {text}"),
        Delta::Reasoning { index, text } => format!("reasoning {index}: {text}"),
        Delta::ToolCall { index, name, arguments } => format!("call {index}: {name:?} {arguments}"),
        Delta::Waiting { because, .. } => panic!("nothing is limited, and yet it waits for {because:?}"),
        Delta::Retrying { next_attempt, wait, kind, .. } => {
            assert!(wait <= Duration::from_millis(500), "{wait:?}");
            format!("attempt {next_attempt} after {kind:?}")
        }
    });
    let expected = [
        "text 0: the a",
        "text 0: ns",
        "attempt 2 after Connection",
        "text 0: the a",
        "text 0: nswer",
        "call 1: Some(\"bash\") {\"command\":\"ls\"}",
    ];
    assert_eq!(shown.collect::<Vec<_>>(), expected);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_call_ends_at_once() {
    // Within an answer, and between attempts.
    for playbook in ["rules: [{say: late, delay_ms: 600000}]", "rules: [{fail: {status: 429, retry_after_ms: 100000}}]"]
    {
        let started = Instant::now();
        let cancel = CancellationToken::new();
        let later = cancel.clone();
        let gateway = gateway(playbook);
        let (outcome, ()) = tokio::join!(gateway.call(request("scripted/x"), ignore_deltas(), cancel), async move {
            tokio::time::sleep(Duration::from_millis(50)).await;
            later.cancel();
        });
        let failure = outcome.expect_err("the call was cancelled");
        assert_eq!((failure.kind, failure.attempts), (FailureKind::Cancelled, 1));
        assert_eq!(started.elapsed(), Duration::from_millis(50));
    }
    let cancel = CancellationToken::new();
    cancel.cancel();
    let outcome = gateway("rules: [{say: x}]").call(request("scripted/x"), ignore_deltas(), cancel).await;
    assert_eq!(outcome.expect_err("the call was cancelled before it began").attempts, 0);
}

#[tokio::test]
async fn an_unknown_vendor_is_a_failure_that_names_the_ways_out() {
    let outcome = gateway("rules: []").call(request("acme/x"), ignore_deltas(), CancellationToken::new()).await;
    let failure = outcome.expect_err("there is no such vendor");
    assert_eq!(failure.kind, FailureKind::InvalidRequest);
    insta::assert_snapshot!(failure.message);
}

#[tokio::test]
async fn vendors_out_of_the_environment_are_called_over_http() {
    let models = ["openai/gpt-5.5", "anthropic/claude-sonnet-4-5", "openai-chat/local", "gemini/gemini-3.8-flash"];
    for model in models {
        let vendor = FakeVendor::answering([
            Reply::failure(529, "overloaded_error", "Overloaded").retry_after("0.01"),
            Reply::text("Never seen whole.").broken_after(250),
            Reply::text("Done."),
        ]);
        let environment = vendor.environment();
        let lookup = |name: &str| environment.iter().find(|(held, _)| *held == name).map(|(_, value)| value.clone());
        let settings = Settings::from_env(&lookup).expect("the fake's variables are good");
        let policy = RetryPolicy { first_wait: Duration::from_millis(10), ..RetryPolicy::default() };
        let gateway = Gateway::new(policy).with_all(settings.providers());
        let answer = gateway.call(request(model), ignore_deltas(), CancellationToken::new()).await;
        let answer = answer.unwrap_or_else(|failure| panic!("{model}: {failure}"));
        assert_eq!((text_of(&answer).as_str(), answer.attempts), ("Done.", 3), "{model}");
        let bodies = vendor.requests().into_iter().map(|asked| asked.bytes).collect::<Vec<_>>();
        assert!(bodies.windows(2).all(|pair| pair[0] == pair[1]), "a repeated request is the same request");
    }
}

#[tokio::test]
async fn cancelling_hangs_up_on_the_vendor() {
    let slow = Reply::text("A very slow answer.").in_chunks_of(10).with_pauses(Duration::from_secs(1));
    let vendor = FakeVendor::answering([slow]);
    let environment = vendor.environment();
    let lookup = |name: &str| environment.iter().find(|(held, _)| *held == name).map(|(_, value)| value.clone());
    let settings = Settings::from_env(&lookup).expect("the fake's variables are good");
    let gateway = Gateway::new(RetryPolicy::default()).with_all(settings.providers());
    let cancel = CancellationToken::new();
    let later = cancel.clone();
    let started = Instant::now();
    let (outcome, ()) = tokio::join!(gateway.call(request("openai-chat/x"), ignore_deltas(), cancel), async move {
        tokio::time::sleep(Duration::from_millis(200)).await;
        later.cancel();
    });
    assert_eq!(outcome.expect_err("the call was cancelled").kind, FailureKind::Cancelled);
    assert!(started.elapsed() < Duration::from_secs(5));
}
