//! Words and wishes that arrive while a turn is under way.

use crate::world::World;
use adj_domain::{Content, IdleReason, SessionEvent};
use adj_engine::Interrupt;

#[tokio::test]
async fn an_interrupt_ends_the_turn_after_the_step_it_is_in() {
    let world = World::new();
    let engine = world.alone(
        r#"
rules:
  - when: {input: go on}
    say: went on
  - when: {after_tool: bash}
    say: never asked
  - calls: [{tool: bash, input: {command: "touch begun; sleep 0.3; echo whole > made.txt"}}]
"#,
    );
    world.create(&engine).await;
    world.send(&engine, "begin").await;
    let interrupt = Interrupt::new();
    let asking = async {
        crate::world::eventually("the command begins", || world.tree().join("begun").exists()).await;
        interrupt.ask();
    };
    let (end, ()) = tokio::join!(engine.work(&world.id, &interrupt), asking);
    assert_eq!(end.unwrap().reason, Some(IdleReason::Interrupted));
    assert_eq!(world.read("made.txt"), "whole\n", "the step came to its end");
    let story = world.story(&engine).await;
    assert!(story.ends_with("user.interrupt agent.tool_result session.usage session.status_idle"), "{story}");

    // What is said while nobody may work waits, and is taken up later.
    world.send(&engine, "go on").await;
    let end = engine.work(&world.id, &interrupt).await.unwrap();
    assert_eq!((end.reason, end.waits, end.turns), (Some(IdleReason::Interrupted), true, 1));
    let end = engine.work(&world.id, &Interrupt::new()).await.unwrap();
    assert_eq!((end.last_message.as_deref(), end.waits, end.turns), (Some("went on"), false, 2));
    engine.close(&world.id).await.unwrap();
}

#[tokio::test]
async fn what_is_said_during_a_turn_is_taken_up_after_the_step() {
    let world = World::new();
    let engine = world.alone(
        r#"
rules:
  - when: {after_tool: bash, input: "and this"}
    say: both
  - when: {after_tool: bash}
    say: one
  - calls: [{tool: bash, input: {command: "touch begun; while ! test -e go; do sleep 0.01; done"}}]
"#,
    );
    world.create(&engine).await;
    world.send(&engine, "this").await;
    let steering = async {
        crate::world::eventually("the command begins", || world.tree().join("begun").exists()).await;
        world.send(&engine, "and this").await;
        std::fs::write(world.tree().join("go"), "").unwrap();
    };
    let interrupt = Interrupt::new();
    let (end, ()) = tokio::join!(engine.work(&world.id, &interrupt), steering);
    let end = end.unwrap();
    assert_eq!((end.last_message.as_deref(), end.turns), (Some("both"), 1));
    world.story(&engine).await;
    engine.close(&world.id).await.unwrap();
}

#[tokio::test]
async fn what_is_said_while_a_turn_ends_begins_the_next() {
    let world = World::new();
    let engine = world.alone("rules: [{when: {input: late}, say: heard}, {delay_ms: 200, say: done}]");
    world.create(&engine).await;
    world.send(&engine, "begin").await;
    let steering = async {
        world.until(&engine, "span.model_request_start").await;
        world.send(&engine, "late").await;
    };
    let interrupt = Interrupt::new();
    let (end, ()) = tokio::join!(engine.work(&world.id, &interrupt), steering);
    let end = end.unwrap();
    assert_eq!((end.last_message.as_deref(), end.turns), (Some("heard"), 2));
    let said: Vec<String> = world
        .events(&engine)
        .await
        .iter()
        .filter_map(|event| match event.session_event().unwrap() {
            SessionEvent::UserMessage { content, .. } => Some(Content::join_text(&content)),
            _ => None,
        })
        .collect();
    assert_eq!(said, ["begin", "late"]);
}
