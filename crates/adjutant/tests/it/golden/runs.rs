//! Progress in a pipe, and what a run came to.

use super::stable;
use crate::{
    run::{does, squad},
    support::World,
};
use adj_testkit::{GitRepository, git_repository};

/// Progress by agent, in the order of their appearance: parallel agents have no order among each other, and neither have
/// the parallel calls of those that only read.
fn by_agent(progress: &str) -> String {
    let mut agents: Vec<(String, Vec<String>)> = Vec::new();
    for line in progress.lines() {
        let who: String = line.chars().skip(2).take(12).collect();
        let who = if who.trim().is_empty() { agents.last().expect("somebody spoke before").0.clone() } else { who };
        match agents.iter_mut().find(|(known, _)| *known == who) {
            Some((_, lines)) => lines.push(line.to_owned()),
            None => agents.push((who, vec![line.to_owned()])),
        }
    }
    for (who, lines) in &mut agents {
        if matches!(who.trim(), "planner" | "researcher") {
            lines.chunk_by_mut(|a, b| a.starts_with("  ") && b.starts_with("  ")).for_each(<[String]>::sort);
        }
    }
    agents.into_iter().flat_map(|(_, lines)| lines).map(|line| line + "\n").collect()
}

#[test]
fn the_demo() {
    let world = World::new();
    // One at a time, so that the sessions are listed in the same order always.
    let done = world.run(world.home.path(), &["run", "--demo", "--agents", "1"]).exits(0);
    insta::assert_snapshot!("demo_progress", by_agent(&stable(&world, &done.err)));
    insta::assert_snapshot!("demo_report", stable(&world, &done.out));
    insta::assert_snapshot!("demo_list", stable(&world, &world.trace(&["list"]).exits(0).out));
}

fn one() -> (World, GitRepository) {
    let world = World::playing(&squad("{ id: a, title: Part a, task: Write a }", &does("a", "echo a > a.txt")));
    (world, git_repository(&[("seed.txt", "seed\n")]))
}

#[test]
fn a_report_for_programs() {
    let (world, repository) = one();
    let done =
        world.run(repository.path(), &["run", "Do it", "--gate", "cat a.txt || cat seed.txt", "--json"]).exits(0);
    assert_eq!(done.err, "", "programs read one stream");
    let lines = done.lines();
    let (report, events) = lines.split_last().expect("there is a report");
    assert!(events.iter().all(|event| event["log"].is_string()), "what is before the report are events");
    let text = serde_json::to_string_pretty(report).expect("a report is JSON");
    insta::assert_snapshot!(stable(&world, &text));
}

#[test]
fn a_run_that_fails_its_gate() {
    let (world, repository) = one();
    let gate = "echo looking for b; test -e b.txt";
    let done = world.run(repository.path(), &["run", "Do it", "--gate", gate, "--attempts", "1"]).exits(1);
    insta::assert_snapshot!(stable(&world, &format!("{}{}", done.err, done.out)));
}

#[test]
fn a_run_on_uncommitted_changes() {
    let (world, repository) = one();
    repository.write("seed.txt", "mine\n");
    let done = world.run(repository.path(), &["run", "Do it", "--no-gate", "--include-dirty"]).exits(0);
    insta::assert_snapshot!(stable(&world, &format!("{}{}", done.err, done.out)));
}

#[test]
fn a_run_without_a_usable_answer() {
    let world = World::playing("rules:\n  - { when: { agent: planner }, say: noted }\n");
    let repository = git_repository(&[("seed.txt", "seed\n")]);
    let done = world.run(repository.path(), &["run", "Do it", "--gate", "true"]).exits(1);
    insta::assert_snapshot!(stable(&world, &format!("{}{}", done.err, done.out)));
}

#[test]
fn parts_that_do_not_merge() {
    let rules = [does("a", "echo a > same.txt"), does("b", "echo b > same.txt")].concat();
    let parts = "{ id: a, title: Part a, task: Write a }\n{ id: b, title: Part b, task: Write b }";
    let world = World::playing(&squad(parts, &rules));
    let repository = git_repository(&[("seed.txt", "seed\n")]);
    let done = world.run(repository.path(), &["run", "Do it", "--gate", "true"]).exits(1);
    insta::assert_snapshot!(stable(&world, &done.out));
}
