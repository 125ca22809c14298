//! Policy files of the organisation and the repository, as sessions and `adjutant policy` see them.

use crate::support::World;
use std::{fs, path::Path};

const SAYS_HELLO: &str = "rules:\n  - say: hello\n";

fn repository_policy(folder: &Path, text: &str) {
    fs::create_dir_all(folder.join(".adjutant")).expect("a folder can be made");
    fs::write(folder.join(".adjutant/policy.toml"), text).expect("it can be written");
}

#[test]
fn a_session_is_no_more_than_every_layer_permits() {
    let world = World::playing(SAYS_HELLO);
    let folder = world.folder("work", &[]);
    let below = folder.join("below");
    fs::create_dir_all(&below).expect("a folder can be made");
    fs::create_dir_all(folder.join(".git")).expect("a folder can be made");
    let exec = |words: &[&str]| world.run(&below, &[&["exec", "hello"], words].concat());
    exec(&["--sandbox", "danger-full-access"]).exits(0);
    world.settings("policy.toml", "allowed_sandbox_modes = [\"read-only\", \"workspace-write\"]\n");
    let refused = exec(&["--sandbox", "danger-full-access"]).exits(2);
    assert!(refused.err.contains("organisation") && refused.err.contains("policy.toml:1"), "{refused}");
    exec(&[]).exits(0);
    // The repository's word counts from anywhere below its top, and adds nothing to what the organisation permits.
    repository_policy(&folder, "allowed_sandbox_modes = [\"read-only\", \"danger-full-access\"]\n");
    let refused = exec(&[]).exits(2);
    assert!(refused.err.contains("repository"), "{refused}");
    exec(&["--sandbox", "danger-full-access"]).exits(2);
    exec(&["--sandbox", "read-only"]).exits(0);
}

#[test]
fn a_session_goes_on_under_the_policy_of_the_day() {
    let world = World::playing(SAYS_HELLO);
    let folder = world.folder("work", &[]);
    world.run(&folder, &["exec", "hello"]).exits(0);
    let (session, _) = world.only_session();
    world.settings("policy.toml", "allowed_sandbox_modes = [\"read-only\"]\n");
    let refused = world.run(&folder, &["exec", "--resume", &session, "again"]).exits(2);
    assert!(refused.err.contains("allowed_sandbox_modes"), "{refused}");
}

#[test]
fn nothing_starts_under_a_policy_that_cannot_be_read() {
    let world = World::playing(SAYS_HELLO);
    let folder = world.folder("work", &[]);
    for (at, expected) in
        [("organisation", "config/adjutant/policy.toml:2:1"), ("repository", ".adjutant/policy.toml:2:1")]
    {
        let text = "longest_grant = \"1h\"\nlongest_grnat = \"1h\"\n";
        match at {
            "organisation" => world.settings("policy.toml", text),
            _ => {
                world.settings("policy.toml", "");
                repository_policy(&folder, text);
            }
        }
        for words in [&["exec", "hello"][..], &["policy", "check"], &["policy", "explain", "--", "ls"]] {
            let done = world.run(&folder, words).exits(2);
            assert!(done.err.contains(expected) && done.err.contains("did you mean"), "{words:?}: {done}");
        }
        assert_eq!(world.list_if_any(), Vec::<String>::new(), "no session was begun");
    }
}

#[test]
fn a_profile_is_what_a_file_makes_of_it() {
    let world = World::playing(SAYS_HELLO);
    let folder = world.folder("work", &[]);
    world.settings(
        "policy.toml",
        "default_profile = \"web\"\n[profiles.web]\nmode = \"read-only\"\nnetwork = { hosts = [\"example.org\"] }\n\
         limits = { memory = \"1GiB\" }\n[limits]\nmemory = \"512MiB\"\n",
    );
    world.run(&folder, &["exec", "hello", "--limit", "processes=99"]).exits(0);
    let (session, _) = world.only_session();
    let created = &world.trace(&["export", &session]).exits(0).lines()[0]["body"]["spec"];
    assert_eq!(created["sandbox"], "read-only");
    assert_eq!(created["confinement"]["profile"], "web");
    assert_eq!(created["confinement"]["network"]["hosts"][0]["host"], "example.org");
    assert_eq!(created["confinement"]["limits"]["memory"], "512MiB", "a profile is never above the limits");
    assert_eq!(created["confinement"]["limits"]["processes"], "99");
    let unknown = world.run(&folder, &["exec", "hello", "--profile", "wbe"]).exits(2);
    assert!(unknown.err.contains("did you mean `web`"), "{unknown}");
}

#[test]
fn a_default_profile_never_takes_the_sandbox_away() {
    let world = World::playing(SAYS_HELLO);
    let folder = world.folder("work", &[]);
    world.settings("policy.toml", "default_profile = \"danger-full-access\"\n");
    let refused = world.run(&folder, &["exec", "hello"]).exits(2);
    assert!(refused.err.contains("without a sandbox"), "{refused}");
    world.run(&folder, &["exec", "hello", "--sandbox", "read-only"]).exits(0);
    world.run(&folder, &["exec", "hello", "--profile", "danger-full-access"]).exits(0);
}

#[test]
fn rules_of_other_tools_answer_in_their_own_json() {
    let world = World::new();
    let rules =
        "prefix_rule(pattern=[\"git\", [\"push\", \"fetch\"]], decision=\"prompt\", justification=\"ask first\")\n";
    let folder = world.folder("work", &[("team.rules", rules)]);
    let check = |words: &[&str]| {
        let words = [&["policy", "check", "--rules", "team.rules", "--"], words].concat();
        world.run(&folder, &words).exits(0).out
    };
    assert_eq!(
        check(&["git", "push", "--force"]),
        "{\"matchedRules\":[{\"prefixRuleMatch\":{\"matchedPrefix\":[\"git\",\"push\"],\"decision\":\"prompt\",\
         \"justification\":\"ask first\"}}],\"decision\":\"prompt\"}\n"
    );
    assert_eq!(check(&["ls"]), "{\"matchedRules\":[]}\n");
}
