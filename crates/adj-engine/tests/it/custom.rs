//! Tools that the session's user runs, and interrupts that wait in the queue, while processes die.

use crate::world::{Fault, Faulty, World, check_folds, dies, eventually, next};
use adj_domain::{Content, EventId, IdleReason, PendingInput, ToolSpec, event::Input};
use adj_engine::{Engine, TurnEnd};
use serde_json::json;
use std::{sync::Arc, time::Duration};

const RULES: &str = r#"
  - when: {after_tool: ask_user}
    say: done
  - calls:
    - {tool: ask_user, input: {question: "why?"}}
    - {tool: bash, input: {command: "echo ran >> ran.txt"}}
"#;

async fn begin(world: &World, engine: &Engine) {
    let mut new = world.new_session();
    new.agent.custom_tools = vec![ToolSpec {
        name: "ask_user".to_owned(),
        description: "Asks whoever uses the session.".to_owned(),
        input_schema: json!({"type": "object"}),
    }];
    engine.create(&world.id, new).await.unwrap();
    world.say(engine, "go").await;
}

async fn put(world: &World, engine: &Engine, name: &str, input: Input) {
    engine.send(&world.id, &PendingInput { id: EventId::derive(&[name]), input }).await.unwrap();
}

async fn answer(world: &World, engine: &Engine, end: &TurnEnd) {
    let Some(IdleReason::RequiresAction { event_ids }) = &end.reason else { panic!("it does not wait: {end:?}") };
    let [call] = event_ids.as_slice() else { panic!("not one call waits: {event_ids:?}") };
    let content = vec![Content::text("because")];
    put(
        world,
        engine,
        "result",
        Input::CustomToolResult { custom_tool_use_id: call.clone(), content, is_error: false },
    )
    .await;
}

/// All that a session goes through, from the beginning or from wherever somebody else has left it.
async fn live(world: &World, engine: &Engine) -> TurnEnd {
    begin(world, engine).await;
    let end = world.work(engine).await.unwrap();
    if end.reason == Some(IdleReason::EndTurn) {
        return end;
    }
    answer(world, engine, &end).await;
    world.work(engine).await.unwrap()
}

#[tokio::test]
async fn a_result_is_taken_up_once_whichever_write_a_process_dies_after() {
    for writes in 1.. {
        let mut world = World::new();
        let faulty = Faulty::new(&world.memory, Fault::DeadAfterWrites(writes));
        let engine = world.engine_on(faulty.clone(), "node_1", RULES);
        let died = tokio::select! {
            end = live(&world, &engine) => {
                assert_eq!(end.reason, Some(IdleReason::EndTurn));
                false
            }
            () = eventually(|| faulty.has_happened()) => true,
        };
        dies(engine, faulty).await;
        world.next_process();
        let engine = world.engine_on(Arc::new(world.memory.clone()), "node_2", RULES);
        let end = live(&world, &engine).await;
        assert_eq!((end.reason, end.last_message.as_deref()), (Some(IdleReason::EndTurn), Some("done")), "{writes}");
        assert_eq!((end.turns, world.read("ran.txt").as_str()), (1, "ran\n"), "after {writes} writes");
        let story = world.story(&engine).await;
        for kind in ["agent.custom_tool_use", "user.custom_tool_result", "tool.started"] {
            assert_eq!(story.matches(kind).count(), 1, "{kind} after {writes} writes: {story}");
        }
        check_folds(&world.id, &engine.events(&world.log()).await.unwrap());
        engine.close_all().await.unwrap();
        if !died {
            assert!(writes > 8, "{writes} writes");
            return;
        }
    }
}

#[tokio::test]
async fn an_interrupt_in_the_queue_cuts_a_model_off_at_once() {
    let world = World::new();
    let engine = world.engine("  - say: never heard\n    delay_ms: 60000");
    let mut live = engine.subscribe();
    world.begin(&engine).await;
    let (id, working) = (world.id.clone(), engine.clone());
    let working = tokio::spawn(async move { working.work(&id, &Default::default()).await });
    next(&mut live, "span.model_request_start").await;
    put(&world, &engine, "stop", Input::Interrupt).await;
    let end = tokio::time::timeout(Duration::from_secs(10), working).await.expect("at once").unwrap().unwrap();
    assert_eq!((end.reason, end.last_message), (Some(IdleReason::Interrupted), None));
    assert_eq!(
        world.story(&engine).await,
        "session.status_running user.message span.model_request_start user.interrupt span.model_request_end \
         session.usage session.status_idle"
    );
    engine.close_all().await.unwrap();
}
