//! Tool calls: what the layers come to.

use crate::world::{Call, now, policy};
use adj_domain::{
    ApprovalPolicy::{self, Never, OnRequest, Untrusted},
    EventId, Grant, GrantScope, GrantSubject, SandboxMode, ToolPermission,
    Verdict::{self, Allow, Ask, Deny},
};
use adj_policy::{
    LayerKind::{self, Administrator, Agent, Organisation, Repository},
    Policy,
};
use serde_json::json;
use std::time::Duration;

fn check(layers: &[(LayerKind, &str)], cases: &[(ApprovalPolicy, &str, Verdict, &str)]) {
    let policy = policy(layers);
    for (approval, command, expected, words) in cases {
        let ruling = Call::new(*approval).bash(&policy, command);
        let context = format!("{approval} `{command}`: {ruling:?}");
        assert_eq!(ruling.verdict, *expected, "{context}");
        assert!(format!("{}: {}", ruling.layer, ruling.rule).contains(words), "{context}");
    }
}

#[test]
fn without_a_rule_the_approval_policy_decides() {
    check(
        &[],
        &[
            (OnRequest, "cargo build", Allow, "built-in: sandbox workspace-write"),
            (Never, "cargo build", Allow, "built-in"),
            (
                Untrusted,
                "cargo build",
                Ask,
                "call: approval policy untrusted: `cargo build` is not known to be harmless",
            ),
            (Untrusted, "ls -la", Allow, "built-in"),
            (Untrusted, "ls && cat README.md | head -3", Allow, "built-in"),
            (Untrusted, "ls && rm -r target", Ask, "`rm -r target`"),
            (Untrusted, "sh -c 'rm -r target'", Ask, "rm -r target"),
            (Untrusted, "echo one > file", Ask, "echo one"),
            (Untrusted, "$PROGRAM --now", Ask, "is not known to be harmless"),
            (Untrusted, "source ./settings", Ask, "is not known to be harmless"),
            (OnRequest, "$PROGRAM --now", Allow, "built-in"),
            (Never, "eval \"$TEXT\"", Allow, "built-in"),
        ],
    );
}

#[test]
fn the_strictest_rule_of_all_layers_holds() {
    let administrator = r#"
        [[rules]]
        pattern = ["git", "push"]
        decision = "forbidden"
        justification = "pushes go through the merge queue"
    "#;
    let organisation = r#"
        rules = [
            { pattern = ["git", ["push", "fetch"]], decision = "prompt" },
            { pattern = ["cargo", "publish"], decision = "prompt" },
            { pattern = ["cargo"], decision = "allow" },
        ]
    "#;
    let repository = r#"rules = [{ pattern = ["make"] }, { pattern = ["git", "push"] }, { pattern = ["npm"], decision = "prompt" }]"#;
    let layers = [(Administrator, administrator), (Organisation, organisation), (Repository, repository)];
    check(
        &layers,
        &[
            (OnRequest, "git push", Deny, "administrator: forbidden `git push`"),
            (OnRequest, "cd src && git push --force", Deny, "administrator"),
            (OnRequest, "echo $(git push)", Deny, "administrator"),
            (OnRequest, "sh -c 'git push'", Deny, "administrator"),
            (OnRequest, "env A=1 xargs git push", Deny, "administrator"),
            (OnRequest, "timeout 5 git push", Deny, "administrator"),
            (OnRequest, "/usr/bin/git push", Deny, "administrator"),
            (OnRequest, "git fetch", Ask, "organisation: prompt `git [push|fetch]`"),
            (Never, "git fetch", Deny, "organisation: approval policy never: prompt"),
            (OnRequest, "git $WHAT", Ask, "might be about what only the shell can tell"),
            (OnRequest, "ls $HOME", Allow, "built-in"),
            (OnRequest, "$GIT push", Ask, "might be about what only the shell can tell"),
            (OnRequest, "eval \"$TEXT\"", Ask, "administrator: the command line cannot be read"),
            (Never, "eval \"$TEXT\"", Deny, "approval policy never"),
            (OnRequest, "eval \"$TEXT\"; git push", Deny, "administrator: forbidden"),
            // What is trusted spares the question of the approval policy, and no other.
            (Untrusted, "cargo build", Allow, "organisation: allow `cargo`"),
            (Untrusted, "cargo publish", Ask, "organisation: prompt `cargo publish`"),
            (Untrusted, "FEATURES=1 cargo build", Ask, "call: approval policy untrusted"),
            (Untrusted, "cargo build > log", Ask, "call: approval policy untrusted"),
            (Untrusted, "cargo build > /dev/null", Allow, "organisation: allow `cargo`"),
            (Untrusted, "/tmp/cargo build", Ask, "call: approval policy untrusted"),
            (Untrusted, "make", Ask, "call: approval policy untrusted"),
            (Untrusted, "npm install", Ask, "repository: prompt `npm`"),
            (OnRequest, "npm install", Ask, "repository: prompt `npm`"),
        ],
    );
    let ruling = Call::new(OnRequest).bash(&policy(&layers), "git push");
    assert_eq!(ruling.file.as_deref(), Some("/administrator.toml"));
    assert_eq!(ruling.line, Some(2));
    assert_eq!(ruling.justification.as_deref(), Some("pushes go through the merge queue"));
}

#[test]
fn every_voice_can_be_heard() {
    let policy = policy(&[
        (Organisation, r#"rules = [{ pattern = ["make"], decision = "prompt" }]"#),
        (Repository, "rules = [{ pattern = [\"make\"] }]\n[tools]\nbash = \"always_allow\""),
    ]);
    let call = Call::new(Untrusted);
    let voices = policy.explain_call("bash", &json!({"command": "make"}), &call.context());
    let said: Vec<String> =
        voices.iter().map(|said| format!("{} {}: {}", said.verdict, said.layer, said.rule)).collect();
    assert_eq!(
        said,
        [
            "allow built-in: sandbox workspace-write",
            "allow repository: tools.bash: always_allow (no effect)",
            "ask organisation: prompt `make`",
            "allow repository: allow `make` (no effect: only an administrator's or an organisation's rule spares a question)",
            "ask call: approval policy untrusted: `make` is not known to be harmless",
            "ask organisation: prompt `make`",
        ]
    );
}

#[test]
fn tools_are_judged_by_mode_and_by_name() {
    let policy = policy(&[
        (
            Organisation,
            "[tools]\nwrite = \"always_ask\"\nsearch = \"deny\"\nedit = \"always_allow\"\nfetch = \"always_allow\"",
        ),
        (Repository, "[tools]\nread = \"always_ask\"\ngrep = \"always_allow\"\nfetch = \"auto\""),
    ]);
    let mut cases = vec![
        (OnRequest, SandboxMode::WorkspaceWrite, "write", Ask, "organisation: tools.write: always_ask"),
        (Never, SandboxMode::WorkspaceWrite, "write", Deny, "organisation: approval policy never"),
        (OnRequest, SandboxMode::WorkspaceWrite, "search", Deny, "organisation: tools.search: deny"),
        (OnRequest, SandboxMode::WorkspaceWrite, "read", Ask, "repository: tools.read: always_ask"),
        (Untrusted, SandboxMode::WorkspaceWrite, "glob", Allow, "built-in: sandbox workspace-write"),
        (Untrusted, SandboxMode::WorkspaceWrite, "edit", Allow, ""),
        (Untrusted, SandboxMode::WorkspaceWrite, "fetch", Ask, "approval policy untrusted: \"fetch\""),
        (Untrusted, SandboxMode::WorkspaceWrite, "apply_patch", Ask, "approval policy untrusted: \"apply_patch\""),
        (OnRequest, SandboxMode::WorkspaceWrite, "apply_patch", Allow, "built-in"),
    ];
    for tool in ["write", "edit", "apply_patch"] {
        cases.push((OnRequest, SandboxMode::ReadOnly, tool, Deny, "built-in: sandbox read-only: \""));
    }
    for (approval, mode, tool, expected, words) in cases {
        let ruling = Call { mode, ..Call::new(approval) }.tool(&policy, tool);
        let context = format!("{approval} {mode} {tool}: {ruling:?}");
        assert_eq!(ruling.verdict, expected, "{context}");
        assert!(format!("{}: {}", ruling.layer, ruling.rule).contains(words), "{context}");
    }
    let exact = Call { mode: SandboxMode::ReadOnly, ..Call::new(OnRequest) }.tool(&Policy::built_in(), "write");
    assert_eq!(exact.rule, "sandbox read-only: \"write\" changes files");
}

#[test]
fn an_agents_permissions_spare_only_the_approval_policys_question() {
    let rules = policy(&[(Organisation, r#"rules = [{ pattern = ["git"], decision = "prompt" }]"#)]);
    let narrowed = policy(&[(Agent, "[tools]\nbash = \"auto\"")]);
    let cases = [
        (&rules, ToolPermission::AlwaysAllow, Untrusted, "make", Allow),
        (&rules, ToolPermission::AlwaysAllow, Untrusted, "git push", Ask),
        (&rules, ToolPermission::AlwaysAllow, Untrusted, "eval $X", Ask),
        (&rules, ToolPermission::AlwaysAsk, OnRequest, "ls", Ask),
        (&rules, ToolPermission::AlwaysAsk, Never, "ls", Deny),
        (&rules, ToolPermission::Auto, Untrusted, "make", Ask),
        (&narrowed, ToolPermission::AlwaysAllow, Untrusted, "make", Ask),
    ];
    for (policy, permission, approval, command, expected) in cases {
        let mut call = Call::new(approval);
        call.permissions.insert("bash".to_owned(), permission);
        let ruling = call.bash(policy, command);
        assert_eq!(ruling.verdict, expected, "{permission} {approval} {command}: {ruling:?}");
    }
}

fn grant(subject: GrantSubject, path: &str, minutes: u64) -> Grant {
    Grant {
        id: EventId::derive(&["answer"]),
        subject,
        scope: GrantScope::Repository { path: path.to_owned() },
        until: now() + Duration::from_secs(minutes * 60),
        by: "ada".to_owned(),
    }
}

fn words(words: &[&str]) -> GrantSubject {
    GrantSubject::Command { prefix: words.iter().map(|word| (*word).to_owned()).collect() }
}

#[test]
fn a_grant_answers_the_question_that_it_is_about() {
    let policy = policy(&[(
        Organisation,
        "longest_grant = \"8h\"\nrules = [{ pattern = [\"git\", \"push\"], decision = \"prompt\" }, { pattern = [\"sudo\"], decision = \"forbidden\" }]",
    )]);
    let here = "/srv/project";
    let push = || words(&["git", "push"]);
    let tool = || GrantSubject::Tool { name: "bash".to_owned() };
    let cases = [
        (grant(push(), here, 60), "git push origin main", Allow),
        (grant(push(), here, 60), "git push origin $BRANCH", Allow),
        (grant(push(), here, 60), "git push; git push --force", Allow),
        (grant(push(), here, 60), "git push > log", Ask),
        (grant(push(), here, 60), "X=1 git push", Ask),
        (grant(push(), here, 60), "git push && $MORE", Ask),
        (grant(push(), here, 60), "git pushes", Allow),
        (grant(push(), here, 60), "/usr/bin/git push", Ask),
        (grant(push(), here, 60), "git push; sudo git push", Deny),
        (grant(push(), "/srv/other", 60), "git push", Ask),
        (grant(push(), here, 0), "git push", Ask),
        (grant(push(), here, 9 * 60), "git push", Ask),
        (grant(words(&[]), here, 60), "git push", Ask),
        (grant(words(&["git", "push", "origin"]), here, 60), "git push", Ask),
        (grant(words(&["sudo"]), here, 60), "sudo ls", Deny),
        (grant(tool(), here, 60), "git push && $MORE", Allow),
        (grant(tool(), here, 60), "sudo ls", Deny),
        (grant(GrantSubject::Tool { name: "write".to_owned() }, here, 60), "git push", Ask),
    ];
    for (grant, command, expected) in cases {
        let call = Call { grants: vec![grant], ..Call::new(OnRequest) };
        let ruling = call.bash(&policy, command);
        assert_eq!(ruling.verdict, expected, "{:?} `{command}`: {ruling:?}", call.grants);
    }
    let call = Call { grants: vec![grant(push(), here, 60)], ..Call::new(Untrusted) };
    let ruling = call.bash(&policy, "git push && make");
    assert_eq!((ruling.verdict, ruling.layer.as_str()), (Ask, "call"), "every command is judged by itself: {ruling:?}");
    let ruling = call.bash(&policy, "git push");
    assert_eq!((ruling.verdict, ruling.layer.as_str()), (Allow, "grant"), "{ruling:?}");
    assert!(ruling.rule.contains("given by ada"), "{ruling:?}");
    let ruling = Call { approval: Never, ..call }.bash(&policy, "git push");
    assert_eq!(ruling.verdict, Allow, "what is answered needs no question: {ruling:?}");
}

#[test]
fn no_grant_outlasts_a_policy_that_permits_none() {
    let policy = policy(&[(Administrator, "longest_grant = \"0\"\n[tools]\nbash = \"always_ask\"")]);
    let call = Call { grants: vec![grant(words(&["ls"]), "/srv/project", 1)], ..Call::new(OnRequest) };
    assert_eq!(call.bash(&policy, "ls").verdict, Ask);
}

#[test]
fn modes_and_approval_policies_are_what_every_layer_permits() {
    let policy = policy(&[
        (
            Administrator,
            "allowed_sandbox_modes = [\"read-only\", \"workspace-write\"]\nallowed_approval_policies = [\"untrusted\", \"on-request\"]",
        ),
        (Organisation, "allowed_approval_policies = [\"untrusted\", \"never\"]"),
    ]);
    let cases = [(Untrusted, Untrusted, Allow), (OnRequest, Untrusted, Allow), (Never, Never, Deny)];
    for (asked, expected, verdict) in cases {
        let (found, ruling) = policy.approval(asked);
        assert_eq!((found, ruling.verdict), (expected, verdict), "{asked}: {ruling:?}");
    }
    let ruling = policy.mode(SandboxMode::DangerFullAccess);
    assert_eq!(ruling.verdict, Deny);
    assert_eq!(ruling.rule, "allowed_sandbox_modes: danger-full-access is not one of [read-only, workspace-write]");
    assert_eq!(policy.mode(SandboxMode::ReadOnly).verdict, Allow);

    // Whoever judges calls in spite of that gets nothing allowed.
    let danger = Call { mode: SandboxMode::DangerFullAccess, ..Call::new(OnRequest) };
    assert_eq!(danger.bash(&policy, "ls").verdict, Deny);
    assert_eq!(Call::new(Never).bash(&policy, "ls").verdict, Deny);
    assert_eq!(Call::new(OnRequest).bash(&policy, "make").verdict, Ask, "it is judged as untrusted");
}
