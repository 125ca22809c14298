//! The one door to every model: routing, limits, retries, prices, metering.
//!
//! Must not know: sessions, tools, storage.
//! Start at [`ModelCaller`], which everything above depends on; [`Gateway`] is the real one. Each account has a [`governor`],
//! which decides who may send what and when, out of a [`breaker`], [`bucket`]s and a [`fair`] queue. [`endpoint`] is the door
//! for agents that are not ours.

pub mod arrangements;
pub mod bound;
pub mod breaker;
pub mod bucket;
mod caller;
mod cap;
mod catalogue;
mod door;
pub mod endpoint;
pub mod failover;
pub mod fair;
mod gateway;
pub mod governor;
mod passage;
mod retry;
mod size;
pub mod spend;
mod way;

pub use arrangements::Arrangements;
pub use bound::{Bound, Known, Pricing, Quote, Unboundable};
pub use caller::{Delta, ModelCaller, OnDelta, Payer, Tab, Unpaid, ignore_deltas};
pub use catalogue::{Catalogue, CatalogueError, Entry};
pub use failover::Failover;
pub use gateway::Gateway;
pub use governor::{AccountLimits, WaitsFor};
pub use retry::RetryPolicy;
pub use spend::Spend;
pub use tokio_util::sync::CancellationToken;
