//! Words: quotes, escapes, expansions, and the substitutions inside them.

use super::{Broken, End, Scanner, script};
use crate::command::{
    Dialect, Word,
    words::{is_name_part, is_name_start},
};

/// A word, as far as it is known.
#[derive(Debug, Default)]
pub(super) struct Piece {
    pub(super) literal: String,
    pub(super) source: String,
    pub(super) is_dynamic: bool,
    splits: bool,
    /// Whether nothing in it is quoted or escaped.
    pub(super) is_plain: bool,
}

impl Piece {
    pub(super) fn into_word(self) -> Word {
        if self.is_dynamic {
            Word::Dynamic { text: self.source, splits: self.splits }
        } else {
            Word::Literal(self.literal)
        }
    }

    fn dynamic(&mut self, splits: bool) {
        self.is_dynamic = true;
        self.splits |= splits;
    }
}

fn ends_a_word(character: Option<char>) -> bool {
    matches!(character, None | Some(' ' | '\t' | '\n' | ';' | '&' | '|' | '(' | ')' | '<' | '>'))
}

impl Scanner<'_> {
    /// Reads the word here; it is empty where none stands.
    pub(super) fn word(&mut self) -> Result<Piece, Broken> {
        let mut piece = Piece { is_plain: true, ..Piece::default() };
        let start = self.at;
        let mut before = None;
        while let Some(character) = self.peek() {
            let is_first = before.is_none();
            match character {
                '<' | '>' if self.raw(1) == Some('(') => {
                    self.only_in_bash("<(");
                    self.at += 2;
                    self.substitution()?;
                    // An empty one is no word at all.
                    piece.dynamic(true);
                }
                _ if ends_a_word(Some(character)) => break,
                '\\' => {
                    piece.is_plain = false;
                    let Some(escaped) = self.raw(1) else { return self.broken("the line ends with a backslash") };
                    piece.literal.push(escaped);
                    self.at += 2;
                    self.ascii_only(escaped);
                }
                '\'' => {
                    piece.is_plain = false;
                    self.at += 1;
                    loop {
                        match self.raw(0) {
                            None => return self.broken("a quote is not closed"),
                            Some('\'') => break,
                            Some(inner) => self.quoted(&mut piece, inner),
                        }
                    }
                    self.at += 1;
                }
                '"' => self.double_quotes(&mut piece)?,
                '`' => self.backquotes(&mut piece, false)?,
                '$' => self.dollar(&mut piece, false)?,
                '{' if is_first && ends_a_word(self.raw(1)) => self.take(&mut piece, character),
                '{' if is_first && self.raw(1) == Some('}') && ends_a_word(self.raw(2)) => {
                    piece.literal.push_str("{}");
                    self.at += 2;
                }
                '[' if is_first && ends_a_word(self.raw(1)) => self.take(&mut piece, character),
                '*' | '?' | '[' | '{' => {
                    piece.dynamic(true);
                    self.take(&mut piece, character);
                }
                '~' if matches!(before, None | Some('=' | ':')) => {
                    piece.dynamic(false);
                    self.take(&mut piece, character);
                }
                _ => {
                    self.ascii_only(character);
                    self.take(&mut piece, character);
                }
            }
            before = Some(character);
        }
        piece.source = self.text[start..self.at].iter().collect();
        Ok(piece)
    }

    fn take(&mut self, piece: &mut Piece, character: char) {
        piece.literal.push(character);
        self.at += 1;
    }

    /// Takes a character between quotes.
    fn quoted(&mut self, piece: &mut Piece, character: char) {
        if character == '\n' && !self.pending.is_empty() {
            self.found.unknown("a here-document begins inside quotes");
        }
        self.take(piece, character);
    }

    /// Some shells look at single bytes, and take parts of other letters for blanks.
    fn ascii_only(&mut self, character: char) {
        if !character.is_ascii() {
            self.found.unknown(format!("the letter \"{character}\" stands outside quotes"));
        }
    }

    fn double_quotes(&mut self, piece: &mut Piece) -> Result<(), Broken> {
        piece.is_plain = false;
        self.at += 1;
        loop {
            match (self.raw(0), self.raw(1)) {
                (None, _) => return self.broken("a quote is not closed"),
                (Some('"'), _) => break,
                (Some('\\'), Some('\n')) => self.at += 2,
                (Some('\\'), Some(escaped @ ('$' | '`' | '"' | '\\'))) => {
                    self.at += 1;
                    self.take(piece, escaped);
                }
                (Some('`'), _) => self.backquotes(piece, true)?,
                (Some('$'), _) => self.dollar(piece, true)?,
                (Some(character), _) => self.quoted(piece, character),
            }
        }
        self.at += 1;
        Ok(())
    }

    /// Reads the commands of `$(…)` or `<(…)`, from after the parenthesis to after the other one.
    fn substitution(&mut self) -> Result<(), Broken> {
        self.through.push("substitution");
        self.substitutions += 1;
        self.list(End::Parenthesis)?;
        self.substitutions -= 1;
        self.through.pop();
        Ok(())
    }

    pub(super) fn backquotes(&mut self, piece: &mut Piece, in_quotes: bool) -> Result<(), Broken> {
        self.at += 1;
        piece.dynamic(!in_quotes);
        piece.is_plain = false;
        let mut inner = String::new();
        loop {
            match (self.raw(0), self.raw(1)) {
                (None, _) => return self.broken("a backquote is not closed"),
                (Some('`'), _) => break,
                (Some('\\'), Some(escaped)) => {
                    self.found.unknown("a backslash between backquotes is not understood");
                    if !matches!(escaped, '$' | '`' | '\\') {
                        inner.push('\\');
                    }
                    inner.push(escaped);
                    self.at += 2;
                }
                (Some(character), _) => {
                    if in_quotes && matches!(character, '"' | '\'') {
                        self.found.unknown("quotes between backquotes between quotes are not understood");
                    }
                    if character == '\n' && !self.pending.is_empty() {
                        self.found.unknown("a here-document begins inside backquotes");
                    }
                    inner.push(character);
                    self.at += 1;
                }
            }
        }
        self.at += 1;
        let mut through = self.through.clone();
        through.push("substitution");
        script(self.found, &inner, through, self.dialect);
        Ok(())
    }

    /// Reads what a dollar sign begins.
    pub(super) fn dollar(&mut self, piece: &mut Piece, in_quotes: bool) -> Result<(), Broken> {
        let Some(next) = self.raw(1) else {
            self.take(piece, '$');
            return Ok(());
        };
        match next {
            '(' => {
                piece.dynamic(!in_quotes);
                if self.raw(2) == Some('(') {
                    if let Some(length) = self.sum_of_numbers() {
                        self.at += length;
                        return Ok(());
                    }
                    self.found.unknown("arithmetic is not understood");
                }
                self.at += 2;
                self.substitution()?;
            }
            '{' => {
                piece.dynamic(!in_quotes);
                let start = self.at + 2 + usize::from(self.raw(2) == Some('#'));
                let length = self.text[start.min(self.text.len())..].iter().take_while(|c| is_name_part(**c)).count();
                if length > 0 && self.text.get(start + length) == Some(&'}') {
                    self.at = start + length + 1;
                } else {
                    self.found.unknown("an expansion in braces is not understood");
                    piece.literal.push_str("${");
                    self.at += 2;
                }
            }
            '[' => {
                self.found.unknown("arithmetic is not understood");
                piece.dynamic(!in_quotes);
                self.at += 2;
            }
            '\'' if !in_quotes => {
                self.only_in_bash("$'");
                self.at += 2;
                self.escaped_quotes(piece)?;
            }
            '"' if !in_quotes => {
                self.found.unknown("a translated text is not understood");
                self.at += 1;
            }
            '\\' if self.raw(2) == Some('\n') => return self.broken("a line is continued in the middle of a word"),
            '@' | '*' => {
                piece.dynamic(true);
                self.at += 2;
            }
            '#' | '?' | '$' | '!' | '-' | '0'..='9' => {
                piece.dynamic(!in_quotes);
                self.at += 2;
            }
            _ if is_name_start(next) => {
                piece.dynamic(!in_quotes);
                self.at += 1;
                while self.raw(0).is_some_and(is_name_part) {
                    self.at += 1;
                }
            }
            _ => self.take(piece, '$'),
        }
        Ok(())
    }

    /// Returns the length of `$((…))` when nothing but numbers and signs stands in it.
    fn sum_of_numbers(&self) -> Option<usize> {
        let mut depth = 0_usize;
        for (offset, character) in self.text[self.at + 3..].iter().enumerate() {
            match character {
                '0'..='9' | ' ' | '+' | '-' | '*' | '/' | '%' => {}
                '(' => depth += 1,
                ')' if depth > 0 => depth -= 1,
                ')' => return (self.raw(offset + 4) == Some(')')).then_some(offset + 5),
                _ => return None,
            }
        }
        None
    }

    /// Reads `$'…'`, from after its first quote.
    fn escaped_quotes(&mut self, piece: &mut Piece) -> Result<(), Broken> {
        debug_assert!(self.dialect == Dialect::Bash || self.found.why.is_some());
        piece.is_plain = false;
        loop {
            let Some(character) = self.raw(0) else { return self.broken("a quote is not closed") };
            if character == '\'' {
                self.at += 1;
                return Ok(());
            }
            if character != '\\' {
                self.quoted(piece, character);
                continue;
            }
            let Some(escape) = self.raw(1) else { return self.broken("a quote is not closed") };
            self.at += 2;
            let value = match escape {
                'n' => Some('\n'),
                't' => Some('\t'),
                '\\' | '\'' | '"' | '?' => Some(escape),
                'x' => self.number(16, 2),
                'u' => self.number(16, 4),
                '0'..='7' => {
                    self.at -= 1;
                    self.number(8, 3)
                }
                _ => None,
            };
            match value {
                Some(value) => piece.literal.push(value),
                None => self.found.unknown("an escape is not understood"),
            }
        }
    }

    /// Reads the number of a visible ASCII character.
    fn number(&mut self, base: u32, most: usize) -> Option<char> {
        let length = self.text[self.at..].iter().take(most).take_while(|character| character.is_digit(base)).count();
        let digits: String = self.text[self.at..self.at + length].iter().collect();
        self.at += length;
        let value = char::from_u32(u32::from_str_radix(&digits, base).ok()?)?;
        matches!(value, '\n' | '\t' | ' '..='~').then_some(value)
    }
}
