//! What may be spent: every layer may lower it, and none may raise it.

use adj_policy::{Layer, LayerKind, Policy};
use std::path::Path;

fn layer(kind: LayerKind, text: &str) -> Layer {
    Layer::parse(kind, Path::new("policy.toml"), text).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn the_lowest_of_all_layers_holds() {
    let policy = Policy::built_in();
    let before = policy.hash();
    let policy = policy
        .with(layer(LayerKind::Repository, "[budget]\nday = \"50usd\"\nsession = [\"1usd\", \"10k-tokens\"]"))
        .with(layer(LayerKind::Administrator, "[budget]\nday = [\"20usd\", \"30eur\"]\norganisation = \"400usd\""))
        .with(layer(LayerKind::Organisation, "[budget]\nsession = \"2usd\"\nday = \"5eur\""));
    let found = policy.budgets();
    let found = found.iter().map(|least| format!("{} {} {}", least.span, least.budget, least.layer));
    assert_eq!(
        found.collect::<Vec<_>>(),
        [
            "session 10000 tokens repository",
            "session 1.00 USD repository",
            "day 5.00 EUR organisation",
            "day 20.00 USD administrator",
            "organisation 400.00 USD administrator",
        ]
    );
    assert_eq!(policy.hash(), before, "answers that people gave are good for another budget too");
    let keys = policy.explain().keys;
    let day = keys.iter().find(|key| key.key == "budget.day").unwrap();
    assert_eq!((day.effective.as_str(), day.said.len()), ("5.00 EUR, 20.00 USD", 3));
}

#[test]
fn what_is_no_budget_is_said_with_its_line() {
    for (text, words) in [("day = \"5\"", "no budget"), ("day = 5", "day"), ("week = \"5usd\"", "budget.week")] {
        let text = format!("[budget]\n{text}");
        let error = Layer::parse(LayerKind::Organisation, Path::new("policy.toml"), &text).unwrap_err().to_string();
        assert!(error.contains("policy.toml:2:") && error.contains(words), "{error}");
    }
}
