//! What is written down of every request: once before it leaves, once when it is over.

use super::{Attribution, Refusal, Wire};
use adj_domain::{EventId, FailureKind, ModelRef, SessionId, StopReason, Usage};
use async_trait::async_trait;
use std::{fmt, sync::Arc, time::Duration};
use tokio::{sync::oneshot, time::Instant};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Generate,
    CountTokens,
}

/// A request that is about to leave.
#[derive(Debug, Clone, PartialEq)]
pub struct Opening {
    pub request: EventId,
    pub session: SessionId,
    pub wire: Wire,
    pub operation: Operation,
    /// As the caller wrote it.
    pub asked_model: String,
    pub model: ModelRef,
    pub attribution: Attribution,
    pub request_bytes: u64,
    /// Whether the request is made anew for another wire.
    pub converted: bool,
}

/// A request that is over.
#[derive(Debug, Clone, PartialEq)]
pub struct Closing {
    pub request: EventId,
    pub session: SessionId,
    pub outcome: Outcome,
    /// The status that the vendor answered with, if it did.
    pub status: Option<u16>,
    /// As the vendor reported it; absent where it never did.
    pub usage: Option<Usage>,
    pub stop: Option<StopReason>,
    pub model_answered: Option<String>,
    pub vendor_request: Option<String>,
    pub latency: Duration,
    pub first_byte: Option<Duration>,
    pub first_token: Option<Duration>,
    /// Repeated attempts of this door's own.
    pub retries: u32,
    pub answer_bytes: u64,
    /// What the target could not be told.
    pub losses: Vec<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The answer came to its proper end.
    Answered,
    /// The vendor refused, could not be reached, or broke off.
    Failed { kind: FailureKind, message: String },
    /// The caller went away, or its token was revoked.
    Abandoned,
}

/// Keeps account of requests.
#[async_trait]
pub trait Meter: fmt::Debug + Send + Sync {
    /// Is told before the first byte leaves, and may refuse. Runs to its end even if the caller goes away meanwhile.
    async fn open(&self, opening: Opening) -> Result<(), Refusal>;

    /// Is told exactly once for each request that was not refused, also when its task is dropped; must not block.
    fn close(&self, closing: Closing);
}

/// A request under way; dropping it closes it.
#[derive(Debug)]
pub(super) struct Metered {
    meter: Arc<dyn Meter>,
    started: Instant,
    pub(super) outcome: Option<Outcome>,
    pub(super) closing: Closing,
}

impl Metered {
    pub(super) async fn open(meter: &Arc<dyn Meter>, opening: Opening) -> Result<Self, Refusal> {
        let meter = Arc::clone(meter);
        let closing = Closing {
            request: opening.request.clone(),
            session: opening.session.clone(),
            outcome: Outcome::Abandoned,
            status: None,
            usage: None,
            stop: None,
            model_answered: None,
            vendor_request: None,
            latency: Duration::ZERO,
            first_byte: None,
            first_token: None,
            retries: 0,
            answer_bytes: 0,
            losses: Vec::new(),
        };
        let (tell, told) = oneshot::channel();
        // A task of its own: nobody knows whether an opening that was dropped half-way was written down.
        tokio::spawn(async move {
            let opened = meter.open(opening).await;
            let metered = opened.map(|()| Self { meter, started: Instant::now(), outcome: None, closing });
            // Where nobody listens any more, this drops it, and so closes it.
            let _ = tell.send(metered);
        });
        let lost = || Refusal::new(super::RefusalKind::Server, "adjutant: the request could not be written down");
        told.await.unwrap_or_else(|_| Err(lost()))
    }

    /// Notes that the vendor's first bytes are there.
    pub(super) fn mark_first_byte(&mut self) {
        let elapsed = self.started.elapsed();
        self.closing.first_byte.get_or_insert(elapsed);
    }

    /// Notes that the model has begun to say something.
    pub(super) fn mark_first_token(&mut self) {
        let elapsed = self.started.elapsed();
        self.closing.first_token.get_or_insert(elapsed);
    }

    pub(super) fn fail(&mut self, kind: FailureKind, message: impl Into<String>) {
        self.outcome = Some(Outcome::Failed { kind, message: message.into() });
    }
}

impl Drop for Metered {
    fn drop(&mut self) {
        let mut closing = self.closing.clone();
        closing.outcome = self.outcome.take().unwrap_or(Outcome::Abandoned);
        closing.latency = self.started.elapsed();
        self.meter.close(closing);
    }
}
