//! What our rules say of commands, for the check that asks Codex the same: `cargo run -p xtask --example judge -- CASES`
//!
//! `CASES` is a file with a list of `{"rules": PATH, "argv": [WORD…]}` in JSON; the answers come in the same order.
#![expect(clippy::print_stdout, reason = "the answers are printed")]

use adj_policy::{CheckOutput, RuleSet, Word};
use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{fs, path::PathBuf};

#[derive(Debug, Deserialize)]
struct Case {
    rules: PathBuf,
    argv: Vec<String>,
}

fn main() -> Result<()> {
    let path = std::env::args_os().nth(1).context("no file of cases is named")?;
    let cases: Vec<Case> = serde_json::from_slice(&fs::read(path)?)?;
    let answers: Result<Vec<Value>> = cases.iter().map(answer).collect();
    println!("{}", serde_json::to_string(&answers?)?);
    Ok(())
}

fn answer(case: &Case) -> Result<Value> {
    let text = fs::read_to_string(&case.rules).with_context(|| format!("cannot read {}", case.rules.display()))?;
    let argv: Vec<Word> = case.argv.iter().cloned().map(Word::Literal).collect();
    Ok(match RuleSet::load(&case.rules, &text) {
        Ok(rules) => serde_json::to_value(CheckOutput::of([&rules], &argv))?,
        Err(error) => json!({ "refused": error.to_string() }),
    })
}
