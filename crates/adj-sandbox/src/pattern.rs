//! Which paths a rule means: one path, or all that a glob matches.
//!
//! Must not know: what the rule does with them.

use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use globset::{GlobBuilder, GlobMatcher};
use serde::{Deserialize, Serialize};

/// A path inside, or a glob over such paths (`*`, `?`, `[…]`, `{…}`, `**`); a relative one lies in the workspace.
///
/// A folder that matches stands for everything in it, so `keys/**` and `keys` mean the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PathPattern {
    text: String,
}

/// Why a text names no paths.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    #[error("an empty pattern names no path")]
    Empty,
    #[error("the pattern {text:?} has a `.`, `..` or empty part")]
    NotPlain { text: String },
    #[error("the pattern {text:?} means everything")]
    Everything { text: String },
    #[error("the pattern {text:?} is no glob: {reason}")]
    Glob { text: String, reason: String },
}

const SPECIAL: [char; 7] = ['*', '?', '[', ']', '{', '}', '\\'];

impl FromStr for PathPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<PathPattern, PatternError> {
        let shown = || text.chars().take(200).collect::<String>();
        let trimmed = text.trim_end_matches('/');
        if trimmed.is_empty() {
            return Err(if text.is_empty() { PatternError::Empty } else { PatternError::Everything { text: shown() } });
        }
        let parts = trimmed.strip_prefix('/').unwrap_or(trimmed);
        if parts.split('/').any(|part| part.is_empty() || part == "." || part == "..") || text.contains('\0') {
            return Err(PatternError::NotPlain { text: shown() });
        }
        let pattern = PathPattern { text: trimmed.strip_suffix("/**").unwrap_or(trimmed).to_owned() };
        if pattern.text.is_empty() || pattern.text == "**" {
            return Err(PatternError::Everything { text: shown() });
        }
        glob(&pattern.text).map_err(|error| PatternError::Glob { text: shown(), reason: error.kind().to_string() })?;
        Ok(pattern)
    }
}

impl TryFrom<String> for PathPattern {
    type Error = PatternError;

    fn try_from(text: String) -> Result<PathPattern, PatternError> {
        text.parse()
    }
}

impl From<PathPattern> for String {
    fn from(pattern: PathPattern) -> String {
        pattern.text
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn glob(text: &str) -> Result<GlobMatcher, globset::Error> {
    // A star never crosses a slash; only `**` does.
    GlobBuilder::new(text).literal_separator(true).backslash_escape(true).build().map(|glob| glob.compile_matcher())
}

/// A pattern in a certain sandbox.
#[derive(Debug)]
pub(crate) enum Place {
    One(PathBuf),
    /// Everything below `base` that matches.
    Matching {
        base: PathBuf,
        matcher: GlobMatcher,
    },
}

impl PathPattern {
    pub(crate) fn is_relative(&self) -> bool {
        !self.text.starts_with('/')
    }

    /// Where it is, with absolute paths; `None` for a relative one without a workspace.
    pub(crate) fn place(&self, workspace: Option<&Path>) -> Option<Place> {
        let root = if self.is_relative() { workspace? } else { Path::new("/") };
        let text = self.text.trim_start_matches('/');
        if !text.contains(SPECIAL) {
            return Some(Place::One(root.join(text)));
        }
        let literal = text.split('/').take_while(|part| !part.contains(SPECIAL));
        let base: PathBuf = root.join(literal.collect::<PathBuf>());
        let base = base.components().collect::<PathBuf>();
        let whole = format!("{}/{text}", globset::escape(root.to_str()?.trim_end_matches('/')));
        // It was compiled once when it was read, and a literal in front changes nothing about that.
        Some(Place::Matching { base, matcher: glob(&whole).ok()? })
    }

    /// The longest folder that everything meant lies in, or the one path that is meant.
    pub(crate) fn literal_part(&self, workspace: Option<&Path>) -> Option<PathBuf> {
        Some(match self.place(workspace)? {
            Place::One(path) => path,
            Place::Matching { base, .. } => base,
        })
    }

    pub(crate) fn is_one_path(&self) -> bool {
        !self.text.contains(SPECIAL)
    }
}

/// Whether a path has no parts but names.
pub(crate) fn is_plain_relative(path: &Path) -> bool {
    path.components().next().is_some() && path.components().all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_what_they_say() {
        let workspace = Path::new("/w/[x]");
        let cases = [
            (".env", "/w/[x]/.env", true),
            (".env", "/w/[x]/a/.env", false),
            ("**/.env", "/w/[x]/.env", true),
            ("**/.env", "/w/[x]/a/b/.env", true),
            ("**/.env", "/w/x/.env", false),
            ("*.key", "/w/[x]/a.key", true),
            ("*.key", "/w/[x]/a/b.key", false),
            ("keys/**", "/w/[x]/keys", true),
            ("a/*/c", "/w/[x]/a/b/c", true),
            ("/opt/{a,b}/*.pem", "/opt/b/x.pem", true),
            ("/opt/a/", "/opt/a", true),
        ];
        for (pattern, path, expected) in cases {
            let parsed: PathPattern = pattern.parse().expect(pattern);
            let found = match parsed.place(Some(workspace)).expect(pattern) {
                Place::One(one) => one == Path::new(path),
                Place::Matching { base, matcher } => Path::new(path).starts_with(base) && matcher.is_match(path),
            };
            assert_eq!(found, expected, "{pattern} and {path}");
        }
    }

    #[test]
    fn senseless_patterns_are_refused() {
        for text in ["", "/", "//", "**", "/**", "a/../b", "./a", "a//b", "a/[", "a/{b", "x\0y"] {
            assert!(text.parse::<PathPattern>().is_err(), "{text:?}");
        }
        let pattern: PathPattern = serde_json::from_str("\"**/*.pem\"").expect("a pattern");
        assert_eq!(serde_json::to_string(&pattern).expect("plain data"), "\"**/*.pem\"");
        assert!(serde_json::from_str::<PathPattern>("\"../x\"").is_err());
    }
}
