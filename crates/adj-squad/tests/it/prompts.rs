//! What is said to the members of a run, word for word.

use crate::world::{World, blueprint, name, spec};
use adj_squad::Action;

/// Plays a run in which everything goes wrong once, and writes down every prompt.
#[test]
fn the_words_that_agents_are_told() {
    let spec = adj_domain::RunSpec {
        core: adj_squad::core_agents(3),
        prompt: "Count the words of a file.".to_owned(),
        ..spec()
    };
    let mut world = World::new(spec);
    let mut said = String::new();
    loop {
        world.go();
        let Some(action) = world.at_work.first().cloned() else { break };
        if let Action::Turn { prompt, schema, .. } = &action {
            let schema = if schema.is_some() { " (with a schema)" } else { "" };
            said.push_str(&format!("=== {}{schema}\n{}\n\n", name(&action), prompt.text));
        }
        let result = match name(&action).as_str() {
            "turn builder follow-up" => Ok(blueprint("a:b b:a")),
            "turn builder repair" => Ok(blueprint("parse count:parse")),
            "gate parse 1" => Err("test 1 failed\n".to_owned()),
            other => Ok(format!("[what came of: {other}]")),
        };
        world.end(&action, result.as_deref().map_err(String::as_str));
    }
    assert!(world.story().starts_with("landed"), "{}", world.story());
    insta::assert_snapshot!(said);
}
