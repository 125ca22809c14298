//! Names of things: commits, trees, workspaces, labels. A value that exists is safe to put on a command line.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a text is not the name of a git object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a full object id (40 or 64 lower-case hexadecimal digits)")]
pub struct ParseObjectIdError {
    text: String,
}

fn checked_object_id(text: &str) -> Result<String, ParseObjectIdError> {
    let right_length = matches!(text.len(), 40 | 64);
    let hexadecimal = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if right_length && hexadecimal && text.bytes().any(|byte| byte != b'0') {
        Ok(text.to_owned())
    } else {
        let text = text.chars().take(100).collect();
        Err(ParseObjectIdError { text })
    }
}

macro_rules! object_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The full hexadecimal id.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = ParseObjectIdError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                checked_object_id(text).map(Self)
            }
        }

        impl TryFrom<String> for $name {
            type Error = ParseObjectIdError;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                checked_object_id(&text).map(Self)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }
    };
}

object_id! {
    /// The full id of a commit.
    CommitId
}

object_id! {
    /// The full id of a tree.
    TreeId
}

impl CommitId {
    /// The first twelve digits, for people.
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

/// Why a text cannot name a workspace or a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a usable name: 1 to 100 of A-Z a-z 0-9 _ - and single dots, starting with a letter or digit")]
pub struct ParseNameError {
    text: String,
}

/// A name that is safe as a folder, as a part of a ref, and on a command line.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = ParseNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'));
        let starts_well = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        // Git refuses refs with "..", with a dot at the end, and with ".lock" at the end.
        let a_ref = !text.contains("..") && !text.ends_with('.') && !text.to_ascii_lowercase().ends_with(".lock");
        if plain && starts_well && a_ref && text.len() <= 100 {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseNameError { text: text.chars().take(120).collect() })
        }
    }
}

impl TryFrom<String> for Name {
    type Error = ParseNameError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_full_ids_are_ids() {
        let forty = "0123456789abcdef0123456789abcdef01234567";
        let sixty_four = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
        let cases = [
            (forty.to_owned(), true),
            (sixty_four.to_owned(), true),
            (forty.to_uppercase(), false),
            (forty[1..].to_owned(), false),
            ("0".repeat(40), false),
            (format!("-{}", &forty[1..]), false),
            (format!("{forty}\n"), false),
            ("HEAD".to_owned(), false),
            (String::new(), false),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse::<CommitId>().is_ok(), expected, "{text:?}");
            assert_eq!(text.parse::<TreeId>().is_ok(), expected, "{text:?}");
        }
    }

    #[test]
    fn a_name_is_a_folder_and_a_ref() {
        let cases = [
            ("sesn_01abc", true),
            ("check-1.2", true),
            ("0", true),
            ("", false),
            (".", false),
            ("..", false),
            ("a..b", false),
            ("-x", false),
            (".git", false),
            ("a/b", false),
            ("a b", false),
            ("a.lock", false),
            ("a.LOCK", false),
            ("a.", false),
            ("ä", false),
            ("a\n", false),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse::<Name>().is_ok(), expected, "{text:?}");
        }
        assert!("x".repeat(100).parse::<Name>().is_ok());
        assert!("x".repeat(101).parse::<Name>().is_err());
    }
}
