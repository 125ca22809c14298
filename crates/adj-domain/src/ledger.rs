//! Who may spend what: holds are opened before a request leaves and closed by what it cost. One function changes the books,
//! whatever they are kept in.
//!
//! Must not know: what a request is, or where prices come from.

use crate::{
    id::{EventId, RunId, SessionId},
    purse::{Amounts, AttemptId, Charge, PurseKey, Scope, Unit},
};
use jiff::{Timestamp, civil::Date};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, convert::Infallible};

/// The most that is counted, in any unit: what every kind of books can hold.
const MOST: u64 = i64::MAX as u64;

/// What has been paid out of a purse, and what is set aside in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Purse {
    /// The least that was spent.
    pub at_least: u64,
    /// The most that was spent, which is what limits look at.
    pub at_most: u64,
    pub held: u64,
}

/// What is set aside for one attempt, in each of its purses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    pub attempt: AttemptId,
    pub purses: Vec<PurseKey>,
    /// The most that it can cost.
    pub amounts: Amounts,
    /// Limits that no book keeps: the policy of whoever asks. They hold beside those that are kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub caps: Vec<Cap>,
    /// Why the amounts are not all that it can cost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap: Option<Gap>,
}

/// A limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cap {
    pub scope: Scope,
    pub unit: Unit,
    pub amount: u64,
}

/// Why nobody knows how much an attempt can cost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Gap {
    /// Its money, or what it takes of a quota.
    NoPrice { model: String, is_quota: bool },
    /// Its tokens, and so its money too.
    Unboundable { field: String },
}

/// What was set aside for a request before it left, as its log tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    /// In UTC, when it left: it belongs to this day also when it ends on another.
    pub day: Date,
    pub amounts: Amounts,
    /// The answer may be no longer than this, because more did not fit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_output_tokens: Option<u32>,
}

impl Reservation {
    /// What is set aside now.
    pub fn new(now: Timestamp, amounts: Amounts, max_output_tokens: Option<u32>) -> Self {
        Self { day: now.to_zoned(jiff::tz::TimeZone::UTC).date(), amounts, max_output_tokens }
    }

    /// The hold of the first attempt at a request.
    pub fn hold(&self, session: &SessionId, run: Option<&RunId>, turn: u32, request: &EventId) -> Hold {
        let mut purses = vec![
            PurseKey::Request(session.clone(), request.clone()),
            PurseKey::Turn(session.clone(), turn),
            PurseKey::Session(session.clone()),
        ];
        purses.extend(run.cloned().map(PurseKey::Run));
        purses.extend([PurseKey::Day(self.day), PurseKey::Organisation(self.day.first_of_month())]);
        let attempt = AttemptId::first(request.clone());
        Hold { attempt, purses, amounts: self.amounts.clone(), caps: Vec::new(), gap: None }
    }
}

/// A change of the books.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum LedgerOp {
    Open {
        hold: Hold,
    },
    /// The first close of an attempt counts.
    Close {
        attempt: AttemptId,
        charge: Charge,
    },
    /// Nobody knows what became of it: it counts as spent in full.
    Assume {
        attempt: AttemptId,
    },
    /// `None` lifts the limit.
    Limit {
        scope: Scope,
        unit: Unit,
        amount: Option<u64>,
    },
}

/// Why an attempt may not be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Refusal {
    /// It does not fit, however the attempts under way turn out.
    #[error("the budget of {purse} is spent: {} of {}, and this would take up to {} more", unit.show(*spent), unit.show(*limit), unit.show(*needed))]
    Spent { purse: PurseKey, unit: Unit, limit: u64, spent: u64, needed: u64 },
    /// It may fit once others under way have come to their ends.
    #[error("what is left of the budget of {purse} is set aside for requests under way: {} of {} spent, {} set aside, and this would take up to {} more", unit.show(*spent), unit.show(*limit), unit.show(*held), unit.show(*needed))]
    Held { purse: PurseKey, unit: Unit, limit: u64, spent: u64, held: u64, needed: u64 },
    #[error("the price of {model} in {unit} is not known, so the budget of {purse} cannot be held to")]
    NoPrice { purse: PurseKey, unit: Unit, model: String },
    #[error("nobody can tell how much {field} comes to, so the budget of {purse} cannot be held to")]
    Unboundable { purse: PurseKey, field: String },
}

impl Refusal {
    pub fn purse(&self) -> &PurseKey {
        match self {
            Self::Spent { purse, .. }
            | Self::Held { purse, .. }
            | Self::NoPrice { purse, .. }
            | Self::Unboundable { purse, .. } => purse,
        }
    }
}

/// What is known of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HoldState {
    Open(Hold),
    Closed,
}

/// Where books are kept.
pub trait Rows {
    type Error;
    fn purse(&mut self, key: &PurseKey, unit: &Unit) -> Result<Purse, Self::Error>;
    fn put_purse(&mut self, key: &PurseKey, unit: &Unit, purse: Purse) -> Result<(), Self::Error>;
    fn limits(&mut self, scope: &Scope) -> Result<Amounts, Self::Error>;
    fn put_limit(&mut self, scope: &Scope, unit: &Unit, amount: Option<u64>) -> Result<(), Self::Error>;
    fn hold(&mut self, attempt: &AttemptId) -> Result<Option<HoldState>, Self::Error>;
    fn put_hold(&mut self, attempt: &AttemptId, state: &HoldState) -> Result<(), Self::Error>;
}

/// The only place where books change. A refusal changes nothing.
pub fn apply<R: Rows>(rows: &mut R, op: &LedgerOp) -> Result<Result<(), Refusal>, R::Error> {
    match op {
        LedgerOp::Open { hold } => {
            // An answer that was lost is asked for again.
            if rows.hold(&hold.attempt)?.is_some() {
                return Ok(Ok(()));
            }
            if let Some(refusal) = refusal(rows, hold)? {
                return Ok(Err(refusal));
            }
            for key in &hold.purses {
                for (unit, amount) in &hold.amounts.0 {
                    let purse = rows.purse(key, unit)?;
                    rows.put_purse(key, unit, Purse { held: plus(purse.held, *amount), ..purse })?;
                }
            }
            rows.put_hold(&hold.attempt, &HoldState::Open(hold.clone()))?;
        }
        LedgerOp::Close { attempt, charge } => {
            if let Some(HoldState::Open(hold)) = rows.hold(attempt)? {
                close(rows, &hold, charge)?;
            }
        }
        LedgerOp::Assume { attempt } => {
            if let Some(HoldState::Open(hold)) = rows.hold(attempt)? {
                close(rows, &hold, &Charge::up_to(hold.amounts.clone()))?;
            }
        }
        LedgerOp::Limit { scope, unit, amount } => {
            rows.put_limit(scope, unit, amount.map(|amount| amount.min(MOST)))?;
        }
    }
    Ok(Ok(()))
}

fn plus(one: u64, other: u64) -> u64 {
    one.saturating_add(other).min(MOST)
}

fn close<R: Rows>(rows: &mut R, hold: &Hold, charge: &Charge) -> Result<(), R::Error> {
    let units = hold.amounts.0.keys().chain(charge.at_least.0.keys()).chain(charge.at_most.0.keys());
    let units: std::collections::BTreeSet<_> = units.collect();
    for key in &hold.purses {
        for unit in &units {
            let purse = rows.purse(key, unit)?;
            let closed = Purse {
                at_least: plus(purse.at_least, charge.at_least.get(unit)),
                at_most: plus(purse.at_most, charge.at_most.get(unit)),
                held: purse.held.saturating_sub(hold.amounts.get(unit)),
            };
            rows.put_purse(key, unit, closed)?;
        }
    }
    rows.put_hold(&hold.attempt, &HoldState::Closed)
}

/// A line that can never fit goes before one that only has to wait.
fn refusal<R: Rows>(rows: &mut R, hold: &Hold) -> Result<Option<Refusal>, R::Error> {
    let mut waits = None;
    for key in &hold.purses {
        let scope = key.scope();
        let kept = rows.limits(&scope)?.0.into_iter();
        let caps = hold.caps.iter().filter(|cap| cap.scope == scope).map(|cap| (cap.unit.clone(), cap.amount));
        for (unit, limit) in kept.chain(caps) {
            if let Some(refusal) = gap(key, &unit, hold) {
                return Ok(Some(refusal));
            }
            let needed = hold.amounts.get(&unit);
            if needed == 0 {
                continue;
            }
            let Purse { at_most: spent, held, .. } = rows.purse(key, &unit)?;
            let purse = key.clone();
            if plus(spent, needed) > limit {
                return Ok(Some(Refusal::Spent { purse, unit, limit, spent, needed }));
            }
            if plus(plus(spent, held), needed) > limit {
                waits.get_or_insert(Refusal::Held { purse, unit, limit, spent, held, needed });
            }
        }
    }
    Ok(waits)
}

/// Why a limit in this unit cannot be held to at all.
fn gap(purse: &PurseKey, unit: &Unit, hold: &Hold) -> Option<Refusal> {
    let purse = || purse.clone();
    match (&hold.gap, unit) {
        (Some(Gap::Unboundable { field }), _) => Some(Refusal::Unboundable { purse: purse(), field: field.clone() }),
        (Some(Gap::NoPrice { model, is_quota: false }), Unit::Money(_))
        | (Some(Gap::NoPrice { model, is_quota: true }), Unit::Quota(_)) => {
            Some(Refusal::NoPrice { purse: purse(), unit: unit.clone(), model: model.clone() })
        }
        _ => {
            // Nobody knows what a price in another currency comes to in this one.
            let is_like = |other: &Unit| match (unit, other) {
                (Unit::Money(one), Unit::Money(other)) | (Unit::Quota(one), Unit::Quota(other)) => one != other,
                _ => false,
            };
            let other = hold.amounts.0.iter().find(|(other, amount)| **amount > 0 && is_like(other))?;
            let model = format!("what costs {}", other.0);
            Some(Refusal::NoPrice { purse: purse(), unit: unit.clone(), model })
        }
    }
}

/// Books in memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Book {
    pub purses: BTreeMap<(PurseKey, Unit), Purse>,
    pub limits: BTreeMap<(Scope, Unit), u64>,
    pub open: BTreeMap<AttemptId, Hold>,
    pub closed: std::collections::BTreeSet<AttemptId>,
}

impl Book {
    pub fn apply(&mut self, op: &LedgerOp) -> Result<(), Refusal> {
        let Ok(applied) = apply(self, op);
        applied
    }

    pub fn purse(&self, key: &PurseKey, unit: &Unit) -> Purse {
        self.purses.get(&(key.clone(), unit.clone())).copied().unwrap_or_default()
    }
}

impl Rows for Book {
    type Error = Infallible;

    fn purse(&mut self, key: &PurseKey, unit: &Unit) -> Result<Purse, Infallible> {
        Ok(Book::purse(self, key, unit))
    }

    fn put_purse(&mut self, key: &PurseKey, unit: &Unit, purse: Purse) -> Result<(), Infallible> {
        self.purses.insert((key.clone(), unit.clone()), purse);
        Ok(())
    }

    fn limits(&mut self, scope: &Scope) -> Result<Amounts, Infallible> {
        let of_scope = self.limits.iter().filter(|((of, _), _)| of == scope);
        Ok(of_scope.map(|((_, unit), amount)| (unit.clone(), *amount)).collect())
    }

    fn put_limit(&mut self, scope: &Scope, unit: &Unit, amount: Option<u64>) -> Result<(), Infallible> {
        let key = (scope.clone(), unit.clone());
        match amount {
            Some(amount) => self.limits.insert(key, amount),
            None => self.limits.remove(&key),
        };
        Ok(())
    }

    fn hold(&mut self, attempt: &AttemptId) -> Result<Option<HoldState>, Infallible> {
        let closed = self.closed.contains(attempt).then_some(HoldState::Closed);
        Ok(closed.or_else(|| self.open.get(attempt).cloned().map(HoldState::Open)))
    }

    fn put_hold(&mut self, attempt: &AttemptId, state: &HoldState) -> Result<(), Infallible> {
        match state {
            HoldState::Open(hold) => {
                self.open.insert(attempt.clone(), hold.clone());
            }
            HoldState::Closed => {
                self.open.remove(attempt);
                self.closed.insert(attempt.clone());
            }
        }
        Ok(())
    }
}
