//! Uncommitted changes: refused, or taken along with a way back.

use super::{assert_untouched, does, squad};
use crate::support::World;
use adj_testkit::{GitRepository, git_repository};
use std::fs;

const FILES: [(&str, &str); 3] = [("changed.txt", "old\n"), ("gone.txt", "old\n"), (".gitignore", "*.log\n")];

fn dirty_repository() -> GitRepository {
    let repository = git_repository(&FILES);
    repository.write("changed.txt", "changed by me\n");
    repository.write("staged.txt", "staged by me\n");
    repository.git(&["add", "staged.txt"]);
    repository.write("new folder/new.txt", "new of mine\n");
    repository.write("debug.log", "ignored\n");
    fs::remove_file(repository.path().join("gone.txt")).expect("the file was there");
    repository
}

fn world(command: &str) -> World {
    World::playing(&squad("{ id: a, title: Part a, task: Write a }", &does("a", command)))
}

#[test]
fn a_dirty_tree_is_refused() {
    let (world, repository) = (world("true"), dirty_repository());
    let before = repository.git(&["status", "--porcelain"]);
    let done = world.run(repository.path(), &["run", "Do it", "--gate", "true"]).exits(2);
    let text = "error: there are uncommitted changes: staged.txt (staged), changed.txt and 1 more (changed), new folder/ (new)\n\
                Hint: commit or stash them, or start from them too with --include-dirty\n";
    assert_eq!(done.err, text);
    assert_eq!(done.out, "");
    assert_eq!(repository.git(&["status", "--porcelain"]), before);
    assert_eq!(world.list().len(), 0, "there is no run");
    assert_eq!(repository.git(&["for-each-ref", "--format=%(refname)"]), "refs/heads/main");
}

#[test]
fn a_dirty_tree_can_be_the_start() {
    let see = "cat changed.txt staged.txt 'new folder/new.txt'; ls; echo a > a.txt; echo 'and by a' >> changed.txt";
    let (world, repository) = (world(see), dirty_repository());
    let gate = "grep -q 'changed by me' changed.txt && test ! -e gone.txt && test ! -e debug.log";
    let done = world.run(repository.path(), &["run", "Do it", "--gate", gate, "--include-dirty"]).exits(0);

    // The snapshot is named, and holds everything as it was.
    let line = done.out.lines().find_map(|line| line.strip_prefix("Snapshot  ")).unwrap_or_else(|| panic!("{done}"));
    let reference = line.strip_suffix(" (your uncommitted changes)").expect("the ref stands alone");
    let files = repository.git(&["ls-tree", "-r", "--name-only", reference]);
    assert_eq!(files, ".gitignore\nchanged.txt\nnew folder/new.txt\nstaged.txt");
    assert_eq!(repository.git(&["show", &format!("{reference}:changed.txt")]), "changed by me");

    // The work lands on top of it, and the tree shows both.
    assert_eq!(repository.git(&["status", "--porcelain"]), "");
    assert_eq!(repository.git(&["show", "main:changed.txt"]), "changed by me\nand by a");
    let text = fs::read_to_string(repository.path().join("changed.txt")).expect("the file is there");
    assert_eq!(text, "changed by me\nand by a\n");
    assert_eq!(repository.git(&["ls-files"]), ".gitignore\na.txt\nchanged.txt\nnew folder/new.txt\nstaged.txt");
    assert!(repository.path().join("debug.log").exists(), "what is ignored stays");
    assert!(!repository.path().join("gone.txt").exists());
    world.verify();
}

#[test]
fn dirty_work_that_does_not_land_stays_dirty() {
    let (world, repository) = (world("echo a > a.txt"), dirty_repository());
    let before = repository.git(&["status", "--porcelain", "--ignored"]);
    world.run(repository.path(), &["run", "Do it", "--gate", "false", "--include-dirty", "--attempts", "1"]).exits(1);
    assert_eq!(repository.git(&["status", "--porcelain", "--ignored"]), before);
    assert_eq!(repository.git(&["log", "--format=%s", "main"]), "first");
    let text = fs::read_to_string(repository.path().join("changed.txt")).expect("the file is there");
    assert_eq!(text, "changed by me\n");
}

/// What is changed while the run is under way belongs to the user, also on top of what was taken along.
#[test]
fn a_file_changed_again_after_the_snapshot_is_not_overwritten() {
    let (world, repository) = (world("sleep 2; echo 'by a' >> changed.txt"), dirty_repository());
    let mut command = world.command(repository.path(), ["run", "Do it", "--gate", "true", "--include-dirty"]);
    let running = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let running = running.spawn().expect("the binary can be started");
    world.wait_for_call("sleep 2");
    repository.write("changed.txt", "changed by me, twice\n");
    let done = crate::support::Done::of(running.wait_with_output().expect("the run ends")).exits(1);
    assert!(done.out.starts_with("\nNot landed: "), "{done}");
    let text = fs::read_to_string(repository.path().join("changed.txt")).expect("the file is there");
    assert_eq!(text, "changed by me, twice\n");
    assert_eq!(repository.git(&["log", "--format=%s", "main"]), "first");
}

#[test]
fn a_clean_tree_needs_no_snapshot() {
    let (world, repository) = (world("true"), git_repository(&FILES));
    let done = world.run(repository.path(), &["run", "Do it", "--gate", "false", "--include-dirty", "--attempts", "1"]);
    assert!(!done.exits(1).out.contains("Snapshot"));
    assert_untouched(&repository);
}
