//! What `adjutant policy`, `approvals` and `secret` say.

use super::Transcript;
use crate::{
    approvals::{SHELL, asks, only_question},
    support::World,
};
use std::fs;

const ORGANISATION: &str = r#"longest_grant = "8h"
[tools]
write = "always_ask"
[network]
hosts = ["@packages", "example.org"]
[limits]
memory = "1GiB"
[[rules]]
pattern = ["git", "push"]
decision = "prompt"
justification = "pushes are looked at"
"#;
const REPOSITORY: &str = r#"[filesystem]
hidden = ["**/.env"]
[[rules]]
pattern = ["git", "push", "--force"]
decision = "forbidden"
[[rules]]
pattern = ["cargo"]
decision = "allow"
"#;

#[test]
fn a_policy_is_shown_checked_and_explained() {
    let world = World::new();
    world.settings("policy.toml", ORGANISATION);
    let folder = world.folder("work", &[("wrong.toml", "[limits]\nmemory = \"2GB\"\n"), ("wrong.rules", WRONG_RULES)]);
    fs::create_dir_all(folder.join(".adjutant/rules")).expect("a folder can be made");
    fs::write(folder.join(".adjutant/policy.toml"), REPOSITORY).expect("it can be written");
    let rules = "prefix_rule(pattern=[\"ls\"], decision=\"allow\", match=[\"ls -l\"])\n";
    fs::write(folder.join(".adjutant/rules/team.rules"), rules).expect("it can be written");
    let mut transcript = Transcript::of(&world);
    let mut types = |words: &[&str]| transcript.types_at(&folder, &[&["policy"], words].concat());
    types(&["show"]);
    types(&["check"]);
    types(&["check", "wrong.toml"]);
    types(&["check", "wrong.rules"]);
    types(&["test"]);
    types(&["explain", "--", "cargo", "build"]);
    types(&["explain", "--", "make && git push --force"]);
    types(&["explain", "--approval", "untrusted", "--", "git push"]);
    types(&["explain", "--tool", "write"]);
    types(&["explain", "--profile", "packages", "--host", "crates.io"]);
    types(&["explain", "--allow-host", "paste.example.net", "--host", "paste.example.net"]);
    types(&["explain", "--host", "10.0.0.1"]);
    types(&["explain"]);
    insta::assert_snapshot!(transcript.end());
}

const WRONG_RULES: &str = "prefix_rule(pattern=[\"ls\"], decision=\"allow\", match=[\"rm -r x\"])\n";

#[test]
fn questions_and_grants_are_listed() {
    let world = World::playing(SHELL);
    let folder = world.folder("work", &[]);
    let mut transcript = Transcript::of(&world);
    transcript.types_at(&folder, &["approvals", "list"]);
    let words = ["exec", "--approval", "untrusted", "make install"];
    transcript.types_at(&folder, &words);
    let (id, session) = only_question(&world);
    for words in [
        &["approvals", "list"][..],
        &["approvals", "list", "--json"],
        &["approvals", "show", &id],
        &["approvals", "allow", "sevt_nothing"],
        &["approvals", "allow", &id, "--for", "1h"],
        &["approvals", "allow", &id, "--remember", "repository", "--for", "1h"],
        &["approvals", "allow", &id],
        &["approvals", "grants"],
        &["approvals", "grants", "--json"],
        &["approvals", "revoke", "sevt_nothing"],
    ] {
        transcript.types_at(&folder, words);
    }
    transcript.types_at(&folder, &["exec", "--resume", &session]);
    transcript.types_at(&folder, &["approvals", "allow", &id]);
    transcript.types_at(&folder, &["trace", "show", &session]);
    let text = transcript.end().replace(&crate::golden::account(), "ACCOUNT");
    insta::assert_snapshot!(text);
    asks(&world, &folder, "ls").exits(0);
}

#[test]
fn secrets_are_listed() {
    let world = World::new();
    let mut transcript = Transcript::of(&world);
    transcript.types(&["secret", "list"]);
    transcript.types(&["secret", "set", "token", "--host", "a.test"]);
    transcript.types(&["secret", "show", "token"]);
    transcript.types(&["secret", "remove", "token"]);
    transcript.types(&["secret", "set", "token", "--host", "10.1.2.3"]);
    insta::assert_snapshot!(transcript.end());
}
