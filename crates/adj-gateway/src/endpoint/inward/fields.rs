//! What every wire has at the top of a request, under its own names.

use crate::endpoint::Refusal;
use adj_domain::{Caller, Item, SessionId};
use serde_json::{Map, Value};

/// The bound on an answer where the caller names none; some vendors must be told one.
pub(super) const USUAL_BOUND: u32 = 32_000;

/// The fields of an object; what is absent is `null`.
#[derive(Debug)]
pub(super) struct Fields(Map<String, Value>);

impl Fields {
    pub(super) fn read(body: &[u8]) -> Result<Self, Refusal> {
        serde_json::from_slice(body)
            .map(Self)
            .map_err(|error| Refusal::invalid(format!("the request's body is not the JSON that it should be: {error}")))
    }

    pub(super) fn get(&self, name: &str) -> &Value {
        self.0.get(name).unwrap_or(&Value::Null)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value)).filter(|(_, value)| !value.is_null())
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<f64>, Refusal> {
        number(self.get(name), name)
    }

    /// Reads a number of tokens or the like, of which there must be at least one.
    pub(super) fn count(&self, name: &str) -> Result<Option<u32>, Refusal> {
        count(self.get(name), name)
    }
}

pub(super) fn number(value: &Value, name: &str) -> Result<Option<f64>, Refusal> {
    match value {
        Value::Null => Ok(None),
        value => value.as_f64().map(Some).ok_or_else(|| Refusal::invalid(format!("{name}: a number is required"))),
    }
}

pub(super) fn count(value: &Value, name: &str) -> Result<Option<u32>, Refusal> {
    match number(value, name)? {
        None => Ok(None),
        Some(count) if count.fract() == 0.0 && (1.0..=f64::from(u32::MAX)).contains(&count) => Ok(Some(count as u32)),
        Some(_) => Err(Refusal::invalid(format!("{name}: a whole number greater than 0 is required"))),
    }
}

pub(super) fn list<'a>(value: &'a Value, name: &str) -> Result<&'a [Value], Refusal> {
    value.as_array().map(Vec::as_slice).ok_or_else(|| Refusal::invalid(format!("{name}: a list is required")))
}

/// A name of a field, cut to what fits among losses.
pub(super) fn shortened(name: &str) -> String {
    name.chars().take(60).collect()
}

/// The word for a budget of thinking, where a caller counts in tokens.
pub(super) fn effort_of_budget(tokens: u64) -> &'static str {
    match tokens {
        0..1024 => "none",
        1024..=4096 => "low",
        4097..=16384 => "medium",
        _ => "high",
    }
}

/// Who asks, as far as a request tells it.
pub(super) fn external(session: &SessionId, items: &[Item]) -> Caller {
    let calls = items.iter().filter(|item| matches!(item, Item::ToolCall { .. })).count();
    Caller {
        session: session.clone(),
        run: None,
        agent: "external".to_owned(),
        role: "external".to_owned(),
        turn: 1,
        step: u32::try_from(calls).unwrap_or(u32::MAX),
    }
}
