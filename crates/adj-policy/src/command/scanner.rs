//! The shell's grammar: lists, pipelines, compound commands, redirections and here-documents.
//!
//! It is written by hand rather than over a general grammar for the shell, because those accept lines which a shell reads
//! differently (an escaped blank, a carriage return, an odd here-document), and such a difference is a way out.

mod quoting;

use super::{
    Dialect, Findings, SimpleCommand, Word, unwrap,
    words::{is_harmless_assignment, is_name, is_name_part, is_name_start},
};
use quoting::Piece;

/// How deep groups, loops and substitutions may stand in one another.
const MAX_NESTING: usize = 32;
/// How often reading starts again after something that is not understood.
const MAX_RESTARTS: usize = 64;

const RESERVED: &[&str] = &[
    "!", "[[", "]]", "case", "coproc", "do", "done", "elif", "else", "esac", "fi", "for", "function", "if", "in",
    "select", "then", "time", "until", "while", "{", "}",
];

/// Reads a script and notes its commands.
pub(super) fn script(found: &mut Findings, text: &str, through: Vec<&'static str>, dialect: Dialect) {
    if !found.spend(text.len()) {
        return;
    }
    found.deeper(|found| {
        let mut scanner = Scanner::new(found, text, through, dialect);
        let (through, nesting) = (scanner.through.clone(), scanner.found.nesting);
        for _ in 0..MAX_RESTARTS {
            match scanner.list(End::Text) {
                Ok(_) => {
                    if !scanner.pending.is_empty() {
                        scanner.found.unknown("a here-document has no body");
                    }
                    return;
                }
                Err(Broken) => {
                    scanner.through.clone_from(&through);
                    scanner.substitutions = 0;
                    scanner.found.nesting = nesting;
                    scanner.pending.clear();
                    scanner.skip_to_a_new_command();
                }
            }
        }
    });
}

/// Reading cannot go on here; why was noted.
#[derive(Debug)]
struct Broken;

/// Where a list of commands ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Text,
    Parenthesis,
    Words(&'static [&'static str]),
}

#[derive(Debug)]
struct HereDocument {
    delimiter: String,
    is_quoted: bool,
    strips_tabs: bool,
}

struct Scanner<'a> {
    found: &'a mut Findings,
    text: Vec<char>,
    at: usize,
    through: Vec<&'static str>,
    dialect: Dialect,
    pending: Vec<HereDocument>,
    substitutions: usize,
}

impl<'a> Scanner<'a> {
    fn new(found: &'a mut Findings, text: &str, through: Vec<&'static str>, dialect: Dialect) -> Self {
        let text = text.chars().collect();
        Self { found, text, at: 0, through, dialect, pending: Vec::new(), substitutions: 0 }
    }

    fn broken<T>(&mut self, why: impl Into<String>) -> Result<T, Broken> {
        self.found.unknown(why);
        Err(Broken)
    }

    /// Returns a character as it stands there.
    fn raw(&self, ahead: usize) -> Option<char> {
        self.text.get(self.at + ahead).copied()
    }

    /// Returns the next character, after line continuations.
    fn peek(&mut self) -> Option<char> {
        while self.raw(0) == Some('\\') && self.raw(1) == Some('\n') {
            let is_blank = |character: Option<char>| matches!(character, None | Some(' ' | '\t' | '\n'));
            let before = self.at.checked_sub(1).and_then(|at| self.text.get(at).copied());
            if !is_blank(before) && !is_blank(self.raw(2)) || !self.pending.is_empty() {
                self.found.unknown("a line is continued in the middle of a word");
            }
            self.at += 2;
        }
        self.raw(0)
    }

    fn skip_to_a_new_command(&mut self) {
        if let Some(word) = self.plain_word() {
            self.at += word.len();
            return;
        }
        while let Some(character) = self.raw(0) {
            self.at += 1;
            if matches!(character, '\n' | ';' | '&' | '|' | '(' | '`' | ')') {
                break;
            }
        }
    }

    /// Skips blanks and a comment.
    fn blanks(&mut self) {
        while let Some(' ' | '\t') = self.peek() {
            self.at += 1;
        }
        if self.peek() == Some('#') {
            while self.raw(0).is_some_and(|character| character != '\n') {
                self.at += 1;
            }
        }
    }

    /// Skips blanks, comments and ends of lines.
    fn gap(&mut self) -> Result<(), Broken> {
        loop {
            self.blanks();
            if self.peek() != Some('\n') {
                return Ok(());
            }
            self.newline()?;
        }
    }

    fn newline(&mut self) -> Result<(), Broken> {
        self.at += 1;
        if self.pending.is_empty() {
            return Ok(());
        }
        if self.substitutions > 0 {
            return self.broken("a here-document begins inside a substitution");
        }
        for document in std::mem::take(&mut self.pending) {
            self.here_document(&document)?;
        }
        Ok(())
    }

    fn here_document(&mut self, document: &HereDocument) -> Result<(), Broken> {
        let start = self.at;
        loop {
            if self.at >= self.text.len() {
                return self.broken("a here-document has no end");
            }
            let line_start = self.at;
            while self.raw(0).is_some_and(|character| character != '\n') {
                self.at += 1;
            }
            let line: String = self.text[line_start..self.at].iter().collect();
            self.at = (self.at + 1).min(self.text.len());
            let line = if document.strips_tabs { line.trim_start_matches('\t') } else { &line };
            if line == document.delimiter {
                let body: String = self.text[start..line_start].iter().collect();
                if !document.is_quoted {
                    self.here_body(&body)?;
                }
                return Ok(());
            }
        }
    }

    /// Finds the substitutions in the body of a here-document.
    fn here_body(&mut self, body: &str) -> Result<(), Broken> {
        if body.contains("\\\n") {
            self.found.unknown("a line is continued in a here-document");
        }
        let mut inner = Scanner::new(self.found, body, self.through.clone(), self.dialect);
        let mut piece = Piece::default();
        while let Some(character) = inner.raw(0) {
            match character {
                '\\' => inner.at += 2,
                '$' => inner.dollar(&mut piece, true)?,
                '`' => inner.backquotes(&mut piece, true)?,
                _ => inner.at += 1,
            }
        }
        Ok(())
    }

    /// Returns the unquoted word here that could be a reserved one.
    fn plain_word(&mut self) -> Option<String> {
        self.peek();
        let word: String = self.text[self.at..]
            .iter()
            .take(12)
            .take_while(|character| character.is_ascii_lowercase() || matches!(character, '!' | '{' | '}' | '[' | ']'))
            .collect();
        let next = self.raw(word.len());
        let ends = matches!(next, None | Some(' ' | '\t' | '\n' | ';' | '&' | '|' | '(' | ')' | '<' | '>'))
            || next == Some('\\') && self.raw(word.len() + 1) == Some('\n');
        (ends && RESERVED.contains(&word.as_str())).then_some(word)
    }

    /// Reads commands up to the end, and returns the reserved word that ended them.
    fn list(&mut self, end: End) -> Result<&'static str, Broken> {
        self.found.nesting += 1;
        if self.found.nesting > MAX_NESTING {
            return self.broken(format!("groups stand more than {MAX_NESTING} deep in one another"));
        }
        let mut is_empty = true;
        let ended_by = loop {
            self.gap()?;
            match end {
                End::Text if self.peek().is_none() => break "",
                End::Parenthesis if self.peek() == Some(')') => {
                    self.at += 1;
                    break "";
                }
                End::Words(words) => {
                    let here = self.plain_word();
                    if let Some(word) = words.iter().find(|word| here.as_deref() == Some(**word)) {
                        if is_empty {
                            return self.broken("a command is missing");
                        }
                        self.at += word.len();
                        break *word;
                    }
                }
                _ => {}
            }
            is_empty = false;
            self.chain()?;
            self.blanks();
            match self.peek() {
                None | Some('\n') => {}
                Some(';') if self.raw(1) != Some(';') => self.at += 1,
                Some('&') => self.at += 1,
                Some(')') if end == End::Parenthesis => {}
                Some(other) => return self.broken(format!("`{other}` stands where a command ends")),
            }
        };
        self.found.nesting -= 1;
        Ok(ended_by)
    }

    /// Reads pipelines that `&&` and `||` join.
    fn chain(&mut self) -> Result<(), Broken> {
        loop {
            self.pipeline()?;
            self.blanks();
            match (self.peek(), self.raw(1)) {
                (Some('&'), Some('&')) | (Some('|'), Some('|')) => self.at += 2,
                _ => return Ok(()),
            }
            self.gap()?;
        }
    }

    fn pipeline(&mut self) -> Result<(), Broken> {
        self.blanks();
        loop {
            let word = self.plain_word();
            match word.as_deref() {
                Some("!") => self.at += 1,
                Some("time") if self.dialect == Dialect::Bash => {
                    self.at += 4;
                    self.blanks();
                    if self.raw(0) == Some('-') && self.raw(1) == Some('p') && matches!(self.raw(2), Some(' ' | '\t')) {
                        self.at += 2;
                    }
                    self.blanks();
                    if matches!(self.peek(), None | Some('\n' | ';' | '-')) {
                        return self.broken("`time` stands alone");
                    }
                }
                _ => break,
            }
            self.blanks();
        }
        let (first, level) = (self.found.commands.len(), self.through.len());
        self.command()?;
        let mut is_piped = false;
        loop {
            self.blanks();
            if self.peek() != Some('|') || self.raw(1) == Some('|') {
                break;
            }
            self.at += 1;
            if self.raw(0) == Some('&') {
                self.only_in_bash("|&");
                self.at += 1;
            }
            is_piped = true;
            self.gap()?;
            self.command()?;
        }
        if is_piped {
            for command in &mut self.found.commands[first..] {
                command.reached_through.insert(level.min(command.reached_through.len()), "pipe");
            }
        }
        Ok(())
    }

    fn only_in_bash(&mut self, what: &str) {
        if self.dialect != Dialect::Bash {
            self.found.unknown(format!("not every shell understands `{what}`"));
        }
    }

    fn command(&mut self) -> Result<(), Broken> {
        self.blanks();
        if self.peek() == Some('(') {
            self.at += 1;
            if self.peek() == Some('(') {
                return self.broken("arithmetic is not understood");
            }
            self.list(End::Parenthesis)?;
            return self.redirections();
        }
        let Some(word) = self.plain_word() else { return self.simple_command() };
        self.at += word.len();
        match word.as_str() {
            "{" => {
                self.list(End::Words(&["}"]))?;
            }
            "if" => {
                self.list(End::Words(&["then"]))?;
                loop {
                    match self.list(End::Words(&["elif", "else", "fi"]))? {
                        "elif" => self.list(End::Words(&["then"]))?,
                        "else" => {
                            self.list(End::Words(&["fi"]))?;
                            break;
                        }
                        _ => break,
                    };
                }
            }
            "while" | "until" => {
                self.list(End::Words(&["do"]))?;
                self.list(End::Words(&["done"]))?;
            }
            "for" => self.loop_over_words()?,
            _ => {
                self.at -= word.len();
                if word == "time" || word == "]]" || word == "in" {
                    return self.simple_command();
                }
                return self.broken(format!("`{word}` is not understood"));
            }
        }
        self.redirections()
    }

    fn loop_over_words(&mut self) -> Result<(), Broken> {
        self.blanks();
        let start = self.at;
        while self.raw(0).is_some_and(is_name_part) {
            self.at += 1;
        }
        let name: String = self.text[start..self.at].iter().collect();
        if !is_harmless_assignment(&name, None) {
            return self.broken("a loop over something else than a harmless variable is not understood");
        }
        if !matches!(self.raw(0), Some(' ' | '\t' | '\n' | ';')) {
            return self.broken("a loop is not understood");
        }
        self.gap()?;
        let has_words = self.plain_word().as_deref() == Some("in");
        if has_words {
            self.at += 2;
            loop {
                self.blanks();
                match self.peek() {
                    Some(';' | '\n') => break,
                    None | Some('&' | '|' | '(' | ')' | '<' | '>') => return self.broken("a loop is not understood"),
                    Some(_) => {
                        let word = self.word()?;
                        if word.literal.contains("$(") || word.literal.contains('`') {
                            self.found.unknown("a loop runs over words that look like commands");
                        }
                    }
                }
            }
        }
        if self.peek() == Some(';') {
            self.at += 1;
        }
        self.gap()?;
        if self.plain_word().as_deref() != Some("do") {
            return self.broken("a loop has no `do`");
        }
        self.at += 2;
        self.list(End::Words(&["done"]))?;
        Ok(())
    }

    /// Reads the redirections after a compound command.
    fn redirections(&mut self) -> Result<(), Broken> {
        let mut writes = Vec::new();
        loop {
            self.blanks();
            if !self.redirection(&mut writes)? {
                break;
            }
        }
        if !writes.is_empty() {
            let reached_through = self.through.clone();
            self.found.push(SimpleCommand { reached_through, writes, ..SimpleCommand::default() });
        }
        Ok(())
    }

    fn simple_command(&mut self) -> Result<(), Broken> {
        let mut command = SimpleCommand { reached_through: self.through.clone(), ..SimpleCommand::default() };
        let start = self.at;
        loop {
            self.blanks();
            if self.redirection(&mut command.writes)? {
                continue;
            }
            match self.peek() {
                None | Some('\n' | ';' | '&' | '|' | ')') => break,
                Some('(') => return self.broken("a parenthesis after a word is not understood"),
                Some(_) => {}
            }
            if command.argv.is_empty()
                && let Some(set) = self.assignment()?
            {
                command.sets.push(set);
                continue;
            }
            let word = self.word()?;
            if matches!(self.raw(0), Some('<' | '>')) && word.source.starts_with('{') && word.source.ends_with('}') {
                return self.broken("a redirection that chooses its own number is not understood");
            }
            command.argv.push(word.into_word());
        }
        if self.at == start {
            return self.broken("a command is missing");
        }
        unwrap::command(self.found, command, self.dialect);
        Ok(())
    }

    /// Reads `NAME=value`, where one stands here.
    fn assignment(&mut self) -> Result<Option<String>, Broken> {
        let length = self.text[self.at..].iter().take_while(|character| is_name_part(**character)).count();
        if length == 0 || !self.raw(0).is_some_and(is_name_start) {
            return Ok(None);
        }
        let appends = match (self.raw(length), self.raw(length + 1)) {
            (Some('='), _) => false,
            (Some('+'), Some('=')) => true,
            (Some('['), _) => return self.broken("arrays are not understood"),
            _ => return Ok(None),
        };
        let name: String = self.text[self.at..self.at + length].iter().collect();
        if appends {
            self.only_in_bash("+=");
        }
        self.at += length + 1 + usize::from(appends);
        if self.peek() == Some('(') {
            return self.broken("arrays are not understood");
        }
        let value = self.word()?;
        let known = (!value.is_dynamic).then_some(value.literal.as_str());
        if appends || !is_harmless_assignment(&name, known) {
            self.found.unknown(format!("the variable {name} may change what is run"));
        }
        Ok(Some(format!("{name}={}", known.unwrap_or(&value.source))))
    }

    /// Reads one redirection, where one stands here.
    fn redirection(&mut self, writes: &mut Vec<Word>) -> Result<bool, Broken> {
        self.peek();
        let digits = self.text[self.at..].iter().take_while(|character| character.is_ascii_digit()).count();
        if digits > 1 && matches!(self.raw(digits), Some('<' | '>')) {
            if digits > 8 {
                return self.broken("the number of a redirection is too long");
            }
            // Other shells take it for a word.
            self.only_in_bash("a redirection with a number above 9");
        }
        let rest: String = self.text[self.at + digits..].iter().take(3).collect();
        if matches!(rest.get(..2), Some("<(" | ">(")) {
            return Ok(false);
        }
        let operators = ["<<<", "<<-", "<<", "<&", "<>", "<", ">>", ">&", ">|", ">", "&>>", "&>"];
        let Some(operator) = operators.into_iter().find(|operator| rest.starts_with(operator)) else {
            return Ok(false);
        };
        if operator.starts_with('&') && digits > 0 {
            return Ok(false);
        }
        self.at += digits + operator.len();
        if matches!(operator, "&>" | "&>>" | "<<<") {
            self.only_in_bash(operator);
        }
        self.blanks();
        if matches!(self.peek(), None | Some('\n' | ';' | '&' | '|' | '(' | ')'))
            || matches!(self.raw(0), Some('<' | '>')) && self.raw(1) != Some('(')
        {
            return self.broken("a redirection has no target");
        }
        let target = self.word()?;
        match operator {
            "<<" | "<<-" => {
                let is_usual = !target.literal.is_empty() && target.literal.chars().all(is_name_part);
                if target.is_dynamic || !is_usual || self.substitutions > 0 {
                    return self.broken("a here-document is not understood");
                }
                let strips_tabs = operator == "<<-";
                let (delimiter, is_quoted) = (target.literal, !target.is_plain);
                self.pending.push(HereDocument { delimiter, is_quoted, strips_tabs });
            }
            "<<<" => {}
            _ => {
                let text = target.literal.trim_end_matches('-');
                let is_number = text.chars().all(|character| character.is_ascii_digit());
                if operator.ends_with('&') && !target.is_dynamic && !target.literal.is_empty() && is_number {
                    return Ok(true);
                }
                if operator == "<&" {
                    return self.broken("a redirection is not understood");
                }
                let is_usual = |character: char| is_name_part(character) || matches!(character, '.' | '/' | '-');
                if operator == ">&" && (target.is_dynamic || !target.literal.chars().all(is_usual)) {
                    // Bash expands such a name a second time, even a quoted one.
                    self.found.unknown("a redirection is not understood");
                }
                if target.literal.contains("/dev/tcp") || target.literal.contains("/dev/udp") {
                    self.found.unknown("a redirection opens a connection");
                }
                if operator != "<" {
                    writes.push(target.into_word());
                }
            }
        }
        Ok(true)
    }
}

/// Splits `NAME=value`.
pub(super) fn split_assignment(text: &str) -> Option<(&str, &str)> {
    text.split_once('=').filter(|(name, _)| is_name(name))
}
