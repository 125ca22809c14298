//! Inputs of the tools, parsed once; inside this room they are valid.

use crate::name::ToolName;
use crate::spec::schema;
use serde::Deserialize;
use serde_json::Value;

/// One hour: a command that needs more belongs in the background.
pub(crate) const LONGEST_TIMEOUT_MS: u64 = 3_600_000;
const LONGEST_COMMAND_BYTES: usize = 1 << 20;
pub(crate) const LARGEST_CONTEXT: usize = 20;
pub(crate) const LARGEST_LIMIT: usize = 2_000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Bash {
    pub command: Option<String>,
    pub restart: Option<bool>,
    pub timeout_ms: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Read {
    pub file_path: String,
    pub view_range: Option<[i64; 2]>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Write {
    pub file_path: String,
    pub content: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Edit {
    pub file_path: String,
    pub old_string: String,
    pub new_string: String,
    pub replace_all: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Glob {
    pub pattern: String,
    pub path: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Grep {
    pub pattern: String,
    pub path: Option<String>,
    pub glob: Option<String>,
    pub ignore_case: Option<bool>,
    pub context: Option<usize>,
    pub limit: Option<usize>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ApplyPatch {
    pub patch: String,
}

#[derive(Debug)]
pub(crate) enum Input {
    Bash(Bash),
    Read(Read),
    Write(Write),
    Edit(Edit),
    Glob(Glob),
    Grep(Grep),
    ApplyPatch(ApplyPatch),
}

/// Says everything that is wrong with an input, in words for the model that made it.
pub fn check_input(name: &str, input: &Value) -> Result<(), Vec<String>> {
    parse(name, input).map(drop)
}

pub(crate) fn parse(name: &str, input: &Value) -> Result<Input, Vec<String>> {
    let name: ToolName = name.parse().map_err(|error| vec![format!("{error}")])?;
    let mistakes = mistakes_against(&schema(name), input);
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    let parsed = match name {
        ToolName::Bash => Deserialize::deserialize(input).map(Input::Bash),
        ToolName::Read => Deserialize::deserialize(input).map(Input::Read),
        ToolName::Write => Deserialize::deserialize(input).map(Input::Write),
        ToolName::Edit => Deserialize::deserialize(input).map(Input::Edit),
        ToolName::Glob => Deserialize::deserialize(input).map(Input::Glob),
        ToolName::Grep => Deserialize::deserialize(input).map(Input::Grep),
        ToolName::ApplyPatch => Deserialize::deserialize(input).map(Input::ApplyPatch),
    }
    .map_err(|error| vec![error.to_string()])?;
    let mistakes = mistakes_in(&parsed);
    if mistakes.is_empty() { Ok(parsed) } else { Err(mistakes) }
}

/// The part of JSON Schema that our own schemas use; it names every field that is wrong, where serde stops at the first.
fn mistakes_against(schema: &Value, input: &Value) -> Vec<String> {
    let Value::Object(input) = input else {
        return vec![format!("the input must be an object, not {}", kind(input))];
    };
    let known = &schema["properties"];
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let mut mistakes = Vec::new();
    for name in &required {
        if !input.contains_key(*name) {
            mistakes.push(format!("\"{name}\" is missing"));
        }
    }
    for (name, value) in input.iter().take(100) {
        let Some(property) = known.get(name) else {
            let names: Vec<&str> = known.as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
            let shown: String = name.chars().take(100).collect();
            mistakes.push(format!("\"{shown}\" is not a field of this tool (its fields: {})", names.join(", ")));
            continue;
        };
        // Some vendors make models name every field; null is how those say "absent".
        if value.is_null() && !required.contains(&name.as_str()) {
            continue;
        }
        let (fits, expected) = match property["type"].as_str() {
            Some("string") => (value.is_string(), "a string"),
            Some("boolean") => (value.is_boolean(), "true or false"),
            Some("integer") => (value.is_u64(), "a whole number from 0"),
            _ => (
                value.as_array().is_some_and(|items| items.len() == 2 && items.iter().all(Value::is_i64)),
                "two whole numbers, [first, last]",
            ),
        };
        if !fits {
            mistakes.push(format!("\"{name}\" must be {expected}, not {}", kind(value)));
        }
    }
    mistakes
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(number) if number.is_f64() => "a fraction",
        Value::Number(number) if number.is_i64() && !number.is_u64() => "a negative number",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "this list",
        Value::Object(_) => "an object",
    }
}

/// What a type cannot say.
fn mistakes_in(input: &Input) -> Vec<String> {
    let mut mistakes = Vec::new();
    let mut check = |is_right: bool, mistake: &str| {
        if !is_right {
            mistakes.push(mistake.to_owned());
        }
    };
    match input {
        Input::Bash(bash) => {
            let command = bash.command.as_deref().unwrap_or_default();
            check(
                bash.command.is_some() || bash.restart == Some(true),
                "one of \"command\" and \"restart\": true is needed",
            );
            check(!command.contains('\0'), "\"command\" contains a NUL character, which no shell can run");
            check(
                command.len() <= LONGEST_COMMAND_BYTES,
                "\"command\" is longer than 1 MiB; write long content with the write tool",
            );
            check(
                bash.timeout_ms.is_none_or(|timeout| (1..=LONGEST_TIMEOUT_MS).contains(&timeout)),
                "\"timeout_ms\" must be between 1 and 3600000 (one hour)",
            );
        }
        Input::Read(Read { view_range: Some([first, last]), .. }) => {
            check(*first >= 1, "\"view_range\" must start at line 1 or later");
            check(
                *last == -1 || last >= first,
                "\"view_range\" must end at its first line or later, or at -1 for the end of the file",
            );
        }
        Input::Read(_) | Input::Write(_) => {}
        Input::Edit(edit) => {
            check(
                !edit.old_string.is_empty(),
                "\"old_string\" is empty; to create a file or replace all of it, use write",
            );
            check(edit.old_string != edit.new_string, "\"old_string\" and \"new_string\" are the same");
        }
        Input::Glob(glob) => check(!glob.pattern.is_empty(), "\"pattern\" is empty"),
        Input::Grep(grep) => {
            check(!grep.pattern.is_empty(), "\"pattern\" is empty");
            check(grep.context.is_none_or(|lines| lines <= LARGEST_CONTEXT), "\"context\" must be at most 20");
            check(
                grep.limit.is_none_or(|limit| (1..=LARGEST_LIMIT).contains(&limit)),
                "\"limit\" must be between 1 and 2000",
            );
        }
        Input::ApplyPatch(patch) => check(!patch.patch.trim().is_empty(), "\"patch\" is empty"),
    }
    mistakes
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn inputs_are_judged_field_by_field() {
        let cases = [
            ("bash", json!({"command": "ls"}), &[][..]),
            ("bash", json!({"restart": true}), &[]),
            ("bash", json!({"command": "ls", "restart": null, "timeout_ms": null}), &[]),
            ("bash", json!({}), &["one of \"command\" and \"restart\": true is needed"]),
            ("bash", json!({"restart": false}), &["one of \"command\" and \"restart\": true is needed"]),
            ("bash", json!({"command": "a\0b"}), &["\"command\" contains a NUL character, which no shell can run"]),
            (
                "bash",
                json!({"command": "ls", "timeout_ms": 0}),
                &["\"timeout_ms\" must be between 1 and 3600000 (one hour)"],
            ),
            (
                "bash",
                json!({"command": 3, "cmd": "x", "timeout_ms": -1}),
                &[
                    "\"command\" must be a string, not a number",
                    "\"cmd\" is not a field of this tool (its fields: command, restart, timeout_ms)",
                    "\"timeout_ms\" must be a whole number from 0, not a negative number",
                ],
            ),
            ("read", json!({"file_path": "a", "view_range": [1, -1]}), &[]),
            (
                "read",
                json!({"file_path": "a", "view_range": [0, 5]}),
                &["\"view_range\" must start at line 1 or later"],
            ),
            (
                "read",
                json!({"file_path": "a", "view_range": [7, 5]}),
                &["\"view_range\" must end at its first line or later, or at -1 for the end of the file"],
            ),
            (
                "read",
                json!({"file_path": "a", "view_range": [1]}),
                &["\"view_range\" must be two whole numbers, [first, last], not this list"],
            ),
            ("read", json!({"file_path": null}), &["\"file_path\" must be a string, not null"]),
            ("read", json!("a"), &["the input must be an object, not a string"]),
            ("write", json!({"file_path": "a"}), &["\"content\" is missing"]),
            ("write", json!({}), &["\"file_path\" is missing", "\"content\" is missing"]),
            (
                "edit",
                json!({"file_path": "a", "old_string": "", "new_string": "b"}),
                &["\"old_string\" is empty; to create a file or replace all of it, use write"],
            ),
            (
                "edit",
                json!({"file_path": "a", "old_string": "b", "new_string": "b"}),
                &["\"old_string\" and \"new_string\" are the same"],
            ),
            ("glob", json!({"pattern": ""}), &["\"pattern\" is empty"]),
            (
                "grep",
                json!({"pattern": "x", "limit": 1.5}),
                &["\"limit\" must be a whole number from 0, not a fraction"],
            ),
            ("grep", json!({"pattern": "x", "context": 21}), &["\"context\" must be at most 20"]),
            ("apply_patch", json!({"patch": " \n"}), &["\"patch\" is empty"]),
            (
                "launch",
                json!({}),
                &["there is no tool called \"launch\" (there are bash, read, write, edit, glob, grep, apply_patch)"],
            ),
        ];
        for (name, input, expected) in cases {
            let found = check_input(name, &input).err().unwrap_or_default();
            assert_eq!(found, expected, "{name} {input}");
        }
    }
}
