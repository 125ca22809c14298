//! Budgets as people write them: `5usd`, `200k-tokens`, `20usd-quota`, and what holds for each request, turn, session and run.

use crate::{
    event::EventBody,
    id::{RunId, SessionId},
    ledger::LedgerOp,
    money::{Currency, PerMillion, Price, Rates},
    purse::{Amounts, PurseKey, Scope, Unit},
};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// The most of one unit.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Limit {
    pub unit: Unit,
    pub amount: u64,
}

/// Why a text is no limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BudgetError {
    #[error(
        "\"{0}\" is no budget (expected an amount of money such as 5usd or 0.50eur, of tokens such as 200k-tokens, or of a subscription's quota such as 20usd-quota)"
    )]
    Limit(String),
    #[error(
        "\"{0}\" does not say what to do about unknown prices (expected refuse, ignore, or assume:IN/OUT in USD for a million tokens, such as assume:3/15)"
    )]
    Unpriced(String),
}

impl FromStr for Limit {
    type Err = BudgetError;
    fn from_str(text: &str) -> Result<Self, BudgetError> {
        let wrong = || BudgetError::Limit(text.chars().take(60).collect());
        let lower = text.trim().to_ascii_lowercase();
        let end = lower.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '_').ok_or_else(wrong)?;
        let (number, rest) = lower.split_at(end);
        let number: PerMillion = number.replace('_', "").parse().map_err(|_| wrong())?;
        let (unit, scale) = match rest.trim_start_matches([' ', '-']) {
            "tokens" | "token" => (Unit::Tokens, 1),
            "k-tokens" | "ktokens" => (Unit::Tokens, 1_000),
            "m-tokens" | "mtokens" => (Unit::Tokens, 1_000_000),
            word => {
                let (name, is_quota) = word.strip_suffix("-quota").map_or((word, false), |name| (name, true));
                let currency: Currency = name.to_ascii_uppercase().parse().map_err(|_| wrong())?;
                (if is_quota { Unit::Quota(currency) } else { Unit::Money(currency) }, 1)
            }
        };
        // Money is counted in millionths, as the number is; tokens are whole.
        let amount = match unit {
            Unit::Tokens => {
                let scaled = number.0.checked_mul(scale).ok_or_else(wrong)?;
                if scaled % 1_000_000 != 0 {
                    return Err(wrong());
                }
                scaled / 1_000_000
            }
            _ => number.0,
        };
        if amount == 0 || amount > i64::MAX as u64 {
            return Err(wrong());
        }
        Ok(Self { unit, amount })
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.unit.show(self.amount))
    }
}

/// Over what a limit adds up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Span {
    Request,
    Turn,
    Session,
    Run,
    /// Of everybody who shares the journal, in UTC.
    Day,
    /// A calendar month of everybody who shares the journal.
    Organisation,
}

impl Span {
    pub const ALL: [Self; 6] = [Self::Request, Self::Turn, Self::Session, Self::Run, Self::Day, Self::Organisation];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Turn => "turn",
            Self::Session => "session",
            Self::Run => "run",
            Self::Day => "day",
            Self::Organisation => "organisation",
        }
    }

    /// Which purse of a request this is.
    pub fn of(purse: &PurseKey) -> Self {
        match purse {
            PurseKey::Request(..) => Self::Request,
            PurseKey::Turn(..) => Self::Turn,
            PurseKey::Session(_) => Self::Session,
            PurseKey::Run(_) => Self::Run,
            PurseKey::Day(_) => Self::Day,
            PurseKey::Organisation(_) => Self::Organisation,
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What happens under a limit of money to a model whose price nobody knows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Unpriced {
    #[default]
    Refuse,
    /// It is called, and counted as unpriced.
    Ignore,
    /// It is taken to cost so much: dollars for a million tokens of input, and of output.
    Assume { input: PerMillion, output: PerMillion },
}

impl Unpriced {
    /// The price that is assumed.
    pub fn price(&self) -> Option<Price> {
        let Self::Assume { input, output } = self else { return None };
        let rates = Rates { input: *input, output: *output, cache_read: None, cache_write: None, cache_write_1h: None };
        let currency = "USD".parse().expect("three letters");
        Some(Price { currency, rates, tiers: Vec::new() })
    }

    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Unpriced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refuse => f.write_str("refuse"),
            Self::Ignore => f.write_str("ignore"),
            Self::Assume { input, output } => write!(f, "assume:{input}/{output}"),
        }
    }
}

impl FromStr for Unpriced {
    type Err = BudgetError;
    fn from_str(text: &str) -> Result<Self, BudgetError> {
        let wrong = || BudgetError::Unpriced(text.chars().take(60).collect());
        match text {
            "refuse" => Ok(Self::Refuse),
            "ignore" => Ok(Self::Ignore),
            _ => {
                let (input, output) =
                    text.strip_prefix("assume:").and_then(|rates| rates.split_once('/')).ok_or_else(wrong)?;
                let price = |text: &str| text.parse().map_err(|_| wrong());
                Ok(Self::Assume { input: price(input)?, output: price(output)? })
            }
        }
    }
}

impl From<Unpriced> for String {
    fn from(unpriced: Unpriced) -> Self {
        unpriced.to_string()
    }
}

impl TryFrom<String> for Unpriced {
    type Error = BudgetError;
    fn try_from(text: String) -> Result<Self, BudgetError> {
        text.parse()
    }
}

/// The limits that something starts with; they can be changed later, which is in a log of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Budget {
    #[serde(skip_serializing_if = "Amounts::is_empty")]
    pub request: Amounts,
    #[serde(skip_serializing_if = "Amounts::is_empty")]
    pub turn: Amounts,
    #[serde(skip_serializing_if = "Amounts::is_empty")]
    pub session: Amounts,
    #[serde(skip_serializing_if = "Amounts::is_empty")]
    pub run: Amounts,
    #[serde(skip_serializing_if = "Unpriced::is_default")]
    pub unpriced: Unpriced,
}

impl Budget {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What it writes into the books for a session that starts.
    pub fn of_session(&self, session: &SessionId) -> Vec<LedgerOp> {
        let scopes = [
            (&self.request, Scope::Request(session.clone())),
            (&self.turn, Scope::Turn(session.clone())),
            (&self.session, Scope::Session(session.clone())),
        ];
        scopes.into_iter().flat_map(|(amounts, scope)| limits(amounts, scope)).collect()
    }

    /// What it writes into the books for a run that starts.
    pub fn of_run(&self, run: &RunId) -> Vec<LedgerOp> {
        limits(&self.run, Scope::Run(run.clone())).collect()
    }
}

fn limits(amounts: &Amounts, scope: Scope) -> impl Iterator<Item = LedgerOp> {
    amounts.0.iter().map(move |(unit, amount)| LedgerOp::Limit {
        scope: scope.clone(),
        unit: unit.clone(),
        amount: Some(*amount),
    })
}

/// One entry of the log of changed limits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum BudgetEvent {
    /// `None` lifts the limit.
    #[serde(rename = "budget.changed")]
    Changed { scope: Scope, unit: Unit, amount: Option<u64>, by: String },
}

impl EventBody for BudgetEvent {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_as_people_write_them() {
        let cases = [
            ("5usd", Some("5.00 USD")),
            ("0.5eur", Some("0.50 EUR")),
            ("0.000001 USD", Some("0.000001 USD")),
            ("20usd-quota", Some("20.00 USD of quota")),
            ("200k-tokens", Some("200000 tokens")),
            ("1.5m-tokens", Some("1500000 tokens")),
            ("1_000tokens", Some("1000 tokens")),
            ("0usd", None),
            ("5", None),
            ("usd", None),
            ("-5usd", None),
            ("5dollars", None),
            ("0.5tokens", None),
            ("0.0000001usd", None),
            ("99999999999999999999usd", None),
        ];
        for (text, expected) in cases {
            let found = text.parse::<Limit>().ok().map(|limit| limit.to_string());
            assert_eq!(found.as_deref(), expected, "{text}");
        }
        for text in ["refuse", "ignore", "assume:3.00/15.00"] {
            assert_eq!(text.parse::<Unpriced>().expect(text).to_string(), text);
        }
        for text in ["", "assume", "assume:3", "assume:a/b", "allow"] {
            assert!(text.parse::<Unpriced>().is_err(), "{text}");
        }
    }
}
