//! What a store knows of a resource beside its body: that and the body make the answer.

use adj_domain::Timestamp;
use serde_json::{Map, Value};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    pub id: String,
    pub version: u64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub archived_at: Option<Timestamp>,
}

impl Stamp {
    /// Adds the three times that end most resources.
    pub(crate) fn add_times(&self, resource: &mut Map<String, Value>) {
        resource.insert("created_at".to_owned(), time(self.created_at));
        resource.insert("updated_at".to_owned(), time(self.updated_at));
        resource.insert("archived_at".to_owned(), self.archived_at.map_or(Value::Null, time));
    }
}

/// A moment as every answer writes it: UTC, with a `Z`.
pub(crate) fn time(at: Timestamp) -> Value {
    Value::String(at.to_string())
}

/// An object, out of a literal.
pub(crate) fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        other => unreachable!("{other} is no object"),
    }
}
