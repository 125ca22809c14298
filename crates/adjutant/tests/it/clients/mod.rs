//! Programs and libraries of other makers, unmodified, through `adjutant gateway` onto each wire.
//!
//! They are installed by `cargo xtask check clients`, which runs these tests and says by `ADJUTANT_CLIENT_*` where they lie.

mod programs;
mod sdks;

use crate::support::World;
use adj_testkit::{Asked, FakeVendor, Reply};

/// The wires that answer, each by its model.
const MODELS: [(&str, &str); 4] = [
    ("Responses", "openai/gpt-test"),
    ("Messages", "anthropic/claude-test"),
    ("chat completions", "openai-chat/fake-model"),
    ("generateContent", "gemini/gemini-test"),
];

/// Where the installer put it.
fn client(name: &str) -> String {
    let variable = format!("ADJUTANT_CLIENT_{name}");
    std::env::var(&variable).unwrap_or_else(|_| panic!("{variable} is not set: run `cargo xtask check clients`"))
}

/// A world that leads to a fake vendor, which answers as the script says.
fn world_of(script: impl FnMut(&Asked) -> Reply + Send + 'static) -> (World, FakeVendor) {
    let vendor = FakeVendor::for_others(script);
    let world = crate::exec::world_of(&vendor);
    (world, vendor)
}
