//! Questions to people, while processes die, people answer twice, and the world changes under the question.

use crate::world::{Fault, Faulty, World, check_folds, dies, eventually};
use adj_domain::{
    ApprovalPolicy, ApprovalResult, ApprovalSubject, BlobHash, Confirmation, EventId, IdleReason, PendingInput,
    SessionEvent, SessionId, event::Input,
};
use adj_engine::{Answer, AnswerError, Engine, EngineError, Interrupt, NewSession, TurnEnd};
use adj_store::{ClaimError, Store};
use std::{fs, os::unix::fs::PermissionsExt, sync::Arc, time::Duration};

/// One command that is not known to be harmless.
const RULES: &str = r#"
  - when: {after_tool: bash}
    say: done
  - calls: [{tool: bash, input: {command: "echo ran >> ran.txt"}}]
"#;

/// Two commands in one answer.
const TWO: &str = r#"
  - when: {after_tool: bash}
    say: done
  - calls:
    - {tool: bash, input: {command: "echo one >> ran.txt"}}
    - {tool: bash, input: {command: "echo two >> ran.txt"}}
"#;

fn answer(result: ApprovalResult) -> Answer {
    Answer { result, message: None, by: "somebody".to_owned() }
}

const ALLOW: ApprovalResult = ApprovalResult::Allow;
const DENY: ApprovalResult = ApprovalResult::Deny;

/// Makes the session, one that asks before all that is not known to be harmless, and tells it to go.
async fn begin(world: &World, engine: &Engine) {
    let new = NewSession { approval: ApprovalPolicy::Untrusted, ..world.new_session() };
    engine.create(&world.id, new).await.unwrap();
    world.say(engine, "go").await;
}

/// Lets the session work until it asks, and tells under which id and binding.
pub async fn asked(world: &World, engine: &Engine) -> (EventId, BlobHash) {
    let end = world.work(engine).await.unwrap();
    assert!(waits(&end), "{end:?}");
    let session = engine.session(&world.id).await.unwrap();
    let [open] = session.approvals.as_slice() else { panic!("not one question: {:?}", session.approvals) };
    (open.id.clone(), open.binding().unwrap().clone())
}

pub fn waits(end: &TurnEnd) -> bool {
    matches!(end.reason, Some(IdleReason::RequiresAction { .. }))
}

/// Queues an answer as somebody would who has the store and no scruples.
async fn forge(world: &World, name: &str, approval: &EventId, binding: Option<&BlobHash>) {
    let answer = Confirmation {
        approval_id: approval.clone(),
        binding: binding.cloned(),
        result: ALLOW,
        deny_message: None,
        by: "a forger".to_owned(),
    };
    let input = PendingInput { id: EventId::derive(&["forged", name]), input: Input::Confirmation(answer) };
    world.memory.submit(&world.log(), &input).await.unwrap();
}

async fn count(world: &World, engine: &Engine, kind: &str) -> usize {
    world.events(engine).await.iter().filter(|event| event.name() == kind).count()
}

/// All that a session goes through, from the beginning or from wherever somebody else has left it.
async fn live(world: &World, engine: &Engine, result: Option<ApprovalResult>) -> TurnEnd {
    begin(world, engine).await;
    let end = world.work(engine).await.unwrap();
    if !waits(&end) {
        return end;
    }
    let open = engine.session(&world.id).await.unwrap().approvals[0].id.clone();
    let Some(result) = result else {
        tokio::time::sleep(SHORT).await;
        return world.work(engine).await.unwrap();
    };
    match engine.answer(&world.id, &open, answer(result)).await {
        Ok(()) | Err(EngineError::Answer(AnswerError::AlreadyAnswered { .. })) => {}
        Err(error) => panic!("{error:?}"),
    }
    world.work(engine).await.unwrap()
}

/// How long a question stands that nobody answers.
const SHORT: Duration = Duration::from_millis(30);

/// A process dies after its every write, and the one that takes over dies too; a third one comes to the end.
async fn check_crashes(result: Option<ApprovalResult>) {
    for writes in 1.. {
        let mut world = World::new();
        if result.is_none() {
            world.policy(&format!("expire_approvals_after = \"{}ms\"\n", SHORT.as_millis()));
        }
        let mut deaths = 0;
        for last in [writes, writes % 5 + 1] {
            let faulty = Faulty::new(&world.memory, Fault::DeadAfterWrites(last));
            let engine = world.engine_on(faulty.clone(), "node_1", RULES);
            let living = live(&world, &engine, result);
            tokio::select! {
                end = living => assert_eq!(end.reason, Some(IdleReason::EndTurn)),
                () = eventually(|| faulty.has_happened()) => deaths += 1,
            }
            dies(engine, faulty).await;
            world.next_process();
        }
        let engine = world.engine_on(Arc::new(world.memory.clone()), "node_3", RULES);
        let end = live(&world, &engine, result).await;
        let context = format!("{result:?} after {writes} writes and {deaths} deaths");
        assert_eq!((end.reason, end.last_message.as_deref()), (Some(IdleReason::EndTurn), Some("done")), "{context}");
        let ran = if result == Some(ALLOW) { "ran\n" } else { "" };
        assert_eq!(world.read("ran.txt"), ran, "{context}");
        assert_eq!(count(&world, &engine, "tool.started").await, usize::from(result == Some(ALLOW)), "{context}");
        let confirmed = count(&world, &engine, "user.tool_confirmation").await;
        let expired = count(&world, &engine, "approval.expired").await;
        assert_eq!((confirmed, expired), if result.is_some() { (1, 0) } else { (0, 1) }, "{context}");

        // The same answer once more, as it stands in the log, changes nothing.
        let before = check_folds(&world.id, &engine.events(&world.log()).await.unwrap());
        for event in world.events(&engine).await {
            if let SessionEvent::ApprovalRequested { subject: ApprovalSubject::Tool { tool_use_id, binding }, .. } =
                event
            {
                forge(&world, "again", &tool_use_id, Some(&binding)).await;
            }
        }
        let again = world.work(&engine).await.unwrap();
        assert_eq!(again.turns, end.turns, "{context}");
        let after = check_folds(&world.id, &engine.events(&world.log()).await.unwrap());
        assert_eq!((after.items, after.calls), (before.items, before.calls), "{context}");
        assert_eq!(world.read("ran.txt"), ran, "{context}");
        engine.close_all().await.unwrap();
        if deaths < 2 && writes > 5 {
            assert!(writes > 12, "{writes} writes");
            return;
        }
    }
}

#[tokio::test]
async fn what_was_allowed_runs_once_whichever_write_a_process_dies_after() {
    check_crashes(Some(ALLOW)).await;
}

#[tokio::test]
async fn what_was_denied_never_runs_whichever_write_a_process_dies_after() {
    check_crashes(Some(DENY)).await;
}

#[tokio::test]
async fn what_nobody_answered_never_runs_whichever_write_a_process_dies_after() {
    check_crashes(None).await;
}

#[tokio::test]
async fn the_first_answer_counts_and_only_that() {
    for (first, second) in [(ALLOW, ALLOW), (ALLOW, DENY), (DENY, ALLOW), (DENY, DENY)] {
        let world = World::new();
        let engine = world.engine(RULES);
        begin(&world, &engine).await;
        let (open, _) = asked(&world, &engine).await;
        engine.answer(&world.id, &open, answer(first)).await.unwrap();
        let twice = engine.answer(&world.id, &open, answer(second)).await.unwrap_err();
        assert!(matches!(twice, EngineError::Answer(AnswerError::AlreadyAnswered { .. })), "{twice:?}");
        world.work(&engine).await.unwrap();
        assert_eq!(world.read("ran.txt"), if first == ALLOW { "ran\n" } else { "" }, "{first:?} {second:?}");
        let late = engine.answer(&world.id, &open, answer(second)).await.unwrap_err();
        assert!(matches!(late, EngineError::Answer(AnswerError::NotAsked { .. })), "{late:?}");
        assert_eq!(count(&world, &engine, "user.tool_confirmation").await, 1);
        engine.close_all().await.unwrap();
    }
}

/// Two processes on one store: one holds the session, both are asked, both go on.
#[tokio::test]
async fn two_who_answer_at_once_do_not_run_it_twice() {
    for round in 0..8 {
        let world = World::new();
        let one = world.engine(RULES);
        let other = world.engine_on(Arc::new(world.memory.another_process()), "node_2", RULES);
        begin(&world, &one).await;
        let (open, _) = asked(&world, &one).await;
        let allow = async |engine: &Engine, result| {
            let answered = engine.answer(&world.id, &open, answer(result)).await;
            let worked = loop {
                match world.work(engine).await {
                    // The other one is at it.
                    Err(EngineError::Claim { source: ClaimError::Held { .. }, .. }) => {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                    worked => break worked,
                }
            };
            (answered, worked.unwrap().reason)
        };
        let results = if round % 2 == 0 { (ALLOW, ALLOW) } else { (ALLOW, DENY) };
        let (first, second) = tokio::join!(allow(&one, results.0), allow(&other, results.1));
        assert_eq!((&first.1, &second.1), (&Some(IdleReason::EndTurn), &Some(IdleReason::EndTurn)));
        assert_eq!(usize::from(first.0.is_ok()) + usize::from(second.0.is_ok()), 1, "{first:?} {second:?}");
        for refused in [&first.0, &second.0].into_iter().filter_map(|answered| answered.as_ref().err()) {
            assert!(matches!(refused, EngineError::Answer(_)), "{refused:?}");
        }
        let is_allowed = first.0.is_ok() || results.1 == ALLOW;
        assert_eq!(world.read("ran.txt"), if is_allowed { "ran\n" } else { "" }, "round {round}");
        assert_eq!(count(&world, &one, "user.tool_confirmation").await, 1);
        assert_eq!(count(&world, &one, "tool.started").await, usize::from(is_allowed));
        one.close_all().await.unwrap();
    }
}

#[tokio::test]
async fn what_changed_after_the_question_is_asked_again() {
    type Change = fn(&mut World);
    let changes: [(&str, Change); 6] = [
        ("a file", |world| fs::write(world.work_dir().join("a.txt"), "other\n").unwrap()),
        ("a new file", |world| fs::write(world.work_dir().join("new"), "").unwrap()),
        ("a lost file", |world| fs::remove_file(world.work_dir().join("a.txt")).unwrap()),
        ("a mode", |world| {
            fs::set_permissions(world.work_dir().join("a.txt"), fs::Permissions::from_mode(0o755)).unwrap();
        }),
        ("a link", |world| std::os::unix::fs::symlink("a.txt", world.work_dir().join("link")).unwrap()),
        ("policy", |world| world.policy("[network]\nask = false\n")),
    ];
    for (what, change) in changes {
        for is_answered_first in [true, false] {
            let mut world = World::new();
            let engine = world.engine(RULES);
            begin(&world, &engine).await;
            let (open, binding) = asked(&world, &engine).await;
            if is_answered_first {
                engine.answer(&world.id, &open, answer(ALLOW)).await.unwrap();
                change(&mut world);
            } else {
                change(&mut world);
                engine.answer(&world.id, &open, answer(ALLOW)).await.unwrap();
            }
            drop(engine);
            world.next_process();
            let engine = world.engine_on(Arc::new(world.memory.clone()), "node_2", RULES);
            let (again, other) = asked(&world, &engine).await;
            assert_eq!(again, open, "{what}: the same call is asked about");
            assert_ne!(other, binding, "{what}");
            let events = world.events(&engine).await;
            let reasons = events.iter().filter_map(|event| match event {
                SessionEvent::ApprovalRequested { again, .. } => Some(again.is_some()),
                _ => None,
            });
            assert_eq!(reasons.collect::<Vec<_>>(), [false, true], "{what}");
            assert_eq!(world.read("ran.txt"), "", "{what}");

            // Neither the old answer nor one to nothing in particular counts for the new question.
            forge(&world, "old", &open, Some(&binding)).await;
            forge(&world, "blank", &open, None).await;
            let end = world.work(&engine).await.unwrap();
            assert!(waits(&end), "{what}: {end:?}");
            assert_eq!(count(&world, &engine, "approval.answer_refused").await, 2, "{what}");
            assert_eq!(world.read("ran.txt"), "", "{what}");

            engine.answer(&world.id, &open, answer(ALLOW)).await.unwrap();
            world.work(&engine).await.unwrap();
            assert_eq!(world.read("ran.txt"), "ran\n", "{what}");
            engine.close_all().await.unwrap();
        }
    }
}

/// What was asked about under one policy does not run under another that forbids it, whoever allows it.
#[tokio::test]
async fn an_answer_does_not_outweigh_a_policy_that_forbids_the_call_meanwhile() {
    for is_answered_first in [true, false] {
        let mut world = World::new();
        let engine = world.engine(RULES);
        begin(&world, &engine).await;
        let (open, _) = asked(&world, &engine).await;
        if is_answered_first {
            engine.answer(&world.id, &open, answer(ALLOW)).await.unwrap();
        }
        drop(engine);
        world.next_process();
        world.policy("[[rules]]\npattern = [\"echo\"]\ndecision = \"forbidden\"\njustification = \"too loud\"\n");
        let engine = world.engine_on(Arc::new(world.memory.clone()), "node_2", RULES);
        if !is_answered_first {
            engine.answer(&world.id, &open, answer(ALLOW)).await.unwrap();
        }
        let end = world.work(&engine).await.unwrap();
        assert_eq!(end.reason, Some(IdleReason::EndTurn));
        assert_eq!(world.read("ran.txt"), "");
        let results = world.results(&engine).await;
        assert!(results[0].contains("too loud"), "{results:?}");
        let mut rulings = world.events(&engine).await.into_iter().filter_map(|event| match event {
            SessionEvent::PolicyDecided { ruling, .. } => Some(ruling.layer),
            _ => None,
        });
        assert_eq!(rulings.next_back().as_deref(), Some("administrator"));
        check_folds(&world.id, &engine.events(&world.log()).await.unwrap());
        engine.close_all().await.unwrap();
    }
}

#[tokio::test]
async fn an_answer_to_one_call_is_none_to_another() {
    let world = World::new();
    let engine = world.engine(TWO);
    begin(&world, &engine).await;
    let (first, binding) = asked(&world, &engine).await;
    engine.answer(&world.id, &first, answer(ALLOW)).await.unwrap();
    let (second, other) = asked(&world, &engine).await;
    assert_ne!((&first, &binding), (&second, &other));
    assert_eq!(world.read("ran.txt"), "one\n");
    forge(&world, "replayed", &first, Some(&binding)).await;
    forge(&world, "carried over", &second, Some(&binding)).await;
    forge(&world, "crossed", &first, Some(&other)).await;
    forge(&world, "invented", &EventId::derive(&["nothing"]), Some(&other)).await;
    let end = world.work(&engine).await.unwrap();
    assert!(waits(&end), "{end:?}");
    assert_eq!(count(&world, &engine, "approval.answer_refused").await, 4);
    assert_eq!(world.read("ran.txt"), "one\n");
    engine.answer(&world.id, &second, answer(DENY)).await.unwrap();
    assert_eq!(world.work(&engine).await.unwrap().reason, Some(IdleReason::EndTurn));
    assert_eq!(world.read("ran.txt"), "one\n");
    engine.close_all().await.unwrap();
}

#[tokio::test]
async fn an_answer_to_another_session_or_to_nothing_is_refused() {
    let mut world = World::new();
    let engine = world.engine(RULES);
    begin(&world, &engine).await;
    let (mine, _) = asked(&world, &engine).await;
    let first = std::mem::replace(&mut world.id, SessionId::derive(&["other"]));
    begin(&world, &engine).await;
    let (other, _) = asked(&world, &engine).await;
    for approval in [&mine, &EventId::derive(&["nothing"])] {
        let error = engine.answer(&world.id, approval, answer(ALLOW)).await.unwrap_err();
        assert!(matches!(error, EngineError::Answer(AnswerError::NotAsked { .. })), "{error:?}");
    }
    let nobody = SessionId::derive(&["nobody"]);
    let error = engine.answer(&nobody, &other, answer(ALLOW)).await.unwrap_err();
    assert!(matches!(error, EngineError::NoSession(_) | EngineError::Store(_)), "{error:?}");
    assert!(waits(&world.work(&engine).await.unwrap()));
    world.id = first;
    assert!(waits(&world.work(&engine).await.unwrap()));
    assert_eq!(world.read("ran.txt"), "");
    engine.close_all().await.unwrap();
}

#[tokio::test]
async fn nobody_in_time_is_a_denial() {
    // While nobody is at work, and while somebody waits for the answer.
    for is_watched in [false, true] {
        let mut world = World::new();
        world.policy("expire_approvals_after = \"400ms\"\n");
        let engine = world.engine(RULES);
        begin(&world, &engine).await;
        let (open, binding) = asked(&world, &engine).await;
        if is_watched {
            let end = engine.work_with_people(&world.id, &Interrupt::new()).await.unwrap();
            assert_eq!(end.reason, Some(IdleReason::EndTurn));
        } else {
            tokio::time::sleep(Duration::from_millis(450)).await;
            let error = engine.answer(&world.id, &open, answer(ALLOW)).await.unwrap_err();
            assert!(matches!(error, EngineError::Answer(AnswerError::Expired { .. })), "{error:?}");
            assert_eq!(world.work(&engine).await.unwrap().reason, Some(IdleReason::EndTurn));
        }
        assert_eq!(count(&world, &engine, "approval.expired").await, 1);
        forge(&world, "late", &open, Some(&binding)).await;
        world.work(&engine).await.unwrap();
        let error = engine.answer(&world.id, &open, answer(ALLOW)).await.unwrap_err();
        assert!(matches!(error, EngineError::Answer(AnswerError::NotAsked { .. })), "{error:?}");
        assert_eq!((world.read("ran.txt"), count(&world, &engine, "tool.started").await), (String::new(), 0));
        engine.close_all().await.unwrap();
    }
}

/// People are asked once, however often the session is taken up, and by whom.
#[tokio::test]
async fn a_question_stays_open_when_its_process_dies() {
    let mut world = World::new();
    let engine = world.engine(RULES);
    begin(&world, &engine).await;
    let (open, binding) = asked(&world, &engine).await;
    let events = engine.events(&world.log()).await.unwrap().len();
    let mut engine = engine;
    for number in 2..5 {
        if number == 4 {
            // Nobody is at work when this comes.
            engine.answer(&world.id, &open, answer(ALLOW)).await.unwrap();
        }
        drop(engine);
        world.next_process();
        engine = world.engine_on(Arc::new(world.memory.clone()), &format!("node_{number}"), RULES);
        if number < 4 {
            assert_eq!(asked(&world, &engine).await, (open.clone(), binding.clone()));
            assert_eq!(engine.events(&world.log()).await.unwrap().len(), events);
        }
    }
    assert_eq!(world.work(&engine).await.unwrap().reason, Some(IdleReason::EndTurn));
    assert_eq!(world.read("ran.txt"), "ran\n");
    assert_eq!(count(&world, &engine, "approval.requested").await, 1);
    engine.close_all().await.unwrap();
}

/// What was allowed is written down as started, and then the process dies before anything runs.
#[tokio::test]
async fn an_allowance_that_nobody_came_to_use_holds_for_what_was_seen_too() {
    type Change = fn(&mut World);
    let forbids = |world: &mut World| world.policy("[[rules]]\npattern = [\"echo\"]\ndecision = \"forbidden\"\n");
    let changes: [(Change, &str); 4] = [
        (|_| {}, ""),
        (|world| fs::write(world.work_dir().join("a.txt"), "other\n").unwrap(), "has changed"),
        (|world| world.policy("[network]\nask = false\n"), "has changed"),
        (forbids, "not allowed any more"),
    ];
    for (change, expected) in changes {
        let mut world = World::new();
        let faulty = Faulty::new(&world.memory, Fault::DeadAfter("tool.started"));
        let engine = world.engine_on(faulty.clone(), "node_1", RULES);
        begin(&world, &engine).await;
        let (open, _) = asked(&world, &engine).await;
        engine.answer(&world.id, &open, answer(ALLOW)).await.unwrap();
        world.work_until_dead_when(&engine, || faulty.has_happened()).await;
        dies(engine, faulty).await;
        world.next_process();
        change(&mut world);
        let engine = world.engine_on(Arc::new(world.memory.clone()), "node_2", RULES);
        assert_eq!(world.work(&engine).await.unwrap().reason, Some(IdleReason::EndTurn));
        assert_eq!(world.read("ran.txt"), if expected.is_empty() { "ran\n" } else { "" }, "{expected}");
        let results = world.results(&engine).await;
        assert!(results[0].contains(expected), "{results:?}");
        engine.close_all().await.unwrap();
    }
}
