//! What the loop does in each situation.

use crate::world::{World, call, spec};
use adj_domain::{
    AnswerBlock, FailureKind, IdleReason, PurseKey, Refusal, SandboxMode, SessionEvent, Status, StopReason, Unit,
};
use adj_harness::{Effect, Input};
use serde_json::json;

fn idle(reason: IdleReason) -> Status {
    Status::Idle { reason: Some(reason) }
}

fn begun(text: &str) -> World {
    let mut world = World::new(spec());
    world.queue(text, None);
    world.give(Input::Wake);
    world
}

#[test]
fn a_turn_without_tools() {
    let mut world = begun("hello");
    world.say("done");
    assert_eq!(
        world.story(),
        "session.status_running user.message span.model_request_start agent.message span.model_request_end \
         session.usage session.status_idle"
    );
    assert_eq!(world.session().status, idle(IdleReason::EndTurn));
    assert_eq!(world.session().last_message.as_deref(), Some("done"));
}

#[test]
fn an_empty_queue_wakes_nobody() {
    let mut world = World::new(spec());
    world.give(Input::Wake);
    assert_eq!(world.story(), "");
}

#[test]
fn tools_of_one_answer_run_side_by_side_and_are_all_answered_before_the_next_request() {
    let mut world = begun("work");
    world.answer(vec![call("bash", json!({"command": "a"})), call("write", json!({}))], StopReason::ToolUse);
    assert_eq!(world.effects.len(), 2);
    world.finish_tool("first");
    assert_eq!(world.model_calls(), 0, "one call is still open");
    world.finish_tool("second");
    assert_eq!(world.model_calls(), 1);
    let started = world.story().matches("tool.started").count();
    assert_eq!(started, 2);
}

#[test]
fn results_enter_the_conversation_in_the_order_of_the_calls() {
    let ordered = |first: usize| {
        let mut world = begun("work");
        world.answer(vec![call("bash", json!({"n": 1})), call("bash", json!({"n": 2}))], StopReason::ToolUse);
        world.effects.rotate_left(first);
        for _ in 0..2 {
            let Some(Effect::RunTool { request, .. }) = world.effects.first() else { panic!() };
            let text = format!("result of {}", request.input);
            world.finish_tool(&text);
        }
        serde_json::to_string(&world.session().items).unwrap()
    };
    assert_eq!(ordered(0), ordered(1));
}

#[test]
fn calls_that_may_not_run_are_answered_and_never_started() {
    let cases = [
        (call("rm", json!({})), StopReason::ToolUse, SandboxMode::WorkspaceWrite, "no tool called"),
        (call("write", json!({})), StopReason::ToolUse, SandboxMode::ReadOnly, "read-only"),
        (call("bash", json!({})), StopReason::MaxTokens, SandboxMode::WorkspaceWrite, "cut at the output limit"),
        (
            AnswerBlock::ToolCall {
                vendor_call_id: "x".to_owned(),
                name: "bash".to_owned(),
                input: Err("{\"command\": \"rm".to_owned()),
            },
            StopReason::ToolUse,
            SandboxMode::WorkspaceWrite,
            "not JSON",
        ),
    ];
    for (block, stop, sandbox, words) in cases {
        let mut world = World::new(adj_domain::SessionSpec { sandbox, ..spec() });
        world.queue("work", None);
        world.give(Input::Wake);
        let context = format!("{block:?}");
        world.answer(vec![block], stop);
        assert!(!world.story().contains("tool.started"), "{context}");
        let answered = world.events.iter().find_map(|(_, event)| match event {
            SessionEvent::AgentToolResult { content, is_error: true, .. } => Some(format!("{content:?}")),
            _ => None,
        });
        assert!(answered.as_ref().is_some_and(|text| text.contains(words)), "{context}: {answered:?}");
        assert_eq!(world.model_calls(), 1, "the model is told: {context}");
    }
}

#[test]
fn a_message_during_a_turn_is_taken_up_between_two_steps() {
    let mut world = begun("work");
    world.answer(vec![call("bash", json!({}))], StopReason::ToolUse);
    world.queue("and be quick", None);
    world.finish_tool("ok");
    assert!(world.pending.is_empty());
    assert!(world.story().ends_with("agent.tool_result user.message span.model_request_start"), "{}", world.story());
}

#[test]
fn a_message_after_the_last_answer_waits_for_the_next_turn() {
    let mut world = begun("work");
    world.queue("more", None);
    world.say("done");
    assert_eq!(world.pending.len(), 1);
    world.give(Input::Wake);
    assert_eq!(world.session().turn, 2);
    assert!(world.pending.is_empty());
}

#[test]
fn an_interrupt_lets_the_step_finish_and_starts_nothing_new() {
    let mut world = begun("work");
    world.give(Input::Interrupt);
    world.answer(vec![call("bash", json!({}))], StopReason::ToolUse);
    assert_eq!(world.effects.len(), 1, "the step's own call still runs");
    world.give(Input::Interrupt);
    world.finish_tool("ok");
    assert_eq!(world.session().status, idle(IdleReason::Interrupted));
    assert_eq!(world.story().matches("user.interrupt").count(), 1);
    assert!(world.effects.is_empty());
}

#[test]
fn turns_end_for_the_reason_that_ended_them() {
    let cases = [(StopReason::MaxTokens, IdleReason::MaxTokens), (StopReason::Refusal, IdleReason::Refusal)];
    for (stop, reason) in cases {
        let mut world = begun("work");
        world.answer(vec![AnswerBlock::Text { text: "…".to_owned() }], stop);
        assert_eq!(world.session().status, idle(reason));
    }
    let mut world = begun("work");
    world.fail(FailureKind::Overloaded);
    assert_eq!(world.session().status, idle(IdleReason::RetriesExhausted));
    assert!(world.story().contains("session.error"));

    let mut endless = World::new(spec());
    endless.queue("work", None);
    endless.give(Input::Wake);
    while !endless.session().is_idle() {
        endless.answer(vec![call("bash", json!({}))], StopReason::ToolUse);
        endless.finish_tool("ok");
    }
    assert_eq!(endless.session().status, idle(IdleReason::StepLimit));
    assert_eq!(endless.session().step, 20);
}

#[test]
fn an_answer_that_does_not_fit_is_sent_back_once() {
    let schema = json!({"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}});
    let cases: [(&[&str], IdleReason, usize); 3] = [
        (&[r#"{"n":1}"#], IdleReason::EndTurn, 0),
        (&["no", r#"{"n":1}"#], IdleReason::EndTurn, 1),
        (&["no", "{}"], IdleReason::OutputInvalid { errors: vec!["at /: \"n\" is a required property".to_owned()] }, 1),
    ];
    for (answers, reason, sent_back) in cases {
        let mut world = World::new(spec());
        world.queue("a number", Some(schema.clone()));
        world.give(Input::Wake);
        for answer in answers {
            world.say(answer);
        }
        assert_eq!(world.session().status, idle(reason), "{answers:?}");
        assert_eq!(world.story().matches("turn.output_rejected").count(), sent_back, "{answers:?}");
    }
}

#[test]
fn a_turn_that_was_left_is_taken_up_where_it_stands() {
    // An open request is asked again, under the same number.
    let mut world = begun("work");
    world.effects.clear();
    world.give(Input::Recovered { lost: Vec::new() });
    assert!(world.story().ends_with("session.resumed span.model_request_end span.model_request_start"));
    assert_eq!(world.session().step, 1);

    // A started call is looked up, not started.
    let mut world = begun("work");
    world.answer(vec![call("bash", json!({})), call("bash", json!({}))], StopReason::ToolUse);
    world.finish_tool("one is done");
    world.effects.clear();
    world.give(Input::Recovered { lost: Vec::new() });
    assert!(matches!(world.effects.as_slice(), [Effect::RunTool { started_before: true, .. }]), "{:?}", world.effects);

    // Nothing is under way: nothing happens.
    let mut world = begun("work");
    world.say("done");
    let story = world.story();
    world.give(Input::Recovered { lost: Vec::new() });
    assert_eq!(world.story(), story);
}

#[test]
fn what_comes_twice_or_too_late_changes_nothing() {
    let mut world = begun("work");
    world.answer(vec![call("bash", json!({}))], StopReason::ToolUse);
    let Some(Effect::RunTool { id, .. }) = world.effects.first() else { panic!() };
    let (id, outcome) = (id.clone(), adj_domain::ToolOutcome::error("again"));
    world.finish_tool("ok");
    let story = world.story();
    world.give(Input::ToolAnswered { call: id, outcome, full_output: None });
    assert_eq!(world.story(), story);
}

#[test]
fn an_answer_that_a_budget_made_too_short_is_not_used_and_its_turn_goes_on_when_there_is_more() {
    let mut world = World::new(spec());
    world.queue("go", None);
    world.give(Input::Wake);
    let purse: PurseKey = "session:sesn_test".parse().unwrap();
    let spent = Refusal::Spent { purse: purse.clone(), unit: Unit::Tokens, limit: 9, spent: 8, needed: 7 };
    world.shortened = Some(spent.clone());
    world.answer(vec![AnswerBlock::Text { text: "half of".to_owned() }], StopReason::MaxTokens);
    assert_eq!(world.session().waits_for_budget(), Some(&purse));
    assert_eq!((world.session().last_message.as_deref(), world.session().model_requests), (None, 1));
    // Still too little; then a message comes, which is of the same turn; then there is enough.
    for message in [None, Some("more")] {
        message.into_iter().for_each(|message| world.queue(message, None));
        world.give(Input::Wake);
        let Some(Effect::CallModel { id, .. }) = world.effects.pop() else { panic!("it asks again") };
        world.give(Input::Refused { request: id, refusal: spent.clone() });
        assert_eq!(world.session().waits_for_budget(), Some(&purse));
        assert_eq!((world.session().turn, world.session().model_requests), (1, 1));
    }
    assert!(world.pending.is_empty(), "what was said is taken up");
    world.give(Input::Wake);
    world.shortened = Some(spent);
    world.answer(vec![AnswerBlock::Text { text: "whole".to_owned() }], StopReason::EndTurn);
    assert_eq!(world.session().status, Status::Idle { reason: Some(IdleReason::EndTurn) });
    assert_eq!((world.session().turn, world.session().last_message.as_deref()), (1, Some("whole")));
}

#[test]
fn a_refused_request_of_an_interrupted_turn_ends_it() {
    let mut world = World::new(spec());
    world.queue("go", None);
    world.give(Input::Wake);
    let Some(Effect::CallModel { id, .. }) = world.effects.pop() else { panic!("it asks") };
    world.give(Input::Interrupt);
    let purse = "day:2026-11-21".parse().unwrap();
    let refusal = Refusal::Held { purse, unit: Unit::Tokens, limit: 9, spent: 0, held: 9, needed: 7 };
    world.give(Input::Refused { request: id, refusal });
    assert_eq!(world.session().status, Status::Idle { reason: Some(IdleReason::Interrupted) });
    assert!(!world.story().contains("budget.reached"));
}
