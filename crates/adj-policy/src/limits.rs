//! Limits by name and as text: `wall = "10m"`, `memory = "2GiB"`, `processes = 512`.
//!
//! Must not know: how a limit is held.

use crate::document::with_suggestion;
use serde::{Serialize, Serializer};
use std::{fmt, str::FromStr, time::Duration};

/// What is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Limit {
    Wall,
    Cpu,
    Memory,
    Processes,
    OpenFiles,
    FileSize,
    Disk,
    Output,
    Tmp,
}

/// How much of it there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LimitValue {
    Time(Duration),
    Bytes(u64),
    Count(u64),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    #[error("{0}")]
    Name(String),
    #[error("\"{text}\" is not a time, such as 90s, 10m or 2h")]
    Time { text: String },
    #[error("\"{text}\" is not a size, such as 512MiB or 2GiB")]
    Size { text: String },
    #[error("\"{text}\" is not a number")]
    Count { text: String },
    #[error("a limit of zero lets nothing run")]
    Zero,
}

impl Limit {
    pub const ALL: [Self; 9] = [
        Self::Wall,
        Self::Cpu,
        Self::Memory,
        Self::Processes,
        Self::OpenFiles,
        Self::FileSize,
        Self::Disk,
        Self::Output,
        Self::Tmp,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Wall => "wall",
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Processes => "processes",
            Self::OpenFiles => "open-files",
            Self::FileSize => "file-size",
            Self::Disk => "disk",
            Self::Output => "output",
            Self::Tmp => "tmp",
        }
    }

    /// Reads the value of this limit.
    pub fn value(self, text: &str) -> Result<LimitValue, LimitError> {
        let value = match self {
            Self::Wall | Self::Cpu => LimitValue::Time(duration(text)?),
            Self::Processes | Self::OpenFiles => {
                LimitValue::Count(text.parse().map_err(|_| LimitError::Count { text: short(text) })?)
            }
            _ => LimitValue::Bytes(size(text)?),
        };
        match value {
            LimitValue::Time(Duration::ZERO) | LimitValue::Bytes(0) | LimitValue::Count(0) => Err(LimitError::Zero),
            value => Ok(value),
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Limit {
    type Err = LimitError;
    fn from_str(text: &str) -> Result<Self, LimitError> {
        let names = Self::ALL.map(Self::name);
        Self::ALL.into_iter().find(|limit| limit.name() == text).ok_or_else(|| {
            LimitError::Name(with_suggestion(&format!("there is no limit \"{}\"", short(text)), text, &names))
        })
    }
}

const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
const SIZES: [(&str, u64); 5] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Reads `90s`, `10m`, `2h`, `500ms`, `1d`; `0` is no time at all.
pub(crate) fn duration(text: &str) -> Result<Duration, LimitError> {
    let wrong = || LimitError::Time { text: short(text) };
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    scaled(text, &UNITS).map(Duration::from_millis).ok_or_else(wrong)
}

fn size(text: &str) -> Result<u64, LimitError> {
    let wrong = || LimitError::Size { text: short(text) };
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().map_err(|_| wrong());
    }
    scaled(text, &SIZES).ok_or_else(wrong)
}

fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let scale = units.iter().find_map(|(name, scale)| (*name == unit).then_some(*scale))?;
    number.parse::<u64>().ok()?.checked_mul(scale)
}

fn short(text: &str) -> String {
    crate::document::shown(&text.chars().take(40).collect::<String>())
}

fn written(f: &mut fmt::Formatter<'_>, number: u64, units: &[(&str, u64)]) -> fmt::Result {
    let fits = units.iter().find(|(_, scale)| number >= *scale && number.is_multiple_of(*scale));
    match fits {
        Some((name, scale)) => write!(f, "{}{name}", number / scale),
        None => write!(f, "{number}"),
    }
}

/// A time in the spelling of policy files.
pub(crate) struct Written(pub Duration);

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        written(f, u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX), &UNITS)
    }
}

impl fmt::Display for LimitValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Time(time) => Written(*time).fmt(f),
            Self::Bytes(bytes) => written(f, *bytes, &SIZES),
            Self::Count(count) => count.fmt(f),
        }
    }
}

impl Serialize for LimitValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Limit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_have_names_and_texts() {
        let cases = [
            ("wall", "10m", Some("10m")),
            ("wall", "90s", Some("90s")),
            ("wall", "120s", Some("2m")),
            ("cpu", "1500ms", Some("1500ms")),
            ("cpu", "2h", Some("2h")),
            ("memory", "2GiB", Some("2GiB")),
            ("memory", "2048MiB", Some("2GiB")),
            ("file-size", "1000", Some("1000B")),
            ("processes", "512", Some("512")),
            ("wall", "0", None),
            ("wall", "10", None),
            ("wall", "-1s", None),
            ("wall", "1.5h", None),
            ("wall", "99999999999999999999d", None),
            ("wall", "18446744073709551615d", None),
            ("memory", "2GB", None),
            ("memory", "", None),
            ("processes", "many", None),
            ("processes", "0", None),
        ];
        for (name, text, expected) in cases {
            let limit: Limit = name.parse().expect("the name is one");
            let found = limit.value(text).ok();
            assert_eq!(found.map(|value| value.to_string()).as_deref(), expected, "{name} {text}");
            if let Some(found) = found {
                assert_eq!(limit.value(&found.to_string()), Ok(found), "what is written is read again");
            }
        }
        let error = "memroy".parse::<Limit>().expect_err("there is no such limit");
        assert_eq!(error.to_string(), "there is no limit \"memroy\"; did you mean `memory`?");
    }
}
