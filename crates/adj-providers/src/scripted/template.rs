//! `{{name}}` in a playbook: what a rule's patterns caught, put into its answer.

use regex::{Captures, Regex};
use std::{collections::BTreeMap, sync::LazyLock};

/// `{{word}}`, and `\{{word}}` for the thing itself.
static REFERENCE: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"\\?\{\{([A-Za-z0-9_]+)\}\}").expect("the pattern is a constant"));

/// What was caught, by number and by name.
pub(super) type Caught = BTreeMap<String, String>;

/// Returns what a pattern can catch.
pub(super) fn names_of(pattern: &Regex, with_numbers: bool) -> Vec<String> {
    let mut names = Vec::new();
    for (number, name) in pattern.capture_names().enumerate() {
        if with_numbers {
            names.push(number.to_string());
        }
        names.extend(name.map(str::to_owned));
    }
    names
}

/// Adds what a pattern caught.
pub(super) fn catch(caught: &mut Caught, pattern: &Regex, found: &Captures<'_>, with_numbers: bool) {
    for (number, name) in pattern.capture_names().enumerate() {
        let text = found.get(number).map_or("", |group| group.as_str());
        if with_numbers {
            caught.insert(number.to_string(), text.to_owned());
        }
        if let Some(name) = name {
            caught.insert(name.to_owned(), text.to_owned());
        }
    }
}

/// Returns the first reference to something that the rule's patterns cannot catch.
pub(super) fn unknown_reference(text: &str, known: &[String]) -> Option<String> {
    REFERENCE
        .captures_iter(text)
        .filter(|reference| !reference[0].starts_with('\\'))
        .map(|reference| reference[1].to_owned())
        .find(|name| !known.contains(name))
}

pub(super) fn fill(text: &str, caught: &Caught) -> String {
    let filled = REFERENCE.replace_all(text, |reference: &Captures<'_>| match reference[0].strip_prefix('\\') {
        Some(literal) => literal.to_owned(),
        None => caught.get(&reference[1]).cloned().unwrap_or_default(),
    });
    filled.into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_filled_and_everything_else_is_left_alone() {
        let pattern = Regex::new("fix (?P<file>[a-z.]+)(!)?").unwrap();
        let found = pattern.captures("please fix main.rs now").unwrap();
        let mut caught = Caught::new();
        catch(&mut caught, &pattern, &found, true);
        let cases = [
            ("{{file}} {{1}} {{0}} [{{2}}]", "main.rs main.rs fix main.rs []"),
            (r"\{{file}} and {{ file }} and {file} and ${{ x }}", "{{file}} and {{ file }} and {file} and ${{ x }}"),
            ("{{{file}}}", "{{{file}}}".replace("{{file}}", "main.rs").as_str()),
        ]
        .map(|(text, expected)| (text, expected.to_owned()));
        for (text, expected) in cases {
            assert_eq!(fill(text, &caught), expected, "{text}");
        }
        let known = names_of(&pattern, true);
        assert_eq!(known, ["0", "1", "file", "2"]);
        assert_eq!(unknown_reference("{{file}} {{3}}", &known), Some("3".to_owned()));
        assert_eq!(unknown_reference(r"{{0}} \{{nothing}}", &known), None);
    }
}
