//! What is spent, and out of which purse: units that are never added to one another, and the keys of purses and of limits.

use crate::{
    id::{EventId, IdError, RunId, SessionId},
    money::{Currency, Micros},
};
use jiff::{Timestamp, civil::Date, tz::TimeZone};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt, str::FromStr};

/// What is counted. Money that is paid and quota of a subscription have units of their own, so that one is never taken for the other.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Unit {
    Tokens,
    /// In millionths.
    Money(Currency),
    /// What a subscription's use would have cost at list prices, in millionths.
    Quota(Currency),
    /// Attempts of models whose price nobody knows.
    Unpriced,
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tokens => f.write_str("tokens"),
            Self::Money(currency) => currency.fmt(f),
            Self::Quota(currency) => write!(f, "quota:{currency}"),
            Self::Unpriced => f.write_str("unpriced"),
        }
    }
}

impl FromStr for Unit {
    type Err = PurseError;
    fn from_str(text: &str) -> Result<Self, PurseError> {
        let currency = |text: &str| text.parse().map_err(|_| PurseError::Unit(text.to_owned()));
        match text {
            "tokens" => Ok(Self::Tokens),
            "unpriced" => Ok(Self::Unpriced),
            _ => match text.strip_prefix("quota:") {
                Some(rest) => currency(rest).map(Self::Quota),
                None => currency(text).map(Self::Money),
            },
        }
    }
}

impl From<Unit> for String {
    fn from(unit: Unit) -> Self {
        unit.to_string()
    }
}

impl TryFrom<String> for Unit {
    type Error = PurseError;
    fn try_from(text: String) -> Result<Self, PurseError> {
        text.parse()
    }
}

impl Unit {
    /// An amount of it, for people: `1.50 USD`, `200000 tokens`.
    pub fn show(&self, amount: u64) -> String {
        match self {
            Self::Tokens => format!("{amount} tokens"),
            Self::Money(currency) => format!("{} {currency}", Micros(amount)),
            Self::Quota(currency) => format!("{} {currency} of quota", Micros(amount)),
            Self::Unpriced => format!("{amount} unpriced"),
        }
    }
}

/// How much of each unit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Amounts(pub BTreeMap<Unit, u64>);

impl Amounts {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn get(&self, unit: &Unit) -> u64 {
        self.0.get(unit).copied().unwrap_or(0)
    }

    #[must_use]
    pub fn with(mut self, unit: Unit, amount: u64) -> Self {
        self.0.insert(unit, amount);
        self
    }
}

impl FromIterator<(Unit, u64)> for Amounts {
    fn from_iter<T: IntoIterator<Item = (Unit, u64)>>(amounts: T) -> Self {
        Self(amounts.into_iter().collect())
    }
}

/// What an attempt cost: one number where the vendor told its usage to the end, else somewhere between two.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Charge {
    pub at_least: Amounts,
    pub at_most: Amounts,
}

impl Charge {
    pub fn exactly(amounts: Amounts) -> Self {
        Self { at_least: amounts.clone(), at_most: amounts }
    }

    /// It may have cost anything up to this.
    pub fn up_to(amounts: Amounts) -> Self {
        Self { at_least: Amounts::default(), at_most: amounts }
    }

    /// Whether it cost nothing for sure.
    pub fn is_nothing(&self) -> bool {
        self.at_most.0.values().all(|amount| *amount == 0)
    }
}

/// What can be paid out of: each request is paid out of all the purses that it belongs to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum PurseKey {
    Request(SessionId, EventId),
    Turn(SessionId, u32),
    Session(SessionId),
    Run(RunId),
    /// In UTC.
    Day(Date),
    /// A calendar month, by its first day.
    Organisation(Date),
}

impl PurseKey {
    pub fn of_day(at: Timestamp) -> Self {
        Self::Day(at.to_zoned(TimeZone::UTC).date())
    }

    pub fn of_month(at: Timestamp) -> Self {
        Self::Organisation(at.to_zoned(TimeZone::UTC).date().first_of_month())
    }

    /// Where its limit stands.
    pub fn scope(&self) -> Scope {
        match self {
            Self::Request(session, _) => Scope::Request(session.clone()),
            Self::Turn(session, _) => Scope::Turn(session.clone()),
            Self::Session(session) => Scope::Session(session.clone()),
            Self::Run(run) => Scope::Run(run.clone()),
            Self::Day(_) => Scope::Day,
            Self::Organisation(_) => Scope::Organisation,
        }
    }
}

impl fmt::Display for PurseKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request(session, request) => write!(f, "request:{session}:{request}"),
            Self::Turn(session, turn) => write!(f, "turn:{session}:{turn}"),
            Self::Session(session) => write!(f, "session:{session}"),
            Self::Run(run) => write!(f, "run:{run}"),
            Self::Day(day) => write!(f, "day:{day}"),
            Self::Organisation(month) => write!(f, "organisation:{}", month.strftime("%Y-%m")),
        }
    }
}

impl FromStr for PurseKey {
    type Err = PurseError;
    fn from_str(text: &str) -> Result<Self, PurseError> {
        let wrong = || PurseError::Key(text.chars().take(200).collect());
        let (kind, rest) = text.split_once(':').ok_or_else(wrong)?;
        let parts = || rest.split_once(':').ok_or_else(wrong);
        Ok(match kind {
            "request" => Self::Request(parts()?.0.parse()?, parts()?.1.parse()?),
            "turn" => Self::Turn(parts()?.0.parse()?, parts()?.1.parse().map_err(|_| wrong())?),
            "session" => Self::Session(rest.parse()?),
            "run" => Self::Run(rest.parse()?),
            "day" => Self::Day(rest.parse().map_err(|_| wrong())?),
            "organisation" => Self::Organisation(format!("{rest}-01").parse().map_err(|_| wrong())?),
            _ => return Err(wrong()),
        })
    }
}

impl From<PurseKey> for String {
    fn from(key: PurseKey) -> Self {
        key.to_string()
    }
}

impl TryFrom<String> for PurseKey {
    type Error = PurseError;
    fn try_from(text: String) -> Result<Self, PurseError> {
        text.parse()
    }
}

/// What a limit is set on: each turn of a session has a purse of its own, and the same limit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Scope {
    /// Each request of a session, with all its attempts.
    Request(SessionId),
    /// Each turn of a session.
    Turn(SessionId),
    Session(SessionId),
    Run(RunId),
    /// Each day of everybody who shares the journal.
    Day,
    /// Each calendar month of everybody who shares the journal.
    Organisation,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request(session) => write!(f, "request:{session}"),
            Self::Turn(session) => write!(f, "turn:{session}"),
            Self::Session(session) => write!(f, "session:{session}"),
            Self::Run(run) => write!(f, "run:{run}"),
            Self::Day => f.write_str("day"),
            Self::Organisation => f.write_str("organisation"),
        }
    }
}

impl FromStr for Scope {
    type Err = PurseError;
    fn from_str(text: &str) -> Result<Self, PurseError> {
        Ok(match text.split_once(':') {
            None if text == "day" => Self::Day,
            None if text == "organisation" => Self::Organisation,
            Some(("request", session)) => Self::Request(session.parse()?),
            Some(("turn", session)) => Self::Turn(session.parse()?),
            Some(("session", session)) => Self::Session(session.parse()?),
            Some(("run", run)) => Self::Run(run.parse()?),
            _ => return Err(PurseError::Key(text.chars().take(200).collect())),
        })
    }
}

impl From<Scope> for String {
    fn from(scope: Scope) -> Self {
        scope.to_string()
    }
}

impl TryFrom<String> for Scope {
    type Error = PurseError;
    fn try_from(text: String) -> Result<Self, PurseError> {
        text.parse()
    }
}

/// One try at a request: it is what a vendor bills.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AttemptId {
    pub request: EventId,
    /// From 1.
    pub number: u32,
}

impl AttemptId {
    pub fn first(request: EventId) -> Self {
        Self { request, number: 1 }
    }

    #[must_use]
    pub fn next(&self) -> Self {
        Self { request: self.request.clone(), number: self.number + 1 }
    }
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.request, self.number)
    }
}

impl FromStr for AttemptId {
    type Err = PurseError;
    fn from_str(text: &str) -> Result<Self, PurseError> {
        let wrong = || PurseError::Key(text.chars().take(200).collect());
        let (request, number) = text.split_once('/').ok_or_else(wrong)?;
        Ok(Self { request: request.parse()?, number: number.parse().map_err(|_| wrong())? })
    }
}

impl From<AttemptId> for String {
    fn from(attempt: AttemptId) -> Self {
        attempt.to_string()
    }
}

impl TryFrom<String> for AttemptId {
    type Error = PurseError;
    fn try_from(text: String) -> Result<Self, PurseError> {
        text.parse()
    }
}

/// Why a text names no unit, no purse and no attempt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PurseError {
    #[error("\"{0}\" is no unit (expected tokens, a currency such as USD, or quota:USD)")]
    Unit(String),
    #[error("\"{0}\" names no purse")]
    Key(String),
    #[error(transparent)]
    Id(#[from] IdError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_as_they_were_written() {
        for text in ["tokens", "USD", "quota:EUR", "unpriced"] {
            assert_eq!(text.parse::<Unit>().expect(text).to_string(), text);
        }
        let keys = ["request:sesn_a:sevt_b", "turn:sesn_a:3", "session:sesn_a", "run:run_a", "day:2026-11-21"];
        for text in keys.into_iter().chain(["organisation:2026-11"]) {
            assert_eq!(text.parse::<PurseKey>().expect(text).to_string(), text);
        }
        for text in ["request:sesn_a", "turn:sesn_a", "session:sesn_a", "run:run_a", "day", "organisation"] {
            assert_eq!(text.parse::<Scope>().expect(text).to_string(), text);
        }
        assert_eq!("sevt_a/2".parse::<AttemptId>().expect("an attempt").to_string(), "sevt_a/2");
        for bad in [
            "",
            "usd",
            "quota:",
            "day:",
            "day:soon",
            "organisation:2026-11-21",
            "turn:sesn_a",
            "session:run_a",
            "sevt_a",
        ] {
            assert!(bad.parse::<Unit>().is_err() && bad.parse::<PurseKey>().is_err(), "{bad:?}");
            assert!(bad.parse::<AttemptId>().is_err(), "{bad:?}");
        }
    }
}
