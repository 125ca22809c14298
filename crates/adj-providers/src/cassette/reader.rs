//! Reading a cassette: every line is looked at once, and read again when it is played.

use super::{
    compare::Normal,
    format::{Exchange, FORMAT, Head, MAX_LINE_BYTES, VERSION},
};
use crate::{WireKind, error::excerpt};
use adj_domain::{ModelRef, ModelRequest, Purpose};
use serde::Deserialize;
use serde_json::Value;
use std::{
    fmt,
    fs::File,
    io::{self, BufRead, BufReader, Read},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// A cassette that cannot be played.
#[derive(Debug, thiserror::Error)]
pub enum CassetteError {
    #[error("cannot read the cassette {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is not a cassette: {problem}", path.display())]
    Foreign { path: PathBuf, problem: String },
    #[error("the cassette {} has version {found}; this build reads up to {VERSION}", path.display())]
    TooNew { path: PathBuf, found: u32 },
    #[error("{}:{line}: {problem}", path.display())]
    Line { path: PathBuf, line: usize, problem: String },
}

/// A cassette whose lines are known.
#[derive(Debug)]
pub(super) struct Cassette {
    pub(super) path: PathBuf,
    pub(super) head: Head,
    pub(super) entries: Vec<Entry>,
    /// What is wrong with the last line, if the recording was cut off within it.
    pub(super) torn: Option<String>,
    /// Exchanges that no line could hold.
    pub(super) too_large: usize,
    file: File,
}

/// One exchange: whose it is, and where it stands.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) line: usize,
    pub(super) key: Key,
    /// Of the request without what differs by itself.
    pub(super) hash: u64,
    /// Its caller did not wait for the end.
    pub(super) was_dropped: bool,
    offset: u64,
    bytes: usize,
}

/// Whose request this is, and which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Key {
    Neutral { agent: String, role: String, purpose: Purpose, turn: u32, step: u32, model: ModelRef },
    Passed { wire: WireKind, path: String, model: Option<String> },
}

impl Key {
    pub(super) fn of_request(request: &ModelRequest) -> Self {
        let caller = &request.caller;
        Self::Neutral {
            agent: caller.agent.clone(),
            role: caller.role.clone(),
            purpose: request.purpose,
            turn: caller.turn,
            step: caller.step,
            model: request.model.clone(),
        }
    }

    pub(super) fn of_passed(wire: WireKind, path: &str, body: &super::format::Body) -> Self {
        let model = match body {
            super::format::Body::Json(body) => body["model"].as_str().map(str::to_owned),
            super::format::Body::Text(_) | super::format::Body::Base64(_) => None,
        };
        Self::Passed { wire, path: path.to_owned(), model }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Neutral { agent, purpose, turn, step, .. } => {
                let summary = if *purpose == Purpose::Compaction { ", a summary" } else { "" };
                write!(f, "agent {agent:?}, turn {turn}, step {step}{summary}")
            }
            Self::Passed { path, model, .. } => {
                let model = model.as_deref().map_or_else(String::new, |model| format!(" for {model}"));
                write!(f, "a request to {path}{model}")
            }
        }
    }
}

impl Cassette {
    pub(super) fn open(path: &Path) -> Result<Self, CassetteError> {
        let unreadable = |source| CassetteError::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(unreadable)?;
        let mut lines = BufReader::new(file.try_clone().map_err(unreadable)?);
        let mut line = Vec::new();
        let mut offset = read_line(&mut lines, &mut line).map_err(unreadable)? as u64;
        let head = head(path, &line)?;
        let mut cassette = Self { path: path.to_owned(), head, entries: Vec::new(), torn: None, too_large: 0, file };
        let mut number = 1;
        loop {
            let bytes = read_line(&mut lines, &mut line).map_err(unreadable)?;
            number += 1;
            if bytes == 0 {
                return Ok(cassette);
            }
            if let Err(problem) = cassette.add(&line, number, offset) {
                // Whatever the line is, it was not ended: a recorder that died wrote it last.
                if !line.ends_with(b"\n") && line.len() <= MAX_LINE_BYTES {
                    cassette.torn = Some(format!("line {number} was cut off and is left out"));
                    return Ok(cassette);
                }
                return Err(CassetteError::Line { path: path.to_owned(), line: number, problem });
            }
            offset += bytes as u64;
        }
    }

    fn add(&mut self, bytes: &[u8], line: usize, offset: u64) -> Result<(), String> {
        let (key, hash, end) = match parse(bytes)? {
            Exchange::Neutral(neutral) => {
                let hash = Normal::of_request(&neutral.request, &self.head.heading.places).hash();
                (Key::of_request(&neutral.request), hash, neutral.end)
            }
            Exchange::Passed(passed) => {
                let hash = Normal::of_body(&passed.body, &self.head.heading.places).hash();
                (Key::of_passed(passed.wire, &passed.path, &passed.body), hash, passed.end)
            }
            Exchange::TooLarge(_) => {
                self.too_large += 1;
                return Ok(());
            }
        };
        let was_dropped = end == super::format::End::Dropped;
        self.entries.push(Entry { line, key, hash, was_dropped, offset, bytes: bytes.len() });
        Ok(())
    }

    /// Reads an exchange again.
    pub(super) fn exchange(&self, entry: &Entry) -> Result<Exchange, CassetteError> {
        let mut bytes = vec![0; entry.bytes];
        let unreadable = |source| CassetteError::Read { path: self.path.clone(), source };
        self.file.read_exact_at(&mut bytes, entry.offset).map_err(unreadable)?;
        parse(&bytes).map_err(|_| CassetteError::Line {
            path: self.path.clone(),
            line: entry.line,
            problem: "the line has changed since it was first read".to_owned(),
        })
    }
}

fn parse(line: &[u8]) -> Result<Exchange, String> {
    if line.len() > MAX_LINE_BYTES {
        return Err(format!("the line is longer than {MAX_LINE_BYTES} bytes"));
    }
    serde_json::from_slice(line).map_err(|error| format!("not an exchange: {}", excerpt(&error.to_string(), 300)))
}

/// Reads a line with its end, or as much of it as shows that it is too long. Returns its length; zero at the file's end.
fn read_line(lines: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<usize> {
    line.clear();
    lines.take(MAX_LINE_BYTES as u64 + 1).read_until(b'\n', line)
}

fn head(path: &Path, line: &[u8]) -> Result<Head, CassetteError> {
    let foreign = |problem: &str| CassetteError::Foreign { path: path.to_owned(), problem: problem.to_owned() };
    #[derive(Deserialize)]
    struct Beginning {
        format: String,
        version: u32,
    }
    if line.is_empty() {
        return Err(foreign("it is empty"));
    }
    let value: Value = serde_json::from_slice(line).map_err(|_| foreign("its first line is not JSON"))?;
    match Beginning::deserialize(&value) {
        Ok(Beginning { format, .. }) if format != FORMAT => Err(foreign("its first line names another format")),
        Ok(Beginning { version, .. }) if version > VERSION => {
            Err(CassetteError::TooNew { path: path.to_owned(), found: version })
        }
        Ok(_) => Head::deserialize(&value).map_err(|error| foreign(&format!("its first line: {error}"))),
        Err(_) => Err(foreign("its first line names no format")),
    }
}
