//! The one door to every model: routing, retries, metering.
//!
//! Must not know: sessions, tools, storage.
//! Start at [`ModelCaller`], which everything above depends on; [`Gateway`] is the real one.

pub mod breaker;
pub mod bucket;
mod caller;
mod catalogue;
pub mod fair;
mod gateway;
mod retry;

pub use caller::{Delta, ModelCaller, OnDelta, ignore_deltas};
pub use catalogue::{Catalogue, CatalogueError, Entry};
pub use gateway::Gateway;
pub use retry::RetryPolicy;
pub use tokio_util::sync::CancellationToken;
