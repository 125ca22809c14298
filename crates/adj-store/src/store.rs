//! What a store promises; the contract is in the doc comments, and one test suite holds every back end to it.

use crate::{
    error::{AppendError, ClaimError, StoreError},
    records::Records,
    requests::Requests,
};
use adj_domain::{
    Amounts, BlobHash, ChainHash, Event, EventId, Hold, LedgerOp, LogId, NewEvent, PendingInput, Purse, PurseKey, Seq,
    Timestamp, Unit,
};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt, str::FromStr, sync::Arc};

/// Where time stamps come from.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Returns the machine's own clock.
pub fn system_clock() -> Clock {
    Arc::new(Timestamp::now)
}

/// The name of one process that works on logs. It is alive as long as its process is, which needs no clock to tell.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeId(String);

/// Why a text does not name a node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{text}\" is not a node name (expected 1 to 64 of A-Z a-z 0-9 _ -)")]
pub struct NodeIdError {
    pub text: String,
}

impl NodeId {
    /// Makes a name out of randomness that the caller brings.
    pub fn from_random(bytes: [u8; 12]) -> Self {
        Self(format!("node_{}", bytes.map(|byte| format!("{byte:02x}")).concat()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<NodeId> for String {
    fn from(node: NodeId) -> Self {
        node.0
    }
}

impl TryFrom<String> for NodeId {
    type Error = NodeIdError;
    fn try_from(text: String) -> Result<Self, NodeIdError> {
        // The name becomes a file name, so nothing but plain letters may pass.
        let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
        if plain && (1..=64).contains(&text.len()) { Ok(Self(text)) } else { Err(NodeIdError { text }) }
    }
}

impl FromStr for NodeId {
    type Err = NodeIdError;
    fn from_str(text: &str) -> Result<Self, NodeIdError> {
        Self::try_from(text.to_owned())
    }
}

/// The right to append to one log, until somebody else claims it. Only [`Store::claim`] makes one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Fence {
    log: LogId,
    epoch: u64,
}

impl Fence {
    pub(crate) fn new(log: LogId, epoch: u64) -> Self {
        Self { log, epoch }
    }

    pub fn log(&self) -> &LogId {
        &self.log
    }

    pub fn epoch(&self) -> u64 {
        self.epoch
    }
}

/// What a claim gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    pub fence: Fence,
    /// The last event's number; everything up to it is final.
    pub head: Seq,
}

/// What the writer of a batch believes about the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    Any,
    /// The log ends at this event: "I have seen everything".
    Head(Seq),
}

/// What one append writes, all of it or nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Batch {
    pub events: Vec<NewEvent>,
    /// The queued inputs that these events take up.
    pub takes: Vec<EventId>,
    /// What these events change in the books; one refusal refuses the whole batch.
    pub ledger: Vec<LedgerOp>,
    /// What the log is doing after these events; `None` leaves it as it was.
    pub state: Option<LogState>,
}

impl Batch {
    pub fn events(events: Vec<NewEvent>) -> Self {
        Self { events, ..Self::default() }
    }
}

/// What a log is doing, as its writer last said: a cache of the fold of its events, to list by and to find what is left undone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogState {
    /// A short word such as `idle`; [`LogState::RUNNING`] means that somebody has to go on with it.
    pub word: String,
    /// What else a list shows, as JSON.
    pub summary: String,
}

impl LogState {
    pub const RUNNING: &str = "running";
}

/// What became of a submitted input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Submitted {
    Queued,
    /// An input with this id was queued before; it waits still, or has been taken up.
    Already,
}

/// What is known of a log beside its events.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogMeta {
    pub title: String,
    /// The log on whose behalf this one was made: a run, for its sessions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<LogId>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// What a log is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogKind {
    Session,
    Run,
    Grants,
    Budgets,
}

impl LogKind {
    pub fn of(log: &LogId) -> Self {
        match log {
            LogId::Session(_) => Self::Session,
            LogId::Run(_) => Self::Run,
            LogId::Grants => Self::Grants,
            LogId::Budgets => Self::Budgets,
        }
    }
}

/// Who holds a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    pub node: NodeId,
    pub pid: u32,
    pub since: Timestamp,
    /// False when the holder's process is gone: the log was left in the middle of its work and anybody may claim it.
    pub alive: bool,
}

/// A log as a list shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSummary {
    pub log: LogId,
    pub meta: LogMeta,
    pub head: Seq,
    /// The last event's hash; kept elsewhere, it proves later that the whole log is what it was.
    pub head_hash: ChainHash,
    pub created_at: Timestamp,
    /// When the last event was written, or the log was made.
    pub updated_at: Timestamp,
    pub holder: Option<Holder>,
    /// `None` where no writer has said it, as in journals of older builds.
    pub state: Option<LogState>,
}

/// Which logs to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFilter {
    pub kind: Option<LogKind>,
    pub parent: Option<LogId>,
    /// Only logs whose state has one of these words; empty means all.
    pub states: Vec<String>,
    /// Only logs made before this one: the last of a page gives the next page.
    pub before: Option<LogId>,
    /// At most this many (and never more than [`crate::limits::PAGE_LOGS`]).
    pub limit: u32,
}

impl Default for LogFilter {
    fn default() -> Self {
        Self { kind: None, parent: None, states: Vec::new(), before: None, limit: crate::limits::PAGE_LOGS }
    }
}

/// How a purse stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    pub purse: PurseKey,
    /// The limits that the books keep.
    pub limits: Amounts,
    pub sums: BTreeMap<Unit, Purse>,
}

/// A hold that has not been closed, and who opened it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenHold {
    pub hold: Hold,
    pub log: LogId,
    pub node: NodeId,
    /// False when nobody is left who could close it but who takes the log over.
    pub alive: bool,
}

/// Where logs, queues, records and blobs are kept.
///
/// A call that was dropped half-way may or may not have happened. Everything that returned `Ok` survives the death of the
/// process and of the machine's power (of [`crate::MemoryStore`]: of nothing).
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Makes a log without events. Returns false, and changes nothing, when it exists.
    async fn create(&self, log: &LogId, meta: LogMeta) -> Result<bool, StoreError>;

    /// Queues an input; any client may. The same id twice is queued once, also after it was taken up.
    async fn submit(&self, log: &LogId, input: &PendingInput) -> Result<Submitted, StoreError>;

    /// Returns the inputs that wait, oldest first.
    async fn pending(&self, log: &LogId) -> Result<Vec<PendingInput>, StoreError>;

    /// Writes a batch, all of it or nothing, and returns its events in their places: numbers without gaps, times that
    /// never go back, hashes chained. Never succeeds after a later claim has returned, or after a release.
    async fn append(&self, fence: &Fence, expect: Expect, batch: Batch) -> Result<Vec<Event>, AppendError>;

    /// Returns how purses stand, in the order asked for.
    async fn standing(&self, purses: &[PurseKey]) -> Result<Vec<Standing>, StoreError>;

    /// Returns the holds that are open: of one log, or all, by attempt.
    async fn holds(&self, log: Option<&LogId>) -> Result<Vec<OpenHold>, StoreError>;

    /// Returns the events after `after`, in order: no more than `limit` or a page's bytes. Only an empty answer is the end.
    async fn read(&self, log: &LogId, after: Seq, limit: u32) -> Result<Vec<Event>, StoreError>;

    /// Takes a log for `node` and fences off whoever had it. Refused while another node that is alive holds it; a dead
    /// one is replaced at once; the node itself may claim again.
    async fn claim(&self, log: &LogId, node: &NodeId) -> Result<Claim, ClaimError>;

    /// Gives a log back. A fence that was superseded already is nothing to complain about.
    async fn release(&self, fence: Fence) -> Result<(), StoreError>;

    /// Lists logs, newest first.
    async fn logs(&self, filter: &LogFilter) -> Result<Vec<LogSummary>, StoreError>;

    /// Lists the sessions that wait for somebody to take them, in the order in which they were made, those after `after`: no
    /// process that is alive holds them, and an input waits or their state says that they are running. Takes no longer for
    /// any number of other logs.
    async fn ready(&self, after: Option<&LogId>, limit: u32) -> Result<Vec<LogSummary>, StoreError>;

    /// Returns one log's summary, or `None` when there is no such log.
    async fn log(&self, log: &LogId) -> Result<Option<LogSummary>, StoreError>;

    /// Keeps bytes under their hash. Keeping them twice is keeping them once.
    async fn put_blob(&self, bytes: &[u8]) -> Result<BlobHash, StoreError>;

    /// Returns the bytes, checked against their hash, or `None` when they were never kept.
    async fn get_blob(&self, hash: &BlobHash) -> Result<Option<Vec<u8>>, StoreError>;

    /// Returns where named documents are kept.
    fn records(&self) -> &dyn Records;

    /// Returns where requests that may come twice are remembered.
    fn requests(&self) -> &dyn Requests;
}
