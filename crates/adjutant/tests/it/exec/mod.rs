//! `adjutant exec` against fake vendors that speak the real wires over HTTP.

mod answers;
mod cassettes;
pub(crate) mod failover;
mod planted;
mod schema;
mod secrets;
mod wires;

use crate::support::World;
use adj_testkit::FakeVendor;

/// The four wires, each by a model that is asked over it.
pub const MODELS: [&str; 4] =
    ["openai/gpt-test", "anthropic/claude-test", "openai-chat/fake-model", "gemini/gemini-test"];

/// A world whose environment leads every vendor's variables to the fake one.
pub fn world_of(vendor: &FakeVendor) -> World {
    let mut world = World::new();
    for (name, value) in vendor.environment() {
        world.set(name, value);
    }
    world
}
