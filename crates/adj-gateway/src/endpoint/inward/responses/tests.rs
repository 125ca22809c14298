//! What is lossless comes back as it was: neutral, to the wire as our own encoder writes it, and neutral again.

use super::read;
use crate::endpoint::inward::random::{Random, caller, disturb, numbered};
use adj_domain::{Content, Item, ModelRequest, Sampling};
use adj_providers::openai;
use serde_json::Value;

/// The wire has no flag for failure and no place for some ways of drawing; files have names, and texts of a result are one.
fn as_the_wire_has_it(request: &mut ModelRequest) {
    let Sampling { top_k, stop, .. } = &mut request.sampling;
    *top_k = None;
    stop.clear();
    for item in &mut request.items {
        if let Item::ToolResult { content, is_error, .. } = item {
            *is_error = false;
            if content.iter().all(|block| matches!(block, Content::Text { .. })) {
                *content = vec![Content::Text { text: Content::join_text(content) }];
            }
        }
        if let Item::ToolResult { content, .. } | Item::User { content } = item {
            for block in content {
                if let Content::Document { name, .. } = block {
                    name.get_or_insert_with(|| "document".to_owned());
                }
            }
        }
    }
}

#[test]
fn a_neutral_request_comes_back_from_the_wire_as_it_was() {
    for seed in 0..400 {
        let mut before = Random(seed).request();
        as_the_wire_has_it(&mut before);
        let body = openai::encode(&before).expect("the wire has words for all of it").body;
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
        let mut request = random.request();
        as_the_wire_has_it(&mut request);
        let body = openai::encode(&request).expect("the wire has words for all of it").body;
        let mut body: Value = serde_json::from_slice(&body).expect("it is JSON");
        for _ in 0..=random.below(3) {
            disturb(&mut body, &mut random);
        }
        let _ = read(body.to_string().as_bytes(), &model, &caller().session);
    }
}
