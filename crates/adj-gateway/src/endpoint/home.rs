//! The ordinary route: each protocol has a vendor at home, and what nobody is at home for goes to one model.

use super::{Question, Refusal, Route, Wire};
use adj_domain::{ModelRef, SessionId};
use std::collections::BTreeMap;

/// Who answers, by how the model is named.
#[derive(Debug, Clone)]
pub struct HomeRoute {
    /// Every request goes to `model`, however its model is named.
    pub is_forced: bool,
    /// Where requests go that have nowhere else to go.
    pub model: ModelRef,
    /// The vendors that can be called, and the protocol that each of them speaks, if it is one.
    pub vendors: BTreeMap<String, Option<Wire>>,
    /// What is offered to those who ask for a list.
    pub offered: Vec<String>,
}

impl Route for HomeRoute {
    fn target(&self, question: Question<'_>) -> Result<ModelRef, Refusal> {
        if self.is_forced {
            return Ok(self.model.clone());
        }
        let named = question.model.parse::<ModelRef>().ok().filter(|model| self.vendors.contains_key(&model.vendor));
        Ok(named.or_else(|| self.at_home(question)).unwrap_or_else(|| self.model.clone()))
    }

    fn models(&self, _session: &SessionId) -> Vec<String> {
        self.offered.clone()
    }
}

impl HomeRoute {
    /// The vendor whose own protocol this is. Where several speak it, nobody can say which one is meant.
    fn at_home(&self, question: Question<'_>) -> Option<ModelRef> {
        let mut speakers = self.vendors.iter().filter(|(_, wire)| **wire == Some(question.wire)).map(|(name, _)| name);
        let vendor = match (speakers.next()?, speakers.next()) {
            (only, None) => only,
            (_, Some(_)) if self.vendors.get(&self.model.vendor) == Some(&Some(question.wire)) => &self.model.vendor,
            (_, Some(_)) => return None,
        };
        format!("{vendor}/{}", question.model).parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn goes(route: &HomeRoute, wire: Wire, model: &str) -> String {
        let session = SessionId::derive(&["s"]);
        let target = route.target(Question { session: &session, wire, model });
        target.expect("somebody answers").to_string()
    }

    #[test]
    fn a_request_goes_to_whom_it_names_then_to_whom_its_protocol_belongs_then_to_the_sessions_model() {
        let vendors = [
            ("anthropic", Some(Wire::Messages)),
            ("deepseek", Some(Wire::Chat)),
            ("vllm", Some(Wire::Chat)),
            ("scripted", None),
        ];
        let vendors = vendors.map(|(name, wire)| (name.to_owned(), wire)).into();
        let model = "deepseek/chat".parse().expect("a model");
        let mut route = HomeRoute { is_forced: false, model, vendors, offered: Vec::new() };
        let cases = [
            (Wire::Messages, "claude-x", "anthropic/claude-x"),
            (Wire::Messages, "vllm/meta/llama", "vllm/meta/llama"),
            (Wire::Messages, "openai/gpt", "anthropic/openai/gpt"),
            (Wire::Responses, "gpt-5.5", "deepseek/chat"),
            (Wire::Gemini, "gemini-x", "deepseek/chat"),
            // Two speak it, and one of them is the session's.
            (Wire::Chat, "some", "deepseek/some"),
            (Wire::Chat, "scripted/x", "scripted/x"),
            (Wire::Messages, "with space", "deepseek/chat"),
        ];
        for (wire, asked, expected) in cases {
            assert_eq!(goes(&route, wire, asked), expected, "{wire:?} {asked}");
        }
        route.model = "scripted/x".parse().expect("a model");
        assert_eq!(goes(&route, Wire::Chat, "some"), "scripted/x");
        route.is_forced = true;
        for (wire, asked, _) in cases {
            assert_eq!(goes(&route, wire, asked), "scripted/x");
        }
    }
}
