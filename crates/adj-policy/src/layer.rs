//! One layer of a policy: who says it, where, and what.

use crate::{
    PolicyError,
    command::SimpleCommand,
    rule_file::{RuleFile, RuleHit, described, inline_hit, inline_might},
    settings::Settings,
};
use adj_domain::{Ruling, Verdict};
use serde::Serialize;
use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Who speaks; the outermost first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LayerKind {
    BuiltIn,
    Administrator,
    Organisation,
    Repository,
    Agent,
    Call,
}

impl LayerKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BuiltIn => "built-in",
            Self::Administrator => "administrator",
            Self::Organisation => "organisation",
            Self::Repository => "repository",
            Self::Agent => "agent",
            Self::Call => "call",
        }
    }

    /// Whether its word can spare somebody a question; the others only add some.
    pub fn is_trusted(self) -> bool {
        self <= Self::Organisation
    }
}

impl fmt::Display for LayerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What one speaker says.
#[derive(Debug, Clone)]
pub struct Layer {
    pub kind: LayerKind,
    /// The policy file, where there is one.
    pub file: Option<PathBuf>,
    pub settings: Settings,
    /// Files of rules beside it.
    pub rule_files: Vec<Arc<RuleFile>>,
}

impl Layer {
    /// A layer that no file says: an agent's definition, or the flags of a call.
    pub fn new(kind: LayerKind, settings: Settings) -> Self {
        Self { kind, file: None, settings, rule_files: Vec::new() }
    }

    /// Reads the text of a policy file; `file` is for what is said about it later.
    pub fn parse(kind: LayerKind, file: &Path, text: &str) -> Result<Self, PolicyError> {
        let settings = crate::schema::parse(kind, file, text)?;
        Ok(Self { file: Some(file.to_owned()), ..Self::new(kind, settings) })
    }

    pub(crate) fn ruling(&self, verdict: Verdict, line: Option<u32>, rule: impl Into<String>) -> Ruling {
        let file = self.file.as_ref().map(|file| file.display().to_string());
        Ruling { file, line, ..Ruling::new(verdict, self.kind.as_str(), rule) }
    }

    /// What its rules say of a command: the strictest that matches.
    pub(crate) fn rule_on(&self, command: &SimpleCommand) -> Option<(Verdict, Ruling)> {
        let inline = self.settings.rules.iter().filter_map(|rule| {
            let hit = inline_hit(&rule.value, command)?;
            Some((hit, self.file.as_ref().map(|file| file.display().to_string()), rule.line))
        });
        let files = self.rule_files.iter().filter_map(|file| {
            let (hit, line) = file.hit(command)?;
            Some((hit, Some(file.path.display().to_string()), Some(line)))
        });
        // The first of the strictest ones speaks, in the order of their files.
        let strictest =
            inline.chain(files).reduce(|kept, next| if next.0.verdict > kept.0.verdict { next } else { kept });
        let (hit, file, line) = strictest?;
        let RuleHit { verdict, text, justification } = hit;
        Some((verdict, Ruling { file, line, justification, ..Ruling::new(verdict, self.kind.as_str(), text) }))
    }

    /// A question, where a rule that asks or forbids might be about what only the shell can tell of a command.
    pub(crate) fn rule_might(&self, command: &SimpleCommand) -> Option<Ruling> {
        let inline = self.settings.rules.iter().find(|rule| inline_might(&rule.value, command));
        let inline = inline.map(|rule| (described(&rule.value), self.file.as_ref(), rule.line));
        let mut files = self.rule_files.iter();
        let (text, file, line) = inline.or_else(|| {
            files.find_map(|file| file.might(command).map(|(text, line)| (text, Some(&file.path), Some(line))))
        })?;
        let rule = format!("{text} might be about what only the shell can tell");
        let file = file.map(|file| file.display().to_string());
        Some(Ruling { file, line, ..Ruling::new(Verdict::Ask, self.kind.as_str(), rule) })
    }

    /// Whether a rule of it asks or forbids at all, so that a command nobody can read might hide one.
    pub(crate) fn restricts_commands(&self) -> bool {
        self.settings.rules.iter().any(|rule| rule.value.decision > Verdict::Allow)
            || self.rule_files.iter().any(|file| file.restricts())
    }
}
