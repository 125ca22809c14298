//! What becomes of a session whose process, or whose sandbox, died.

use crate::world::{Fault, Faulty, World, eventually, message, next};
use adj_domain::{EventId, IdleReason, SessionEvent, ToolRequest};
use adj_engine::{Engine, EngineError, Interrupt};
use adj_sandbox::Finding;
use adj_store::{AppendError, ClaimError};
use serde_json::json;
use std::{sync::Arc, time::Duration};

const DONE: &str = "  - {when: {after_tool: [bash, read]}, say: done}\n";

fn with_call(command: &str) -> String {
    format!("{DONE}  - calls: [{{tool: bash, input: {{command: \"{command}\"}}}}]")
}

/// A second process on the same store, while the first is alive or after it.
fn second(world: &World, rules: &str) -> Engine {
    world.engine_on(Arc::new(world.memory.another_process()), "node_2", rules)
}

/// The id of the newest call.
async fn call_of(world: &World, engine: &Engine) -> EventId {
    let events = world.events(engine).await;
    let started = events.iter().rev().find_map(|event| match event {
        SessionEvent::ToolStarted { tool_use_id } => Some(tool_use_id.clone()),
        _ => None,
    });
    started.expect("a call was started")
}

async fn finding(world: &World, engine: &Engine) -> Finding {
    adj_sandbox::find(&world.supervisor(), call_of(world, engine).await.as_str()).unwrap()
}

#[tokio::test]
async fn a_session_is_one_processs_until_that_is_gone() {
    let mut world = World::new();
    let first = world.engine("  - {say: slow, delay_ms: 60000}");
    world.begin(&first).await;
    let other = second(&world, "  - say: quick");
    let mut live = first.subscribe();
    let (worker, id) = (first.clone(), world.id.clone());
    let task = tokio::spawn(async move { worker.work(&id, &Interrupt::new()).await });
    next(&mut live, "span.model_request_start").await;
    let error = world.work(&other).await.unwrap_err();
    assert!(matches!(error, EngineError::Claim { source: ClaimError::Held { .. }, .. }), "{error:?}");

    task.abort();
    let _ = task.await;
    // The process is gone with everything that holds its view of the store.
    drop(first);
    let memory = world.memory.another_process();
    world.memory = memory;
    let end = world.work(&other).await.unwrap();
    assert_eq!((end.reason, end.last_message.as_deref()), (Some(IdleReason::EndTurn), Some("quick")));
    assert!(world.story(&other).await.contains("session.resumed span.model_request_end span.model_request_start"));
}

#[tokio::test]
async fn two_in_one_process_work_one_after_the_other() {
    let world = World::new();
    let engine = world.engine("  - {say: slow, delay_ms: 200}");
    world.begin(&engine).await;
    let (first, second) = tokio::join!(world.work(&engine), world.work(&engine));
    let first = first.unwrap();
    assert_eq!((first.turns, first.model_requests), (1, 1));
    assert_eq!(second.unwrap(), first, "who comes second finds it done");
}

#[tokio::test]
async fn who_lost_a_session_cannot_write_to_it() {
    let world = World::new();
    let slow = world.engine("  - {say: slow, delay_ms: 300}");
    world.begin(&slow).await;
    let mut live = slow.subscribe();
    let (worker, id) = (slow.clone(), world.id.clone());
    let task = tokio::spawn(async move { worker.work(&id, &Interrupt::new()).await });
    next(&mut live, "span.model_request_start").await;
    // Another engine under the same node's name: nothing but the epoch tells the two apart.
    let end = world.work(&world.engine("  - say: quick")).await.unwrap();
    assert_eq!(end.last_message.as_deref(), Some("quick"));
    let error = task.await.unwrap().unwrap_err();
    assert!(matches!(error, EngineError::Append { source: AppendError::Fenced { .. }, .. }), "{error:?}");
    assert_eq!(world.story(&slow).await.matches("agent.message").count(), 1);
}

/// The first process dies when the call has been started in this sense; then something happens; then a second one takes over.
#[tokio::test]
async fn a_call_that_was_under_way_happens_once() {
    let once = with_call("echo x >> once.txt; sleep 0.3; cat once.txt");

    // Its end is on record.
    let world = World::new();
    let first = world.engine(&once);
    world.begin(&first).await;
    world.work_until_dead_when(&first, || world.read("once.txt") == "x\n").await;
    while finding(&world, &first).await == Finding::Running {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(matches!(finding(&world, &first).await, Finding::Done(_)));
    check_once(&world, &first, &once, "x\n").await;

    // It is still running.
    let world = World::new();
    let first = world.engine(&once);
    world.begin(&first).await;
    world.work_until_dead_when(&first, || world.read("once.txt") == "x\n").await;
    assert_eq!(finding(&world, &first).await, Finding::Running);
    check_once(&world, &first, &once, "x\n").await;

    // It never began, although the log says that it may have.
    let world = World::new();
    let faulty = Faulty::new(&world.memory, Fault::DeadAfter("tool.started"));
    let first = world.engine_on(faulty.clone(), "node_1", &once);
    world.begin(&first).await;
    world.work_until_dead_when(&first, || faulty.has_happened()).await;
    assert_eq!(finding(&world, &first).await, Finding::NotStarted);
    check_once(&world, &first, &once, "x\n").await;

    // Nobody can know.
    let world = World::new();
    let first = world.engine(&once);
    world.begin(&first).await;
    world.work_until_dead_when(&first, || world.read("once.txt") == "x\n").await;
    world.kill_supervisor().await;
    assert_eq!(finding(&world, &first).await, Finding::Unknown);
    check_once(&world, &first, &once, "It is not known whether this call took effect").await;
}

/// Lets the same node's next process take over; what the tool did was done once, and the model was told.
async fn check_once(world: &World, first: &Engine, rules: &str, result: &str) {
    let other = world.engine(rules);
    let end = world.work(&other).await.unwrap();
    assert_eq!(end.last_message.as_deref(), Some("done"));
    let results = world.results(&other).await;
    assert!(results.len() == 1 && results[0].starts_with(result), "{results:?}");
    assert_eq!(world.read("once.txt"), "x\n");
    assert!(world.story(&other).await.contains("session.resumed agent.tool_result span.model_request_start"));
    first.close_all().await.unwrap();
    other.close_all().await.unwrap();
}

#[tokio::test]
async fn a_call_that_only_looks_is_repeated_when_nobody_knows() {
    let world = World::new();
    let rules = format!("{DONE}  - calls: [{{tool: read, input: {{file_path: a.txt}}}}]");
    let faulty = Faulty::new(&world.memory, Fault::DeadAfter("tool.started"));
    let first = world.engine_on(faulty.clone(), "node_1", &rules);
    world.begin(&first).await;
    world.work_until_dead_when(&first, || faulty.has_happened()).await;
    // A supervisor wrote the call down and was killed in the middle of it: so long a look does not take, but a sleep does.
    let id = call_of(&world, &first).await;
    let supervisor = first.launcher().open(&world.supervisor(), &world.plan()).await.unwrap();
    let request = ToolRequest { name: "bash".to_owned(), input: json!({"command": "touch begun; sleep 60"}) };
    let request = adj_tools::WorkerRequest::new(request, world.work_dir());
    let killing = async {
        eventually(|| world.work_dir().join("begun").exists()).await;
        world.kill_supervisor().await;
    };
    let (call, ()) = tokio::join!(supervisor.call(id.as_str(), serde_json::to_vec(&request).unwrap()), killing);
    assert!(call.is_err());
    assert_eq!(finding(&world, &first).await, Finding::Unknown);
    let engine = world.engine(&rules);
    world.work(&engine).await.unwrap();
    assert_eq!(world.results(&engine).await, ["     1\talpha\n"]);
    engine.close_all().await.unwrap();
}

#[tokio::test]
async fn a_sandbox_with_another_plan_is_replaced() {
    let world = World::new();
    let rules = with_call("cat a.txt");
    let engine = world.engine(&rules);
    world.begin(&engine).await;
    let mut plan = world.plan();
    plan.env.insert("AN_OLDER_BUILD".to_owned(), "1".to_owned());
    drop(engine.launcher().open(&world.supervisor(), &plan).await.unwrap());
    world.work(&engine).await.unwrap();
    assert_eq!(world.results(&engine).await, ["alpha\n"]);
    engine.close_all().await.unwrap();
}

#[tokio::test]
async fn a_sandbox_that_died_between_two_calls_is_started_again() {
    let world = World::new();
    let engine = world.engine(&with_call("cat a.txt"));
    world.begin(&engine).await;
    world.work(&engine).await.unwrap();
    world.kill_supervisor().await;
    world.say(&engine, "again").await;
    let end = world.work(&engine).await.unwrap();
    assert_eq!((end.turns, end.last_message.as_deref()), (2, Some("done")));
    assert_eq!(world.results(&engine).await, ["alpha\n", "alpha\n"]);
    engine.close_all().await.unwrap();
}

#[tokio::test]
async fn a_sandbox_that_dies_under_a_call_is_told_of() {
    let world = World::new();
    let engine = world.engine(&with_call("echo x >> once.txt; sleep 30"));
    world.begin(&engine).await;
    let killing = async {
        eventually(|| world.read("once.txt") == "x\n").await;
        world.kill_supervisor().await;
    };
    let (end, ()) = tokio::join!(world.work(&engine), killing);
    assert_eq!(end.unwrap().last_message.as_deref(), Some("done"));
    assert!(world.results(&engine).await[0].starts_with("It is not known"));
    assert_eq!(world.read("once.txt"), "x\n");
    engine.close_all().await.unwrap();
}

#[tokio::test]
async fn a_message_at_the_last_moment_is_not_left_lying() {
    let world = World::new();
    let faulty = Faulty::new(&world.memory, Fault::MessageAtRelease(message("one more thing")));
    let engine = world.engine_on(faulty, "node_1", "  - {when: {input: one more}, say: both}\n  - say: one");
    engine.create(&world.id, world.new_session()).await.unwrap();
    // Making the session releases it too, and the message that comes then is the first.
    world.say(&engine, "go").await;
    let end = world.work(&engine).await.unwrap();
    assert_eq!(end.last_message.as_deref(), Some("both"));

    let world = World::new();
    let engine = world.engine("  - {when: {input: one more}, say: both}\n  - say: one");
    world.begin(&engine).await;
    let faulty = Faulty::new(&world.memory, Fault::MessageAtRelease(message("one more thing")));
    let engine = world.engine_on(faulty, "node_1", "  - {when: {input: one more}, say: both}\n  - say: one");
    let end = world.work(&engine).await.unwrap();
    assert_eq!((end.turns, end.last_message.as_deref()), (2, Some("both")));
}
