//! Whether the tests that the documents name are there.

use super::Outcome;
use crate::repository::Repository;
use anyhow::{Context, Result, ensure};
use std::{fs, path::Path};

/// The list of attacks, one a line: `NAME: WHO TRIES IT`.
const CASES: &str = "crates/adj-sandbox/tests/it/escapes/cases.txt";
/// Where every claim has to name its test.
const THREAT_MODEL: &str = "docs/security.md";

pub fn check(repository: &Repository) -> Result<Outcome> {
    let root = &repository.root;
    let cases = read(&root.join(CASES))?;
    let (mut problems, mut named) = (Vec::new(), 0);
    for entry in fs::read_dir(root.join("docs"))? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "md") {
            continue;
        }
        let text = read(&path)?;
        let name = path.strip_prefix(root).unwrap_or(&path).display().to_string();
        for (number, line) in (1..).zip(text.lines()) {
            for test in tests(line) {
                named += 1;
                if !exists(root, test) {
                    problems.push(format!("{name}:{number}: there is no test {test}"));
                }
            }
            for case in cases_of(line) {
                named += 1;
                if !cases.lines().any(|line| line.strip_prefix(case).is_some_and(|rest| rest.starts_with(": "))) {
                    problems.push(format!("{name}:{number}: there is no case `{case}` in {CASES}"));
                }
            }
            if name == THREAT_MODEL && is_claim(line) && tests(line).next().is_none() && cases_of(line).next().is_none()
            {
                problems.push(format!("{name}:{number}: a claim without a test"));
            }
        }
    }
    ensure!(named > 0, "the documents name no tests at all; has the spelling changed?");
    Ok(Outcome::of(problems, format!("{named} tests named")))
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Words between single backquotes.
fn quoted(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// Names of tests: `room::module::test`.
fn tests(line: &str) -> impl Iterator<Item = &str> {
    let is_name = |word: &&str| {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-' | ':');
        let is_room = word.starts_with("adj-") || word.starts_with("adjutant::") || word.starts_with("xtask::");
        is_room && word.matches("::").count() >= 2 && word.chars().all(plain)
    };
    quoted(line).filter(is_name)
}

fn cases_of(line: &str) -> impl Iterator<Item = &str> {
    line.split("case `").skip(1).filter_map(|rest| rest.split_once('`').map(|(case, _)| case))
}

/// A row of a table whose last column says what shows it.
fn is_claim(line: &str) -> bool {
    let columns: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
    line.starts_with('|')
        && columns.len() == 3
        && ["agent", "repository", "host", "other", "who finds", ""]
            .iter()
            .any(|who| if who.is_empty() { columns[1].is_empty() } else { columns[1].starts_with(who) })
}

/// Looks for the function in the file of its module, beside the code or among the room's tests.
fn exists(root: &Path, test: &str) -> bool {
    let mut parts: Vec<&str> = test.split("::").collect();
    let (room, function) = (parts.remove(0), parts.pop().unwrap_or_default());
    let folder = if room == "xtask" { root.join("xtask") } else { root.join("crates").join(room) };
    let module = parts.join("/");
    let files = ["tests/it", "src"].map(|place| folder.join(place));
    let candidates =
        files.iter().flat_map(|place| [place.join(format!("{module}.rs")), place.join(&module).join("mod.rs")]);
    candidates.into_iter().filter_map(|path| fs::read_to_string(path).ok()).any(|text| has_test(&text, function))
}

fn has_test(text: &str, function: &str) -> bool {
    let declared = format!("fn {function}(");
    let at = text.lines().position(|line| line.trim_start().trim_start_matches("async ").starts_with(&declared));
    // Attributes stand right above, and property tests have theirs in a block of a macro.
    at.is_some_and(|at| {
        let above: Vec<&str> = text.lines().take(at).collect();
        above.iter().rev().take(4).any(|line| line.contains("#[test]") || line.contains("::test"))
    })
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn names_are_found_in_prose() {
        let line = "| x | agent | `adj-store::log::a_test`, case `files: a b`, `adj_store::Log::open`, `adjutant::run::b::c` |";
        assert_eq!(tests(line).collect::<Vec<_>>(), ["adj-store::log::a_test", "adjutant::run::b::c"]);
        assert_eq!(cases_of(line).collect::<Vec<_>>(), ["files: a b"]);
    }

    #[test]
    fn only_functions_that_are_tests_count() {
        let text = "#[test]\nfn one() {}\n\n\n\n\nfn helper() {}\n#[tokio::test]\nasync fn two() {}\n";
        for (function, expected) in [("one", true), ("two", true), ("helper", false), ("on", false)] {
            assert_eq!(has_test(text, function), expected, "{function}");
        }
    }

    #[test]
    fn every_row_of_a_claim_needs_a_test() {
        for (line, expected) in [
            ("| it holds | agent, host | nothing |", true),
            ("| it holds | | nothing |", true),
            ("| claim | against | shown by |", false),
            ("| asset | for instance |", false),
            ("it holds", false),
        ] {
            assert_eq!(is_claim(line), expected, "{line}");
        }
    }
}
