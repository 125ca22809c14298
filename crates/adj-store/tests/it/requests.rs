//! The contract of `Requests`, for every back end.

use crate::support::*;
use adj_domain::{BlobHash, Timestamp};
use adj_store::{Clock, Remembered, RequestKey, StoreError, limits, requests::REMEMBERED};
use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

contract! {
    a_request_is_new_once
    requests_that_do_not_fit_are_refused
    one_of_many_is_the_first
}

fn named(key: &str) -> RequestKey {
    RequestKey::new("token_1 POST /v1/agents", key)
}

fn same(known: Remembered) -> Option<String> {
    match known {
        Remembered::Same { answer, .. } => answer,
        other => panic!("{other:?}"),
    }
}

async fn a_request_is_new_once(world: &dyn World) {
    let (ours, theirs) = (world.process(), world.process());
    let (hash, other) = (BlobHash::of(b"one"), BlobHash::of(b"two"));
    assert_eq!(ours.requests().remember(&named("k"), &hash).await.unwrap(), Remembered::New);
    assert_eq!(same(theirs.requests().remember(&named("k"), &hash).await.unwrap()), None, "under way");
    assert_eq!(theirs.requests().remember(&named("k"), &other).await.unwrap(), Remembered::Different);
    assert!(ours.requests().answer(&named("k"), r#"{"id":1}"#).await.unwrap());
    assert!(!theirs.requests().answer(&named("k"), r#"{"id":2}"#).await.unwrap(), "it has its answer");
    let answer = same(theirs.requests().remember(&named("k"), &hash).await.unwrap());
    assert_eq!(answer.as_deref(), Some(r#"{"id":1}"#));
    assert_eq!(theirs.requests().remember(&named("k"), &other).await.unwrap(), Remembered::Different);

    // The same name in another scope is another request; and nobody answers what nobody has asked.
    let elsewhere = RequestKey::new("token_2 POST /v1/agents", "k");
    assert!(!ours.requests().answer(&elsewhere, "{}").await.unwrap());
    assert_eq!(ours.requests().remember(&elsewhere, &other).await.unwrap(), Remembered::New);

    ours.requests().forget(&named("k")).await.unwrap();
    ours.requests().forget(&named("k")).await.unwrap();
    assert_eq!(theirs.requests().remember(&named("k"), &other).await.unwrap(), Remembered::New);
}

async fn requests_that_do_not_fit_are_refused(world: &dyn World) {
    let store = world.process();
    let (hash, long) = (BlobHash::of(b"one"), "x".repeat(limits::REQUEST_KEY_BYTES + 1));
    for key in [named(&long), RequestKey::new(&long, "k")] {
        let refused = store.requests().remember(&key, &hash).await;
        assert!(matches!(refused, Err(StoreError::TooLarge { .. })), "{refused:?}");
    }
    store.requests().remember(&named("k"), &hash).await.unwrap();
    let refused = store.requests().answer(&named("k"), &"1".repeat(limits::ANSWER_BYTES + 1)).await;
    assert!(matches!(refused, Err(StoreError::TooLarge { .. })), "{refused:?}");
    assert_eq!(same(store.requests().remember(&named("k"), &hash).await.unwrap()), None);
}

async fn one_of_many_is_the_first(world: &dyn World) {
    let processes = [world.process(), world.process()];
    let mut askers = tokio::task::JoinSet::new();
    for number in 0..20usize {
        let store = Arc::clone(&processes[number % 2]);
        askers.spawn(async move { store.requests().remember(&named("k"), &BlobHash::of(b"one")).await.unwrap() });
    }
    let first = askers.join_all().await.into_iter().filter(|known| *known == Remembered::New).count();
    assert_eq!(first, 1);
}

#[tokio::test]
async fn a_request_is_remembered_for_a_day() {
    let time = Arc::new(AtomicI64::new(1_700_000_000_000));
    let at = Arc::clone(&time);
    let clock: Clock = Arc::new(move || Timestamp::from_millisecond(at.load(Ordering::SeqCst)).unwrap());
    let (memory, sqlite) = (Memory::with_clock(Arc::clone(&clock)), Sqlite::with_clock(clock));
    let (first, other) = (BlobHash::of(b"one"), BlobHash::of(b"two"));
    let day = REMEMBERED.as_millis() as i64;
    let rows = || -> i64 {
        let raw = rusqlite::Connection::open(sqlite.dir().join("journal.db")).unwrap();
        raw.query_row("SELECT count(*) FROM requests", [], |row| row.get(0)).unwrap()
    };
    let stores = [memory.process(), sqlite.process()];
    for store in &stores {
        let requests = store.requests();
        for name in ["a", "b", "c", "d", "e", "f", "g"] {
            assert_eq!(requests.remember(&named(name), &first).await.unwrap(), Remembered::New);
            requests.answer(&named(name), "1").await.unwrap();
        }
    }
    time.fetch_add(day - 1, Ordering::SeqCst);
    for store in &stores {
        assert_eq!(store.requests().remember(&named("a"), &other).await.unwrap(), Remembered::Different);
    }
    assert_eq!(rows(), 7);
    time.fetch_add(1, Ordering::SeqCst);
    for store in &stores {
        assert!(!store.requests().answer(&named("b"), "2").await.unwrap());
        assert_eq!(store.requests().remember(&named("a"), &other).await.unwrap(), Remembered::New);
        assert_eq!(same(store.requests().remember(&named("a"), &other).await.unwrap()), None, "the old answer is gone");
    }
    assert_eq!(rows(), 3, "each that is new takes four of the old with it");
}
