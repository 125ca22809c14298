//! `GET /v1/models`: which models an agent may name.

use crate::{
    error::{ApiError, ErrorKind},
    reply::Reply,
    route::{Access, Call, Routes},
};
use adj_domain::{ModelRef, Timestamp};
use adj_gateway::{Entry, Gateway};
use serde_json::{Value, json};
use std::sync::Arc;

const DEFAULT_LIMIT: usize = 20;
const MAX_LIMIT: usize = 1000;

/// What can be asked of models.
#[derive(Debug)]
pub struct Models {
    pub gateway: Arc<Gateway>,
    /// The one that is taken where none is named. It leads the list.
    pub default: Option<ModelRef>,
}

pub fn routes(models: Arc<Models>) -> Routes {
    let (of_list, of_one) = (Arc::clone(&models), models);
    Routes::new()
        .get("/v1/models", Access::Api, move |call| {
            let models = Arc::clone(&of_list);
            async move { models.list(&call) }
        })
        .get("/v1/models/{id...}", Access::Api, move |call| {
            let models = Arc::clone(&of_one);
            async move { models.one(call.param("id")) }
        })
}

impl Models {
    /// The models that are known and can be called; the default goes first.
    fn known(&self) -> Vec<(ModelRef, Option<&Entry>)> {
        let now = Timestamp::now();
        let default = self.default.iter().map(|model| (model.clone(), self.gateway.about(model, now)));
        let others = self.gateway.models(now).into_iter().filter(|(model, _)| Some(model) != self.default.as_ref());
        default.chain(others.map(|(model, entry)| (model, Some(entry)))).collect()
    }

    fn list(&self, call: &Call) -> Result<Reply, ApiError> {
        let asked = Asked::read(&call.query)?;
        let known = self.known();
        let known = if asked.is_of_active { &known[..] } else { &[] };
        let place = |id: &str| {
            let found = known.iter().position(|(model, _)| model.to_string() == id);
            found.ok_or_else(|| ApiError::invalid(format!("there is no model {:?} to go on from", shown(id))))
        };
        let after = asked.after.map(|id| place(id).map(|place| place + 1)).transpose()?;
        let before = asked.before.map(place).transpose()?;
        let (start, end) = match (after, before) {
            (Some(after), _) => (after, known.len().min(after + asked.limit)),
            // The page that ends there.
            (None, Some(before)) => (before.saturating_sub(asked.limit), before),
            (None, None) => (0, known.len().min(asked.limit)),
        };
        let has_more = if before.is_some() { start > 0 } else { end < known.len() };
        let data: Vec<Value> = known[start..end].iter().map(|(model, entry)| document(model, *entry)).collect();
        let id = |model: Option<&Value>| model.map(|model| model["id"].clone());
        let (first_id, last_id) = (id(data.first()), id(data.last()));
        Ok(Reply::json(&json!({"data": data, "has_more": has_more, "first_id": first_id, "last_id": last_id})))
    }

    /// One model by its id, or by its name alone where only one vendor has it. A vendor that is set up is asked for whatever model
    /// is named, so that one which is not in the catalogue is there too, with sizes that nobody knows.
    fn one(&self, id: &str) -> Result<Reply, ApiError> {
        let known = self.known();
        if let Some((model, entry)) = known.iter().find(|(model, _)| model.to_string() == id) {
            return Ok(Reply::json(&document(model, *entry)));
        }
        let named: Vec<_> = known.iter().filter(|(model, _)| model.name == id).collect();
        if let [(model, entry)] = named[..] {
            return Ok(Reply::json(&document(model, *entry)));
        }
        let callable = id.parse::<ModelRef>().ok();
        let callable = callable.filter(|model| self.gateway.vendors().any(|vendor| vendor == model.vendor));
        match callable {
            Some(model) => Ok(Reply::json(&document(&model, self.gateway.about(&model, Timestamp::now())))),
            None => {
                let message = format!("there is no model {:?}: a model is named as vendor/name", shown(id));
                Err(ApiError::new(ErrorKind::NotFound, message))
            }
        }
    }
}

/// Every field that clients know is there, so that strict ones read it too.
fn document(model: &ModelRef, entry: Option<&Entry>) -> Value {
    // The catalogue knows from when a price holds, and nobody's birthday.
    let from = entry.and_then(|entry| entry.from.as_deref()).unwrap_or("1970-01-01");
    json!({
        "type": "model",
        "id": model.to_string(),
        "display_name": model.name,
        "created_at": format!("{from}T00:00:00Z"),
        "lifecycle": "active",
        "max_input_tokens": entry.and_then(|entry| entry.context),
        "max_tokens": entry.and_then(|entry| entry.max_output),
        "capabilities": null,
        "line": null,
        "deprecated_at": null,
        "retires_at": null,
        "allowed_fallback_models": null,
    })
}

/// Which part of the list is wanted.
struct Asked<'query> {
    limit: usize,
    after: Option<&'query str>,
    before: Option<&'query str>,
    /// All of ours are active.
    is_of_active: bool,
}

impl<'query> Asked<'query> {
    fn read(query: &'query [(String, String)]) -> Result<Self, ApiError> {
        let mut asked = Self { limit: DEFAULT_LIMIT, after: None, before: None, is_of_active: true };
        let mut lifecycles = Vec::new();
        for (name, value) in query {
            match name.as_str() {
                "limit" => match value.parse() {
                    Ok(limit @ 1..=MAX_LIMIT) => asked.limit = limit,
                    _ => return Err(ApiError::invalid(format!("limit: a number from 1 to {MAX_LIMIT} is expected"))),
                },
                "after_id" => asked.after = Some(value),
                "before_id" => asked.before = Some(value),
                "lifecycle" | "lifecycle[]" => match value.as_str() {
                    "active" | "deprecated" | "retired" => lifecycles.push(value.as_str()),
                    _ => {
                        return Err(ApiError::invalid("lifecycle: active, deprecated or retired is expected"));
                    }
                },
                // As `beta=true`, which old clients put everywhere.
                _ => {}
            }
        }
        if asked.after.is_some() && asked.before.is_some() {
            return Err(ApiError::invalid("after_id and before_id contradict each other"));
        }
        asked.is_of_active = lifecycles.is_empty() || lifecycles.contains(&"active");
        Ok(asked)
    }
}

fn shown(id: &str) -> &str {
    &id[..id.floor_char_boundary(200)]
}
