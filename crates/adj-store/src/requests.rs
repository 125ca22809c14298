//! What a store promises of requests that may come twice.

use crate::error::StoreError;
use adj_domain::{BlobHash, Timestamp};
use async_trait::async_trait;
use std::time::Duration;

/// How long a request is remembered.
pub const REMEMBERED: Duration = Duration::from_secs(24 * 60 * 60);

/// The name that a client gave to a request, within a scope in which its names are its own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestKey {
    pub scope: String,
    pub key: String,
}

impl RequestKey {
    pub fn new(scope: &str, key: &str) -> Self {
        Self { scope: scope.to_owned(), key: key.to_owned() }
    }
}

/// What is known of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remembered {
    /// It comes for the first time, or for the first time in a day; from here on it is known.
    New,
    /// It came before, with the same hash. Without an answer it is under way, or whoever worked on it has died: what it did
    /// is then found by the ids that were derived from its key.
    Same { since: Timestamp, answer: Option<String> },
    /// Another request came under this name.
    Different,
}

/// Where requests and their answers are remembered, for [`REMEMBERED`].
#[async_trait]
pub trait Requests: Send + Sync {
    /// Remembers that a request has come, or returns what is known of it.
    async fn remember(&self, key: &RequestKey, hash: &BlobHash) -> Result<Remembered, StoreError>;

    /// Keeps what was answered, byte for byte. Returns false when the request is not remembered, or has its answer already.
    async fn answer(&self, key: &RequestKey, answer: &str) -> Result<bool, StoreError>;

    /// Forgets a request that had no effect, so that it may come again.
    async fn forget(&self, key: &RequestKey) -> Result<(), StoreError>;
}
