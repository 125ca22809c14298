//! What comes out of the sandbox, and what happens when there is none.

use crate::world::{ONE_COMMAND, World};
use adj_domain::{Content, IdleReason, SessionEvent};
use adj_engine::{EngineError, Interrupt, Live};
use tokio::sync::broadcast::error::TryRecvError;

#[tokio::test]
async fn a_large_output_is_kept_whole_beside_the_log() {
    let world = World::new();
    let engine = world.alone(
        "rules: [{when: {after_tool: bash}, say: done}, {calls: [{tool: bash, input: {command: seq 1 20000}}]}]",
    );
    world.create(&engine).await;
    world.send(&engine, "begin").await;
    engine.work(&world.id, &Interrupt::new()).await.unwrap();
    let event = world.until(&engine, "agent.tool_result").await;
    let SessionEvent::AgentToolResult { content, full_output, .. } = event.session_event().unwrap() else {
        unreachable!()
    };
    let shown = Content::join_text(&content);
    assert!(shown.len() < 40_000, "{}", shown.len());
    assert!(shown.starts_with("1\n2\n") && shown.ends_with("20000\n"), "{shown}");
    let full = engine.store().get_blob(&full_output.unwrap()).await.unwrap().unwrap();
    let expected: String = (1..=20_000).map(|number| format!("{number}\n")).collect();
    assert_eq!(String::from_utf8(full).unwrap(), expected);
    engine.close(&world.id).await.unwrap();
}

#[tokio::test]
async fn without_its_sandbox_nothing_runs_and_people_are_told() {
    let world = World::new();
    let engine = world.alone(ONE_COMMAND);
    world.create(&engine).await;
    std::fs::remove_dir(world.tree()).unwrap();
    world.send(&engine, "begin").await;
    let failed = engine.work(&world.id, &Interrupt::new()).await;
    assert!(matches!(failed, Err(EngineError::Toolbox(_))), "{failed:?}");
    assert!(world.answers(&engine).await.is_empty(), "the model is not told of it");
    let log = adj_domain::LogId::from(world.id.clone());
    assert_eq!(engine.store().log(&log).await.unwrap().unwrap().holder, None, "the log was given back");

    std::fs::create_dir(world.tree()).unwrap();
    let end = engine.work(&world.id, &Interrupt::new()).await.unwrap();
    assert_eq!((end.reason, end.tool_calls), (Some(IdleReason::EndTurn), 1));
    assert_eq!(world.read("made.txt"), "line\n");
    world.story(&engine).await;
    engine.close(&world.id).await.unwrap();
}

#[tokio::test]
async fn who_watches_slowly_misses_something_and_stops_nobody() {
    let world = World::new();
    let text = "x".repeat(5000);
    let engine = world.alone(&format!("rules: [{{say: {text}, chunk: 1}}]"));
    world.create(&engine).await;
    let mut live = engine.subscribe();
    world.send(&engine, "begin").await;
    let end = engine.work(&world.id, &Interrupt::new()).await.unwrap();
    assert_eq!(end.last_message, Some(text));
    assert!(matches!(live.try_recv(), Err(TryRecvError::Lagged(_))));
    let mut last = None;
    while let Ok(event) = live.try_recv() {
        last = Some(event);
    }
    assert!(matches!(last, Some(Live::Committed(event)) if event.kind == "session.status_idle"));
}
