//! The door to the network, from a command in a real sandbox to a real socket outside.

use crate::{
    beyond::{Host, Loopback, THROUGH, begin, decided, host, runs},
    world::{Fault, Faulty, World, check_folds, dies, eventually, next},
};
use adj_domain::{
    Approval, ApprovalPolicy, ApprovalResult, Confinement, EventId, Grant, GrantScope, GrantSubject, IdleReason,
    NetworkRequest, SessionEvent, Timestamp, Verdict,
};
use adj_engine::{Answer, AnswerError, Engine, EngineError, Interrupt, NewSession, TurnEnd};
use std::{fs, sync::Arc, time::Duration};
use tokio::task::JoinHandle;

fn answer(result: ApprovalResult) -> Answer {
    Answer { result, message: None, by: "somebody".to_owned() }
}

fn works(world: &World, engine: &Engine) -> JoinHandle<Result<TurnEnd, EngineError>> {
    let (engine, id) = (engine.clone(), world.id.clone());
    tokio::spawn(async move { engine.work(&id, &Interrupt::new()).await })
}

/// The one host that people are asked about.
async fn question(world: &World, engine: &Engine) -> Approval {
    let session = engine.session(&world.id).await.unwrap();
    let [open] = session.approvals.as_slice() else { panic!("not one question: {:?}", session.approvals) };
    open.clone()
}

async fn count(world: &World, engine: &Engine, kind: &str) -> usize {
    world.events(engine).await.iter().filter(|event| event.name() == kind).count()
}

/// A rule by which people are asked about a host that the session lists.
const ASK: &str = "network_rule(host = \"ask.test\", protocol = \"https\", decision = \"prompt\")\n";

#[tokio::test]
async fn each_host_is_decided_about_and_each_decision_is_told() {
    let mut world = World::new();
    world.policy("[network]\ndenied_hosts = [\"denied.test\"]\n");
    let (open, other) = (Host::start().await, Host::start().await);
    let (port, shut) = (open.port, other.port);
    let knocks = [
        format!("open.test:{port}"),
        format!("open.test:{shut}"),
        format!("private.test:{shut}"),
        format!("denied.test:{shut}"),
        format!("unknown.test:{shut}"),
        format!("127.0.0.1:{port}"),
    ];
    let script = knocks.iter().map(|to| format!("knock {to}; ")).collect::<String>();
    // Around the door there is nothing.
    let script = format!("{script} (exec 3<>/dev/tcp/127.0.0.1/{port}) 2>/dev/null || echo nothing");
    let engine = world.engine(&runs(&script));
    let private = "private.test".to_owned();
    let hosts = vec![host("open.test", port), format!("{private}:{shut}").parse().unwrap(), host("denied.test", shut)];
    begin(&world, &engine, hosts, false).await;
    assert_eq!(world.work(&engine).await.unwrap().reason, Some(IdleReason::EndTurn));
    let results = world.results(&engine).await;
    let lines: Vec<&str> = results[0].lines().collect();
    let expected =
        [THROUGH, "403 ", "not public", "denied_hosts: denied.test", "is not listed", "is an address", "nothing"];
    assert_eq!(lines.len(), expected.len(), "{lines:?}");
    for (line, expected) in lines.iter().zip(expected) {
        assert!(line.contains(expected), "{line} has no {expected}");
    }
    assert_eq!((open.spoken(), other.spoken()), (1, 0));
    let layers = ["call", "call", "built-in", "administrator", "call", "built-in"];
    let verdicts = [Verdict::Allow].into_iter().chain([Verdict::Deny; 5]);
    let expected: Vec<_> = verdicts.zip(knocks).zip(layers).map(|((v, to), layer)| (v, to, layer.to_owned())).collect();
    assert_eq!(decided(&world, &engine).await, expected);
    // Where a file says it, the log tells which, and the line.
    let places = world.events(&engine).await.into_iter().filter_map(|event| match event {
        SessionEvent::NetworkDecided { ruling, .. } => Some((ruling.file?, ruling.line?)),
        _ => None,
    });
    assert_eq!(places.collect::<Vec<_>>(), [("requirements.toml".to_owned(), 2)]);
    engine.close_all().await.unwrap();
}

/// Twenty connections at once are one question, and all of them wait for its answer.
#[tokio::test]
async fn a_command_waits_while_a_person_is_asked() {
    for result in [ApprovalResult::Allow, ApprovalResult::Deny] {
        let mut world = World::new();
        world.rules(ASK);
        let outside = Host::start().await;
        let to = format!("ask.test:{}", outside.port);
        let script = format!("for i in $(seq 20); do knock {to} > $i.txt & done; wait; cat [0-9]*.txt; knock {to}");
        let engine = world.engine(&runs(&script));
        begin(&world, &engine, vec![host("ask.test", outside.port)], false).await;
        let mut live = engine.subscribe();
        let working = works(&world, &engine);
        next(&mut live, "approval.requested").await;
        // All of them are at the door, and none is through.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let open = question(&world, &engine).await;
        assert_eq!((outside.spoken(), decided(&world, &engine).await), (0, Vec::new()));
        engine.answer(&world.id, &open.id, answer(result)).await.unwrap();
        let twice = engine.answer(&world.id, &open.id, answer(ApprovalResult::Allow)).await.unwrap_err();
        assert!(matches!(twice, EngineError::Answer(_)), "{twice:?}");
        assert_eq!(working.await.unwrap().unwrap().reason, Some(IdleReason::EndTurn));
        let results = world.results(&engine).await;
        let (through, wanted) = match result {
            ApprovalResult::Allow => (21, Verdict::Allow),
            ApprovalResult::Deny => (0, Verdict::Deny),
        };
        assert_eq!(results[0].lines().filter(|line| line.contains(THROUGH)).count(), through, "{results:?}");
        assert_eq!(results[0].lines().filter(|line| line.contains("nobody allowed it")).count(), 21 - through);
        assert_eq!(outside.spoken(), through);
        let told = decided(&world, &engine).await;
        assert_eq!((told.len(), told.iter().all(|(verdict, ..)| *verdict == wanted)), (21, true), "{told:?}");
        assert_eq!(count(&world, &engine, "approval.requested").await, 1, "{result:?}");
        check_folds(&world.id, &engine.events(&world.log()).await.unwrap());

        // What was allowed holds for the session, in another process too; a denial for its turn only.
        drop((live, engine));
        world.next_process();
        let engine = world.engine_on(Arc::new(world.memory.clone()), "node_2", &runs(&format!("knock {to}")));
        world.say(&engine, "again").await;
        let mut live = engine.subscribe();
        let working = works(&world, &engine);
        if result == ApprovalResult::Deny {
            next(&mut live, "approval.requested").await;
            let open = question(&world, &engine).await;
            engine.answer(&world.id, &open.id, answer(ApprovalResult::Allow)).await.unwrap();
        }
        working.await.unwrap().unwrap();
        assert!(world.results(&engine).await[1].contains(THROUGH), "{result:?}");
        let asked = count(&world, &engine, "approval.requested").await;
        assert_eq!(asked, if result == ApprovalResult::Allow { 1 } else { 2 });
        engine.close_all().await.unwrap();
    }
}

#[tokio::test]
async fn nobody_is_asked_where_policy_says_never_and_nobody_in_time_is_a_denial() {
    // Where nobody is asked, it is a denial at once.
    let mut world = World::new();
    world.rules(ASK);
    let outside = Host::start().await;
    let engine = world.engine(&runs(&format!("knock ask.test:{}", outside.port)));
    let network = NetworkRequest { hosts: vec![host("ask.test", outside.port)], ask: true };
    let confinement = Confinement { network: Some(network), ..Confinement::default() };
    let new = NewSession { confinement, approval: ApprovalPolicy::Never, ..world.new_session() };
    engine.create(&world.id, new).await.unwrap();
    world.say(&engine, "go").await;
    world.work(&engine).await.unwrap();
    assert!(world.results(&engine).await[0].contains("approval policy never"));
    assert_eq!(count(&world, &engine, "approval.requested").await, 0);
    engine.close_all().await.unwrap();

    let mut world = World::new();
    world.rules(ASK);
    world.policy("expire_approvals_after = \"300ms\"\n");
    let engine = world.engine(&runs(&format!("knock ask.test:{0}; knock ask.test:{0}", outside.port)));
    begin(&world, &engine, vec![host("ask.test", outside.port)], false).await;
    let mut live = engine.subscribe();
    let working = works(&world, &engine);
    next(&mut live, "approval.requested").await;
    let open = question(&world, &engine).await;
    working.await.unwrap().unwrap();
    assert_eq!(world.results(&engine).await[0].matches("nobody allowed it").count(), 2);
    assert_eq!((count(&world, &engine, "approval.expired").await, outside.spoken()), (1, 0));
    let late = engine.answer(&world.id, &open.id, answer(ApprovalResult::Allow)).await.unwrap_err();
    assert!(matches!(late, EngineError::Answer(AnswerError::NotAsked { .. })), "{late:?}");
    engine.close_all().await.unwrap();
}

/// Nothing goes out that is not in the log, also when it goes out while the turn is ending.
#[tokio::test]
async fn what_went_out_at_the_last_moment_is_in_the_log() {
    let mut world = World::new();
    world.upstream.resolver = Arc::new(Loopback { takes: Duration::from_millis(400) });
    let outside = Host::start().await;
    // The call is over while the name of its host is still looked up; that is found out while the end of the turn is written.
    let script = format!(
        "for i in $(seq 20); do exec {{fd}}<>/dev/tcp/127.0.0.1/3128 && \
         printf 'CONNECT open.test:{} HTTP/1.1\\r\\n\\r\\nhello\\n' >&$fd; done",
        outside.port
    );
    let rules = runs(&script);
    let faulty = Faulty::new(&world.memory, Fault::SlowAppend("session.status_idle", Duration::from_millis(800)));
    let engine = world.engine_on(faulty.clone(), "node_1", &rules);
    begin(&world, &engine, vec![host("open.test", outside.port)], false).await;
    world.work(&engine).await.unwrap();
    assert!(faulty.has_happened());
    // Read by another process: what only this one knows does not count.
    let other = world.engine_on(Arc::new(world.memory.another_process()), "node_2", &rules);
    let told = decided(&world, &other).await;
    let allowed = told.iter().filter(|(verdict, ..)| *verdict == Verdict::Allow).count();
    assert_eq!(allowed, 20);
    assert!(world.story(&engine).await.contains("session.status_idle network.decided"), "told after the end");
    check_folds(&world.id, &other.events(&world.log()).await.unwrap());
    engine.close_all().await.unwrap();
}

/// A command that a dead process left goes on. Its open connections ended with that process; new ones are let through by the next.
#[tokio::test]
async fn a_command_has_its_network_back_when_a_process_takes_over() {
    let mut world = World::new();
    let outside = Host::start().await;
    let to = format!("open.test:{}", outside.port);
    let script = format!(
        "knock {to}; exec 4<>/dev/tcp/127.0.0.1/3128; printf 'CONNECT {to} HTTP/1.1\\r\\n\\r\\n' >&4; head -2 <&4 >/dev/null; \
         touch first; until [ -e go ]; do sleep 0.02; done; (echo hello; cat) <&4 >&4 2>/dev/null; knock {to}; echo end"
    );
    let script = script.replace("(echo hello; cat) <&4 >&4 2>/dev/null", "cat <&4 2>/dev/null; echo ended");
    let rules = runs(&script);
    let engine = world.engine(&rules);
    begin(&world, &engine, vec![host("open.test", outside.port)], false).await;
    world.work_until_dead_when(&engine, || world.work_dir().join("first").exists()).await;
    drop(engine);
    // Nobody stands in the door: whoever knocks waits.
    fs::write(world.work_dir().join("go"), "").unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(outside.spoken(), 1);
    world.next_process();
    let engine = world.engine_on(Arc::new(world.memory.clone()), "node_2", &rules);
    assert_eq!(world.work(&engine).await.unwrap().reason, Some(IdleReason::EndTurn));
    let results = world.results(&engine).await;
    assert_eq!(results[0].lines().collect::<Vec<_>>(), [THROUGH, "ended", THROUGH, "end"]);
    assert_eq!((outside.spoken(), count(&world, &engine, "tool.started").await), (2, 1));
    engine.close_all().await.unwrap();
}

/// The process lives, the turn does not: who could write down what happens is gone, so nothing happens.
#[tokio::test]
async fn nothing_goes_out_while_no_turn_is_at_work() {
    let mut world = World::new();
    world.rules(ASK);
    let outside = Host::start().await;
    let (open, ask) = (format!("open.test:{}", outside.port), format!("ask.test:{}", outside.port));
    let script = format!(
        "touch first; until [ -e go ]; do sleep 0.02; done; knock {open} > open.txt; knock {ask}; touch second; \
         until [ -e on ]; do sleep 0.02; done; knock {open}"
    );
    let engine = world.engine(&runs(&script));
    begin(&world, &engine, vec![host("open.test", outside.port), host("ask.test", outside.port)], false).await;
    world.work_until_dead_when(&engine, || world.work_dir().join("first").exists()).await;
    fs::write(world.work_dir().join("go"), "").unwrap();
    eventually(|| world.work_dir().join("second").exists()).await;
    assert!(world.read("open.txt").contains("no turn is at work"), "{}", world.read("open.txt"));
    assert_eq!((outside.spoken(), decided(&world, &engine).await), (0, Vec::new()));
    let working = works(&world, &engine);
    // It has the door open before it looks for the call.
    tokio::time::sleep(Duration::from_millis(300)).await;
    fs::write(world.work_dir().join("on"), "").unwrap();
    working.await.unwrap().unwrap();
    let results = world.results(&engine).await;
    assert_eq!(results[0].lines().last(), Some(THROUGH), "{results:?}");
    assert!(results[0].lines().next().unwrap().contains("no turn is at work"), "{results:?}");
    assert_eq!((outside.spoken(), count(&world, &engine, "approval.requested").await), (1, 0));
    engine.close_all().await.unwrap();
}

/// A question about a host outlives the process that asked: its answer counts, and nobody is asked again.
#[tokio::test]
async fn a_question_about_a_host_outlives_its_process() {
    for is_answered_first in [true, false] {
        let mut world = World::new();
        world.rules(ASK);
        let outside = Host::start().await;
        let to = format!("ask.test:{}", outside.port);
        let rules = runs(&format!("knock {to}; until [ -e go ]; do sleep 0.02; done; knock {to}"));
        let engine = world.engine(&rules);
        begin(&world, &engine, vec![host("ask.test", outside.port)], false).await;
        let mut live = engine.subscribe();
        let working = works(&world, &engine);
        next(&mut live, "approval.requested").await;
        let open = question(&world, &engine).await;
        working.abort();
        assert!(working.await.unwrap_err().is_cancelled());
        drop((engine, live));
        world.next_process();
        let engine = world.engine_on(Arc::new(world.memory.clone()), "node_2", &rules);
        if is_answered_first {
            engine.answer(&world.id, &open.id, answer(ApprovalResult::Allow)).await.unwrap();
        }
        let working = works(&world, &engine);
        if !is_answered_first {
            eventually(|| !working.is_finished()).await;
            fs::write(world.work_dir().join("go"), "").unwrap();
            tokio::time::sleep(Duration::from_millis(300)).await;
            assert_eq!(question(&world, &engine).await.id, open.id);
            engine.answer(&world.id, &open.id, answer(ApprovalResult::Allow)).await.unwrap();
        }
        fs::write(world.work_dir().join("go"), "").unwrap();
        working.await.unwrap().unwrap();
        let results = world.results(&engine).await;
        assert_eq!(results[0].lines().last(), Some(THROUGH), "{results:?}");
        assert_eq!(count(&world, &engine, "approval.requested").await, 1, "{is_answered_first}");
        engine.close_all().await.unwrap();
    }
}

/// A grant is looked at for each connection, however long the command runs.
#[tokio::test]
async fn a_host_that_was_granted_is_closed_when_the_grant_is_taken_back() {
    let mut world = World::new();
    world.rules(ASK);
    let outside = Host::start().await;
    let to = format!("ask.test:{}", outside.port);
    let script = format!("knock {to}; touch first; until [ -e go ]; do sleep 0.02; done; knock {to}");
    let engine = world.engine(&runs(&script));
    let grant = Grant {
        id: EventId::derive(&["grant"]),
        subject: GrantSubject::Host { host: "ask.test".to_owned(), port: outside.port },
        scope: GrantScope::Session { id: world.id.clone() },
        until: Timestamp::now() + Duration::from_secs(3600),
        by: "somebody".to_owned(),
    };
    engine.give(grant.clone()).await.unwrap();
    begin(&world, &engine, vec![host("ask.test", outside.port)], false).await;
    let mut live = engine.subscribe();
    let working = works(&world, &engine);
    eventually(|| world.work_dir().join("first").exists()).await;
    assert_eq!(count(&world, &engine, "approval.requested").await, 0);
    assert!(engine.revoke(&grant.id, "somebody").await.unwrap());
    fs::write(world.work_dir().join("go"), "").unwrap();
    next(&mut live, "approval.requested").await;
    let open = question(&world, &engine).await;
    engine.answer(&world.id, &open.id, answer(ApprovalResult::Deny)).await.unwrap();
    working.await.unwrap().unwrap();
    assert_eq!(outside.spoken(), 1);
    let told = decided(&world, &engine).await;
    assert_eq!(
        told.iter().map(|(verdict, _, layer)| (*verdict, layer.as_str())).collect::<Vec<_>>(),
        [(Verdict::Allow, "grant"), (Verdict::Deny, "organisation")]
    );
    engine.close_all().await.unwrap();
}

/// A process dies after its every write, while a command waits for a host that somebody is asked about.
#[tokio::test]
async fn a_host_is_reached_only_when_allowed_whichever_write_a_process_dies_after() {
    for result in [ApprovalResult::Allow, ApprovalResult::Deny] {
        for writes in 1.. {
            let mut world = World::new();
            world.rules(ASK);
            let outside = Host::start().await;
            let rules = runs(&format!("echo ran >> ran.txt; knock ask.test:{}", outside.port));
            let faulty = Faulty::new(&world.memory, Fault::DeadAfterWrites(writes));
            let engine = world.engine_on(faulty.clone(), "node_1", &rules);
            let died = tokio::select! {
                () = lives(&world, &engine, outside.port, result) => false,
                () = eventually(|| faulty.has_happened()) => true,
            };
            dies(engine, faulty).await;
            world.next_process();
            let engine = world.engine_on(Arc::new(world.memory.clone()), "node_2", &rules);
            lives(&world, &engine, outside.port, result).await;
            let context = format!("{result:?} after {writes} writes");
            assert_eq!(world.read("ran.txt"), "ran\n", "{context}");
            assert_eq!(count(&world, &engine, "tool.started").await, 1, "{context}");
            let allowed = result == ApprovalResult::Allow;
            assert!(outside.spoken() <= usize::from(allowed), "{context}: {}", outside.spoken());
            assert!(count(&world, &engine, "approval.requested").await <= 1, "{context}");
            check_folds(&world.id, &engine.events(&world.log()).await.unwrap());
            engine.close_all().await.unwrap();
            if !died {
                assert!(writes > 12, "{writes} writes");
                assert_eq!(outside.spoken(), usize::from(allowed), "{context}");
                break;
            }
        }
    }
}

/// All that the session goes through, with somebody at hand who answers whatever is asked.
async fn lives(world: &World, engine: &Engine, port: u16, result: ApprovalResult) {
    begin(world, engine, vec![host("ask.test", port)], false).await;
    let answering = async {
        loop {
            for open in engine.session(&world.id).await.unwrap().approvals {
                match engine.answer(&world.id, &open.id, answer(result)).await {
                    Ok(()) | Err(EngineError::Answer(_)) => {}
                    Err(error) => panic!("{error:?}"),
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let end = tokio::select! {
        end = world.work(engine) => end.unwrap(),
        () = answering => unreachable!("it has no end"),
    };
    assert_eq!(end.reason, Some(IdleReason::EndTurn));
}
