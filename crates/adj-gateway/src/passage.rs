//! The way of one request to its vendor: its turns at the door, its attempts, and the waits between them.

use crate::{
    Failover, RetryPolicy,
    door::{Door, Permit},
    governor::{Asked, WaitsFor},
    retry::{ATTEMPTS_TO_CONNECT, Jitter},
};
use adj_domain::FailureKind;
use adj_providers::ProviderError;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;

/// How far a request has come, also when it ends in the middle.
#[derive(Debug)]
pub struct Passage {
    door: Arc<Door>,
    policy: RetryPolicy,
    jitter: Jitter,
    started: Instant,
    /// Attempts that were made.
    pub attempts: u32,
    /// Of these, those that failed for another reason than a limit.
    failures: u32,
    queued: Duration,
    queued_since: Option<Instant>,
    /// The list that the request goes on by, if there is a model left on it.
    onward: Option<Arc<Failover>>,
    /// Who may go at once has not queued, however long the machine took over it.
    waits: AtomicBool,
}

/// What to do after an attempt that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Again {
    pub wait: Duration,
    /// The wait for a limit is the queue's business.
    is_queued: bool,
}

impl Passage {
    pub fn new(door: &Arc<Door>, policy: &RetryPolicy, onward: Option<Arc<Failover>>) -> Self {
        Self {
            door: Arc::clone(door),
            jitter: Jitter::new(policy.seed),
            policy: policy.clone(),
            started: Instant::now(),
            attempts: 0,
            failures: 0,
            queued: Duration::ZERO,
            queued_since: None,
            onward,
            waits: AtomicBool::new(false),
        }
    }

    /// Whether another model is asked rather than waited at a door that stays shut for so long.
    pub fn passes_by(&self, model: &str) -> Option<ProviderError> {
        let shut_for = self.door.is_shut_for(model);
        let goes_on = |onward: &Arc<Failover>| onward.goes_on(FailureKind::RateLimit, 0, shut_for, Duration::ZERO);
        self.onward.as_ref().filter(|onward| !shut_for.is_zero() && goes_on(onward))?;
        let message = format!("the limit of {}/{model} lasts {} s", self.door.account, shut_for.as_secs());
        Some(ProviderError::new(FailureKind::RateLimit, message))
    }

    /// Whether another model may answer after such a failure.
    pub fn may_move(&self, error: &ProviderError) -> bool {
        self.onward.as_ref().is_some_and(|onward| onward.is_moved_by(error.kind))
    }

    /// Waits until the next attempt may be made. `on_wait` is told why the first one may not be made at once.
    pub async fn enter(
        &mut self,
        asked: Asked<'_>,
        on_wait: impl FnOnce(WaitsFor, Option<Duration>),
    ) -> Result<Permit, ProviderError> {
        let left = self.policy.longest_queue.saturating_sub(self.queued);
        let is_first = self.attempts == 0;
        self.queued_since = Some(Instant::now());
        let waits = &self.waits;
        // Whoever tries again was told already why that takes some time.
        let on_wait = |because, wait| {
            waits.store(true, Ordering::Relaxed);
            if is_first {
                on_wait(because, wait);
            }
        };
        let entered = self.door.enter(asked, left, on_wait).await;
        self.queued = self.queued();
        self.queued_since = None;
        self.waits = AtomicBool::new(false);
        self.attempts += u32::from(entered.is_ok());
        entered
    }

    /// Returns how long the request has stood in the queue.
    pub fn queued(&self) -> Duration {
        let since = self.queued_since.filter(|_| self.waits.load(Ordering::Relaxed));
        self.queued + since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Says whether another attempt at this model follows the one that failed.
    pub fn again(&mut self, model: &str, error: &ProviderError) -> Option<Again> {
        let is_late = self.started.elapsed().saturating_sub(self.queued) >= self.policy.whole;
        self.failures += u32::from(error.kind != FailureKind::RateLimit);
        let shut_for = self.door.is_shut_for(model);
        let goes_on = |onward: &Arc<Failover>| onward.goes_on(error.kind, self.failures, shut_for, self.queued());
        let is_long = |onward: &Arc<Failover>| error.retry_after.is_some_and(|asked| asked > onward.stay);
        let goes_on = self
            .onward
            .as_ref()
            .is_some_and(|onward| goes_on(onward) || (onward.is_moved_by(error.kind) && is_long(onward)));
        let again = match error.kind {
            _ if is_late || goes_on => None,
            FailureKind::RateLimit => {
                let is_too_long = error.retry_after.is_some_and(|asked| asked > self.policy.longest_retry_after);
                (!is_too_long).then_some(Again { wait: shut_for, is_queued: true })
            }
            kind => {
                let is_nobody_at_home = error.is_unsent && self.failures >= ATTEMPTS_TO_CONNECT;
                let wait = self.policy.wait_after(self.failures, kind, error.retry_after, &mut self.jitter);
                wait.filter(|_| !is_nobody_at_home).map(|wait| Again { wait, is_queued: false })
            }
        };
        let (attempt, kind) = (self.attempts, error.kind);
        tracing::debug!(model, attempt, ?again, ?kind, "a model call failed: {error}");
        again
    }
}

impl Again {
    /// Waits, as far as that is not left to the queue.
    pub async fn rest(self) {
        if !self.is_queued {
            tokio::time::sleep(self.wait).await;
        }
    }
}
