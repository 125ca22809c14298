//! Whatever people answer, to whatever, in whatever order: nothing runs that nobody allowed as it is, and nothing runs twice.

use crate::world::{World, call, spec};
use adj_domain::{
    ApprovalResult, ApprovalSubject, BlobHash, Confirmation, EventId, Session, SessionEvent, StopReason, ToolState,
    Verdict,
};
use adj_harness::{Effect, Input};
use proptest::prelude::*;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Clone)]
enum Step {
    Queue,
    /// Three calls, of which these need a person.
    Calls(u8),
    Say,
    Bind,
    FinishTool,
    Allow,
    Deny,
    /// Somebody looks into the queue.
    Answers,
    Expire,
    /// The workspace changes.
    Change,
    /// Somebody grants what is asked about, takes it back, or policy forbids it.
    Policy(Verdict),
    Crash,
    Interrupt,
    /// An answer that was given before comes once more, as an allowance.
    Replay(u8),
    /// It comes for whatever is asked about now.
    Carry(u8),
    /// An allowance of nothing in particular.
    Blank,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        2 => Just(Step::Queue),
        4 => (0u8..8).prop_map(Step::Calls),
        1 => Just(Step::Say),
        6 => Just(Step::Bind),
        3 => Just(Step::FinishTool),
        4 => Just(Step::Allow),
        1 => Just(Step::Deny),
        4 => Just(Step::Answers),
        1 => Just(Step::Expire),
        1 => Just(Step::Change),
        1 => prop_oneof![Just(Verdict::Allow), Just(Verdict::Ask), Just(Verdict::Deny)].prop_map(Step::Policy),
        2 => Just(Step::Crash),
        1 => Just(Step::Interrupt),
        1 => any::<u8>().prop_map(Step::Replay),
        1 => any::<u8>().prop_map(Step::Carry),
        1 => Just(Step::Blank),
    ];
    prop::collection::vec(step, 0..80)
}

/// Whose answers count for nothing.
const NOBODY: &str = "nobody";

/// What people have really said, kept apart from the loop.
#[derive(Default)]
struct Ledger {
    seen: usize,
    /// What is asked about each call.
    asked: BTreeMap<EventId, BlobHash>,
    /// What people have allowed of each call and not taken back.
    allowed: BTreeMap<EventId, BlobHash>,
    /// Every answer that was given, for those who give it again.
    given: Vec<Confirmation>,
    ran: BTreeSet<EventId>,
}

impl Ledger {
    fn read(&mut self, world: &World) {
        for (_, event) in &world.events[self.seen..] {
            match event {
                SessionEvent::ApprovalRequested { subject: ApprovalSubject::Tool { tool_use_id, binding }, .. } => {
                    self.allowed.remove(tool_use_id);
                    self.asked.insert(tool_use_id.clone(), binding.clone());
                }
                SessionEvent::ToolConfirmed { tool_use_id, result, by, .. } => {
                    assert_ne!(by, NOBODY, "an answer names what it was given to");
                    let asked = self.asked.remove(tool_use_id).expect("only what is asked about is answered");
                    if *result == ApprovalResult::Allow {
                        self.allowed.insert(tool_use_id.clone(), asked);
                    }
                }
                SessionEvent::ApprovalExpired { approval_id } => {
                    self.asked.remove(approval_id);
                }
                _ => {}
            }
        }
        self.seen = world.events.len();
    }

    /// Looks at every call that the loop wants to have run, from the effect with this number on.
    fn check(&mut self, world: &World, from: usize) {
        for effect in &world.effects[from..] {
            let Effect::RunTool { id, request, started_before: false } = effect else { continue };
            assert!(self.ran.insert(id.clone()), "{id} runs twice");
            if request.input["ask"] != true {
                continue;
            }
            assert_ne!(world.verdict, Verdict::Deny, "{id} runs although policy forbids it");
            let is_granted = world.verdict == Verdict::Allow;
            let is_allowed = self.allowed.get(id) == Some(&world.binding(id));
            assert!(is_granted || is_allowed, "{id} runs, and nobody allowed it as it is");
        }
    }
}

fn play(world: &mut World, ledger: &mut Ledger, step: &Step) {
    match step {
        Step::Queue => {
            world.queue("go on", None);
            if world.session().is_idle() {
                world.give(Input::Wake);
            }
        }
        Step::Calls(which) if world.model_calls() > 0 => {
            let calls = (0..3).map(|n| call("bash", json!({"n": n, "ask": which & (1 << n) != 0}))).collect();
            world.answer(calls, StopReason::ToolUse);
        }
        Step::Say if world.model_calls() > 0 => world.say("said"),
        Step::Bind if world.effects.iter().any(|effect| matches!(effect, Effect::Bind { .. })) => world.bind(),
        Step::FinishTool if world.effects.iter().any(|effect| matches!(effect, Effect::RunTool { .. })) => {
            world.finish_tool("ok");
        }
        Step::Allow | Step::Deny => {
            let result = if matches!(step, Step::Allow) { ApprovalResult::Allow } else { ApprovalResult::Deny };
            if let Some(open) = world.session().approvals.first() {
                let answer = Confirmation {
                    approval_id: open.id.clone(),
                    binding: open.binding().cloned(),
                    result,
                    deny_message: None,
                    by: "somebody".to_owned(),
                };
                ledger.given.push(answer);
            }
            world.confirm(result);
        }
        Step::Answers => world.give(Input::Answers),
        Step::Expire => {
            let approvals = world.session().approvals.iter().map(|open| open.id.clone()).collect();
            world.give(Input::Expired { approvals });
        }
        Step::Change => world.surroundings += 1,
        Step::Policy(verdict) => world.verdict = *verdict,
        Step::Interrupt => world.give(Input::Interrupt),
        Step::Crash => {
            let id = world.session().id.clone();
            world.session = Session::replay(&id, world.events.clone()).unwrap();
            world.effects.clear();
            if !world.session().is_idle() {
                world.give(Input::Recovered { lost: Vec::new() });
            }
        }
        Step::Replay(which) | Step::Carry(which) if !ledger.given.is_empty() => {
            let mut answer = ledger.given[usize::from(*which) % ledger.given.len()].clone();
            answer.result = ApprovalResult::Allow;
            if let (Step::Carry(_), Some(open)) = (step, world.session().approvals.first()) {
                answer.approval_id = open.id.clone();
            }
            world.forge(answer);
        }
        Step::Blank => {
            let calls = world.session().calls.iter().filter(|call| call.state == ToolState::Waiting);
            if let Some(id) = calls.map(|call| call.id.clone()).next() {
                let result = ApprovalResult::Allow;
                let by = NOBODY.to_owned();
                world.forge(Confirmation { approval_id: id, binding: None, result, deny_message: None, by });
            }
        }
        _ => {}
    }
}

/// Plays a history, and tells how many calls that needed a person were run.
fn check(steps: &[Step]) -> usize {
    let mut world = World::new(spec());
    let mut ledger = Ledger::default();
    for step in steps {
        let before: Vec<EventId> = world.effects.iter().filter_map(run_id).collect();
        play(&mut world, &mut ledger, step);
        ledger.read(&world);
        let from =
            world.effects.iter().take_while(|effect| run_id(effect).is_none_or(|id| before.contains(&id))).count();
        ledger.check(&world, from);
    }
    let of_people = |id: &EventId| ledger.allowed.contains_key(id);
    ledger.ran.iter().filter(|id| of_people(id)).count()
}

fn run_id(effect: &Effect) -> Option<EventId> {
    match effect {
        Effect::RunTool { id, .. } => Some(id.clone()),
        _ => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_runs_without_a_live_allowance_and_nothing_runs_twice(steps in steps()) {
        check(&steps);
    }
}

/// So that the property is not about histories in which nothing ever runs.
#[test]
fn what_is_allowed_as_it_is_does_run() {
    let asked = [Step::Queue, Step::Calls(1), Step::Bind];
    let cases: [(&[Step], usize); 9] = [
        (&[Step::Allow, Step::Answers, Step::Bind], 1),
        (&[Step::Allow, Step::Crash, Step::Answers, Step::Bind], 1),
        (&[Step::Allow, Step::Answers, Step::Crash, Step::Bind], 1),
        (&[Step::Deny, Step::Answers, Step::Bind], 0),
        (&[Step::Allow, Step::Change, Step::Answers, Step::Bind], 0),
        (&[Step::Allow, Step::Change, Step::Answers, Step::Bind, Step::Allow, Step::Answers, Step::Bind], 1),
        (&[Step::Allow, Step::Policy(Verdict::Deny), Step::Answers, Step::Bind], 0),
        (&[Step::Expire, Step::Allow, Step::Answers, Step::Bind], 0),
        (&[Step::Blank, Step::Answers, Step::Bind], 0),
    ];
    for (then, runs) in cases {
        assert_eq!(check(&[&asked[..], then].concat()), runs, "{then:?}");
    }
}
