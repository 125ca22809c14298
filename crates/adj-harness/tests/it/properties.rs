//! Whatever happens in whatever order: the log stays legal, and its fold is the live state.

use crate::world::{World, call, spec};
use adj_domain::{
    AnswerBlock, ApprovalResult, EventId, FailureKind, IdleReason, Session, SessionEvent, Status, StopReason,
    event::Input as Queued,
};
use adj_harness::{Effect, Input};
use proptest::prelude::*;
use serde_json::json;

#[derive(Debug, Clone)]
enum Step {
    Queue,
    Wake,
    Say,
    Calls(u8),
    FinishTool(u8),
    Fail,
    Interrupt,
    /// Calls of which some need a person.
    Asks(u8),
    Bind,
    Allow,
    Deny,
    Answers,
    /// Calls of which some are the user's to run.
    Customs(u8),
    /// The result of one of them, or of something else.
    Result(u8),
    /// An interrupt that waits in the queue.
    Halt,
    /// The workspace changes.
    Change,
    Expire,
    /// The process dies: whatever is under way is forgotten, and a new holder folds the log.
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        Just(Step::Queue),
        Just(Step::Wake),
        Just(Step::Say),
        (1u8..4).prop_map(Step::Calls),
        any::<u8>().prop_map(Step::FinishTool),
        Just(Step::Fail),
        Just(Step::Interrupt),
        (0u8..8).prop_map(Step::Asks),
        Just(Step::Bind),
        Just(Step::Allow),
        Just(Step::Deny),
        Just(Step::Answers),
        (0u8..27).prop_map(Step::Customs),
        any::<u8>().prop_map(Step::Result),
        Just(Step::Halt),
        Just(Step::Change),
        Just(Step::Expire),
        Just(Step::Crash),
    ];
    prop::collection::vec(step, 0..60)
}

fn play(world: &mut World, step: &Step) {
    let tools = world.effects.iter().filter(|effect| matches!(effect, Effect::RunTool { .. })).count();
    match step {
        Step::Queue => world.queue("go on", None),
        Step::Wake if world.session().is_idle() => world.give(Input::Wake),
        Step::Say if world.model_calls() > 0 => world.say("said"),
        Step::Calls(count) if world.model_calls() > 0 => {
            let calls: Vec<AnswerBlock> = (0..*count).map(|n| call("bash", json!({"n": n}))).collect();
            world.answer(calls, StopReason::ToolUse);
        }
        Step::Asks(which) if world.model_calls() > 0 => {
            let calls = (0..3).map(|n| call("bash", json!({"n": n, "ask": which & (1 << n) != 0}))).collect();
            world.answer(calls, StopReason::ToolUse);
        }
        Step::Customs(which) if world.model_calls() > 0 => {
            let kinds = [("bash", false), ("bash", true), ("ask_user", false)];
            let calls = (0..3u32).map(|n| kinds[usize::from(*which) / 3usize.pow(n) % 3]);
            let calls = calls.map(|(name, asks)| call(name, json!({"ask": asks}))).collect();
            world.answer(calls, StopReason::ToolUse);
        }
        Step::Result(which) => {
            let calls: Vec<EventId> = world.session().calls.iter().map(|call| call.id.clone()).collect();
            let call = calls.get(usize::from(*which) % 4).cloned().unwrap_or_else(|| EventId::derive(&["none"]));
            world.put(Queued::CustomToolResult { custom_tool_use_id: call, content: Vec::new(), is_error: false });
        }
        Step::Halt => world.put(Queued::Interrupt),
        Step::Bind if world.effects.iter().any(|effect| matches!(effect, Effect::Bind { .. })) => world.bind(),
        Step::Allow => world.confirm(ApprovalResult::Allow),
        Step::Deny => world.confirm(ApprovalResult::Deny),
        Step::Answers => world.give(Input::Answers),
        Step::Change => world.surroundings += 1,
        Step::Expire => {
            let approvals = world.session().approvals.iter().map(|open| open.id.clone()).collect();
            world.give(Input::Expired { approvals });
        }
        Step::FinishTool(which) if tools > 0 => {
            let turned = usize::from(*which) % world.effects.len();
            world.effects.rotate_left(turned);
            world.finish_tool("ok");
        }
        Step::Fail if world.model_calls() > 0 => world.fail(FailureKind::Server),
        Step::Interrupt => world.give(Input::Interrupt),
        Step::Crash => {
            let folded = Session::replay(&world.session().id.clone(), world.events.clone()).unwrap().unwrap();
            assert_eq!(&folded, world.session(), "the fold of the log is the live state");
            world.effects.clear();
            world.session = Some(folded);
            if !world.session().is_idle() {
                world.give(Input::Recovered { lost: Vec::new() });
            }
        }
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_history_folds_to_the_live_state(steps in steps()) {
        let mut world = World::new(spec());
        for step in &steps {
            play(&mut world, step);
            // Running means that something is under way, and idle that nothing is.
            prop_assert_eq!(world.session().is_idle(), world.effects.is_empty());
        }
        let folded = Session::replay(&world.session().id.clone(), world.events.clone()).unwrap().unwrap();
        prop_assert_eq!(&folded, world.session());
        // What needs a person starts only after one allowed it, and once.
        for (id, event) in &world.events {
            let SessionEvent::AgentToolUse { input, .. } = event else { continue };
            let starts = world.events.iter().filter(|(_, event)| matches!(event, SessionEvent::ToolStarted { tool_use_id } if tool_use_id == id));
            let allowed = world.events.iter().filter(|(_, event)| matches!(event,
                SessionEvent::ToolConfirmed { tool_use_id, result: ApprovalResult::Allow, .. } if tool_use_id == id));
            let starts = starts.count();
            prop_assert!(starts <= 1 && (input["ask"] != true || starts <= allowed.count()));
        }
        // What waits for people is named when the session rests, and nothing else is.
        if let Status::Idle { reason: Some(IdleReason::RequiresAction { event_ids }) } = &world.session().status {
            let waiting: Vec<EventId> = world.session().waiting_calls().cloned().collect();
            prop_assert_eq!(event_ids, &waiting);
        }
        // Each call that was started is started once, and each message is taken up once.
        let mut seen = std::collections::BTreeSet::new();
        for (id, _) in &world.events {
            prop_assert!(seen.insert(id.clone()), "the id {} stands twice", id);
        }
    }
}
