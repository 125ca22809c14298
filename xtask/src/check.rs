//! Everything that a change has to pass, step by step.
//!
//! Each step runs, whatever the others found, so that one run names everything there is to mend.

mod arrows;
mod claims;
mod clients;
mod commands;
mod deny;
mod golden;
mod headers;
mod judges;
mod tests;
mod text;

use crate::{
    command::{self, Invocation},
    repository::Repository,
};
use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};
use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

#[derive(Debug, Args)]
pub struct Arguments {
    /// The steps to run, in their usual order; all of them when none is named
    #[arg(value_enum)]
    steps: Vec<Step>,
    /// Run what needs less than two minutes on a warm machine: no slow tests, documents, other programs or licences
    #[arg(long, conflicts_with = "steps")]
    quick: bool,
    /// Name the steps and what each is for
    #[arg(long)]
    list: bool,
}

/// A part of the check, in the order in which they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Step {
    Format,
    Headers,
    Arrows,
    Text,
    Claims,
    Clippy,
    Tests,
    Golden,
    Doctests,
    Rustdoc,
    Commands,
    Judges,
    Clients,
    Deny,
}

/// What a step found.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With what is worth knowing, or nothing.
    Passed(String),
    /// With everything there is to mend.
    Failed(Vec<String>),
    /// With the reason: nobody knows whether it would have passed.
    NotChecked(String),
}

impl Outcome {
    fn of(problems: Vec<String>, passed: impl Into<String>) -> Self {
        if problems.is_empty() { Self::Passed(passed.into()) } else { Self::Failed(problems) }
    }
}

/// What later steps want to know of earlier ones.
#[derive(Debug, Default)]
struct Memory {
    quick: bool,
    /// Whether every test ran, so that what no test referred to is not needed.
    all_tests_ran: bool,
    /// The test runner's own last line.
    test_summary: Option<String>,
}

impl Step {
    fn name(self) -> String {
        self.to_possible_value().expect("every step has a name").get_name().to_owned()
    }

    fn purpose(self) -> &'static str {
        match self {
            Self::Format => "rustfmt would change nothing",
            Self::Headers => "every room says what it is for and what it must not know",
            Self::Arrows => "rooms depend on each other as ARCHITECTURE.md says",
            Self::Text => "no leftovers in any file; how long the files are",
            Self::Claims => "the tests that the documents name are there, and each claim of docs/security.md names one",
            Self::Clippy => "no warnings, tests and examples included",
            Self::Tests => "every test passes",
            Self::Golden => "golden files are fresh, and each is used by a test",
            Self::Doctests => "the examples in doc comments work",
            Self::Rustdoc => "the API documentation builds without warnings",
            Self::Commands => "the commands shown in README.md and docs/ work",
            Self::Judges => "rule files mean what the program they were made for takes them to mean",
            Self::Clients => "programs and libraries of other makers work through the gateway, unchanged",
            Self::Deny => "licences, sources, duplicates and advisories of the dependencies",
        }
    }

    fn is_quick(self) -> bool {
        !matches!(
            self,
            Self::Golden | Self::Doctests | Self::Rustdoc | Self::Commands | Self::Judges | Self::Clients | Self::Deny
        )
    }

    fn run(self, repository: &Repository, memory: &mut Memory) -> Result<Outcome> {
        let cargo = || command::cargo(&repository.root);
        match self {
            Self::Format => {
                let fuzz = ["fmt", "--manifest-path", "fuzz/Cargo.toml", "--check"];
                let root = cargo().args(["fmt", "--all", "--check"]).succeeds()?;
                Ok(said(root && cargo().args(fuzz).succeeds()?, "run `cargo fmt --all`, in fuzz/ too"))
            }
            Self::Headers => headers::check(repository),
            Self::Arrows => arrows::check(repository),
            Self::Text => text::check(repository),
            Self::Claims => claims::check(repository),
            Self::Clippy => {
                let arguments = ["clippy", "--workspace", "--all-targets", "--locked", "--", "--deny", "warnings"];
                Ok(said(cargo().args(arguments).succeeds()?, "clippy has remarks, see above"))
            }
            Self::Tests => tests::check(repository, memory),
            Self::Golden => golden::check(repository, memory),
            Self::Doctests => {
                let doctests = cargo().args(["test", "--doc", "--workspace", "--locked", "--quiet"]);
                Ok(said(doctests.succeeds()?, "an example in a doc comment fails, see above"))
            }
            Self::Rustdoc => {
                let rustdoc: Invocation = cargo()
                    .args(["doc", "--workspace", "--no-deps", "--locked", "--quiet"])
                    .env("RUSTDOCFLAGS", "--deny warnings");
                Ok(said(rustdoc.succeeds()?, "rustdoc has remarks, see above"))
            }
            Self::Commands => commands::check(repository),
            Self::Judges => judges::check(repository),
            Self::Clients => clients::check(repository),
            Self::Deny => deny::check(repository),
        }
    }
}

/// Runs the steps and returns whether none of them failed.
pub fn run(repository: &Repository, arguments: Arguments) -> Result<bool> {
    if arguments.list {
        for step in Step::value_variants() {
            let quick = if step.is_quick() { "quick" } else { "" };
            println!("{:<9} {quick:<5}  {}", step.name(), step.purpose());
        }
        return Ok(true);
    }
    let mut steps = arguments.steps;
    steps.sort();
    steps.dedup();
    if steps.is_empty() {
        let all = Step::value_variants().iter().copied();
        steps = all.filter(|step| step.is_quick() || !arguments.quick).collect();
    }
    ensure!(!steps.is_empty(), "there is nothing to run");

    let mut memory = Memory { quick: arguments.quick, ..Memory::default() };
    let mut results = Vec::new();
    for step in steps {
        eprintln!("==== {}: {}", step.name(), step.purpose());
        let started = Instant::now();
        // A step that could not do its work has not passed; the others still run.
        let outcome =
            step.run(repository, &mut memory).unwrap_or_else(|error| Outcome::Failed(vec![format!("{error:#}")]));
        if let Outcome::Failed(problems) = &outcome {
            for problem in problems {
                eprintln!("     {problem}");
            }
        }
        results.push((step, outcome, started.elapsed()));
    }
    eprintln!("\n{}", summary(&results));
    if let Some(line) = memory.test_summary {
        eprintln!("{line}");
    }
    Ok(!results.iter().any(|(_, outcome, _)| matches!(outcome, Outcome::Failed(_))))
}

fn said(succeeded: bool, otherwise: &str) -> Outcome {
    if succeeded { Outcome::Passed(String::new()) } else { Outcome::Failed(vec![otherwise.to_owned()]) }
}

fn summary(results: &[(Step, Outcome, Duration)]) -> String {
    const SHOWN: usize = 10;
    let mut text = String::new();
    let mut line = |line: std::fmt::Arguments<'_>| writeln!(text, "{line}").expect("a string takes every line");
    line(format_args!("{:<11} {:<9} {:>7}  note", "result", "step", "time"));
    for (step, outcome, elapsed) in results {
        let (word, notes) = match outcome {
            Outcome::Passed(note) => ("passed", vec![note.clone()]),
            Outcome::NotChecked(reason) => ("NOT CHECKED", vec![format!("not checked: {reason}")]),
            Outcome::Failed(problems) => {
                let mut notes: Vec<String> = problems.iter().take(SHOWN).cloned().collect();
                if problems.len() > SHOWN {
                    notes.push(format!("and {} more, see above", problems.len() - SHOWN));
                }
                ("FAILED", notes)
            }
        };
        for (number, note) in
            notes.iter().flat_map(|note| note.lines().take(SHOWN).chain(note.is_empty().then_some(""))).enumerate()
        {
            match number {
                0 => line(format_args!("{word:<11} {:<9} {:>6.1}s  {note}", step.name(), elapsed.as_secs_f64())),
                _ => line(format_args!("{:31}{note}", "")),
            }
        }
    }
    let count = |wanted: fn(&Outcome) -> bool| results.iter().filter(|(_, outcome, _)| wanted(outcome)).count();
    let steps = results.len();
    let failed = count(|outcome| matches!(outcome, Outcome::Failed(_)));
    let open = count(|outcome| matches!(outcome, Outcome::NotChecked(_)));
    let total: Duration = results.iter().map(|(_, _, elapsed)| *elapsed).sum();
    line(format_args!(
        "{steps} {} in {:.0}s: {} passed, {failed} failed, {open} not checked",
        if steps == 1 { "step" } else { "steps" },
        total.as_secs_f64(),
        steps - failed - open,
    ));
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    lines.join("\n")
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn the_summary_names_every_problem_and_never_calls_an_unknown_passed() {
        let results = [
            (Step::Format, Outcome::Passed(String::new()), Duration::from_millis(400)),
            (Step::Arrows, Outcome::Failed(vec!["one".into(), "two\nlines".into()]), Duration::from_secs(61)),
            (Step::Deny, Outcome::NotChecked("no network".into()), Duration::ZERO),
        ];
        let expected = "\
result      step         time  note
passed      format       0.4s
FAILED      arrows      61.0s  one
                               two
                               lines
NOT CHECKED deny         0.0s  not checked: no network
3 steps in 61s: 1 passed, 1 failed, 1 not checked";
        assert_eq!(summary(&results), expected);
    }

    #[test]
    fn many_problems_are_counted() {
        let problems = (1..=12).map(|number| format!("problem {number}")).collect();
        let text = summary(&[(Step::Text, Outcome::Failed(problems), Duration::ZERO)]);
        assert!(text.contains("problem 10\n") && !text.contains("problem 11") && text.contains("and 2 more"), "{text}");
    }
}
