//! What can go wrong, by operation; a caller can tell a refusal from a broken disk.

use crate::{records::RecordKey, store::NodeId};
use adj_domain::{ChainBreak, EventId, LogId, Refusal, Seq, Timestamp};
use std::{error::Error, path::PathBuf, sync::Arc, time::Duration};

/// What lies behind a failure. Shared, because one failed commit is the failure of everybody in it.
pub type Cause = Arc<dyn Error + Send + Sync>;

/// Why the store could not do its work.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    #[error("there is no log {log}")]
    UnknownLog { log: LogId },
    #[error("{what} has {size} bytes, more than the {limit} that are kept")]
    TooLarge { what: &'static str, size: u64, limit: u64 },
    #[error("{log} has {waiting} inputs waiting and takes no more until some are taken up")]
    QueueFull { log: LogId, waiting: u64 },
    #[error("the journal at {} was locked by another process for {} ms", path.display(), waited.as_millis())]
    Busy { path: PathBuf, waited: Duration },
    #[error("there is no space left to write {}", path.display())]
    Full { path: PathBuf },
    #[error("{} is read-only", path.display())]
    ReadOnly { path: PathBuf },
    #[error("{} is damaged: {what}", path.display())]
    Corrupt { path: PathBuf, what: String },
    #[error("cannot {doing} {}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: Cause },
    /// What was acknowledged is safe; open the store again once the cause is mended.
    #[error("the journal at {} takes no more writes since one failed ({cause})", path.display())]
    Stopped { path: PathBuf, cause: String },
}

/// Why a batch was not appended; nothing of it was written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AppendError {
    /// Somebody else holds the log now (or nobody, after a release).
    #[error("{log} is no longer held under epoch {held} (its epoch is {epoch})")]
    Fenced { log: LogId, held: u64, epoch: u64 },
    #[error("{log} ends at event {head}, not where the writer believed")]
    HeadMoved { log: LogId, head: Seq },
    #[error("{log} has no input {id} waiting")]
    NotQueued { log: LogId, id: EventId },
    #[error("the batch for {log} cannot be kept: {why}")]
    InvalidBatch { log: LogId, why: &'static str },
    /// A limit does not let it be spent.
    #[error("{0}")]
    Refused(Box<Refusal>),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a log was not given to a node.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ClaimError {
    #[error("{log} is held by process {pid} ({node}) since {since}")]
    Held { log: LogId, node: NodeId, pid: u32, since: Timestamp },
    #[error("the name {node} is in use by another process")]
    NodeTaken { node: NodeId },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a record was not made.
#[derive(Debug, Clone, thiserror::Error)]
pub enum InsertError {
    #[error("there is a record {key} already")]
    Exists { key: RecordKey },
    #[error("another record in {collection} has the name \"{name}\"")]
    NameTaken { collection: String, name: String },
    #[error("{key} cannot be kept: {why}")]
    Invalid { key: RecordKey, why: &'static str },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a record did not get its next version.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReplaceError {
    #[error("there is no record {key}")]
    Missing { key: RecordKey },
    #[error("{key} is archived")]
    Archived { key: RecordKey },
    #[error("{key} has version {version}, not the one that was expected")]
    Conflict { key: RecordKey, version: u64 },
    #[error("another record in {collection} has the name \"{name}\"")]
    NameTaken { collection: String, name: String },
    #[error("{key} cannot be kept: {why}")]
    Invalid { key: RecordKey, why: &'static str },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a store could not be opened; its files are as they were.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("there is no journal at {}", path.display())]
    Missing { path: PathBuf },
    #[error("{} is not a directory", path.display())]
    NotADirectory { path: PathBuf },
    #[error("{} belongs to user {owner}, and this process runs as user {user}", path.display())]
    WrongOwner { path: PathBuf, owner: u32, user: u32 },
    #[error("{} has mode {mode:04o}: other users could {could} it", path.display())]
    OpenToOthers { path: PathBuf, mode: u32, could: &'static str },
    #[error("{} is not a journal of Adjutant", path.display())]
    NotOurs { path: PathBuf },
    #[error("the journal at {} has format {found}; this build reads up to {newest}", path.display())]
    TooNew { path: PathBuf, found: u32, newest: u32 },
    /// Reading goes on from an older format only after a writer has brought it up to date.
    #[error("the journal at {} has the old format {found}, and cannot be brought up to date read-only", path.display())]
    TooOld { path: PathBuf, found: u32 },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a log cannot be vouched for.
#[derive(Debug, Clone, thiserror::Error)]
pub enum VerifyError {
    #[error(transparent)]
    Chain(#[from] ChainBreak),
    #[error(transparent)]
    Store(#[from] StoreError),
}
