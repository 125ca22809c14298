//! What is due in each situation.

use crate::world::{World, blueprint, spec};
use adj_domain::{Blueprint, RunEvent, RunSpec, StepKind};

/// What happens, and what is under way then.
type Table<'a> = [(&'a str, &'a str)];

/// Plays a table: what happens (`ACTION: what it brought`, `ACTION! why it failed`, or a word), then what is under way.
fn check(title: &str, spec: RunSpec, table: &Table<'_>) -> World {
    let mut world = World::new(spec);
    for (happens, expected) in table {
        match *happens {
            "start" => {}
            "crash" => world.crash(),
            "interrupt" => {
                world.at_work.clear();
                world.record(RunEvent::Interrupted);
            }
            "resume" => world.record(RunEvent::Resumed),
            happens => {
                let (name, result) = match (happens.split_once(": "), happens.split_once("! ")) {
                    (_, Some((name, why))) => (name, Err(why)),
                    (Some((name, brought)), _) => (name, Ok(brought)),
                    (None, None) => (happens, Ok("")),
                };
                let blueprint = result.ok().and_then(|text| text.strip_prefix("plan of ")).map(blueprint);
                let action = world.action(name);
                world.end(&action, blueprint.as_deref().map_or(result, Ok));
            }
        }
        world.go();
        assert_eq!(world.story(), *expected, "{title}: after {happens}");
    }
    world
}

const TO_BLUEPRINT: [(&str, &str); 2] =
    [("start", "turn planner plan"), ("turn planner plan: the plan", "turn builder plan")];

/// The same, from the moment at which the builder works.
fn check_built(title: &str, spec: RunSpec, table: &Table<'_>) -> World {
    check(title, spec, &[&TO_BLUEPRINT, table].concat())
}

fn limited(change: impl FnOnce(&mut RunSpec)) -> RunSpec {
    let mut spec = spec();
    change(&mut spec);
    spec
}

#[test]
fn the_core_works_one_after_the_other_with_two_turns_each() {
    let spec = limited(|spec| spec.core = adj_squad::core_agents(3));
    let world = check(
        "core",
        spec,
        &[
            ("start", "turn planner plan"),
            ("turn planner plan: first thoughts", "turn planner follow-up"),
            ("turn planner follow-up: the plan", "turn researcher plan"),
            ("turn researcher plan: notes", "turn researcher follow-up"),
            ("turn researcher follow-up: the facts", "turn builder plan"),
            ("turn builder plan: hm", "turn builder follow-up"),
            ("turn builder follow-up: plan of a", "turn a build"),
        ],
    );
    let handed = world.events.iter().filter_map(|event| match event {
        RunEvent::HandedOff { from, to, .. } => Some(format!("{from}>{to}")),
        _ => None,
    });
    assert_eq!(handed.collect::<Vec<_>>().join(" "), "planner>researcher planner>builder researcher>builder");
}

#[test]
fn a_step_that_is_checked_is_merged_and_lands_after_the_whole_has_passed() {
    check_built(
        "the straight way",
        spec(),
        &[
            ("turn builder plan: plan of a b", "turn a build; turn b build"),
            ("turn b build: done", "turn a build; commit b 1"),
            ("commit b 1", "turn a build; gate b 1"),
            ("gate b 1", "turn a build"),
            ("turn a build: done", "commit a 1"),
            ("commit a 1", "gate a 1"),
            ("gate a 1", "merge a onto base"),
            ("merge a", "merge b onto base+a"),
            ("merge b", "gate combined"),
            ("gate combined", "land base..base+a+b"),
            ("land", "landed base+a+b"),
        ],
    );
}

#[test]
fn a_blueprint_is_sent_back_once() {
    let cases = [
        ("no JSON", "not json", "expected ident"),
        ("names of the squad", &blueprint("planner"), "belongs to the squad itself"),
        ("another core's names", &blueprint("scout"), "\"scout\" belongs to the squad itself"),
        ("a circle", &blueprint("a:b b:a"), "wait for each other"),
        ("too many", &blueprint("a b c"), "3 specialists are more than the 2 allowed"),
        ("long names", &blueprint(&"x".repeat(5000)), "is not a step name"),
    ];
    for (title, wrong, words) in cases {
        let spec = limited(|spec| {
            spec.limits.max_specialists = 2;
            let mut scout = spec.core[0].clone();
            scout.step = "scout".parse().unwrap();
            spec.core.insert(1, scout);
        });
        let begin = [("start", "turn planner plan; turn scout plan")];
        let mut table = begin.to_vec();
        table.push(("turn planner plan: the plan", "turn scout plan; turn builder plan"));
        table.push(("turn scout plan: seen", "turn builder plan"));
        let first = format!("turn builder plan: {wrong}");
        table.push((&first, "turn builder repair"));
        let world = check(title, spec.clone(), &table);
        let prompt = world.prompt("builder", StepKind::Repair);
        assert!(prompt.contains(words), "{title}: {prompt}");
        assert!(prompt.len() < 1000, "{title}: {prompt}");

        let again = format!("turn builder repair: {wrong}");
        table.push((&again, "blueprint invalid"));
        check(title, spec.clone(), &table);
        table.pop();
        table.push(("turn builder repair: plan of a", "turn a build"));
        check(title, spec, &table);
    }
}

#[test]
fn a_blueprint_may_come_in_a_fence() {
    for (open, close) in [("```json\n", "\n```"), ("```\n", "```"), ("", ""), (" \n", "\n\n")] {
        let text = format!("turn builder plan: {open}{}{close}", blueprint("a"));
        check_built(&text, spec(), &[(&text, "turn a build")]);
    }
}

#[test]
fn no_more_agents_than_the_limit_work_side_by_side() {
    check_built(
        "two at a time",
        limited(|spec| spec.limits.concurrency = 2),
        &[
            ("turn builder plan: plan of a b c d", "turn a build; turn b build"),
            ("turn b build: done", "turn a build; commit b 1; turn c build"),
            // Checks are not agents.
            ("commit b 1", "turn a build; turn c build; gate b 1"),
            ("gate b 1! no", "turn a build; turn c build"),
            ("turn a build: done", "turn c build; commit a 1; turn b build (attempt 2)"),
            // After a crash those who were at work come first, whoever stands before them in the blueprint.
            ("crash", "commit a 1; turn b build (attempt 2); turn c build"),
            ("turn c build: done", "commit a 1; turn b build (attempt 2); commit c 1; turn d build"),
        ],
    );
}

#[test]
fn who_depends_waits_for_the_check_of_what_it_depends_on() {
    check_built(
        "a chain and a fork",
        spec(),
        &[
            ("turn builder plan: plan of c:b,a a b", "turn a build; turn b build"),
            ("turn a build: done", "turn b build; commit a 1"),
            ("commit a 1", "turn b build; gate a 1"),
            ("turn b build: done", "gate a 1; commit b 1"),
            ("gate a 1", "commit b 1"),
            ("commit b 1", "gate b 1"),
            // The parts are merged in the blueprint's order, as they will be in the whole.
            ("gate b 1", "base c of a+b"),
            ("crash", "base c of a+b"),
            ("base c", "turn c build"),
        ],
    );
    check_built(
        "parts that do not go together",
        spec(),
        &[
            ("turn builder plan: plan of a b c:a,b", "turn a build; turn b build"),
            ("turn a build: done", "turn b build; commit a 1"),
            ("commit a 1", "turn b build; gate a 1"),
            ("gate a 1", "turn b build"),
            ("turn b build: done", "commit b 1"),
            ("commit b 1", "gate b 1"),
            ("gate b 1", "base c of a+b"),
            ("base c! lib.rs", "keep adjutant/test/a; keep adjutant/test/b"),
            ("keep adjutant/test/a", "keep adjutant/test/b"),
            ("keep adjutant/test/b", "conflict at c"),
        ],
    );
}

#[test]
fn a_failed_check_is_repaired_as_often_as_allowed() {
    let world = check_built(
        "another attempt",
        spec(),
        &[
            ("turn builder plan: plan of a", "turn a build"),
            ("turn a build: done", "commit a 1"),
            ("commit a 1", "gate a 1"),
            ("gate a 1! it says: {prompt} {planner}", "turn a build (attempt 2)"),
            ("crash", "turn a build (attempt 2)"),
        ],
    );
    let prompt = world.prompt("a", StepKind::Build(2));
    assert!(prompt.contains("it says: {prompt} {planner}"), "{prompt}");
    check_built(
        "no attempt is left",
        spec(),
        &[
            ("turn builder plan: plan of a b", "turn a build; turn b build"),
            ("turn a build: done", "turn b build; commit a 1"),
            ("commit a 1", "turn b build; gate a 1"),
            ("gate a 1! no", "turn b build; turn a build (attempt 2)"),
            ("turn a build (attempt 2): done", "turn b build; commit a 2"),
            ("commit a 2", "turn b build; gate a 2"),
            // Whoever is at work comes to its end, and its work is committed.
            ("gate a 2! no", "turn b build"),
            ("crash", "turn b build"),
            ("turn b build: done", "commit b 1"),
            ("commit b 1", "keep adjutant/test/a; keep adjutant/test/b"),
            ("keep adjutant/test/b", "keep adjutant/test/a"),
            ("crash", "keep adjutant/test/a"),
            ("keep adjutant/test/a", "gate failed: a (attempt 2)"),
        ],
    );
}

#[test]
fn a_run_ends_after_everything_that_is_under_way() {
    check_built(
        "a check under way",
        spec(),
        &[
            ("turn builder plan: plan of a b c", "turn a build; turn b build; turn c build"),
            ("turn a build: done", "turn b build; turn c build; commit a 1"),
            ("commit a 1", "turn b build; turn c build; gate a 1"),
            ("turn c build! no answer", "turn b build; gate a 1"),
            ("turn b build! none either", "gate a 1"),
            ("gate a 1", "keep adjutant/test/a"),
            ("keep adjutant/test/a", "b failed: none either"),
        ],
    );
    let spec = limited(|spec| {
        let mut scout = spec.core[0].clone();
        scout.step = "scout".parse().unwrap();
        spec.core.push(scout);
    });
    check(
        "another of the core",
        spec,
        &[
            ("start", "turn planner plan; turn scout plan"),
            ("turn planner plan! no answer", "turn scout plan"),
            ("turn scout plan: seen", "planner failed: no answer"),
        ],
    );
}

#[test]
fn work_that_does_not_land_stays_on_branches() {
    let built = [
        ("turn builder plan: plan of a b", "turn a build; turn b build"),
        ("turn a build: done", "turn b build; commit a 1"),
        ("commit a 1", "turn b build; gate a 1"),
        ("turn b build: done", "gate a 1; commit b 1"),
        ("gate a 1", "commit b 1"),
        ("commit b 1", "gate b 1"),
        ("gate b 1", "merge a onto base"),
        ("merge a", "merge b onto base+a"),
    ];
    let keep = "keep adjutant/test/combined; keep adjutant/test/a; keep adjutant/test/b";
    let kept = |end: &'static str| {
        [
            ("keep adjutant/test/combined", "keep adjutant/test/a; keep adjutant/test/b"),
            ("keep adjutant/test/a", "keep adjutant/test/b"),
            ("keep adjutant/test/b", end),
        ]
    };
    let cases: [(&str, &Table<'_>, &str); 3] = [
        ("a conflict", &[("merge b! x.txt", keep)], "conflict at b"),
        ("the whole fails", &[("merge b", "gate combined"), ("gate combined! no", keep)], "gate failed: combined tree"),
        (
            "the branch has moved",
            &[
                ("merge b", "gate combined"),
                ("gate combined", "land base..base+a+b"),
                ("crash", "land base..base+a+b"),
                ("land! the branch has moved", keep),
            ],
            "not landed: the branch has moved",
        ),
    ];
    for (title, middle, end) in cases {
        check_built(title, spec(), &[&built, middle, &kept(end)].concat());
    }
}

#[test]
fn without_a_gate_only_what_has_its_own_check_is_checked() {
    let spec = limited(|spec| spec.gate = None);
    let plan = r#"turn builder plan: {"specialists":[{"id":"a","title":"t","task":"t","check":"make a"},{"id":"b","title":"t","task":"t","check":" "}]}"#;
    let world = check_built(
        "own checks",
        spec,
        &[
            (plan, "turn a build; turn b build"),
            ("turn b build: done", "turn a build; commit b 1"),
            ("commit b 1", "turn a build"),
            ("turn a build: done", "commit a 1"),
            ("commit a 1", "gate a 1"),
            ("gate a 1", "merge a onto base"),
            ("merge a", "merge b onto base+a"),
            ("merge b", "land base..base+a+b"),
            ("land", "landed base+a+b"),
        ],
    );
    let commands = world.events.iter().filter_map(|event| match event {
        RunEvent::GateStarted { command, .. } => Some(command.as_str()),
        _ => None,
    });
    assert_eq!(commands.collect::<Vec<_>>(), ["make a"]);
}

#[test]
fn an_interrupted_run_goes_on_where_it_stands() {
    check_built(
        "interrupted",
        spec(),
        &[
            ("turn builder plan: plan of a b", "turn a build; turn b build"),
            ("turn a build: done", "turn b build; commit a 1"),
            ("interrupt", "interrupted"),
            ("resume", "commit a 1; turn b build"),
        ],
    );
}

#[test]
fn what_is_filled_in_is_not_looked_at_again() {
    let spec = limited(|spec| spec.prompt = "say {planner} and {builder} {".to_owned());
    let mut world = check("prompt", spec, &[("start", "turn planner plan")]);
    assert_eq!(world.prompt("planner", StepKind::Plan), "say {planner} and {builder} {");
    let action = world.action("turn planner");
    world.end(&action, Ok("{builder} {prompt} {unknown} {"));
    world.go();
    assert_eq!(world.prompt("builder", StepKind::Plan), "say {planner} and {builder} {{builder} {prompt} {unknown} {");
}

#[test]
fn nothing_lands_before_its_gate_has_passed() {
    let world = check_built("built", spec(), &[("turn builder plan: plan of a", "turn a build")]);
    let landing = RunEvent::LandingStarted { branch: "main".to_owned(), from: "base".to_owned(), to: "x".to_owned() };
    let error = world.run.clone().apply(&landing).unwrap_err();
    assert_eq!(error.why, "nothing lands before its gate has passed");
    assert!(Blueprint::new("", Vec::new()).is_err());
}
