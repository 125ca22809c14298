//! Who made a commit and when: always an input, so that the same work gives the same commit.

use serde::{Deserialize, Serialize};

/// A name and an address, as git writes them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Person {
    pub name: String,
    pub email: String,
}

impl Person {
    /// A person with these words; characters that git gives a meaning to are left out when it is used.
    pub fn new(name: impl Into<String>, email: impl Into<String>) -> Self {
        Self { name: name.into(), email: email.into() }
    }
}

/// Author, committer and date of a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authorship {
    pub author: Person,
    pub committer: Person,
    /// Seconds since 1970, used for both dates, in UTC.
    pub time_seconds: u64,
}

impl Authorship {
    /// The environment that makes git use exactly this.
    pub(crate) fn environment(&self) -> [(&'static str, String); 6] {
        // The largest date that every git object reader understands.
        const LATEST: u64 = 253_402_300_799;
        let date = format!("@{} +0000", self.time_seconds.min(LATEST));
        [
            ("GIT_AUTHOR_NAME", plain(&self.author.name, "unknown")),
            ("GIT_AUTHOR_EMAIL", plain(&self.author.email, "unknown@adjutant.invalid")),
            ("GIT_AUTHOR_DATE", date.clone()),
            ("GIT_COMMITTER_NAME", plain(&self.committer.name, "unknown")),
            ("GIT_COMMITTER_EMAIL", plain(&self.committer.email, "unknown@adjutant.invalid")),
            ("GIT_COMMITTER_DATE", date),
        ]
    }
}

/// `text` without line breaks, angle brackets and NUL; `fallback` when nothing that git accepts is left.
fn plain(text: &str, fallback: &str) -> String {
    let kept: String = text
        .chars()
        .filter(|&character| !character.is_control() && !matches!(character, '<' | '>'))
        .take(200)
        .collect();
    // Git strips these from the ends and refuses a name that is empty afterwards.
    let crud =
        |character: char| character.is_whitespace() || matches!(character, '.' | ',' | ':' | ';' | '"' | '\\' | '\'');
    let kept = kept.trim_matches(crud);
    if kept.is_empty() { fallback.to_owned() } else { kept.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_cannot_break_a_commit_header() {
        let cases = [
            ("Ada Lovelace", "Ada Lovelace"),
            ("a\ncommitter b <x> 0 +0000", "acommitter b x 0 +0000"),
            ("<>", "fallback"),
            (" .,; ", "fallback"),
            ("\0", "fallback"),
        ];
        for (text, expected) in cases {
            assert_eq!(plain(text, "fallback"), expected, "{text:?}");
        }
    }
}
