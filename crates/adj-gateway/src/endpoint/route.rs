//! Who answers: decided outside, asked here.

use super::{Refusal, Wire};
use adj_domain::{ModelRef, SessionId};
use std::fmt;

/// What a route is asked.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    pub session: &'a SessionId,
    pub wire: Wire,
    /// The model's name as the caller wrote it.
    pub model: &'a str,
}

/// Says which vendor answers a request. Agents also ask for models that nobody configured, so a name that is not known goes to
/// the session's own model, and is no reason to refuse.
pub trait Route: fmt::Debug + Send + Sync {
    /// Returns the model that answers, by its vendor's own name.
    fn target(&self, question: Question<'_>) -> Result<ModelRef, Refusal>;

    /// The names that a session is offered when it asks for a list.
    fn models(&self, session: &SessionId) -> Vec<String>;
}
