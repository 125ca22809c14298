//! Reading a request's JSON: whatever is wrong with it is told with the path that leads to it.

use crate::error::ErrorCode;
use serde_json::{Map, Value};
use std::{fmt, ops::RangeInclusive};

/// What is wrong with a request, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// `tools[2].name`; empty for the body itself.
    pub path: String,
    pub why: String,
    pub code: Option<ErrorCode>,
}

impl std::error::Error for Invalid {}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.as_str() {
            "" => write!(f, "the body {}", self.why),
            path => write!(f, "{path}: {}", self.why),
        }
    }
}

impl Invalid {
    pub fn new(path: impl Into<String>, why: impl Into<String>) -> Self {
        Self { path: path.into(), why: why.into(), code: None }
    }

    #[must_use]
    pub(crate) fn with_code(mut self, code: ErrorCode) -> Self {
        self.code = Some(code);
        self
    }

    /// The same, seen from further out.
    #[must_use]
    pub(crate) fn below(mut self, outer: &str) -> Self {
        self.path = if self.path.is_empty() { outer.to_owned() } else { format!("{outer}.{}", self.path) };
        self
    }
}

/// What an update says of a field.
#[derive(Debug, Clone, PartialEq)]
pub enum Change<T> {
    Keep,
    Clear,
    Set(T),
}

impl<T> Change<T> {
    /// The field after it.
    pub fn over(self, current: Option<T>) -> Option<T> {
        match self {
            Self::Keep => current,
            Self::Clear => None,
            Self::Set(value) => Some(value),
        }
    }

    pub fn is_keep(&self) -> bool {
        matches!(self, Self::Keep)
    }
}

/// A value with the path that leads to it.
#[derive(Debug, Clone)]
pub(crate) struct Node<'a> {
    pub path: String,
    pub value: &'a Value,
}

impl<'a> Node<'a> {
    pub fn root(value: &'a Value) -> Self {
        Self { path: String::new(), value }
    }

    pub fn wrong(&self, why: impl Into<String>) -> Invalid {
        Invalid::new(self.path.clone(), why)
    }

    fn expected(&self, what: &str) -> Invalid {
        let found = match self.value {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Number(_) => "a number",
            Value::String(_) => "a string",
            Value::Array(_) => "a list",
            Value::Object(_) => "an object",
        };
        self.wrong(format!("must be {what}, not {found}"))
    }

    pub fn object(&self) -> Result<Object<'a>, Invalid> {
        match self.value {
            Value::Object(map) => Ok(Object { path: self.path.clone(), map }),
            _ => Err(self.expected("an object")),
        }
    }

    pub fn list(&self) -> Result<Vec<Node<'a>>, Invalid> {
        let Value::Array(list) = self.value else { return Err(self.expected("a list")) };
        let node = |(index, value)| Node { path: format!("{}[{index}]", self.path), value };
        Ok(list.iter().enumerate().map(node).collect())
    }

    /// A list of at most so many entries.
    pub fn list_up_to(&self, most: usize) -> Result<Vec<Node<'a>>, Invalid> {
        let list = self.list()?;
        if list.len() > most {
            return Err(self.wrong(format!("has {} entries, and may have {most} at most", list.len())));
        }
        Ok(list)
    }

    pub fn text(&self) -> Result<&'a str, Invalid> {
        self.value.as_str().ok_or_else(|| self.expected("a string"))
    }

    /// A text of so many characters.
    pub fn text_of(&self, length: RangeInclusive<usize>) -> Result<&'a str, Invalid> {
        let text = self.text()?;
        // Counting all of a long text is for nothing: it has at least a quarter as many characters as bytes.
        let count = if text.len() / 4 > *length.end() { text.len() / 4 } else { text.chars().count() };
        if length.contains(&count) {
            return Ok(text);
        }
        Err(self.wrong(match (*length.start(), *length.end()) {
            (1.., _) if count == 0 => "must not be empty".to_owned(),
            (0, most) => format!("may have {most} characters at most"),
            (least, most) => format!("must have {least} to {most} characters"),
        }))
    }

    pub fn boolean(&self) -> Result<bool, Invalid> {
        self.value.as_bool().ok_or_else(|| self.expected("true or false"))
    }

    pub fn number(&self, range: RangeInclusive<u64>) -> Result<u64, Invalid> {
        match self.value.as_u64().ok_or_else(|| self.expected("a whole number")) {
            Ok(number) if range.contains(&number) => Ok(number),
            Ok(_) => Err(self.wrong(whole_number(&range))),
            Err(_) if self.value.is_number() => Err(self.wrong("must be a whole number from 0 on")),
            Err(error) => Err(error),
        }
    }

    /// One of these words.
    pub fn word<T: Copy>(&self, words: &[(&str, T)]) -> Result<T, Invalid> {
        let text = self.text()?;
        let found = words.iter().find(|(word, _)| *word == text);
        found.map(|(_, value)| *value).ok_or_else(|| {
            let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.wrong(format!("must be one of {}, not {:?}", known.join(", "), cut(text)))
        })
    }

    /// The contract names it, and this server does not do it.
    pub fn unsupported(&self, what: &str) -> Invalid {
        self.wrong(format!("{what} not supported by this server"))
    }
}

/// What a number must be.
pub(crate) fn whole_number(range: &RangeInclusive<u64>) -> String {
    match *range.end() {
        u64::MAX => format!("must be a whole number from {} on", range.start()),
        end => format!("must be a whole number, {} to {end}", range.start()),
    }
}

/// The beginning of a text that somebody else wrote.
pub(crate) fn cut(text: &str) -> String {
    text.chars().take(100).collect()
}

/// An object whose fields are being read. Fields that nobody asks for are passed over.
#[derive(Debug, Clone)]
pub(crate) struct Object<'a> {
    path: String,
    map: &'a Map<String, Value>,
}

impl<'a> Object<'a> {
    fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    fn at(&self, name: &str, value: &'a Value) -> Node<'a> {
        Node { path: self.path_of(name), value }
    }

    /// What the object lacks, or has too much.
    pub fn wrong(&self, name: &str, why: impl Into<String>) -> Invalid {
        Invalid::new(self.path_of(name), why)
    }

    /// A field that is there and not null.
    pub fn get(&self, name: &str) -> Option<Node<'a>> {
        self.map.get(name).filter(|value| !value.is_null()).map(|value| self.at(name, value))
    }

    pub fn need(&self, name: &str) -> Result<Node<'a>, Invalid> {
        self.get(name).ok_or_else(|| self.wrong(name, "is missing"))
    }

    /// The field as an update means it: absent keeps, null clears.
    pub fn change(&self, name: &str) -> Change<Node<'a>> {
        match self.map.get(name) {
            None => Change::Keep,
            Some(Value::Null) => Change::Clear,
            Some(value) => Change::Set(self.at(name, value)),
        }
    }

    /// The entries of an object that is a map.
    pub fn entries(&self) -> impl Iterator<Item = (&'a str, Node<'a>)> {
        self.map.iter().map(|(name, value)| (name.as_str(), self.at(name, value)))
    }

    /// The word that says which kind of object it is.
    pub fn kind<T: Copy>(&self, words: &[(&str, T)]) -> Result<T, Invalid> {
        self.need("type")?.word(words)
    }

    /// Refuses a field unless it is absent, null or empty.
    pub fn refuse(&self, name: &str, what: &str) -> Result<(), Invalid> {
        match self.get(name) {
            Some(node) if !is_empty(node.value) => Err(node.unsupported(what)),
            _ => Ok(()),
        }
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::String(text) => text.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}
