//! What a user arranges in `models.toml` beside prices: accounts with limits of their own, and routes over several models.

use crate::{
    AccountLimits, CatalogueError,
    failover::{Failover, MOST_TARGETS, Reason},
};
use adj_domain::ModelRef;
use adj_providers::WireKind;
use serde::{Deserialize, de::IgnoredAny};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// The vendor in whose name routes are asked for.
pub const ROUTE: &str = "route";

/// One key at one vendor, under a name of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountEntry {
    /// It is called as `NAME/model`.
    pub name: String,
    /// A vendor that is known; without one, there are `wire` and `base_url`.
    pub vendor: Option<String>,
    pub wire: Option<WireKind>,
    pub base_url: Option<String>,
    /// The variable that holds the key.
    pub key_env: Option<String>,
    pub limits: AccountLimits,
}

/// Everything of the file that is not about prices.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Arrangements {
    pub accounts: Vec<AccountEntry>,
    /// By name; a route is called as `route/NAME`.
    pub routes: BTreeMap<String, Failover>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default, rename = "as_of")]
    _as_of: Option<IgnoredAny>,
    #[serde(default, rename = "model")]
    _model: Option<IgnoredAny>,
    #[serde(default)]
    account: Vec<RawAccount>,
    #[serde(default)]
    route: Vec<RawRoute>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAccount {
    name: String,
    vendor: Option<String>,
    wire: Option<WireKind>,
    base_url: Option<String>,
    key_env: Option<String>,
    concurrency: Option<u32>,
    requests_per_minute: Option<u64>,
    tokens_per_minute: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRoute {
    name: String,
    targets: Vec<ModelRef>,
    move_on: Option<Vec<Reason>>,
    stay_ms: Option<u64>,
}

impl Arrangements {
    /// Reads the user's file; `file` is what errors call it.
    pub fn parse(text: &str, file: &str) -> Result<Self, CatalogueError> {
        let wrong = |problem: String| CatalogueError::Content { file: file.to_owned(), problem };
        let read: File = toml::from_str(text).map_err(|error| wrong(error.to_string()))?;
        let mut accounts: Vec<AccountEntry> = Vec::new();
        for raw in read.account {
            let entry = account(raw).map_err(wrong)?;
            if accounts.iter().any(|other| other.name == entry.name) {
                return Err(wrong(format!("there are two accounts named {}", entry.name)));
            }
            accounts.push(entry);
        }
        let mut routes = BTreeMap::new();
        for raw in read.route {
            let name = raw.name.clone();
            let route = route(raw).map_err(wrong)?;
            if routes.insert(name.clone(), route).is_some() {
                return Err(wrong(format!("there are two routes named {name}")));
            }
        }
        Ok(Self { accounts, routes })
    }

    pub fn limits(&self, vendor: &str) -> AccountLimits {
        let found = self.accounts.iter().find(|account| account.name == vendor);
        found.map(|account| account.limits).unwrap_or_default()
    }
}

/// Names become parts of models' names, in commands and in logs.
fn check_name(what: &str, name: &str) -> Result<(), String> {
    let is_good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > 60 || !name.chars().all(is_good) {
        return Err(format!("{what} {name:?} needs a name of small letters, digits, `-`, `_` and `.`"));
    }
    Ok(())
}

fn account(raw: RawAccount) -> Result<AccountEntry, String> {
    let RawAccount { name, vendor, wire, base_url, key_env, concurrency, requests_per_minute, tokens_per_minute } = raw;
    check_name("the account", &name)?;
    let of = |problem: &str| format!("the account {name}: {problem}");
    if matches!(name.as_str(), ROUTE | "scripted") {
        return Err(of("the name is taken"));
    }
    match (&vendor, wire, &base_url) {
        (Some(_), None, _) | (None, Some(_), Some(_)) => {}
        (Some(_), Some(_), _) => return Err(of("a vendor has a wire of its own: give one of `vendor` and `wire`")),
        (None, ..) => return Err(of("it needs a `vendor`, or else `wire` and `base_url`")),
    }
    if concurrency == Some(0) || requests_per_minute == Some(0) || tokens_per_minute == Some(0) {
        return Err(of("with a limit of 0 nothing could be asked"));
    }
    let limits = AccountLimits { concurrency, requests_per_minute, tokens_per_minute };
    Ok(AccountEntry { name, vendor, wire, base_url, key_env, limits })
}

fn route(raw: RawRoute) -> Result<Failover, String> {
    let RawRoute { name, targets, move_on, stay_ms } = raw;
    check_name("the route", &name)?;
    let of = |problem: String| format!("the route {name}: {problem}");
    if !(1..=MOST_TARGETS).contains(&targets.len()) {
        return Err(of(format!("it needs 1 to {MOST_TARGETS} targets")));
    }
    if let Some(target) = targets.iter().find(|target| target.vendor == ROUTE) {
        return Err(of(format!("{target} is a route itself")));
    }
    let mut seen = BTreeSet::new();
    if let Some(twice) = targets.iter().find(|target| !seen.insert(target.to_string())) {
        return Err(of(format!("{twice} stands there twice")));
    }
    let mut failover = Failover::to(targets);
    if let Some(reasons) = move_on {
        failover.move_on = reasons.into_iter().collect();
    }
    if let Some(stay) = stay_ms {
        failover.stay = Duration::from_millis(stay);
    }
    Ok(failover)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_and_routes_are_read_beside_prices() {
        let text = r#"
            [[model]]
            match = "house/*"
            rates = { input = "1", output = "1" }
            [[account]]
            name = "work"
            vendor = "anthropic"
            key_env = "WORK_KEY"
            concurrency = 4
            [[account]]
            name = "house"
            wire = "chat"
            base_url = "http://10.0.0.5:8000/v1"
            tokens_per_minute = 100000
            [[route]]
            name = "careful"
            targets = ["work/claude-sonnet-4-5", "house/qwen"]
            move_on = ["limit", "overloaded"]
            stay_ms = 5000
        "#;
        let read = Arrangements::parse(text, "mine.toml").expect("it can be read");
        assert_eq!((read.accounts.len(), read.accounts[1].wire), (2, Some(WireKind::Chat)));
        assert_eq!(read.limits("work").concurrency, Some(4));
        assert_eq!(read.limits("house").tokens_per_minute, Some(100_000));
        assert_eq!(read.limits("nobody"), AccountLimits::default());
        let route = &read.routes["careful"];
        assert_eq!((route.targets.len(), route.stay), (2, Duration::from_secs(5)));
        assert_eq!(route.move_on, [Reason::Limit, Reason::Overloaded].into());
        let catalogue = crate::Catalogue::builtin().with(text, "mine.toml").expect("prices stand beside them");
        assert!(catalogue.entries().any(|entry| entry.name == "house/*"));
    }

    #[test]
    fn what_is_wrong_is_said_with_the_file() {
        let target = "targets = [\"a/b\"]";
        let cases = [
            ("[[account]]\nname = \"Work\"\nvendor = \"openai\"".to_owned(), "small letters"),
            ("[[account]]\nname = \"route\"\nvendor = \"openai\"".to_owned(), "the name is taken"),
            ("[[account]]\nname = \"w\"".to_owned(), "needs a `vendor`, or else `wire` and `base_url`"),
            ("[[account]]\nname = \"w\"\nwire = \"chat\"".to_owned(), "needs a `vendor`"),
            (
                "[[account]]\nname = \"w\"\nvendor = \"openai\"\nwire = \"chat\"".to_owned(),
                "one of `vendor` and `wire`",
            ),
            ("[[account]]\nname = \"w\"\nwire = \"morse\"\nbase_url = \"http://a\"".to_owned(), "morse"),
            ("[[account]]\nname = \"w\"\nvendor = \"openai\"\nkey = \"sk-1\"".to_owned(), "unknown field `key`"),
            ("[[account]]\nname = \"w\"\nvendor = \"openai\"\nconcurrency = 0".to_owned(), "a limit of 0"),
            ("[[account]]\nname = \"w\"\nvendor = \"a\"\n".repeat(2), "two accounts named w"),
            (format!("[[route]]\nname = \"r\"\n{target}\n").repeat(2), "two routes named r"),
            ("[[route]]\nname = \"r\"\ntargets = []".to_owned(), "1 to 8 targets"),
            ("[[route]]\nname = \"r\"\ntargets = [\"a/b\", \"a/b\"]".to_owned(), "a/b stands there twice"),
            ("[[route]]\nname = \"r\"\ntargets = [\"route/x\"]".to_owned(), "route/x is a route itself"),
            ("[[route]]\nname = \"r\"\ntargets = [\"x\"]".to_owned(), "does not name a model"),
            (format!("[[route]]\nname = \"r\"\n{target}\nmove_on = [\"boredom\"]"), "boredom"),
        ];
        for (text, expected) in cases {
            let error = Arrangements::parse(&text, "mine.toml").expect_err(&text).to_string();
            assert!(error.starts_with("mine.toml: ") && error.contains(expected), "{text}: {error}");
        }
    }
}
