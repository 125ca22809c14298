//! What the rooms above see of a model: one call, one answer.

use crate::{
    WaitsFor,
    bound::{Known, Quote},
};
use adj_domain::{Charge, FailureKind, ModelAnswer, ModelFailure, ModelRef, ModelRequest, Refusal};
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

/// Why no more was set aside.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unpaid {
    #[error(transparent)]
    Refused(Refusal),
    #[error("nothing could be set aside for another attempt: {0}")]
    Failed(String),
}

/// Sets more aside for a request while it is under way.
#[async_trait]
pub trait Payer: std::fmt::Debug + Send + Sync {
    /// Is asked before another attempt, where the one before may have been billed as `last` says. Holds are numbered from 1, and
    /// the first was opened before the call.
    async fn another(&self, number: u32, last: &Charge) -> Result<(), Unpaid>;
}

/// How a request is paid for.
#[derive(Debug, Clone)]
pub struct Tab {
    pub quote: Quote,
    /// Some budget depends on what was set aside: an answer that goes beyond it is cut.
    pub is_limited: bool,
    pub payer: Arc<dyn Payer>,
}

impl Tab {
    /// Nobody looks at what it costs.
    pub fn open(quote: Quote) -> Self {
        Self { quote, is_limited: false, payer: Arc::new(Unlimited) }
    }
}

#[derive(Debug)]
struct Unlimited;

#[async_trait]
impl Payer for Unlimited {
    async fn another(&self, _: u32, _: &Charge) -> Result<(), Unpaid> {
        Ok(())
    }
}

/// Whoever can have a model called.
#[async_trait]
pub trait ModelCaller: std::fmt::Debug + Send + Sync {
    /// Tells the most that one attempt at a request can come to. `known`: what was counted of the beginning of the same prompt.
    fn quote(&self, request: &ModelRequest, known: Option<Known>) -> Quote;

    /// The same for a body that another program has written: of so many bytes, all of it text or not, that asks for so much.
    fn quote_body(&self, model: &ModelRef, bytes: u64, is_text: bool, max_output: Option<u32>) -> Quote;

    /// Makes the call for somebody who has set aside what `tab` quotes.
    async fn call_for(
        &self,
        tab: Tab,
        request: ModelRequest,
        on_delta: OnDelta,
        cancel: CancellationToken,
    ) -> Result<ModelAnswer, ModelFailure>;

    /// Makes the call, with its retries. Cancelling, or dropping the future, ends the vendor's stream at once.
    async fn call(
        &self,
        request: ModelRequest,
        on_delta: OnDelta,
        cancel: CancellationToken,
    ) -> Result<ModelAnswer, ModelFailure> {
        let tab = Tab::open(self.quote(&request, None));
        self.call_for(tab, request, on_delta, cancel).await
    }
}
