//! Permissions that are remembered: for whom, for which commands, until when, and what they cannot do.

use crate::{
    approvals::{asked, waits},
    world::{Fault, Faulty, World, dies, eventually},
};
use adj_domain::{
    ApprovalPolicy, ApprovalResult, EventId, Grant, GrantScope, GrantSubject, SessionEvent, SessionId, Timestamp,
    Verdict, WorkspaceSpec,
};
use adj_engine::{Answer, Engine, NewSession, TurnEnd};
use std::{fs, sync::Arc, time::Duration};

/// The agent runs what it is told as a command.
const SHELL: &str = r#"
  - when: {step: 0, input: "(?s)^(?P<command>.*)$"}
    calls: [{tool: bash, input: {command: "{{command}}"}}]
  - {when: {after_tool: bash}, say: done}
"#;

const HOUR: Duration = Duration::from_secs(3600);

fn grant(name: &str, subject: GrantSubject, scope: GrantScope, lasts: Duration) -> Grant {
    let until = Timestamp::now() + lasts;
    Grant { id: EventId::derive(&["grant", name]), subject, scope, until, by: "somebody".to_owned() }
}

fn prefix(words: &[&str]) -> GrantSubject {
    GrantSubject::Command { prefix: words.iter().map(|word| (*word).to_owned()).collect() }
}

fn here(world: &World) -> GrantScope {
    GrantScope::Repository { path: world.work_dir().to_str().unwrap().to_owned() }
}

/// A new session that is told to run one command.
async fn runs(world: &mut World, engine: &Engine, command: &str) -> TurnEnd {
    let new = NewSession { approval: ApprovalPolicy::Untrusted, ..world.new_session() };
    runs_as(world, engine, command, new).await
}

async fn runs_as(world: &mut World, engine: &Engine, command: &str, new: NewSession) -> TurnEnd {
    world.id = SessionId::derive(&[world.id.as_str(), command]);
    engine.create(&world.id, new).await.unwrap();
    world.say(engine, command).await;
    world.work(engine).await.unwrap()
}

#[tokio::test]
async fn a_prefix_is_good_for_single_plain_commands_that_begin_with_it() {
    let mut world = World::new();
    let engine = world.engine(SHELL);
    let given = grant("touch", prefix(&["touch", "a"]), here(&world), HOUR);
    engine.give(given).await.unwrap();
    let cases = [
        // Nothing but the granted command, however it is written.
        ("touch a", true),
        ("touch a b c", true),
        ("touch  'a'", true),
        ("\"touch\" a", true),
        ("touch a; touch a b", true),
        ("touch a && ls", true),
        ("touch a >/dev/null", true),
        ("timeout 5 touch a", true),
        ("bash -c 'touch a'", true),
        // Something besides, or something else.
        ("touch", false),
        ("touch b", false),
        ("touch -- a", false),
        ("touch ab", false),
        ("touch a; touch b", false),
        ("touch a && touch b", false),
        ("touch a | tee b", false),
        ("touch a > b", false),
        ("touch a & touch b", false),
        ("touch a $(touch b)", false),
        ("touch a `touch b`", false),
        ("touch a <(touch b)", false),
        ("X=1 touch a", false),
        ("touch $A", false),
        ("touch a\ntouch b", false),
        ("./touch a", false),
        ("/tmp/touch a", false),
        ("bash -c 'touch a; touch b'", false),
        ("touch() { rm -f b; }; touch a", false),
        ("alias touch=rm; touch a", false),
        ("eval touch a", false),
        ("eval 'touch a; touch b'", false),
        ("echo a | xargs touch", false),
        // What a later line means depends on it.
        ("cd .. && touch a", false),
    ];
    for (command, runs_it) in cases {
        let end = runs(&mut world, &engine, command).await;
        assert_eq!(!waits(&end), runs_it, "{command}");
        let rulings: Vec<_> = world.events(&engine).await.into_iter().filter_map(layer).collect();
        assert_eq!(rulings[0] == (Verdict::Allow, "grant".to_owned()), runs_it, "{command}: {rulings:?}");
        assert!(!world.work_dir().join("b").exists() || runs_it, "{command}");
        let _ = fs::remove_file(world.work_dir().join("b"));
        engine.close(&world.id).await.unwrap();
    }
}

fn layer(event: SessionEvent) -> Option<(Verdict, String)> {
    match event {
        SessionEvent::PolicyDecided { ruling, .. } => Some((ruling.verdict, ruling.layer)),
        _ => None,
    }
}

#[tokio::test]
async fn a_grant_is_for_its_session_or_its_repository_and_has_an_end() {
    let mut world = World::new();
    let engine = world.engine(SHELL);
    assert!(waits(&runs(&mut world, &engine, "touch a").await));
    let asked_in = world.id.clone();
    let session = GrantScope::Session { id: asked_in.clone() };
    let short = Duration::from_millis(1500);
    engine.give(grant("session", prefix(&["touch", "a"]), session, HOUR)).await.unwrap();
    engine.give(grant("repository", prefix(&["touch", "b"]), here(&world), HOUR)).await.unwrap();
    engine.give(grant("short", prefix(&["touch", "c"]), here(&world), short)).await.unwrap();
    engine.give(grant("tool", GrantSubject::Tool { name: "write".to_owned() }, here(&world), HOUR)).await.unwrap();
    // What is open stays open: it was asked before.
    world.id = asked_in.clone();
    let (open, _) = asked(&world, &engine).await;
    let allow = Answer { result: ApprovalResult::Allow, message: None, by: "somebody".to_owned() };
    engine.answer(&world.id, &open, allow).await.unwrap();
    world.work(&engine).await.unwrap();
    assert!(!waits(&runs(&mut world, &engine, "touch c").await), "in time");
    for (command, is_asked) in [("touch a again", false), ("touch b", false), ("touch d", true)] {
        world.id = asked_in.clone();
        world.say(&engine, command).await;
        assert_eq!(waits(&world.work(&engine).await.unwrap()), is_asked, "{command} in the session");
    }
    assert!(waits(&runs(&mut world, &engine, "touch a").await), "another session");
    assert!(!waits(&runs(&mut world, &engine, "touch b").await), "another session on the same folder");
    let elsewhere = world.home.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let workspace = WorkspaceSpec::Direct { path: elsewhere.to_str().unwrap().to_owned() };
    let new = NewSession { workspace, approval: ApprovalPolicy::Untrusted, ..world.new_session() };
    assert!(waits(&runs_as(&mut world, &engine, "touch b", new).await), "another folder");
    tokio::time::sleep(short).await;
    assert!(waits(&runs(&mut world, &engine, "touch c").await), "too late");
    engine.close_all().await.unwrap();
}

#[tokio::test]
async fn policy_bounds_how_long_a_grant_may_hold() {
    for (longest, lasts, is_asked) in [
        ("2h", HOUR, false),
        ("30m", HOUR, true),
        ("0", HOUR, true),
        ("30m", Duration::from_secs(60), false),
        ("400d", HOUR * 24 * 300, true), // 30 days is the most anywhere
    ] {
        let mut world = World::new();
        let engine = world.engine(SHELL);
        engine.give(grant("touch", prefix(&["touch"]), here(&world), lasts)).await.unwrap();
        // The policy grows stricter afterwards.
        world.policy(&format!("longest_grant = \"{longest}\"\n"));
        drop(engine);
        world.next_process();
        let engine = world.engine_on(Arc::new(world.memory.clone()), "node_2", SHELL);
        assert_eq!(waits(&runs(&mut world, &engine, "touch a").await), is_asked, "{longest} {lasts:?}");
        engine.close_all().await.unwrap();
    }
}

#[tokio::test]
async fn no_grant_overrides_a_denial() {
    let forbids = "[[rules]]\npattern = [\"touch\", \"a\"]\ndecision = \"forbidden\"\n";
    let cases = [
        (forbids, "touch a", true),
        (forbids, "touch b", false),
        (forbids, "touch b; touch a", true),
        (forbids, "touch b; X=$(touch a)", true),
        ("[tools]\nbash = \"deny\"\n", "touch b", true),
    ];
    for (policy, command, is_denied) in cases {
        let mut world = World::new();
        world.policy(policy);
        let engine = world.engine(SHELL);
        engine.give(grant("prefix", prefix(&["touch"]), here(&world), HOUR)).await.unwrap();
        engine.give(grant("tool", GrantSubject::Tool { name: "bash".to_owned() }, here(&world), HOUR)).await.unwrap();
        let end = runs(&mut world, &engine, command).await;
        assert!(!waits(&end), "{command}");
        let ruling = world.events(&engine).await.into_iter().find_map(layer).unwrap();
        let expected = if is_denied { (Verdict::Deny, "administrator") } else { (Verdict::Allow, "grant") };
        assert_eq!((ruling.0, ruling.1.as_str()), expected, "{command}");
        assert!(!world.work_dir().join("a").exists(), "{command}");
        assert_eq!(world.work_dir().join("b").exists(), !is_denied, "{command}");
        engine.close_all().await.unwrap();
    }
}

/// Two commands of one answer: the grant is taken back while the first is under way, so the second is asked about.
#[tokio::test]
async fn a_grant_that_is_taken_back_is_not_used_by_what_waits_for_its_turn() {
    let world = World::new();
    let engine = world.engine(
        r#"
  - when: {after_tool: bash}
    say: done
  - calls:
    - {tool: bash, input: {command: "touch a; until ls go; do sleep 0.02; done"}}
    - {tool: bash, input: {command: "touch b"}}
"#,
    );
    let loops = grant("loop", GrantSubject::Tool { name: "bash".to_owned() }, here(&world), HOUR);
    engine.give(loops.clone()).await.unwrap();
    engine.give(loops.clone()).await.unwrap();
    assert_eq!(engine.grants().await.unwrap().standing, std::slice::from_ref(&loops), "twice is once");
    let new = NewSession { approval: ApprovalPolicy::Untrusted, ..world.new_session() };
    engine.create(&world.id, new).await.unwrap();
    world.say(&engine, "go").await;
    let revoking = async {
        eventually(|| world.work_dir().join("a").exists()).await;
        assert!(engine.revoke(&loops.id, "somebody").await.unwrap());
        assert!(!engine.revoke(&loops.id, "somebody").await.unwrap(), "it stands no longer");
        fs::write(world.work_dir().join("go"), "").unwrap();
    };
    let (end, ()) = tokio::join!(world.work(&engine), revoking);
    let rulings: Vec<_> = world.events(&engine).await.into_iter().filter_map(layer).collect();
    assert!(waits(&end.unwrap()), "{rulings:?} {}", world.story(&engine).await);
    assert!(!world.work_dir().join("b").exists());
    assert_eq!(engine.grants().await.unwrap().standing, []);
    engine.close_all().await.unwrap();
}

/// Many faces of one process, and of another, remember at the same time.
#[tokio::test]
async fn grants_that_come_at_once_are_all_remembered() {
    let world = World::new();
    let engines = [world.engine(SHELL), world.engine_on(Arc::new(world.memory.another_process()), "node_2", SHELL)];
    let mut giving = tokio::task::JoinSet::new();
    for number in 0..24 {
        let engine = engines[number % 2].clone();
        let given = grant(&number.to_string(), prefix(&["touch"]), here(&world), HOUR);
        giving.spawn(async move {
            engine.give(given.clone()).await.unwrap();
            if number % 3 == 0 {
                assert!(engine.revoke(&given.id, "somebody").await.unwrap());
            }
        });
    }
    while let Some(given) = giving.join_next().await {
        given.unwrap();
    }
    for engine in &engines {
        assert_eq!(engine.grants().await.unwrap().standing.len(), 16);
    }
}

/// Who gives a permission, or takes it back, may die after any write: said once more, it is as if nothing had been.
#[tokio::test]
async fn grants_are_whole_whichever_write_a_process_dies_after() {
    for writes in 1.. {
        let mut world = World::new();
        let given = grant("touch", prefix(&["touch"]), here(&world), HOUR);
        let other = grant("other", prefix(&["ls"]), here(&world), HOUR);
        let faulty = Faulty::new(&world.memory, Fault::DeadAfterWrites(writes));
        let engine = world.engine_on(faulty.clone(), "node_1", SHELL);
        let living = async {
            engine.give(given.clone()).await.unwrap();
            engine.give(other.clone()).await.unwrap();
            engine.revoke(&given.id, "somebody").await.unwrap();
        };
        let died = tokio::select! {
            () = living => false,
            () = eventually(|| faulty.has_happened()) => true,
        };
        dies(engine, faulty).await;
        world.next_process();
        let engine = world.engine_on(Arc::new(world.memory.clone()), "node_2", SHELL);
        engine.give(other.clone()).await.unwrap();
        engine.revoke(&given.id, "somebody").await.unwrap();
        assert_eq!(engine.grants().await.unwrap().standing, std::slice::from_ref(&other), "{writes}");
        if !died {
            assert!(writes > 8, "{writes} writes");
            return;
        }
    }
}
