//! A run whose agents have to ask, and a run whose agents may less.

use super::{assert_untouched, does, squad};
use crate::{
    approvals::{approvals, events},
    support::{World, wait_for, wait_until_no_helper},
};
use adj_testkit::git_repository;
use serde_json::Value;
use std::process::Stdio;

const A: &str = "{ id: a, title: Part a, task: Write a }";

fn open_questions(world: &World) -> Vec<Value> {
    let listed = approvals(world, &["list", "--json"]);
    if listed.code == Some(0) { listed.lines() } else { Vec::new() }
}

#[test]
fn a_run_waits_for_its_answers_also_over_kill_9() {
    let world = World::playing(&squad(A, &does("a", "echo good >> a.txt")));
    let repository = git_repository(&[("seed.txt", "seed\n")]);
    let run = ["run", "Do it", "--gate", "test \"$(cat a.txt)\" = good", "--approval", "untrusted"];
    let start = |words: &[&str]| {
        let mut command = world.command(repository.path(), words);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the binary can be started")
    };
    let mut first = start(&run);
    let question = wait_for("the question", || open_questions(&world).pop());
    assert_eq!(question["agent"], "a", "{question}");
    first.kill().expect("it is there");
    first.wait().expect("it is ours");
    // The question stands, whoever died; the process that goes on waits for its answer.
    assert_eq!(open_questions(&world).len(), 1);
    assert_untouched(&repository);
    let run = world.only_run().0;
    let mut second = start(&["run", "--resume", &run]);
    wait_for("the process that goes on", || open_questions(&world).pop().filter(|open| open["process"].is_u64()));
    let (id, session) = (question["id"].as_str().expect("an id"), question["session"].as_str().expect("an id"));
    approvals(&world, &["allow", id]).exits(0);
    assert!(second.wait().expect("it is ours").success());
    assert_eq!(repository.git(&["show", "main:a.txt"]), "good", "it ran once");
    assert_eq!(events(&world, session, "tool.started"), 1);
    wait_until_no_helper(&world.state());
    world.verify();
}

#[test]
fn a_run_is_no_more_than_policy_permits_and_asks_nobody_unless_told_to() {
    let world = World::playing(&squad(A, &does("a", "echo good > a.txt")));
    let repository = git_repository(&[("seed.txt", "seed\n")]);
    let run = |words: &[&str]| {
        world.run(repository.path(), &[&["run", "Do it", "--gate", "test -e a.txt", "--attempts", "1"], words].concat())
    };
    world.settings("policy.toml", "allowed_sandbox_modes = [\"read-only\", \"workspace-write\"]\n");
    let refused = run(&["--sandbox", "danger-full-access"]).exits(2);
    assert!(refused.err.contains("policy.toml:1"), "{refused}");
    world.settings("policy.toml", "[tools]\nbash = \"always_ask\"\n");
    // Nobody is there to be asked, so the call is denied and the work goes on without it.
    let done = run(&[]).exits(1);
    assert!(done.err.contains("refused: approval policy never: tools.bash"), "{done}");
    assert_untouched(&repository);
    world.verify();
}

#[test]
fn a_check_sees_no_more_than_the_agents_do() {
    let world = World::playing(&squad(A, &does("a", "echo good > a.txt")));
    let repository = git_repository(&[("seed.txt", "seed\n"), ("keys/prod.pem", "secret\n")]);
    world.settings("policy.toml", "[filesystem]\nhidden = [\"keys/**\"]\n[limits]\nwall = \"30s\"\n");
    let run = |gate: &str| world.run(repository.path(), &["run", "Do it", "--gate", gate, "--attempts", "1"]);
    let refused = run("cat keys/prod.pem").exits(1);
    assert!(refused.out.contains("Permission denied"), "{refused}");
    assert_untouched(&repository);
    // A longer time than policy's is no longer time.
    let done = world.run(repository.path(), &["run", "Do it", "--gate", "test -e a.txt", "--gate-timeout", "3600"]);
    done.exits(0);
}
