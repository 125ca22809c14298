//! When a failed attempt is worth another, and how long to wait for it.

use crate::{breaker::Pace, governor::Patience};
use adj_domain::FailureKind;
use std::time::Duration;

/// How a call is repeated. Every wait doubles, up to a bound, and is spread out by jitter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts in all, the first included.
    pub attempts: u32,
    pub first_wait: Duration,
    pub longest_wait: Duration,
    /// A vendor that asks for a longer wait than this is not waited for: the call fails, with its words.
    pub longest_retry_after: Duration,
    /// Nor is a vendor waited for that keeps saying that a limit is reached, for so long in all.
    pub patience: Duration,
    /// How long a request waits for its turn at most.
    pub longest_queue: Duration,
    /// No attempt starts later than this, not counting the time in the queue.
    pub whole: Duration,
    /// Makes the jitter repeatable; `None` takes the system's randomness.
    pub seed: Option<u64>,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 5,
            first_wait: Duration::from_millis(500),
            longest_wait: Duration::from_secs(30),
            longest_retry_after: Duration::from_secs(120),
            patience: Duration::from_secs(600),
            longest_queue: Duration::from_secs(3600),
            whole: Duration::from_secs(3600),
            seed: None,
        }
    }
}

impl RetryPolicy {
    pub(crate) fn patience(&self) -> Patience {
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Patience {
            pace: Pace {
                first_ms: milliseconds(self.first_wait).max(1),
                longest_ms: milliseconds(self.longest_wait).max(1),
                seed: self.seed.unwrap_or_else(|| getrandom::u64().unwrap_or_default()),
            },
            longest_ms: milliseconds(self.longest_retry_after),
            in_all_ms: milliseconds(self.patience),
        }
    }

    /// Returns how long to wait after the failed attempt number `attempt`, or `None` where another would be of no use.
    pub fn wait_after(
        &self,
        attempt: u32,
        kind: FailureKind,
        retry_after: Option<Duration>,
        jitter: &mut Jitter,
    ) -> Option<Duration> {
        if attempt >= self.attempts || !may_pass(kind) {
            return None;
        }
        let doublings = attempt.saturating_sub(1).min(16);
        let backoff = self.first_wait.saturating_mul(1 << doublings).min(self.longest_wait);
        match retry_after {
            Some(asked) if asked > self.longest_retry_after => None,
            // Never earlier than asked; a little later, so that a fleet does not come back in one instant.
            Some(asked) => Some(asked + jitter.part_of(self.first_wait)),
            None => Some(backoff / 2 + jitter.part_of(backoff / 2)),
        }
    }
}

/// Attempts in all where there is nobody at home: that rarely passes within seconds, and costs nobody anything to say.
pub const ATTEMPTS_TO_CONNECT: u32 = 3;

/// Whether the same request may go through when it is sent again.
fn may_pass(kind: FailureKind) -> bool {
    match kind {
        FailureKind::Connection
        | FailureKind::Timeout
        | FailureKind::RateLimit
        | FailureKind::Overloaded
        | FailureKind::Server
        | FailureKind::Protocol => true,
        FailureKind::Authentication
        | FailureKind::Billing
        | FailureKind::InvalidRequest
        | FailureKind::ContextTooLong
        | FailureKind::Cancelled
        | FailureKind::Budget => false,
    }
}

/// A small generator (SplitMix64): spreading waits needs no more.
#[derive(Debug, Clone)]
pub struct Jitter(u64);

impl Jitter {
    pub fn new(seed: Option<u64>) -> Self {
        Self(seed.unwrap_or_else(|| getrandom::u64().unwrap_or_default()))
    }

    /// Returns a time from zero up to `whole`.
    fn part_of(&mut self, whole: Duration) -> Duration {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^= bits >> 31;
        whole.mul_f64((bits >> 11) as f64 / (1u64 << 53) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use FailureKind::*;

    #[test]
    fn waits_grow_within_their_bounds_and_hopeless_failures_end_at_once() {
        let policy = RetryPolicy { seed: Some(7), ..RetryPolicy::default() };
        let ms = Duration::from_millis;
        let seconds = Duration::from_secs;
        let cases = [
            // attempt, kind,           retry-after,         expected range (None: no retry)
            (1, Overloaded, None, Some((ms(250), ms(500)))),
            (2, Server, None, Some((ms(500), ms(1000)))),
            (4, Connection, None, Some((ms(2000), ms(4000)))),
            (5, Connection, None, None),
            (1, RateLimit, Some(seconds(7)), Some((seconds(7), ms(7500)))),
            (1, RateLimit, Some(ms(0)), Some((ms(0), ms(500)))),
            (1, RateLimit, Some(seconds(121)), None),
            (1, Timeout, None, Some((ms(250), ms(500)))),
            (1, Protocol, None, Some((ms(250), ms(500)))),
            (1, InvalidRequest, None, None),
            (1, InvalidRequest, Some(seconds(1)), None),
            (1, Authentication, None, None),
            (1, Billing, None, None),
            (1, ContextTooLong, None, None),
            (1, Cancelled, None, None),
        ];
        for (attempt, kind, retry_after, expected) in cases {
            let mut jitter = Jitter::new(policy.seed);
            for _ in 0..100 {
                let found = policy.wait_after(attempt, kind, retry_after, &mut jitter);
                let context = format!("attempt {attempt}, {kind:?}, {retry_after:?}: {found:?}");
                match expected {
                    Some((from, to)) => assert!(found.is_some_and(|wait| (from..=to).contains(&wait)), "{context}"),
                    None => assert_eq!(found, None, "{context}"),
                }
            }
        }
        let late = RetryPolicy { attempts: 100, ..policy };
        let wait = late.wait_after(90, Server, None, &mut Jitter::new(Some(1)));
        assert!(wait.is_some_and(|wait| wait <= late.longest_wait), "{wait:?}");
    }

    #[test]
    fn the_same_seed_gives_the_same_waits() {
        let waits = |seed| {
            let mut jitter = Jitter::new(Some(seed));
            (0..5).map(|_| jitter.part_of(Duration::from_secs(1))).collect::<Vec<_>>()
        };
        assert_eq!(waits(1), waits(1));
        assert_ne!(waits(1), waits(2));
    }
}
