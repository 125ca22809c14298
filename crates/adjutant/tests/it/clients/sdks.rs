//! The official libraries of the vendors, through the gateway onto each wire.

use super::{MODELS, client, world_of};
use adj_testkit::{Asked, Reply};
use serde_json::json;

const SCRIPT: &str = include_str!("sdks.py");

fn answer(asked: &Asked) -> Reply {
    let said = String::from_utf8_lossy(&asked.bytes);
    if said.contains("the answer is 42") {
        Reply::text("It is 42.")
    } else if said.contains("Look it up") {
        Reply::text("I look.").and_call("lookup", json!({"key": "answer"})).and_call("lookup", json!({"key": "other"}))
    } else if said.contains("as an object") {
        Reply::text("{\"answer\": 42}")
    } else {
        Reply::text("Plain words, one by one.")
    }
}

#[test]
#[ignore = "needs libraries of other makers: `cargo xtask check clients`"]
fn every_library_works_unchanged_on_every_wire() {
    for (wire, model) in MODELS {
        let (world, _vendor) = world_of(answer);
        let folder = world.folder("work", &[("sdks.py", SCRIPT)]);
        let done = world.run(&folder, &["gateway", "--model", model, "--", &client("PYTHON"), "sdks.py"]);
        assert_eq!(done.code, Some(0), "{wire}: {done}");
        assert_eq!(done.out.lines().last(), Some("all 15 cases are good"), "{wire}: {done}");
        world.verify();
    }
}
