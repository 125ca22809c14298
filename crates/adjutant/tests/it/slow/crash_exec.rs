//! One agent that dies after each of its durable writes, with and without its supervisor, and is resumed.

use crate::support::{Normal, World, files_of, kill, kill_helpers, wait_for, wait_until_no_helper};
use std::{collections::BTreeMap, fs, path::Path, process::Stdio};

const PLAYBOOK: &str = r#"
rules:
  - when: { step: 0 }
    say: I append.
    usage: { input: 10, output: 1 }
    calls:
      - { tool: bash, input: { command: "echo one >> a.log" } }
      - { tool: bash, input: { command: "echo one >> b.log" } }
      - { tool: write, input: { file_path: c.txt, content: "c\n" } }
      - { tool: read, input: { file_path: seed.txt } }
  - when: { step: 1 }
    usage: { input: 10, output: 1 }
    calls: [{ tool: bash, input: { command: "cd /tmp" } }]
  - when: { step: 2 }
    usage: { input: 10, output: 1 }
    calls: [{ tool: bash, input: { command: "pwd; cd - > /dev/null; echo two >> a.log" } }]
  - { when: { step: 3, input: "(?s)(?P<seen>.*)" }, say: "I saw {{seen}}", usage: { input: 10, output: 1 } }
"#;

const EXEC: [&str; 2] = ["exec", "Append to the logs"];

#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    files: BTreeMap<String, String>,
    normal: Normal,
}

fn outcome(world: &World, folder: &Path, session: &str) -> Outcome {
    world.verify();
    wait_until_no_helper(&world.state());
    Outcome { files: files_of(folder), normal: Normal::of(world, session, folder) }
}

/// Whether the prompt had been taken in before the crash.
fn has_prompt(world: &World) -> bool {
    world.journal().query_row("SELECT count(*) > 0 FROM inputs", [], |row| row.get(0)).expect("there is a queue")
}

/// Goes on with a session of which at least the first event was remembered.
fn resume(world: &World, folder: &Path, session: &str) {
    if has_prompt(world) {
        let resumed = world.run(folder, &["exec", "--resume", session]).exits(0);
        assert!(resumed.out.starts_with("I saw "), "{resumed}");
        return;
    }
    let resumed = world.run(folder, &["exec", "--resume", session]).exits(2);
    assert!(resumed.err.contains("has not been told anything"), "{resumed}");
    world.run(folder, &["exec", "--resume", session, EXEC[1]]).exits(0);
}

/// Crashes after each write; `between` may do more harm before the session is resumed. Returns how many there were.
fn crash_after_each(between: impl Fn(&World), check: impl Fn(&World, &Path, &str, u32)) -> u32 {
    for writes in 1.. {
        let world = World::playing(PLAYBOOK);
        let folder = world.folder("work", &[("seed.txt", "seed\n")]);
        let crashed = world.run_crashing(&folder, &EXEC, writes);
        if !crashed.was_killed() {
            crashed.exits(0);
            return writes;
        }
        let (session, events) = world.only_session();
        between(&world);
        if events == 0 {
            let resumed = world.run(&folder, &["exec", "--resume", &session]).exits(2);
            assert!(resumed.err.starts_with(&format!("error: there is no session {session}\n")), "{resumed}");
            assert_eq!(files_of(&folder).len(), 1, "nothing has happened yet");
            continue;
        }
        if writes.is_multiple_of(2) {
            world.run_crashing(&folder, &["exec", "--resume", &session], 1 + writes % 5);
            between(&world);
        }
        resume(&world, &folder, &session);
        check(&world, &folder, &session, writes);
    }
    unreachable!("a session ends before the numbers do")
}

fn uninterrupted() -> Outcome {
    let world = World::playing(PLAYBOOK);
    let folder = world.folder("work", &[("seed.txt", "seed\n")]);
    let done = world.run(&folder, &EXEC).exits(0);
    assert_eq!(done.out, "I saw /tmp\n");
    outcome(&world, &folder, &world.only_session().0)
}

#[test]
fn with_the_supervisor_alive_nothing_is_lost_and_nothing_happens_twice() {
    let expected = uninterrupted();
    let writes = crash_after_each(
        |_| {},
        |world, folder, session, writes| {
            assert_eq!(outcome(world, folder, session), expected, "after a crash behind write {writes}");
        },
    );
    assert!(writes > 12, "a session has many writes, and only {writes} were seen");
}

/// Without its supervisor, what a call did cannot always be known; then the model is told so, and it is not done again.
#[test]
fn with_the_supervisor_killed_too_nothing_happens_twice() {
    crash_after_each(
        |world| {
            kill_helpers(&world.state());
        },
        |world, folder, session, writes| {
            let outcome = outcome(world, folder, session);
            for (file, word) in [("a.log", "one"), ("a.log", "two"), ("b.log", "one")] {
                let lines = outcome.files.get(file).map_or("", String::as_str).lines();
                let times = lines.filter(|line| *line == word).count();
                let conversation = &outcome.normal.sessions["agent"];
                let call = conversation.iter().find(|line| line.contains(&format!("echo {word} >> {file}")));
                let call = call.unwrap_or_else(|| panic!("the call is in the log: {conversation:?}"));
                let context = format!("{word} in {file} after a crash behind write {writes}: {call}");
                if call.contains("It is not known whether this call took effect") {
                    assert!(times <= 1, "{context}");
                } else {
                    assert!(call.contains("\"exit_code\":0"), "{context}");
                    assert_eq!(times, 1, "{context}");
                }
            }
        },
    );
}

/// A call is under way when everything dies at once.
#[test]
fn a_call_that_was_under_way_comes_back_as_not_known() {
    let playbook = r#"
rules:
  - when: { step: 0 }
    calls:
      - { tool: bash, input: { command: "echo begun >> effects.log; sleep 600" } }
      - { tool: read, input: { file_path: seed.txt } }
  - { when: { step: 1, tool_failed: true, input: "(?s)(?P<seen>.*)" }, say: "told: {{seen}}" }
"#;
    let world = World::playing(playbook);
    let folder = world.folder("work", &[("seed.txt", "seed\n")]);
    let mut command = world.command(&folder, EXEC);
    let mut running = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the binary can be started");
    wait_for("the call to begin", || {
        fs::read_to_string(folder.join("effects.log")).ok().filter(|text| !text.is_empty())
    });
    kill(running.id() as i32, rustix::process::Signal::KILL);
    running.wait().expect("a killed process can be waited for");
    assert!(kill_helpers(&world.state()) > 0, "the supervisor outlived its caller");
    let (session, _) = world.only_session();
    let resumed = world.run(&folder, &["exec", "--resume", &session]).exits(0);
    assert!(resumed.out.starts_with("told: It is not known whether this call took effect"), "{resumed}");
    assert!(resumed.out.contains("seed"), "a call that may be repeated is: {resumed}");
    assert_eq!(files_of(&folder)["effects.log"], "begun\n");
    outcome(&world, &folder, &session);
}
