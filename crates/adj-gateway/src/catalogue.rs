//! What is known of models: their prices and how much they hold. Data with a date; a model that is not in it works all the same.

use adj_domain::{Cost, Currency, ModelRef, Price, Rates, Tier, Timestamp, Usage};
use serde::{Deserialize, de::IgnoredAny};
use std::{collections::BTreeMap, fmt};

const BUILTIN: &str = include_str!("../data/models.toml");

/// A catalogue that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    #[error("{file}: {problem}")]
    Content { file: String, problem: String },
}

/// One model at one time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// `vendor/model`; a `*` at the end stands for any rest.
    pub name: String,
    /// The first day it holds; without one it always did.
    pub from: Option<String>,
    /// Tokens that a prompt may have.
    pub context: Option<u64>,
    pub max_output: Option<u32>,
    /// `None` where only the sizes are known.
    pub price: Option<Price>,
    /// Where it was read.
    pub source: String,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        self.from.iter().try_for_each(|from| write!(f, " from {from}"))
    }
}

/// All that is known; what is added later goes before what was there.
#[derive(Debug, Clone)]
pub struct Catalogue {
    /// By name without its `*`, newest addition first.
    entries: BTreeMap<String, Vec<Entry>>,
    as_of: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    as_of: Option<String>,
    #[serde(default)]
    model: Vec<RawEntry>,
    /// Of other matters: [`crate::Arrangements`].
    #[serde(default, rename = "account")]
    _account: Option<IgnoredAny>,
    #[serde(default, rename = "route")]
    _route: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEntry {
    #[serde(rename = "match")]
    name: String,
    #[serde(default)]
    from: Option<String>,
    #[serde(default)]
    context: Option<u64>,
    #[serde(default)]
    max_output: Option<u32>,
    #[serde(default)]
    currency: Option<Currency>,
    #[serde(default)]
    rates: Option<Rates>,
    #[serde(default)]
    tiers: Vec<Tier>,
}

impl Default for Catalogue {
    fn default() -> Self {
        Self::builtin()
    }
}

impl Catalogue {
    /// What this build came with.
    pub fn builtin() -> Self {
        let empty = Self { entries: BTreeMap::new(), as_of: String::new() };
        empty.with(BUILTIN, "the built-in catalogue").expect("the built-in catalogue is tested")
    }

    /// Adds what a file says; its entries go before those that are here already.
    pub fn with(mut self, text: &str, file: &str) -> Result<Self, CatalogueError> {
        let wrong = |problem: String| CatalogueError::Content { file: file.to_owned(), problem };
        let read: File = toml::from_str(text).map_err(|error| wrong(error.to_string()))?;
        for raw in read.model {
            let entry = entry(raw, file).map_err(wrong)?;
            let key = entry.name.trim_end_matches('*').to_owned();
            self.entries.entry(key).or_default().insert(0, entry);
        }
        if let Some(as_of) = read.as_of {
            self.as_of = as_of;
        }
        Ok(self)
    }

    /// The day on which the facts were collected.
    pub fn as_of(&self) -> &str {
        &self.as_of
    }

    /// Every entry, by name.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values().flatten()
    }

    /// What is known of a model at a time: the longest name that fits, and of its entries the newest that holds.
    pub fn find(&self, model: &ModelRef, at: Timestamp) -> Option<&Entry> {
        let wanted = model.to_string();
        let day = at.strftime("%Y-%m-%d").to_string();
        let ends = (1..=wanted.len()).rev().filter(|end| wanted.is_char_boundary(*end));
        ends.filter_map(|end| Some((self.entries.get(&wanted[..end])?, &wanted[end..]))).find_map(|(entries, rest)| {
            let fitting = entries.iter().filter(|entry| entry.name.ends_with('*') || is_date(rest));
            let mut holding = fitting.filter(|entry| entry.from.as_ref().is_none_or(|from| *from <= day));
            // Of entries that begin on one day, the first is the one that was added last.
            let first = holding.next()?;
            Some(holding.fold(first, |best, entry| if entry.from > best.from { entry } else { best }))
        })
    }

    /// What an answer cost; `None` where the price is not known.
    pub fn cost(&self, model: &ModelRef, usage: Usage, at: Timestamp) -> Option<Cost> {
        let entry = self.find(model, at)?;
        let price = entry.price.as_ref()?;
        Some(Cost {
            amount: price.charge(usage)?,
            currency: price.currency.clone(),
            price: entry.to_string(),
            is_quota: false,
        })
    }
}

/// Whether the rest of a name says no more than of which day the model is: `-2025-09-29`, `-20250929`, or nothing.
fn is_date(rest: &str) -> bool {
    let Some(date) = rest.strip_prefix('-') else { return rest.is_empty() };
    let digits = date.bytes().filter(u8::is_ascii_digit).count();
    digits == 8 && date.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') && date.starts_with("20")
}

fn entry(raw: RawEntry, file: &str) -> Result<Entry, String> {
    let RawEntry { name, from, context, max_output, currency, rates, tiers } = raw;
    let of = |problem: &str| format!("{name}: {problem}");
    name.parse::<ModelRef>().map_err(|error| error.to_string())?;
    if name.trim_end_matches('*').contains('*') {
        return Err(of("a `*` stands at the end only"));
    }
    if from.as_ref().is_some_and(|from| from.parse::<jiff::civil::Date>().is_err()) {
        return Err(of("`from` is no date (expected 2026-11-20)"));
    }
    if !tiers.is_sorted_by(|lower, higher| lower.over < higher.over) {
        return Err(of("tiers stand in rising order of `over`"));
    }
    let price = match rates {
        Some(rates) => {
            let currency = currency.unwrap_or_else(|| "USD".parse().expect("three letters"));
            Some(Price { currency, rates, tiers })
        }
        None if !tiers.is_empty() || currency.is_some() => return Err(of("tiers and a currency need `rates`")),
        None => None,
    };
    Ok(Entry { name, from, context, max_output, price, source: file.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(day: &str) -> Timestamp {
        format!("{day}T12:00:00Z").parse().expect("a time")
    }

    fn model(name: &str) -> ModelRef {
        name.parse().expect("a model")
    }

    #[test]
    fn the_built_in_catalogue_is_whole_and_dated() {
        let catalogue = Catalogue::builtin();
        assert!(catalogue.as_of().parse::<jiff::civil::Date>().is_ok(), "{}", catalogue.as_of());
        assert!(catalogue.entries().count() > 50);
        for entry in catalogue.entries() {
            let price = entry.price.as_ref().unwrap_or_else(|| panic!("{entry} has a price"));
            assert!(price.rates.output >= price.rates.input, "{entry}");
            assert!(price.rates.cache_read.is_none_or(|read| read <= price.rates.input), "{entry}");
            assert!(entry.context.is_some_and(|context| context >= 100_000), "{entry}");
        }
    }

    #[test]
    fn the_longest_name_and_the_newest_day_win_and_files_go_before_what_is_built_in() {
        let text = r#"
            [[model]]
            match = "house/*"
            rates = { input = "1", output = "1" }
            [[model]]
            match = "house/big"
            from = "2026-01-01"
            rates = { input = "2", output = "2" }
            [[model]]
            match = "house/big"
            from = "2026-07-01"
            rates = { input = "3", output = "3" }
            [[model]]
            match = "anthropic/claude-sonnet-4-5"
            currency = "EUR"
            rates = { input = "0.000001", output = "0" }
        "#;
        let catalogue = Catalogue::builtin().with(text, "mine.toml").expect("it can be read");
        let one = Usage { input_tokens: 1_000_000, ..Usage::default() };
        let cases = [
            ("house/small", "2026-08-01", Some("1.00 USD house/*")),
            ("house/big", "2025-12-31", Some("1.00 USD house/*")),
            ("house/big", "2026-01-01", Some("2.00 USD house/big from 2026-01-01")),
            ("house/big-20260101", "2026-08-01", Some("3.00 USD house/big from 2026-07-01")),
            ("house/bigger", "2026-08-01", Some("1.00 USD house/*")),
            ("anthropic/claude-sonnet-4-5-20250929", "2026-08-01", Some("0.000001 EUR anthropic/claude-sonnet-4-5")),
            ("anthropic/claude-sonnet-4-5x", "2026-08-01", None),
            ("nobody/knows", "2026-08-01", None),
        ];
        for (name, day, expected) in cases {
            let cost = catalogue.cost(&model(name), one, at(day));
            let found = cost.map(|cost| format!("{} {} {}", cost.amount, cost.currency, cost.price));
            assert_eq!(found.as_deref(), expected, "{name} on {day}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_catalogue_is_said_with_its_file() {
        let cases = [
            ("[[model]]\nmatch = \"a/b\"\nrates = { input = 3, output = \"1\" }", "3"),
            ("[[model]]\nmatch = \"a/b\"\nrates = { input = \"1e3\", output = \"1\" }", "1e3"),
            ("[[model]]\nmatch = \"a/b\"\nrates = { input = \"0.1234567\", output = \"1\" }", "at most 6 decimals"),
            ("[[model]]\nmatch = \"ab\"", "does not name a model"),
            ("[[model]]\nmatch = \"a/*b\"", "at the end only"),
            ("[[model]]\nmatch = \"a/b\"\nprice = 1", "price"),
            ("[[model]]\nmatch = \"a/b\"\nfrom = \"soon\"", "no date"),
            ("[[model]]\nmatch = \"a/b\"\ncurrency = \"usd\"", "three capital letters"),
            (
                "[[model]]\nmatch = \"a/b\"\ntiers = [{ over = 1, rates = { input = \"1\", output = \"1\" } }]",
                "need `rates`",
            ),
        ];
        for (text, named) in cases {
            let error = Catalogue::builtin().with(text, "mine.toml").expect_err(text).to_string();
            assert!(error.starts_with("mine.toml: ") && error.contains(named), "{error}");
        }
    }
}
