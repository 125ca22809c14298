//! The answer to "what do the rules say of this command?", in the JSON that Codex prints.

use super::{Decision, RuleMatch, RuleSet};
use crate::command::Word;
use serde::Serialize;

/// Every rule that matched, and the strictest decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckOutput {
    pub matched_rules: Vec<MatchedRule>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision: Option<Decision>,
}

/// One rule that matched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum MatchedRule {
    #[serde(rename = "prefixRuleMatch", rename_all = "camelCase")]
    Prefix {
        matched_prefix: Vec<String>,
        decision: Decision,
        #[serde(skip_serializing_if = "Option::is_none")]
        resolved_program: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        justification: Option<String>,
    },
}

impl CheckOutput {
    /// Asks several files about one command.
    pub fn of<'a>(sets: impl IntoIterator<Item = &'a RuleSet>, argv: &[Word]) -> Self {
        sets.into_iter().flat_map(|set| set.matches(argv)).collect()
    }
}

impl FromIterator<RuleMatch> for CheckOutput {
    fn from_iter<T: IntoIterator<Item = RuleMatch>>(found: T) -> Self {
        let mut decision = None;
        let matched_rules = found.into_iter().map(|found| {
            decision = decision.max(Some(found.decision));
            MatchedRule::Prefix {
                matched_prefix: found.matched,
                decision: found.decision,
                resolved_program: found.resolved_program.map(|path| path.display().to_string()),
                justification: found.justification,
            }
        });
        let matched_rules = matched_rules.collect();
        Self { matched_rules, decision }
    }
}
