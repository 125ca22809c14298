//! Names of things, each with a type of its own.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{text}\" is not a {what} (expected {expected})")]
pub struct IdError {
    pub what: &'static str,
    pub expected: &'static str,
    /// The beginning of it: who writes a bad id may write a long one.
    pub text: String,
}

impl IdError {
    fn new(what: &'static str, expected: &'static str, text: &str) -> Self {
        Self { what, expected, text: text.chars().take(100).collect() }
    }
}

/// The alphabet of generated ids: no vowels (no words by accident), nothing that looks like something else.
const ALPHABET: &[u8; 30] = b"0123456789bcdfghjkmnpqrstvwxyz";
const LENGTH: usize = 20;

fn encode(bytes: &[u8]) -> String {
    bytes.iter().take(LENGTH).map(|byte| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()])).collect()
}

fn derive(prefix: &str, parts: &[&str]) -> String {
    let mut hasher = blake3::Hasher::new_derive_key("adjutant 2026 id v1");
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    format!("{prefix}{}", encode(hasher.finalize().as_bytes()))
}

fn is_word(text: &str, longest: usize) -> bool {
    (1..=longest).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Makes an id out of randomness that the caller brings.
            pub fn from_random(bytes: [u8; 20]) -> Self {
                Self(format!("{}{}", $prefix, encode(&bytes)))
            }

            /// Makes the id that always belongs to these parts, so that a repeated step names the same thing.
            pub fn derive(parts: &[&str]) -> Self {
                Self(derive($prefix, parts))
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                match text.strip_prefix($prefix) {
                    Some(rest) if is_word(rest, 64) => Ok(Self(text)),
                    _ => Err(IdError::new($what, concat!($prefix, "…"), &text)),
                }
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::try_from(text.to_owned())
            }
        }
    };
}

id!(
    /// One running agent.
    SessionId, "session id", "sesn_"
);
id!(
    /// Many sessions as one piece of work.
    RunId, "run id", "run_"
);
id!(
    /// One entry of a log; also the id of a tool use and of a queued input.
    EventId, "event id", "sevt_"
);

/// The name of a log in the journal: a session's or a run's id, `grants` for what people allowed to be remembered, or `budgets` for
/// limits that they changed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum LogId {
    Session(SessionId),
    Run(RunId),
    Grants,
    Budgets,
}

/// The one log of its kind.
const GRANTS: &str = "grants";
const BUDGETS: &str = "budgets";

impl LogId {
    pub fn as_str(&self) -> &str {
        match self {
            Self::Session(id) => id.as_str(),
            Self::Run(id) => id.as_str(),
            Self::Grants => GRANTS,
            Self::Budgets => BUDGETS,
        }
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<LogId> for String {
    fn from(id: LogId) -> Self {
        id.as_str().to_owned()
    }
}

impl From<SessionId> for LogId {
    fn from(id: SessionId) -> Self {
        Self::Session(id)
    }
}

impl From<RunId> for LogId {
    fn from(id: RunId) -> Self {
        Self::Run(id)
    }
}

impl TryFrom<String> for LogId {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        if text == GRANTS {
            return Ok(Self::Grants);
        }
        if text == BUDGETS {
            return Ok(Self::Budgets);
        }
        if text.starts_with("run_") { text.parse().map(Self::Run) } else { text.parse().map(Self::Session) }
    }
}

impl FromStr for LogId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::try_from(text.to_owned())
    }
}

/// The name of a step within a run, chosen by people or by the builder: `planner`, `add-parser`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StepId(String);

impl StepId {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StepId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<StepId> for String {
    fn from(id: StepId) -> Self {
        id.0
    }
}

impl TryFrom<String> for StepId {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        // Step names become parts of ref names, so they start with a letter or digit and hold nothing git refuses.
        let starts_well = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        if starts_well && is_word(&text, 40) {
            Ok(Self(text))
        } else {
            Err(IdError::new("step name", "1 to 40 of A-Z a-z 0-9 _ -, first a letter or digit", &text))
        }
    }
}

impl FromStr for StepId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::try_from(text.to_owned())
    }
}

/// The BLAKE3 hash of a blob's bytes, in lower-case hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BlobHash(String);

impl BlobHash {
    pub fn of(bytes: &[u8]) -> Self {
        Self(blake3::hash(bytes).to_hex().to_string())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BlobHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<BlobHash> for String {
    fn from(hash: BlobHash) -> Self {
        hash.0
    }
}

impl TryFrom<String> for BlobHash {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)) {
            Ok(Self(text))
        } else {
            Err(IdError::new("blob hash", "64 lower-case hexadecimal digits", &text))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_parsed_at_the_edge() {
        let cases = [
            ("sesn_abc", true),
            ("sesn_", false),
            ("run_abc", false),
            ("sesn_../../etc", false),
            ("sesn_a b", false),
            ("", false),
        ];
        for (text, good) in cases {
            assert_eq!(text.parse::<SessionId>().is_ok(), good, "{text:?}");
        }
        assert_eq!("run_x1".parse::<LogId>(), Ok(LogId::Run("run_x1".parse().unwrap())));
        for bad in ["-x", "_x", "a.lock", "a/b", "", "x y"] {
            assert!(bad.parse::<StepId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn derived_ids_depend_on_every_part_and_its_borders() {
        let one = EventId::derive(&["ab", "c"]);
        assert_eq!(one, EventId::derive(&["ab", "c"]));
        assert_ne!(one, EventId::derive(&["a", "bc"]));
        assert_ne!(one, EventId::derive(&["abc"]));
        assert!(one.as_str().parse::<EventId>().is_ok());
        assert_eq!(one.as_str().len(), "sevt_".len() + LENGTH);
    }
}
