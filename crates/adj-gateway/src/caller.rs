//! What the rooms above see of a model: one call, one answer.

use crate::WaitsFor;
use adj_domain::{FailureKind, ModelAnswer, ModelFailure, ModelRequest};
use async_trait::async_trait;
use std::{sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

/// A piece of an answer as it arrives: live only, for eyes only, never stored and never acted on.
#[derive(Debug, Clone, PartialEq)]
pub enum Delta {
    Text {
        index: u32,
        text: String,
    },
    Reasoning {
        index: u32,
        text: String,
    },
    ToolCall {
        index: u32,
        name: Option<String>,
        arguments: String,
    },
    /// The request may not be sent yet.
    Waiting {
        because: WaitsFor,
        /// For how long, where that is known.
        wait: Option<Duration>,
    },
    /// The attempt failed; everything shown of it is void, and the next one starts after `wait`.
    Retrying {
        next_attempt: u32,
        wait: Duration,
        kind: FailureKind,
        message: String,
    },
}

/// Is told each delta; must be quick, because the vendor's stream waits for it.
pub type OnDelta = Arc<dyn Fn(Delta) + Send + Sync>;

/// Returns a receiver for callers whom nobody watches.
pub fn ignore_deltas() -> OnDelta {
    Arc::new(|_| {})
}

/// Whoever can have a model called.
#[async_trait]
pub trait ModelCaller: std::fmt::Debug + Send + Sync {
    /// Makes the call, with its retries. Cancelling, or dropping the future, ends the vendor's stream at once.
    async fn call(
        &self,
        request: ModelRequest,
        on_delta: OnDelta,
        cancel: CancellationToken,
    ) -> Result<ModelAnswer, ModelFailure>;
}
