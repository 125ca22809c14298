//! From one model to the next, and home again.

use crate::{request, text_of};
use adj_domain::{
    Caller, FailureKind, Item, ModelAnswer, ModelFailure, ModelRef, ModelRequest, Moved, SessionId, Unit, Unpriced,
    Usage,
};
use adj_gateway::{
    CancellationToken, Catalogue, Delta, Failover, Gateway, ModelCaller, OnDelta, Quote, RetryPolicy,
    failover::{MOST_ATTEMPTS, Reason},
    ignore_deltas,
};
use adj_providers::{EventStream, Playbook, Provider, Scripted};
use proptest::{collection::vec, prelude::*};
use serde_json::json;
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::time::Instant;

/// Plays a playbook, and remembers for which models it was asked.
#[derive(Debug)]
struct Vendor {
    scripted: Scripted,
    asked: Mutex<Vec<ModelRequest>>,
}

impl Provider for Vendor {
    fn stream(&self, request: &ModelRequest, attempt: u32) -> EventStream {
        self.asked.lock().expect("nobody panics with the lock").push(request.clone());
        self.scripted.stream(request, attempt)
    }
}

impl Vendor {
    fn playing(rules: &str) -> Arc<Self> {
        let playbook = Playbook::parse(rules, "test.yaml").unwrap_or_else(|error| panic!("{error}"));
        Arc::new(Self { scripted: Scripted::new(playbook), asked: Mutex::default() })
    }

    fn failing(fail: &str) -> Arc<Self> {
        Self::playing(&format!("rules: [{{say: never seen, fail: {fail}}}]"))
    }

    fn asked(&self) -> Vec<ModelRequest> {
        self.asked.lock().expect("nobody panics with the lock").clone()
    }
}

fn model(name: &str) -> ModelRef {
    name.parse().expect("a test's model has a name")
}

/// A gateway whose route `route/x` leads over these vendors, in this order.
fn over(vendors: &[Arc<Vendor>]) -> Gateway {
    let names: Vec<String> = (0..vendors.len()).map(|place| format!("v{place}")).collect();
    let failover = Failover::to(names.iter().map(|name| model(&format!("{name}/m"))).collect());
    with(vendors, failover)
}

fn with(vendors: &[Arc<Vendor>], failover: Failover) -> Gateway {
    let policy = RetryPolicy { seed: Some(1), ..RetryPolicy::default() };
    let named = vendors
        .iter()
        .enumerate()
        .map(|(place, vendor)| (format!("v{place}"), Arc::clone(vendor) as Arc<dyn Provider>));
    Gateway::new(policy).with_all(named).with_failover(&model("route/x"), failover)
}

async fn call(gateway: &Gateway, request: ModelRequest) -> Result<ModelAnswer, ModelFailure> {
    gateway.call(request, ignore_deltas(), CancellationToken::new()).await
}

#[tokio::test(start_paused = true)]
async fn each_reason_moves_a_request_after_its_own_patience_and_some_never_do() {
    use FailureKind::*;
    let cases = [
        // how the first fails, attempts at it, why the request goes on (None: it does not)
        ("{status: 529}", 3, Some(Overloaded)),
        ("{status: 500}", 3, Some(Server)),
        ("{cut_after_chars: 3}", 3, Some(Connection)),
        ("{status: 504}", 2, Some(Timeout)),
        ("{malformed: true}", 2, Some(Protocol)),
        ("{status: 401}", 1, Some(Authentication)),
        ("{status: 402}", 1, Some(Billing)),
        ("{status: 429, retry_after_ms: 60000}", 1, Some(RateLimit)),
        ("{status: 429, retry_after_ms: 999999999}", 1, Some(RateLimit)),
        ("{status: 429, retry_after_ms: 5000, times: 2}", 3, None),
        ("[{status: 529, times: 2}]", 3, None),
        ("{status: 400}", 1, None),
        ("{status: 413}", 1, None),
    ];
    for (fail, attempts, why) in cases {
        let (first, second) = (Vendor::failing(fail), Vendor::playing("rules: [{say: done}]"));
        let gateway = over(&[Arc::clone(&first), Arc::clone(&second)]);
        let outcome = call(&gateway, request("route/x")).await;
        assert_eq!((first.asked().len(), second.asked().len()), (attempts, usize::from(why.is_some())), "{fail}");
        let moved = why.map(|why| Moved { from: model("v0/m"), to: model("v1/m"), why, lost: Vec::new() });
        match outcome {
            Ok(answer) => {
                let by = if moved.is_some() { "v1/m" } else { "v0/m" };
                assert_eq!((answer.answered_by, answer.moved), (Some(model(by)), Vec::from_iter(moved)), "{fail}");
                let whole = attempts + usize::from(why.is_some());
                assert_eq!(usize::try_from(answer.attempts).expect("few"), whole, "{fail}");
            }
            Err(failure) => assert!(why.is_none() && failure.moved.is_empty(), "{fail}: {failure}"),
        }
        // Whom the rules name nothing for stays where it is.
        if let Some(reason) = why.and_then(Reason::of) {
            let (first, second) = (Vendor::failing(fail), Vendor::playing("rules: [{say: done}]"));
            let targets = vec![model("v0/m"), model("v1/m")];
            let move_on = Reason::ALL.into_iter().filter(|other| *other != reason).collect();
            let gateway = with(&[first, Arc::clone(&second)], Failover { move_on, ..Failover::to(targets) });
            let cancel = CancellationToken::new();
            let outcome = tokio::select! {
                outcome = gateway.call(request("route/x"), ignore_deltas(), cancel) => outcome,
                () = tokio::time::sleep(Duration::from_secs(3600)) => panic!("{fail}: it waits for ever"),
            };
            assert!(outcome.is_err() && second.asked().is_empty(), "{fail}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_turn_stays_where_it_was_led_and_the_next_begins_at_home() {
    let first = Vendor::playing("rules: [{when: {turn: 1, step: 0}, say: x, fail: {status: 402}}, {say: from home}]");
    let second = Vendor::playing("rules: [{when: {turn: 1, step: [0, 1]}, say: away}, {fail: {status: 401}}]");
    let gateway = over(&[Arc::clone(&first), Arc::clone(&second)]);
    let at = |session: &str, turn, step| {
        let asked = request("route/x");
        let caller = Caller { session: SessionId::derive(&[session]), turn, step, ..asked.caller.clone() };
        ModelRequest { caller, ..asked }
    };
    let cases = [
        // session, turn, step: what is answered, how often the request moved
        (("a", 1, 0), "away", 1),
        (("a", 1, 1), "away", 0),
        (("b", 1, 1), "from home", 0),
        // What it was led to fails too: home is tried before giving up.
        (("a", 1, 2), "from home", 1),
        (("a", 1, 3), "from home", 0),
        (("a", 2, 0), "from home", 0),
    ];
    for ((session, turn, step), expected, moved) in cases {
        let answer = call(&gateway, at(session, turn, step)).await;
        let answer = answer.unwrap_or_else(|failure| panic!("{session} {turn} {step}: {failure}"));
        assert_eq!((text_of(&answer).as_str(), answer.moved.len()), (expected, moved), "{session} {turn} {step}");
    }
    // A new turn of a session that is still away.
    let away = Vendor::playing("rules: [{say: away}]");
    let home = Vendor::playing("rules: [{when: {turn: 1}, say: x, fail: {status: 402}}, {say: from home}]");
    let gateway = over(&[home, away]);
    for (turn, expected) in [(1, "away"), (2, "from home")] {
        assert_eq!(text_of(&call(&gateway, at("a", turn, 0)).await.expect("somebody answers")), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_limit_is_waited_for_as_long_as_the_list_says_and_no_longer() {
    for (asked_ms, waited_s, by) in [(25_000, 25..26, "v0/m"), (35_000, 0..1, "v1/m")] {
        let fail = format!("{{status: 429, retry_after_ms: {asked_ms}, times: 1}}");
        let gateway = over(&[Vendor::failing(&fail), Vendor::playing("rules: [{say: done}]")]);
        let started = Instant::now();
        let answer = call(&gateway, request("route/x")).await.expect("somebody answers");
        assert_eq!(answer.answered_by, Some(model(by)));
        assert!(waited_s.contains(&started.elapsed().as_secs()), "{:?}", started.elapsed());
    }
    // Who comes later finds the door shut, and does not knock.
    let (first, second) =
        (Vendor::failing("{status: 429, retry_after_ms: 100000}"), Vendor::playing("rules: [{say: done}]"));
    let gateway = over(&[Arc::clone(&first), second]);
    for session in ["a", "b", "c"] {
        let asked = request("route/x");
        let caller = Caller { session: SessionId::derive(&[session]), ..asked.caller.clone() };
        let answer = call(&gateway, ModelRequest { caller, ..asked }).await.expect("somebody answers");
        assert_eq!(answer.moved[0].why, FailureKind::RateLimit);
    }
    assert_eq!(first.asked().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_lost_is_said_and_the_price_is_that_of_whoever_answered() {
    let second = Vendor::playing("rules: [{say: done, usage: {input: 1000000}}]");
    let gateway = over(&[Vendor::failing("{status: 402, message: pay}"), Arc::clone(&second)]);
    let prices = "[[model]]\nmatch = \"v0/*\"\nrates = {input = \"9\", output = \"9\"}\n\
                  [[model]]\nmatch = \"real/*\"\nrates = {input = \"2\", output = \"2\"}";
    let gateway =
        gateway.knowing(Catalogue::builtin().with(prices, "test.toml").expect("prices")).priced_as("v1", "real");
    let mut asked = request("route/x");
    let thought =
        |vendor: &str| Item::Reasoning { vendor: vendor.to_owned(), model: "m".to_owned(), payload: json!({}) };
    asked.items.extend([
        thought("v0"),
        thought("v0"),
        thought("other"),
        Item::Assistant { text: "So far.".to_owned() },
    ]);
    let told = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&told);
    let on_delta: OnDelta = Arc::new(move |delta| {
        if let Delta::Retrying { message, .. } = delta {
            heard.lock().expect("nobody panics with the lock").push(message);
        }
    });
    let answer = gateway.call(asked.clone(), on_delta, CancellationToken::new()).await.expect("somebody answers");
    assert_eq!(answer.moved[0].lost, ["2 records of reasoning", "the vendor's cache"]);
    assert_eq!(answer.cost.map(|cost| cost.amount.to_string()).as_deref(), Some("2.00"));
    // What is set aside is enough for whichever model answers; what is taken is what the one that answered costs.
    let quote = gateway.quote(&asked, None);
    let unit = Unit::Money("USD".parse().expect("a currency"));
    let at = |name: &str| {
        Quote { others: Vec::new(), ..quote.of(&model(name)).clone() }.most(&Unpriced::Refuse).0.get(&unit)
    };
    assert!(at("v0/m") > at("v1/m") && at("v1/m") > 0);
    assert_eq!(quote.most(&Unpriced::Refuse).0.get(&unit), at("v0/m"));
    let short = quote.output_within(&unit, at("v0/m") - 1, 1_000_000);
    assert!(short.is_some_and(|output| output < 1_000_000), "{short:?}");
    let taken: Vec<u64> = answer.charges.iter().map(|charge| charge.at_most.get(&unit)).collect();
    assert_eq!(taken, [2_000_000]);
    assert_eq!(answer.usage, Usage { input_tokens: 1_000_000, ..Usage::default() });
    // The conversation goes along as it is; each wire leaves out the reasoning of others.
    assert_eq!(second.asked()[0], ModelRequest { model: model("v1/m"), ..asked });
    let told = told.lock().expect("nobody panics with the lock").clone();
    assert_eq!(told, ["going on to v1/m: pay (HTTP status 402)"]);

    let gateway =
        over(&[Vendor::failing("{status: 402, message: pay}"), Vendor::failing("{status: 401, message: who?}")]);
    let failure = call(&gateway, request("route/x")).await.expect_err("nobody answers");
    assert_eq!((failure.attempts, failure.moved.len(), failure.kind), (2, 1, FailureKind::Authentication));
    assert_eq!(failure.message, "who? (HTTP status 401); before that v0/m was left (billing)");
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_call_goes_nowhere() {
    let second = Vendor::playing("rules: [{say: done}]");
    let gateway = over(&[Vendor::playing("rules: [{say: late, delay_ms: 600000}]"), Arc::clone(&second)]);
    let cancel = CancellationToken::new();
    let later = cancel.clone();
    let (outcome, ()) = tokio::join!(gateway.call(request("route/x"), ignore_deltas(), cancel), async move {
        tokio::time::sleep(Duration::from_millis(50)).await;
        later.cancel();
    });
    let failure = outcome.expect_err("it was cancelled");
    assert_eq!((failure.kind, failure.attempts), (FailureKind::Cancelled, 1));
    assert!(second.asked().is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever fails how often: a call ends, with few attempts, at no model twice, and never past a failure that must not move.
    #[test]
    fn every_call_ends_and_moves_only_where_it_may(
        statuses in vec(vec(prop_oneof![Just(0u16), Just(400), Just(401), Just(402), Just(413), Just(500), Just(504), Just(529)], 1..4), 1..7),
    ) {
        let vendors: Vec<Arc<Vendor>> = statuses.iter().map(|statuses| {
            let fails = statuses.iter().take_while(|status| **status != 0);
            let fails: Vec<String> = fails.map(|status| format!("{{status: {status}, times: 1}}")).collect();
            Vendor::failing(&format!("[{}]", fails.join(", ")))
        }).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime");
        let gateway = over(&vendors);
        let outcome = runtime.block_on(call(&gateway, request("route/x")));
        let (attempts, moved) = match &outcome {
            Ok(answer) => (answer.attempts, answer.moved.clone()),
            Err(failure) => (failure.attempts, failure.moved.clone()),
        };
        let asked: usize = vendors.iter().map(|vendor| vendor.asked().len()).sum();
        prop_assert_eq!(asked, usize::try_from(attempts).expect("few"));
        prop_assert!(attempts <= MOST_ATTEMPTS);
        for (place, moved) in moved.iter().enumerate() {
            prop_assert_eq!(&moved.from, &model(&format!("v{place}/m")));
            prop_assert_eq!(&moved.to, &model(&format!("v{}/m", place + 1)));
            prop_assert!(Reason::of(moved.why).is_some());
        }
        if let Err(failure) = outcome {
            let is_at_end = moved.len() + 1 == vendors.len() || attempts == MOST_ATTEMPTS;
            prop_assert!(is_at_end || Reason::of(failure.kind).is_none(), "{failure}");
        }
    }
}
