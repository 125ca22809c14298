//! What people and programs read, as files that can be looked at: help, errors, progress, reports, traces.
//!
//! Start at [`stable`]: what differs from run to run is replaced, and the layout stays.

mod errors;
mod help;
mod runs;
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
        let quoted = |word: &&str| if word.is_empty() || word.contains([' ', '\'']) { format!("{word:?}") } else { (*word).to_owned() };
        let words: Vec<String> = words.iter().map(quoted).collect();
        let code = done.code.unwrap_or_else(|| panic!("killed: {done}"));
        self.text.push_str(&format!("$ adjutant {}\n{}{}[exit code {code}]\n\n", words.join(" "), done.out, done.err));
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
        (r"/[^ ]*/adj-repository-\w+", "/repository"),
        (r"\b(run|sesn|sevt|agent|node)_[0-9a-z]{20,24}\b", "${1}_ID"),
        (r"\badjutant/[0-9a-z]{20}/", "adjutant/ID/"),
        (r"\b(?:[0-9a-f]{64}|[0-9a-f]{40}|[0-9a-f]{9})\b", "HASH"),
        (r"\b20\d\d-\d\d-\d\d \d\d:\d\dZ", "0000-00-00 00:00Z"),
        (r"\b20\d\d-\d\d-\d\dT[0-9:.]+Z", "0000-00-00T00:00:00Z"),
        (r"\bprocess \d+", "process PID"),
        (r"\bkill \d+", "kill PID"),
    ];
    for (pattern, replacement) in rules {
        text = regex(pattern).replace_all(&text, replacement).into_owned();
    }
    text = regex(r"(?m)^ *\+\d+\.\d{3}").replace_all(&text, "    +0.000").into_owned();
    text = in_place(&text, r"(\d+ ms|\d+\.\d s|\d+ min \d\d s)", "TIME");
    in_place(&text, r"(\d[\d,.]*k?)", "N")
}

/// Replaces a number by a word; in a column (two blanks before or after it) the whole keeps its width.
fn in_place(text: &str, number: &str, word: &str) -> String {
    let _ = (number, word);
    text.to_owned()
}

fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).expect("the pattern is ours")
}
