//! Tools that whoever uses the session runs, and interrupts that wait in the queue.

use crate::world::{World, call, spec};
use adj_domain::{
    AnswerBlock, ApprovalResult, Content, EventId, FailureKind, IdleReason, Item, Status, StopReason, ToolState,
    event::Input as Queued,
};
use adj_harness::Input;
use serde_json::json;

fn begun() -> World {
    let mut world = World::new(spec());
    world.queue("work", None);
    world.give(Input::Wake);
    world
}

fn ask(n: u32) -> AnswerBlock {
    call("ask_user", json!({"n": n}))
}

/// The calls that the session rests for.
fn waits_for(world: &World) -> Vec<EventId> {
    match &world.session().status {
        Status::Idle { reason: Some(IdleReason::RequiresAction { event_ids }) } => event_ids.clone(),
        status => panic!("it does not wait: {status:?}"),
    }
}

fn result(world: &mut World, call: &EventId, text: &str) {
    let content = vec![Content::text(text)];
    world.put(Queued::CustomToolResult { custom_tool_use_id: call.clone(), content, is_error: false });
}

#[test]
fn calls_wait_for_their_results_and_each_answer_leaves_the_others() {
    let mut world = begun();
    world.answer(vec![ask(1), ask(2)], StopReason::ToolUse);
    let waiting = waits_for(&world);
    assert_eq!(waiting.len(), 2);
    assert!(world.effects.is_empty());
    result(&mut world, &waiting[1], "two");
    world.give(Input::Wake);
    assert_eq!(waits_for(&world), waiting[..1], "the other is left");
    result(&mut world, &waiting[0], "one");
    world.give(Input::Wake);
    assert_eq!(world.model_calls(), 1);
    let results: Vec<String> = world
        .session()
        .items
        .iter()
        .filter_map(|item| match item {
            Item::ToolResult { content, .. } => Some(Content::join_text(content)),
            _ => None,
        })
        .collect();
    assert_eq!(results, ["one", "two"], "in the order of the calls");
    assert_eq!(
        world.story(),
        "session.status_running user.message span.model_request_start agent.custom_tool_use agent.custom_tool_use \
         span.model_request_end session.usage session.status_idle session.status_running user.custom_tool_result \
         session.usage session.status_idle session.status_running user.custom_tool_result span.model_request_start"
    );
    world.say("done");
    assert_eq!(world.session().turn, 1, "all of it is one turn");
}

#[test]
fn a_session_does_not_rest_while_a_tool_runs() {
    let mut world = begun();
    world.answer(vec![call("bash", json!({})), ask(1)], StopReason::ToolUse);
    assert!(!world.session().is_idle());
    let waiting = world.session().waiting_calls().next().unwrap().clone();
    // A result may come before the rest.
    result(&mut world, &waiting, "early");
    world.give(Input::Answers);
    assert!(!world.session().is_idle());
    world.finish_tool("ok");
    assert_eq!(world.model_calls(), 1);

    let mut world = begun();
    world.answer(vec![call("bash", json!({})), ask(1)], StopReason::ToolUse);
    world.finish_tool("ok");
    assert_eq!(waits_for(&world).len(), 1);
}

#[test]
fn what_needs_a_person_and_what_needs_a_result_wait_together() {
    let mut world = begun();
    world.answer(vec![call("bash", json!({"ask": true})), ask(1)], StopReason::ToolUse);
    assert!(!world.session().is_idle(), "what the question is bound to is being looked at");
    world.bind();
    let waiting = waits_for(&world);
    assert_eq!(waiting.len(), 2);
    result(&mut world, &waiting[1], "one");
    world.give(Input::Wake);
    assert_eq!(waits_for(&world), waiting[..1]);
    world.confirm(ApprovalResult::Allow);
    world.give(Input::Answers);
    world.bind();
    world.finish_tool("ok");
    assert_eq!(world.model_calls(), 1);
}

#[test]
fn a_question_comes_after_the_results_before_it() {
    let mut world = begun();
    world.answer(vec![ask(1), call("bash", json!({"ask": true}))], StopReason::ToolUse);
    let waiting = waits_for(&world);
    assert_eq!(waiting.len(), 1, "what is asked about is the state that the calls before it leave");
    result(&mut world, &waiting[0], "one");
    world.give(Input::Wake);
    world.bind();
    assert_eq!(world.session().approvals.len(), 1);
}

#[test]
fn an_interrupt_gives_up_what_waits_and_a_late_result_is_refused_in_the_log() {
    let mut world = begun();
    world.answer(vec![ask(1)], StopReason::ToolUse);
    let waiting = waits_for(&world);
    // In one batch: the interrupt overtakes.
    result(&mut world, &waiting[0], "too late");
    world.put(Queued::Interrupt);
    world.queue("something else", None);
    world.give(Input::Wake);
    let story = world.story();
    assert!(
        story.contains(
            "session.status_running user.interrupt custom_tool.result_refused agent.tool_result session.usage \
             session.status_idle session.status_running user.message"
        ),
        "{story}"
    );
    assert_eq!((world.session().turn, world.model_calls()), (2, 1), "the message begins the next turn");
}

#[test]
fn an_interrupt_cuts_off_what_a_model_is_saying() {
    let mut world = begun();
    world.put(Queued::Interrupt);
    world.give(Input::Answers);
    assert!(world.session().interrupted);
    world.fail(FailureKind::Cancelled);
    assert_eq!(world.session().status, Status::Idle { reason: Some(IdleReason::Interrupted) });
    // At rest it is remembered, and changes nothing.
    world.put(Queued::Interrupt);
    world.give(Input::Wake);
    assert_eq!(world.session().status, Status::Idle { reason: Some(IdleReason::Interrupted) });
    assert!(world.pending.is_empty() && world.story().ends_with("session.status_idle user.interrupt"));
    world.queue("go on", None);
    world.give(Input::Wake);
    world.say("done");
    assert_eq!(world.session().status, Status::Idle { reason: Some(IdleReason::EndTurn) });
}

#[test]
fn arguments_that_are_not_json_reach_nobody() {
    let mut world = begun();
    let block = AnswerBlock::ToolCall {
        vendor_call_id: "x".to_owned(),
        name: "ask_user".to_owned(),
        input: Err("{".to_owned()),
    };
    world.answer(vec![block], StopReason::ToolUse);
    assert_eq!(world.model_calls(), 1, "the model is told, and goes on");
    assert!(world.session().calls.iter().all(|call| call.state != ToolState::AtUser));
    assert!(world.story().contains("agent.tool_use") && !world.story().contains("custom_tool"));
}
