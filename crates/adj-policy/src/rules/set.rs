//! The rules of one file, and what they say of a command.

use super::{Fault, MAX_RULES, MAX_RULES_BYTES, RuleError, source};
use crate::command::Word;
use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Component, Path, PathBuf},
};

/// What a rule wants. The later ones are stricter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    Allow,
    Prompt,
    Forbidden,
}

/// A rule on commands that begin with certain words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// For each word, what it may be.
    pub pattern: Vec<Vec<String>>,
    pub decision: Decision,
    pub justification: Option<String>,
    pub line: u32,
}

/// A rule on a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkRule {
    pub host: String,
    /// `http`, `https`, `socks5_tcp` or `socks5_udp`.
    pub protocol: String,
    pub decision: Decision,
    pub justification: Option<String>,
    pub line: u32,
}

/// A rule that a command matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleMatch {
    pub decision: Decision,
    /// The words that matched, with the program by the name that the rule uses.
    pub matched: Vec<String>,
    /// The path of the program, where the rule only names it.
    pub resolved_program: Option<PathBuf>,
    pub justification: Option<String>,
    pub line: u32,
}

/// How a rule that names a program meets a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Paths {
    /// As Codex does, so that examples hold: the paths of `host_executable`, or any absolute one where none are given.
    AsInExamples,
    /// As [`RuleSet::judge`] says.
    Careful,
}

/// The rules of one file.
#[derive(Debug, Clone, Default)]
pub struct RuleSet {
    rules: Vec<Rule>,
    by_program: BTreeMap<String, Vec<usize>>,
    hosts: BTreeMap<String, BTreeSet<PathBuf>>,
    network: Vec<NetworkRule>,
}

impl RuleSet {
    /// Reads a file of rules and tests its examples. `file` is for errors only; nothing is opened.
    pub fn load(file: &Path, text: &str) -> Result<Self, RuleError> {
        let loaded = if text.len() > MAX_RULES_BYTES {
            let message = format!("the file is longer than {} KiB", MAX_RULES_BYTES / 1024);
            Err(Fault::new(0, message))
        } else {
            source::load(text)
        };
        loaded.map_err(|Fault { at, message }| {
            let before = text.get(..at).unwrap_or(text);
            let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
            let line = 1 + before.matches('\n').count();
            let column = 1 + before[line_start..].chars().count();
            let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
            RuleError { file: file.to_owned(), line: number(line), column: number(column), message }
        })
    }

    /// Returns what the strictest of the matching rules says of a command; among equals the first one of the file.
    ///
    /// A rule matches by the first words, each of which has to be known. A rule on a bare name (`git`) and a program that is
    /// given as a path:
    /// - where the file has `host_executable` for the name, the path has to be listed there;
    /// - where it has not, a rule that allows does not match, since any file can have that name, and one that asks or forbids does.
    pub fn judge(&self, argv: &[Word]) -> Option<RuleMatch> {
        let mut strictest: Option<RuleMatch> = None;
        for found in self.matches(argv) {
            if strictest.as_ref().is_none_or(|strictest| found.decision > strictest.decision) {
                strictest = Some(found);
            }
        }
        strictest
    }

    /// Returns every rule that a command matches, in the order of the file.
    pub fn matches(&self, argv: &[Word]) -> Vec<RuleMatch> {
        let found = self.candidates(argv).filter_map(|rule| self.match_rule(rule, argv, Paths::Careful, false));
        found.collect()
    }

    /// Returns the strictest rule that asks or forbids and that the command may match once its unknown words are known.
    ///
    /// `git $WHAT` may become `git push`. What surely matches is [`RuleSet::judge`]'s to tell.
    pub fn might_match(&self, argv: &[Word]) -> Option<RuleMatch> {
        if !argv.iter().any(Word::is_dynamic) {
            return None;
        }
        let mut strictest: Option<RuleMatch> = None;
        for rule in self.candidates(argv).filter(|rule| rule.decision > Decision::Allow) {
            if self.match_rule(rule, argv, Paths::Careful, false).is_none()
                && let Some(found) = self.match_rule(rule, argv, Paths::Careful, true)
                && strictest.as_ref().is_none_or(|strictest| found.decision > strictest.decision)
            {
                strictest = Some(found);
            }
        }
        strictest
    }

    /// Returns the number of rules on commands.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rules.is_empty() && self.network.is_empty()
    }

    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    pub fn network_rules(&self) -> &[NetworkRule] {
        &self.network
    }

    /// Returns the rules on the program of a command, whether it is given by name or by path.
    fn candidates<'a>(&'a self, argv: &[Word]) -> impl Iterator<Item = &'a Rule> + use<'a> {
        let first = argv.first().and_then(Word::literal).unwrap_or_default();
        let of = |name: &str| self.by_program.get(name).map(Vec::as_slice).unwrap_or_default();
        let by_name = first.rsplit_once('/').map_or(&[][..], |(_, name)| of(name));
        let mut places = [of(first), by_name].concat();
        places.sort_unstable();
        places.dedup();
        places.into_iter().map(|place| &self.rules[place])
    }

    /// Tells whether an example matches a rule, as Codex sees it.
    pub(super) fn example_matches(&self, rule: usize, argv: &[Word]) -> bool {
        self.match_rule(&self.rules[rule], argv, Paths::AsInExamples, false).is_some()
    }

    fn match_rule(&self, rule: &Rule, argv: &[Word], paths: Paths, guesses: bool) -> Option<RuleMatch> {
        let first = argv.first()?.literal()?;
        let (names, rest) = rule.pattern.split_first()?;
        let (name, resolved_program) = if names.iter().any(|name| name == first) {
            (first, None)
        } else {
            let (_, name) = first.rsplit_once('/')?;
            let is_meant = names.iter().any(|known| known == name) && self.path_counts(rule, name, first, paths);
            (is_meant.then_some(name)?, Some(first).filter(|path| path.starts_with('/')).map(PathBuf::from))
        };
        let mut matched = vec![name.to_owned()];
        let mut words = argv[1..].iter();
        for alternatives in rest {
            match words.next() {
                Some(Word::Literal(text)) if alternatives.contains(text) => matched.push(text.clone()),
                Some(Word::Dynamic { text, splits }) if guesses => {
                    matched.push(text.clone());
                    if *splits {
                        break;
                    }
                }
                _ => return None,
            }
        }
        let Rule { decision, justification, line, .. } = rule.clone();
        Some(RuleMatch { decision, matched, resolved_program, justification, line })
    }

    fn path_counts(&self, rule: &Rule, name: &str, path: &str, paths: Paths) -> bool {
        let path = Path::new(path);
        let is_strict = rule.decision > Decision::Allow;
        match (self.hosts.get(name), paths) {
            // A relative one is taken from the current folder there, and so always leads somewhere.
            (None, Paths::AsInExamples) => true,
            (Some(listed), Paths::AsInExamples) => listed.contains(path),
            (None, Paths::Careful) => is_strict,
            (Some(listed), Paths::Careful) if is_strict => !path.is_absolute() || listed.contains(&normal(path)),
            // No second spelling here, since a folder on the way may be a link.
            (Some(listed), Paths::Careful) => listed.contains(path),
        }
    }

    pub(super) fn add(&mut self, rule: Rule, at: usize) -> Result<usize, Fault> {
        if self.rules.len() >= MAX_RULES {
            return Err(Fault::new(at, format!("the file has more than {MAX_RULES} rules")));
        }
        let number = self.rules.len();
        for name in rule.pattern.first().into_iter().flatten() {
            let places = self.by_program.entry(name.clone()).or_default();
            if places.last() != Some(&number) {
                places.push(number);
            }
        }
        self.rules.push(rule);
        Ok(number)
    }

    /// A later list for a name takes the place of an earlier one.
    pub(super) fn add_host(&mut self, name: String, paths: BTreeSet<PathBuf>) {
        self.hosts.insert(name, paths);
    }

    pub(super) fn add_network(&mut self, rule: NetworkRule, at: usize) -> Result<(), Fault> {
        if self.network.len() >= MAX_RULES {
            return Err(Fault::new(at, format!("the file has more than {MAX_RULES} rules")));
        }
        self.network.push(rule);
        Ok(())
    }
}

/// Removes `.` and `..` by their letters.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                normal.pop();
            }
            other => normal.push(other),
        }
    }
    normal
}
