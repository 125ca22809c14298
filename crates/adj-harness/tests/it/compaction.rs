//! What happens when a conversation nearly fills its window.

use crate::world::{World, call, spec};
use adj_domain::{Content, IdleReason, Item, Purpose, SessionSpec, Status, StopReason};
use adj_harness::{Effect, Input};
use serde_json::json;

fn small_window() -> World {
    let mut spec: SessionSpec = spec();
    spec.agent.context_window_tokens = 2_000;
    let mut world = World::new(spec);
    world.queue("the task", None);
    world.give(Input::Wake);
    world
}

fn purpose(world: &World) -> Purpose {
    match world.effects.last() {
        Some(Effect::CallModel { request, .. }) => request.purpose,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_full_context_is_summed_up_and_the_work_goes_on() {
    let mut world = small_window();
    world.answer(vec![call("bash", json!({}))], StopReason::ToolUse);
    world.finish_tool(&"x".repeat(8_000));
    assert_eq!(purpose(&world), Purpose::Compaction);
    world.say("so far: nothing");
    assert!(world.story().contains("agent.thread_context_compacted"));
    assert_eq!(purpose(&world), Purpose::Step);
    let [Item::User { content }] = world.session().items.as_slice() else { panic!("{:?}", world.session().items) };
    let text = Content::join_text(content);
    assert!(text.contains("so far: nothing") && text.contains("the task"), "{text}");
    world.say("done");
    assert_eq!(world.session().status, Status::Idle { reason: Some(IdleReason::EndTurn) });
}

#[test]
fn a_summary_that_is_empty_or_as_long_ends_the_turn_with_an_error() {
    for summary in [String::new(), "y".repeat(9_000)] {
        let mut world = small_window();
        world.answer(vec![call("bash", json!({}))], StopReason::ToolUse);
        world.finish_tool(&"x".repeat(8_000));
        world.say(&summary);
        if summary.is_empty() {
            assert_eq!(world.session().status, Status::Idle { reason: Some(IdleReason::RetriesExhausted) });
        } else {
            // One item is left, so there is nothing to sum up any more; the vendor has the last word.
            assert_eq!(purpose(&world), Purpose::Step);
            world.fail(adj_domain::FailureKind::ContextTooLong);
            assert_eq!(world.session().status, Status::Idle { reason: Some(IdleReason::RetriesExhausted) });
        }
    }
}

#[test]
fn a_vendor_that_counts_differently_is_believed() {
    let mut world = World::new(spec());
    world.queue("the task", None);
    world.give(Input::Wake);
    world.answer(vec![call("bash", json!({}))], StopReason::ToolUse);
    world.finish_tool("short");
    world.fail(adj_domain::FailureKind::ContextTooLong);
    assert_eq!(purpose(&world), Purpose::Compaction);
}

#[test]
fn a_request_for_a_summary_never_parts_a_call_from_its_result() {
    let mut world = small_window();
    for step in 0..6 {
        world.answer(vec![call("bash", json!({"step": step})), call("bash", json!({}))], StopReason::ToolUse);
        world.finish_tool(&"a".repeat(300));
        world.finish_tool(&"b".repeat(300));
    }
    world.answer(vec![call("bash", json!({}))], StopReason::ToolUse);
    world.finish_tool(&"x".repeat(7_000));
    assert_eq!(purpose(&world), Purpose::Compaction);
    let Some(Effect::CallModel { request, .. }) = world.effects.last() else { panic!() };
    let mut open = std::collections::BTreeSet::new();
    for item in &request.items {
        match item {
            Item::ToolCall { id, .. } => assert!(open.insert(id.clone())),
            Item::ToolResult { call, .. } => assert!(open.remove(call), "a result without its call"),
            Item::User { .. } | Item::Assistant { .. } | Item::Reasoning { .. } => assert!(open.is_empty()),
        }
    }
    assert!(open.is_empty());
    assert!(request.items.len() < world.session().items.len() + 1, "the oldest part is left out");
}
