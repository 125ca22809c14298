//! The contract of `Records`, for every back end, and a plain map that says the same.

use crate::support::*;
use adj_domain::Timestamp;
use adj_store::{
    Clock, InsertError, NewRecord, Order, Record, RecordFilter, RecordKey, RecordPage, ReplaceError, Replacement,
    Store, StoreError, limits,
};
use proptest::prelude::*;
use std::{
    collections::BTreeMap,
    ops::{Bound, RangeBounds},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

contract! {
    a_record_is_made_once
    every_version_is_kept
    a_version_that_was_not_seen_is_not_written_over
    a_name_is_borne_by_one_that_is_in_use
    an_archived_record_stays_as_it_is
    a_deleted_record_leaves_nothing
    records_are_listed_by_pages
    records_that_do_not_fit_are_refused
    many_writers_make_one_line_of_versions
}

fn becomes(id: &str, expected: Option<u64>, body: &str) -> Replacement {
    Replacement { key: agent(id), expected, name: Some(id.to_owned()), body: body.to_owned() }
}

async fn a_record_is_made_once(world: &dyn World) {
    let (ours, theirs) = (world.process(), world.process());
    let new = NewRecord { parent: Some("team_1".to_owned()), ..new_agent("a") };
    let made = ours.records().insert(new.clone()).await.unwrap();
    assert_eq!((made.version, made.name.as_deref(), made.parent.as_deref()), (1, Some("a"), Some("team_1")));
    assert_eq!((&made.body, made.archived_at), (&new.body, None));
    assert_eq!(theirs.records().get(&agent("a")).await.unwrap(), Some(made.clone()));
    let again = theirs.records().insert(new).await;
    assert!(matches!(&again, Err(InsertError::Exists { key }) if *key == agent("a")), "{again:?}");
    // The same id in another collection is another record, and so is the same name.
    let other = NewRecord { key: RecordKey::new("environments", "a"), ..new_agent("a") };
    assert!(theirs.records().insert(other).await.unwrap().position > made.position);
    assert_eq!(theirs.records().get(&agent("b")).await.unwrap(), None);
}

async fn every_version_is_kept(world: &dyn World) {
    let store = world.process();
    let records = store.records();
    let first = records.insert(new_agent("a")).await.unwrap();
    let same = records.replace(becomes("a", None, &first.body)).await.unwrap();
    assert_eq!(same, first, "what changes nothing writes nothing");
    let second = records.replace(becomes("a", Some(1), "[2]")).await.unwrap();
    let renamed = Replacement { name: None, ..becomes("a", None, "[2]") };
    let third = records.replace(renamed).await.unwrap();
    assert_eq!((second.version, third.version), (2, 3));
    assert_eq!((third.created_at, third.position), (first.created_at, first.position));
    assert!(third.updated_at >= second.updated_at && second.updated_at >= first.updated_at);

    let records = world.process();
    let records = records.records();
    assert_eq!(records.get(&agent("a")).await.unwrap(), Some(third.clone()));
    for version in [&first, &second, &third] {
        assert_eq!(records.get_version(&agent("a"), version.version).await.unwrap().as_ref(), Some(version));
    }
    for unknown in [0, 4, u64::MAX] {
        assert_eq!(records.get_version(&agent("a"), unknown).await.unwrap(), None);
    }
    let page = |records: &[&Record], has_more| RecordPage {
        records: records.iter().map(|record| (*record).clone()).collect(),
        has_more,
    };
    let cases = [
        (None, 10, page(&[&third, &second, &first], false)),
        (None, 2, page(&[&third, &second], true)),
        (Some(2), 2, page(&[&first], false)),
        (Some(1), 2, page(&[], false)),
        (None, 0, page(&[], true)),
    ];
    for (before, limit, expected) in cases {
        assert_eq!(records.versions(&agent("a"), before, limit).await.unwrap(), expected, "{before:?}, {limit}");
    }
    assert_eq!(records.versions(&agent("unknown"), None, 10).await.unwrap(), page(&[], false));
}

async fn a_version_that_was_not_seen_is_not_written_over(world: &dyn World) {
    let store = world.process();
    let records = store.records();
    records.insert(new_agent("a")).await.unwrap();
    records.replace(becomes("a", Some(1), "[2]")).await.unwrap();
    for (expected, body) in [(1, "[3]"), (7, "[3]"), (1, "[2]")] {
        let refused = records.replace(becomes("a", Some(expected), body)).await;
        assert!(matches!(refused, Err(ReplaceError::Conflict { version: 2, .. })), "{expected}: {refused:?}");
    }
    assert_eq!(records.get(&agent("a")).await.unwrap().unwrap().body, "[2]");
    let missing = records.replace(becomes("b", None, "[3]")).await;
    assert!(matches!(&missing, Err(ReplaceError::Missing { key }) if *key == agent("b")), "{missing:?}");
}

async fn a_name_is_borne_by_one_that_is_in_use(world: &dyn World) {
    let store = world.process();
    let records = store.records();
    let named = |id: &str, name: Option<&str>| NewRecord { name: name.map(str::to_owned), ..new_agent(id) };
    for nameless in ["x", "y"] {
        records.insert(named(nameless, None)).await.unwrap();
    }
    records.insert(named("a", Some("one"))).await.unwrap();
    records.insert(named("b", Some("two"))).await.unwrap();
    let taken = records.insert(named("c", Some("one"))).await;
    assert!(matches!(&taken, Err(InsertError::NameTaken { name, .. }) if name == "one"), "{taken:?}");
    let rename =
        |id: &str, name: &str| Replacement { name: Some(name.to_owned()), ..becomes(id, None, "[\"renamed\"]") };
    let taken = records.replace(rename("b", "one")).await;
    assert!(matches!(&taken, Err(ReplaceError::NameTaken { name, .. }) if name == "one"), "{taken:?}");
    records.replace(rename("b", "two")).await.unwrap();
    // A name is free as soon as nobody in use bears it: given up, archived or gone.
    records.replace(rename("a", "three")).await.unwrap();
    records.replace(rename("b", "one")).await.unwrap();
    records.archive(&agent("b")).await.unwrap();
    records.insert(named("c", Some("one"))).await.unwrap();
    records.delete(&agent("c")).await.unwrap();
    records.insert(named("d", Some("one"))).await.unwrap();
}

async fn an_archived_record_stays_as_it_is(world: &dyn World) {
    let (ours, theirs) = (world.process(), world.process());
    let made = ours.records().insert(new_agent("a")).await.unwrap();
    let archived = ours.records().archive(&agent("a")).await.unwrap().unwrap();
    assert!(archived.archived_at.unwrap() >= made.updated_at);
    assert_eq!(Record { archived_at: None, ..archived.clone() }, made);
    assert_eq!(theirs.records().archive(&agent("a")).await.unwrap(), Some(archived.clone()), "once is enough");
    assert_eq!(theirs.records().get_version(&agent("a"), 1).await.unwrap(), Some(archived.clone()));
    for body in ["[2]", archived.body.as_str()] {
        let refused = theirs.records().replace(becomes("a", None, body)).await;
        assert!(matches!(refused, Err(ReplaceError::Archived { .. })), "{refused:?}");
    }
    assert_eq!(theirs.records().archive(&agent("b")).await.unwrap(), None);
}

async fn a_deleted_record_leaves_nothing(world: &dyn World) {
    let store = world.process();
    let records = store.records();
    let first = records.insert(new_agent("a")).await.unwrap();
    records.replace(becomes("a", None, "[2]")).await.unwrap();
    assert!(records.delete(&agent("a")).await.unwrap());
    assert!(!records.delete(&agent("a")).await.unwrap());
    assert_eq!(records.get(&agent("a")).await.unwrap(), None);
    assert_eq!(records.get_version(&agent("a"), 1).await.unwrap(), None);
    assert!(records.versions(&agent("a"), None, 10).await.unwrap().records.is_empty());
    assert!(records.list(&RecordFilter::of("agents")).await.unwrap().records.is_empty());
    let next = records.insert(new_agent("a")).await.unwrap();
    assert_eq!(next.version, 1);
    assert!(next.position > first.position, "a place is never given twice");
}

async fn records_are_listed_by_pages(world: &dyn World) {
    let store = world.process();
    let records = store.records();
    for (id, parent) in [("a", None), ("b", Some("p")), ("c", Some("p")), ("d", None), ("e", Some("q"))] {
        let new = NewRecord { parent: parent.map(str::to_owned), ..new_agent(id) };
        records.insert(new).await.unwrap();
    }
    records.insert(NewRecord { key: RecordKey::new("other", "x"), ..new_agent("x") }).await.unwrap();
    records.replace(becomes("a", None, "[2]")).await.unwrap();
    records.archive(&agent("c")).await.unwrap();
    let of = || RecordFilter::of("agents");
    let oldest = || RecordFilter { order: Order::OldestFirst, ..of() };
    let child_of = |parent: &str| RecordFilter { parent: Some(parent.to_owned()), ..of() };
    let at = async |id: &str| Some(records.get(&agent(id)).await.unwrap().unwrap().position);
    let cases = [
        (of(), "e d b a"),
        (oldest(), "a b d e"),
        (RecordFilter { include_archived: true, ..of() }, "e d c b a"),
        (RecordFilter { limit: 2, ..of() }, "e d …"),
        (RecordFilter { limit: 2, after: at("d").await, ..of() }, "b a"),
        (RecordFilter { limit: 1, after: at("c").await, ..of() }, "b …"),
        (RecordFilter { limit: 2, after: at("b").await, ..oldest() }, "d e"),
        (RecordFilter { after: at("a").await, ..of() }, ""),
        (RecordFilter { after: at("e").await, ..oldest() }, ""),
        (RecordFilter { after: Some(u64::MAX), ..oldest() }, ""),
        (child_of("p"), "b"),
        (RecordFilter { include_archived: true, ..child_of("p") }, "c b"),
        (child_of("nobody"), ""),
        (RecordFilter { limit: 0, ..of() }, "…"),
        (RecordFilter::of("nothing"), ""),
    ];
    for (filter, expected) in cases {
        let page = records.list(&filter).await.unwrap();
        let mut shown: Vec<_> = page.records.iter().map(|record| record.key.id.as_str()).collect();
        shown.extend(page.has_more.then_some("…"));
        assert_eq!(shown.join(" "), expected, "{filter:?}");
    }
    assert_eq!(records.list(&oldest()).await.unwrap().records[0].body, "[2]", "the newest version");

    // A page has a size, too.
    let large = format!("\"{}\"", "x".repeat(limits::PAGE_BYTES / 3));
    for id in ["1", "2", "3", "4"] {
        let key = RecordKey::new("large", id);
        records.insert(NewRecord { key, name: None, parent: None, body: large.clone() }).await.unwrap();
    }
    let page = records.list(&RecordFilter::of("large")).await.unwrap();
    assert_eq!((page.records.len(), page.has_more), (3, true));
}

async fn records_that_do_not_fit_are_refused(world: &dyn World) {
    let store = world.process();
    let records = store.records();
    let with_body = |body: &str| NewRecord { body: body.to_owned(), ..new_agent("a") };
    let with_name = |name: &str| NewRecord { name: Some(name.to_owned()), ..new_agent("a") };
    let at = |collection: &str, id: &str| NewRecord { key: RecordKey::new(collection, id), ..new_agent("a") };
    let long = "x".repeat(limits::RECORD_NAME_BYTES + 1);
    let cases = [
        ("not JSON", with_body("{"), "Invalid"),
        ("two values", with_body("{}{}"), "Invalid"),
        ("empty", with_body(""), "Invalid"),
        ("large", with_body(&format!("\"{}\"", "x".repeat(limits::RECORD_BYTES))), "Store(TooLarge"),
        ("an empty name", with_name(""), "Invalid"),
        ("a long name", with_name(&long), "Store(TooLarge"),
        ("no collection", at("", "a"), "Invalid"),
        ("no id", at("agents", ""), "Invalid"),
        ("a long id", at("agents", &long), "Store(TooLarge"),
        ("a long parent", NewRecord { parent: Some(long.clone()), ..new_agent("a") }, "Store(TooLarge"),
    ];
    for (name, new, expected) in cases {
        let refused = records.insert(new).await.unwrap_err();
        assert!(format!("{refused:?}").starts_with(expected), "{name}: {refused:?}");
    }
    let made = records.insert(new_agent("a")).await.unwrap();
    let refused = records.replace(becomes("a", None, "{")).await;
    assert!(matches!(refused, Err(ReplaceError::Invalid { .. })), "{refused:?}");
    assert_eq!(records.get(&agent("a")).await.unwrap(), Some(made));
}

async fn many_writers_make_one_line_of_versions(world: &dyn World) {
    let processes = [world.process(), world.process()];
    processes[0].records().insert(new_agent("a")).await.unwrap();
    let mut writers = tokio::task::JoinSet::new();
    for number in 0..20usize {
        let store = Arc::clone(&processes[number % 2]);
        writers.spawn(async move {
            let body = format!("[{number}]");
            loop {
                let seen = store.records().get(&agent("a")).await.unwrap().unwrap().version;
                match store.records().replace(becomes("a", Some(seen), &body)).await {
                    Ok(record) => return record.version,
                    Err(ReplaceError::Conflict { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        });
    }
    let mut versions = writers.join_all().await;
    versions.sort_unstable();
    assert_eq!(versions, (2..=21).collect::<Vec<_>>(), "each wrote over what it had seen");
    let kept = processes[1].records().versions(&agent("a"), None, 100).await.unwrap().records;
    assert_eq!(kept.len(), 21);
}

#[derive(Debug, Clone)]
enum Op {
    Insert { key: u8, name: u8, parent: u8, body: u8 },
    Replace { key: u8, expected: Option<u8>, name: u8, body: u8 },
    Archive(u8),
    Delete(u8),
    List { collection: u8, parent: u8, archived: bool, from: u8, to: u8, oldest: bool, after: Option<u8>, limit: u8 },
    Versions { key: u8, before: Option<u8>, limit: u8 },
    TurnClock(i16),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let some = |most: u8| proptest::option::of(0..most);
    let op = prop_oneof![
        4 => (0..6u8, 0..4u8, 0..3u8, 0..3u8)
            .prop_map(|(key, name, parent, body)| Op::Insert { key, name, parent, body }),
        6 => (0..6u8, some(4), 0..4u8, 0..3u8)
            .prop_map(|(key, expected, name, body)| Op::Replace { key, expected, name, body }),
        1 => (0..6u8).prop_map(Op::Archive),
        1 => (0..6u8).prop_map(Op::Delete),
        3 => (0..2u8, 0..3u8, any::<bool>(), any::<u8>(), any::<u8>(), any::<bool>(), some(12), 0..4u8).prop_map(
            |(collection, parent, archived, from, to, oldest, after, limit)| {
                Op::List { collection, parent, archived, from, to, oldest, after, limit }
            }
        ),
        2 => (0..6u8, some(5), 0..4u8).prop_map(|(key, before, limit)| Op::Versions { key, before, limit }),
        2 => (-300..600i16).prop_map(Op::TurnClock),
    ];
    proptest::collection::vec(op, 1..60)
}

const START: i64 = 1_700_000_000_000;

fn key(of: u8) -> RecordKey {
    RecordKey::new(["agents", "files"][usize::from(of % 2)], &(of / 2).to_string())
}

fn text(of: u8) -> Option<String> {
    (of > 0).then(|| of.to_string())
}

/// A moment near those at which things happen, between two that are stored for every other one.
fn bound(of: u8) -> Bound<Timestamp> {
    let nanos = i128::from(START) * 1_000_000 + i128::from(of / 3) * 10_500_000;
    let at = Timestamp::from_nanosecond(nanos).unwrap();
    [Bound::Included(at), Bound::Excluded(at), Bound::Unbounded][usize::from(of % 3)]
}

fn filter(op: &Op) -> Option<RecordFilter> {
    let Op::List { collection, parent, archived, from, to, oldest, after, limit } = *op else { return None };
    Some(RecordFilter {
        collection: key(collection).collection,
        parent: text(parent),
        include_archived: archived,
        created: (bound(from), bound(to)),
        order: if oldest { Order::OldestFirst } else { Order::NewestFirst },
        after: after.map(u64::from),
        limit: u32::from(limit),
    })
}

/// Does it and returns everything that can be seen of the outcome.
async fn seen(store: &dyn Store, op: &Op) -> String {
    let records = store.records();
    match op {
        Op::Insert { key: of, name, parent, body } => {
            let (name, parent, body) = (text(*name), text(*parent), body.to_string());
            format!("{:?}", records.insert(NewRecord { key: key(*of), name, parent, body }).await)
        }
        Op::Replace { key: of, expected, name, body } => {
            let (expected, name, body) = (expected.map(u64::from), text(*name), body.to_string());
            format!("{:?}", records.replace(Replacement { key: key(*of), expected, name, body }).await)
        }
        Op::Archive(of) => format!("{:?}", records.archive(&key(*of)).await),
        Op::Delete(of) => format!("{:?}", records.delete(&key(*of)).await),
        Op::List { .. } => format!("{:?}", records.list(&filter(op).unwrap()).await),
        Op::Versions { key: of, before, limit } => {
            format!("{:?}", records.versions(&key(*of), before.map(u64::from), u32::from(*limit)).await)
        }
        Op::TurnClock(_) => String::new(),
    }
}

/// What the contract says, in the plainest words: every version that there is, by record and number.
#[derive(Default)]
struct Model {
    versions: BTreeMap<(RecordKey, u64), Record>,
    made: u64,
}

impl Model {
    fn newest(&self, key: &RecordKey) -> Option<Record> {
        self.versions.range((key.clone(), 0)..=(key.clone(), u64::MAX)).next_back().map(|(_, record)| record.clone())
    }

    fn bearer(&self, collection: &str, name: &Option<String>) -> Option<RecordKey> {
        let keys = self.versions.keys().map(|(key, _)| key).filter(|key| key.collection == collection);
        let mut newest = keys.filter_map(|key| self.newest(key));
        name.as_ref()?;
        newest.find(|record| record.archived_at.is_none() && record.name == *name).map(|record| record.key)
    }

    fn insert(&mut self, new: NewRecord, now: Timestamp) -> Result<Record, InsertError> {
        let NewRecord { key, name, parent, body } = new;
        if self.newest(&key).is_some() {
            return Err(InsertError::Exists { key });
        }
        if self.bearer(&key.collection, &name).is_some() {
            return Err(InsertError::NameTaken { collection: key.collection, name: name.unwrap() });
        }
        self.made += 1;
        let (version, position) = (1, self.made);
        let (created_at, updated_at, archived_at) = (now, now, None);
        let record = Record { key, version, name, parent, body, created_at, updated_at, archived_at, position };
        self.versions.insert((record.key.clone(), 1), record.clone());
        Ok(record)
    }

    fn replace(&mut self, change: Replacement, now: Timestamp) -> Result<Record, ReplaceError> {
        let Replacement { key, expected, name, body } = change;
        let record = match self.newest(&key) {
            None => return Err(ReplaceError::Missing { key }),
            Some(record) if record.archived_at.is_some() => return Err(ReplaceError::Archived { key }),
            Some(record) if expected.is_some_and(|seen| seen != record.version) => {
                return Err(ReplaceError::Conflict { key, version: record.version });
            }
            Some(record) if record.name == name && record.body == body => return Ok(record),
            Some(record) => record,
        };
        if self.bearer(&key.collection, &name).is_some_and(|other| other != key) {
            return Err(ReplaceError::NameTaken { collection: key.collection, name: name.unwrap() });
        }
        let next = Record { version: record.version + 1, name, body, updated_at: now.max(record.updated_at), ..record };
        self.versions.insert((key, next.version), next.clone());
        Ok(next)
    }

    fn archive(&mut self, key: &RecordKey, now: Timestamp) -> Option<Record> {
        let newest = self.newest(key)?;
        let at = newest.archived_at.unwrap_or(now.max(newest.updated_at));
        for ((of, _), record) in &mut self.versions {
            if of == key {
                record.archived_at = Some(at);
            }
        }
        self.newest(key)
    }

    fn delete(&mut self, key: &RecordKey) -> bool {
        let before = self.versions.len();
        self.versions.retain(|(of, _), _| of != key);
        self.versions.len() < before
    }

    fn list(&self, filter: &RecordFilter) -> RecordPage {
        let mut records: Vec<Record> = self.versions.keys().filter_map(|(key, _)| self.newest(key)).collect();
        records.retain(|record| {
            let is_beyond = match (filter.order, filter.after) {
                (_, None) => true,
                (Order::NewestFirst, Some(after)) => record.position < after,
                (Order::OldestFirst, Some(after)) => record.position > after,
            };
            is_beyond
                && record.key.collection == filter.collection
                && (filter.parent.is_none() || record.parent == filter.parent)
                && (filter.include_archived || record.archived_at.is_none())
                && filter.created.contains(&record.created_at)
        });
        records.sort_by_key(|record| record.position);
        records.dedup();
        if filter.order == Order::NewestFirst {
            records.reverse();
        }
        cut(records, filter.limit as usize)
    }

    fn versions(&self, key: &RecordKey, before: u64, limit: usize) -> RecordPage {
        let versions = self.versions.iter().rev().filter(|((of, version), _)| of == key && *version < before);
        cut(versions.map(|(_, record)| record.clone()).collect(), limit)
    }

    fn seen(&mut self, op: &Op, now: Timestamp) -> String {
        match op {
            Op::Insert { key: of, name, parent, body } => {
                let (name, parent, body) = (text(*name), text(*parent), body.to_string());
                format!("{:?}", self.insert(NewRecord { key: key(*of), name, parent, body }, now))
            }
            Op::Replace { key: of, expected, name, body } => {
                let (expected, name, body) = (expected.map(u64::from), text(*name), body.to_string());
                format!("{:?}", self.replace(Replacement { key: key(*of), expected, name, body }, now))
            }
            Op::Archive(of) => format!("{:?}", ok(self.archive(&key(*of), now))),
            Op::Delete(of) => format!("{:?}", ok(self.delete(&key(*of)))),
            Op::List { .. } => format!("{:?}", ok(self.list(&filter(op).unwrap()))),
            Op::Versions { key: of, before, limit } => {
                let before = before.map_or(u64::MAX, u64::from);
                format!("{:?}", ok(self.versions(&key(*of), before, usize::from(*limit))))
            }
            Op::TurnClock(_) => String::new(),
        }
    }
}

fn ok<T>(value: T) -> Result<T, StoreError> {
    Ok(value)
}

fn cut(mut records: Vec<Record>, limit: usize) -> RecordPage {
    let has_more = records.len() > limit;
    records.truncate(limit);
    RecordPage { records, has_more }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn stores_say_what_a_plain_map_says(ops in ops()) {
        block_on(async {
            let time = Arc::new(AtomicI64::new(START));
            let at = Arc::clone(&time);
            let clock: Clock = Arc::new(move || Timestamp::from_millisecond(at.load(Ordering::SeqCst)).unwrap());
            let (memory, sqlite) = (Memory::with_clock(Arc::clone(&clock)), Sqlite::with_clock(Arc::clone(&clock)));
            let stores = [memory.process(), sqlite.process()];
            let mut model = Model::default();
            for op in &ops {
                if let Op::TurnClock(by) = op {
                    time.fetch_add(i64::from(*by), Ordering::SeqCst);
                }
                let expected = model.seen(op, clock());
                for (name, store) in ["memory", "sqlite"].iter().zip(&stores) {
                    assert_eq!(seen(&**store, op).await, expected, "{name}, {op:?}");
                }
            }
            // And after a restart.
            let whole = RecordFilter { include_archived: true, ..RecordFilter::of("agents") };
            let expected = model.list(&whole);
            for store in [memory.process(), sqlite.process()] {
                assert_eq!(store.records().list(&whole).await.unwrap(), expected);
            }
        });
    }
}
