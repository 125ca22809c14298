//! Measures what the product promises about itself, each figure against its target.

mod gateway;
pub mod measure;
mod sandbox;
mod vendor;

use crate::{
    command::{self, Invocation},
    repository::Repository,
};
use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use measure::{Used, percentile};
use serde::{Deserialize, Serialize};
use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};
use vendor::Vendor;

#[derive(Debug, Args)]
pub struct Arguments {
    /// The benchmarks to run; all of them when none is named
    #[arg(value_enum)]
    names: Vec<Name>,
    /// How often each command runs
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(3..))]
    runs: u32,
    /// Measure less, with a development build: whether it works, not how fast (gateway only)
    #[arg(long)]
    quick: bool,
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Name {
    /// One turn with one message: time and memory
    Turn,
    /// What each further tool call costs
    Step,
    /// Durable journal appends by 64 sessions at once
    Journal,
    /// `adjutant --version`
    Startup,
    /// What confinement costs, beside others who confine
    Sandbox,
    /// What the gateway adds to a request, beside another one
    Gateway,
}

/// One line of the report.
#[derive(Debug, Serialize)]
struct Figure {
    name: String,
    unit: &'static str,
    /// `None` where it could not be measured; the note says why.
    value: Option<f64>,
    /// What it must not exceed, where we promise something.
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<f64>,
    /// How it was measured, or what it compares to.
    note: String,
}

/// How much is measured, and of what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effort {
    Full,
    /// A little, of a development build.
    Quick,
}

impl Effort {
    /// Builds one thing of a package; a development build is the one that the check makes, too.
    fn build(self, repository: &Repository, package: &str, what: &[&str]) -> Result<bool> {
        let scope = match self {
            Effort::Full => vec!["--release", "--package", package],
            Effort::Quick => vec!["--workspace"],
        };
        command::cargo(&repository.root).args(["build", "--locked"]).args(scope).args(what).succeeds()
    }

    fn folder(self, repository: &Repository) -> PathBuf {
        repository.target().join(if self == Effort::Full { "release" } else { "debug" })
    }
}

/// Tool calls in one turn of the `step` benchmark.
const STEPS: usize = 50;

/// Runs the benchmarks and returns whether all targets are met.
pub fn run(repository: &Repository, arguments: Arguments) -> Result<bool> {
    let mut names = arguments.names;
    names.sort();
    names.dedup();
    if names.is_empty() {
        names = Name::value_variants().to_vec();
    }
    ensure!(!arguments.quick || names == [Name::Gateway], "--quick is for `gateway` only");
    let effort = if arguments.quick { Effort::Quick } else { Effort::Full };
    let built = effort.build(repository, "adjutant", &["--bin", "adjutant"])?;
    // What others cost can be measured without it.
    ensure!(built || names == [Name::Sandbox], "cannot build adjutant");
    let bench = Bench {
        binary: effort.folder(repository).join("adjutant"),
        runs: arguments.runs,
        scratch: repository.scratch("bench")?,
    };
    let mut figures = Vec::new();
    for name in names {
        figures.extend(match name {
            Name::Turn => bench.turn()?,
            Name::Step => bench.step()?,
            Name::Journal => journal(repository, &bench.scratch)?,
            Name::Startup => bench.startup()?,
            Name::Sandbox => {
                let binary = if built { Ok(bench.binary.as_path()) } else { Err("adjutant does not build") };
                sandbox::figures(repository, binary, &bench.scratch)?
            }
            Name::Gateway => gateway::figures(repository, &bench.binary, effort, &bench.scratch)?,
        });
    }
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&figures)?);
    } else {
        print!("{}", table(&figures));
    }
    Ok(figures.iter().all(Figure::is_met))
}

impl Figure {
    fn is_met(&self) -> bool {
        self.target.is_none_or(|target| self.value.is_some_and(|value| value <= target))
    }
}

fn table(figures: &[Figure]) -> String {
    let mut text = format!("{:<34} {:>10} {:>10} {:>7}  {}\n", "figure", "measured", "target", "ratio", "note");
    for figure in figures {
        let Figure { name, unit, value, target, note } = figure;
        let ratio = match (value, target) {
            (Some(value), Some(target)) if *target > 0.0 => format!("{:.2}", value / target),
            _ => String::new(),
        };
        let mark = match value {
            None => "NOT MEASURED: ",
            Some(_) if figure.is_met() => "",
            Some(_) => "ABOVE TARGET; ",
        };
        let shown = |number: &Option<f64>| number.map(|number| format!("{number:.1} {unit}")).unwrap_or_default();
        let (value, target) = (shown(value), shown(target));
        text += &format!("{name:<34} {value:>10} {target:>10} {ratio:>7}  {mark}{note}\n");
    }
    text
}

struct Bench {
    binary: PathBuf,
    runs: u32,
    scratch: PathBuf,
}

impl Bench {
    fn turn(&self) -> Result<Vec<Figure>> {
        let used = self.exec("turn", 0)?;
        let wall = percentile(used.iter().map(|used| used.wall_us), 0.5);
        let cpu = percentile(used.iter().map(|used| used.cpu_us), 0.5);
        let peak = used.iter().map(|used| used.peak_kib).max().expect("something was measured");
        let note = format!("median of {} runs of exec with one message", used.len());
        Ok(vec![
            figure("turn, wall", "ms", wall as f64 / 1e3, Some(60.0), note.clone()),
            figure("turn, processor", "ms", cpu as f64 / 1e3, None, note),
            figure(
                "turn, peak memory",
                "MB",
                peak as f64 * 1024.0 / 1e6,
                Some(40.0),
                "largest process, worst run".into(),
            ),
        ])
    }

    fn step(&self) -> Result<Vec<Figure>> {
        // Both in one run, on the same machine in the same state: the difference is what the steps cost.
        let without = self.exec("step-0", 0)?;
        let with = self.exec("step-50", STEPS)?;
        let median = |used: &[Used], of: fn(&Used) -> u64| percentile(used.iter().map(of), 0.5) as f64;
        let each = |of| (median(&with, of) - median(&without, of)) / STEPS as f64 / 1e3;
        let note = format!("({STEPS} sandboxed `true` − none) / {STEPS}, medians of {} runs", with.len());
        Ok(vec![
            figure("tool call, wall", "ms", each(|used| used.wall_us), Some(8.0), note.clone()),
            figure("tool call, processor", "ms", each(|used| used.cpu_us), None, note),
        ])
    }

    fn startup(&self) -> Result<Vec<Figure>> {
        const RUNS: usize = 50;
        let time = |program: OsString| -> Result<(f64, f64)> {
            let variables = [("PATH".into(), std::env::var_os("PATH").unwrap_or_default())];
            let command = [program, "--version".into()];
            let used: Result<Vec<Used>> =
                (0..RUNS).map(|_| measure::command(&self.scratch, &variables, &command)).collect();
            let used = used?;
            let at = |share| percentile(used.iter().map(|used| used.wall_us), share) as f64 / 1e3;
            Ok((at(0.5), at(0.95)))
        };
        let (median, late) = time(self.binary.clone().into())?;
        let (peer, _) = time("git".into())?;
        Ok(vec![
            figure("start-up, median", "ms", median, Some(10.0), format!("--version, {RUNS} runs")),
            figure("start-up, 95th percentile", "ms", late, None, format!("--version, {RUNS} runs")),
            figure(
                "start-up of git, median",
                "ms",
                peer,
                None,
                format!("git --version; ours takes {:.2}×", median / peer),
            ),
        ])
    }

    /// Runs one turn with so many tool calls, several times, each in a home and a repository of its own.
    fn exec(&self, name: &str, calls: usize) -> Result<Vec<Used>> {
        let vendor = Vendor::start(calls)?;
        let mut measured = Vec::new();
        // The first run warms the caches and does not count.
        for number in 0..=self.runs {
            let folder = self.scratch.join(format!("{name}-{number}"));
            let project = folder.join("project");
            make_project(&project)?;
            let variables = [
                ("PATH", std::env::var_os("PATH").unwrap_or_default()),
                ("HOME", folder.clone().into()),
                ("ADJUTANT_HOME", folder.join("state").into()),
                ("OPENAI_API_KEY", "x".into()),
                ("OPENAI_BASE_URL", vendor.base_url().into()),
            ]
            .map(|(name, value)| (OsString::from(name), value));
            let mut command: Vec<OsString> = vec![self.binary.clone().into()];
            command.extend(["exec", "--json", "--model", "openai/bench", "--cd"].map(OsString::from));
            command.extend([project.into(), "hello".into()]);
            let before = vendor.answered();
            let used = measure::command(&folder, &variables, &command)?;
            let asked = vendor.answered() - before;
            ensure!(asked == calls as u64 + 1, "a turn with {calls} tool calls asked the vendor {asked} times");
            if number > 0 {
                measured.push(used);
            }
        }
        Ok(measured)
    }
}

/// Makes a git repository with one commit.
fn make_project(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    fs::write(folder.join("README.md"), "A project.\n")?;
    let git = |arguments: &[&str]| Invocation::new("git", folder).args(arguments).output();
    git(&["init", "--quiet", "--initial-branch=main"])?;
    git(&["add", "."])?;
    let author = ["-c", "user.name=Bench", "-c", "user.email=bench@example.com", "-c", "commit.gpgsign=false"];
    git(&[&author[..], &["commit", "--quiet", "--message", "A project"]].concat())?;
    Ok(())
}

/// Measures the journal with the store's own program, which knows how fast the disk alone is.
fn journal(repository: &Repository, folder: &Path) -> Result<Vec<Figure>> {
    let text = command::cargo(&repository.root)
        .args(["run", "--quiet", "--release", "--locked", "--package", "adj-store", "--example", "append_rate", "--"])
        .args([folder])
        .output()?;
    journal_figures(&text)
}

fn figure(name: &str, unit: &'static str, value: f64, target: Option<f64>, note: String) -> Figure {
    Figure { name: name.to_owned(), unit, value: Some(value), target, note }
}

/// A figure, or the place where it would be with the reason why it is missing.
fn measured(name: &str, unit: &'static str, value: Result<f64>, target: Option<f64>, note: &str) -> Figure {
    match value {
        Ok(value) => figure(name, unit, value, target, note.to_owned()),
        Err(error) => Figure { value: None, ..figure(name, unit, 0.0, target, in_one_line(&error)) },
    }
}

/// An error with its causes, short enough for a table.
fn in_one_line(error: &anyhow::Error) -> String {
    const LONGEST: usize = 300;
    let text = format!("{error:#}");
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// What `append_rate` reports; other keys are its own business.
#[derive(Debug, Deserialize)]
struct AppendRate {
    tasks: u64,
    events_per_second: f64,
    /// The same load, written and synced in groups to a plain file: what the disk allows.
    raw_events_per_second: f64,
    /// The same rows in the database alone, a transaction for every 64.
    sqlite_events_per_second: f64,
    fdatasyncs_per_second: f64,
}

fn journal_figures(text: &str) -> Result<Vec<Figure>> {
    let report: AppendRate = serde_json::from_str(text.trim()).context("cannot read what append_rate printed")?;
    let sessions = format!("{} sessions at once", report.tasks);
    let ratio = report.raw_events_per_second / report.events_per_second;
    let syncs = format!("the same load in a plain file; {:.0} bare syncs a second", report.fdatasyncs_per_second);
    Ok(vec![
        figure("journal, durable events", "/s", report.events_per_second, None, sessions),
        figure("group-commit limit of the disk", "/s", report.raw_events_per_second, None, syncs),
        figure("SQLite alone", "/s", report.sqlite_events_per_second, None, "the same rows, 64 a transaction".into()),
        figure("limit / journal", "×", ratio, Some(2.0), "both in one run".into()),
    ])
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn the_table_says_what_misses_its_target() {
        let figures = [
            figure("fast", "ms", 4.0, Some(8.0), "as it should be".into()),
            figure("slow", "ms", 16.0, Some(8.0), "not good".into()),
            figure("known", "/s", 5000.0, None, String::new()),
            Figure { value: None, ..figure("missing", "ms", 0.0, Some(8.0), "no such program".into()) },
            figure("none", "", 1.0, Some(0.0), "one too many".into()),
        ];
        let expected = "\
figure                               measured     target   ratio  note
fast                                   4.0 ms     8.0 ms    0.50  as it should be
slow                                  16.0 ms     8.0 ms    2.00  ABOVE TARGET; not good
known                               5000.0 /s
missing                                           8.0 ms          NOT MEASURED: no such program
none                                     1.0        0.0           ABOVE TARGET; one too many";
        let lines: Vec<String> = table(&figures).lines().map(|line| line.trim_end().to_owned()).collect();
        assert_eq!(lines.join("\n"), expected);
    }

    #[test]
    fn the_journal_is_compared_with_what_its_disk_allows() {
        let report = r#"{"tasks":64,"events_per_second":8000.0,"raw_events_per_second":12800.0,"sqlite_events_per_second":9000.0,"fdatasyncs_per_second":300.0,"p50_ms":2}"#;
        let figures = journal_figures(report).unwrap();
        assert_eq!((figures[3].value, figures[3].is_met()), (Some(1.6), true));
        assert!(journal_figures("{}").is_err());
    }
}
