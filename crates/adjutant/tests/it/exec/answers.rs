//! What `exec` does with a prompt and an answer: standard input, files, JSON, going on later.

use super::{MODELS, world_of};
use crate::support::{Done, World, files_of};
use adj_testkit::{FakeVendor, Reply};
use serde_json::json;
use std::{
    fs,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

fn with_input(mut command: Command, input: &[u8]) -> Done {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary can be started");
    // One that does not want it all closes its end.
    let _ = child.stdin.take().expect("a pipe").write_all(input);
    Done::of(child.wait_with_output().expect("the binary ends"))
}

#[test]
fn a_dash_reads_the_prompt_from_standard_input() {
    let vendor = FakeVendor::answering([Reply::text("Read.")]);
    let world = world_of(&vendor);
    let folder = world.folder("work", &[]);
    let command = || world.command(&folder, ["exec", "-m", MODELS[0], "-"]);
    let done = with_input(command(), "the whole diff\nof two lines\n".as_bytes()).exits(0);
    assert_eq!(done.out, "Read.\n");
    assert!(vendor.requests()[0].last().to_string().contains("the whole diff\\nof two lines"));
    // The list of sessions does not show as a title what was not typed.
    assert_eq!(world.list()[0]["title"], "agent");

    let cases: [(&[u8], &str); 3] = [
        (b" \n", "the prompt is empty"),
        (&[b'x'; (1 << 20) + 1], "the prompt is longer than 1048576 bytes"),
        (b"\xff\xfe", "valid UTF-8"),
    ];
    for (input, problem) in cases {
        let done = with_input(command(), input);
        assert!(done.err.contains(problem), "{done}");
        assert_eq!(done.code, Some(2), "{done}");
    }
    assert_eq!(world.list().len(), 1, "no session was made for them");
}

#[test]
fn the_last_message_goes_to_its_file_too() {
    let vendor = FakeVendor::answering([
        Reply::text("First.").and_call("bash", json!({"command": "true"})),
        Reply::text("Last\nof two lines"),
    ]);
    let world = world_of(&vendor);
    let folder = world.folder("work", &[]);
    let done = world.run(&folder, &["exec", "-m", MODELS[1], "go", "--last-message", "said.txt"]).exits(0);
    assert_eq!(done.out, "Last\nof two lines\n");
    assert_eq!(fs::read_to_string(folder.join("said.txt")).expect("the file is there"), "Last\nof two lines");
}

#[test]
fn json_is_one_event_a_line_and_nothing_else() {
    let vendor =
        FakeVendor::answering([Reply::call("bash", json!({"command": "echo hello"})), Reply::text("Line\nbreak")]);
    let world = world_of(&vendor);
    let done = world.run(&world.folder("work", &[]), &["exec", "-m", MODELS[2], "go", "--json"]).exits(0);
    let events = done.lines();
    let kinds: Vec<&str> = events.iter().filter_map(|event| event["type"].as_str()).collect();
    let expected = [
        "session.created",
        "session.status_running",
        "user.message",
        "span.model_request_start",
        "agent.tool_use",
        "span.model_request_end",
        "policy.decided",
        "tool.started",
        "agent.tool_result",
        "span.model_request_start",
        "agent.message",
        "span.model_request_end",
        "session.usage",
        "session.status_idle",
    ];
    assert_eq!(kinds, expected);
    assert_eq!(done.err, "");
    let numbers: Vec<u64> = events.iter().filter_map(|event| event["seq"].as_u64()).collect();
    assert_eq!(numbers, (1..=expected.len() as u64).collect::<Vec<_>>());
    // What was printed live is what is kept.
    let (session, _) = world.only_session();
    assert_eq!(world.trace(&["export", &session]).exits(0).out, done.out);
}

#[test]
fn a_session_goes_on_where_it_stood() {
    for model in MODELS {
        let vendor = FakeVendor::answering([
            Reply::call("write", json!({"file_path": "a.txt", "content": "a\n"})),
            Reply::text("Written."),
            Reply::text("As I said."),
        ]);
        let world = world_of(&vendor);
        let folder = world.folder("work", &[]);
        world.run(&folder, &["exec", "-m", model, "write a"]).exits(0);
        let (session, _) = world.only_session();
        // From anywhere: the session knows its folder and its model.
        let done = world.run(Path::new("/"), &["exec", "--resume", &session, "and what was it?"]).exits(0);
        assert_eq!(done.out, "As I said.\n", "{model}");
        let asked = vendor.requests();
        assert_eq!(asked.len(), 3, "{model}");
        let body = asked[2].body.to_string();
        for part in ["write a", "a.txt", "Written.", "and what was it?"] {
            assert!(body.contains(part), "{model}: no {part:?} in {body}");
        }
        assert_eq!(world.list().len(), 1, "{model}");
        world.verify();
    }
}

#[test]
fn reach_is_what_the_sandbox_mode_says() {
    let cases = [
        ("read-only", "", "seed\n"),
        ("workspace-write", "inside.txt", "seed\n"),
        ("danger-full-access", "inside.txt outside.txt", "seed\n"),
    ];
    for (mode, expected, seed) in cases {
        let vendor = FakeVendor::with(|asked| match asked.number {
            0 => Reply::call(
                "bash",
                json!({"command": "cat seed.txt; echo x > inside.txt; echo x > ../outside/outside.txt; true"}),
            ),
            _ => Reply::text("Done."),
        });
        let world = world_of(&vendor);
        let (folder, outside) = (world.folder("work", &[("seed.txt", seed)]), world.folder("outside", &[]));
        world.run(&folder, &["exec", "-m", MODELS[0], "go", "-s", mode]).exits(0);
        let mut written: Vec<String> = files_of(&folder).into_keys().filter(|name| name != "seed.txt").collect();
        written.extend(files_of(&outside).into_keys());
        assert_eq!(written.join(" "), expected, "{mode}");
        assert!(vendor.requests()[1].last().to_string().contains("seed"), "{mode}");
    }
}

#[test]
fn a_turn_has_a_bound() {
    let vendor = FakeVendor::with(|_| Reply::call("bash", json!({"command": "true"})));
    let world = world_of(&vendor);
    let done = world.run(&world.folder("work", &[]), &["exec", "-m", MODELS[0], "go", "--max-steps", "3"]).exits(1);
    assert!(done.err.contains("the turn took as many steps as it may"), "{done}");
    assert_eq!(vendor.requests().len(), 3);
}

#[test]
fn a_second_process_is_kept_off_a_session() {
    let vendor = FakeVendor::with(|asked| match asked.number {
        0 => Reply::call("bash", json!({"command": "touch begun; while [ ! -e go ]; do sleep 0.05; done"})),
        _ => Reply::text("Done."),
    });
    let world = world_of(&vendor);
    let folder = world.folder("work", &[]);
    let mut first = world.command(&folder, ["exec", "-m", MODELS[0], "go"]);
    let first = first.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary can be started");
    crate::support::wait_for("the call to begin", || folder.join("begun").exists().then_some(()));
    let (session, _) = world.only_session();
    let second = world.run(&folder, &["exec", "--resume", &session]).exits(2);
    assert!(second.err.contains(&format!("error: cannot take over {session}")), "{second}");
    let hint = format!("process {0} is working on it; wait for it, or stop it with `kill {0}`", first.id());
    assert!(second.err.contains(&hint), "{second}");
    fs::write(folder.join("go"), "").expect("a file can be written");
    Done::of(first.wait_with_output().expect("the first ends")).exits(0);
    assert_eq!(vendor.requests().len(), 2);
    world.verify();
}

/// Several calls of the shell in one answer happen in the order in which the model gave them.
#[test]
fn shell_calls_of_one_answer_keep_their_order() {
    let vendor = FakeVendor::with(|asked| match asked.number {
        0 => (0..12).fold(Reply::text("In order."), |reply, number| {
            reply.and_call("bash", json!({"command": format!("echo {number} >> order.txt")}))
        }),
        _ => Reply::text("Done."),
    });
    let world = world_of(&vendor);
    let folder = world.folder("work", &[]);
    world.run(&folder, &["exec", "-m", MODELS[0], "go"]).exits(0);
    let expected: String = (0..12).map(|number| format!("{number}\n")).collect();
    assert_eq!(files_of(&folder)["order.txt"], expected);
}

/// What is printed for programs, and to whom, when the session cannot be made.
#[test]
fn folders_that_are_too_much_are_refused() {
    let vendor = FakeVendor::answering([]);
    let world: World = world_of(&vendor);
    let home = world.path("home");
    for folder in [Path::new("/"), home.as_path()] {
        let done = world.run(&home, &["exec", "-m", MODELS[0], "go", "--cd", folder.to_str().expect("UTF-8")]).exits(2);
        assert!(done.err.contains("is too much for an agent to work in"), "{done}");
    }
    let done = world.run(&home, &["exec", "-m", MODELS[0], "go", "--cd", "/nowhere"]).exits(2);
    assert!(done.err.contains("cannot work in /nowhere"), "{done}");
    assert!(world.list_if_any().is_empty());
}
