//! A task that one vendor begins and another ends.

use super::{MODELS, world_of};
use crate::support::{World, files_of};
use adj_testkit::{FakeVendor, Reply};
use serde_json::{Value, json};

/// Two vendors: the first two wires belong to one, the others to the other.
pub(crate) fn world_between(first: &FakeVendor, second: &FakeVendor) -> World {
    let mut world = world_of(first);
    for (name, value) in second.environment() {
        if name.starts_with("ANTHROPIC") {
            world.set(name, value);
        }
    }
    world
}

fn begins() -> Reply {
    Reply::empty()
        .and_reasoning("First I write.")
        .and_text("I write.")
        .and_call("bash", json!({"command": "echo one > one.txt; echo written"}))
}

fn ends() -> [Reply; 2] {
    let more =
        Reply::empty().and_reasoning("One is there.").and_call("bash", json!({"command": "cat one.txt > two.txt"}));
    [more, Reply::text("Both are there.")]
}

fn of_kind<'a>(events: &'a [Value], kind: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["type"] == kind).map(|event| &event["body"]).collect()
}

#[test]
fn a_vendor_that_dies_in_the_middle_of_a_task_is_followed_by_another() {
    let first = FakeVendor::answering([begins(), Reply::failure(402, "billing_error", "no more money")]);
    let second = FakeVendor::answering(ends());
    let world = world_between(&first, &second);
    let folder = world.folder("work", &[]);
    let words = ["exec", "-m", MODELS[0], "--fallback", MODELS[1], "--json", "write both"];
    let done = world.run(&folder, &words).exits(0);
    assert_eq!(files_of(&folder)["two.txt"], "one\n");
    // The other vendor gets the whole task in its own words, and not the reasoning of the first.
    let asked = String::from_utf8(second.requests()[0].bytes.clone()).expect("a request is UTF-8");
    for part in ["write both", "I write.", "echo one > one.txt", "written"] {
        assert!(asked.contains(part), "no {part:?} in {asked}");
    }
    assert!(!asked.contains("First I write."), "{asked}");

    let events = done.lines();
    let ended = of_kind(&events, "span.model_request_end");
    let moved = |place: usize| ended[place]["result"]["moved"].clone();
    assert_eq!((ended.len(), moved(0), moved(2)), (3, Value::Null, Value::Null));
    let expected = json!([{"from": MODELS[0], "to": MODELS[1], "why": "billing",
        "lost": ["1 record of reasoning", "the vendor's cache"]}]);
    assert_eq!(moved(1), expected);
    let by: Vec<&Value> = ended.iter().map(|end| &end["result"]["answered_by"]).collect();
    assert_eq!(by, [&Value::Null, &json!(MODELS[1]), &json!(MODELS[1])]);
    // The second request of the turn stayed there: the first vendor was not asked again.
    assert_eq!((first.requests().len(), second.requests().len()), (2, 2));
    let thought: Vec<&Value> = of_kind(&events, "agent.thinking").into_iter().map(|body| &body["vendor"]).collect();
    assert_eq!(thought, ["openai", "anthropic"]);
    world.verify();
    let shown = world.trace(&["show", &world.only_session().0]).exits(0).out;
    let expected = "left openai/gpt-test (billing), without 1 record of reasoning and the vendor's cache";
    assert!(shown.contains(expected), "{shown}");
}

#[test]
fn a_route_leads_over_accounts_of_ones_own() {
    let first = FakeVendor::answering([Reply::failure(401, "authentication_error", "who are you?")]);
    let second = FakeVendor::answering([Reply::text("Here I am.")]);
    let mut world = World::new();
    world.set("FIRST_KEY", "sk-first-key-0123456789");
    world.set("SECOND_KEY", "sk-second-key-0123456789");
    let arranged = format!(
        r#"
        [[account]]
        name = "first"
        vendor = "anthropic"
        base_url = "{}"
        key_env = "FIRST_KEY"
        concurrency = 1
        [[account]]
        name = "second"
        wire = "chat"
        base_url = "{}"
        key_env = "SECOND_KEY"
        [[route]]
        name = "either"
        targets = ["first/claude-sonnet-4-5", "second/house"]
        "#,
        first.url(),
        second.v1_url()
    );
    world.settings("models.toml", &arranged);
    let folder = world.folder("work", &[]);
    let path = world.path("c.jsonl");
    let file = path.to_str().expect("a temporary path is UTF-8");
    let done = world.run(&folder, &["exec", "-m", "route/either", "--record", file, "go"]).exits(0);
    assert_eq!(done.out, "Here I am.\n");
    let header = |vendor: &FakeVendor, name: &str| vendor.requests()[0].header(name).map(str::to_owned);
    assert_eq!(header(&first, "x-api-key").as_deref(), Some("sk-first-key-0123456789"));
    assert_eq!(header(&second, "authorization").as_deref(), Some("Bearer sk-second-key-0123456789"));
    let shown = world.trace(&["show", &world.only_session().0]).exits(0).out;
    assert!(shown.contains("left first/claude-sonnet-4-5 (auth)"), "{shown}");
    let text = std::fs::read_to_string(&path).expect("a cassette is text");
    assert!(!text.contains("-key-0123456789"), "{text}");

    // What was recorded is played along the same route.
    let done = world.run(&folder, &["exec", "--replay", file, "go"]).exits(0);
    assert_eq!(done.out, "Here I am.\n");

    world.set("SECOND_KEY", "");
    let done = world.run(&folder, &["exec", "-m", "route/either", "go"]).exits(2);
    assert!(done.err.contains("put the account's key into SECOND_KEY"), "{done}");
}
