//! What happened, as people and programs read it afterwards.

use super::stable;
use crate::support::World;
use regex::Regex;

/// One session with what can stand in a log: thinking aloud, calls that succeed and fail, long output, an answer.
const PLAYBOOK: &str = r#"
rules:
  - when: { step: 0 }
    say: I look first.
    calls: [{ tool: bash, input: { command: "seq 20; exit 3" } }]
  - when: { step: 1 }
    calls:
      - { tool: write, input: { file_path: a.txt, content: "one\n\ntwo\n" } }
  - when: { step: 2 }
    calls: [{ tool: read, input: { file_path: missing.txt } }]
  - when: { step: 3 }
    calls: [{ tool: telepathy, input: { to: you } }]
  - say: "There it is:\n\na.txt"
"#;

#[test]
fn a_session_afterwards() {
    let world = World::playing(PLAYBOOK);
    let done = world.run(&world.folder("work", &[]), &["exec", "Write a.txt\n\nwith two lines"]).exits(0);
    insta::assert_snapshot!("exec", stable(&world, &format!("{}{}", done.err, done.out)));
    let session = world.only_session().0;
    for (name, words) in [
        ("show", &["show", &session] as &[&str]),
        ("show_no_text", &["show", &session, "--no-text"]),
        ("show_full", &["show", &session, "--full"]),
        ("verify", &["verify"]),
    ] {
        insta::assert_snapshot!(name, stable(&world, &world.trace(words).exits(0).out));
    }
    let export = world.trace(&["export", &session, "--no-text"]).exits(0).out;
    let lines = export.lines().filter(|line| ["user.message", "agent.tool_use"].iter().any(|kind| line.contains(kind)));
    let lines: Vec<String> = lines.take(2).map(|line| line.to_owned() + "\n").collect();
    insta::assert_snapshot!("export_no_text", stable(&world, &lines.concat()));
    assert!(!export.contains("two lines"), "nothing that was said is in it");
}

/// The program is Adjutant itself, which keeps a journal of its own elsewhere.
#[test]
fn a_program_afterwards() {
    let mut world = World::playing("rules:\n  - say: Hello.\n");
    world.set("INNER", world.path("inner").to_str().expect("a temporary path is UTF-8"));
    let program = "ADJUTANT_HOME=$INNER exec \"$0\" exec --model anthropic/claude Hello!; exit 3";
    let words = ["gateway", "-m", "scripted/any", "--", "sh", "-c", program, env!("CARGO_BIN_EXE_adjutant")];
    let done = world.run(&world.folder("work", &[]), &words).exits(0);
    let session = world.only_session().0;
    let shown = world.trace(&["show", &session]).exits(0).out.replace(env!("CARGO_BIN_EXE_adjutant"), "ADJUTANT");
    // How long a request is says how long the words of our own prompt are.
    let shown =
        Regex::new("[0-9,]+ bytes").expect("it is an expression").replace_all(&shown, "BYTES bytes").into_owned();
    insta::assert_snapshot!("program", stable(&world, &format!("{}{}{shown}", done.out, done.err)));
}
