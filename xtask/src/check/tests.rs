//! Runs the tests, each in its own process, with none of the caller's keys in reach.

use super::{Memory, Outcome};
use crate::{repository::Repository, toolbox};
use anyhow::Result;
use std::io::IsTerminal;

/// Tests in modules of this name are left out of a quick check.
const NOT_SLOW: &str = "not test(/(^|::)slow::/)";

/// Variables that could make a test talk to a real vendor, or to the caller's own state.
const PRIVATE: &[&str] = &["OPENAI_", "ANTHROPIC_", "GEMINI_", "GOOGLE_", "ADJUTANT_", "OPENROUTER_"];

pub fn check(repository: &Repository, memory: &mut Memory) -> Result<Outcome> {
    let color = if std::io::stderr().is_terminal() { "always" } else { "auto" };
    let references = super::golden::references(repository)?;
    let mut nextest = toolbox::NEXTEST
        .invocation(repository)?
        .args(["nextest", "run", "--workspace", "--locked", "--no-tests=fail"])
        .args(["--color", color])
        .env("INSTA_UPDATE", "no")
        .env("INSTA_FORCE_PASS", "0")
        .env("INSTA_SNAPSHOT_REFERENCES_FILE", references);
    if memory.quick {
        nextest = nextest.args(["-E", NOT_SLOW]);
    }
    for (name, _) in std::env::vars_os() {
        if PRIVATE.iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            nextest = nextest.without_env(name);
        }
    }

    let mut summary = None;
    let passed = nextest.succeeds_heard(|line| {
        let line = without_color(line);
        if line.trim_start().starts_with("Summary [") {
            summary = Some(line.trim_end().to_owned());
        }
    })?;
    // No summary means that no test was started, whatever the exit code says.
    let outcome = match (&summary, passed) {
        (Some(line), true) => {
            let counts = line.split_once("] ").map_or(line.as_str(), |(_, counts)| counts);
            Outcome::Passed(counts.trim().to_owned())
        }
        (Some(line), false) => Outcome::Failed(vec![line.trim().to_owned()]),
        (None, _) => Outcome::Failed(vec!["no test ran, see above".to_owned()]),
    };
    memory.all_tests_ran = passed && summary.is_some() && !memory.quick;
    memory.test_summary = summary;
    Ok(outcome)
}

/// Removes the escape sequences that set colors.
fn without_color(line: &str) -> String {
    let mut plain = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        plain.push_str(before);
        rest = after.split_once('m').map_or("", |(_, after)| after);
    }
    plain + rest
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn colors_are_removed_and_nothing_else() {
        let cases = [
            ("plain [text]", "plain [text]"),
            ("\u{1b}[32;1m     Summary\u{1b}[0m [ 0.1s] 3 tests run", "     Summary [ 0.1s] 3 tests run"),
            ("cut \u{1b}[3", "cut "),
        ];
        for (line, expected) in cases {
            assert_eq!(without_color(line), expected);
        }
    }
}
