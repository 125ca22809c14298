//! Another vendor's reasoning, in a place where a client keeps its own vendor's: an opaque text that comes back unchanged.

use super::encoded;
use adj_domain::{Item, ModelRef};
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
    /// Which call of its message it belongs before; none: before its text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    before_call: Option<usize>,
}

impl Wrapped {
    fn new(model: &ModelRef, payload: &Value) -> Self {
        let (vendor, model) = (model.vendor.clone(), model.name.clone());
        Self { vendor, model, payload: payload.clone(), before_text: false, before_call: None }
    }

    fn seal(&self) -> String {
        let text = serde_json::to_string(self).expect("names and a JSON value are JSON");
        format!("{MARK}{}", encoded::encode(text))
    }

    fn into_item(self) -> Item {
        Item::Reasoning { vendor: self.vendor, model: self.model, payload: self.payload }
    }
}

/// Puts a record of reasoning into a text, with the name of the model that made it.
pub(in crate::endpoint) fn wrap(model: &ModelRef, payload: &Value, before_text: bool) -> String {
    Wrapped { before_text, ..Wrapped::new(model, payload) }.seal()
}

/// The same for a wire that keeps all records of a message in one place.
pub(in crate::endpoint) fn wrap_for(model: &ModelRef, payload: &Value, before_call: Option<usize>) -> String {
    Wrapped { before_call, ..Wrapped::new(model, payload) }.seal()
}

/// The same for a wire on which the text must be base64 as a whole, and there is one for all records of a part; each with
/// whether it belongs before a text that was shown already.
pub(in crate::endpoint) fn wrap_in_base64(model: &ModelRef, records: &[(Value, bool)]) -> String {
    let wrap =
        |(payload, before_text): &(Value, bool)| Wrapped { before_text: *before_text, ..Wrapped::new(model, payload) };
    let records = records.iter().map(wrap).collect::<Vec<_>>();
    let text = serde_json::to_string(&records).expect("names and JSON values are JSON");
    encoded::encode(format!("{MARK}{text}"))
}

/// Takes the records out of such a text, and puts them where they belong; `false` where the text is not ours.
pub(in crate::endpoint) fn put_back(text: &str, items: &mut Vec<Item>) -> bool {
    let Some(records) = unwrap(text) else { return false };
    for record in records {
        let place = match items.last() {
            Some(Item::Assistant { .. }) if record.before_text => items.len() - 1,
            _ => items.len(),
        };
        items.insert(place, record.into_item());
    }
    true
}

pub(in crate::endpoint) fn is_ours(text: &str) -> bool {
    unwrap(text).is_some()
}

/// Takes a record out of such a text, with the number of the call that it belongs before.
pub(in crate::endpoint) fn unwrap_for(text: &str) -> Option<(Option<usize>, Item)> {
    let record = unwrap(text)?.pop()?;
    Some((record.before_call, record.into_item()))
}

fn unwrap(text: &str) -> Option<Vec<Wrapped>> {
    if let Some(sealed) = text.strip_prefix(MARK) {
        return Some(vec![serde_json::from_slice(&encoded::decode(sealed)?).ok()?]);
    }
    let bytes = encoded::decode(text)?;
    serde_json::from_slice(bytes.strip_prefix(MARK.as_bytes())?).ok()
}

/// What a record tells people, in whichever vendor's form it is.
pub(in crate::endpoint) fn words(payload: &Value) -> String {
    let summary = payload["summary"].as_array().map_or(&[][..], Vec::as_slice).iter();
    let summary = summary.filter_map(|part| part["text"].as_str()).collect::<Vec<_>>().join("\n\n");
    let told = ["thinking", "reasoning_content", "thought"].into_iter().find_map(|name| payload[name].as_str());
    told.map_or(summary, str::to_owned)
}

/// A record in both forms that callers keep.
#[cfg(test)]
pub(in crate::endpoint) fn seal(model: &ModelRef, payload: &Value) -> (String, String) {
    (wrap(model, payload, false), wrap_in_base64(model, &[(payload.clone(), false)]))
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
            let in_base64 = wrap_in_base64(&model, &[(payload.clone(), before_text)]);
            let rewritten = in_base64.replace('+', "-").replace('/', "_").replace('=', "");
            for sealed in [wrap(&model, &payload, before_text), in_base64, rewritten] {
                let mut items = vec![text.clone()];
                assert!(put_back(&sealed, &mut items));
                assert_eq!(items, expected);
            }
        }
        for place in [None, Some(3)] {
            assert_eq!(unwrap_for(&wrap_for(&model, &payload, place)), Some((place, item.clone())));
        }
        for other in ["", "EqQBCgIYAhIM", "adj1:", "adj1:!!!", "adj1:e30=", "YWRqMTpbe31d"] {
            assert!(!put_back(other, &mut Vec::new()), "{other}");
        }
    }

    #[test]
    fn every_vendors_record_tells_its_words() {
        let cases = [
            (json!({"type": "thinking", "thinking": "a", "signature": "s"}), "a"),
            (json!({"type": "redacted_thinking", "data": "s"}), ""),
            (json!({"summary": [{"type": "summary_text", "text": "a"}, {"text": "b"}]}), "a\n\nb"),
            (json!({"reasoning_content": "a"}), "a"),
            (json!({"thought": "a", "thoughtSignature": "s"}), "a"),
            (json!(7), ""),
        ];
        for (payload, expected) in cases {
            assert_eq!(words(&payload), expected, "{payload}");
        }
    }
}
