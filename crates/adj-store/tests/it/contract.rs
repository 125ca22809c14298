//! The contract of `Store`, for every back end.

use crate::support::*;
use adj_domain::{BlobHash, LedgerOp, LogId, Purse, Refusal};
use adj_store::{
    AppendError, Batch, ClaimError, Expect, LogFilter, LogKind, LogMeta, LogState, LogSummary, Store, StoreError,
    Submitted, limits, verify,
};
use std::collections::BTreeMap;

contract! {
    a_log_is_made_once
    events_get_their_places
    a_batch_is_all_or_nothing
    a_later_claim_fences_the_earlier
    a_release_ends_the_right_to_write
    a_living_holder_is_left_alone_and_a_dead_one_replaced
    a_node_has_one_process
    an_input_is_queued_once
    inputs_are_taken_up_in_the_batch_that_says_so
    a_queue_has_an_end
    what_does_not_fit_is_refused
    reading_goes_by_pages
    logs_are_listed_newest_first
    blobs_are_kept_under_their_hash
    unknown_logs_are_named
    a_hold_and_its_event_are_one
    a_refused_hold_refuses_its_batch
    the_holds_of_the_dead_are_known_and_closed_by_whoever_takes_over
    the_last_dollar_is_taken_once
    a_logs_state_is_written_with_its_events
    logs_are_listed_by_their_states
    what_waits_for_somebody_is_ready
}

async fn a_log_is_made_once(world: &dyn World) {
    let (ours, theirs) = (world.process(), world.process());
    assert!(ours.create(&log("a"), meta("first")).await.unwrap());
    assert!(!theirs.create(&log("a"), meta("second")).await.unwrap());
    let summary = theirs.log(&log("a")).await.unwrap().unwrap();
    assert_eq!((summary.meta.title.as_str(), summary.head), ("first", 0));
    assert_eq!(theirs.log(&log("b")).await.unwrap(), None);
    verify(&*ours, &log("a")).await.unwrap();
}

async fn events_get_their_places(world: &dyn World) {
    let store = world.process();
    let fence = claimed(&*store, &log("a")).await;
    let first = store.append(&fence, Expect::Head(0), batch(&["1", "2"])).await.unwrap();
    let second = store.append(&fence, Expect::Any, batch(&["3"])).await.unwrap();
    assert_eq!(first.iter().map(|event| event.seq).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(second[0].seq, 3);
    assert!(second[0].at >= first[0].at);
    let read = read_all(&*world.process(), &log("a")).await;
    let written = [first, second].concat();
    assert_eq!(serde_json::to_string(&read).unwrap(), serde_json::to_string(&written).unwrap());
    assert_eq!(read[0].body.get(), event("1").body);
    let verified = verify(&*store, &log("a")).await.unwrap();
    assert_eq!((verified.head, verified.hash), (3, read[2].hash));
    let nothing = store.append(&fence, Expect::Head(3), Batch::default()).await.unwrap();
    assert!(nothing.is_empty());
}

async fn a_batch_is_all_or_nothing(world: &dyn World) {
    let store = world.process();
    let fence = claimed(&*store, &log("a")).await;
    store.submit(&log("a"), &input("in")).await.unwrap();
    store.append(&fence, Expect::Any, batch(&["1"])).await.unwrap();

    let moved = store.append(&fence, Expect::Head(0), batch(&["x"])).await;
    assert!(matches!(moved, Err(AppendError::HeadMoved { head: 1, .. })), "{moved:?}");
    let takes =
        Batch { events: vec![event("in"), event("x")], takes: vec![id("in"), id("stranger")], ..Batch::default() };
    let refused = store.append(&fence, Expect::Any, takes).await;
    assert!(
        matches!(&refused, Err(AppendError::NotQueued { id: which, .. }) if *which == id("stranger")),
        "{refused:?}"
    );
    assert_eq!(names(&read_all(&*store, &log("a")).await), ["1"]);
    assert_eq!(store.pending(&log("a")).await.unwrap(), [input("in")]);
    verify(&*store, &log("a")).await.unwrap();
}

async fn a_later_claim_fences_the_earlier(world: &dyn World) {
    let store = world.process();
    let old = claimed(&*store, &log("a")).await;
    store.append(&old, Expect::Any, batch(&["1"])).await.unwrap();
    let claim = store.claim(&log("a"), &node("main")).await.unwrap();
    assert_eq!((claim.head, claim.fence.epoch()), (1, old.epoch() + 1));
    let refused = store.append(&old, Expect::Any, batch(&["x"])).await;
    assert!(matches!(refused, Err(AppendError::Fenced { held: 1, epoch: 2, .. })), "{refused:?}");
    store.release(old).await.unwrap();
    let events = store.append(&claim.fence, Expect::Head(1), batch(&["2"])).await.unwrap();
    assert_eq!(events[0].epoch, 2, "the old fence's release released nothing");
    verify(&*store, &log("a")).await.unwrap();
}

async fn a_release_ends_the_right_to_write(world: &dyn World) {
    let (ours, theirs) = (world.process(), world.process());
    let fence = claimed(&*ours, &log("a")).await;
    ours.release(fence.clone()).await.unwrap();
    assert_eq!(ours.log(&log("a")).await.unwrap().unwrap().holder, None);
    let refused = ours.append(&fence, Expect::Any, batch(&["x"])).await;
    assert!(matches!(refused, Err(AppendError::Fenced { .. })), "{refused:?}");
    let claim = theirs.claim(&log("a"), &node("other")).await.unwrap();
    assert_eq!(claim.fence.epoch(), 2);
}

async fn a_living_holder_is_left_alone_and_a_dead_one_replaced(world: &dyn World) {
    let (ours, theirs) = (world.process(), world.process());
    let fence = claimed(&*ours, &log("a")).await;
    ours.append(&fence, Expect::Any, batch(&["1"])).await.unwrap();
    let held = theirs.claim(&log("a"), &node("other")).await;
    match held {
        Err(ClaimError::Held { node: holder, pid, .. }) => {
            assert_eq!((holder, pid), (node("main"), std::process::id()));
        }
        other => panic!("{other:?}"),
    }
    assert!(theirs.log(&log("a")).await.unwrap().unwrap().holder.unwrap().alive);
    drop(ours);
    let left = theirs.log(&log("a")).await.unwrap().unwrap().holder.unwrap();
    assert_eq!((left.node, left.alive), (node("main"), false));
    let claim = theirs.claim(&log("a"), &node("other")).await.unwrap();
    assert_eq!((claim.head, claim.fence.epoch()), (1, 2));
    // A zombie that comes back with its old fence finds itself fenced off.
    let zombie = world.process().append(&fence, Expect::Any, batch(&["x"])).await;
    assert!(matches!(zombie, Err(AppendError::Fenced { .. })), "{zombie:?}");
}

async fn a_node_has_one_process(world: &dyn World) {
    let (ours, theirs) = (world.process(), world.process());
    claimed(&*ours, &log("a")).await;
    ours.create(&log("b"), meta("b")).await.unwrap();
    let taken = theirs.claim(&log("b"), &node("main")).await;
    assert!(matches!(taken, Err(ClaimError::NodeTaken { .. })), "{taken:?}");
}

async fn an_input_is_queued_once(world: &dyn World) {
    let (owner, client) = (world.process(), world.process());
    let fence = claimed(&*owner, &log("a")).await;
    assert_eq!(client.submit(&log("a"), &input("x")).await.unwrap(), Submitted::Queued);
    assert_eq!(client.submit(&log("a"), &input("x")).await.unwrap(), Submitted::Already);
    assert_eq!(owner.pending(&log("a")).await.unwrap(), [input("x")]);
    let take = Batch { events: vec![event("x")], takes: vec![id("x")], ..Batch::default() };
    owner.append(&fence, Expect::Any, take).await.unwrap();
    assert_eq!(client.submit(&log("a"), &input("x")).await.unwrap(), Submitted::Already);
    assert_eq!(client.pending(&log("a")).await.unwrap(), []);
    // The same id in another log is another input.
    client.create(&log("b"), meta("b")).await.unwrap();
    assert_eq!(client.submit(&log("b"), &input("x")).await.unwrap(), Submitted::Queued);
}

async fn inputs_are_taken_up_in_the_batch_that_says_so(world: &dyn World) {
    let store = world.process();
    let fence = claimed(&*store, &log("a")).await;
    for name in ["c", "a", "b"] {
        store.submit(&log("a"), &input(name)).await.unwrap();
    }
    let waiting = store.pending(&log("a")).await.unwrap();
    assert_eq!(waiting, [input("c"), input("a"), input("b")], "oldest first");
    let take = |takes: &[&str]| Batch {
        events: vec![event("taken")],
        takes: takes.iter().map(|name| id(name)).collect(),
        ..Batch::default()
    };
    store.append(&fence, Expect::Any, take(&["c", "b"])).await.unwrap();
    assert_eq!(store.pending(&log("a")).await.unwrap(), [input("a")]);
    for again in [&["c"][..], &["a", "a"]] {
        let refused = store.append(&fence, Expect::Any, take(again)).await;
        assert!(matches!(refused, Err(AppendError::NotQueued { .. })), "{again:?}: {refused:?}");
    }
    assert_eq!(store.pending(&log("a")).await.unwrap(), [input("a")]);
    assert_eq!(read_all(&*store, &log("a")).await.len(), 1);
}

async fn a_queue_has_an_end(world: &dyn World) {
    let store = world.process();
    store.create(&log("a"), meta("a")).await.unwrap();
    let waiting: Vec<_> = (0..limits::QUEUE_INPUTS).map(|n| input(&n.to_string())).collect();
    let mut submits = tokio::task::JoinSet::new();
    for input in waiting {
        let store = store.clone();
        submits.spawn(async move { store.submit(&log("a"), &input).await.unwrap() });
    }
    assert!(submits.join_all().await.iter().all(|submitted| *submitted == Submitted::Queued));
    let refused = store.submit(&log("a"), &input("more")).await;
    assert!(matches!(refused, Err(StoreError::QueueFull { waiting: 1_000, .. })), "{refused:?}");
    assert_eq!(store.submit(&log("a"), &input("7")).await.unwrap(), Submitted::Already);
}

async fn what_does_not_fit_is_refused(world: &dyn World) {
    let store = world.process();
    let fence = claimed(&*store, &log("a")).await;
    let with_body = |body: &str| {
        let mut event = event("x");
        event.body = body.to_owned();
        Batch::events(vec![event])
    };
    let with_kind = |kind: &str| {
        let mut event = event("x");
        event.kind = kind.to_owned();
        Batch::events(vec![event])
    };
    let with_state = |word: &str, summary: &str| Batch {
        state: Some(LogState { word: word.to_owned(), summary: summary.to_owned() }),
        ..batch(&["x"])
    };
    let large = format!("\"{}\"", "x".repeat(limits::EVENT_BYTES));
    let cases = [
        ("not JSON", with_body("{"), "InvalidBatch"),
        ("two values", with_body("{}{}"), "InvalidBatch"),
        ("space around", with_body(" {}\n"), "InvalidBatch"),
        ("empty", with_body(""), "InvalidBatch"),
        ("large", with_body(&large), "Store(TooLarge"),
        ("no name", with_kind(""), "InvalidBatch"),
        ("long name", with_kind(&"k".repeat(200)), "InvalidBatch"),
        ("many", Batch::events(vec![event("x"); limits::BATCH_EVENTS + 1]), "InvalidBatch"),
        ("a take without an event", Batch { takes: vec![id("x")], ..Batch::default() }, "InvalidBatch"),
        ("a state without a word", with_state("", "{}"), "InvalidBatch"),
        ("a word that is none", with_state("at rest", "{}"), "InvalidBatch"),
        ("a state that is not JSON", with_state("idle", "{"), "InvalidBatch"),
        ("a large state", with_state("idle", &"1".repeat(limits::STATE_BYTES + 1)), "Store(TooLarge"),
    ];
    for (name, batch, expected) in cases {
        let refused = store.append(&fence, Expect::Any, batch).await.unwrap_err();
        assert!(format!("{refused:?}").starts_with(expected), "{name}: {refused:?}");
    }
    let title = store.create(&log("b"), meta(&"t".repeat(limits::META_BYTES))).await;
    assert!(matches!(title, Err(StoreError::TooLarge { .. })), "{title:?}");
    let blob = store.put_blob(&vec![0; limits::BLOB_BYTES + 1]).await;
    assert!(matches!(blob, Err(StoreError::TooLarge { .. })), "{blob:?}");
    assert_eq!(read_all(&*store, &log("a")).await.len(), 0);
}

async fn reading_goes_by_pages(world: &dyn World) {
    let store = world.process();
    let fence = claimed(&*store, &log("a")).await;
    append_each(&*store, &fence, 1..=5).await;
    let cases: [(u64, u32, &[&str]); 5] =
        [(0, 2, &["1", "2"]), (2, 2, &["3", "4"]), (4, 2, &["5"]), (5, 2, &[]), (u64::MAX, 2, &[])];
    for (after, limit, expected) in cases {
        let page = store.read(&log("a"), after, limit).await.unwrap();
        assert_eq!(names(&page), expected, "after {after}");
    }
    // A page has a size, too; what is left out comes with the next.
    let large = format!("\"{}\"", "x".repeat(limits::PAGE_BYTES / 3));
    for _ in 0..4 {
        let mut event = event("large");
        event.body = large.clone();
        store.append(&fence, Expect::Any, Batch::events(vec![event])).await.unwrap();
    }
    assert_eq!(store.read(&log("a"), 5, 100).await.unwrap().len(), 3);
    assert_eq!(read_all(&*store, &log("a")).await.len(), 9);
}

async fn logs_are_listed_newest_first(world: &dyn World) {
    let store = world.process();
    let full = LogMeta {
        title: "a session of r \u{1f980}".to_owned(),
        parent: Some(run_log("r")),
        labels: BTreeMap::from([("repository".to_owned(), "/src/x".to_owned())]),
    };
    let made: [(LogId, LogMeta); 4] =
        [(run_log("r"), meta("run")), (log("a"), full.clone()), (log("b"), meta("alone")), (log("c"), full.clone())];
    for (log, meta) in &made {
        store.create(log, meta.clone()).await.unwrap();
    }
    let filter = LogFilter::default;
    let cases = [
        (filter(), "sesn_c sesn_b sesn_a run_r"),
        (LogFilter { limit: 2, ..filter() }, "sesn_c sesn_b"),
        (LogFilter { before: Some(log("b")), ..filter() }, "sesn_a run_r"),
        (LogFilter { kind: Some(LogKind::Run), ..filter() }, "run_r"),
        (LogFilter { parent: Some(run_log("r")), ..filter() }, "sesn_c sesn_a"),
        (LogFilter { parent: Some(run_log("r")), before: Some(log("c")), ..filter() }, "sesn_a"),
        (LogFilter { parent: Some(run_log("r")), kind: Some(LogKind::Run), ..filter() }, ""),
        (LogFilter { limit: 0, ..filter() }, ""),
    ];
    for (filter, expected) in cases {
        let found = store.logs(&filter).await.unwrap();
        let found: Vec<_> = found.iter().map(|summary| summary.log.as_str()).collect();
        assert_eq!(found.join(" "), expected, "{filter:?}");
    }
    assert_eq!(store.log(&log("c")).await.unwrap().unwrap().meta, full);
}

async fn blobs_are_kept_under_their_hash(world: &dyn World) {
    let (ours, theirs) = (world.process(), world.process());
    for bytes in [&b""[..], b"hello", &[0, 255, 10].repeat(100_000)] {
        let hash = ours.put_blob(bytes).await.unwrap();
        assert_eq!(hash, BlobHash::of(bytes));
        assert_eq!(theirs.put_blob(bytes).await.unwrap(), hash);
        assert_eq!(theirs.get_blob(&hash).await.unwrap().as_deref(), Some(bytes));
    }
    assert_eq!(ours.get_blob(&BlobHash::of(b"never kept")).await.unwrap(), None);
}

async fn unknown_logs_are_named(world: &dyn World) {
    let store = world.process();
    let fence = claimed(&*world.process(), &log("a")).await;
    let unknown = log("unknown");
    let answers = [
        store.submit(&unknown, &input("x")).await.err(),
        store.pending(&unknown).await.err(),
        store.read(&unknown, 0, 1).await.err(),
        store.logs(&LogFilter { before: Some(unknown.clone()), ..LogFilter::default() }).await.err(),
        store.ready(Some(&unknown), 1).await.err(),
        match store.claim(&unknown, &node("main")).await {
            Err(ClaimError::Store(error)) => Some(error),
            other => panic!("{other:?}"),
        },
    ];
    for answer in answers {
        assert!(matches!(&answer, Some(StoreError::UnknownLog { log }) if *log == unknown), "{answer:?}");
    }
    drop(fence);
}

async fn a_hold_and_its_event_are_one(world: &dyn World) {
    let (ours, theirs) = (world.process(), world.process());
    let fence = claimed(&*ours, &log("a")).await;
    let spend = |events: &[&str], ledger| Batch { ledger, ..batch(events) };
    ours.append(&fence, Expect::Any, spend(&["1"], vec![limit(100), opened("x", 60)])).await.unwrap();
    let standing = theirs.standing(&[purse(), "run:run_other".parse().unwrap()]).await.unwrap();
    assert_eq!(standing[0].limits, amount(100));
    assert_eq!(standing[0].sums[&unit()], Purse { held: 60, ..Purse::default() });
    assert!(standing[1].sums.is_empty() && standing[1].limits.is_empty());
    let open = theirs.holds(None).await.unwrap();
    assert_eq!(
        (open.len(), open[0].log.clone(), open[0].node.clone(), open[0].alive),
        (1, log("a"), node("main"), true)
    );
    assert_eq!(opened("x", 60), LedgerOp::Open { hold: open[0].hold.clone() });
    assert!(theirs.holds(Some(&log("b"))).await.unwrap().is_empty());

    // The same again is the same, closed or not; and books may change without an event.
    ours.append(&fence, Expect::Any, spend(&["2"], vec![opened("x", 60), closed("x", 20)])).await.unwrap();
    ours.append(&fence, Expect::Head(2), spend(&[], vec![closed("x", 50), opened("x", 60)])).await.unwrap();
    let sum = Purse { at_least: 10, at_most: 20, held: 0 };
    assert_eq!(theirs.standing(&[purse()]).await.unwrap()[0].sums[&unit()], sum);
    assert!(theirs.holds(Some(&log("a"))).await.unwrap().is_empty());
    assert_eq!(names(&read_all(&*theirs, &log("a")).await), ["1", "2"]);
}

async fn a_refused_hold_refuses_its_batch(world: &dyn World) {
    let store = world.process();
    let fence = claimed(&*store, &log("a")).await;
    store.submit(&log("a"), &input("in")).await.unwrap();
    let spend = |ledger| Batch { takes: vec![id("in")], ledger, ..batch(&["in"]) };
    let refused = store.append(&fence, Expect::Any, spend(vec![limit(100), opened("x", 60), opened("y", 60)])).await;
    let Err(AppendError::Refused(refusal)) = refused else { panic!("{refused:?}") };
    assert!(matches!(*refusal, Refusal::Held { held: 60, needed: 60, limit: 100, .. }), "{refusal}");
    assert!(read_all(&*store, &log("a")).await.is_empty());
    assert_eq!(store.pending(&log("a")).await.unwrap(), [input("in")]);
    let standing = store.standing(&[purse()]).await.unwrap();
    assert!(standing[0].sums.values().all(|sum| *sum == Purse::default()) && standing[0].limits.is_empty());
    assert!(store.holds(None).await.unwrap().is_empty());
    store.append(&fence, Expect::Head(0), spend(vec![limit(100), opened("x", 60)])).await.unwrap();
    // Whoever holds the log no longer changes nothing in the books either.
    store.release(fence.clone()).await.unwrap();
    let fenced = store.append(&fence, Expect::Any, spend(vec![closed("x", 1)])).await;
    assert!(matches!(fenced, Err(AppendError::Fenced { .. })), "{fenced:?}");
    assert_eq!(store.holds(None).await.unwrap().len(), 1);
}

async fn the_holds_of_the_dead_are_known_and_closed_by_whoever_takes_over(world: &dyn World) {
    let (ours, theirs) = (world.process(), world.process());
    let fence = claimed(&*ours, &log("a")).await;
    ours.append(&fence, Expect::Any, Batch { ledger: vec![opened("x", 60)], ..batch(&["1"]) }).await.unwrap();
    drop(ours);
    let left = theirs.holds(None).await.unwrap();
    assert_eq!((left.len(), left[0].alive), (1, false));
    let claim = theirs.claim(&log("a"), &node("next")).await.unwrap();
    let assume = LedgerOp::Assume { attempt: left[0].hold.attempt.clone() };
    theirs.append(&claim.fence, Expect::Head(1), Batch { ledger: vec![assume], ..batch(&["2"]) }).await.unwrap();
    let sum = Purse { at_least: 0, at_most: 60, held: 0 };
    assert_eq!(theirs.standing(&[purse()]).await.unwrap()[0].sums[&unit()], sum);
}

async fn the_last_dollar_is_taken_once(world: &dyn World) {
    let processes = [world.process(), world.process()];
    let fence = claimed(&*processes[0], &log("limits")).await;
    processes[0].append(&fence, Expect::Any, Batch { ledger: vec![limit(100)], ..batch(&["1"]) }).await.unwrap();
    let mut tries = tokio::task::JoinSet::new();
    for number in 0..40usize {
        let store = processes[number % 2].clone();
        tries.spawn(async move {
            let name = format!("t{number}");
            store.create(&log(&name), meta("a log")).await.unwrap();
            let fence = store.claim(&log(&name), &node(&format!("n{}", number % 2))).await.unwrap().fence;
            let spend = Batch { ledger: vec![opened(&name, 7)], ..batch(&["1"]) };
            match store.append(&fence, Expect::Any, spend).await {
                Ok(_) => 7,
                Err(AppendError::Refused(_)) => 0,
                Err(error) => panic!("{error}"),
            }
        });
    }
    let taken: u64 = tries.join_all().await.into_iter().sum();
    assert_eq!(taken, 98, "as often as it fits, and no more");
    assert_eq!(processes[1].standing(&[purse()]).await.unwrap()[0].sums[&unit()].held, 98);
}

async fn a_logs_state_is_written_with_its_events(world: &dyn World) {
    let (ours, theirs) = (world.process(), world.process());
    let fence = claimed(&*ours, &log("a")).await;
    let seen = async || theirs.log(&log("a")).await.unwrap().unwrap().state;
    assert_eq!(seen().await, None, "nobody has said it");
    ours.append(&fence, Expect::Any, Batch { state: Some(state("running")), ..batch(&["1"]) }).await.unwrap();
    assert_eq!(seen().await, Some(state("running")));
    ours.append(&fence, Expect::Any, batch(&["2"])).await.unwrap();
    assert_eq!(seen().await, Some(state("running")), "it stays until something else is said");
    let refused = ours.append(&fence, Expect::Head(0), Batch { state: Some(state("idle")), ..batch(&["x"]) }).await;
    assert!(matches!(refused, Err(AppendError::HeadMoved { .. })), "{refused:?}");
    assert_eq!(seen().await, Some(state("running")), "all or nothing");
    // It may be said without an event, as by who has read an old log.
    let before = theirs.log(&log("a")).await.unwrap().unwrap();
    ours.append(&fence, Expect::Head(2), Batch { state: Some(state("idle")), ..Batch::default() }).await.unwrap();
    let after = theirs.log(&log("a")).await.unwrap().unwrap();
    assert_eq!(after, LogSummary { state: Some(state("idle")), ..before });
    ours.release(fence.clone()).await.unwrap();
    let fenced = ours.append(&fence, Expect::Any, Batch { state: Some(state("running")), ..Batch::default() }).await;
    assert!(matches!(fenced, Err(AppendError::Fenced { .. })), "{fenced:?}");
    assert_eq!(seen().await, Some(state("idle")));
    verify(&*theirs, &log("a")).await.unwrap();
}

/// Makes a log whose state has this word, and gives it back.
async fn made(store: &dyn Store, log: &LogId, word: &str) {
    let fence = claimed(store, log).await;
    store.append(&fence, Expect::Any, Batch { state: Some(state(word)), ..batch(&["1"]) }).await.unwrap();
    store.release(fence).await.unwrap();
}

fn listed(found: &[LogSummary]) -> String {
    found.iter().map(|summary| summary.log.as_str()).collect::<Vec<_>>().join(" ")
}

async fn logs_are_listed_by_their_states(world: &dyn World) {
    let store = world.process();
    for (name, word) in [("a", "idle"), ("b", "running"), ("c", "idle"), ("d", "terminated")] {
        made(&*store, &log(name), word).await;
    }
    store.create(&log("e"), meta("nobody has said what it does")).await.unwrap();
    made(&*store, &run_log("r"), "idle").await;
    let of = |words: &[&str]| LogFilter {
        states: words.iter().map(|word| (*word).to_owned()).collect(),
        ..LogFilter::default()
    };
    let cases = [
        (of(&[]), "run_r sesn_e sesn_d sesn_c sesn_b sesn_a"),
        (of(&["idle"]), "run_r sesn_c sesn_a"),
        (of(&["running", "idle", "idle"]), "run_r sesn_c sesn_b sesn_a"),
        (of(&["unheard_of"]), ""),
        (LogFilter { kind: Some(LogKind::Session), limit: 2, ..of(&["idle", "terminated"]) }, "sesn_d sesn_c"),
        (LogFilter { before: Some(log("c")), ..of(&["idle", "terminated"]) }, "sesn_a"),
        (LogFilter { limit: 0, ..of(&["idle"]) }, ""),
    ];
    for (filter, expected) in cases {
        assert_eq!(listed(&store.logs(&filter).await.unwrap()), expected, "{filter:?}");
    }
}

async fn what_waits_for_somebody_is_ready(world: &dyn World) {
    let (ours, theirs) = (world.process(), world.process());
    for (name, word) in [("a", "idle"), ("b", "running"), ("c", "idle"), ("d", "idle")] {
        made(&*ours, &log(name), word).await;
    }
    // A run is nobody's session.
    made(&*ours, &run_log("r"), "running").await;
    ours.submit(&log("c"), &input("x")).await.unwrap();
    ours.submit(&log("c"), &input("y")).await.unwrap();
    let ready = async |after: Option<&LogId>, limit| listed(&theirs.ready(after, limit).await.unwrap());
    assert_eq!(ready(None, 10).await, "sesn_b sesn_c");
    assert_eq!(ready(None, 1).await, "sesn_b");
    assert_eq!(ready(Some(&log("b")), 1).await, "sesn_c");
    assert_eq!(ready(Some(&log("c")), 1).await, "");
    assert_eq!(ready(None, 0).await, "");

    // Whoever is alive goes on by himself; of the dead it is known what they left.
    let mortal = world.process();
    let (running, waiting) =
        (claim_as(&*mortal, &log("b"), "mortal").await, claim_as(&*mortal, &log("c"), "mortal").await);
    assert_eq!(ready(None, 10).await, "");
    mortal.append(&running, Expect::Any, Batch { state: Some(state("idle")), ..batch(&["2"]) }).await.unwrap();
    let take = Batch { takes: vec![id("x"), id("y")], state: Some(state("running")), ..batch(&["x", "y"]) };
    mortal.append(&waiting, Expect::Any, take).await.unwrap();
    ours.submit(&log("d"), &input("z")).await.unwrap();
    assert_eq!(ready(None, 10).await, "sesn_d");
    drop(mortal);
    assert_eq!(ready(None, 10).await, "sesn_c sesn_d");
}
