//! Whatever comes of the actions, in whatever order: a run gets to its end, once, and does nothing twice.

use crate::world::{World, blueprint, name, spec, step};
use adj_domain::{Blueprint, GateSubject, RunEvent, RunLimits, RunOutcome, RunSpec, RunState, StepState};
use adj_squad::Action;
use proptest::prelude::*;

#[derive(Debug, Clone)]
struct Shape {
    /// For each specialist, bits of those before it that it waits for.
    waits_for: Vec<u8>,
    limits: RunLimits,
    has_gate: bool,
}

fn shapes() -> impl Strategy<Value = Shape> {
    let limits =
        (1u32..4, 1u32..4).prop_map(|(concurrency, attempts)| RunLimits { max_specialists: 8, concurrency, attempts });
    (prop::collection::vec(any::<u8>(), 1..7), limits, any::<bool>()).prop_map(|(waits_for, limits, has_gate)| Shape {
        waits_for,
        limits,
        has_gate,
    })
}

impl Shape {
    fn spec(&self) -> RunSpec {
        let mut spec = RunSpec { limits: self.limits.clone(), ..spec() };
        spec.core = adj_squad::core_agents(8);
        spec.gate = spec.gate.filter(|_| self.has_gate);
        spec
    }

    fn blueprint(&self) -> String {
        let words = self.waits_for.iter().enumerate().map(|(index, bits)| {
            let on = (0..index).filter(|other| bits & (1 << other) != 0).map(|other| format!("s{other}"));
            format!("s{index}:{}", on.collect::<Vec<_>>().join(","))
        });
        blueprint(&words.collect::<Vec<_>>().join(" "))
    }
}

#[derive(Debug, Clone)]
enum Happening {
    /// One of the actions under way ends well.
    Well(u8),
    Badly(u8),
    Crash,
    /// Agents rest after their step, without a result; then the run is taken up again.
    Interrupt,
}

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    let one = prop_oneof![
        8 => any::<u8>().prop_map(Happening::Well),
        1 => any::<u8>().prop_map(Happening::Badly),
        1 => Just(Happening::Crash),
        1 => Just(Happening::Interrupt),
    ];
    prop::collection::vec(one, 0..80)
}

fn play(world: &mut World, shape: &Shape, happening: &Happening) {
    let pick = |which: u8| world.at_work[usize::from(which) % world.at_work.len()].clone();
    match happening {
        Happening::Well(which) => {
            let action = pick(*which);
            let is_blueprint = matches!(&action, Action::Turn { step, .. } if step.as_str() == "builder")
                && !shape.waits_for.is_empty();
            let output = if is_blueprint { shape.blueprint() } else { "done".to_owned() };
            world.end(&action, Ok(&output));
        }
        Happening::Badly(which) => {
            let action = pick(*which);
            match &action {
                // The builder's bad answer is an answer.
                Action::Turn { step, .. } if step.as_str() == "builder" => world.end(&action, Ok("nonsense")),
                _ => world.end(&action, Err("bad luck")),
            }
        }
        Happening::Crash => world.crash(),
        Happening::Interrupt => {
            world.at_work.clear();
            world.record(RunEvent::Interrupted);
            world.record(RunEvent::Resumed);
        }
    }
}

fn check_while_working(world: &World) {
    let turns = world.at_work.iter().filter(|action| matches!(action, Action::Turn { .. })).count();
    assert!(turns <= world.run.spec.limits.concurrency as usize, "{}", world.story());
    for action in &world.at_work {
        let Action::Turn { step, .. } = action else { continue };
        let Some(specialist) = world.run.specialist(step) else { continue };
        for on in &specialist.depends_on {
            let on = &world.run.steps[on];
            assert!(on.result.is_some(), "{} before what it waits for", name(action));
            let passed = on.receipt().is_some_and(|receipt| receipt.passed);
            assert!(passed || world.run.spec.gate.is_none(), "{} before its check", name(action));
        }
        assert!(world.run.steps[step].base.is_some(), "{} without a base", name(action));
    }
}

fn check_the_end(world: &World, outcome: &RunOutcome) {
    let run = &world.run;
    let finishes = world.events.iter().filter(|event| matches!(event, RunEvent::Finished { .. })).count();
    assert_eq!(finishes, 1);
    assert!(run.clone().apply(&RunEvent::Resumed).is_err(), "after the end there is nothing");
    for (id, step) in &run.steps {
        assert!(step.turns.values().all(|turn| *turn != StepState::Started), "{id} is still at work");
        assert!(step.gate.as_ref().is_none_or(|(_, receipt)| receipt.is_some()), "{id} is still being checked");
    }
    let specialists = run.blueprint.iter().flat_map(Blueprint::specialists);
    if let RunOutcome::Landed { commit, .. } = outcome {
        assert_eq!(run.combined.tip.as_ref().map(|(tip, _)| tip), Some(commit));
        let merged = specialists.map(|specialist| &specialist.id).collect::<Vec<_>>();
        assert_eq!(run.combined.merged.iter().collect::<Vec<_>>(), merged, "in the order of the blueprint");
        if run.spec.gate.is_some() {
            assert!(run.combined.receipt.as_ref().is_some_and(|receipt| receipt.passed));
            for specialist in merged {
                assert!(run.steps[specialist].receipt().is_some_and(|receipt| receipt.passed), "{specialist}");
            }
        }
    } else {
        assert_eq!(run.landed, None);
        for step in run.steps.values() {
            let commit = step.result.as_ref().map(|result| &result.commit);
            assert!(commit.is_none_or(|commit| run.kept.iter().any(|(_, kept)| kept == commit)), "{commit:?} is lost");
        }
    }
    // Each attempt of each step is committed and judged at most once.
    let mut judged = std::collections::BTreeSet::new();
    for event in &world.events {
        if let RunEvent::GateFinished { subject: GateSubject::Step { step, attempt }, .. } = event {
            assert!(judged.insert((step, *attempt)), "{step} {attempt} was judged twice");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_run_gets_to_its_end(shape in shapes(), happenings in happenings()) {
        let mut world = World::new(shape.spec());
        world.go();
        // After the surprises everything goes well, and then there must be an end.
        let calm = std::iter::repeat_n(Happening::Well(0), 200);
        for happening in happenings.into_iter().chain(calm) {
            if world.run.is_finished() {
                break;
            }
            prop_assert!(!world.at_work.is_empty(), "stuck: {:?}", world.run);
            play(&mut world, &shape, &happening);
            world.go();
            check_while_working(&world);
        }
        let RunState::Finished(outcome) = world.run.state.clone() else { panic!("no end: {}", world.story()) };
        check_the_end(&world, &outcome);
        prop_assert!(world.run.steps.contains_key(&step("planner")));
    }
}
