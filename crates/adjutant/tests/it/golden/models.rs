//! What `adjutant models` says, and what a model with a price leaves behind.

use super::Transcript;
use crate::{exec::world_of, support::World};
use adj_testkit::{FakeVendor, Reply};

const OWN: &str = r#"[[model]]
match = "openai/test-model"
context = 8000
rates = { input = "2", output = "10", cache_read = "0.2" }

[[model]]
match = "openai/test-model"
from = "2999-01-01"
currency = "EUR"
rates = { input = "1", output = "2" }
"#;

const ARRANGED: &str = r#"
[[account]]
name = "work"
vendor = "anthropic"
key_env = "WORK_KEY"
concurrency = 4
tokens_per_minute = 100000

[[account]]
name = "work-local"
wire = "chat"
base_url = "http://127.0.0.1:1/v1"

[[route]]
name = "work"
targets = ["work/claude-sonnet-4-5", "anthropic/claude-sonnet-4-5", "work-local/qwen"]
move_on = ["limit", "overloaded"]
stay_ms = 5000
"#;

#[test]
fn models_are_listed_with_their_prices() {
    let mut world = World::new();
    world.set("ANTHROPIC_API_KEY", "sk-not-used-at-all");
    let folder = world.folder("work", &[]);
    let mut transcript = Transcript::of(&world);
    transcript.types(&["models", "claude-sonnet-4"]);
    transcript.types(&["models", "gpt-5.5", "--json"]);
    transcript.types(&["models", "nothing-like-it"]);
    world.settings("models.toml", OWN);
    transcript.notes("with entries of one's own");
    transcript.types(&["models", "test-model"]);
    world.settings("models.toml", ARRANGED);
    transcript.notes("with accounts and routes");
    transcript.types(&["models", "work"]);
    transcript.types(&["models", "work", "--json"]);
    for words in [
        &["exec", "-m", "route/work", "go"][..],
        &["exec", "-m", "route/nowhere", "go"],
        &["exec", "-m", "work-local/x", "--fallback", "route/work", "go"],
        &["gateway", "-m", "route/nowhere", "--", "true"],
        &["gateway", "--fallback", "work-local/x", "--", "true"],
    ] {
        transcript.types_at(&folder, words);
    }
    world.settings("models.toml", "[[account]]\nname = \"x\"\nvendor = \"acme\"\n");
    transcript.types(&["models"]);
    world.settings("models.toml", "[[route]]\nname = \"x\"\ntargets = []\n");
    transcript.types(&["models"]);
    world.settings("models.toml", &OWN.replace("\"2\"", "2.0"));
    transcript.notes("with a price that is not exact");
    transcript.types(&["models"]);
    insta::assert_snapshot!(transcript.end());
}

#[test]
fn what_an_answer_cost_is_recorded_and_shown() {
    let vendor = FakeVendor::answering([Reply::text("It is the linker.")]);
    let world = world_of(&vendor);
    world.settings("models.toml", OWN);
    let folder = world.folder("work", &[]);
    world.run(&folder, &["exec", "-m", "openai/test-model", "why?"]).exits(0);
    let shown = world.trace(&["show", &world.only_session().0]).exits(0).out;
    // The fake vendor counts 60 tokens of fresh input, 20 of output and 40 from its cache.
    assert!(shown.contains("60 in, 20 out, 40 cached, $0.000328,"), "{shown}");
    world.verify();
}
