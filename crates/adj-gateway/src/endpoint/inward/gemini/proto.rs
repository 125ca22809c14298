//! Google's JSON: each field may be written in two ways, and a client writes both within one request.

use crate::endpoint::Refusal;
use serde_json::{Map, Value};
use std::borrow::Cow;

/// An object whose fields are asked for by their names in camelCase; what is absent is `null`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Proto<'a>(Option<&'a Map<String, Value>>);

impl<'a> Proto<'a> {
    pub(super) fn of(value: &'a Value) -> Self {
        Self(value.as_object())
    }

    pub(super) fn get(self, name: &str) -> &'a Value {
        const NULL: &Value = &Value::Null;
        let Some(map) = self.0 else { return NULL };
        map.get(name).or_else(|| map.get(&snake(name))).unwrap_or(NULL)
    }

    pub(super) fn proto(self, name: &str) -> Proto<'a> {
        Self::of(self.get(name))
    }

    pub(super) fn text(self, name: &str) -> &'a str {
        self.get(name).as_str().unwrap_or_default()
    }

    pub(super) fn has(self, name: &str) -> bool {
        !self.get(name).is_null()
    }

    /// Returns what is said, under its names in camelCase.
    pub(super) fn fields(self) -> impl Iterator<Item = (Cow<'a, str>, &'a Value)> {
        let fields = self.0.into_iter().flat_map(Map::iter).filter(|(_, value)| !value.is_null());
        fields.map(|(name, value)| (camel(name), value))
    }

    /// Returns a list of objects; one that is absent has none.
    pub(super) fn list(self, name: &str) -> Result<impl Iterator<Item = Proto<'a>>, Refusal> {
        let list = match self.get(name) {
            Value::Null => &[][..],
            Value::Array(list) => list,
            _ => return Err(Refusal::invalid(format!("{name}: a list is required"))),
        };
        Ok(list.iter().map(Proto::of))
    }
}

fn snake(name: &str) -> String {
    let mut written = String::with_capacity(name.len() + 4);
    for one in name.chars() {
        if one.is_ascii_uppercase() {
            written.push('_');
        }
        written.push(one.to_ascii_lowercase());
    }
    written
}

pub(super) fn camel(name: &str) -> Cow<'_, str> {
    if !name.contains('_') {
        return Cow::Borrowed(name);
    }
    let mut written = String::with_capacity(name.len());
    let mut raise = false;
    for one in name.chars() {
        match one {
            '_' => raise = !written.is_empty(),
            _ if std::mem::replace(&mut raise, false) => written.push(one.to_ascii_uppercase()),
            _ => written.push(one),
        }
    }
    Cow::Owned(written)
}
