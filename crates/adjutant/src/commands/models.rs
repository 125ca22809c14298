//! `adjutant models`: what is known of models, and which of them can be called.

use super::print;
use crate::{
    failure::{Failure, Result},
    wiring,
    words::{duration, thousands, tokens},
};
use adj_domain::{ModelRef, Rates, Tier, Timestamp};
use adj_gateway::{Entry, arrangements::ROUTE};
use serde::Serialize;
use std::process::ExitCode;

#[derive(Serialize)]
struct Listing<'a> {
    as_of: &'a str,
    models: Vec<Row<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    accounts: Vec<AccountRow<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    routes: Vec<RouteRow<'a>>,
}

#[derive(Serialize)]
struct AccountRow<'a> {
    account: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    vendor: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base_url: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_env: Option<&'a str>,
    ready: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    concurrency: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    requests_per_minute: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens_per_minute: Option<u64>,
}

#[derive(Serialize)]
struct RouteRow<'a> {
    route: String,
    targets: &'a [ModelRef],
    move_on: Vec<&'static str>,
    stay_ms: u64,
    /// Whether each of its vendors can be called.
    ready: bool,
}

#[derive(Serialize)]
struct Row<'a> {
    model: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<&'a str>,
    /// Whether the vendor's key or address is in the environment.
    ready: bool,
    context: Option<u64>,
    max_output: Option<u32>,
    currency: Option<String>,
    /// For a million tokens.
    rates: Option<&'a Rates>,
    tiers: &'a [Tier],
    source: &'a str,
}

pub fn models(name: Option<&str>, json: bool) -> Result<ExitCode> {
    let catalogue = wiring::own_catalogue()?.unwrap_or_default();
    let arrangements = wiring::own_arrangements()?;
    let settings = wiring::settings(&arrangements)?;
    let ready = settings.which_vendors();
    let today = Timestamp::now().strftime("%Y-%m-%d").to_string();
    let shown = |entry: &&Entry| name.is_none_or(|name| entry.name.contains(name));
    let rows = catalogue.entries().filter(shown).map(|entry| Row {
        model: &entry.name,
        from: entry.from.as_deref(),
        ready: entry.name.split_once('/').is_some_and(|(vendor, _)| ready.contains(&vendor)),
        context: entry.context,
        max_output: entry.max_output,
        currency: entry.price.as_ref().map(|price| price.currency.to_string()),
        rates: entry.price.as_ref().map(|price| &price.rates),
        tiers: entry.price.as_ref().map_or(&[], |price| &price.tiers),
        source: &entry.source,
    });
    let holds = |text: &str| name.is_none_or(|name| text.contains(name));
    let accounts = arrangements.accounts.iter().filter(|account| holds(&account.name)).map(|account| AccountRow {
        account: &account.name,
        vendor: account.vendor.as_deref(),
        base_url: account.base_url.as_deref(),
        key_env: account.key_env.as_deref(),
        ready: ready.contains(&account.name.as_str()),
        concurrency: account.limits.concurrency,
        requests_per_minute: account.limits.requests_per_minute,
        tokens_per_minute: account.limits.tokens_per_minute,
    });
    let routes = arrangements.routes.iter().map(|(name, route)| RouteRow {
        route: format!("{ROUTE}/{name}"),
        targets: &route.targets,
        move_on: route.move_on.iter().map(|reason| reason.word()).collect(),
        stay_ms: u64::try_from(route.stay.as_millis()).unwrap_or(u64::MAX),
        ready: route.targets.iter().all(|target| ready.contains(&target.vendor.as_str())),
    });
    let routes = routes.filter(|row| holds(&row.route));
    let listing = Listing {
        as_of: catalogue.as_of(),
        models: rows.collect(),
        accounts: accounts.collect(),
        routes: routes.collect(),
    };
    if json {
        print(&format!("{}\n", serde_json::to_string(&listing).expect("names and numbers are JSON")))?;
        return Ok(ExitCode::SUCCESS);
    }
    if listing.models.is_empty() && listing.accounts.is_empty() && listing.routes.is_empty() {
        let what = name.map_or_else(String::new, |name| format!(" whose name holds \"{name}\""));
        return Err(Failure::usage(format!("the catalogue has no model{what}"))
            .hint("a model that is not listed works all the same: --model vendor/name"));
    }
    print(&render(&listing, &today))?;
    Ok(ExitCode::SUCCESS)
}

fn render(listing: &Listing<'_>, today: &str) -> String {
    let width = listing.models.iter().map(|row| row.model.len()).max().unwrap_or(0);
    let mut text = String::new();
    if !listing.models.is_empty() {
        text = format!(
            "  {:<width$}  {:>8} {:>8} {:>9} {:>9} {:>9} {:>9}\n",
            "model", "context", "output", "$ in", "$ out", "$ cached", "$ writing"
        );
    }
    for row in &listing.models {
        let size = |size: Option<u64>| size.map_or_else(|| "–".to_owned(), tokens);
        let price = |rate: Option<adj_domain::PerMillion>| rate.map_or_else(|| "–".to_owned(), |rate| rate.to_string());
        let mark = if row.ready { '*' } else { ' ' };
        text.push_str(&format!(
            "{mark} {:<width$}  {:>8} {:>8} {:>9} {:>9} {:>9} {:>9}",
            row.model,
            size(row.context),
            size(row.max_output.map(u64::from)),
            price(row.rates.map(|rates| rates.input)),
            price(row.rates.map(|rates| rates.output)),
            price(row.rates.and_then(|rates| rates.cache_read)),
            price(row.rates.and_then(|rates| rates.cache_write)),
        ));
        if let Some(currency) = row.currency.as_deref().filter(|currency| *currency != "USD") {
            text.push_str(&format!("  {currency}"));
        }
        for tier in row.tiers {
            text.push_str(&format!(
                "  beyond {} tokens {} in, {} out",
                thousands(tier.over),
                tier.rates.input,
                tier.rates.output
            ));
        }
        if let Some(from) = row.from.filter(|from| *from > today) {
            text.push_str(&format!("  from {from}"));
        }
        text.push('\n');
    }
    arranged(listing, &mut text);
    text.push_str(&format!(
        "\nPrices for a million tokens, as of {}. * the vendor's key or address is in the environment\n",
        listing.as_of
    ));
    text
}

/// Adds the user's own accounts and routes.
fn arranged(listing: &Listing<'_>, text: &mut String) {
    let mark = |ready: bool| if ready { '*' } else { ' ' };
    let names = listing.accounts.iter().map(|row| row.account.len());
    let width = names.chain(listing.routes.iter().map(|row| row.route.len())).max().unwrap_or(0);
    if !listing.accounts.is_empty() {
        text.push_str(if text.is_empty() { "  account\n" } else { "\n  account\n" });
    }
    for row in &listing.accounts {
        let at = row.vendor.or(row.base_url).unwrap_or_default();
        let limits = [
            row.concurrency.map(|count| format!("{count} at a time")),
            row.requests_per_minute.map(|count| format!("{} requests a minute", thousands(count))),
            row.tokens_per_minute.map(|count| format!("{} tokens a minute", thousands(count))),
        ];
        let key = row.key_env.map(|name| format!("key in {name}"));
        let said: Vec<String> = [Some(at.to_owned()), key].into_iter().chain(limits).flatten().collect();
        text.push_str(&format!("{} {:<width$}  {}\n", mark(row.ready), row.account, said.join(", ")));
    }
    if !listing.routes.is_empty() {
        text.push_str(if text.is_empty() { "  route\n" } else { "\n  route\n" });
    }
    for row in &listing.routes {
        let targets: Vec<String> = row.targets.iter().map(ToString::to_string).collect();
        text.push_str(&format!(
            "{} {:<width$}  {} on {}; waits {} for a limit\n",
            mark(row.ready),
            row.route,
            targets.join(", then "),
            row.move_on.join(", "),
            duration(row.stay_ms)
        ));
    }
}
