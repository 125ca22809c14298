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
    /// It came when the text that it belongs before was shown already.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    before_text: bool,
}

/// Puts a record of reasoning into a text, with the name of the model that made it.
pub(in crate::endpoint) fn wrap(model: &ModelRef, payload: &Value, before_text: bool) -> String {
    let (vendor, model) = (model.vendor.clone(), model.name.clone());
    let wrapped = Wrapped { vendor, model, payload: payload.clone(), before_text };
    let text = serde_json::to_string(&wrapped).expect("names and a JSON value are JSON");
    format!("{MARK}{}", STANDARD.encode(text))
}

/// Takes a record out of such a text, and puts it where it belongs; `false` where the text is not ours.
pub(in crate::endpoint) fn put_back(text: &str, items: &mut Vec<Item>) -> bool {
    let Some((item, before_text)) = unwrap(text) else { return false };
    match items.last() {
        Some(Item::Assistant { .. }) if before_text => items.insert(items.len() - 1, item),
        _ => items.push(item),
    }
    true
}

fn unwrap(text: &str) -> Option<(Item, bool)> {
    let bytes = STANDARD.decode(text.strip_prefix(MARK)?).ok()?;
    let Wrapped { vendor, model, payload, before_text } = serde_json::from_slice(&bytes).ok()?;
    Some((Item::Reasoning { vendor, model, payload }, before_text))
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
        let text = Item::Assistant { text: "Hi.".to_owned() };
        for (before_text, expected) in [(false, [text.clone(), item.clone()]), (true, [item.clone(), text.clone()])] {
            let mut items = vec![text.clone()];
            assert!(put_back(&wrap(&model, &payload, before_text), &mut items));
            assert_eq!(items, expected);
        }
        for other in ["", "EqQBCgIYAhIM", "adj1:", "adj1:!!!", "adj1:e30="] {
            assert!(!put_back(other, &mut Vec::new()), "{other}");
        }
    }
}
