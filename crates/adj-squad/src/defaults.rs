//! The squad that works when nobody configured another: planner, researcher, builder.

use adj_domain::{Blueprint, CoreAgent, StepId};

/// The core agents, with two turns each: one to think, one to put the result into the form the next one needs.
pub fn core_agents(max_specialists: u32) -> Vec<CoreAgent> {
    let step = |name: &str| name.parse::<StepId>().expect("the built-in names are step names");
    vec![
        CoreAgent {
            step: step("planner"),
            role: "planner".to_owned(),
            plan_prompt:
                "The request:\n\n{prompt}\n\nLook at the repository as far as you need to, then write a plan: \
                          the goal in one sentence, the changes by file, how each will be shown to work, risks."
                    .to_owned(),
            follow_up_prompt: Some(
                "Give the final plan, and nothing else: numbered steps, each one line, with the files it touches."
                    .to_owned(),
            ),
            schema: None,
            depends_on: Vec::new(),
            model: None,
        },
        CoreAgent {
            step: step("researcher"),
            role: "researcher".to_owned(),
            plan_prompt:
                "The request:\n\n{prompt}\n\nThe plan:\n\n{planner}\n\nRead what the plan touches. Note how it \
                          works now, what tests exist and how they are run, and what the plan has overlooked."
                    .to_owned(),
            follow_up_prompt: Some(
                "Give a summary for the builder, and nothing else: facts with file and line, conventions to keep, \
                 corrections of the plan."
                    .to_owned(),
            ),
            schema: None,
            depends_on: vec![step("planner")],
            model: None,
        },
        CoreAgent {
            step: step("builder"),
            role: "builder".to_owned(),
            plan_prompt: format!(
                "The request:\n\n{{prompt}}\n\nThe plan:\n\n{{planner}}\n\nThe research:\n\n{{researcher}}\n\nCut the \
                 work into tasks for at most {max_specialists} specialists. Each works in a private copy, so two that \
                 run side by side must not change the same lines. Say who must wait for whom, and why."
            ),
            follow_up_prompt: Some(
                "Give the blueprint as one JSON value that fits the schema, and nothing else. A specialist sees only \
                 its own task, so put everything it has to know into it. Give `check` where the repository's whole \
                 test cannot pass before all parts are merged."
                    .to_owned(),
            ),
            schema: Some(Blueprint::schema(max_specialists)),
            depends_on: vec![step("planner"), step("researcher")],
            model: None,
        },
    ]
}
