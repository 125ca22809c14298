//! Which commands a command line runs, as far as that can be known without running it.
//!
//! Must not know: which of them are allowed.
//! Start at [`parse`]. The promise is one-sided: what comes back as [`Parsed::Commands`] is everything that a shell starts for that
//! line, and whatever this room does not understand to the last character comes back as [`Parsed::Unknown`].

mod safe;
mod scanner;
mod shell;
mod unwrap;
mod words;

pub use safe::is_known_safe;

use std::fmt;
use words::is_plain_text;

/// The longest command line that is looked at.
pub const MAX_SCRIPT_BYTES: usize = 64 * 1024;
/// The most commands that are told of one command line.
pub const MAX_COMMANDS: usize = 500;
/// How often a command may hold another: each `sh -c` counts twice, as a script and as a command, each `env` once.
pub const MAX_DEPTH: usize = 12;
/// How many words and letters are looked at, those of nested pieces each time.
const MAX_WORK: usize = 2 * 1024 * 1024;
/// How much is kept of all the commands together.
const MAX_KEPT_BYTES: usize = 4 * 1024 * 1024;

/// One word of a command.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Word {
    /// What the program receives, to the letter.
    Literal(String),
    /// What only the shell can tell: a variable, a pattern of file names, a substitution.
    Dynamic {
        /// As it is written.
        text: String,
        /// Whether it can become no word, or several.
        splits: bool,
    },
}

impl Word {
    /// Returns the text of a word that is known.
    pub fn literal(&self) -> Option<&str> {
        match self {
            Self::Literal(text) => Some(text),
            Self::Dynamic { .. } => None,
        }
    }

    pub fn is_dynamic(&self) -> bool {
        matches!(self, Self::Dynamic { .. })
    }
}

impl From<&str> for Word {
    fn from(text: &str) -> Self {
        Self::Literal(text.to_owned())
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(text) | Self::Dynamic { text, .. } => f.write_str(text),
        }
    }
}

/// One program, or one command of the shell's own, with its words.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SimpleCommand {
    /// Empty for a line that only assigns or redirects.
    pub argv: Vec<Word>,
    /// What stands around it, outermost first: `pipe`, `substitution`, `sh -c`, `env`, `xargs` …
    pub reached_through: Vec<&'static str>,
    /// The files that redirections open for writing.
    pub writes: Vec<Word>,
    /// The variables that are set for it, as `NAME=value`.
    pub sets: Vec<String>,
    /// Whether all it does is to run another command of the same list, as `timeout 5 …` does.
    pub wraps: bool,
}

impl SimpleCommand {
    /// Returns the name of the program without its folders, where it is known.
    pub fn program(&self) -> Option<&str> {
        let first = self.argv.first()?.literal()?;
        Some(first.rsplit_once('/').map_or(first, |(_, name)| name))
    }

    /// Returns the words when every one of them is known.
    pub fn literal_argv(&self) -> Option<Vec<&str>> {
        self.argv.iter().map(Word::literal).collect()
    }

    pub fn has_dynamic_words(&self) -> bool {
        self.argv.iter().chain(&self.writes).any(Word::is_dynamic)
    }
}

/// What is known of a command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed {
    /// Nothing but these is started.
    Commands(Vec<SimpleCommand>),
    /// Other things may be started as well.
    Unknown {
        why: String,
        /// What was recognised all the same, so that something forbidden inside is still found. It may hold commands that never run.
        commands: Vec<SimpleCommand>,
    },
}

impl Parsed {
    pub fn commands(&self) -> &[SimpleCommand] {
        match self {
            Self::Commands(commands) | Self::Unknown { commands, .. } => commands,
        }
    }
}

/// Reads a command line as `bash` would read it (run without a terminal, with its default options).
pub fn parse(script: &str) -> Parsed {
    let mut found = Findings::default();
    if script.len() > MAX_SCRIPT_BYTES {
        found.unknown(format!("it is longer than {} KiB", MAX_SCRIPT_BYTES / 1024));
    } else {
        if let Err(character) = is_plain_text(script) {
            found.unknown(format!("it holds the invisible character U+{:04X}", u32::from(character)));
        }
        scanner::script(&mut found, script, Vec::new(), Dialect::Bash);
    }
    found.finish()
}

/// Reads one command that is started without a shell.
pub fn parse_argv(argv: &[String]) -> Parsed {
    let mut found = Findings::default();
    if argv.iter().map(String::len).sum::<usize>() > MAX_SCRIPT_BYTES {
        found.unknown(format!("it is longer than {} KiB", MAX_SCRIPT_BYTES / 1024));
    } else {
        if let Some(character) = argv.iter().find_map(|word| is_plain_text(word).err()) {
            found.unknown(format!("it holds the invisible character U+{:04X}", u32::from(character)));
        }
        let words = argv.iter().map(|word| Word::Literal(word.clone())).collect();
        unwrap::command(&mut found, SimpleCommand { argv: words, ..SimpleCommand::default() }, Dialect::Bash);
    }
    found.finish()
}

/// Whose grammar a piece of shell is read with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    Bash,
    /// What every `sh` understands alike; the rest is unknown.
    Posix,
}

/// What was found so far, over all nested pieces.
#[derive(Debug, Default)]
struct Findings {
    commands: Vec<SimpleCommand>,
    why: Option<String>,
    depth: usize,
    /// How many groups, loops and substitutions are open, over all nested pieces.
    nesting: usize,
    kept_bytes: usize,
    work: usize,
}

impl Findings {
    /// Notes why the line is not understood; the first reason is told.
    fn unknown(&mut self, why: impl Into<String>) {
        if self.why.is_none() {
            self.why = Some(why.into());
        }
    }

    fn push(&mut self, command: SimpleCommand) {
        self.insert(self.commands.len(), command);
    }

    fn insert(&mut self, place: usize, command: SimpleCommand) {
        let words = command.argv.iter().chain(&command.writes).map(|word| match word {
            Word::Literal(text) | Word::Dynamic { text, .. } => text.len(),
        });
        let sets = command.sets.iter().map(String::len);
        self.kept_bytes += 128 + words.chain(sets).map(|length| length + 64).sum::<usize>();
        if !self.is_full() {
            self.commands.insert(place, command);
        }
    }

    /// Tells whether no more is kept, and notes it.
    fn is_full(&mut self) -> bool {
        let is_full = self.commands.len() >= MAX_COMMANDS || self.kept_bytes > MAX_KEPT_BYTES;
        if is_full {
            self.unknown(format!("it holds more than {MAX_COMMANDS} commands, or very long ones"));
        }
        is_full
    }

    /// Counts what is about to be looked at, and tells whether that is still to be done.
    fn spend(&mut self, work: usize) -> bool {
        self.work = self.work.saturating_add(work + 1);
        if self.work > MAX_WORK {
            self.unknown("it takes too much work to follow");
        }
        self.work <= MAX_WORK && !self.is_full()
    }

    /// Goes one level deeper, unless that is too deep.
    fn deeper(&mut self, inside: impl FnOnce(&mut Self)) {
        if self.depth >= MAX_DEPTH {
            self.unknown(format!("it is nested more than {MAX_DEPTH} deep"));
            return;
        }
        self.depth += 1;
        inside(self);
        self.depth -= 1;
    }

    fn finish(self) -> Parsed {
        match self.why {
            None => Parsed::Commands(self.commands),
            Some(why) => Parsed::Unknown { why, commands: self.commands },
        }
    }
}
