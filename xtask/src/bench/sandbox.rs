//! Measures what confinement costs, beside the bare command and beside others who confine.
//!
//! What cannot be measured stays in the report, with the reason; where a target hangs on it, the target is not met.

use super::{
    Figure, in_one_line,
    measure::{self, percentile},
    measured,
};
use crate::{
    command::{self, Invocation},
    peers::{self, Programs},
    repository::Repository,
};
use anyhow::{Context, Result, anyhow, ensure};
use serde::Deserialize;
use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

/// How often each runs, one after the other in each round.
const ROUNDS: usize = 50;
const AT_ONCE: usize = 50;
const DEADLINE: Duration = Duration::from_secs(300);
const OURS: &str = "adjutant sandbox";
const HARDENED: &str = "bwrap, hardened";

/// Measures everything; `binary` is ours, or the reason why there is none.
pub fn figures(repository: &Repository, binary: Result<&Path, &str>, scratch: &Path) -> Result<Vec<Figure>> {
    let folder = scratch.join("sandbox");
    let project = folder.join("project");
    fs::create_dir_all(&project).with_context(|| format!("cannot make {}", project.display()))?;
    // Before anything is timed, since building and installing leave the machine busy.
    let session = session(repository);
    let proxy = proxy(repository);

    let mut contenders = contenders(repository, binary, &folder, &project);
    for round in 0..=ROUNDS {
        for contender in &mut contenders {
            contender.run(&project, round);
        }
    }
    let mut figures: Vec<Figure> = contenders.iter().flat_map(Contender::figures).collect();
    let library = library(repository, &project);
    figures.extend(timed("srt, library", &library, "its proxies already up; in a row, after the rounds"));
    let median = |name: &str| {
        let contender = contenders.iter().find(|contender| contender.name == name).expect("it is among them");
        contender.times().map(|times| percentile(times.iter().copied(), 0.5) as f64)
    };
    let ratio = (|| Ok(median(OURS)? / median(HARDENED)?))();
    figures.push(measured("adjutant sandbox / bwrap", "×", ratio, Some(1.0), "both from a cold start, in one run"));
    let failed = binary.map_err(|reason| anyhow!("{reason}")).and_then(|binary| {
        contenders.iter().find(|contender| contender.name == OURS).expect("it is among them").times()?;
        many(&ours(binary), &variables(&folder, &Programs::default())?, &project)
    });
    let note = format!("{AT_ONCE} of `adjutant sandbox -- sleep 0.5`");
    figures.push(measured("adjutant at once, failures", "", failed, Some(0.0), &note));
    figures.extend(session_figures(&session));
    figures.extend(proxy_figures(&proxy));
    Ok(figures)
}

/// One way to run `true`.
struct Contender {
    name: &'static str,
    note: &'static str,
    start: Result<Start>,
    times: Vec<u64>,
}

struct Start {
    command: Vec<OsString>,
    variables: Vec<(OsString, OsString)>,
}

impl Contender {
    fn new(name: &'static str, note: &'static str, start: Result<Start>) -> Self {
        Self { name, note, start, times: Vec::new() }
    }

    /// Runs it once. The first round warms the caches and does not count; who fails is not asked again.
    fn run(&mut self, folder: &Path, round: usize) {
        let Ok(start) = &self.start else { return };
        match measure::command(folder, &start.variables, &start.command) {
            Ok(used) if round > 0 => self.times.push(used.wall_us),
            Ok(_) => {}
            Err(error) => self.start = Err(error.context(format!("round {round} failed"))),
        }
    }

    fn times(&self) -> Result<&[u64]> {
        match &self.start {
            Ok(_) => Ok(&self.times),
            Err(error) => Err(anyhow!("{}: {}", self.name, in_one_line(error))),
        }
    }

    fn figures(&self) -> [Figure; 2] {
        let times = self.start.as_ref().map(|_| self.times.clone()).map_err(|error| anyhow!(in_one_line(error)));
        timed(self.name, &times, self.note)
    }
}

fn contenders(repository: &Repository, binary: Result<&Path, &str>, folder: &Path, project: &Path) -> Vec<Contender> {
    let bwrap = || Programs::default().with(repository, "bwrap", &["bubblewrap"]);
    let start = |command: Vec<OsString>, programs: &Programs| -> Result<Start> {
        Ok(Start { command, variables: variables(folder, programs)? })
    };
    let bare = start(vec!["/bin/true".into()], &Programs::default());
    let ours = binary
        .map_err(|reason| anyhow!("{reason}"))
        .and_then(|binary| start([ours(binary), words(&["true"])].concat(), &Programs::default()));
    let hardened = bwrap().and_then(|programs| {
        let program = programs.find("bwrap")?;
        start([vec![program.into()], hardened_arguments(project)?, words(&["/usr/bin/true"])].concat(), &programs)
    });
    let codex = bwrap().and_then(|programs| {
        let program = peers::codex(repository)?;
        start([vec![program.into()], words(&["sandbox", "-P", ":workspace", "--", "true"])].concat(), &programs)
    });
    let srt = runtime_programs(repository).and_then(|programs| {
        let script = peers::SANDBOX_RUNTIME.folder(repository)?.join("dist/cli.js");
        start([words(&["node"]), vec![script.into()], words(&["true"])].concat(), &programs)
    });
    vec![
        Contender::new("bare", "posix_spawn of /bin/true", bare),
        Contender::new(OURS, "cold start", ours),
        Contender::new(HARDENED, "own root, all namespaces, no capabilities; no system call filter", hardened),
        Contender::new("codex sandbox", "native binary, :workspace", codex),
        Contender::new("srt, command line", "no network", srt),
    ]
}

fn ours(binary: &Path) -> Vec<OsString> {
    [vec![binary.into()], words(&["sandbox", "--"])].concat()
}

/// What a program of another maker needs beside its own package.
fn runtime_programs(repository: &Repository) -> Result<Programs> {
    Programs::default()
        .with(repository, "bwrap", &["bubblewrap"])?
        .with(repository, "socat", &["socat", "libwrap0"])?
        .with(repository, "rg", &["ripgrep"])
}

fn words(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

/// The environment of every contender: programs, and a home of its own.
fn variables(home: &Path, programs: &Programs) -> Result<Vec<(OsString, OsString)>> {
    let own = [("HOME", home.to_owned()), ("CODEX_HOME", home.to_owned()), ("ADJUTANT_HOME", home.join("state"))];
    let mut variables = programs.environment()?;
    variables.extend(own.map(|(name, value)| (name.into(), value.into())));
    Ok(variables)
}

/// As tight as bubblewrap goes by options alone: a root of its own, every namespace, no way to new ones.
fn hardened_arguments(project: &Path) -> Result<Vec<OsString>> {
    let mut arguments =
        words(&["--unshare-all", "--unshare-user", "--disable-userns", "--new-session", "--die-with-parent"]);
    arguments.extend(words(&["--cap-drop", "ALL", "--clearenv", "--ro-bind", "/usr", "/usr"]));
    for name in ["/bin", "/sbin", "/lib", "/lib32", "/lib64"] {
        let path = Path::new(name);
        if path.is_symlink() {
            arguments.extend(["--symlink".into(), fs::read_link(path)?.into(), name.into()]);
        } else if path.is_dir() {
            arguments.extend(words(&["--ro-bind", name, name]));
        }
    }
    arguments.extend(words(&["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--bind"]));
    arguments.extend([project.into(), "/work".into()]);
    arguments.extend(words(&["--chdir", "/work", "--"]));
    Ok(arguments)
}

fn library(repository: &Repository, project: &Path) -> Result<Vec<u64>> {
    let programs = runtime_programs(repository)?;
    let module = peers::SANDBOX_RUNTIME.folder(repository)?.join("dist/index.js");
    let script = project.with_file_name("srt.mjs");
    fs::write(&script, include_str!("srt.mjs")).with_context(|| format!("cannot write {}", script.display()))?;
    let heard = Invocation::new("node", project)
        .args([script, module, ROUNDS.to_string().into()])
        .only_env(variables(project.parent().context("the project lies nowhere")?, &programs)?)
        .heard_within(DEADLINE)?;
    let is_done = heard.status.is_some_and(|status| status.success());
    let line = heard.text.lines().find(|line| line.starts_with('['));
    let line = line.filter(|_| is_done).with_context(|| format!("the script failed: {}", heard.text.trim()))?;
    serde_json::from_str(line).context("cannot read the script's times")
}

/// Starts many sandboxes at once, as a shell would, and counts those that fail.
fn many(command: &[OsString], variables: &[(OsString, OsString)], folder: &Path) -> Result<f64> {
    let (program, arguments) = command.split_first().context("there is no command")?;
    let mut failures = 0;
    let mut started = Vec::new();
    for _ in 0..AT_ONCE {
        let child = Command::new(program)
            .args(arguments)
            .args(["sleep", "0.5"])
            .env_clear()
            .envs(variables.iter().cloned())
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        match child {
            Ok(child) => started.push(child),
            Err(_) => failures += 1,
        }
    }
    for mut child in started {
        failures += u32::from(!child.wait().is_ok_and(|status| status.success()));
    }
    Ok(failures.into())
}

/// What the `session` example prints.
#[derive(Debug, Deserialize)]
struct Session {
    bare_us: Vec<u64>,
    session_us: Vec<u64>,
    one_shot_us: Vec<u64>,
    at_once: usize,
    failures: Vec<String>,
    together_ms: u64,
}

fn session(repository: &Repository) -> Result<Session> {
    let text = example(repository, "xtask", "session", &[&ROUNDS.to_string(), &AT_ONCE.to_string()])?;
    serde_json::from_str(text.trim()).context("cannot read what the example session printed")
}

fn session_figures(session: &Result<Session>) -> Vec<Figure> {
    let times =
        |of: fn(&Session) -> &Vec<u64>| session.as_ref().map(of).cloned().map_err(|error| anyhow!(in_one_line(error)));
    let (bare, inside) = (times(|session| &session.bare_us), times(|session| &session.session_us));
    let mut figures = Vec::new();
    figures.extend(timed("in a session", &inside, "the tool bash runs /bin/true in an open sandbox"));
    figures.extend(timed("bare, beside it", &bare, "posix_spawn of /bin/true, by turns with it"));
    figures.extend(timed("sandbox of its own", &times(|session| &session.one_shot_us), "through a warm launcher"));
    let median = |times: Result<Vec<u64>>| times.map(|times| percentile(times, 0.5) as f64);
    let ratio = median(inside).and_then(|inside| Ok(inside / median(bare)?));
    figures.push(measured("command in a session / bare", "×", ratio, Some(2.0), "in one run"));
    let failed = session.as_ref().map(|session| session.failures.len() as f64);
    let note = session.as_ref().map_or_else(
        |_| String::new(),
        |session| {
            let first = session.failures.first().map(|failure| format!("; {failure}")).unwrap_or_default();
            format!("{} of `sleep 0.5`, all over after {} ms{first}", session.at_once, session.together_ms)
        },
    );
    let failed = failed.map_err(|error| anyhow!(in_one_line(error)));
    figures.push(measured("sandboxes at once, failures", "", failed, Some(0.0), &note));
    figures
}

/// Medians in milliseconds.
#[derive(Debug, PartialEq)]
struct Latency {
    direct: f64,
    http: f64,
    connect: f64,
}

fn proxy(repository: &Repository) -> Result<Latency> {
    read_latency(&example(repository, "adj-egress", "latency", &[])?)
}

/// Reads lines such as `through the door, CONNECT   p50   0.310 ms  p99 …`.
fn read_latency(text: &str) -> Result<Latency> {
    let of = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        let (_, rest) = line.and_then(|line| line.split_once(" p50 "))?;
        rest.trim_start().split_once(" ms")?.0.parse().ok()
    };
    let of = |name| of(name).with_context(|| format!("the example latency says nothing of `{name}`"));
    Ok(Latency {
        direct: of("direct")?,
        http: of("through the door, plain HTTP")?,
        connect: of("through the door, CONNECT")?,
    })
}

fn proxy_figures(latency: &Result<Latency>) -> Vec<Figure> {
    let note = "median through it − median without, a connection each, on loopback";
    let added = |name: &str, through: fn(&Latency) -> f64| {
        let added = match latency {
            Ok(latency) => Ok(through(latency) - latency.direct),
            Err(error) => Err(anyhow!(in_one_line(error))),
        };
        measured(name, "ms", added, Some(1.0), note)
    };
    vec![
        added("proxy adds, plain HTTP", |latency| latency.http),
        added("proxy adds, CONNECT", |latency| latency.connect),
    ]
}

fn example(repository: &Repository, package: &str, name: &str, arguments: &[&str]) -> Result<String> {
    let built = command::cargo(&repository.root)
        .args(["build", "--quiet", "--release", "--locked", "--package", package, "--example", name])
        .succeeds()?;
    ensure!(built, "the example {name} does not build");
    let program: PathBuf = repository.target().join("release/examples").join(name);
    Invocation::new(program, &repository.root).args(arguments).output()
}

/// Median and 95th percentile of times in microseconds.
fn timed(name: &str, times: &Result<Vec<u64>>, note: &str) -> [Figure; 2] {
    let at = |share| match times {
        Ok(times) => Ok(percentile(times.iter().copied(), share) as f64 / 1e3),
        Err(error) => Err(anyhow!(in_one_line(error))),
    };
    [
        measured(&format!("{name}, median"), "ms", at(0.5), None, note),
        measured(&format!("{name}, 95th percentile"), "ms", at(0.95), None, note),
    ]
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn what_cannot_be_measured_keeps_its_place_and_its_target() {
        let missing = || Err(anyhow!("there is no\n  such program"));
        let cases = [
            (measured("a", "ms", Ok(1.0), Some(2.0), "as usual"), Some(1.0), "as usual", true),
            (measured("a", "ms", missing(), None, "as usual"), None, "there is no such program", true),
            (measured("a", "ms", missing(), Some(2.0), "as usual"), None, "there is no such program", false),
        ];
        for (figure, value, note, is_met) in cases {
            assert_eq!((figure.value, figure.note.as_str(), figure.is_met()), (value, note, is_met));
        }
    }

    #[test]
    fn who_fails_is_not_asked_again_and_says_why() {
        let mut contender = Contender::new("nobody", "", Err(anyhow!("not installed")));
        contender.run(Path::new("/"), 1);
        assert!(contender.times.is_empty());
        let figures = contender.figures();
        assert_eq!((figures[0].value, figures[0].note.as_str()), (None, "not installed"));
        assert_eq!(figures[1].name, "nobody, 95th percentile");
    }

    #[test]
    fn a_session_is_judged_by_its_medians_and_its_failures() {
        let session = |failures: &[&str]| Session {
            bare_us: vec![500, 600, 9000],
            session_us: vec![900, 1500, 1600],
            one_shot_us: vec![4000],
            at_once: 50,
            failures: failures.iter().map(ToString::to_string).collect(),
            together_ms: 900,
        };
        let find = |figures: &[Figure], name: &str| {
            let found = figures.iter().find(|figure| figure.name == name).unwrap();
            (found.value, found.is_met())
        };
        let good = session_figures(&Ok(session(&[])));
        assert_eq!(find(&good, "command in a session / bare"), (Some(2.5), false));
        assert_eq!(find(&good, "sandboxes at once, failures"), (Some(0.0), true));
        let bad = session_figures(&Ok(session(&["no process left"])));
        assert_eq!(find(&bad, "sandboxes at once, failures"), (Some(1.0), false));
        let none = session_figures(&Err(anyhow!("it does not build")));
        assert_eq!(find(&none, "command in a session / bare"), (None, false));
    }

    #[test]
    fn what_the_proxy_adds_is_a_difference() {
        let text = "\
direct, a new connection each    p50   0.200 ms  p99   0.900 ms  +0.000 ms
through the door, plain HTTP     p50   0.700 ms  p99   1.900 ms  +0.500 ms
through the door, CONNECT        p50   1.900 ms  p99   4.000 ms  +1.700 ms
";
        let figures = proxy_figures(&read_latency(text));
        assert!((figures[0].value.unwrap() - 0.5).abs() < 1e-9 && figures[0].is_met());
        assert!(!figures[1].is_met());
        let error = read_latency("direct p50 0.2 ms").unwrap_err().to_string();
        assert!(error.contains("plain HTTP"), "{error}");
    }
}
