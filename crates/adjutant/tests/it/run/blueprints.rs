//! Blueprints that cannot be carried out: the builder is told once, then the run stops with the errors.

use super::{assert_untouched, does};
use crate::support::{Done, World, wait_until_no_helper};
use adj_testkit::{GitRepository, git_repository};

/// What the builder answers: its second turn, that turn's second try, and its third turn.
fn playbook(follow_up: &str, again: &str, repair: &str) -> String {
    format!(
        "rules:
  - {{ when: {{ agent: [planner, researcher] }}, say: noted }}
  - {{ when: {{ agent: builder, turn: 1 }}, say: the work is cut }}
  - {{ when: {{ agent: builder, turn: 2, step: 0 }}, say: '{follow_up}' }}
  - {{ when: {{ agent: builder, turn: 2, step: 1 }}, say: '{again}' }}
  - {{ when: {{ agent: builder, turn: 3, step: 0, input: cannot be carried out }}, say: '{repair}' }}
{}",
        does("a", "echo a > a.txt")
    )
}

const GOOD: &str = r#"{"specialists":[{"id":"a","title":"Part a","task":"Write a"}]}"#;
const NO_TASK: &str = r#"{"specialists":[{"id":"a","title":"Part a"}]}"#;
const CYCLE: &str = r#"{"specialists":[{"id":"a","title":"A","task":"a","depends_on":["b"]},{"id":"b","title":"B","task":"b","depends_on":["a"]}]}"#;
const OURS: &str = r#"{"specialists":[{"id":"planner","title":"A","task":"a"}]}"#;
const MANY: &str = r#"{"specialists":[{"id":"a","title":"A","task":"a"},{"id":"b","title":"B","task":"b"}]}"#;

fn run(playbook: &str) -> (World, GitRepository, Done) {
    let (world, repository) = (World::playing(playbook), git_repository(&[]));
    let words = ["run", "Do it", "--gate", "true", "--max-specialists", "2"];
    let done = world.run(repository.path(), &words);
    wait_until_no_helper(&world.state());
    world.verify();
    (world, repository, done)
}

#[test]
fn a_builder_that_mends_its_blueprint_is_followed() {
    let cases = [
        playbook(NO_TASK, GOOD, ""),
        playbook("Here it is: a, then b.", GOOD, ""),
        playbook(CYCLE, "", GOOD),
        playbook(NO_TASK, CYCLE, GOOD),
        playbook(&format!("```json\n\n{GOOD}\n\n```"), "", ""),
    ];
    for playbook in cases {
        let (_world, repository, done) = run(&playbook);
        assert_eq!(done.code, Some(0), "{playbook}\n{done}");
        assert_eq!(repository.git(&["show", "main:a.txt"]), "a", "{playbook}");
    }
}

#[test]
fn a_builder_that_does_not_ends_the_run_with_the_errors() {
    let cases = [
        (playbook(NO_TASK, NO_TASK, ""), "builder failed (the answer did not fit its schema, twice: ", "\"task\""),
        (
            playbook("a, then b", "b, then a", ""),
            "builder failed (the answer did not fit its schema, twice: ",
            "not JSON",
        ),
        (
            playbook(CYCLE, "", CYCLE),
            "the blueprint cannot be carried out (",
            "these specialists wait for each other: a, b",
        ),
        (
            playbook(OURS, "", OURS),
            "the blueprint cannot be carried out (",
            "the name \"planner\" belongs to the squad itself",
        ),
    ];
    for (playbook, outcome, error) in cases {
        let (world, repository, done) = run(&playbook);
        assert_eq!(done.code, Some(1), "{playbook}\n{done}");
        assert!(done.out.starts_with(&format!("\nNot landed: {outcome}")), "{playbook}\n{done}");
        assert!(done.out.contains(error), "{playbook}\n{done}");
        assert_untouched(&repository);
        let agents = world.list().into_iter().filter(|log| log["parent"].is_string()).count();
        assert_eq!(agents, 3, "no specialist was started: {playbook}");
    }
}

#[test]
fn more_specialists_than_allowed_are_sent_back() {
    let (world, repository) = (World::playing(&playbook(MANY, GOOD, "")), git_repository(&[]));
    world.run(repository.path(), &["run", "Do it", "--gate", "true", "--max-specialists", "1"]).exits(0);
    assert_eq!(repository.git(&["show", "main:a.txt"]), "a");
}
