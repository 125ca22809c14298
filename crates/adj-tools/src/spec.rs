//! What a model is told of the tools. Every word here is part of a prompt.

use crate::name::ToolName;
use adj_domain::ToolSpec;
use serde_json::{Value, json};

/// Describes the named tools to a model, in the order they are named.
pub fn specs(names: &[ToolName]) -> Vec<ToolSpec> {
    names
        .iter()
        .map(|&name| ToolSpec {
            name: name.as_str().to_owned(),
            description: description(name).to_owned(),
            input_schema: schema(name),
        })
        .collect()
}

fn description(name: ToolName) -> &'static str {
    match name {
        ToolName::Bash => {
            "Run a command in a bash shell that stays open between calls: the working folder, variables and functions are kept. \
             Returns stdout and stderr together, and the exit code when it is not 0. Standard input is empty, so pass answers \
             by flags. Shell options such as `set -e` hold for one call. A command that outlasts its timeout is killed together \
             with all its processes, and the shell starts afresh. Start servers in the background and send their output to a \
             file, as in `server > server.log 2>&1 &`."
        }
        ToolName::Read => {
            "Read a text file. Lines are numbered from 1, with a tab between number and text; the numbers are not part of the \
             file. Long files come in pieces: the note at the end says which view_range to ask for next."
        }
        ToolName::Write => {
            "Create a file, or replace the whole content of one. Missing folders are created. To change a part of a file, use \
             edit or apply_patch."
        }
        ToolName::Edit => {
            "Replace text in a file. old_string must be exactly what the file holds, with its indentation and without line \
             numbers, and must occur exactly once: add lines around it until it does, or set replace_all."
        }
        ToolName::Glob => {
            "List files whose path matches a pattern, the most recently changed first. `*` stays within one folder, `**/` spans \
             any depth, `{a,b}` gives alternatives: `src/**/*.rs`. Files that .gitignore excludes are left out."
        }
        ToolName::Grep => {
            "Search the lines of files with a regular expression (Rust syntax, no look-around). Answers with file:line:text. \
             Files that .gitignore excludes and binary files are left out."
        }
        ToolName::ApplyPatch => {
            "Change several places or files at once: either every part of the patch applies, or nothing is changed. Format:\n\
             *** Begin Patch\n\
             *** Update File: path/to/file\n\
             @@ a line above the change, such as the function's head\n \
             unchanged line\n\
             -line to remove\n\
             +line to add\n\
             *** Add File: path/to/new\n\
             +every line of it with a plus\n\
             *** Delete File: path/to/old\n\
             *** End Patch\n\
             `*** Move to: new/path` right after an Update File line renames the file. Give about three unchanged lines, each \
             with a leading space, before and after each change; start a further change in the same file with its own @@ line. \
             `*** End of File` after a change ties it to the end of the file."
        }
    }
}

pub(crate) fn schema(name: ToolName) -> Value {
    let file_path = || text("Path of the file, relative to the workspace or absolute inside it.");
    match name {
        ToolName::Bash => object(
            &[],
            &[
                ("command", text("The command; several lines are allowed.")),
                (
                    "restart",
                    flag(
                        "Kill everything that the shell started and open a new one, before the command if there is one.",
                    ),
                ),
                ("timeout_ms", number("How long the command may run, in milliseconds.", 1)),
            ],
        ),
        ToolName::Read => object(
            &["file_path"],
            &[
                ("file_path", file_path()),
                (
                    "view_range",
                    json!({
                        "type": "array",
                        "items": {"type": "integer"},
                        "minItems": 2,
                        "maxItems": 2,
                        "description": "First and last line to show, counted from 1; -1 as the last means the end of the file.",
                    }),
                ),
            ],
        ),
        ToolName::Write => object(
            &["file_path", "content"],
            &[("file_path", file_path()), ("content", text("The whole new content."))],
        ),
        ToolName::Edit => object(
            &["file_path", "old_string", "new_string"],
            &[
                ("file_path", file_path()),
                ("old_string", text("The text to replace.")),
                ("new_string", text("The text to put in its place; empty removes it.")),
                ("replace_all", flag("Replace every occurrence.")),
            ],
        ),
        ToolName::Glob => object(
            &["pattern"],
            &[
                ("pattern", text("The pattern, relative to path.")),
                ("path", text("Folder to search; the workspace if absent.")),
            ],
        ),
        ToolName::Grep => object(
            &["pattern"],
            &[
                ("pattern", text("The regular expression.")),
                ("path", text("File or folder to search; the workspace if absent.")),
                ("glob", text("Search only files whose path matches, such as `*.rs` or `src/**/*.ts`.")),
                ("ignore_case", flag("Treat upper and lower case alike.")),
                ("context", number("Lines to show before and after each match.", 0)),
                ("limit", number("The most matches to show (200 if absent).", 1)),
            ],
        ),
        ToolName::ApplyPatch => {
            object(&["patch"], &[("patch", text("The patch, from *** Begin Patch to *** End Patch."))])
        }
    }
}

fn object(required: &[&str], properties: &[(&str, Value)]) -> Value {
    let properties: serde_json::Map<String, Value> =
        properties.iter().map(|(name, schema)| ((*name).to_owned(), schema.clone())).collect();
    json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

fn text(description: &str) -> Value {
    json!({"type": "string", "description": description})
}

fn flag(description: &str) -> Value {
    json!({"type": "boolean", "description": description})
}

fn number(description: &str, minimum: u64) -> Value {
    json!({"type": "integer", "minimum": minimum, "description": description})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_told_exactly_this() {
        let mut told = String::new();
        for spec in specs(&ToolName::ALL) {
            let schema = serde_json::to_string_pretty(&spec.input_schema).expect("a schema is JSON");
            told.push_str(&format!("# {}\n{}\n{schema}\n\n", spec.name, spec.description));
        }
        insta::assert_snapshot!(told);
    }
}
