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

type Body = fn(&[u8]);

const BODIES: [(&str, Body); 9] = [
    ("caller", bodies::caller::run),
    ("command", bodies::command::run),
    ("egress", bodies::egress::run),
    ("journal", bodies::journal::run),
    ("limits", bodies::limits::run),
    ("patch", bodies::patch::run),
    ("policy", bodies::policy::run),
    ("provider_stream", bodies::provider_stream::run),
    ("rules", bodies::rules::run),
];

fn check(target: &str) {
    let (_, run) = BODIES.into_iter().find(|(name, _)| *name == target).unwrap();
    replay(target, run);
}

#[test]
fn every_target_is_replayed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/fuzz_targets");
    let mut targets: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.strip_suffix(".rs").map(str::to_owned))
        .collect();
    targets.sort();
    assert_eq!(targets, BODIES.map(|(name, _)| name));
}

#[test]
fn caller() {
    check("caller");
}

#[test]
fn command() {
    check("command");
}

#[test]
fn egress() {
    check("egress");
}

#[test]
fn journal() {
    check("journal");
}

#[test]
fn limits() {
    check("limits");
}

#[test]
fn patch() {
    check("patch");
}

#[test]
fn policy() {
    check("policy");
}

#[test]
fn provider_stream() {
    check("provider_stream");
}

#[test]
fn rules() {
    check("rules");
}
