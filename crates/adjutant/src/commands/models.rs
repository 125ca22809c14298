//! `adjutant models`: what is known of models, and which of them can be called.

use super::print;
use crate::{
    failure::{Failure, Result},
    wiring,
    words::{thousands, tokens},
};
use adj_domain::{Rates, Tier, Timestamp};
use adj_gateway::Entry;
use adj_providers::Settings;
use serde::Serialize;
use std::process::ExitCode;

#[derive(Serialize)]
struct Listing<'a> {
    as_of: &'a str,
    models: Vec<Row<'a>>,
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
    let settings = Settings::from_env(&|name| std::env::var(name).ok()).map_err(Failure::usage)?;
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
    let listing = Listing { as_of: catalogue.as_of(), models: rows.collect() };
    if json {
        print(&format!("{}\n", serde_json::to_string(&listing).expect("names and numbers are JSON")))?;
        return Ok(ExitCode::SUCCESS);
    }
    if listing.models.is_empty() {
        let what = name.map_or_else(String::new, |name| format!(" whose name holds \"{name}\""));
        return Err(Failure::usage(format!("the catalogue has no model{what}"))
            .hint("a model that is not listed works all the same: --model vendor/name"));
    }
    print(&render(&listing, &today))?;
    Ok(ExitCode::SUCCESS)
}

fn render(listing: &Listing<'_>, today: &str) -> String {
    let width = listing.models.iter().map(|row| row.model.len()).max().unwrap_or(0);
    let mut text = format!(
        "  {:<width$}  {:>8} {:>8} {:>9} {:>9} {:>9} {:>9}\n",
        "model", "context", "output", "$ in", "$ out", "$ cached", "$ writing"
    );
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
    text.push_str(&format!(
        "\nPrices for a million tokens, as of {}. * the vendor's key or address is in the environment\n",
        listing.as_of
    ));
    text
}
