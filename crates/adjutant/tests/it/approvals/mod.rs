//! Questions to people over the borders of processes: asked by one, answered by another, carried out by a third.

mod crashes;
mod grants;

use crate::support::{Done, World, normal};
use std::{fs, path::Path};

/// The agent runs its prompt as a command and says what came of it.
pub const SHELL: &str = r#"
rules:
  - when: {step: 0, input: "(?s)^(?P<command>.*)$"}
    calls:
      - {tool: bash, input: {command: "{{command}}"}}
  - when: {after_tool: bash, input: "(?s)^.*$"}
    say: "{{0}}"
"#;

/// Runs one command as an agent's, asking before all that is not known to be harmless.
pub fn asks(world: &World, folder: &Path, command: &str) -> Done {
    world.run(folder, &["exec", "--approval", "untrusted", command])
}

pub fn goes_on(world: &World, session: &str) -> Done {
    world.run(world.home.path(), &["exec", "--resume", session])
}

pub fn approvals(world: &World, words: &[&str]) -> Done {
    world.run(world.home.path(), &[&["approvals"], words].concat())
}

/// The one question that is open: its id and its session.
#[track_caller]
pub fn only_question(world: &World) -> (String, String) {
    let listed = approvals(world, &["list", "--json"]).exits(0).lines();
    let [question] = listed.as_slice() else { panic!("not one question: {listed:?}") };
    let text = |key: &str| question[key].as_str().expect("a text").to_owned();
    (text("id"), text("session"))
}

/// How often an event of this kind stands in a session's log.
pub fn events(world: &World, session: &str, kind: &str) -> usize {
    let exported = world.trace(&["export", session]).exits(0).lines();
    exported.iter().filter(|event| event["type"] == kind).count()
}

#[test]
fn a_question_waits_for_its_answer_and_the_call_runs_once() {
    let world = World::playing(SHELL);
    let folder = world.folder("work", &[]);
    let done = asks(&world, &folder, "echo ran >> ran.txt; echo hi").exits(7);
    let (id, session) = only_question(&world);
    assert!(done.err.contains(&format!("adjutant approvals allow {id}")), "{done}");
    assert!(done.err.contains(&format!("adjutant exec --resume {session}")), "{done}");
    // Going on without an answer waits on.
    goes_on(&world, &session).exits(7);
    assert!(!folder.join("ran.txt").exists(), "nothing runs before the answer");

    let shown = approvals(&world, &["show", &id[..12]]).exits(0);
    assert!(shown.out.contains("echo ran >> ran.txt; echo hi"), "{shown}");
    approvals(&world, &["allow", &id]).exits(0);
    assert!(!folder.join("ran.txt").exists(), "an answer alone runs nothing");
    let twice = approvals(&world, &["deny", &id]).exits(2);
    assert!(twice.err.contains("answered already"), "{twice}");

    let done = goes_on(&world, &session).exits(0);
    assert_eq!(done.out, "hi\n");
    let late = approvals(&world, &["allow", &id]).exits(2);
    assert!(late.err.contains("was allowed by"), "{late}");
    goes_on(&world, &session);
    assert_eq!(fs::read_to_string(folder.join("ran.txt")).expect("it ran"), "ran\n");
    assert_eq!(events(&world, &session, "tool.started"), 1);
    world.verify();
}

#[test]
fn a_denial_is_told_to_the_agent() {
    let world = World::playing(SHELL);
    let folder = world.folder("work", &[]);
    asks(&world, &folder, "touch ran").exits(7);
    let (id, session) = only_question(&world);
    let denied = approvals(&world, &["deny", &id, "-m", "not on a Friday"]).exits(0);
    assert!(denied.out.starts_with("Denied: $ touch ran\n"), "{denied}");
    let done = goes_on(&world, &session).exits(0);
    assert!(done.out.contains("not on a Friday"), "{done}");
    assert!(!folder.join("ran").exists());
    assert_eq!(events(&world, &session, "tool.started"), 0);
}

#[test]
fn an_answer_holds_for_what_was_seen_only() {
    let world = World::playing(SHELL);
    let folder = world.folder("work", &[("script.sh", "echo harmless\n")]);
    asks(&world, &folder, "bash script.sh").exits(7);
    let (id, session) = only_question(&world);
    approvals(&world, &["allow", &id]).exits(0);
    fs::write(folder.join("script.sh"), "touch ran\n").expect("it can be written");
    let again = goes_on(&world, &session).exits(7);
    assert!(again.err.contains("asks again"), "{again}");
    assert!(!folder.join("ran").exists());
    assert_eq!(only_question(&world), (id.clone(), session.clone()), "the same call, asked anew");
    approvals(&world, &["allow", &id]).exits(0);
    goes_on(&world, &session).exits(0);
    assert!(folder.join("ran").exists());
}

#[test]
fn a_question_without_an_answer_is_denied_in_time() {
    let world = World::playing(SHELL);
    world.settings("policy.toml", "expire_approvals_after = \"4s\"\n");
    let folder = world.folder("work", &[]);
    asks(&world, &folder, "touch ran").exits(7);
    let (id, session) = only_question(&world);
    std::thread::sleep(std::time::Duration::from_secs(4));
    let late = approvals(&world, &["allow", &id]).exits(2);
    assert!(late.err.contains("which is a denial"), "{late}");
    let done = goes_on(&world, &session).exits(0);
    assert!(done.out.contains("expired"), "{done}");
    assert!(!folder.join("ran").exists());
    let late = approvals(&world, &["allow", &id]).exits(2);
    assert!(late.err.contains("expired at"), "{late}");
}

#[test]
fn never_is_a_denial_and_harmless_commands_are_not_asked_about() {
    let world = World::playing(SHELL);
    world.settings("policy.toml", "[[rules]]\npattern = [\"touch\"]\ndecision = \"prompt\"\n");
    let folder = world.folder("work", &[]);
    // Without a terminal nobody is asked unless somebody says so.
    let done = world.run(&folder, &["exec", "touch ran"]).exits(0);
    assert!(done.out.contains("approval policy never"), "{done}");
    assert!(!folder.join("ran").exists());
    asks(&world, &folder, "ls").exits(0);
    world.run(&folder, &["exec", "--approval", "on-request", "touch ran"]).exits(7);
}

/// What two processes answer at the same moment is one answer.
#[test]
fn two_who_answer_at_once_do_not_both_count() {
    let world = World::playing(SHELL);
    let folder = world.folder("work", &[]);
    asks(&world, &folder, "echo ran >> ran.txt").exits(7);
    let (id, session) = only_question(&world);
    let answers: Vec<Done> = std::thread::scope(|scope| {
        let answer = |word: &'static str| {
            let (world, id) = (&world, &id);
            scope.spawn(move || approvals(world, &[word, id]))
        };
        let started = [answer("allow"), answer("deny"), answer("allow"), answer("deny")];
        started.into_iter().map(|answer| answer.join().expect("an answer ends")).collect()
    });
    assert_eq!(answers.iter().filter(|done| done.code == Some(0)).count(), 1, "{answers:?}");
    assert!(answers.iter().all(|done| matches!(done.code, Some(0 | 2))), "{answers:?}");
    goes_on(&world, &session).exits(0);
    assert!(events(&world, &session, "tool.started") <= 1);
    assert_eq!(events(&world, &session, "user.tool_confirmation"), 1);
    // Whoever looks at the log of a session sees the conversation whole.
    assert_eq!(normal::Normal::of(&world, &session, &folder).sessions.len(), 1);
}
