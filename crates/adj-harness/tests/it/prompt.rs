//! The system prompts, word for word.

use adj_domain::{PromptPart, SandboxMode};
use adj_harness::{EnvironmentFacts, Instructions, assemble};

#[test]
fn the_words_that_agents_are_given() {
    let mut all = String::new();
    for role in ["planner", "researcher", "builder", "specialist", "agent"] {
        let facts = EnvironmentFacts {
            workspace: "/workspace".to_owned(),
            sandbox: if role == "specialist" { SandboxMode::WorkspaceWrite } else { SandboxMode::ReadOnly },
            platform: "Linux x86_64".to_owned(),
            check: (role == "specialist").then(|| "make test".to_owned()),
        };
        let instructions = [Instructions { path: "AGENTS.md".to_owned(), text: "Use tabs.".to_owned() }];
        for PromptPart { name, version, text } in assemble(role, &facts, &instructions) {
            all.push_str(&format!("=== {role}: {name} ({version})\n{text}\n\n"));
        }
    }
    insta::assert_snapshot!(all);
}
