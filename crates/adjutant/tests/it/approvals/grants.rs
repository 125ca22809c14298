//! Answers that are remembered: for whom, for how long, and until somebody takes them back.

use super::{SHELL, approvals, asks, goes_on, only_question};
use crate::support::World;

fn remembered(world: &World) -> Vec<serde_json::Value> {
    approvals(world, &["grants", "--json"]).exits(0).lines()
}

#[test]
fn what_is_remembered_for_a_session_ends_with_it() {
    let world = World::playing(SHELL);
    let folder = world.folder("work", &[]);
    asks(&world, &folder, "touch ran").exits(7);
    let (id, session) = only_question(&world);
    let allowed = approvals(&world, &["allow", &id, "--remember", "session", "--for", "2h"]).exits(0);
    assert!(allowed.out.contains("commands that begin with `touch ran`"), "{allowed}");
    goes_on(&world, &session).exits(0);
    let resume = |command: &str| world.run(&folder, &["exec", "--resume", &session, command]);
    resume("touch ran").exits(0);
    resume("touch ran twice").exits(0);
    // Another command, and the same in another session, are asked about.
    resume("touch run").exits(7);
    asks(&world, &folder, "touch ran").exits(7);
}

#[test]
fn an_answer_that_does_not_count_leaves_nothing_behind() {
    let world = World::playing(SHELL);
    let folder = world.folder("work", &[]);
    asks(&world, &folder, "touch ran").exits(7);
    let (id, session) = only_question(&world);
    approvals(&world, &["deny", &id]).exits(0);
    let late = approvals(&world, &["allow", &id, "--remember", "repository"]).exits(2);
    assert!(late.err.contains("answered already"), "{late}");
    assert_eq!(remembered(&world), Vec::<serde_json::Value>::new());
    goes_on(&world, &session).exits(0);
    assert!(!folder.join("ran").exists());
}

#[test]
fn what_is_remembered_for_a_repository_holds_there_until_it_is_taken_back() {
    let world = World::playing(SHELL);
    let (folder, other) = (world.folder("work", &[]), world.folder("other", &[]));
    asks(&world, &folder, "touch one && touch two").exits(7);
    let (id, session) = only_question(&world);
    approvals(&world, &["allow", &id, "--remember", "repository"]).exits(0);
    goes_on(&world, &session).exits(0);
    let grants = remembered(&world);
    assert_eq!(grants.len(), 2, "one for each command of the line: {grants:?}");
    asks(&world, &folder, "touch two").exits(0);
    asks(&world, &folder, "touch two; touch three").exits(7);
    asks(&world, &other, "touch two").exits(7);

    for grant in &grants {
        approvals(&world, &["revoke", grant["id"].as_str().expect("an id")]).exits(0);
    }
    assert_eq!(remembered(&world), Vec::<serde_json::Value>::new());
    asks(&world, &folder, "touch two").exits(7);
    let unknown = approvals(&world, &["revoke", grants[0]["id"].as_str().expect("an id")]).exits(2);
    assert!(unknown.err.contains("is remembered"), "{unknown}");
}

#[test]
fn policy_says_how_long_and_whether_at_all() {
    let world = World::playing(SHELL);
    let folder = world.folder("work", &[]);
    world.settings("policy.toml", "longest_grant = \"1h\"\n");
    asks(&world, &folder, "touch ran").exits(7);
    let (id, _) = only_question(&world);
    let long = approvals(&world, &["allow", &id, "--remember", "session", "--for", "2h"]).exits(2);
    assert!(long.err.contains("1h at most"), "{long}");
    world.settings("policy.toml", "longest_grant = \"0\"\n");
    let none = approvals(&world, &["allow", &id, "--remember", "session"]).exits(2);
    assert!(none.err.contains("longest_grant"), "{none}");
    assert_eq!(remembered(&world).len(), 0, "a refused wish leaves nothing behind");
    // More than single, plain commands is never remembered, because nobody could say what.
    world.settings("policy.toml", "");
    asks(&world, &folder, "touch \"$NAME\"").exits(7);
    let listed = approvals(&world, &["list", "--json"]).exits(0).lines();
    let dynamic = listed.iter().find(|question| question["about"].to_string().contains("NAME")).expect("it waits");
    let unclear =
        approvals(&world, &["allow", dynamic["id"].as_str().expect("an id"), "--remember", "session"]).exits(2);
    assert!(unclear.err.contains("nothing of this call can be remembered"), "{unclear}");
}
