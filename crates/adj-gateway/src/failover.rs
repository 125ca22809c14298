//! When a request goes on to another model, and what it cannot take along. Decides only; the gateway walks.
//!
//! A request moves between two attempts and never within one, so that no step is made of two halves. Each model of the list
//! is tried once. What would fail anywhere, or what a vendor has judged, never moves.

use adj_domain::{FailureKind, Item, ModelRef, ModelRequest};
use serde::Deserialize;
use std::{collections::BTreeSet, time::Duration};

/// Attempts on all models of a list together.
pub const MOST_ATTEMPTS: u32 = 8;
/// Models that one list may name.
pub const MOST_TARGETS: usize = 8;

/// Models that answer one after the other, and what makes a request go on to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failover {
    /// The first is the one that is meant.
    pub targets: Vec<ModelRef>,
    pub move_on: BTreeSet<Reason>,
    /// A limit that lasts no longer is waited for.
    pub stay: Duration,
}

/// What may make a request go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reason {
    Overloaded,
    Limit,
    Auth,
    Billing,
    Connection,
    Timeout,
    Server,
    Protocol,
}

impl Reason {
    pub const ALL: [Self; 8] = [
        Self::Overloaded,
        Self::Limit,
        Self::Auth,
        Self::Billing,
        Self::Connection,
        Self::Timeout,
        Self::Server,
        Self::Protocol,
    ];

    /// The word for it, as it is written in files.
    pub fn word(self) -> &'static str {
        match self {
            Self::Overloaded => "overloaded",
            Self::Limit => "limit",
            Self::Auth => "auth",
            Self::Billing => "billing",
            Self::Connection => "connection",
            Self::Timeout => "timeout",
            Self::Server => "server",
            Self::Protocol => "protocol",
        }
    }

    /// `None` for what never moves: elsewhere it would hide a mistake, or shop for another verdict.
    pub fn of(kind: FailureKind) -> Option<Self> {
        match kind {
            FailureKind::Overloaded => Some(Self::Overloaded),
            FailureKind::RateLimit => Some(Self::Limit),
            FailureKind::Authentication => Some(Self::Auth),
            FailureKind::Billing => Some(Self::Billing),
            FailureKind::Connection => Some(Self::Connection),
            FailureKind::Timeout => Some(Self::Timeout),
            FailureKind::Server => Some(Self::Server),
            FailureKind::Protocol => Some(Self::Protocol),
            FailureKind::InvalidRequest
            | FailureKind::ContextTooLong
            | FailureKind::Cancelled
            | FailureKind::Budget => None,
        }
    }

    /// Attempts at one model before the request goes on.
    fn attempts(self) -> u32 {
        match self {
            Self::Auth | Self::Billing | Self::Limit => 1,
            Self::Timeout | Self::Protocol => 2,
            Self::Connection | Self::Overloaded | Self::Server => 3,
        }
    }
}

impl Failover {
    /// A list with the rules that hold where nobody says otherwise.
    pub fn to(targets: Vec<ModelRef>) -> Self {
        Self { targets, move_on: Reason::ALL.into(), stay: Duration::from_secs(30) }
    }

    /// Whether a failure of this kind may move a request at all.
    pub fn is_moved_by(&self, kind: FailureKind) -> bool {
        Reason::of(kind).is_some_and(|reason| self.move_on.contains(&reason))
    }

    /// Whether it is time to go on after a failed attempt: the `failures`-th at this model, limits not counted, whose door stays
    /// shut for so long after the request has queued for so long.
    pub fn goes_on(&self, kind: FailureKind, failures: u32, shut_for: Duration, queued: Duration) -> bool {
        self.is_moved_by(kind)
            && match Reason::of(kind) {
                Some(Reason::Limit) => queued.saturating_add(shut_for) > self.stay,
                Some(reason) => failures >= reason.attempts(),
                None => false,
            }
    }

    /// The models in the order in which a request tries them that begins at `first`: home comes again at the end.
    pub fn order(&self, first: usize) -> impl Iterator<Item = (usize, &ModelRef)> {
        self.places(first).map(|place| (place, &self.targets[place]))
    }

    /// The same, by their places in the list.
    pub fn places(&self, first: usize) -> impl Iterator<Item = usize> + use<> {
        let count = self.targets.len();
        (0..count).map(move |step| (first + step) % count)
    }
}

/// What a request cannot take along from one model to another.
pub fn losses(request: &ModelRequest, from: &ModelRef) -> Vec<String> {
    let is_theirs = |item: &&Item| matches!(item, Item::Reasoning { vendor, model, .. } if *vendor == from.vendor && *model == from.name);
    let records = request.items.iter().filter(is_theirs).count();
    let is_begun = request.items.iter().any(|item| !matches!(item, Item::User { .. }));
    let reasoning = match records {
        0 => None,
        1 => Some("1 record of reasoning".to_owned()),
        count => Some(format!("{count} records of reasoning")),
    };
    reasoning.into_iter().chain(is_begun.then(|| "the vendor's cache".to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use FailureKind::*;
    use proptest::prelude::*;

    const KINDS: [FailureKind; 12] = [
        Connection,
        Timeout,
        Authentication,
        Billing,
        RateLimit,
        Overloaded,
        InvalidRequest,
        ContextTooLong,
        Protocol,
        Server,
        Cancelled,
        Budget,
    ];

    fn failover(count: usize) -> Failover {
        let targets = (0..count).map(|place| format!("v{place}/m").parse().expect("a model"));
        Failover::to(targets.collect())
    }

    #[test]
    fn each_reason_has_its_patience_and_some_never_move() {
        let seconds = Duration::from_secs;
        let cases = [
            // kind, at which failure it goes on at first (None: never)
            (Overloaded, Some(3)),
            (Server, Some(3)),
            (Connection, Some(3)),
            (Timeout, Some(2)),
            (Protocol, Some(2)),
            (Authentication, Some(1)),
            (Billing, Some(1)),
            (InvalidRequest, None),
            (ContextTooLong, None),
            (Cancelled, None),
            (Budget, None),
        ];
        for (kind, expected) in cases {
            let first = (1..100).find(|failures| failover(2).goes_on(kind, *failures, Duration::ZERO, Duration::ZERO));
            assert_eq!(first, expected, "{kind:?}");
        }
        let limits = [((0, 0), false), ((30, 0), false), ((31, 0), true), ((20, 10), false), ((20, 11), true)];
        for ((shut, queued), expected) in limits {
            let goes_on = failover(2).goes_on(RateLimit, 0, seconds(shut), seconds(queued));
            assert_eq!(goes_on, expected, "shut for {shut} s after {queued} s");
        }
        let only_limits = Failover { move_on: [Reason::Limit].into(), ..failover(2) };
        assert!(KINDS.into_iter().filter(|kind| only_limits.is_moved_by(*kind)).eq([RateLimit]));
    }

    #[test]
    fn words_are_read_as_they_are_written() {
        for reason in Reason::ALL {
            let word = serde_json::Value::from(reason.word());
            assert_eq!(Reason::deserialize(word).expect("it is a word"), reason);
        }
    }

    proptest! {
        #[test]
        fn every_model_is_tried_once_wherever_a_request_begins(count in 1usize..MOST_TARGETS, first in 0usize..MOST_TARGETS) {
            let failover = failover(count);
            let order: Vec<usize> = failover.order(first % count).map(|(place, _)| place).collect();
            prop_assert_eq!(order[0], first % count);
            prop_assert_eq!(order.iter().copied().collect::<BTreeSet<_>>().len(), count);
            prop_assert_eq!(order.len(), count);
        }
    }
}
