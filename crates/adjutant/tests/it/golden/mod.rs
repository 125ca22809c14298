//! What people and programs read, as files that can be looked at: help, errors, progress, reports, traces.
//!
//! Start at [`stable`]: what differs from run to run is replaced, and the layout stays.

mod daemons;
mod errors;
mod help;
mod models;
mod policies;
mod runs;
mod sandboxes;
mod traces;

use crate::support::{Done, World};
use regex::{Captures, Regex};
use std::path::Path;

/// Commands as they were typed, each with its exit code and what it said.
struct Transcript<'world> {
    world: &'world World,
    text: String,
}

impl<'world> Transcript<'world> {
    fn of(world: &'world World) -> Self {
        Self { world, text: String::new() }
    }

    /// Types a command in the world's home.
    fn types(&mut self, words: &[&str]) {
        self.types_at(&self.world.path("home"), words);
    }

    fn types_at(&mut self, at: &Path, words: &[&str]) {
        let done = self.world.run(at, words);
        self.shows(words, &done);
    }

    /// Says what is special about what follows.
    fn notes(&mut self, note: &str) {
        self.text.push_str(&format!("# {note}\n"));
    }

    fn shows(&mut self, words: &[&str], done: &Done) {
        let quoted = |word: &&str| {
            if word.is_empty() || word.contains([' ', '\'']) { format!("{word:?}") } else { (*word).to_owned() }
        };
        let words: Vec<String> = ["adjutant"].iter().chain(words).map(quoted).collect();
        let code = done.code.unwrap_or_else(|| panic!("killed: {done}"));
        self.text.push_str(&format!("$ {}\n{}{}[exit code {code}]\n\n", words.join(" "), done.out, done.err));
    }

    fn end(self) -> String {
        stable(self.world, &self.text)
    }
}

/// Replaces what differs from run to run. What stands in a column keeps its width, so that the layout can be judged.
fn stable(world: &World, text: &str) -> String {
    let home = world.home.path();
    let mut text = text.to_owned();
    for path in [home.canonicalize().expect("the world is there"), home.to_owned()] {
        text = text.replace(path.to_str().expect("a temporary path is UTF-8"), "/world");
    }
    let rules = [
        (r"/[^ ]*/adj-repo-\w+", "/repository"),
        (r"\b(run|sesn|sevt|node)_[0-9a-z]{20,24}\b", "${1}_ID"),
        (r"\badjutant/[0-9a-z]{20}/", "adjutant/ID/"),
        (r"\b(?:[0-9a-f]{64}|[0-9a-f]{40}|[0-9a-f]{9})\b", "HASH"),
        (r"\b20\d\d-\d\d-\d\d \d\d:\d\dZ", "2000-01-01 00:00Z"),
        (r"\b20\d\d-\d\d-\d\dT[0-9:.]+Z", "2000-01-01T00:00:00Z"),
        (r"\bkill \d+", "kill PID"),
        (r"\badj_[0-9a-f]{64}\b", "adj_TEXT"),
        (r"\btok_[0-9a-f]{16}\b", "tok_ID"),
        (r"(?m)^process   \d+,", "process   PID,"),
        (r"(?m)^load      .*$", "load      LOAD"),
        (r#""(pid|connections|requests)":\d+"#, "\"$1\":0"),
        (r"(?m)^ *\+\d+\.\d{3}", "    +0.000"),
        (r#"("\w+_ms"): ?\d+"#, "$1:0"),
        (r"about [\d,]+ tokens", "about N tokens"),
        (r"[\d,.]+k? tokens", "N tokens"),
        (r"[\d,]+ in, [\d,]+ out", "N in, N out"),
    ];
    for (pattern, replacement) in rules {
        text = regex(pattern).replace_all(&text, replacement).into_owned();
    }
    // The columns of the report: check, tokens, time.
    let row = regex(r"(?m)^(  \S+ +\d+  .{16}  ) *[\d,]+(  .{9})");
    text = row.replace_all(&text, |row: &Captures<'_>| format!("{}{:>8}{}", &row[1], "N", &row[2])).into_owned();
    let process = |found: &Captures<'_>| format!("{:<width$}", "process PID", width = found[0].len());
    text = regex(r"\bprocess \d+ {2,}").replace_all(&text, process).into_owned();
    text = regex(r"\bprocess \d+").replace_all(&text, "process PID").into_owned();
    let time = r"(?:\d+ ms|\d+\.\d s|\d+ min \d\d s)";
    let right = regex(&format!(r"(?m)( {{2,}}{time})(  |$)"));
    let times = |found: &Captures<'_>| format!("{:>width$}{}", "TIME", &found[2], width = found[1].chars().count());
    text = right.replace_all(&text, times).into_owned();
    let left = regex(&format!(r"\({time}\)( {{2,}})"));
    let times = |found: &Captures<'_>| format!("{:<width$}", "(TIME)", width = found[0].chars().count());
    text = left.replace_all(&text, times).into_owned();
    regex(time).replace_all(&text, "TIME").into_owned()
}

/// The name under which this account answers.
fn account() -> String {
    let user = rustix::process::getuid().as_raw().to_string();
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let mut lines = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let mine = lines.find(|fields| fields.get(2).is_some_and(|number| *number == user));
    mine.map_or_else(|| format!("user {user}"), |fields| fields[0].to_owned())
}

fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).expect("the pattern is ours")
}
