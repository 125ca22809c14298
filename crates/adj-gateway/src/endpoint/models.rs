//! The list of models, in the three shapes that clients know.

use super::{Refusal, RefusalKind, Wire, body};
use hyper::{Response, StatusCode};
use serde_json::{Value, json};

/// Answers with the list, or with one model of it.
pub(super) fn answer(wire: Wire, models: &[String], one: Option<&str>) -> Response<body::Body> {
    let Some(one) = one else {
        return body::json(StatusCode::OK, &list(wire, models));
    };
    match models.iter().find(|model| *model == one) {
        Some(model) => body::json(StatusCode::OK, &entry(wire, model)),
        None => {
            let message = format!(
                "there is no model {one:?} in the list; a request for it is answered by the session's own model"
            );
            Refusal::new(RefusalKind::NotFound, message).response(wire)
        }
    }
}

fn list(wire: Wire, models: &[String]) -> Value {
    let entries = models.iter().map(|model| entry(wire, model)).collect::<Vec<_>>();
    match wire {
        Wire::Responses | Wire::Chat => json!({"object": "list", "data": entries}),
        Wire::Messages => {
            json!({"data": entries, "has_more": false, "first_id": models.first(), "last_id": models.last()})
        }
        Wire::Gemini => json!({"models": entries}),
    }
}

fn entry(wire: Wire, model: &str) -> Value {
    match wire {
        Wire::Responses | Wire::Chat => json!({"id": model, "object": "model", "created": 0, "owned_by": "adjutant"}),
        Wire::Messages => {
            json!({"type": "model", "id": model, "display_name": model, "created_at": "1970-01-01T00:00:00Z"})
        }
        Wire::Gemini => json!({
            "name": format!("models/{model}"), "displayName": model, "version": "1",
            "supportedGenerationMethods": ["generateContent", "streamGenerateContent", "countTokens"]
        }),
    }
}
