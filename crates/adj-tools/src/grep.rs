//! The grep tool: lines that match, through ripgrep's own searcher.

use crate::cancel::Cancel;
use crate::clip::printable;
use crate::glob::{GlobError, LONGEST_SEARCH, below, matcher, show, walk};
use crate::input::Grep;
use crate::text::count;
use crate::tree::{Found, Tree, TreeError};
use grep_matcher::LineTerminator;
use grep_regex::{RegexMatcher, RegexMatcherBuilder};
use grep_searcher::{BinaryDetection, Searcher, SearcherBuilder, Sink, SinkContext, SinkMatch};
use std::io;
use std::path::Path;
use std::time::Instant;

const USUAL_LIMIT: usize = 200;
const LONGEST_LINE: usize = 500;
/// Memory for one line and its context; a file with longer lines is named and not searched.
const HEAP_BYTES: usize = 16 * 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub(crate) enum GrepError {
    #[error(transparent)]
    Tree(#[from] TreeError),
    #[error(transparent)]
    Glob(#[from] GlobError),
    #[error(
        "the pattern is not a regular expression of Rust's syntax (to find a special character itself, put a backslash before it): {message}"
    )]
    Pattern { message: String },
    #[error("the search was cancelled")]
    Cancelled,
}

pub(crate) fn grep(tree: &Tree, input: &Grep, keep_chars: usize, cancel: &Cancel) -> Result<String, GrepError> {
    let place = tree.find(input.path.as_deref().unwrap_or("."))?;
    let regex = RegexMatcherBuilder::new()
        .case_insensitive(input.ignore_case == Some(true))
        .crlf(true)
        .build(&input.pattern)
        .map_err(|error| GrepError::Pattern { message: error.to_string() })?;
    let filter = input.glob.as_deref().map(NameFilter::new).transpose()?;
    let context = input.context.unwrap_or(0);
    let mut search = Search {
        searcher: SearcherBuilder::new()
            .line_terminator(LineTerminator::crlf())
            .line_number(true)
            .before_context(context)
            .after_context(context)
            .heap_limit(Some(HEAP_BYTES))
            .binary_detection(BinaryDetection::quit(0))
            .build(),
        regex,
        found: Lines {
            out: String::new(),
            chars_left: keep_chars.saturating_sub(400),
            limit: input.limit.unwrap_or(USUAL_LIMIT),
            matches: 0,
            is_full: false,
            name: String::new(),
            has_context: context > 0,
        },
        unread: Vec::new(),
    };
    let mut is_cut_short = false;
    match place.found {
        Found::Missing | Found::Special(_) => {
            place.open_file()?;
        }
        // A file that was named is searched, whatever a glob or .gitignore says.
        Found::File(_) => search.file(tree, &place.shown),
        Found::Folder => {
            let start = tree.path_of(&place);
            let deadline = Instant::now() + LONGEST_SEARCH;
            for entry in walk(&start) {
                if cancel.is_cancelled() {
                    return Err(GrepError::Cancelled);
                }
                if Instant::now() > deadline {
                    is_cut_short = true;
                    break;
                }
                let Ok(entry) = entry else {
                    search.unread.push("a folder".to_owned());
                    continue;
                };
                let Some(below) = below(&entry, &start) else { continue };
                // A link's target is searched where it lies, or lies outside.
                let is_wanted = filter.as_ref().is_none_or(|filter| filter.is_match(below));
                if is_wanted && !entry.path_is_symlink() {
                    search.file(tree, &show(&place, below));
                }
                if search.found.is_full {
                    break;
                }
            }
        }
    }
    Ok(search.answer(is_cut_short, &place.shown))
}

struct Search {
    searcher: Searcher,
    regex: RegexMatcher,
    found: Lines,
    unread: Vec<String>,
}

impl Search {
    fn file(&mut self, tree: &Tree, shown: &str) {
        let file = tree.find(shown).and_then(|place| place.open_file());
        self.found.name = shown.to_owned();
        let searched = match file {
            Ok(file) => self.searcher.search_file(&self.regex, &file, &mut self.found).is_ok(),
            Err(_) => false,
        };
        if !searched {
            self.unread.push(shown.to_owned());
        }
    }

    fn answer(self, is_cut_short: bool, place: &str) -> String {
        let mut answer = self.found.out;
        if self.found.matches == 0 {
            answer = format!("no matches in {place} (files excluded by .gitignore and binary files are left out)\n");
        }
        if self.found.is_full {
            let matches =
                if self.found.matches == 1 { "1 match".to_owned() } else { format!("{} matches", self.found.matches) };
            answer
                .push_str(&format!("[stopped after {matches}; narrow the pattern, path or glob to see the others]\n"));
        }
        if is_cut_short {
            answer
                .push_str(&format!("[stopped after {} seconds; search a smaller folder]\n", LONGEST_SEARCH.as_secs()));
        }
        if !self.unread.is_empty() {
            let some: Vec<&str> = self.unread.iter().take(3).map(String::as_str).collect();
            answer.push_str(&format!(
                "[{} could not be searched: {}]\n",
                count(self.unread.len(), "file"),
                some.join(", ")
            ));
        }
        answer
    }
}

/// A glob that names a file alone is meant for any folder.
struct NameFilter {
    glob: globset::GlobMatcher,
    is_name: bool,
}

impl NameFilter {
    fn new(pattern: &str) -> Result<Self, GlobError> {
        Ok(Self { glob: matcher(pattern)?, is_name: !pattern.contains('/') })
    }

    fn is_match(&self, below: &Path) -> bool {
        match below.file_name() {
            Some(name) if self.is_name => self.glob.is_match(name),
            _ => self.glob.is_match(below),
        }
    }
}

/// The answer as it grows.
struct Lines {
    out: String,
    chars_left: usize,
    limit: usize,
    matches: usize,
    is_full: bool,
    name: String,
    has_context: bool,
}

impl Lines {
    fn push(&mut self, number: Option<u64>, mark: char, bytes: &[u8]) -> bool {
        let text = printable(bytes);
        let text = text.trim_end_matches(['\n', '\r']);
        let (text, cut) = match text.char_indices().nth(LONGEST_LINE) {
            Some((at, _)) => (&text[..at], " […]"),
            None => (text, ""),
        };
        let line = format!("{}{mark}{}{mark}{text}{cut}\n", self.name, number.unwrap_or(0));
        let chars = line.chars().count();
        if chars > self.chars_left {
            self.is_full = true;
            return false;
        }
        self.chars_left -= chars;
        self.out.push_str(&line);
        true
    }
}

impl Sink for Lines {
    type Error = io::Error;

    fn matched(&mut self, _: &Searcher, found: &SinkMatch<'_>) -> Result<bool, io::Error> {
        if self.matches == self.limit {
            self.is_full = true;
            return Ok(false);
        }
        if !self.push(found.line_number(), ':', found.bytes()) {
            return Ok(false);
        }
        self.matches += 1;
        Ok(true)
    }

    fn context(&mut self, _: &Searcher, context: &SinkContext<'_>) -> Result<bool, io::Error> {
        Ok(self.push(context.line_number(), '-', context.bytes()))
    }

    fn context_break(&mut self, _: &Searcher) -> Result<bool, io::Error> {
        if self.has_context {
            self.out.push_str("--\n");
        }
        Ok(true)
    }
}
