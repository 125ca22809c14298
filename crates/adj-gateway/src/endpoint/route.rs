//! Who answers: decided outside, asked here.

use super::{Refusal, Wire};
use adj_domain::{ModelRef, SessionId};
use adj_providers::{HttpProvider, Provider};
use std::{fmt, sync::Arc};

/// What a route is asked.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    pub session: &'a SessionId,
    pub wire: Wire,
    /// The model's name as the caller wrote it.
    pub model: &'a str,
}

/// The vendor and the model that answer.
#[derive(Debug, Clone)]
pub struct Target {
    /// The name is the vendor's own.
    pub model: ModelRef,
    pub served: Served,
}

#[derive(Debug, Clone)]
pub enum Served {
    /// Over HTTP: as it is, where the vendor speaks the caller's wire.
    Http(Arc<HttpProvider>),
    /// In neutral form only.
    Neutral(Arc<dyn Provider>),
}

/// Says which vendor answers a request. Agents also ask for models that nobody configured, so a name that is not known goes to
/// the session's own model, and is no reason to refuse.
pub trait Route: fmt::Debug + Send + Sync {
    fn target(&self, question: Question<'_>) -> Result<Target, Refusal>;

    /// The names that a session is offered when it asks for a list.
    fn models(&self, session: &SessionId) -> Vec<String>;
}
