//! Google's way to write a schema, and the one that everybody else reads.

use super::proto::camel;
use serde_json::{Map, Value, json};

/// Makes JSON Schema out of a schema in either way: kinds in capitals, `nullable`, numbers in texts, names with underscores.
pub(super) fn json_schema(schema: &Value) -> Value {
    let Value::Object(fields) = schema else { return schema.clone() };
    let all = |held: &Value| match held {
        Value::Object(map) => map.iter().map(|(name, one)| (name.clone(), json_schema(one))).collect(),
        other => other.clone(),
    };
    let each = |held: &Value| match held {
        Value::Array(list) => list.iter().map(json_schema).collect(),
        other => json_schema(other),
    };
    let mut written = Map::new();
    for (name, value) in fields {
        // Names of properties are the caller's own; these are not.
        let key = if name.starts_with('$') { name.as_str().into() } else { camel(name) };
        let value = match key.as_ref() {
            "type" => lowered(value),
            "properties" | "$defs" | "definitions" | "patternProperties" => all(value),
            "items" | "anyOf" | "oneOf" | "allOf" | "prefixItems" => each(value),
            "additionalProperties" | "not" => json_schema(value),
            "minItems" | "maxItems" | "minLength" | "maxLength" | "minProperties" | "maxProperties" => match value {
                Value::String(text) => text.parse::<u64>().map_or_else(|_| value.clone(), Value::from),
                other => other.clone(),
            },
            // They change nothing that is valid, or have another name, or are read below.
            "$schema" | "example" | "propertyOrdering" | "nullable" => continue,
            "format" if value == "enum" => continue,
            _ => value.clone(),
        };
        if !value.is_null() {
            written.insert(key.into_owned(), value);
        }
    }
    if fields.get("nullable") == Some(&Value::Bool(true)) {
        if let Some(kind) = written.get_mut("type").filter(|kind| kind.is_string()) {
            *kind = json!([kind.take(), "null"]);
        }
        if let Some(Value::Array(allowed)) = written.get_mut("enum") {
            allowed.push(Value::Null);
        }
    }
    Value::Object(written)
}

/// The same for a function's parameters, which are always an object's.
pub(super) fn parameters(schema: &Value) -> Value {
    let mut schema = json_schema(schema);
    match schema.as_object_mut() {
        Some(fields) => {
            fields.entry("type").or_insert_with(|| json!("object"));
            schema
        }
        None => json!({"type": "object", "properties": {}}),
    }
}

fn lowered(kind: &Value) -> Value {
    match kind {
        Value::String(word) if word == "TYPE_UNSPECIFIED" => Value::Null,
        Value::String(word) => json!(word.to_ascii_lowercase()),
        Value::Array(words) => words.iter().map(lowered).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_of_writing_a_schema_become_json_schema() {
        let cases = [
            (json!({"type": "STRING", "format": "enum", "enum": ["A"]}), json!({"type": "string", "enum": ["A"]})),
            (
                json!({"type": "STRING", "nullable": true, "enum": ["A"]}),
                json!({"type": ["string", "null"], "enum": ["A", null]}),
            ),
            (
                json!({"type": "ARRAY", "items": {"type": "INTEGER"}, "minItems": "2", "max_items": 3}),
                json!({"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 3}),
            ),
            // Names of properties stay as they are, also those that look like something else.
            (
                json!({"type": "OBJECT", "properties": {"type": {"type": "STRING"}, "any_of": {"type": "NUMBER"}},
                    "propertyOrdering": ["type"], "required": ["any_of"]}),
                json!({"type": "object", "properties": {"type": {"type": "string"}, "any_of": {"type": "number"}},
                    "required": ["any_of"]}),
            ),
            (
                json!({"any_of": [{"type": "NULL"}, {"$ref": "#/$defs/A_b"}], "$defs": {"A_b": {"type": "BOOLEAN"}}}),
                json!({"anyOf": [{"type": "null"}, {"$ref": "#/$defs/A_b"}], "$defs": {"A_b": {"type": "boolean"}}}),
            ),
            (
                json!({"$schema": "x", "type": ["OBJECT", "null"], "additionalProperties": {"type": "STRING"}}),
                json!({"type": ["object", "null"], "additionalProperties": {"type": "string"}}),
            ),
            (json!({"type": "TYPE_UNSPECIFIED"}), json!({})),
            (
                json!({"type": "string", "default": {"type": "KEPT"}}),
                json!({"type": "string", "default": {"type": "KEPT"}}),
            ),
        ];
        for (schema, expected) in cases {
            assert_eq!(json_schema(&schema), expected, "{schema}");
        }
        assert_eq!(parameters(&Value::Null), json!({"type": "object", "properties": {}}));
        assert_eq!(parameters(&json!({"properties": {}})), json!({"properties": {}, "type": "object"}));
    }
}
