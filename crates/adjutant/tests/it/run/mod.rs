//! `adjutant run` with playbooks, in repositories like those of users.

mod blueprints;
mod dirty;
mod gates;
mod hostile;
mod questions;

use crate::support::World;
use adj_testkit::GitRepository;

/// A playbook of a squad: the specialists as YAML, one a line, and the rules of what they do.
pub fn squad(specialists: &str, rules: &str) -> String {
    let specialists: String = specialists.trim().lines().map(|line| format!("        - {}\n", line.trim())).collect();
    format!(
        "rules:
  - {{ when: {{ agent: [planner, researcher] }}, say: noted }}
  - {{ when: {{ agent: builder, turn: 1 }}, say: the work is cut }}
  - when: {{ agent: builder, turn: 2 }}
    json:
      specialists:
{specialists}
{rules}"
    )
}

/// The rules of a specialist that runs one command and is done.
pub fn does(agent: &str, command: &str) -> String {
    let command = serde_json::to_string(command).expect("a text is JSON");
    format!(
        "  - when: {{ agent: {agent}, turn: 1, step: 0 }}
    calls: [{{ tool: bash, input: {{ command: {command} }} }}]
  - {{ when: {{ agent: {agent}, step: 1, input: \"(?s)(?P<seen>.*)\" }}, say: \"{agent} saw {{{{seen}}}}\" }}
"
    )
}

/// The branches besides `main`, without the run's own part of their names.
pub fn kept(world: &World, repository: &GitRepository) -> Vec<String> {
    let run = world.only_run().0;
    let prefix = format!("adjutant/{}/", run.trim_start_matches("run_"));
    let names = repository.git(&["for-each-ref", "--format=%(refname:short)", "refs/heads"]);
    let others = names.lines().filter(|name| *name != "main");
    others
        .map(|name| name.strip_prefix(&prefix).unwrap_or_else(|| panic!("a strange branch: {name}")).to_owned())
        .collect()
}

/// The branch and the tree of the user are as they were.
#[track_caller]
pub fn assert_untouched(repository: &GitRepository) {
    assert_eq!(repository.git(&["log", "--format=%s", "main"]), "first");
    assert_eq!(repository.git(&["status", "--porcelain"]), "");
}
