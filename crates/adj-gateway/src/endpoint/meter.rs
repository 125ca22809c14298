//! What is written down of every request: once before it leaves, once when it is over.

use super::{Asks, Attribution, Refusal, Wire};
use crate::{
    Gateway,
    door::Permit,
    gateway::Account,
    governor::{Asked, Ended},
    passage::{Again, Passage},
};
use adj_domain::{BlobHash, Cost, EventId, FailureKind, ModelRef, SessionId, StopReason, Usage};
use adj_providers::{ProviderError, Reading};
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
    pub body_hash: BlobHash,
    /// For those who have to know how much it can come to.
    pub asks: Asks,
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
    /// Absent also where nobody knows the model's price.
    pub cost: Option<Cost>,
    pub stop: Option<StopReason>,
    pub model_answered: Option<String>,
    pub vendor_request: Option<String>,
    pub latency: Duration,
    /// How much of the latency was spent in the gateway's queue.
    pub queued: Duration,
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
    gateway: Arc<Gateway>,
    model: ModelRef,
    passage: Passage,
    /// For the attempt that is under way.
    permit: Option<Permit>,
    started: Instant,
    pub(super) outcome: Option<Outcome>,
    pub(super) closing: Closing,
}

impl Metered {
    pub(super) async fn open(
        meter: &Arc<dyn Meter>,
        gateway: &Arc<Gateway>,
        account: &Account,
        opening: Opening,
    ) -> Result<Self, Refusal> {
        let closing = Closing {
            request: opening.request.clone(),
            session: opening.session.clone(),
            outcome: Outcome::Abandoned,
            status: None,
            usage: None,
            cost: None,
            stop: None,
            model_answered: None,
            vendor_request: None,
            latency: Duration::ZERO,
            queued: Duration::ZERO,
            first_byte: None,
            first_token: None,
            retries: 0,
            answer_bytes: 0,
            losses: Vec::new(),
        };
        let (meter, gateway, model) = (Arc::clone(meter), Arc::clone(gateway), opening.model.clone());
        let passage = Passage::new(&account.door, &gateway.retries_for_callers());
        let (tell, told) = oneshot::channel();
        // A task of its own: nobody knows whether an opening that was dropped half-way was written down.
        tokio::spawn(async move {
            let opened = meter.open(opening).await;
            let started = Instant::now();
            let metered = |()| Self { meter, gateway, model, passage, permit: None, started, outcome: None, closing };
            let opened = opened.map(metered);
            // Where nobody listens any more, this drops it, and so closes it.
            let _ = tell.send(opened);
        });
        let lost = || Refusal::new(super::RefusalKind::Server, "adjutant: the request could not be written down");
        told.await.unwrap_or_else(|_| Err(lost()))
    }

    /// Waits until an attempt may be made.
    pub(super) async fn enter(&mut self, asked: Asked<'_>) -> Result<(), ProviderError> {
        self.permit = Some(self.passage.enter(asked, |_, _| ()).await?);
        Ok(())
    }

    pub(super) fn attempts(&self) -> u32 {
        self.passage.attempts
    }

    /// Takes down that the attempt failed, and says whether another follows.
    pub(super) fn again(&mut self, error: &ProviderError) -> Option<Again> {
        if let Some(permit) = self.permit.take() {
            permit.ended(Ended::Failed(error));
        }
        self.passage.again(&self.model.name, error)
    }

    /// Takes in what the vendor says of its limits.
    pub(super) fn learn(&self, readings: &[Reading]) {
        if let Some(permit) = self.permit.as_ref().filter(|_| !readings.is_empty()) {
            permit.learn(readings);
        }
    }

    /// Notes that the vendor has begun to answer.
    pub(super) fn let_in(&mut self) {
        self.mark_first_byte();
        if let Some(permit) = &self.permit {
            permit.let_in();
        }
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
        closing.queued = self.passage.queued();
        closing.retries = self.passage.attempts.saturating_sub(1);
        let usage = closing.usage;
        closing.cost = usage.and_then(|usage| self.gateway.cost(&self.model, usage));
        if let Some(permit) = self.permit.take() {
            match &closing.outcome {
                Outcome::Answered => permit.ended(Ended::Answered(&usage.unwrap_or_default())),
                Outcome::Failed { kind, message } => permit.ended(Ended::Failed(&ProviderError::new(*kind, message))),
                Outcome::Abandoned => drop(permit),
            }
        }
        self.meter.close(closing);
    }
}
