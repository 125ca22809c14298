//! Budgets from the command line, against a vendor that counts for itself what it has been asked for.

use crate::support::World;
use adj_testkit::{FakeVendor, Reply};
use serde_json::{Value, json};
use std::path::Path;

const MODEL: &str = "anthropic/claude-test";
/// A dollar for 100,000 tokens of output, and nothing for input.
const PRICES: &str = "[[model]]\nmatch = \"anthropic/claude-test\"\ncontext = 200000\nmax_output = 32000\n\
                      rates = { input = \"0\", output = \"10\" }\n";
/// What each answer of the vendor costs, in millionths of a dollar.
const EACH: u64 = 20_000;

/// A vendor that wants a command run `calls` times, and then says something.
fn spending(calls: usize) -> (FakeVendor, World) {
    let vendor = FakeVendor::with(move |asked| {
        let results = asked.bytes.windows(13).filter(|part| part == b"\"tool_result\"").count();
        let counts = adj_testkit::TokenCounts { input: 100, cached: 0, output: EACH / 10, reasoning: 0 };
        match results < calls {
            true => Reply::call("read", json!({"file_path": "a.txt"})).using(counts),
            false => Reply::text("Done.").using(counts),
        }
    });
    let mut world = World::new();
    for (name, value) in vendor.environment() {
        world.set(name, value);
    }
    world.settings("models.toml", PRICES);
    (vendor, world)
}

/// How the purse of the first that is named stands: at least, at most and held in dollars.
fn sums(world: &World, target: &[&str]) -> (u64, u64, u64) {
    let done = world.run(world.home.path(), &[&["budget", "show", "--json"], target].concat()).exits(0);
    let shown: Value = serde_json::from_str(&done.out).expect("it is JSON");
    let sum = &shown["purses"][0]["sums"]["USD"];
    let of = |name: &str| sum[name].as_u64().unwrap_or(0);
    (of("at_least"), of("at_most"), of("held"))
}

#[test]
fn a_session_stops_at_its_budget_and_goes_on_when_it_is_raised() {
    let (vendor, world) = spending(4);
    let folder = world.folder("work", &[("a.txt", "alpha\n")]);
    let done = world.run(&folder, &["exec", "-m", MODEL, "--budget", "0.05usd", "go"]).exits(8);
    assert!(done.err.contains("0.05 USD") && done.err.contains("--budget AMOUNT"), "{done}");
    // Two fit; what is left is too little for a third.
    assert_eq!(vendor.requests().len(), 2);
    let (session, _) = world.only_session();
    assert_eq!(sums(&world, &[&session]), (2 * EACH, 2 * EACH, 0));
    world.verify();

    let done = world.run(world.home.path(), &["budget", "set", &session, "0.07usd"]).exits(0);
    assert!(done.out.contains("limit      0.07 USD") && done.out.contains("spent      0.04 USD"), "{done}");
    world.run(&folder, &["exec", "--resume", &session]).exits(8);
    assert_eq!(vendor.requests().len(), 3);
    let done = world.run(&folder, &["exec", "--resume", &session, "--budget", "5usd"]).exits(0);
    assert_eq!(done.out, "Done.\n");
    assert_eq!(vendor.requests().len(), 5);
    assert_eq!(sums(&world, &[&session]), (5 * EACH, 5 * EACH, 0));
    // One turn, however often it rested.
    let events = world.trace(&["export", &session]).exits(0).lines();
    let turns = events.iter().filter(|event| event["type"] == "session.status_running");
    assert!(turns.into_iter().all(|event| event["body"]["turn"] == 1));
    world.verify();
    world.run(world.home.path(), &["budget", "lift", &session]).exits(0);
    let done = world.run(world.home.path(), &["budget", "show", &session]).exits(0);
    assert!(!done.out.contains("limit"), "{done}");
}

#[test]
fn two_processes_share_the_budget_of_one_day() {
    let (vendor, world) = spending(3);
    world.settings("policy.toml", "[budget]\nday = \"0.09usd\"\n");
    let folders = ["one", "two"].map(|name| world.folder(name, &[("a.txt", "alpha\n")]));
    let running: Vec<_> = folders
        .iter()
        .map(|folder| {
            let prompt = folder.to_str().expect("a temporary path is UTF-8");
            let mut command = world.command(folder, ["exec", "-m", MODEL, prompt]);
            command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
            command.spawn().expect("the binary can be started")
        })
        .collect();
    let codes: Vec<_> =
        running.into_iter().map(|child| child.wait_with_output().expect("it ends").status.code()).collect();
    let asked = vendor.requests().len() as u64;
    assert!(asked * EACH <= 90_000, "{asked} requests");
    assert!(codes.contains(&Some(8)), "{codes:?}");
    assert_eq!(sums(&world, &[]), (asked * EACH, asked * EACH, 0));
    let done = world.run(world.home.path(), &["budget", "show"]).exits(0);
    assert!(done.out.contains("0.09 USD, says organisation"), "{done}");
    // What is raised is there for whoever goes on.
    world.settings("policy.toml", "[budget]\nday = \"9usd\"\n");
    for log in world.list() {
        let session = log["id"].as_str().expect("a log has an id");
        world.run(&folders[0], &["exec", "--resume", session]);
    }
    assert_eq!(vendor.requests().len(), 8);
    world.verify();
}

/// The vendor's own count never passes what the books say may have been spent, whenever a process dies.
#[test]
fn killed_after_each_durable_write_no_money_is_lost_from_the_books() {
    for writes in 1..=60 {
        let (vendor, world) = spending(2);
        let folder = world.folder("work", &[("a.txt", "alpha\n")]);
        let words = ["exec", "-m", MODEL, "--budget", "5usd", "go"];
        let done = world.run_crashing(&folder, &words, writes);
        if !done.was_killed() {
            done.exits(0);
            assert!(writes > 8, "only {writes} writes");
            return;
        }
        let billed = |vendor: &FakeVendor| vendor.requests().len() as u64 * EACH;
        // A log may have been made and not begun.
        if world.list_if_any().is_empty() || world.only_session().1 == 0 {
            assert_eq!(billed(&vendor), 0);
            continue;
        }
        let (session, _) = &world.only_session();
        let (_, at_most, held) = sums(&world, &[session]);
        assert!(billed(&vendor) <= at_most + held, "after write {writes}");
        let mut again = vec!["exec", "--resume", session.as_str()];
        if !vendor.requests().is_empty() || world.trace(&["show", session]).out.contains("user.message") {
            world.run(Path::new("/"), &again).exits(0);
        } else {
            again.push("go");
            world.run(Path::new("/"), &again);
        }
        let (_, at_most, held) = sums(&world, &[session]);
        assert!(billed(&vendor) <= at_most && held == 0, "resumed after write {writes}: {at_most} {held}");
        world.verify();
    }
    panic!("it never came to its end");
}

#[test]
fn what_is_no_budget_is_wrong_usage_and_an_unknown_price_is_refused_with_a_way_out() {
    let (vendor, world) = spending(0);
    let folder = world.folder("work", &[]);
    for (flag, value, words) in [("--budget", "5", "5usd"), ("--unpriced", "maybe", "assume:3/15")] {
        let done = world.run(&folder, &["exec", "-m", MODEL, flag, value, "go"]).exits(2);
        assert!(done.err.contains(words), "{done}");
    }
    let nobody = world.run(&folder, &["budget", "set", "run_1", "5usd"]);
    assert_eq!(nobody.code, Some(2), "{nobody}");
    assert_eq!(vendor.requests().len(), 0);
}

#[test]
fn a_run_pauses_at_its_budget_and_goes_on_when_there_is_more() {
    let world = World::new();
    let folder = world.path("demo").display().to_string();
    let words = ["run", "--demo", "--dir", &folder, "--budget", "12k-tokens"];
    let done = world.run(world.home.path(), &words).exits(8);
    let (run, _) = world.only_run();
    assert!(done.err.contains(&format!("the budget of run:{run} is reached")), "{done}");
    assert!(done.out.contains("Paused"), "{done}");
    let resume = ["run", "--resume", &run];
    world.run(world.home.path(), &resume).exits(8);
    world.run(world.home.path(), &["budget", "set", &run, "50m-tokens"]).exits(0);
    world.run(world.home.path(), &resume).exits(0);
    world.verify();
}
