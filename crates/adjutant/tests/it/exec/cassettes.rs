//! What is recorded of one world is played in another, with no vendor there.

use super::{MODELS, world_of};
use crate::{
    run::{does, squad},
    support::{World, files_of},
};
use adj_testkit::{FakeVendor, Reply};
use serde_json::{Value, json};
use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

/// What happened, without what differs from run to run.
fn story(events: &[Value]) -> Vec<String> {
    let told = events.iter().filter_map(|event| {
        let body = &event["body"];
        Some(match event["type"].as_str()? {
            "agent.message" => body["content"].to_string(),
            "agent.tool_use" => format!("{} {}", body["name"], body["input"]),
            "agent.tool_result" => body["content"].to_string(),
            "span.model_request_end" => {
                let result = &body["result"];
                format!("{} {} {} {}", result["model"], result["usage"], result["cost"], result["attempts"])
            }
            _ => return None,
        })
    });
    told.collect()
}

/// Lets a vendor of this model answer while everything is recorded; returns the cassette and what happened.
fn recorded(model: &str) -> (World, PathBuf, Vec<String>) {
    let vendor = FakeVendor::answering([
        Reply::failure(429, "rate_limit_error", "slow down").retry_after("0.05"),
        Reply::empty()
            .and_reasoning("First I look.")
            .and_text("I look and write.")
            .and_call("bash", json!({"command": "ls; pwd"}))
            .and_call("write", json!({"file_path": "new.txt", "content": "new\n"})),
        Reply::text("Done."),
    ]);
    let world = world_of(&vendor);
    let folder = world.folder("work", &[("seed.txt", "seed\n")]);
    let cassette = world.path("c.jsonl");
    let file = cassette.to_str().expect("a temporary path is UTF-8").to_owned();
    let done = world.run(&folder, &["exec", "-m", model, "--json", "--record", &file, "look and write"]).exits(0);
    (world, cassette, story(&done.lines()))
}

#[test]
fn a_session_over_any_wire_is_played_again_with_no_vendor_there() {
    for model in MODELS {
        let (world, cassette, happened) = recorded(model);
        let mode = fs::metadata(&cassette).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let text = fs::read_to_string(&cassette).expect("a cassette is text");
        assert_eq!(text.lines().count(), 4, "a head and three exchanges");
        for key in ["sk-fake", "fake-gemini-key"] {
            assert!(!text.contains(key), "{model}: {text}");
        }
        let file = cassette.to_str().expect("a temporary path is UTF-8");
        let again = world.run(&world.path("work"), &["exec", "-m", model, "--record", file, "go"]).exits(2);
        assert!(again.err.contains("exists, and nothing is recorded over it"), "{again}");

        // Another home, another folder, no variables.
        let other = World::new();
        let folder = other.folder("elsewhere", &[("seed.txt", "seed\n")]);
        let done = other.run(&folder, &["exec", "--json", "--replay", file, "look and write"]).exits(0);
        let played: Vec<String> = story(&done.lines())
            .into_iter()
            .map(|line| {
                line.replace("elsewhere", "work")
                    .replace(other.home.path().to_str().unwrap(), world.home.path().to_str().unwrap())
            })
            .collect();
        assert_eq!(played, happened, "{model}");
        assert_eq!(files_of(&folder)["new.txt"], "new\n");
        other.verify();

        // Another prompt is another request; the same file is a script, too.
        let strict = other.folder("strict", &[("seed.txt", "seed\n")]);
        let done = other.run(&strict, &["exec", "--replay", file, "look, please"]).exits(1);
        let expected =
            "differs first at items[0].content[0].text\n  recorded: \"look and write\"\n  now:      \"look, please\"";
        assert!(done.err.contains(expected), "{model}: {done}");
        for (name, words) in [
            ("loose", ["--replay-loosely", "--replay", file, "look, please"]),
            ("script", ["--model=scripted/any", "--playbook", file, "look, please"]),
        ] {
            let folder = other.folder(name, &[]);
            let done = other.run(&folder, &[&["exec"][..], &words].concat()).exits(0);
            assert_eq!(done.out, "Done.\n", "{model}");
            assert_eq!(files_of(&folder)["new.txt"], "new\n", "{model}");
        }
    }
}

#[test]
fn a_recording_that_dies_keeps_what_was_before_and_can_be_played_as_far_as_it_goes() {
    let world = World::playing(
        "rules:
  - when: {step: 0}
    calls: [{tool: write, input: {file_path: a.txt, content: a}}]
  - say: Done.
",
    );
    let path = world.path("c.jsonl");
    let file = path.to_str().expect("a temporary path is UTF-8").to_owned();
    // At the first durable write behind the first answer, whichever that is.
    let text = (1..50).find_map(|writes| {
        let folder = world.folder(&format!("work-{writes}"), &[]);
        let done = world.run_crashing(&folder, &["exec", "--record", &file, "go"], writes);
        assert!(done.was_killed(), "{done}");
        let text = fs::read_to_string(&path).unwrap_or_default();
        let _ = fs::remove_file(&path);
        text.contains("\"exchange\"").then_some(text)
    });
    let text = text.expect("an answer is followed by a write");
    assert!(text.lines().count() == 2 && text.ends_with('\n'), "{text}");

    // It is torn besides. The playbook is not asked.
    let first = text.lines().take(2).collect::<Vec<_>>().join("\n");
    fs::write(&path, format!("{first}\n{}", &first[..200])).expect("it can be written");
    let other = world.folder("other", &[]);
    let done = world.run(&other, &["exec", "--replay", &file, "go"]).exits(1);
    assert!(done.err.contains("c.jsonl: line 3 was cut off and is left out"), "{done}");
    let expected = "no answer left for agent \"agent\", turn 1, step 1; all were played";
    assert!(done.err.contains(expected), "{done}");
    assert_eq!(files_of(&other)["a.txt"], "a");
}

#[test]
fn a_whole_run_is_recorded_and_played_in_another_repository() {
    let tasks = "{ id: left, title: Left, task: Write left.txt }\n{ id: right, title: Right, task: Write right.txt }";
    let playbook =
        squad(tasks, &format!("{}{}", does("left", "pwd; echo 1 > left.txt"), does("right", "echo 2 > right.txt")));
    let world = World::playing(&playbook);
    let repository = || adj_testkit::git_repository(&[("a.txt", "a\n")]);
    let path = world.path("c.jsonl");
    let file = path.to_str().expect("a temporary path is UTF-8");
    let first = repository();
    world.run(first.path(), &["run", "--gate", "test -f a.txt", "--record", file, "write both"]).exits(0);

    let other = World::new();
    let second = repository();
    let done = other.run(second.path(), &["run", "--gate", "test -f a.txt", "--replay", file, "write both"]).exits(0);
    assert!(second.path().join("left.txt").is_file() && second.path().join("right.txt").is_file(), "{done}");
    other.verify();
}

#[test]
fn what_another_program_asks_over_any_wire_is_recorded_and_played_too() {
    for model in MODELS {
        let vendor = FakeVendor::answering([
            Reply::text("I look.").and_call("bash", json!({"command": "echo seen > seen.txt; pwd"})).in_chunks_of(9),
            Reply::text("It is done."),
        ]);
        let world = world_of(&vendor);
        let path = world.path("c.jsonl");
        let file = path.to_str().expect("a temporary path is UTF-8");
        let program = ["--", env!("CARGO_BIN_EXE_adjutant"), "exec", "-m", model, "go"];
        let folder = world.folder("work", &[]);
        world.run(&folder, &[&["gateway", "--record", file][..], &program].concat()).exits(0);
        let text = fs::read_to_string(&path).expect("a cassette is text");
        assert_eq!(text.matches("{\"exchange\":\"passed\"").count(), 2, "{model}: {text}");
        assert!(!text.contains("adjt_") && !text.contains("sk-fake") && !text.contains("fake-gemini-key"), "{text}");

        let other = World::new();
        let folder = other.folder("elsewhere", &[]);
        let done = other.run(&folder, &[&["gateway", "--replay", file][..], &program].concat()).exits(0);
        assert_eq!(done.out, "It is done.\n", "{model}");
        assert_eq!(files_of(&folder)["seen.txt"], "seen\n", "{model}");
        other.verify();
    }
}
