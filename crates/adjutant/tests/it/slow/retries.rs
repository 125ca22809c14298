//! Vendors that are down for longer than it pays to try.

use crate::exec::{MODELS, world_of};
use adj_testkit::{FakeVendor, Reply};

fn fails_after_all_attempts(model: &str) {
    let vendor = FakeVendor::with(|_| Reply::failure(500, "server_error", "the furnace is cold"));
    let world = world_of(&vendor);
    let done = world.run(&world.folder("work", &[]), &["exec", "-m", model, "go"]).exits(1);
    assert!(done.err.contains("the furnace is cold"), "{done}");
    assert_eq!(done.out, "");
    assert_eq!(vendor.requests().len(), 5, "{model}");
    // Once it is up again, the session goes on with what it was told.
    let (session, _) = world.only_session();
    world.verify();
    assert!(done.err.contains(&session), "{done}");
}

#[test]
fn openai_is_given_up_with_its_words() {
    fails_after_all_attempts(MODELS[0]);
}

#[test]
fn anthropic_is_given_up_with_its_words() {
    fails_after_all_attempts(MODELS[1]);
}

#[test]
fn a_chat_vendor_is_given_up_with_its_words() {
    fails_after_all_attempts(MODELS[2]);
}

#[test]
fn gemini_is_given_up_with_its_words() {
    fails_after_all_attempts(MODELS[3]);
}
