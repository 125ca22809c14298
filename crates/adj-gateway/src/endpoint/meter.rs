//! What is written down of every request: once before it leaves, once when it is over.

use super::{Asks, Attribution, Refusal, Wire};
use crate::{
    Failover, Gateway,
    door::Permit,
    gateway::Account,
    governor::{Asked, Ended},
    passage::Again,
    spend::is_unbilled,
    way::Way,
};
use adj_domain::{BlobHash, Cost, EventId, FailureKind, ModelRef, Moved, SessionId, StopReason, Usage};
use adj_providers::{ProviderError, Reading};
use async_trait::async_trait;
use std::{fmt, sync::Arc, time::Duration};
use tokio::sync::oneshot;

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
    /// Attempts that came to no answer, and that the vendor may send a bill for all the same.
    pub unsettled: u32,
    /// Where another model answered than was asked for.
    pub answered_by: Option<ModelRef>,
    pub moved: Vec<Moved>,
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
    asked: ModelRef,
    /// Who is asked now.
    model: ModelRef,
    way: Way,
    /// For the attempt that is under way.
    permit: Option<Permit>,
    pub(super) outcome: Option<Outcome>,
    pub(super) closing: Closing,
}

impl Metered {
    pub(super) async fn open(
        meter: &Arc<dyn Meter>,
        gateway: &Arc<Gateway>,
        failover: &Arc<Failover>,
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
            unsettled: 0,
            answered_by: None,
            moved: Vec::new(),
            answer_bytes: 0,
            losses: Vec::new(),
        };
        let (meter, gateway, model) = (Arc::clone(meter), Arc::clone(gateway), opening.model.clone());
        let failover = Arc::clone(failover);
        let (tell, told) = oneshot::channel();
        // A task of its own: nobody knows whether an opening that was dropped half-way was written down.
        tokio::spawn(async move {
            let opened = meter.open(opening).await;
            let way = Way::new(failover, gateway.retries_for_callers());
            let asked = model.clone();
            let metered = |()| Self { meter, gateway, asked, model, way, permit: None, outcome: None, closing };
            let opened = opened.map(metered);
            // Where nobody listens any more, this drops it, and so closes it.
            let _ = tell.send(opened);
        });
        let lost = || Refusal::new(super::RefusalKind::Server, "adjutant: the request could not be written down");
        told.await.unwrap_or_else(|_| Err(lost()))
    }

    /// From here on this model is asked. `is_followed`: there are others still.
    pub(super) fn turn_to(&mut self, account: &Account, model: &ModelRef, is_followed: bool) {
        self.way.turn_to(&account.door, is_followed);
        self.closing.answered_by = Some(model).filter(|model| **model != self.asked).cloned();
        self.model = model.clone();
    }

    /// Waits until an attempt may be made.
    pub(super) async fn enter(&mut self, asked: Asked<'_>) -> Result<(), ProviderError> {
        if let Some(error) = self.way.passage().passes_by(&self.model.name) {
            return Err(error);
        }
        self.permit = Some(self.way.passage().enter(asked, |_, _| ()).await?);
        // What the attempt before has told is not this one's.
        let Closing { usage, stop, model_answered, first_byte, first_token, .. } = &mut self.closing;
        (*usage, *stop, *model_answered) = (None, None, None);
        (*first_byte, *first_token) = (None, None);
        Ok(())
    }

    pub(super) fn attempts(&self) -> u32 {
        self.way.attempts()
    }

    /// Whether another model may answer after such a failure.
    pub(super) fn may_move(&mut self, error: &ProviderError) -> bool {
        self.way.passage().may_move(error)
    }

    /// Takes down that the attempt failed, and says whether another follows at this model.
    pub(super) fn again(&mut self, error: &ProviderError) -> Option<Again> {
        self.end_attempt(error);
        self.way.passage().again(&self.model.name, error)
    }

    /// Takes down that the attempt failed.
    pub(super) fn end_attempt(&mut self, error: &ProviderError) {
        if let Some(permit) = self.permit.take() {
            permit.ended(Ended::Failed(error));
            self.closing.unsettled += u32::from(!is_unbilled(error));
        }
    }

    /// Whether a request that failed like this for good may go on to another model.
    pub(super) fn goes_on(&self, error: &ProviderError) -> bool {
        self.way.goes_on(error)
    }

    /// Takes down that the request goes on.
    pub(super) fn go_on(&mut self, from: &ModelRef, to: &ModelRef, error: &ProviderError, lost: Vec<String>) {
        self.end_attempt(error);
        self.way.moved.push(Moved { from: from.clone(), to: to.clone(), why: error.kind, lost });
    }

    pub(super) fn retold(&self, error: ProviderError) -> ProviderError {
        self.way.retold(error)
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
        let elapsed = self.way.elapsed();
        self.closing.first_byte.get_or_insert(elapsed);
    }

    /// Notes that the model has begun to say something.
    pub(super) fn mark_first_token(&mut self) {
        let elapsed = self.way.elapsed();
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
        closing.latency = self.way.elapsed();
        closing.queued = self.way.queued();
        closing.retries = self.way.attempts().saturating_sub(1);
        closing.moved = std::mem::take(&mut self.way.moved);
        let usage = closing.usage;
        closing.cost = usage.and_then(|usage| self.gateway.cost(&self.model, usage));
        if let Some(permit) = self.permit.take() {
            closing.unsettled += u32::from(closing.outcome != Outcome::Answered);
            match &closing.outcome {
                Outcome::Answered => permit.ended(Ended::Answered(&usage.unwrap_or_default())),
                Outcome::Failed { kind, message } => permit.ended(Ended::Failed(&ProviderError::new(*kind, message))),
                Outcome::Abandoned => drop(permit),
            }
        }
        self.meter.close(closing);
    }
}
