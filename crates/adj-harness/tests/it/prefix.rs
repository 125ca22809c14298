//! Vendors cache what a request begins with: each request must begin with the one before it.

use crate::world::{World, call, spec};
use adj_domain::{ModelRequest, StopReason};
use adj_harness::{Effect, Input};
use serde_json::json;

fn request(world: &World) -> ModelRequest {
    let found = world.effects.iter().find_map(|effect| match effect {
        Effect::CallModel { request, .. } => Some((**request).clone()),
        Effect::RunTool { .. } | Effect::Bind { .. } => None,
    });
    found.expect("a model is called")
}

#[test]
fn a_request_begins_with_the_bytes_of_the_one_before() {
    let mut world = World::new(spec());
    world.queue("begin", None);
    world.give(Input::Wake);
    let mut before = request(&world);
    for step in 0..8 {
        world.answer(vec![call("bash", json!({"command": step, "z": 1, "a": 2}))], StopReason::ToolUse);
        if step == 3 {
            world.queue("and one more thing", None);
        }
        world.finish_tool("ok");
        let after = request(&world);
        assert_eq!(before.system, after.system);
        assert_eq!(before.tools, after.tools);
        let bytes = |request: &ModelRequest| serde_json::to_string(&request.items).unwrap();
        let (shorter, longer) = (bytes(&before), bytes(&after));
        assert!(longer.starts_with(shorter.trim_end_matches(']')), "step {step}");
        before = after;
    }
}
