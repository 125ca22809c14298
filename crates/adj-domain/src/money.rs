//! Money and prices, in whole numbers: nothing is rounded twice, and nothing is rounded down.

use crate::model::Usage;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// Millionths of a unit of a currency.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Micros(pub u64);

impl Micros {
    pub fn plus(self, other: Micros) -> Micros {
        Micros(self.0.saturating_add(other.0))
    }

    /// What came after `earlier`.
    pub fn minus(self, earlier: Micros) -> Micros {
        Micros(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for Micros {
    /// At least two decimals, and as many more as it takes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decimals = format!("{:06}", self.0 % 1_000_000);
        let kept = decimals.trim_end_matches('0').len().max(2);
        write!(f, "{}.{}", self.0 / 1_000_000, &decimals[..kept])
    }
}

/// Three letters, as banks write them: `USD`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Currency([u8; 3]);

impl FromStr for Currency {
    type Err = MoneyError;
    fn from_str(text: &str) -> Result<Self, MoneyError> {
        match text.as_bytes() {
            &[a, b, c] if [a, b, c].iter().all(u8::is_ascii_uppercase) => Ok(Self([a, b, c])),
            _ => Err(MoneyError::Currency(text.to_owned())),
        }
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|letter| write!(f, "{}", char::from(*letter)))
    }
}

impl From<Currency> for String {
    fn from(currency: Currency) -> Self {
        currency.to_string()
    }
}

impl TryFrom<String> for Currency {
    type Error = MoneyError;
    fn try_from(text: String) -> Result<Self, MoneyError> {
        text.parse()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    #[error("\"{0}\" is no currency (expected three capital letters, such as USD)")]
    Currency(String),
    #[error(
        "\"{0}\" is no price for a million tokens (expected a decimal number such as \"0.15\", with at most 6 decimals)"
    )]
    Price(String),
}

/// Millionths of a unit for a million tokens; written as a decimal number in quotes, because a float would be another price.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PerMillion(pub u64);

impl FromStr for PerMillion {
    type Err = MoneyError;
    fn from_str(text: &str) -> Result<Self, MoneyError> {
        let wrong = || MoneyError::Price(text.to_owned());
        let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole) || !digits(decimals) || decimals.len() > 6 {
            return Err(wrong());
        }
        let whole: u64 = whole.parse().map_err(|_| wrong())?;
        let decimals: u64 = format!("{decimals:0<6}").parse().map_err(|_| wrong())?;
        whole.checked_mul(1_000_000).and_then(|whole| whole.checked_add(decimals)).map(Self).ok_or_else(wrong)
    }
}

impl fmt::Display for PerMillion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Micros(self.0).fmt(f)
    }
}

impl From<PerMillion> for String {
    fn from(price: PerMillion) -> Self {
        price.to_string()
    }
}

impl TryFrom<String> for PerMillion {
    type Error = MoneyError;
    fn try_from(text: String) -> Result<Self, MoneyError> {
        text.parse()
    }
}

/// What a million tokens of each kind cost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rates {
    pub input: PerMillion,
    pub output: PerMillion,
    /// Where a vendor names none, what is read from its cache costs what input costs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_read: Option<PerMillion>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_write: Option<PerMillion>,
    /// What is kept for an hour; where a vendor names none, what other writing costs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_write_1h: Option<PerMillion>,
}

impl Rates {
    /// One rounding, upwards. `None` where the sum is beyond all money.
    fn charge(&self, usage: Usage) -> Option<Micros> {
        let written = self.cache_write.unwrap_or(self.input);
        let parts = [
            (usage.input_tokens, self.input),
            (usage.output_tokens, self.output),
            (usage.cache_read_tokens, self.cache_read.unwrap_or(self.input)),
            (usage.cache_write_tokens, written),
            (usage.cache_write_1h_tokens, self.cache_write_1h.unwrap_or(written)),
        ];
        let sum = parts.iter().try_fold(0u128, |sum, (tokens, price)| {
            sum.checked_add(u128::from(*tokens).checked_mul(u128::from(price.0))?)
        })?;
        u64::try_from(sum.div_ceil(1_000_000)).ok().map(Micros)
    }

    /// Where all of the input is of the dearest kind.
    fn at_most(&self, input_tokens: u64, output_tokens: u64) -> Option<Micros> {
        let kinds = [self.cache_read, self.cache_write, self.cache_write_1h];
        let dearest = kinds.into_iter().flatten().fold(self.input, PerMillion::max);
        let rates = Self { input: dearest, ..self.clone() };
        rates.charge(Usage { input_tokens, output_tokens, ..Usage::default() })
    }
}

/// Other rates for the whole request, once its context is longer than this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tier {
    pub over: u64,
    pub rates: Rates,
}

/// The price of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Price {
    pub currency: Currency,
    pub rates: Rates,
    /// In rising order of `over`.
    pub tiers: Vec<Tier>,
}

impl Price {
    pub fn charge(&self, usage: Usage) -> Option<Micros> {
        let tier = self.tiers.iter().rev().find(|tier| usage.context_tokens() > tier.over);
        tier.map_or(&self.rates, |tier| &tier.rates).charge(usage)
    }

    /// The most that a request can cost whose context and whose output are no longer than this, in whichever tier it ends up.
    pub fn at_most(&self, input_tokens: u64, output_tokens: u64) -> Option<Micros> {
        let tiers = self.tiers.iter().filter(|tier| input_tokens > tier.over).map(|tier| &tier.rates);
        let mut costs =
            std::iter::once(&self.rates).chain(tiers).map(|rates| rates.at_most(input_tokens, output_tokens));
        costs.try_fold(Micros(0), |most, cost| Some(most.max(cost?)))
    }
}

/// What a request cost, and by which price.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    #[serde(rename = "micros")]
    pub amount: Micros,
    pub currency: Currency,
    /// The entry of the catalogue, and its date.
    pub price: String,
    /// A subscription pays for it: it is what that would have cost, and no money.
    #[serde(default, skip_serializing_if = "is_false")]
    pub is_quota: bool,
}

fn is_false(flag: &bool) -> bool {
    !flag
}

/// A sum in one currency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount {
    pub currency: Currency,
    #[serde(rename = "micros")]
    pub amount: Micros,
}

/// What several requests cost together. Currencies are never added to one another.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Costs {
    /// In the order of their currencies.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub amounts: Vec<Amount>,
    /// What subscriptions were used for, at list prices: no money, and never added to it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub quota: Vec<Amount>,
    /// Answers of models whose price nobody knows.
    #[serde(skip_serializing_if = "crate::model::is_zero")]
    pub unpriced: u64,
}

impl Costs {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub fn add(&mut self, cost: Option<&Cost>) {
        match cost {
            Some(cost) if cost.is_quota => add_amount(&mut self.quota, &cost.currency, cost.amount),
            Some(cost) => add_amount(&mut self.amounts, &cost.currency, cost.amount),
            None => self.unpriced = self.unpriced.saturating_add(1),
        }
    }

    #[must_use]
    pub fn plus(mut self, other: &Costs) -> Costs {
        other.amounts.iter().for_each(|sum| add_amount(&mut self.amounts, &sum.currency, sum.amount));
        other.quota.iter().for_each(|sum| add_amount(&mut self.quota, &sum.currency, sum.amount));
        self.unpriced = self.unpriced.saturating_add(other.unpriced);
        self
    }

    /// What came after `earlier`.
    #[must_use]
    pub fn minus(mut self, earlier: &Costs) -> Costs {
        take_amounts(&mut self.amounts, &earlier.amounts);
        take_amounts(&mut self.quota, &earlier.quota);
        self.unpriced = self.unpriced.saturating_sub(earlier.unpriced);
        self
    }
}

fn add_amount(sums: &mut Vec<Amount>, currency: &Currency, amount: Micros) {
    match sums.binary_search_by(|sum| sum.currency.cmp(currency)) {
        Ok(place) => sums[place].amount = sums[place].amount.plus(amount),
        Err(place) => sums.insert(place, Amount { currency: currency.clone(), amount }),
    }
}

fn take_amounts(sums: &mut Vec<Amount>, earlier: &[Amount]) {
    for sum in &mut *sums {
        let before = earlier.iter().find(|before| before.currency == sum.currency);
        sum.amount = sum.amount.minus(before.map_or(Micros(0), |before| before.amount));
    }
    sums.retain(|sum| sum.amount > Micros(0));
}
