//! Rules on commands, whether from a `.rules` file or written in the policy itself, in one form.

use crate::{
    PolicyError,
    command::{SimpleCommand, Word},
    document::shown,
    rules::{Decision, NetworkRule, RuleMatch, RuleSet},
    settings::InlineRule,
};
use adj_domain::Verdict;
use std::path::{Path, PathBuf};

/// A file of rules, loaded and tested.
#[derive(Debug)]
pub struct RuleFile {
    pub path: PathBuf,
    /// BLAKE3 of its text.
    pub hash: String,
    rules: RuleSet,
}

/// What a rule says of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RuleHit {
    pub verdict: Verdict,
    pub text: String,
    pub justification: Option<String>,
}

impl RuleFile {
    pub fn load(path: &Path, text: &str) -> Result<Self, PolicyError> {
        let hash = blake3::hash(text.as_bytes()).to_hex().to_string();
        Ok(Self { path: path.to_owned(), hash, rules: RuleSet::load(path, text)? })
    }

    pub fn rules(&self) -> &RuleSet {
        &self.rules
    }

    /// The strictest rule that matches a command, and its line.
    pub(crate) fn hit(&self, command: &SimpleCommand) -> Option<(RuleHit, u32)> {
        let found = self.rules.judge(&command.argv)?;
        let hit = RuleHit {
            verdict: verdict(found.decision),
            text: told(&found),
            justification: found.justification.as_deref().map(shown),
        };
        Some((hit, found.line))
    }

    /// A rule that asks or forbids, and might match depending on what the shell makes of a word.
    pub(crate) fn might(&self, command: &SimpleCommand) -> Option<(String, u32)> {
        let found = self.rules.might_match(&command.argv)?;
        Some((told(&found), found.line))
    }

    pub(crate) fn restricts(&self) -> bool {
        self.rules.rules().iter().any(|rule| rule.decision > Decision::Allow)
    }

    pub(crate) fn allows(&self) -> bool {
        self.rules.rules().iter().any(|rule| rule.decision == Decision::Allow)
    }

    /// The strictest rule on a host, whatever protocol it names: one host is one host for us.
    pub(crate) fn on_host(&self, host: &str) -> Option<(Verdict, &NetworkRule)> {
        let named = self
            .rules
            .network_rules()
            .iter()
            .filter(|rule| adj_domain::host_name(&rule.host).is_ok_and(|name| name == host));
        let strictest = named.reduce(|kept, next| if next.decision > kept.decision { next } else { kept })?;
        Some((verdict(strictest.decision), strictest))
    }
}

fn told(found: &RuleMatch) -> String {
    shown(&format!("{} `{}`", decision(verdict(found.decision)), found.matched.join(" ")))
}

fn verdict(decision: Decision) -> Verdict {
    match decision {
        Decision::Allow => Verdict::Allow,
        Decision::Prompt => Verdict::Ask,
        Decision::Forbidden => Verdict::Deny,
    }
}

/// A rule in the words of a `.rules` file.
pub(crate) fn described(rule: &InlineRule) -> String {
    let word = |words: &Vec<String>| match words.as_slice() {
        [word] => word.clone(),
        words => format!("[{}]", words.join("|")),
    };
    let words: Vec<String> = rule.pattern.iter().map(word).collect();
    shown(&format!("{} `{}`", decision(rule.decision), words.join(" ")))
}

fn decision(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Allow => "allow",
        Verdict::Ask => "prompt",
        Verdict::Deny => "forbidden",
    }
}

pub(crate) fn inline_hit(rule: &InlineRule, command: &SimpleCommand) -> Option<RuleHit> {
    (reach(rule, command) == Reach::Matches).then(|| RuleHit {
        verdict: rule.decision,
        text: described(rule),
        justification: rule.justification.as_deref().map(shown),
    })
}

/// Whether a rule that asks or forbids might match, depending on what the shell makes of a word.
pub(crate) fn inline_might(rule: &InlineRule, command: &SimpleCommand) -> bool {
    rule.decision > Verdict::Allow && reach(rule, command) == Reach::Might
}

#[derive(Debug, PartialEq, Eq)]
enum Reach {
    Matches,
    Might,
    Not,
}

fn reach(rule: &InlineRule, command: &SimpleCommand) -> Reach {
    for (index, alternatives) in rule.pattern.iter().enumerate() {
        let word = match command.argv.get(index) {
            None => return Reach::Not,
            Some(Word::Dynamic { .. }) => return Reach::Might,
            Some(Word::Literal(word)) => word,
        };
        let is_one = alternatives.iter().any(|known| known == word);
        // A program by its path is the program for a rule that is on guard, and a stranger for one that trusts.
        let is_path = index == 0
            && rule.decision > Verdict::Allow
            && word.contains('/')
            && command.program().is_some_and(|name| alternatives.iter().any(|known| known == name));
        if !is_one && !is_path {
            return Reach::Not;
        }
    }
    Reach::Matches
}
