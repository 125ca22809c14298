//! A store at which something happens when it is told so.

use adj_domain::{BlobHash, Event, LogId, PendingInput, PurseKey, Seq};
use adj_engine::Interrupt;
use adj_store::{
    AppendError, Batch, Claim, ClaimError, Expect, Fence, LogFilter, LogMeta, LogSummary, MemoryStore, NodeId,
    OpenHold, Records, Requests, Standing, Store, StoreError, Submitted,
};
use async_trait::async_trait;
use std::sync::{
    OnceLock,
    atomic::{AtomicU32, Ordering},
};

/// When the append that is to fail fails.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fails {
    Before,
    /// The events are written, and nobody is told.
    After,
}

/// A store whose append number `at` fails once.
#[derive(Debug)]
pub struct FailingStore {
    store: MemoryStore,
    at: u32,
    fails: Fails,
    appends: AtomicU32,
    submits: AtomicU32,
    interrupt: OnceLock<(u32, Interrupt)>,
}

impl FailingStore {
    pub fn new(at: u32, fails: Fails) -> Self {
        Self {
            store: MemoryStore::new(),
            at,
            fails,
            appends: AtomicU32::new(0),
            submits: AtomicU32::new(0),
            interrupt: OnceLock::new(),
        }
    }

    /// Asks for an interrupt as soon as input number `submit` is queued.
    pub fn interrupt_at(&self, submit: u32, interrupt: &Interrupt) {
        self.interrupt.set((submit, interrupt.clone())).unwrap();
    }

    pub fn appends(&self) -> u32 {
        self.appends.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Store for FailingStore {
    async fn append(&self, fence: &Fence, expect: Expect, batch: Batch) -> Result<Vec<Event>, AppendError> {
        let fails = self.appends.fetch_add(1, Ordering::SeqCst) + 1 == self.at;
        let full = || StoreError::Full { path: "/full".into() };
        if fails && self.fails == Fails::Before {
            return Err(full().into());
        }
        let appended = self.store.append(fence, expect, batch).await;
        if fails { Err(full().into()) } else { appended }
    }

    async fn create(&self, log: &LogId, meta: LogMeta) -> Result<bool, StoreError> {
        self.store.create(log, meta).await
    }
    async fn submit(&self, log: &LogId, input: &PendingInput) -> Result<Submitted, StoreError> {
        let submitted = self.store.submit(log, input).await;
        let number = self.submits.fetch_add(1, Ordering::SeqCst) + 1;
        if let Some((_, interrupt)) = self.interrupt.get().filter(|(at, _)| *at == number) {
            interrupt.ask();
        }
        submitted
    }
    async fn pending(&self, log: &LogId) -> Result<Vec<PendingInput>, StoreError> {
        self.store.pending(log).await
    }
    async fn read(&self, log: &LogId, after: Seq, limit: u32) -> Result<Vec<Event>, StoreError> {
        self.store.read(log, after, limit).await
    }
    async fn claim(&self, log: &LogId, node: &NodeId) -> Result<Claim, ClaimError> {
        self.store.claim(log, node).await
    }
    async fn standing(&self, purses: &[PurseKey]) -> Result<Vec<Standing>, StoreError> {
        self.store.standing(purses).await
    }
    async fn holds(&self, log: Option<&LogId>) -> Result<Vec<OpenHold>, StoreError> {
        self.store.holds(log).await
    }
    async fn release(&self, fence: Fence) -> Result<(), StoreError> {
        self.store.release(fence).await
    }
    async fn logs(&self, filter: &LogFilter) -> Result<Vec<LogSummary>, StoreError> {
        self.store.logs(filter).await
    }
    async fn ready(&self, after: Option<&LogId>, limit: u32) -> Result<Vec<LogSummary>, StoreError> {
        self.store.ready(after, limit).await
    }
    async fn log(&self, log: &LogId) -> Result<Option<LogSummary>, StoreError> {
        self.store.log(log).await
    }
    fn records(&self) -> &dyn Records {
        self.store.records()
    }
    fn requests(&self) -> &dyn Requests {
        self.store.requests()
    }
    async fn put_blob(&self, bytes: &[u8]) -> Result<BlobHash, StoreError> {
        self.store.put_blob(bytes).await
    }
    async fn get_blob(&self, hash: &BlobHash) -> Result<Option<Vec<u8>>, StoreError> {
        self.store.get_blob(hash).await
    }
}
