//! The face of the store in memory.

use crate::{
    error::{AppendError, ClaimError, StoreError},
    limits,
    memory::{records::Shelf, requests::Visitors},
    place::{Tail, place, to_millis},
    records::Records,
    requests::Requests,
    store::{
        Batch, Claim, Clock, Expect, Fence, Holder, LogFilter, LogKind, LogMeta, LogState, LogSummary, NodeId,
        OpenHold, Standing, Store, Submitted, system_clock,
    },
};
use adj_domain::{
    AttemptId, BlobHash, Book, ChainHash, Event, EventId, LedgerOp, LogId, PendingInput, PurseKey, Seq, Timestamp,
};
use async_trait::async_trait;
use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// One process's view of a store in memory. When the last clone of a view is dropped, its nodes are dead.
#[derive(Clone)]
pub struct MemoryStore {
    view: Arc<View>,
}

struct View {
    shared: Arc<Shared>,
    nodes: Mutex<HashSet<NodeId>>,
}

struct Shared {
    clock: Clock,
    state: Mutex<State>,
}

#[derive(Default)]
pub(super) struct State {
    logs: HashMap<LogId, Log>,
    /// In the order in which the logs were made.
    order: Vec<LogId>,
    blobs: HashMap<BlobHash, Vec<u8>>,
    alive: HashSet<NodeId>,
    book: Book,
    /// Who opened the holds.
    owners: HashMap<AttemptId, (LogId, NodeId)>,
    pub(super) shelf: Shelf,
    pub(super) visitors: Visitors,
}

struct Log {
    meta: LogMeta,
    created_at: Timestamp,
    tail: Tail,
    epoch: u64,
    holder: Option<(NodeId, u32, Timestamp)>,
    events: Vec<Event>,
    queue: Vec<(PendingInput, usize)>,
    /// Every input that was ever queued.
    seen: HashSet<EventId>,
    state: Option<LogState>,
}

impl MemoryStore {
    pub fn new() -> Self {
        Self::with_clock(system_clock())
    }

    pub fn with_clock(clock: Clock) -> Self {
        Self::view_of(Arc::new(Shared { clock, state: Mutex::default() }))
    }

    /// Returns the view that another process would have of the same store.
    pub fn another_process(&self) -> Self {
        Self::view_of(Arc::clone(&self.view.shared))
    }

    fn view_of(shared: Arc<Shared>) -> Self {
        Self { view: Arc::new(View { shared, nodes: Mutex::default() }) }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.view.shared.state)
    }

    pub(super) fn now(&self) -> Timestamp {
        to_millis((self.view.shared.clock)())
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}

impl Drop for View {
    fn drop(&mut self) {
        let mut state = lock(&self.shared.state);
        for node in lock(&self.nodes).iter() {
            state.alive.remove(node);
        }
    }
}

/// A panic elsewhere leaves no half-done change behind: each call changes the state after its last check.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    fn log(&self, log: &LogId) -> Result<&Log, StoreError> {
        self.logs.get(log).ok_or_else(|| StoreError::UnknownLog { log: log.clone() })
    }

    fn log_mut(&mut self, log: &LogId) -> Result<&mut Log, StoreError> {
        self.logs.get_mut(log).ok_or_else(|| StoreError::UnknownLog { log: log.clone() })
    }

    fn place_of(&self, log: &LogId) -> Result<usize, StoreError> {
        self.log(log)?;
        Ok(self.order.iter().position(|other| other == log).expect("every log has its place in the order"))
    }

    fn summary(&self, id: &LogId) -> Option<LogSummary> {
        let log = self.logs.get(id)?;
        Some(LogSummary {
            log: id.clone(),
            meta: log.meta.clone(),
            head: log.tail.head,
            head_hash: log.tail.hash,
            created_at: log.created_at,
            updated_at: log.tail.at,
            holder: log.holder.as_ref().map(|(node, pid, since)| Holder {
                node: node.clone(),
                pid: *pid,
                since: *since,
                alive: self.alive.contains(node),
            }),
            state: log.state.clone(),
        })
    }
}

fn word_of(summary: &LogSummary) -> Option<&String> {
    summary.state.as_ref().map(|state| &state.word)
}

#[async_trait]
impl Store for MemoryStore {
    async fn create(&self, log: &LogId, meta: LogMeta) -> Result<bool, StoreError> {
        limits::check_meta(&meta)?;
        let now = self.now();
        let mut state = self.state();
        if state.logs.contains_key(log) {
            return Ok(false);
        }
        state.order.push(log.clone());
        state.logs.insert(
            log.clone(),
            Log {
                meta,
                created_at: now,
                tail: Tail { head: 0, hash: ChainHash::start(log), at: now },
                epoch: 0,
                holder: None,
                events: Vec::new(),
                queue: Vec::new(),
                seen: HashSet::new(),
                state: None,
            },
        );
        Ok(true)
    }

    async fn submit(&self, log: &LogId, input: &PendingInput) -> Result<Submitted, StoreError> {
        let size = limits::check_input(input)?.len();
        let mut state = self.state();
        let entry = state.log_mut(log)?;
        if entry.seen.contains(&input.id) {
            return Ok(Submitted::Already);
        }
        let waiting = entry.queue.len() as u64;
        let bytes = entry.queue.iter().map(|(_, size)| *size as u64).sum::<u64>() + size as u64;
        if waiting >= limits::QUEUE_INPUTS || bytes > limits::QUEUE_BYTES {
            return Err(StoreError::QueueFull { log: log.clone(), waiting });
        }
        entry.seen.insert(input.id.clone());
        entry.queue.push((input.clone(), size));
        Ok(Submitted::Queued)
    }

    async fn pending(&self, log: &LogId) -> Result<Vec<PendingInput>, StoreError> {
        let state = self.state();
        Ok(state.log(log)?.queue.iter().map(|(input, _)| input.clone()).collect())
    }

    async fn append(&self, fence: &Fence, expect: Expect, batch: Batch) -> Result<Vec<Event>, AppendError> {
        let log = fence.log();
        let (bodies, _) = limits::check_batch(log, &batch)?;
        let now = self.now();
        let mut state = self.state();
        let entry = state.log(log)?;
        let Some((node, ..)) = entry.holder.clone().filter(|_| entry.epoch == fence.epoch()) else {
            return Err(AppendError::Fenced { log: log.clone(), held: fence.epoch(), epoch: entry.epoch });
        };
        if expect != Expect::Any && expect != Expect::Head(entry.tail.head) {
            return Err(AppendError::HeadMoved { log: log.clone(), head: entry.tail.head });
        }
        let mut changed = None;
        for op in &batch.ledger {
            let book = changed.get_or_insert_with(|| state.book.clone());
            book.apply(op).map_err(|refusal| AppendError::Refused(Box::new(refusal)))?;
        }
        let mut queue = entry.queue.clone();
        for id in &batch.takes {
            let Some(at) = queue.iter().position(|(input, _)| input.id == *id) else {
                return Err(AppendError::NotQueued { log: log.clone(), id: id.clone() });
            };
            queue.remove(at);
        }
        for op in &batch.ledger {
            if let LedgerOp::Open { hold } = op {
                state.owners.entry(hold.attempt.clone()).or_insert_with(|| (log.clone(), node.clone()));
            }
        }
        if let Some(book) = changed {
            state.book = book;
        }
        let entry = state.log_mut(log)?;
        entry.queue = queue;
        if let Some(state) = &batch.state {
            entry.state = Some(state.clone());
        }
        if batch.events.is_empty() {
            return Ok(Vec::new());
        }
        let events = place(log, entry.epoch, &mut entry.tail, now, &batch, &bodies);
        entry.events.extend(events.iter().cloned());
        Ok(events)
    }

    async fn standing(&self, purses: &[PurseKey]) -> Result<Vec<Standing>, StoreError> {
        let state = self.state();
        let standing = purses.iter().map(|purse| {
            let scope = purse.scope();
            let sums = state.book.purses.iter().filter(|((key, _), _)| key == purse);
            let limits = state.book.limits.iter().filter(|((of, _), _)| *of == scope);
            Standing {
                purse: purse.clone(),
                limits: limits.map(|((_, unit), amount)| (unit.clone(), *amount)).collect(),
                sums: sums.map(|((_, unit), sum)| (unit.clone(), *sum)).collect(),
            }
        });
        Ok(standing.collect())
    }

    async fn holds(&self, log: Option<&LogId>) -> Result<Vec<OpenHold>, StoreError> {
        let state = self.state();
        let open = state.book.open.values().filter_map(|hold| {
            let (of, node) = state.owners.get(&hold.attempt)?.clone();
            let alive = state.alive.contains(&node);
            Some(OpenHold { hold: hold.clone(), log: of, node, alive })
        });
        Ok(open.filter(|open| log.is_none_or(|log| *log == open.log)).collect())
    }

    async fn read(&self, log: &LogId, after: Seq, limit: u32) -> Result<Vec<Event>, StoreError> {
        let state = self.state();
        let events = &state.log(log)?.events;
        let mut page = Vec::new();
        let mut bytes = 0;
        for event in events.iter().skip(usize::try_from(after).unwrap_or(usize::MAX)) {
            if page.len() >= limit.min(limits::PAGE_EVENTS) as usize || bytes >= limits::PAGE_BYTES {
                break;
            }
            bytes += event.body.get().len();
            page.push(event.clone());
        }
        Ok(page)
    }

    async fn claim(&self, log: &LogId, node: &NodeId) -> Result<Claim, ClaimError> {
        let now = self.now();
        let mut state = self.state();
        if !lock(&self.view.nodes).contains(node) {
            if !state.alive.insert(node.clone()) {
                return Err(ClaimError::NodeTaken { node: node.clone() });
            }
            lock(&self.view.nodes).insert(node.clone());
        }
        if let Some((holder, pid, since)) = &state.log(log)?.holder
            && holder != node
            && state.alive.contains(holder)
        {
            return Err(ClaimError::Held { log: log.clone(), node: holder.clone(), pid: *pid, since: *since });
        }
        let entry = state.log_mut(log)?;
        entry.epoch += 1;
        entry.holder = Some((node.clone(), std::process::id(), now));
        Ok(Claim { fence: Fence::new(log.clone(), entry.epoch), head: entry.tail.head })
    }

    async fn release(&self, fence: Fence) -> Result<(), StoreError> {
        let mut state = self.state();
        let entry = state.log_mut(fence.log())?;
        if entry.epoch == fence.epoch() {
            entry.holder = None;
        }
        Ok(())
    }

    async fn logs(&self, filter: &LogFilter) -> Result<Vec<LogSummary>, StoreError> {
        let state = self.state();
        let end = match &filter.before {
            None => state.order.len(),
            Some(log) => state.place_of(log)?,
        };
        Ok(state.order[..end]
            .iter()
            .rev()
            .filter(|log| filter.kind.is_none_or(|kind| kind == LogKind::of(log)))
            .filter_map(|log| state.summary(log))
            .filter(|summary| filter.parent.is_none() || summary.meta.parent == filter.parent)
            .filter(|summary| {
                filter.states.is_empty() || word_of(summary).is_some_and(|word| filter.states.contains(word))
            })
            .take(filter.limit.min(limits::PAGE_LOGS) as usize)
            .collect())
    }

    async fn ready(&self, after: Option<&LogId>, limit: u32) -> Result<Vec<LogSummary>, StoreError> {
        let state = self.state();
        let start = after.map_or(Ok(0), |log| state.place_of(log).map(|place| place + 1))?;
        let waits = |summary: &LogSummary| {
            !state.logs[&summary.log].queue.is_empty() || word_of(summary).is_some_and(|word| word == LogState::RUNNING)
        };
        Ok(state.order[start..]
            .iter()
            .filter(|log| LogKind::of(log) == LogKind::Session)
            .filter_map(|log| state.summary(log))
            .filter(|summary| summary.holder.as_ref().is_none_or(|holder| !holder.alive) && waits(summary))
            .take(limit.min(limits::PAGE_LOGS) as usize)
            .collect())
    }

    async fn log(&self, log: &LogId) -> Result<Option<LogSummary>, StoreError> {
        Ok(self.state().summary(log))
    }

    async fn put_blob(&self, bytes: &[u8]) -> Result<BlobHash, StoreError> {
        limits::within("a blob", bytes.len(), limits::BLOB_BYTES)?;
        let hash = BlobHash::of(bytes);
        self.state().blobs.entry(hash.clone()).or_insert_with(|| bytes.to_vec());
        Ok(hash)
    }

    async fn get_blob(&self, hash: &BlobHash) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.state().blobs.get(hash).cloned())
    }

    fn records(&self) -> &dyn Records {
        self
    }

    fn requests(&self) -> &dyn Requests {
        self
    }
}
