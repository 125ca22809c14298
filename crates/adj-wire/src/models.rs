//! Models, as clients discover them.

use crate::{
    query::{Limits, Query},
    read::Invalid,
    record::time,
};
use adj_domain::Timestamp;
use serde_json::{Value, json};

/// What is known of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelInfo {
    pub id: String,
    pub display_name: String,
    /// `None` where nobody knows: then it is the beginning of all time.
    pub created_at: Option<Timestamp>,
    pub max_input_tokens: Option<u64>,
    pub max_output_tokens: Option<u64>,
}

impl ModelInfo {
    pub fn answer(&self) -> Value {
        json!({
            "id": self.id,
            "type": "model",
            "display_name": self.display_name,
            "created_at": time(self.created_at.unwrap_or(Timestamp::UNIX_EPOCH)),
            "lifecycle": "active",
            "max_input_tokens": self.max_input_tokens,
            "max_tokens": self.max_output_tokens,
            "capabilities": null,
            "line": null,
            "deprecated_at": null,
            "retires_at": null,
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifecycle {
    Active,
    Deprecated,
    Retired,
}

/// Which models are listed. It pages as the first version of the API did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelsQuery {
    pub limit: usize,
    pub after_id: Option<String>,
    pub before_id: Option<String>,
    /// Empty: all. All of ours are active.
    pub lifecycles: Vec<Lifecycle>,
}

impl ModelsQuery {
    pub fn read(query: &Query) -> Result<Self, Invalid> {
        let after_id = query.text("after_id")?.map(str::to_owned);
        let before_id = query.text("before_id")?.map(str::to_owned);
        if after_id.is_some() && before_id.is_some() {
            return Err(Invalid::new("before_id", "cannot be given together with after_id"));
        }
        let words =
            [("active", Lifecycle::Active), ("deprecated", Lifecycle::Deprecated), ("retired", Lifecycle::Retired)];
        Ok(Self {
            limit: query.paging(Limits::LONG)?.limit,
            after_id,
            before_id,
            lifecycles: query.words("lifecycle", &words)?,
        })
    }

    /// The page of `models`, which are all there are, and whether there are more behind it.
    pub fn select<'a>(&self, models: &'a [ModelInfo]) -> Result<(&'a [ModelInfo], bool), Invalid> {
        if !self.lifecycles.is_empty() && !self.lifecycles.contains(&Lifecycle::Active) {
            return Ok((&[], false));
        }
        let place = |name: &str, id: &str| {
            let place = models.iter().position(|model| model.id == id);
            place.ok_or_else(|| Invalid::new(name, "names no model of this list"))
        };
        if let Some(before) = self.before_id.as_deref() {
            let end = place("before_id", before)?;
            let start = end.saturating_sub(self.limit);
            return Ok((&models[start..end], start > 0));
        }
        let start = match self.after_id.as_deref() {
            None => 0,
            Some(after) => place("after_id", after)? + 1,
        };
        let end = models.len().min(start.saturating_add(self.limit));
        Ok((&models[start..end], end < models.len()))
    }
}
