//! A run that dies after each of its durable writes, one after the other, and is resumed: nothing twice, nothing lost.

use crate::{
    run::squad,
    support::{Normal, World, commands_of, kill, kill_helpers, wait_for, wait_until_no_helper},
};
use adj_testkit::{GitRepository, git_repository};
use rustix::process::Signal;
use std::process::Stdio;

/// No delays. What a shell call does twice shows in the trees, in the outputs and in the gate.
const PLAYBOOK: &str = r#"
rules:
  - when: { agent: planner, turn: 1, step: 0 }
    calls: [{ tool: read, input: { file_path: seed.txt } }]
    usage: { input: 100, output: 10 }
  - { when: { agent: planner, input: "(?s)(?P<seen>.*)" }, say: "the plan after {{seen}}", usage: { input: 10, output: 1 } }
  - { when: { agent: researcher }, say: the research, usage: { input: 10, output: 1 } }
  - { when: { agent: builder, turn: 1 }, say: three specialists, usage: { input: 10, output: 1 } }
  - when: { agent: builder, turn: 2 }
    usage: { input: 10, output: 1 }
    json:
      specialists:
        - { id: a, title: Part a, task: Append to the logs of a, check: test -s a2.log }
        - { id: b, title: Part b, task: Append to the logs of b, check: grep -q fixed b1.log }
        - { id: c, title: Part c, task: Collect, depends_on: [a, b] }
  - when: { agent: a, step: 0 }
    usage: { input: 10, output: 1 }
    calls:
      - { tool: bash, input: { command: "echo one >> a1.log" } }
      - { tool: bash, input: { command: "echo two >> a2.log" } }
      - { tool: write, input: { file_path: a.txt, content: "a\n" } }
  - when: { agent: a, step: 1 }
    usage: { input: 10, output: 1 }
    calls: [{ tool: bash, input: { command: "echo three >> a1.log; wc -l < a1.log" } }]
  - { when: { agent: a, input: "(?s)(?P<seen>.*)" }, say: "a saw {{seen}}", usage: { input: 10, output: 1 } }
  - when: { agent: b, turn: 1, step: 0 }
    usage: { input: 10, output: 1 }
    calls:
      - { tool: bash, input: { command: "echo one >> b1.log" } }
      - { tool: bash, input: { command: "echo two >> b2.log" } }
  - when: { agent: b, turn: 2, step: 0 }
    usage: { input: 10, output: 1 }
    calls: [{ tool: bash, input: { command: "echo fixed >> b1.log; wc -l < b1.log" } }]
  - { when: { agent: b, input: "(?s)(?P<seen>.*)" }, say: "b saw {{seen}}", usage: { input: 10, output: 1 } }
  - when: { agent: c, step: 0 }
    usage: { input: 10, output: 1 }
    calls: [{ tool: bash, input: { command: "cat a1.log a2.log b1.log b2.log >> c.log; bash test.sh && echo good" } }]
  - { when: { agent: c, input: "(?s)(?P<seen>.*)" }, say: "c saw {{seen}}", usage: { input: 10, output: 1 } }
"#;

const TEST: &str = "set -e
for pair in a1:2 a2:1 b1:2 b2:1 c:6; do
  found=$(wc -l < ${pair%:*}.log)
  test $found = ${pair#*:} || { echo \"${pair%:*}.log has $found lines\"; exit 1; }
done
";

const RUN: [&str; 2] = ["run", "Append to the logs"];

fn repository() -> GitRepository {
    git_repository(&[("seed.txt", "seed\n"), ("test.sh", TEST)])
}

/// What is there when a run is over.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    tree: String,
    status: String,
    branches: String,
    normal: Normal,
}

fn outcome(world: &World, repository: &GitRepository, run: &str) -> Outcome {
    world.verify();
    wait_until_no_helper(&world.state());
    Outcome {
        tree: repository.git(&["rev-parse", "main^{tree}"]),
        status: repository.git(&["status", "--porcelain"]),
        branches: repository.git(&["for-each-ref", "--format=%(refname)", "refs/heads"]),
        normal: Normal::of(world, run, repository.path()),
    }
}

fn uninterrupted() -> Outcome {
    let (world, repository) = (World::playing(PLAYBOOK), repository());
    world.run(repository.path(), &RUN).exits(0);
    let outcome = outcome(&world, &repository, &world.only_run().0);
    assert_eq!((outcome.status.as_str(), outcome.branches.as_str()), ("", "refs/heads/main"));
    assert_eq!(outcome.normal.sessions.len(), 6);
    outcome
}

/// Resumes until the run is over. One that died after its last event is over already, and says so.
fn resume(world: &World, repository: &GitRepository, run: &str) {
    let resumed = world.run(repository.path(), &["run", "--resume", run]);
    match resumed.code {
        Some(2) => assert!(resumed.err.contains("is finished: Landed on main"), "{resumed}"),
        _ => assert_eq!(resumed.code, Some(0), "{resumed}"),
    }
}

/// Crashes after every `step`-th write from `first` on, until a run comes to its end before its crash.
fn crash_after_every(first: u32, step: u32) {
    let expected = uninterrupted();
    let first_tree = repository().git(&["rev-parse", "main"]);
    let mut writes = first;
    loop {
        let (world, repository) = (World::playing(PLAYBOOK), repository());
        let crashed = world.run_crashing(repository.path(), &RUN, writes);
        if !crashed.was_killed() {
            crashed.exits(0);
            assert_eq!(outcome(&world, &repository, &world.only_run().0), expected);
            assert!(writes > 100, "a run has many writes, and only {writes} were seen");
            return;
        }
        let (run, events) = world.only_run();
        if events == 0 {
            // Nothing of the run was remembered, so there is nothing to go on from, and nothing has happened.
            let resumed = world.run(repository.path(), &["run", "--resume", &run]).exits(2);
            assert!(resumed.err.starts_with(&format!("error: there is no run {run}\n")), "{resumed}");
            assert_eq!(repository.git(&["rev-parse", "main"]), first_tree);
            assert_eq!(repository.git(&["status", "--porcelain"]), "");
            wait_until_no_helper(&world.state());
        } else {
            // Every third crash is followed by one of the resumed process.
            if writes.is_multiple_of(3) {
                world.run_crashing(repository.path(), &["run", "--resume", &run], 1 + writes % 11);
            }
            resume(&world, &repository, &run);
            assert_eq!(outcome(&world, &repository, &run), expected, "after a crash behind write {writes}");
        }
        writes += step;
    }
}

#[test]
fn after_each_write_of_the_first_quarter() {
    crash_after_every(1, 4);
}

#[test]
fn after_each_write_of_the_second_quarter() {
    crash_after_every(2, 4);
}

#[test]
fn after_each_write_of_the_third_quarter() {
    crash_after_every(3, 4);
}

#[test]
fn after_each_write_of_the_fourth_quarter() {
    crash_after_every(4, 4);
}

/// A call of a specialist is under way when the run dies with all of its supervisors.
#[test]
fn with_the_supervisors_killed_too_a_call_is_not_run_again() {
    let rules = "  - when: { agent: a, step: 0 }
    calls: [{ tool: bash, input: { command: \"echo begun >> a.log; sleep 600\" } }]
  - { when: { agent: a, tool_failed: true, input: \"(?s)(?P<seen>.*)\" }, say: \"told: {{seen}}\" }
";
    let world = World::playing(&squad("{ id: a, title: Part a, task: Write a }", rules));
    let repository = repository();
    let words = ["run", "Write a", "--gate", "test $(wc -l < a.log) = 1"];
    let mut command = world.command(repository.path(), words);
    let mut running = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the binary can be started");
    wait_for("the command to begin", || {
        commands_of(&world.state()).iter().any(|command| command == "sleep 600").then_some(())
    });
    kill(running.id() as i32, Signal::KILL);
    running.wait().expect("a killed process can be waited for");
    assert!(kill_helpers(&world.state()) > 0, "the supervisor outlived its caller");
    let (run, _) = world.only_run();
    world.run(repository.path(), &["run", "--resume", &run]).exits(0);
    let outcome = outcome(&world, &repository, &run);
    assert_eq!(repository.git(&["show", "main:a.log"]), "begun");
    assert_eq!((outcome.status.as_str(), outcome.branches.as_str()), ("", "refs/heads/main"));
    let told = outcome.normal.sessions["a"].iter().any(|line| line.contains("told: It is not known whether this call"));
    assert!(told, "{:?}", outcome.normal.sessions["a"]);
}
