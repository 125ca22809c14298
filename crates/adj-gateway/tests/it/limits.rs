//! Limits as callers and vendors see them: who is asked when, who waits, and who does not.

use crate::{recorder, request, text_of};
use adj_domain::{
    AnswerBlock, FailureKind, ModelAnswer, ModelFailure, ModelRequest, RunId, SessionId, StopReason, Usage,
};
use adj_gateway::{
    AccountLimits, CancellationToken, Delta, Gateway, ModelCaller, RetryPolicy, WaitsFor, ignore_deltas,
};
use adj_providers::{EventStream, ModelEvent, Provider, ProviderError, Reading, Resource, Scope, Settings};
use adj_testkit::FakeVendor;
use futures_util::{FutureExt, StreamExt, future::join_all, stream};
use std::{
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::time::{Instant, sleep};

const USED: Usage = Usage {
    input_tokens: 100,
    output_tokens: 10,
    cache_read_tokens: 0,
    cache_write_tokens: 0,
    cache_write_1h_tokens: 0,
    reasoning_tokens: 0,
};

/// What a vendor does with a request, told the milliseconds since the test began and how many were asked before.
type Script = dyn Fn(u64, usize, &ModelRequest) -> Reply + Send + Sync;

#[derive(Debug, Clone)]
enum Reply {
    Answer { after_ms: u64, readings: Vec<Reading> },
    Refusal { after_ms: u64, error: ProviderError },
    Silence,
}

fn answer_after(after_ms: u64) -> Reply {
    Reply::Answer { after_ms, readings: Vec::new() }
}

fn refusal(retry_after_ms: Option<u64>) -> ProviderError {
    let retry_after = retry_after_ms.map(Duration::from_millis);
    ProviderError { retry_after, ..ProviderError::new(FailureKind::RateLimit, "slow down") }
}

fn refusal_after(after_ms: u64, retry_after_ms: Option<u64>) -> Reply {
    Reply::Refusal { after_ms, error: refusal(retry_after_ms) }
}

fn overloaded_after(after_ms: u64) -> Reply {
    Reply::Refusal { after_ms, error: ProviderError::new(FailureKind::Overloaded, "too much") }
}

fn limit_until(until: u64) -> impl Fn(u64, usize, &ModelRequest) -> Reply + Send + Sync {
    move |now, _, _| match until.saturating_sub(now + 100) {
        0 => answer_after(100),
        left => refusal_after(100, Some(left)),
    }
}

#[derive(Clone)]
struct Vendor {
    origin: Instant,
    script: Arc<Script>,
    /// When it was asked, for which model and session.
    asked: Arc<Mutex<Vec<(u64, String, SessionId)>>>,
}

impl fmt::Debug for Vendor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a vendor of the test")
    }
}

impl Vendor {
    fn new(script: impl Fn(u64, usize, &ModelRequest) -> Reply + Send + Sync + 'static) -> Self {
        Self { origin: Instant::now(), script: Arc::new(script), asked: Arc::default() }
    }

    fn times(&self) -> Vec<u64> {
        self.asked.lock().expect("nobody panics with the lock").iter().map(|(at, ..)| *at).collect()
    }

    fn now(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_millis()).expect("tests are short")
    }
}

impl Provider for Vendor {
    fn stream(&self, request: &ModelRequest, _attempt: u32) -> EventStream {
        let (vendor, request) = (self.clone(), request.clone());
        let events = async move {
            let reply = {
                let now = vendor.now();
                let mut asked = vendor.asked.lock().expect("nobody panics with the lock");
                let reply = (vendor.script)(now, asked.len(), &request);
                asked.push((now, request.model.name.clone(), request.caller.session.clone()));
                reply
            };
            match reply {
                Reply::Refusal { after_ms, error } => {
                    sleep(Duration::from_millis(after_ms)).await;
                    vec![Err(error)]
                }
                Reply::Answer { after_ms, readings } => {
                    sleep(Duration::from_millis(after_ms)).await;
                    let block = AnswerBlock::Text { text: "done".to_owned() };
                    let events = [
                        ModelEvent::Limits(readings),
                        ModelEvent::Started { model: "m".to_owned() },
                        ModelEvent::Block(block),
                        ModelEvent::Usage(USED),
                        ModelEvent::Finished { stop: StopReason::EndTurn },
                    ];
                    events.map(Ok).into_iter().collect()
                }
                Reply::Silence => std::future::pending().await,
            }
        };
        events.map(stream::iter).flatten_stream().boxed()
    }
}

/// A policy under which nothing but a limit is ever waited for.
fn policy() -> RetryPolicy {
    RetryPolicy { attempts: 1, seed: Some(7), ..RetryPolicy::default() }
}

fn from_session(model: &str, session: &str) -> ModelRequest {
    let mut request = request(model);
    request.caller.session = SessionId::derive(&[session]);
    request
}

async fn ask(gateway: &Gateway, model: &str, session: &str) -> Result<ModelAnswer, ModelFailure> {
    gateway.call(from_session(model, session), ignore_deltas(), CancellationToken::new()).await
}

async fn ask_all(gateway: &Gateway, model: &str, count: usize) -> Vec<Result<ModelAnswer, ModelFailure>> {
    join_all((0..count).map(|number| async move { ask(gateway, model, &number.to_string()).await })).await
}

#[tokio::test(start_paused = true)]
async fn one_finds_out_for_all_and_then_they_follow_one_by_one() {
    let until = 30_000;
    let vendor = Vendor::new(limit_until(until));
    let gateway = Gateway::new(policy()).with("a", Arc::new(vendor.clone()));
    let answers = ask_all(&gateway, "a/m", 8).await;
    let times = vendor.times();
    // All eight were under way when the first refusal came; from then on nobody asked before the time.
    assert_eq!(times[..8], [0; 8]);
    let probe = times[8];
    assert!((until..until + 500).contains(&probe), "{times:?}");
    // The others wait for the probe's answer, and follow with some space between them.
    assert_eq!(times.len(), 16, "each was refused once and answered once: {times:?}");
    assert!(times[9..].iter().all(|at| (probe + 100..=probe + 100 + 7 * 250).contains(at)), "{times:?}");
    assert!(times[9..].windows(2).all(|pair| pair[0] < pair[1]), "{times:?}");
    for answer in answers {
        let answer = answer.expect("a limit is no failure, however few attempts the policy allows");
        assert_eq!((answer.attempts, answer.usage), (2, USED), "nothing is counted twice");
        assert!((until - 100..=until + 3000).contains(&answer.queued_ms), "{answer:?}");
        assert!(answer.latency_ms >= answer.queued_ms + 200, "{answer:?}");
    }
    assert!(gateway.is_idle());
}

#[tokio::test(start_paused = true)]
async fn who_comes_to_a_shut_door_does_not_knock() {
    let vendor = Vendor::new(limit_until(30_000));
    let gateway = Gateway::new(policy()).with("a", Arc::new(vendor.clone()));
    let later = async {
        sleep(Duration::from_millis(500)).await;
        ask_all(&gateway, "a/m", 7).await
    };
    let (first, others) = tokio::join!(ask(&gateway, "a/m", "first"), later);
    let times = vendor.times();
    assert_eq!((times[0], times.len()), (0, 9), "{times:?}");
    assert!(times[1] >= 30_000 && times[2..].iter().all(|at| *at >= times[1] + 100), "{times:?}");
    assert_eq!(first.expect("it passes").attempts, 2);
    assert!(others.into_iter().all(|answer| answer.expect("it passes").attempts == 1));
}

#[tokio::test(start_paused = true)]
async fn a_limit_of_one_model_or_account_holds_up_no_other() {
    let limited = Vendor::new(|_, _, request| match request.model.name.as_str() {
        "limited" => refusal_after(10, Some(60_000)),
        _ => answer_after(100),
    });
    let free = Vendor::new(|_, _, _| answer_after(100));
    let gateway = Gateway::new(policy()).with("a", Arc::new(limited)).with("b", Arc::new(free));
    let cancel = CancellationToken::new();
    let flood = (0..50).map(|number| {
        let request = from_session("a/limited", &number.to_string());
        gateway.call(request, ignore_deltas(), cancel.clone())
    });
    let calm = async {
        sleep(Duration::from_secs(1)).await;
        for model in ["b/m", "a/m"] {
            let answer = ask(&gateway, model, "calm").await.expect("nothing is limited here");
            assert_eq!((answer.queued_ms, answer.latency_ms), (0, 100), "{model}");
        }
        cancel.cancel();
    };
    tokio::join!(join_all(flood), calm);
    assert!(gateway.is_idle());
}

#[tokio::test(start_paused = true)]
async fn a_limit_of_the_whole_account_holds_for_every_model() {
    let vendor = Vendor::new(|_, asked, _| {
        let error = ProviderError { scope: Scope::Account, ..refusal(Some(20_000)) };
        if asked == 0 { Reply::Refusal { after_ms: 100, error } } else { answer_after(100) }
    });
    let gateway = Gateway::new(policy()).with("a", Arc::new(vendor.clone()));
    let other_model = async {
        sleep(Duration::from_secs(1)).await;
        ask(&gateway, "a/two", "s").await
    };
    let (one, two) = tokio::join!(ask(&gateway, "a/one", "s"), other_model);
    one.and(two).expect("both pass");
    let times = vendor.times();
    assert!(times.len() == 3 && times[1] >= 20_100 && times[2] >= times[1] + 100, "{times:?}");
}

#[tokio::test(start_paused = true)]
async fn whoever_gives_up_leaves_the_queue_at_once_and_takes_nothing_along() {
    let vendor = Vendor::new(|_, _, _| answer_after(10_000));
    let limits = AccountLimits { concurrency: Some(1), ..AccountLimits::default() };
    let gateway = Gateway::new(policy()).with_limits("a", Arc::new(vendor.clone()), limits);
    let started = Instant::now();
    let cancelled = async {
        sleep(Duration::from_millis(10)).await;
        let cancel = CancellationToken::new();
        let call = gateway.call(from_session("a/m", "two"), ignore_deltas(), cancel.clone());
        let (outcome, ()) = tokio::join!(call, async {
            sleep(Duration::from_millis(500)).await;
            cancel.cancel();
        });
        let failure = outcome.expect_err("it was cancelled");
        assert_eq!((failure.kind, failure.attempts, failure.queued_ms), (FailureKind::Cancelled, 0, 500));
        assert_eq!(started.elapsed(), Duration::from_millis(510));
    };
    let dropped = async {
        sleep(Duration::from_millis(20)).await;
        let outcome = tokio::time::timeout(Duration::from_millis(300), ask(&gateway, "a/m", "three")).await;
        assert!(outcome.is_err());
    };
    let last = async {
        sleep(Duration::from_millis(30)).await;
        ask(&gateway, "a/m", "four").await
    };
    let (first, (), (), last) = tokio::join!(ask(&gateway, "a/m", "one"), cancelled, dropped, last);
    assert_eq!(first.expect("it passes").queued_ms, 0);
    assert_eq!(last.expect("it passes").queued_ms, 9970);
    assert_eq!(vendor.times(), [0, 10_000]);
    assert!(gateway.is_idle());
}

/// The turn comes and the caller goes in one instant: what was decided for it goes to the next one.
#[tokio::test(start_paused = true)]
async fn a_turn_that_comes_too_late_is_passed_on() {
    let vendor = Vendor::new(|_, _, _| answer_after(1000));
    let limits = AccountLimits { concurrency: Some(1), ..AccountLimits::default() };
    let gateway = Gateway::new(policy()).with_limits("a", Arc::new(vendor.clone()), limits);
    let cancel = CancellationToken::new();
    let canceller = async {
        sleep(Duration::from_secs(1)).await;
        cancel.cancel();
    };
    let late = gateway.call(from_session("a/m", "late"), ignore_deltas(), cancel.clone());
    let next = async {
        sleep(Duration::from_millis(1)).await;
        ask(&gateway, "a/m", "next").await
    };
    // In this order the first call ends and hands its place on before the second is looked at.
    let (first, (), late, next) = tokio::join!(ask(&gateway, "a/m", "first"), canceller, late, next);
    first.expect("it passes");
    assert_eq!(late.expect_err("it was cancelled").attempts, 0);
    assert_eq!(next.expect("it passes").queued_ms, 999);
    assert_eq!(vendor.times(), [0, 1000]);
    assert!(gateway.is_idle());
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_given_up_makes_way_for_another() {
    let vendor = Vendor::new(|_, asked, _| match asked {
        0 => refusal_after(0, Some(10_000)),
        1 => Reply::Silence,
        _ => answer_after(100),
    });
    let gateway = Gateway::new(policy()).with("a", Arc::new(vendor.clone()));
    let impatient = tokio::time::timeout(Duration::from_secs(15), ask(&gateway, "a/m", "one"));
    let patient = async {
        sleep(Duration::from_secs(1)).await;
        ask(&gateway, "a/m", "two").await
    };
    let (one, two) = tokio::join!(impatient, patient);
    assert!(one.is_err(), "the probe was never answered");
    two.expect("the second probe is");
    let times = vendor.times();
    assert!(times.len() == 3 && times[2] == 15_000, "{times:?}");
    assert!(gateway.is_idle());
}

#[tokio::test(start_paused = true)]
async fn too_long_a_limit_ends_everybody_with_the_vendors_words() {
    let vendor = Vendor::new(|_, _, _| refusal_after(100, Some(86_400_000)));
    let limits = AccountLimits { concurrency: Some(2), ..AccountLimits::default() };
    let gateway = Gateway::new(policy()).with_limits("a", Arc::new(vendor.clone()), limits);
    let mut failures = ask_all(&gateway, "a/m", 8).await;
    failures.push(ask(&gateway, "a/m", "late").await);
    for failure in failures {
        let failure = failure.expect_err("nobody waits for a day");
        assert_eq!((failure.kind, failure.message.as_str()), (FailureKind::RateLimit, "slow down"));
        assert_eq!(failure.retry_after_ms, Some(86_400_000));
    }
    assert_eq!(vendor.times(), [0, 0], "nobody else asked");
    assert!(gateway.is_idle());
}

#[tokio::test(start_paused = true)]
async fn a_vendor_that_never_lets_anybody_in_is_given_up_in_the_end() {
    for wait in [None, Some(1), Some(30_000)] {
        let vendor = Vendor::new(move |_, _, _| refusal_after(10, wait));
        let gateway = Gateway::new(policy()).with("a", Arc::new(vendor.clone()));
        for failure in ask_all(&gateway, "a/m", 3).await {
            let failure = failure.expect_err("nobody is let in");
            assert_eq!((failure.kind, failure.message.as_str()), (FailureKind::RateLimit, "slow down"), "{wait:?}");
            assert!((500_000..=700_000).contains(&failure.queued_ms), "{wait:?} {failure:?}");
        }
        assert!(vendor.times().len() < 60, "{wait:?}: {}", vendor.times().len());
        assert!(gateway.is_idle());
    }
}

#[tokio::test(start_paused = true)]
async fn fixed_numbers_hold_whatever_the_vendor_would_bear() {
    let vendor = Vendor::new(|_, _, _| answer_after(0));
    let limits = AccountLimits { requests_per_minute: Some(3), ..AccountLimits::default() };
    let gateway = Gateway::new(policy()).with_limits("a", Arc::new(vendor.clone()), limits);
    let (on_delta, told) = recorder();
    ask_all(&gateway, "a/m", 3).await.into_iter().for_each(|answer| assert_eq!(answer.unwrap().queued_ms, 0));
    let answer = gateway.call(request("a/m"), on_delta, CancellationToken::new()).await.expect("it passes");
    assert_eq!(answer.queued_ms, 20_000);
    let told = told.lock().expect("nobody panics with the lock").clone();
    assert_eq!(told[0], Delta::Waiting { because: WaitsFor::Rate, wait: Some(Duration::from_secs(20)) });
    ask_all(&gateway, "a/other", 3).await;
    assert_eq!(vendor.times(), [0, 0, 0, 20_000, 40_000, 60_000, 80_000]);

    // The instructions and the message come to 7 tokens, and the answer is expected to be of a thousand.
    let vendor = Vendor::new(|_, _, _| answer_after(1000));
    let limits = AccountLimits { tokens_per_minute: Some(2100), ..AccountLimits::default() };
    let gateway = Gateway::new(policy()).with_limits("a", Arc::new(vendor.clone()), limits);
    ask_all(&gateway, "a/m", 3).await;
    // Two fit; the third fits as soon as it is known that the first two were small.
    assert_eq!(vendor.times(), [0, 0, 1000]);
}

#[tokio::test(start_paused = true)]
async fn what_the_vendor_says_of_its_limits_is_kept_to_before_it_refuses() {
    let used_up = Reading {
        resource: Resource::Requests,
        limit: Some(60),
        remaining: Some(0),
        reset: Some(Duration::from_secs(60)),
    };
    let vendor = Vendor::new(move |_, asked, _| match asked {
        0 => Reply::Answer { after_ms: 100, readings: vec![used_up] },
        _ => answer_after(100),
    });
    let gateway = Gateway::new(policy()).with("a", Arc::new(vendor.clone()));
    ask(&gateway, "a/m", "s").await.expect("it passes");
    let answers = ask_all(&gateway, "a/m", 2).await;
    let queued = answers.into_iter().map(|answer| answer.expect("it passes").queued_ms).collect::<Vec<_>>();
    assert_eq!(queued, [1000, 2000], "one a second");
    assert_eq!(ask(&gateway, "a/other", "s").await.expect("it passes").queued_ms, 0);

    // One in a day: our guess holds nobody up for hours, the vendor's own words end the call.
    let of_a_day = Reading { limit: Some(1), reset: Some(Duration::from_secs(86_400)), ..used_up };
    let vendor = Vendor::new(move |_, asked, _| match asked {
        0..20 => Reply::Answer { after_ms: 100, readings: vec![of_a_day] },
        _ => refusal_after(100, Some(80_000_000)),
    });
    let gateway = Gateway::new(policy()).with("a", Arc::new(vendor.clone()));
    for _ in 0..20 {
        assert!(ask(&gateway, "a/m", "s").await.expect("it passes").queued_ms <= 120_000);
    }
    assert_eq!(ask(&gateway, "a/m", "s").await.expect_err("it is refused").message, "slow down");
}

#[tokio::test(start_paused = true)]
async fn a_run_of_many_sessions_gets_no_more_than_one_of_few() {
    let vendor = Vendor::new(|_, _, _| answer_after(1000));
    let limits = AccountLimits { concurrency: Some(1), ..AccountLimits::default() };
    let gateway = Gateway::new(policy()).with_limits("a", Arc::new(vendor.clone()), limits);
    let gateway = &gateway;
    let of_run = |number: usize| {
        let mut request = from_session("a/m", &number.to_string());
        request.caller.run = Some(RunId::derive(&["flood"]));
        gateway.call(request, ignore_deltas(), CancellationToken::new())
    };
    let single = async move {
        sleep(Duration::from_millis(10)).await;
        ask(gateway, "a/m", "single").await.expect("it passes").queued_ms
    };
    let (_, queued) = tokio::join!(join_all((0..40).map(of_run)), single);
    assert!(queued <= 2000, "one of the flood may come before it, not forty: {queued}");
}

#[tokio::test(start_paused = true)]
async fn an_overloaded_vendor_gets_fewer_requests_at_a_time() {
    let vendor = Vendor::new(|now, _, _| if now == 0 { overloaded_after(10) } else { answer_after(5000) });
    let retries = RetryPolicy { seed: Some(7), ..RetryPolicy::default() };
    let gateway = Gateway::new(retries).with("a", Arc::new(vendor.clone()));
    for answer in ask_all(&gateway, "a/m", 16).await {
        assert_eq!(answer.expect("it passes").attempts, 2);
    }
    let times = vendor.times();
    let at_a_time = times[16..].iter().filter(|at| **at < 5000).count();
    assert_eq!((times.len(), at_a_time), (32, 8), "half of what was under way: {times:?}");
}

#[tokio::test(start_paused = true)]
async fn the_queue_has_an_end_and_so_has_waiting() {
    let vendor = Vendor::new(|_, _, _| Reply::Silence);
    let limits = AccountLimits { concurrency: Some(1), ..AccountLimits::default() };
    let gateway = Gateway::new(policy()).with_limits("a", Arc::new(vendor.clone()), limits);
    let gateway = &gateway;
    let cancel = CancellationToken::new();
    let all = (0..1002).map(|number| {
        let request = from_session("a/m", &number.to_string());
        gateway.call(request, ignore_deltas(), cancel.clone())
    });
    let (outcomes, ()) = tokio::join!(join_all(all), async {
        sleep(Duration::from_secs(3601)).await;
        cancel.cancel();
    });
    let failures = outcomes.into_iter().map(|outcome| outcome.expect_err("nobody is answered")).collect::<Vec<_>>();
    assert_eq!(failures[0].kind, FailureKind::Cancelled);
    assert!(failures[1..1001].iter().all(|failure| failure.queued_ms == 3_600_000 && failure.attempts == 0));
    assert_eq!(failures[1].kind, FailureKind::RateLimit);
    assert!(failures[1].message.contains("was not this request's turn at the account a for 3600 s"), "{}", failures[1]);
    assert!(failures[1001].message.contains("there is no room"), "{}", failures[1001]);
    assert_eq!(vendor.times().len(), 1);
    assert!(gateway.is_idle());
}

#[tokio::test]
async fn nobody_at_home_is_asked_three_times_in_all() {
    let vendor = FakeVendor::answering([]);
    let environment = vendor.environment();
    drop(vendor);
    let lookup = |name: &str| environment.iter().find(|(held, _)| *held == name).map(|(_, value)| value.clone());
    let settings = Settings::from_env(&lookup).expect("the fake's variables are good");
    let retries = RetryPolicy { attempts: 10, first_wait: Duration::from_millis(1), ..RetryPolicy::default() };
    let gateway = Gateway::new(retries).with_all(settings.providers());
    let failure = ask(&gateway, "openai-chat/m", "s").await.expect_err("nobody listens");
    assert_eq!((failure.kind, failure.attempts), (FailureKind::Connection, 3), "{failure}");
}

/// Callers on several threads, vendors that refuse, answers that come late, callers that give up: nothing is leaked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_on_several_threads_leaves_nothing_behind() {
    let vendor = Vendor::new(|_, asked, _| match asked % 7 {
        0 => refusal_after(1, Some(5)),
        3 => overloaded_after(1),
        _ => answer_after(1),
    });
    let retries = RetryPolicy { attempts: 20, first_wait: Duration::from_millis(2), ..RetryPolicy::default() };
    let limits = AccountLimits { concurrency: Some(4), ..AccountLimits::default() };
    let gateway = Arc::new(Gateway::new(retries).with_limits("a", Arc::new(vendor.clone()), limits));
    let tasks = (0..60).map(|number: u64| {
        let gateway = Arc::clone(&gateway);
        tokio::spawn(async move {
            let session = number.to_string();
            let call = ask(&gateway, if number.is_multiple_of(2) { "a/m" } else { "a/n" }, &session);
            let patience = if number.is_multiple_of(5) { number } else { 60_000 };
            tokio::time::timeout(Duration::from_millis(patience), call).await.map(|answer| text_of(&answer.unwrap()))
        })
    });
    let outcomes = join_all(tasks).await;
    let patient = outcomes.into_iter().enumerate().filter(|(number, _)| !number.is_multiple_of(5));
    patient.for_each(|(_, outcome)| assert_eq!(outcome.expect("no panic").expect("in time"), "done"));
    assert!(gateway.is_idle());
}
