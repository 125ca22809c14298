//! The way of one request along its list of models, and who has been led away from home by it.

use crate::{
    Failover, RetryPolicy,
    door::Door,
    failover::{MOST_ATTEMPTS, Reason},
    passage::Passage,
};
use adj_domain::{FailureKind, ModelRef, Moved};
use adj_providers::ProviderError;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// How far a request has come, also when it ends in the middle.
#[derive(Debug)]
pub struct Way {
    failover: Arc<Failover>,
    policy: RetryPolicy,
    started: Instant,
    /// One for each model that was asked.
    passages: Vec<Passage>,
    pub moved: Vec<Moved>,
}

impl Way {
    pub fn new(failover: Arc<Failover>, policy: RetryPolicy) -> Self {
        Self { failover, policy, started: Instant::now(), passages: Vec::new(), moved: Vec::new() }
    }

    /// Turns to the next model, whose account has this door. Where yet another could answer too, nobody waits longer than the
    /// list says; the last one has what is left of a request's patience.
    pub fn turn_to(&mut self, door: &Arc<Door>, is_followed: bool) -> &mut Passage {
        let mut policy = self.policy.clone();
        policy.longest_queue = policy.longest_queue.saturating_sub(self.queued());
        if is_followed && self.failover.is_moved_by(FailureKind::RateLimit) {
            policy.longest_queue = policy.longest_queue.min(self.failover.stay);
        }
        if !self.passages.is_empty() {
            policy.attempts = policy.attempts.min(MOST_ATTEMPTS.saturating_sub(self.attempts()).max(1));
        }
        let onward = is_followed.then(|| Arc::clone(&self.failover));
        self.passages.push(Passage::new(door, &policy, onward));
        self.passage()
    }

    /// The way to the model that is asked now.
    pub fn passage(&mut self) -> &mut Passage {
        self.passages.last_mut().expect("a request turns to a model before it goes anywhere")
    }

    /// Whether a request that has failed for good at one model may go on to another.
    pub fn goes_on(&self, error: &ProviderError) -> bool {
        let is_late = self.started.elapsed().saturating_sub(self.queued()) >= self.policy.whole;
        self.failover.is_moved_by(error.kind) && !is_late && self.attempts() < MOST_ATTEMPTS
    }

    pub fn attempts(&self) -> u32 {
        self.passages.iter().map(|passage| passage.attempts).sum()
    }

    pub fn queued(&self) -> Duration {
        self.passages.iter().map(Passage::queued).sum()
    }

    /// Since when the request is under way.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Adds to the last failure those that came before it.
    pub fn retold(&self, mut error: ProviderError) -> ProviderError {
        for Moved { from, why, .. } in &self.moved {
            let why = Reason::of(*why).map_or("failed", Reason::word);
            error.message.push_str(&format!("; before that {from} was left ({why})"));
        }
        error
    }
}

/// Conversations whose whereabouts are remembered; one that is forgotten tries at home first.
const MOST_AWAY: usize = 10_000;

/// Who has been led away from home by a failure. They stay for a while, for the sake of caches and reasoning.
#[derive(Debug, Default)]
pub struct Whereabouts(Mutex<HashMap<String, Away>>);

#[derive(Debug)]
struct Away {
    asked_for: ModelRef,
    place: usize,
    stays: Stays,
}

/// How long a conversation stays where it was led.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stays {
    Turn(u32),
    /// Where nobody can tell turns apart.
    Until(Instant),
}

impl Whereabouts {
    /// Where in its list a request begins: at home, unless its conversation has been led away before.
    pub fn place_of(&self, who: &str, turn: Option<u32>, asked_for: &ModelRef) -> usize {
        let away = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let stays = |away: &&Away| match away.stays {
            Stays::Turn(stays) => turn == Some(stays),
            Stays::Until(until) => Instant::now() < until,
        };
        away.get(who).filter(|away| away.asked_for == *asked_for).filter(stays).map_or(0, |away| away.place)
    }

    /// Remembers that somebody was answered at this place. Who is away already stays no longer for it.
    pub fn remember(&self, who: &str, asked_for: &ModelRef, place: usize, stays: Stays) {
        let mut away = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if place == 0 {
            away.remove(who);
            return;
        }
        let is_there = |known: &Away| {
            known.place == place
                && known.asked_for == *asked_for
                && matches!(known.stays, Stays::Until(until) if Instant::now() < until)
        };
        if away.get(who).is_some_and(is_there) {
            return;
        }
        if away.len() >= MOST_AWAY {
            away.clear();
        }
        away.insert(who.to_owned(), Away { asked_for: asked_for.clone(), place, stays });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_was_led_away_stays_for_a_while_and_no_longer() {
        let asked: ModelRef = "route/x".parse().expect("a model");
        let other: ModelRef = "route/y".parse().expect("a model");
        let seconds = |seconds| Instant::now() + Duration::from_secs(seconds);
        let known = Whereabouts::default();
        known.remember("a", &asked, 1, Stays::Until(seconds(300)));
        known.remember("b", &asked, 2, Stays::Turn(7));
        assert_eq!(known.place_of("a", None, &asked), 1);
        assert_eq!((known.place_of("a", None, &other), known.place_of("c", None, &asked)), (0, 0));
        assert_eq!((known.place_of("b", Some(7), &asked), known.place_of("b", Some(8), &asked)), (2, 0));
        tokio::time::advance(Duration::from_secs(200)).await;
        // Whoever is there stays no longer for being answered there.
        known.remember("a", &asked, 1, Stays::Until(seconds(300)));
        assert_eq!(known.place_of("a", None, &asked), 1);
        tokio::time::advance(Duration::from_secs(101)).await;
        assert_eq!(known.place_of("a", None, &asked), 0);
        known.remember("b", &asked, 0, Stays::Turn(7));
        assert_eq!(known.place_of("b", Some(7), &asked), 0, "home again");
    }
}
