//! Another vendor's reasoning, in a place where a client keeps its own vendor's: an opaque text that comes back unchanged.

use adj_domain::{Item, ModelRef};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::Value;

const MARK: &str = "adj1:";

#[derive(Serialize, Deserialize)]
struct Wrapped {
    vendor: String,
    model: String,
    payload: Value,
}

/// Puts a record of reasoning into a text, with the name of the model that made it.
pub(in crate::endpoint) fn wrap(model: &ModelRef, payload: &Value) -> String {
    let wrapped = Wrapped { vendor: model.vendor.clone(), model: model.name.clone(), payload: payload.clone() };
    let text = serde_json::to_string(&wrapped).expect("names and a JSON value are JSON");
    format!("{MARK}{}", STANDARD.encode(text))
}

/// Takes a record out of such a text; `None` where the text is not ours.
pub(in crate::endpoint) fn unwrap(text: &str) -> Option<Item> {
    let bytes = STANDARD.decode(text.strip_prefix(MARK)?).ok()?;
    let Wrapped { vendor, model, payload } = serde_json::from_slice(&bytes).ok()?;
    Some(Item::Reasoning { vendor, model, payload })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reasoning_comes_back_to_the_model_that_made_it() {
        let model = ModelRef { vendor: "openai".to_owned(), name: "gpt-5.5".to_owned() };
        let payload = json!({"type": "reasoning", "encrypted_content": "é\"/"});
        let item =
            Item::Reasoning { vendor: model.vendor.clone(), model: model.name.clone(), payload: payload.clone() };
        assert_eq!(unwrap(&wrap(&model, &payload)), Some(item));
        for other in ["", "EqQBCgIYAhIM", "adj1:", "adj1:!!!", "adj1:e30="] {
            assert_eq!(unwrap(other), None, "{other}");
        }
    }
}
