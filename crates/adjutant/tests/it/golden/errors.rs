//! Errors with their causes, hints and exit codes.

use super::Transcript;
use crate::{
    run::{does, squad},
    support::{World, wait_for},
};
use adj_testkit::git_repository;
use std::{fs, process::Stdio};

const SAYS_HELLO: &str = "rules:\n  - say: hello\n";

#[test]
fn words_that_cannot_be_understood() {
    let world = World::new();
    let mut transcript = Transcript::of(&world);
    transcript.types(&[]);
    transcript.types(&["rnu", "hello"]);
    transcript.types(&["run"]);
    transcript.types(&["run", "hello", "--gate", "true", "--no-gate"]);
    transcript.types(&["run", "hello", "--agents", "0"]);
    transcript.types(&["run", "--resume", "yesterday"]);
    transcript.types(&["exec", "hello", "--model", "nonsense"]);
    transcript.types(&["exec", "hello", "--sandbox", "none"]);
    transcript.types(&["trace", "show", "yesterday"]);
    transcript.types(&["run", ""]);
    insta::assert_snapshot!(transcript.end());
}

#[test]
fn no_model_or_the_wrong_one() {
    let mut world = World::new();
    let folder =
        world.folder("work", &[("syntax.yaml", "rules:\n  - say: [\n"), ("key.yaml", "rules:\n  - sya: hello\n")]);
    fs::write(folder.join("pattern.yaml"), "rules:\n  - when: { input: \"(\" }\n    say: hello\n")
        .expect("it can be written");
    let mut transcript = Transcript::of(&world);
    let mut types = |words: &[&str]| transcript.types_at(&folder, words);
    types(&["run", "hello"]);
    types(&["exec", "hello"]);
    types(&["exec", "hello", "--model", "anthropic/claude"]);
    types(&["exec", "hello", "--model", "acme/best"]);
    types(&["exec", "hello", "--model", "scripted/any"]);
    types(&["exec", "hello", "--model", "scripted/any", "--playbook", "missing.yaml"]);
    types(&["exec", "hello", "--model", "scripted/any", "--playbook", "syntax.yaml"]);
    types(&["exec", "hello", "--model", "scripted/any", "--playbook", "key.yaml"]);
    types(&["exec", "hello", "--model", "scripted/any", "--playbook", "pattern.yaml"]);
    let mut text = transcript.end();

    world.set("ADJUTANT_MODEL", "nonsense");
    let mut transcript = Transcript::of(&world);
    transcript.notes("with ADJUTANT_MODEL=nonsense");
    transcript.types_at(&folder, &["exec", "hello"]);
    text += &transcript.end();

    world.set("ADJUTANT_MODEL", "");
    let settings = world.path("home/.config/adjutant");
    fs::create_dir_all(&settings).expect("a folder can be made");
    fs::write(settings.join("config.toml"), "modle = \"anthropic/claude\"\n").expect("it can be written");
    let mut transcript = Transcript::of(&world);
    transcript.notes("with a settings file: modle = \"anthropic/claude\"");
    transcript.types_at(&folder, &["exec", "hello"]);
    text += &transcript.end();
    insta::assert_snapshot!(text);
}

#[test]
fn places_that_cannot_be_worked_in() {
    let world = World::playing(SAYS_HELLO);
    let plain = world.folder("plain", &[]);
    let empty = world.folder("empty", &[]);
    let empty_repository = std::process::Command::new("git").args(["init", "--quiet"]).current_dir(&empty).status();
    assert!(empty_repository.expect("there is a git").success());
    let detached = git_repository(&[("a.txt", "a\n")]);
    detached.git(&["checkout", "--quiet", "--detach"]);
    let untested = git_repository(&[("a.txt", "a\n")]);
    let dirty = git_repository(&[("a.txt", "a\n")]);
    dirty.write("a.txt", "mine\n");

    let mut transcript = Transcript::of(&world);
    transcript.types_at(&plain, &["run", "hello"]);
    transcript.notes("in a repository without a commit");
    transcript.types_at(&empty, &["run", "hello"]);
    transcript.notes("on no branch");
    transcript.types_at(detached.path(), &["run", "hello"]);
    transcript.notes("in a repository without a test");
    transcript.types_at(untested.path(), &["run", "hello"]);
    transcript.notes("with an uncommitted change");
    transcript.types_at(dirty.path(), &["run", "hello", "--gate", "true"]);
    transcript.types(&["run", "--demo", "--dir", plain.parent().and_then(|world| world.to_str()).expect("UTF-8")]);
    transcript.notes("at home");
    transcript.types(&["exec", "hello"]);
    transcript.types(&["exec", "hello", "--cd", "/"]);
    transcript.types(&["exec", "hello", "--cd", "/nowhere"]);
    transcript.types(&["exec", "hello", "--cd", world.path("playbook.yaml").to_str().expect("UTF-8")]);
    insta::assert_snapshot!(transcript.end());
}

#[test]
fn files_that_do_not_fit() {
    let world = World::playing("rules:\n  - say: It is good.\n");
    let files = [
        ("cut.json", "{\n  \"type\": \n"),
        ("type.json", "{\"type\": \"objekt\"}"),
        ("good.json", "{\"type\": \"object\"}"),
    ];
    let folder = world.folder("work", &files);
    let mut transcript = Transcript::of(&world);
    for schema in ["missing.json", "cut.json", "type.json", "good.json"] {
        transcript.types_at(&folder, &["exec", "hello", "--output-schema", schema]);
    }
    transcript.types_at(&folder, &["exec", "hello", "--last-message", "missing/said.txt"]);
    insta::assert_snapshot!(transcript.end());
}

#[test]
fn runs_and_sessions_that_cannot_go_on() {
    let world = World::playing(&squad("{ id: a, title: Part a, task: Write a }", &does("a", "echo a > a.txt")));
    let repository = git_repository(&[("seed.txt", "seed\n")]);
    let mut transcript = Transcript::of(&world);
    transcript.types(&["trace", "list"]);
    transcript.types(&["run", "--resume", "run_0123456789abcdefghjk"]);
    world.run(repository.path(), &["run", "Do it", "--gate", "true"]).exits(0);
    transcript.notes("when there is a run");
    transcript.types(&["run", "--resume", "run_0123456789abcdefghjk"]);
    transcript.types(&["exec", "--resume", "sesn_0123456789abcdefghjk"]);
    transcript.types(&["trace", "show", "run_0123456789abcdefghjk"]);
    transcript.types(&["trace", "export", "sesn_0123456789abcdefghjk"]);
    transcript.types(&["run", "--resume", &world.only_run().0]);
    insta::assert_snapshot!(transcript.end());
}

#[test]
fn a_session_that_another_process_works_on() {
    let world = World::playing("rules:\n  - { delay_ms: 20000, say: late }\n");
    let folder = world.folder("work", &[]);
    let mut command = world.command(&folder, ["exec", "wait"]);
    let mut first = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the binary can be started");
    let session = wait_for("the session to be at work", || {
        let listed = world.trace(&["list", "--json"]);
        // In its first moments a journal is not one yet.
        let logs = (listed.code == Some(0)).then(|| listed.lines())?;
        let log = logs.iter().find(|log| log["events"].as_u64() >= Some(4))?;
        log["id"].as_str().map(str::to_owned)
    });
    let mut transcript = Transcript::of(&world);
    transcript.types(&["exec", "--resume", &session]);
    transcript.types(&["trace", "list"]);
    first.kill().expect("the first is ours");
    first.wait().expect("the first is ours");
    transcript.notes("when it was killed");
    transcript.types(&["trace", "list"]);
    insta::assert_snapshot!(transcript.end());
}

#[test]
fn models_that_do_not_answer() {
    let rules = [
        ("nothing fits", "rules:\n  - { when: { agent: planner }, say: hello }\n"),
        ("the answer is too long", "rules:\n  - { say: hello, stop: max_tokens }\n"),
        ("the model refuses", "rules:\n  - { say: \"no\", stop: refusal }\n"),
    ];
    let mut text = String::new();
    for (note, playbook) in rules {
        let world = World::playing(playbook);
        let mut transcript = Transcript::of(&world);
        transcript.notes(note);
        transcript.types_at(&world.folder("work", &[]), &["exec", "hello"]);
        text += &transcript.end();
    }
    insta::assert_snapshot!(text);
}

#[test]
fn state_that_cannot_be_used() {
    let mut world = World::playing(SAYS_HELLO);
    let folder = world.folder("work", &[]);
    world.run(&folder, &["exec", "hello"]).exits(0);
    world.journal().pragma_update(None, "user_version", 99).expect("the journal can be written");
    let mut transcript = Transcript::of(&world);
    transcript.notes("with the journal of a newer build");
    transcript.types_at(&folder, &["exec", "hello"]);
    transcript.types_at(&folder, &["trace", "list"]);
    let mut text = transcript.end();

    let file = world.folder("elsewhere", &[("file", "no folder\n")]).join("file");
    world.set("ADJUTANT_HOME", file.to_str().expect("UTF-8"));
    let mut transcript = Transcript::of(&world);
    transcript.notes("with a file in place of the state folder");
    transcript.types_at(&folder, &["exec", "hello"]);
    text += &transcript.end();

    world.set("ADJUTANT_HOME", folder.join("state").to_str().expect("UTF-8"));
    let mut transcript = Transcript::of(&world);
    transcript.notes("with the state folder in the folder that is worked on");
    transcript.types_at(&folder, &["exec", "hello"]);
    text += &transcript.end();
    insta::assert_snapshot!(text);
}
