//! A TOML file whose every value knows where it stands, so that each complaint names line and column.
//!
//! Must not know: what any key means.

use crate::PolicyError;
use std::{fmt::Display, ops::Range, path::Path, str::FromStr};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// Longest list in a policy file.
const MOST_ITEMS: usize = 2_000;

pub(crate) struct Document<'t> {
    file: &'t Path,
    text: &'t str,
}

impl<'t> Document<'t> {
    pub fn new(file: &'t Path, text: &'t str) -> Self {
        Self { file, text }
    }

    pub fn parse(&self) -> Result<Spanned<DeTable<'t>>, PolicyError> {
        DeTable::parse(self.text).map_err(|error| {
            let message = shown(error.message().lines().next().unwrap_or("this is not TOML"));
            self.problem(error.span().unwrap_or(0..0), message)
        })
    }

    pub fn problem(&self, span: Range<usize>, message: String) -> PolicyError {
        let (line, column) = self.place(span.start);
        // Some words of it are the file's own.
        PolicyError::Invalid { file: self.file.to_owned(), line, column, message: plain(&message, 1_000) }
    }

    fn place(&self, offset: usize) -> (u32, u32) {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        (u32::try_from(line).unwrap_or(u32::MAX), u32::try_from(column).unwrap_or(u32::MAX))
    }
}

/// A value and the way to it, `network.hosts[2]` for instance.
pub(crate) struct Node<'d, 't> {
    document: &'d Document<'t>,
    pub path: String,
    span: Range<usize>,
    value: &'d DeValue<'t>,
}

/// A table whose keys are all known.
pub(crate) struct Table<'d, 't> {
    entries: Vec<(&'d str, Node<'d, 't>)>,
}

impl<'d, 't> Table<'d, 't> {
    pub fn root(document: &'d Document<'t>, table: &'d DeTable<'t>, known: &[&str]) -> Result<Self, PolicyError> {
        let entries = entries(document, "", table);
        check_keys(document, "", table, known)?;
        Ok(Self { entries })
    }

    pub fn get(&self, key: &str) -> Option<&Node<'d, 't>> {
        self.entries.iter().find_map(|(name, node)| (*name == key).then_some(node))
    }

    /// Reads a key that may be missing.
    pub fn read<T>(
        &self,
        key: &str,
        read: impl FnOnce(&Node<'d, 't>) -> Result<T, PolicyError>,
    ) -> Result<Option<T>, PolicyError> {
        self.get(key).map(read).transpose()
    }
}

fn entries<'d, 't>(document: &'d Document<'t>, path: &str, table: &'d DeTable<'t>) -> Vec<(&'d str, Node<'d, 't>)> {
    let node = |(key, value): (&'d Spanned<_>, &'d Spanned<DeValue<'t>>)| {
        let name: &'d str = Spanned::<std::borrow::Cow<'t, str>>::get_ref(key).as_ref();
        let path = join(path, name);
        (name, Node { document, path, span: value.span(), value: value.get_ref() })
    };
    table.iter().map(node).collect()
}

fn check_keys(document: &Document<'_>, path: &str, table: &DeTable<'_>, known: &[&str]) -> Result<(), PolicyError> {
    let mut unknown: Vec<_> = table.keys().filter(|key| !known.contains(&key.get_ref().as_ref())).collect();
    unknown.sort_by_key(|key| key.span().start);
    match unknown.first() {
        None => Ok(()),
        Some(key) => {
            let name = key.get_ref().as_ref();
            let found = format!("unknown key `{}`", shown(&join(path, name)));
            Err(document.problem(key.span(), with_suggestion(&found, name, known)))
        }
    }
}

impl<'d, 't> Node<'d, 't> {
    pub fn line(&self) -> u32 {
        self.document.place(self.span.start).0
    }

    pub fn problem(&self, message: impl Display) -> PolicyError {
        self.document.problem(self.span.clone(), format!("`{}`: {message}", shown(&self.path)))
    }

    fn wrong(&self, expected: &str) -> PolicyError {
        self.problem(format_args!("expected {expected}, found {}", kind(self.value)))
    }

    pub fn text(&self) -> Result<&'d str, PolicyError> {
        self.value.as_str().ok_or_else(|| self.wrong("a text"))
    }

    pub fn flag(&self) -> Result<bool, PolicyError> {
        self.value.as_bool().ok_or_else(|| self.wrong("true or false"))
    }

    /// A text, or a whole number as it is written.
    pub fn text_or_number(&self) -> Result<String, PolicyError> {
        match self.value {
            DeValue::String(text) => Ok(text.to_string()),
            DeValue::Integer(number) if number.radix() == 10 => Ok(number.as_str().to_owned()),
            _ => Err(self.wrong("a text or a whole number")),
        }
    }

    pub fn whole_number(&self) -> Result<u64, PolicyError> {
        let number =
            self.value.as_integer().and_then(|number| u64::from_str_radix(number.as_str(), number.radix()).ok());
        number.ok_or_else(|| self.wrong("a whole number"))
    }

    pub fn parse<T: FromStr<Err: Display>>(&self) -> Result<T, PolicyError> {
        self.text()?.parse().map_err(|error| self.problem(error))
    }

    pub fn is_text(&self) -> bool {
        self.value.is_str()
    }

    pub fn is_list(&self) -> bool {
        self.value.is_array()
    }

    pub fn list(&self) -> Result<Vec<Node<'d, 't>>, PolicyError> {
        let items = self.value.as_array().ok_or_else(|| self.wrong("a list"))?;
        if items.len() > MOST_ITEMS {
            return Err(self.problem(format_args!("more than {MOST_ITEMS} items")));
        }
        let node = |(index, item): (usize, &'d Spanned<DeValue<'t>>)| Node {
            document: self.document,
            path: format!("{}[{index}]", self.path),
            span: item.span(),
            value: item.get_ref(),
        };
        Ok(items.iter().enumerate().map(node).collect())
    }

    /// Every item of a list, read in the same way.
    pub fn each<T>(&self, read: impl Fn(&Node<'d, 't>) -> Result<T, PolicyError>) -> Result<Vec<T>, PolicyError> {
        self.list()?.iter().map(read).collect()
    }

    pub fn table(&self, known: &[&str]) -> Result<Table<'d, 't>, PolicyError> {
        let table = self.value.as_table().ok_or_else(|| self.wrong("a table"))?;
        check_keys(self.document, &self.path, table, known)?;
        Ok(Table { entries: entries(self.document, &self.path, table) })
    }

    /// A table whose keys are names that the author chose.
    pub fn named(&self) -> Result<Vec<(&'d str, Node<'d, 't>)>, PolicyError> {
        let table = self.value.as_table().ok_or_else(|| self.wrong("a table"))?;
        if table.len() > MOST_ITEMS {
            return Err(self.problem(format_args!("more than {MOST_ITEMS} keys")));
        }
        Ok(entries(self.document, &self.path, table))
    }
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// Text of strangers, short and without anything that a terminal would obey.
pub(crate) fn shown(text: &str) -> String {
    plain(text, 200)
}

fn plain(text: &str, longest: usize) -> String {
    let plain = |letter: char| if letter.is_control() || is_invisible(letter) { '\u{fffd}' } else { letter };
    let mut shown: String = text.chars().take(longest).map(plain).collect();
    if text.chars().nth(longest).is_some() {
        shown.push('…');
    }
    shown
}

/// Letters that change the order or the look of the others.
fn is_invisible(letter: char) -> bool {
    matches!(letter, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Adds the nearest of the known names to a complaint about an unknown one.
pub(crate) fn with_suggestion(complaint: &str, name: &str, known: &[&str]) -> String {
    let near = known.iter().map(|known| (distance(name, known), known)).min();
    match near {
        Some((steps, known)) if steps <= 2.max(known.len() / 3) => format!("{complaint}; did you mean `{known}`?"),
        _ if known.is_empty() => complaint.to_owned(),
        _ => format!("{complaint}; there are {}", known.join(", ")),
    }
}

/// How many letters to change, add or leave out.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (steps, letter) in one.chars().take(100).enumerate() {
        let mut diagonal = row[0];
        row[0] = steps + 1;
        for (index, known) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *known);
            diagonal = row[index + 1];
            row[index + 1] = replaced.min(row[index] + 1).min(diagonal + 1);
        }
    }
    row.last().copied().unwrap_or_default()
}
