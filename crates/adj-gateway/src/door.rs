//! The door to one account: waits for what the governor decides, and tells it what became of each attempt.
//!
//! The governor's lock is held for single decisions, never while anybody waits.

use crate::governor::{AccountLimits, Asked, Ended, Entered, Governor, MAX_WAITING, Patience, WaitsFor};
use adj_domain::FailureKind;
use adj_providers::{ProviderError, Reading};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};
use tokio::{
    sync::{oneshot, watch},
    time::{Instant, sleep_until},
};

/// Ten years; a clock can be set to that.
const FAR_AWAY_MS: u64 = 10 * 365 * 24 * 3_600_000;

#[derive(Debug)]
pub struct Door {
    pub(crate) account: String,
    // Times are counted from here.
    origin: Instant,
    state: Mutex<State>,
    /// When to decide again. Whoever waits looks at the clock for all, because any of them may go away.
    next: watch::Sender<Option<u64>>,
}

#[derive(Debug)]
struct State {
    governor: Governor,
    waiting: HashMap<u64, oneshot::Sender<Result<u64, ProviderError>>>,
}

/// The right to make one attempt; dropping it says that nobody wants its answer any more.
#[derive(Debug)]
pub struct Permit {
    door: Arc<Door>,
    attempt: Option<u64>,
}

/// A place in the queue; dropping it gives the place up, or what was just decided for it.
struct Place {
    door: Arc<Door>,
    ticket: u64,
    decided: oneshot::Receiver<Result<u64, ProviderError>>,
}

impl Door {
    pub fn new(account: String, limits: AccountLimits, patience: Patience) -> Self {
        let state = State { governor: Governor::new(limits, patience), waiting: HashMap::new() };
        Self { account, origin: Instant::now(), state: Mutex::new(state), next: watch::Sender::new(None) }
    }

    /// Waits until an attempt may be made; `on_wait` is told why, if it may not be made at once.
    pub async fn enter(
        self: &Arc<Self>,
        asked: Asked<'_>,
        longest: Duration,
        on_wait: impl FnOnce(WaitsFor, Option<Duration>),
    ) -> Result<Permit, ProviderError> {
        let (mut place, because) = match self.ask(asked) {
            Asking::Go(permit) => return Ok(permit),
            Asking::Waits(place, because) => (place, because),
            Asking::QueueIsFull => return Err(self.too_many()),
        };
        let mut next = self.next.subscribe();
        // Whoever came in may go at once, also past others who wait for something else.
        if let Ok(decided) = place.decided.try_recv() {
            return self.permit(decided);
        }
        let at = *next.borrow();
        on_wait(because, at.map(|at| self.instant(at).saturating_duration_since(Instant::now())));
        let give_up = Instant::now() + longest;
        loop {
            let at = next.borrow_and_update().map(|at| self.instant(at));
            tokio::select! {
                biased;
                decided = &mut place.decided => {
                    return self.permit(decided.expect("whoever waits is answered before it is forgotten"));
                }
                _ = next.changed() => {}
                () = sleep_until(at.unwrap_or(give_up).min(give_up)) => {
                    if Instant::now() >= give_up {
                        return Err(self.waited_too_long(longest));
                    }
                    self.look_again();
                }
            }
        }
    }

    /// Returns how long the vendor's refusals keep requests for a model out.
    pub fn is_shut_for(&self, model: &str) -> Duration {
        let now = self.now();
        Duration::from_millis(self.lock().governor.opens_at(model, now).saturating_sub(now))
    }

    fn ask(self: &Arc<Self>, asked: Asked<'_>) -> Asking {
        let now = self.now();
        let mut state = self.lock();
        match state.governor.enter(asked, now) {
            Entered::Attempt(number) => Asking::Go(Permit { door: Arc::clone(self), attempt: Some(number) }),
            Entered::QueueIsFull => Asking::QueueIsFull,
            Entered::Waits { ticket, because } => {
                let (sender, decided) = oneshot::channel();
                state.waiting.insert(ticket, sender);
                self.decide(&mut state, now);
                Asking::Waits(Place { door: Arc::clone(self), ticket, decided }, because)
            }
        }
    }

    fn look_again(&self) {
        let now = self.now();
        // Only the first of all those whose clock went off has anything to do.
        if self.next.borrow().is_none_or(|at| at > now) {
            return;
        }
        self.decide(&mut self.lock(), now);
    }

    /// Lets everybody go who may.
    fn decide(&self, state: &mut State, now: u64) {
        for (ticket, decided) in state.governor.decide(now) {
            if let Some(waiting) = state.waiting.remove(&ticket) {
                // Its place cannot be gone: whoever gives one up takes the lock first.
                let _ = waiting.send(decided);
            }
        }
        let next = state.governor.decides_again_at(now);
        self.next.send_if_modified(|known| std::mem::replace(known, next) != next);
    }

    fn permit(self: &Arc<Self>, decided: Result<u64, ProviderError>) -> Result<Permit, ProviderError> {
        decided.map(|number| Permit { door: Arc::clone(self), attempt: Some(number) })
    }

    fn ended(&self, attempt: u64, how: Ended<'_>) {
        let now = self.now();
        let mut state = self.lock();
        state.governor.ended(attempt, how, now);
        self.decide(&mut state, now);
    }

    fn too_many(&self) -> ProviderError {
        ProviderError::new(
            FailureKind::RateLimit,
            format!("{MAX_WAITING} requests wait for the account {} already; there is no room for more", self.account),
        )
    }

    fn waited_too_long(&self, longest: Duration) -> ProviderError {
        ProviderError::new(
            FailureKind::RateLimit,
            format!("it was not this request's turn at the account {} for {} s", self.account, longest.as_secs()),
        )
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics with the governor")
    }

    fn now(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn instant(&self, at: u64) -> Instant {
        self.origin + Duration::from_millis(at.min(FAR_AWAY_MS))
    }

    /// Whether nobody waits and nothing is under way.
    pub fn is_idle(&self) -> bool {
        let state = self.lock();
        state.governor.is_idle() && state.waiting.is_empty()
    }
}

enum Asking {
    Go(Permit),
    Waits(Place, WaitsFor),
    QueueIsFull,
}

impl Permit {
    /// The answer begins.
    pub fn let_in(&self) {
        let Some(attempt) = self.attempt else { return };
        let now = self.door.now();
        let mut state = self.door.lock();
        state.governor.let_in(attempt, now);
        self.door.decide(&mut state, now);
    }

    pub fn learn(&self, readings: &[Reading]) {
        let Some(attempt) = self.attempt else { return };
        let now = self.door.now();
        let mut state = self.door.lock();
        state.governor.learn(attempt, readings, now);
        self.door.decide(&mut state, now);
    }

    pub fn ended(mut self, how: Ended<'_>) {
        if let Some(attempt) = self.attempt.take() {
            self.door.ended(attempt, how);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(attempt) = self.attempt {
            self.door.ended(attempt, Ended::Dropped);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let now = self.door.now();
        let mut state = self.door.lock();
        if state.waiting.remove(&self.ticket).is_some() {
            state.governor.leave(self.ticket, now);
        } else if let Ok(Ok(attempt)) = self.decided.try_recv() {
            state.governor.ended(attempt, Ended::Dropped, now);
        }
        self.door.decide(&mut state, now);
    }
}
