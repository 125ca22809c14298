//! What does not pass, or does not merge, does not land; and is not lost.

use super::{assert_untouched, does, kept, squad};
use crate::support::{Done, World, wait_until_no_helper};
use adj_testkit::{GitRepository, git_repository};
use std::{fs, process::Stdio};

const A: &str = "{ id: a, title: Part a, task: Write a }";
const A_AND_B: &str = "{ id: a, title: Part a, task: Write a }
                       { id: b, title: Part b, task: Write b }";

fn run(world: &World, repository: &GitRepository, words: &[&str]) -> Done {
    let done = world.run(repository.path(), &[&["run", "Do it"], words].concat());
    wait_until_no_helper(&world.state());
    world.verify();
    done
}

#[test]
fn a_result_that_does_not_pass_stays_on_its_branch() {
    let world = World::playing(&squad(A, &does("a", "echo bad > bad.txt; echo good > good.txt")));
    let repository = git_repository(&[("seed.txt", "seed\n")]);
    let gate = "echo 'bad.txt is not wanted'; test ! -e bad.txt";
    let done = run(&world, &repository, &["--gate", gate, "--attempts", "1"]).exits(1);
    assert!(done.out.starts_with("\nNot landed: the gate failed on a\n"), "{done}");
    assert!(done.out.contains("bad.txt is not wanted"), "the end of the output is shown: {done}");
    assert_untouched(&repository);
    assert_eq!(kept(&world, &repository), ["a"]);
    let branch = repository.git(&["for-each-ref", "--format=%(refname)", "refs/heads/adjutant"]);
    assert_eq!(repository.git(&["ls-tree", "--name-only", &branch]), "bad.txt\ngood.txt\nseed.txt");
    assert!(done.out.contains(&format!("Kept      branch {}", branch.trim_start_matches("refs/heads/"))), "{done}");
}

#[test]
fn a_specialist_is_told_what_its_check_said_and_tries_again() {
    let second = "  - when: { agent: a, turn: 2, step: 0, input: \"(?s)exit code 7.*the sum is wrong\" }
    calls: [{ tool: bash, input: { command: \"echo right > sum.txt\" } }]
";
    let world = World::playing(&squad(A, &format!("{second}{}", does("a", "echo wrong > sum.txt"))));
    let repository = git_repository(&[]);
    let gate = "grep -q right sum.txt || { echo the sum is wrong; exit 7; }";
    run(&world, &repository, &["--gate", gate]).exits(0);
    assert_eq!(repository.git(&["show", "main:sum.txt"]), "right");
    assert_eq!(repository.git(&["status", "--porcelain"]), "");
}

#[test]
fn parts_that_only_fail_together_do_not_land() {
    let rules = does("a", "echo a > a.txt") + &does("b", "echo b > b.txt");
    let world = World::playing(&squad(A_AND_B, &rules));
    let repository = git_repository(&[]);
    let done = run(&world, &repository, &["--gate", "! test -e a.txt || ! test -e b.txt"]).exits(1);
    assert!(done.out.starts_with("\nNot landed: the gate failed on combined tree\n"), "{done}");
    assert_untouched(&repository);
    assert_eq!(kept(&world, &repository), ["a", "b", "combined"]);
}

#[test]
fn parts_that_conflict_do_not_land() {
    let rules = does("a", "echo from a > same.txt") + &does("b", "echo from b > same.txt");
    let world = World::playing(&squad(A_AND_B, &rules));
    let repository = git_repository(&[("same.txt", "from the start\n")]);
    let done = run(&world, &repository, &["--gate", "true"]).exits(1);
    assert!(done.out.starts_with("\nNot landed: b does not merge (same.txt)\n"), "{done}");
    assert_untouched(&repository);
    assert_eq!(kept(&world, &repository), ["a", "b", "combined"]);
}

#[test]
fn a_branch_that_has_moved_on_is_left_alone() {
    let world = World::playing(&squad(A, &does("a", "sleep 2; echo a > a.txt")));
    let repository = git_repository(&[]);
    let mut command = world.command(repository.path(), ["run", "Do it", "--gate", "true"]);
    let running = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary can be started");
    world.wait_for_call("sleep 2");
    repository.write("mine.txt", "mine\n");
    repository.git(&["add", "--all"]);
    repository.git(&["commit", "--quiet", "--message=mine"]);
    let done = Done::of(running.wait_with_output().expect("the run ends")).exits(1);
    assert!(done.out.starts_with("\nNot landed: "), "{done}");
    assert_eq!(repository.git(&["log", "--format=%s", "main"]), "mine\nfirst");
    assert_eq!(repository.git(&["status", "--porcelain"]), "");
    assert_eq!(kept(&world, &repository), ["a", "combined"]);
}

#[test]
fn what_the_user_changes_during_a_run_is_never_overwritten() {
    let world = World::playing(&squad(A, &does("a", "sleep 2; echo from a > file.txt")));
    let repository = git_repository(&[("file.txt", "old\n"), ("other.txt", "old\n")]);
    let mut command = world.command(repository.path(), ["run", "Do it", "--gate", "true"]);
    let running = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary can be started");
    world.wait_for_call("sleep 2");
    repository.write("file.txt", "from the user\n");
    let done = Done::of(running.wait_with_output().expect("the run ends")).exits(1);
    assert!(done.out.starts_with("\nNot landed: "), "{done}");
    assert!(done.out.contains("file.txt"), "{done}");
    let mine = fs::read_to_string(repository.path().join("file.txt")).expect("the file is there");
    assert_eq!(mine, "from the user\n");
    assert_eq!(repository.git(&["log", "--format=%s", "main"]), "first");
    assert_eq!(kept(&world, &repository), ["a", "combined"]);
}

#[test]
fn workspaces_stay_only_when_they_are_wanted() {
    for (words, expected) in [(&["--gate", "true"][..], false), (&["--gate", "true", "--keep"][..], true)] {
        let world = World::playing(&squad(A, &does("a", "echo a > a.txt")));
        let repository = git_repository(&[]);
        run(&world, &repository, words).exits(0);
        let mut entries = fs::read_dir(world.state().join("workspaces")).expect("there is a folder for them");
        let found = entries.any(|entry| entry.expect("an entry").file_name().to_string_lossy().ends_with("-a"));
        assert_eq!(found, expected, "{words:?}");
    }
}

#[test]
fn without_a_gate_work_lands_unchecked() {
    let world = World::playing(&squad(A, &does("a", "echo a > a.txt")));
    let repository = git_repository(&[]);
    let done = run(&world, &repository, &["--no-gate", "--json"]).exits(0);
    let report = done.lines().pop().expect("the report is the last line");
    assert_eq!((&report["type"], &report["combined"]), (&"run.report".into(), &serde_json::Value::Null));
    assert_eq!(repository.git(&["show", "main:a.txt"]), "a");
}

#[test]
fn a_run_works_without_a_sandbox_when_that_is_asked_for() {
    let rules = does("a", "echo a > a.txt; git status --short") + &does("b", "echo b > b.txt");
    let world = World::playing(&squad(A_AND_B, &rules));
    let repository = git_repository(&[("seed.txt", "seed\n")]);
    run(&world, &repository, &["--gate", "cat seed.txt", "--sandbox", "danger-full-access"]).exits(0);
    assert_eq!(repository.git(&["ls-tree", "--name-only", "main"]), "a.txt\nb.txt\nseed.txt");
    assert_eq!(repository.git(&["status", "--porcelain"]), "");
}

#[test]
fn a_step_without_an_answer_ends_the_run_and_can_be_explained() {
    let world = World::playing(&squad(A, ""));
    let repository = git_repository(&[]);
    let done = run(&world, &repository, &["--gate", "true"]).exits(1);
    assert!(done.out.starts_with("\nNot landed: a failed (no rule of the playbook "), "{done}");
    assert_untouched(&repository);
}
