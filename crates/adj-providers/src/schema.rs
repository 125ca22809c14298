//! Which JSON Schemas vendors accept for structured output.

use serde_json::Value;

/// What a vendor's strict mode demands beyond a schema's being valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Demand {
    /// OpenAI: no additional properties, and every property required.
    AllRequired,
    /// Anthropic: no additional properties.
    Closed,
}

const MAX_DEPTH: usize = 32;

/// Whether a schema stays within the subset that a vendor's strict mode takes.
pub fn qualifies(schema: &Value, demand: Demand) -> bool {
    schema.get("type").and_then(Value::as_str) == Some("object") && fits(schema, demand, 0)
}

fn fits(schema: &Value, demand: Demand, depth: usize) -> bool {
    let Value::Object(schema) = schema else { return false };
    if depth > MAX_DEPTH {
        return false;
    }
    let all = |values: &Value| match values {
        Value::Array(list) => list.iter().all(|one| fits(one, demand, depth + 1)),
        Value::Object(map) => map.values().all(|one| fits(one, demand, depth + 1)),
        _ => false,
    };
    for (key, value) in schema {
        let good = match key.as_str() {
            "title" | "description" | "enum" | "const" | "$schema" | "$id" => true,
            "type" => value.is_string() || value.is_array(),
            "$ref" => value.as_str().is_some_and(|target| target.starts_with('#')),
            "additionalProperties" => *value == Value::Bool(false),
            "required" => value.is_array(),
            "properties" | "$defs" | "definitions" | "anyOf" => all(value),
            "items" => fits(value, demand, depth + 1),
            // Bounds, patterns and the like are checked by us; vendors differ in what they take.
            _ => false,
        };
        if !good {
            return false;
        }
    }
    let is_object = match schema.get("type") {
        Some(Value::String(name)) => name == "object",
        Some(Value::Array(names)) => names.iter().any(|name| name == "object"),
        _ => schema.contains_key("properties"),
    };
    if !is_object {
        return true;
    }
    let required = schema.get("required").and_then(Value::as_array);
    let properties = schema.get("properties").and_then(Value::as_object);
    schema.contains_key("additionalProperties")
        && (demand == Demand::Closed
            || properties.is_none_or(|properties| {
                properties
                    .keys()
                    .all(|name| required.is_some_and(|required| required.iter().any(|entry| entry == name)))
            }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn strict_mode_is_asked_for_only_where_the_schema_allows_it() {
        let closed = json!({"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": false});
        let mut strict = closed.clone();
        strict["required"] = json!(["a"]);
        let nested = |inner: &Value| {
            json!({"type": "object", "properties": {"list": {"type": "array", "items": inner}}, "required": ["list"],
                   "additionalProperties": false})
        };
        let mut bounded = strict.clone();
        bounded["properties"]["a"]["minLength"] = json!(1);
        let cases = [
            ("strict", strict.clone(), true, true),
            ("closed", closed.clone(), false, true),
            ("nested strict", nested(&strict), true, true),
            ("nested closed", nested(&closed), false, true),
            ("open", json!({"type": "object", "properties": {}}), false, false),
            ("with a bound", bounded, false, false),
            ("a list", json!({"type": "array", "items": {"type": "string"}}), false, false),
            ("anything", json!(true), false, false),
            (
                "a remote reference",
                json!({"type": "object", "additionalProperties": false, "$ref": "https://x"}),
                false,
                false,
            ),
        ];
        for (name, schema, for_openai, for_anthropic) in cases {
            assert_eq!(qualifies(&schema, Demand::AllRequired), for_openai, "{name}");
            assert_eq!(qualifies(&schema, Demand::Closed), for_anthropic, "{name}");
        }
        let mut deep = strict;
        for _ in 0..40 {
            deep = nested(&deep);
        }
        assert!(!qualifies(&deep, Demand::Closed));
    }
}
