//! Every input that a fuzz target started from, or once found, goes through the same function here.

use crate::bodies;
use std::{fs, panic, path::Path};

fn replay(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds").join(target);
    let mut seeds: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    seeds.sort();
    assert!(!seeds.is_empty(), "{} has no seeds", folder.display());
    for seed in seeds {
        let data = fs::read(&seed).unwrap();
        // A cut is the commonest damage of all.
        let cuts = (0..data.len()).step_by(1 + data.len() / 24);
        for end in cuts.chain([data.len()]) {
            let outcome = panic::catch_unwind(|| run(&data[..end]));
            assert!(outcome.is_ok(), "{target} fails on the first {end} bytes of {}", seed.display());
        }
    }
}

#[test]
fn provider_stream() {
    replay("provider_stream", bodies::provider_stream::run);
}

#[test]
fn journal() {
    replay("journal", bodies::journal::run);
}

#[test]
fn patch() {
    replay("patch", bodies::patch::run);
}
