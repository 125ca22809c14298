//! A key that cannot be printed, stored or sent anywhere by accident.

use std::fmt;

/// A key or token: it has no `Serialize`, and prints as dots. Its memory is overwritten when it is dropped.
#[derive(Clone, PartialEq, Eq, zeroize::Zeroize, zeroize::ZeroizeOnDrop)]
pub struct Secret(String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    #[error("the key in {name} is empty")]
    Empty { name: String },
    #[error(
        "the key in {name} holds a character that no key has (at position {position}: a line break, a control or a non-ASCII character)"
    )]
    Character { name: String, position: usize },
    #[error("the key in {name} is longer than {MAX_KEY_BYTES} bytes")]
    TooLong { name: String },
}

const MAX_KEY_BYTES: usize = 16 * 1024;

impl Secret {
    /// Takes a key that came from `name` (a variable, a file). A key goes into an HTTP header, so it is printable ASCII.
    pub fn parse(name: &str, text: String) -> Result<Self, SecretError> {
        let name = || name.to_owned();
        if text.is_empty() {
            return Err(SecretError::Empty { name: name() });
        }
        if text.len() > MAX_KEY_BYTES {
            return Err(SecretError::TooLong { name: name() });
        }
        match text.bytes().position(|byte| !byte.is_ascii_graphic()) {
            Some(position) => Err(SecretError::Character { name: name(), position }),
            None => Ok(Self(text)),
        }
    }

    /// Hands the key out, to be put into a request's header and nowhere else.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(•••)")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("•••")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_checked_and_never_printed() {
        let cases = [
            ("sk-abc", None),
            ("", Some("the key in K is empty")),
            ("sk-abc\n", Some("at position 6")),
            ("sk abc", Some("at position 2")),
            ("sk-é", Some("at position 3")),
        ];
        for (text, expected) in cases {
            match (Secret::parse("K", text.to_owned()), expected) {
                (Ok(secret), None) => {
                    assert_eq!(secret.expose(), text);
                    assert!(!format!("{secret} {secret:?} {secret:#?}").contains(text));
                }
                (Err(error), Some(words)) => {
                    let message = error.to_string();
                    assert!(message.contains(words), "{message}");
                    assert!(text.is_empty() || !message.contains(text), "{message}");
                }
                (found, _) => panic!("{text:?}: {found:?}"),
            }
        }
        let long = "x".repeat(MAX_KEY_BYTES + 1);
        assert!(Secret::parse("K", long).is_err());
    }
}
