//! What is lossless comes back as it was: neutral, to the wire as our own encoder writes it, and neutral again.

use super::read;
use crate::endpoint::inward::random::{Random, caller, disturb, numbered};
use adj_providers::anthropic;
use serde_json::Value;

#[test]
fn a_neutral_request_comes_back_from_the_wire_as_it_was() {
    for seed in 0..400 {
        let mut before = Random(seed).request();
        let body = anthropic::encode(&before).expect("the wire has words for all of it").body;
        let after = read(&body, &before.model, &before.caller.session);
        let mut after = after.unwrap_or_else(|error| panic!("seed {seed}: {error}")).request;
        numbered(&mut before);
        numbered(&mut after);
        before.system = before.system.trim_start().to_owned();
        assert_eq!(after, before, "seed {seed}");
    }
}

#[test]
fn small_changes_of_a_request_are_understood_or_refused_and_never_a_panic() {
    let model = "vendor/m".parse().expect("it names a model");
    for seed in 0..600 {
        let mut random = Random(seed);
        let body = anthropic::encode(&random.request()).expect("the wire has words for all of it").body;
        let mut body: Value = serde_json::from_slice(&body).expect("it is JSON");
        for _ in 0..=random.below(3) {
            disturb(&mut body, &mut random);
        }
        let _ = read(body.to_string().as_bytes(), &model, &caller().session);
    }
}
