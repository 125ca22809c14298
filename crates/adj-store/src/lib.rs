//! The journal, the queue, the books, the records and the blobs: in memory or in SQLite, behind one small trait.
//!
//! Must not know: prompts, HTTP, or why an event was written.
//! Start at [`Store`]; its doc comments are the contract. [`SqliteStore`] keeps, [`MemoryStore`] models.

pub mod error;
pub mod limits;
mod memory;
pub mod records;
pub mod requests;
mod sqlite;
pub mod store;
mod verify;

mod blobs;
mod files;
mod nodes;
mod place;

pub use error::{AppendError, ClaimError, InsertError, OpenError, ReplaceError, StoreError, VerifyError};
pub use memory::store::MemoryStore;
pub use records::{NewRecord, Order, Record, RecordFilter, RecordKey, RecordPage, Records, Replacement};
pub use requests::{Remembered, RequestKey, Requests};
pub use sqlite::{
    store::{SqliteOptions, SqliteStore},
    writer::AfterCommit,
};
pub use store::{
    Batch, Claim, Clock, Expect, Fence, Holder, LogFilter, LogKind, LogMeta, LogState, LogSummary, NodeId, NodeIdError,
    OpenHold, Standing, Store, Submitted, system_clock,
};
pub use verify::{Verified, verify};
