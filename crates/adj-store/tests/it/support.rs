//! What the tests share: small logs, views of a store as other processes have them, and children to kill.

use adj_domain::{
    Amounts, AttemptId, Charge, Content, Event, EventId, Hold, LedgerOp, LogId, NewEvent, PendingInput, PurseKey, Unit,
    event::Input,
};
use adj_store::{
    Batch, Clock, Expect, Fence, LogMeta, LogState, MemoryStore, NewRecord, NodeId, RecordKey, SqliteOptions,
    SqliteStore, Store, system_clock,
};
use std::{
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};
use tempfile::TempDir;

/// Runs each of these functions on every back end.
macro_rules! contract {
    ($($name:ident)*) => {
        mod memory {
            $(#[tokio::test(flavor = "multi_thread")] async fn $name() { super::$name(&crate::support::Memory::new()).await })*
        }
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread")] async fn $name() { super::$name(&crate::support::Sqlite::new()).await })*
        }
    };
}
pub(crate) use contract;

/// A store that several processes may share.
pub trait World {
    /// Returns another process's view.
    fn process(&self) -> Arc<dyn Store>;
}

pub struct Memory(MemoryStore);

impl Memory {
    pub fn new() -> Self {
        Self::with_clock(system_clock())
    }

    pub fn with_clock(clock: Clock) -> Self {
        Self(MemoryStore::with_clock(clock))
    }
}

impl World for Memory {
    fn process(&self) -> Arc<dyn Store> {
        Arc::new(self.0.another_process())
    }
}

pub struct Sqlite(TempDir, Clock);

impl Sqlite {
    pub fn new() -> Self {
        Self::with_clock(system_clock())
    }

    pub fn with_clock(clock: Clock) -> Self {
        Self(tempfile::tempdir().unwrap(), clock)
    }

    pub fn dir(&self) -> &Path {
        self.0.path()
    }
}

impl World for Sqlite {
    fn process(&self) -> Arc<dyn Store> {
        Arc::new(open_at(self.0.path(), Arc::clone(&self.1)))
    }
}

pub fn open(dir: &Path) -> SqliteStore {
    open_at(dir, system_clock())
}

pub fn open_at(dir: &Path, clock: Clock) -> SqliteStore {
    // Other tests keep the disk busy, so the patience is longer than a user's.
    let options = SqliteOptions { clock, patience: Duration::from_secs(60), ..SqliteOptions::default() };
    SqliteStore::open_with(dir, options).unwrap()
}

pub fn log(name: &str) -> LogId {
    format!("sesn_{name}").parse().unwrap()
}

pub fn run_log(name: &str) -> LogId {
    format!("run_{name}").parse().unwrap()
}

pub fn node(name: &str) -> NodeId {
    name.parse().unwrap()
}

pub fn id(name: &str) -> EventId {
    format!("sevt_{name}").parse().unwrap()
}

pub fn event(name: &str) -> NewEvent {
    NewEvent {
        id: id(name),
        kind: "test.happened".to_owned(),
        body: format!(r#"{{"type":"test.happened","name":"{name}"}}"#),
    }
}

pub fn batch(names: &[&str]) -> Batch {
    Batch::events(names.iter().map(|name| event(name)).collect())
}

pub fn input(name: &str) -> PendingInput {
    PendingInput {
        id: id(name),
        input: Input::Message { content: vec![Content::text(format!("do {name}"))], output_schema: None },
    }
}

/// The one purse of these tests, and its one unit.
pub fn purse() -> PurseKey {
    "run:run_1".parse().unwrap()
}

pub fn unit() -> Unit {
    "USD".parse().unwrap()
}

pub fn amount(of: u64) -> Amounts {
    Amounts::default().with(unit(), of)
}

pub fn limit(of: u64) -> LedgerOp {
    LedgerOp::Limit { scope: purse().scope(), unit: unit(), amount: Some(of) }
}

pub fn opened(name: &str, most: u64) -> LedgerOp {
    let attempt = AttemptId::first(id(name));
    LedgerOp::Open { hold: Hold { attempt, purses: vec![purse()], amounts: amount(most), caps: Vec::new(), gap: None } }
}

pub fn closed(name: &str, most: u64) -> LedgerOp {
    let charge = Charge { at_least: amount(most / 2), at_most: amount(most) };
    LedgerOp::Close { attempt: AttemptId::first(id(name)), charge }
}

pub fn meta(title: &str) -> LogMeta {
    LogMeta { title: title.to_owned(), ..LogMeta::default() }
}

pub fn state(word: &str) -> LogState {
    LogState { word: word.to_owned(), summary: format!(r#"{{"is":"{word}"}}"#) }
}

pub fn agent(id: &str) -> RecordKey {
    RecordKey::new("agents", id)
}

/// An agent that bears its id as its name.
pub fn new_agent(id: &str) -> NewRecord {
    NewRecord { key: agent(id), name: Some(id.to_owned()), parent: None, body: format!(r#"{{"is":"{id}"}}"#) }
}

/// Makes a log and claims it.
pub async fn claimed(store: &dyn Store, log: &LogId) -> Fence {
    store.create(log, meta("a log")).await.unwrap();
    claim_as(store, log, "main").await
}

pub async fn claim_as(store: &dyn Store, log: &LogId, name: &str) -> Fence {
    store.claim(log, &node(name)).await.unwrap().fence
}

/// Appends events one by one, named by their numbers.
pub async fn append_each(store: &dyn Store, fence: &Fence, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        let name = number.to_string();
        store.append(fence, Expect::Head(number - 1), batch(&[&name])).await.unwrap();
    }
}

pub async fn read_all(store: &dyn Store, log: &LogId) -> Vec<Event> {
    let mut events: Vec<Event> = Vec::new();
    loop {
        let after = events.last().map_or(0, |event| event.seq);
        let page = store.read(log, after, 1_000).await.unwrap();
        if page.is_empty() {
            return events;
        }
        events.extend(page);
    }
}

pub fn names(events: &[Event]) -> Vec<String> {
    events.iter().map(|event| event.id.as_str().trim_start_matches("sevt_").to_owned()).collect()
}

/// The variable that tells a re-executed test which directory to work on; without it the test is not a child.
pub const CHILD_DIR: &str = "STORE_TEST_CHILD_DIR";

/// Returns the command that runs the ignored test `name` of this binary as a child working on `dir`.
pub fn child(name: &str, dir: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    as_child(&mut command, name, dir);
    command
}

/// Returns the same behind a shell script that ends in `exec "$@"`.
pub fn child_behind(script: &str, name: &str, dir: &Path) -> Command {
    let mut command = Command::new("sh");
    command.args(["-ec", script, "sh"]).arg(std::env::current_exe().unwrap());
    as_child(&mut command, name, dir);
    command
}

fn as_child(command: &mut Command, name: &str, dir: &Path) {
    command
        .args(["--exact", name, "--ignored", "--nocapture", "--test-threads=1"])
        .env(CHILD_DIR, dir)
        .stdin(Stdio::null());
}

/// Returns the directory that this process was started for, when it is a child.
pub fn child_dir() -> Option<std::path::PathBuf> {
    std::env::var_os(CHILD_DIR).map(Into::into)
}

/// Says something to the parent, at once.
pub fn tell(line: &str) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n@{line}").and_then(|()| out.flush()).unwrap();
}

/// Returns what a child told, out of everything it printed.
pub fn told(output: &str) -> Vec<&str> {
    output.lines().filter_map(|line| line.strip_prefix('@')).collect()
}

pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}
