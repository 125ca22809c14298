//! `GET /v1/models`: which models an agent may name.

use crate::{
    reply::Reply,
    route::{Access, Call, Routes},
};
use adj_domain::{ModelRef, Timestamp};
use adj_gateway::{Entry, Gateway};
use adj_wire::{
    ApiError, ErrorKind,
    models::{ModelInfo, ModelsQuery},
    page,
};
use std::sync::Arc;

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
        let asked = ModelsQuery::read(&call.query()?)?;
        let known: Vec<ModelInfo> = self.known().iter().map(|(model, entry)| info(model, *entry)).collect();
        let (models, has_more) = asked.select(&known)?;
        Ok(Reply::json(&page::old_page(models.iter().map(ModelInfo::answer).collect(), has_more)))
    }

    /// One model by its id, or by its name alone where only one vendor has it. A vendor that is set up is asked for whatever model
    /// is named, so that one which is not in the catalogue is there too, with sizes that nobody knows.
    fn one(&self, id: &str) -> Result<Reply, ApiError> {
        let known = self.known();
        let reply = |model: &ModelRef, entry: Option<&Entry>| Ok(Reply::json(&info(model, entry).answer()));
        if let Some((model, entry)) = known.iter().find(|(model, _)| model.to_string() == id) {
            return reply(model, *entry);
        }
        let named: Vec<_> = known.iter().filter(|(model, _)| model.name == id).collect();
        if let [(model, entry)] = named[..] {
            return reply(model, *entry);
        }
        let callable = id.parse::<ModelRef>().ok();
        let callable = callable.filter(|model| self.gateway.vendors().any(|vendor| vendor == model.vendor));
        match callable {
            Some(model) => reply(&model, self.gateway.about(&model, Timestamp::now())),
            None => {
                let id = &id[..id.floor_char_boundary(200)];
                let message = format!("there is no model {id:?}: a model is named as vendor/name");
                Err(ApiError::new(ErrorKind::NotFound, message))
            }
        }
    }
}

fn info(model: &ModelRef, entry: Option<&Entry>) -> ModelInfo {
    // The catalogue knows from when a price holds, and nobody's birthday.
    let from = entry.and_then(|entry| entry.from.as_deref());
    ModelInfo {
        id: model.to_string(),
        display_name: model.name.clone(),
        created_at: from.and_then(|from| format!("{from}T00:00:00Z").parse().ok()),
        max_input_tokens: entry.and_then(|entry| entry.context),
        max_output_tokens: entry.and_then(|entry| entry.max_output).map(u64::from),
    }
}
