//! From the text of a file to its rules, whatever the text holds.

use super::{Fault, RuleSet, evaluate, shape};
use starlark::syntax::{AstModule, Dialect};
use std::thread;

/// Enough for the deepest text that its shape lets through, also in a build without optimisations.
const STACK_BYTES: usize = 128 * 1024 * 1024;

pub(super) fn load(text: &str) -> Result<RuleSet, Fault> {
    shape::check(text)?;
    thread::scope(|scope| {
        let reader = thread::Builder::new().name("rules".to_owned()).stack_size(STACK_BYTES);
        let reader = reader.spawn_scoped(scope, || read(text));
        let outcome = reader.map(|reader| reader.join());
        match outcome {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(Fault::new(0, "the file cannot be read")),
            Err(error) => Err(Fault::new(0, format!("no thread can be started to read the file: {error}"))),
        }
    })
}

fn read(text: &str) -> Result<RuleSet, Fault> {
    // As in Codex; what the language can do beyond declaring rules is refused when it is evaluated.
    let dialect = Dialect {
        enable_load: false,
        enable_keyword_only_arguments: true,
        enable_top_level_stmt: true,
        enable_f_strings: true,
        ..Dialect::Standard
    };
    match AstModule::parse("rules", text.to_owned(), &dialect) {
        Ok(module) => evaluate::evaluate(module.statement(), text),
        Err(error) => {
            let at = error.span().map_or(0, |span| span.span.begin().get() as usize);
            let message = error.without_diagnostic().to_string();
            let first_line = message.lines().next().unwrap_or_default();
            let problem = first_line.strip_prefix("Parse error: ").unwrap_or(first_line);
            let visible = |character: char| if character.is_control() { '\u{fffd}' } else { character };
            Err(Fault::new(at, problem.chars().take(200).map(visible).collect::<String>()))
        }
    }
}
