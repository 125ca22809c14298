//! Query strings: lists in every spelling that libraries use, ranges of time, and the bounds of each list.

use crate::read::{Invalid, cut, whole_number};
use adj_domain::Timestamp;
use jiff::{civil::DateTime, tz::TimeZone};
use std::ops::RangeInclusive;

/// A query string, decoded. Parameters that nobody asks for, `beta=true` for one, are passed over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    pairs: Vec<(String, String)>,
}

/// Which end of a list comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    Ascending,
    Descending,
}

impl Order {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ascending => "asc",
            Self::Descending => "desc",
        }
    }
}

/// How many entries a page of a list has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub default: usize,
    pub most: usize,
}

impl Limits {
    pub const USUAL: Self = Self { default: 20, most: 100 };
    pub const LONG: Self = Self { default: 20, most: 1_000 };
    pub const WHOLE: Self = Self { default: 1_000, most: 1_000 };
}

/// Which page of a list is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paging {
    pub limit: usize,
    /// A cursor as it came; [`Cursor::decode`](crate::page::Cursor::decode) reads it.
    pub page: Option<String>,
}

/// A stretch of time; the bounds that are given all hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TimeRange {
    pub after: Option<Timestamp>,
    pub from: Option<Timestamp>,
    pub before: Option<Timestamp>,
    pub until: Option<Timestamp>,
}

impl TimeRange {
    pub fn is_everything(&self) -> bool {
        *self == Self::default()
    }

    pub fn contains(&self, at: Timestamp) -> bool {
        self.after.is_none_or(|bound| at > bound)
            && self.from.is_none_or(|bound| at >= bound)
            && self.before.is_none_or(|bound| at < bound)
            && self.until.is_none_or(|bound| at <= bound)
    }
}

impl Query {
    /// `raw` is what follows the question mark.
    pub fn parse(raw: &str) -> Result<Self, Invalid> {
        let mut pairs = Vec::new();
        for part in raw.split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let decoded = |text: &str| {
                decode(text).ok_or_else(|| Invalid::new(format!("the parameter {:?}", cut(name)), "is not UTF-8"))
            };
            pairs.push((decoded(name)?, decoded(value)?));
        }
        Ok(Self { pairs })
    }

    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let is_it = move |key: &str| key == name || key.strip_suffix("[]") == Some(name);
        self.pairs.iter().filter(move |(key, _)| is_it(key)).map(|(_, value)| value.as_str())
    }

    /// A parameter that may be given once; one that is empty is taken as absent.
    pub fn text(&self, name: &str) -> Result<Option<&str>, Invalid> {
        let mut values = self.pairs.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let first = values.next();
        if values.next().is_some() {
            return Err(Invalid::new(name, "is given twice"));
        }
        Ok(first.filter(|value| !value.is_empty()))
    }

    /// `name[]=a&name[]=b`, `name=a&name=b`, or both.
    pub fn list(&self, name: &str, most: usize) -> Result<Vec<String>, Invalid> {
        let values: Vec<String> = self.all(name).filter(|value| !value.is_empty()).map(str::to_owned).collect();
        if values.len() > most {
            return Err(Invalid::new(name, format!("has {} values, and may have {most} at most", values.len())));
        }
        Ok(values)
    }

    /// As [`list`](Self::list), of words that are known.
    pub fn words<T: Copy>(&self, name: &str, words: &[(&str, T)]) -> Result<Vec<T>, Invalid> {
        let values = self.list(name, 100)?;
        values.iter().map(|value| word(name, value, words)).collect()
    }

    pub fn boolean(&self, name: &str) -> Result<Option<bool>, Invalid> {
        let value = self.text(name)?;
        value.map(|value| word(name, value, &[("true", true), ("false", false)])).transpose()
    }

    pub fn number(&self, name: &str, range: RangeInclusive<u64>) -> Result<Option<u64>, Invalid> {
        let Some(value) = self.text(name)? else { return Ok(None) };
        match value.parse() {
            Ok(number) if range.contains(&number) => Ok(Some(number)),
            _ => Err(Invalid::new(name, whole_number(&range))),
        }
    }

    pub fn order(&self, default: Order) -> Result<Order, Invalid> {
        let words = [("asc", Order::Ascending), ("desc", Order::Descending)];
        self.text("order")?.map_or(Ok(default), |value| word("order", value, &words))
    }

    pub fn paging(&self, limits: Limits) -> Result<Paging, Invalid> {
        let limit = self.number("limit", 1..=limits.most as u64)?;
        let limit = limit.map_or(limits.default, |limit| limit as usize);
        Ok(Paging { limit, page: self.text("page")?.map(str::to_owned) })
    }

    /// `name[gt]`, `name[gte]`, `name[lt]`, `name[lte]`.
    pub fn times(&self, name: &str) -> Result<TimeRange, Invalid> {
        let bound = |operator: &str| {
            let name = format!("{name}[{operator}]");
            let Some(value) = self.text(&name)? else { return Ok(None) };
            let moment = moment(value).ok_or_else(|| {
                Invalid::new(name, format!("must be a time such as 2026-01-02T03:04:05Z, not {:?}", cut(value)))
            });
            moment.map(Some)
        };
        Ok(TimeRange { after: bound("gt")?, from: bound("gte")?, before: bound("lt")?, until: bound("lte")? })
    }

    /// Refuses a filter by something that this server does not have.
    pub(crate) fn refuse(&self, name: &str, what: &str) -> Result<(), Invalid> {
        match self.all(name).any(|value| !value.is_empty()) {
            true => Err(Invalid::new(name, format!("{what} not supported by this server"))),
            false => Ok(()),
        }
    }
}

fn word<T: Copy>(name: &str, value: &str, words: &[(&str, T)]) -> Result<T, Invalid> {
    let found = words.iter().find(|(word, _)| *word == value);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        Invalid::new(name, format!("must be one of {}, not {:?}", known.join(", "), cut(value)))
    })
}

/// A time in the spellings of libraries; where it names no zone, it is UTC.
fn moment(text: &str) -> Option<Timestamp> {
    // Who does not encode the `+` of a zone's offset sends what means a blank.
    let with_offset = || text.replace(' ', "+").parse().ok();
    let local = || text.parse::<DateTime>().ok()?.to_zoned(TimeZone::UTC).ok().map(|at| at.timestamp());
    text.parse().ok().or_else(with_offset).or_else(local)
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let mut ahead = rest.clone();
        let digits = (byte == b'%').then(|| (ahead.next().and_then(digit), ahead.next().and_then(digit)));
        match (byte, digits) {
            (_, Some((Some(high), Some(low)))) => {
                bytes.push(high * 16 + low);
                rest = ahead;
            }
            (b'+', _) => bytes.push(b' '),
            _ => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).ok()
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}
