//! Pages of lists, and the cursors that lead from one to the next.

use crate::{query::Order, read::Invalid};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

const PREFIX: &str = "page_";
const LONGEST: usize = 4_096;

/// A place in a list. It is good for the list and the order that it was made for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// The list, with whatever it belongs to: `agents`, `sessions/sesn_1/events`.
    pub list: String,
    pub order: Order,
    /// The last entry of the page before it, in the words of whoever keeps the list.
    pub position: String,
    /// Whether the page lies before that entry.
    pub is_backwards: bool,
}

#[derive(Serialize, Deserialize)]
struct Written {
    l: String,
    o: String,
    p: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    b: bool,
}

impl Cursor {
    pub fn forwards(list: impl Into<String>, order: Order, position: impl Into<String>) -> Self {
        Self { list: list.into(), order, position: position.into(), is_backwards: false }
    }

    pub fn backwards(list: impl Into<String>, order: Order, position: impl Into<String>) -> Self {
        Self { is_backwards: true, ..Self::forwards(list, order, position) }
    }

    pub fn encode(&self) -> String {
        let written = Written {
            l: self.list.clone(),
            o: self.order.as_str().to_owned(),
            p: self.position.clone(),
            b: self.is_backwards,
        };
        let json = serde_json::to_string(&written).expect("three texts and a flag are JSON");
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(json))
    }

    /// Reads what [`encode`](Self::encode) wrote for the same list in the same order.
    pub fn decode(text: &str, list: &str, order: Order) -> Result<Self, Invalid> {
        let written = Self::read(text).ok_or_else(|| Invalid::new("page", "is not a cursor of this API"))?;
        if written.l != list {
            return Err(Invalid::new("page", "is the cursor of another list"));
        }
        if written.o != order.as_str() {
            return Err(Invalid::new("page", "is the cursor of a list in another order"));
        }
        Ok(Self { list: written.l, order, position: written.p, is_backwards: written.b })
    }

    fn read(text: &str) -> Option<Written> {
        if text.len() > LONGEST {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(text.strip_prefix(PREFIX)?).ok()?;
        serde_json::from_slice(&bytes).ok()
    }
}

/// A page of most lists.
pub fn page(data: Vec<Value>, next: Option<&Cursor>) -> Value {
    json!({"data": data, "next_page": next.map(Cursor::encode)})
}

/// A page of sessions, which also leads back.
pub fn page_with_previous(data: Vec<Value>, next: Option<&Cursor>, previous: Option<&Cursor>) -> Value {
    json!({"data": data, "next_page": next.map(Cursor::encode), "prev_page": previous.map(Cursor::encode)})
}

/// A page as the first version of the API had it: models.
pub fn old_page(data: Vec<Value>, has_more: bool) -> Value {
    let id = |entry: Option<&Value>| entry.map_or(Value::Null, |entry| entry["id"].clone());
    let (first, last) = (id(data.first()), id(data.last()));
    json!({"data": data, "has_more": has_more, "first_id": first, "last_id": last})
}

/// A page for libraries of both ages: files.
pub fn page_of_both_ages(data: Vec<Value>, next: Option<&Cursor>) -> Value {
    let mut page = old_page(data, next.is_some());
    page["next_page"] = next.map(Cursor::encode).into();
    page
}

/// What a deletion answers: `kind` is such as `environment_deleted`.
pub fn deleted(kind: &str, id: &str) -> Value {
    json!({"id": id, "type": kind})
}
