//! Whether a final answer fits the schema that was asked for.

use serde_json::Value;

/// A schema that is none.
#[derive(Debug, thiserror::Error)]
#[error("not a JSON Schema: {0}")]
pub struct OutputError(String);

/// How many errors a model is told of at once.
const MOST_ERRORS: usize = 12;

/// Checks `text` against `schema`: the value, or what is wrong with it in words for a model.
pub fn check_output(schema: &Value, text: &str) -> Result<Result<Value, Vec<String>>, OutputError> {
    let validator = jsonschema::validator_for(schema).map_err(|error| OutputError(error.to_string()))?;
    let value: Value = match serde_json::from_str(without_fence(text)) {
        Ok(value) => value,
        Err(error) => return Ok(Err(vec![format!("the answer is not JSON: {error}")])),
    };
    let errors: Vec<String> = validator
        .iter_errors(&value)
        .take(MOST_ERRORS)
        .map(|error| {
            let path = error.instance_path().to_string();
            let at = if path.is_empty() { "/" } else { path.as_str() };
            format!("at {at}: {}", shorten(&error.to_string()))
        })
        .collect();
    Ok(if errors.is_empty() { Ok(value) } else { Err(errors) })
}

/// Models like to wrap JSON in one Markdown fence; that much is forgiven, prose around it is not.
fn without_fence(text: &str) -> &str {
    let text = text.trim();
    let Some(inner) = text.strip_prefix("```").and_then(|rest| rest.strip_suffix("```")) else {
        return text;
    };
    inner.strip_prefix("json").unwrap_or(inner).trim()
}

fn shorten(text: &str) -> String {
    const LONGEST: usize = 300;
    if text.chars().count() <= LONGEST { text.to_owned() } else { text.chars().take(LONGEST).chain(['…']).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn answers_are_judged_by_their_schema() {
        let schema = json!({"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}});
        let cases = [
            (r#"{"n":1}"#, Ok(json!({"n": 1}))),
            ("```json\n{\"n\":2}\n```", Ok(json!({"n": 2}))),
            ("```\n{\"n\":3}\n```", Ok(json!({"n": 3}))),
            (r#"{"n":"x"}"#, Err("at /n")),
            ("{}", Err("\"n\" is a required property")),
            ("Here it is: {\"n\":1}", Err("not JSON")),
            ("", Err("not JSON")),
        ];
        for (text, expected) in cases {
            match (check_output(&schema, text).unwrap(), expected) {
                (found, Ok(value)) => assert_eq!(found, Ok(value), "{text}"),
                (Err(errors), Err(part)) => assert!(errors[0].contains(part), "{text}: {errors:?}"),
                (found, expected) => panic!("{text}: {found:?}, expected {expected:?}"),
            }
        }
        assert!(check_output(&json!({"type": "no such type"}), "1").is_err());
    }
}
