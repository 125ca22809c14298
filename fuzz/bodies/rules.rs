//! Reads a file of rules: a complaint has a place in it, and rules that were read match what they say.

use adj_policy::{RuleSet, Word};
use std::path::Path;

pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let rules = match RuleSet::load(Path::new("fuzz.rules"), text) {
        Ok(rules) => rules,
        Err(error) => {
            let lines = text.matches('\n').count() + 1;
            assert!((1..=lines).contains(&(error.line as usize)) && error.column >= 1, "{error}");
            assert!(!error.message.contains(char::is_control), "{error:?}");
            assert!(!error.message.contains("cannot be read"), "the reader gave up on {text:?}");
            return;
        }
    };
    for rule in rules.rules() {
        let argv: Vec<Word> = rule.pattern.iter().map(|words| Word::Literal(words[0].clone())).collect();
        let found = rules.judge(&argv).expect("a command that is spelled like a rule matches it");
        assert!(found.decision >= rule.decision);
        assert!(rules.might_match(&argv).is_none(), "nothing is unknown here");
    }
}
