//! Every policy file that the fuzz target started from, or once found, goes through the same function here.

#[path = "../../../../fuzz/bodies/policy.rs"]
mod body;

use std::{fs, panic, path::Path};

#[test]
fn policy_files() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/policy");
    let mut count = 0;
    for entry in fs::read_dir(&folder).expect("the seeds are there") {
        let seed = entry.expect("the folder can be listed").path();
        let data = fs::read(&seed).expect("the seed can be read");
        for end in (0..data.len()).step_by(1 + data.len() / 200).chain([data.len()]) {
            let outcome = panic::catch_unwind(|| body::run(&data[..end]));
            assert!(outcome.is_ok(), "it fails on the first {end} bytes of {}", seed.display());
            count += 1;
        }
    }
    assert!(count > 100, "there are seeds");
}
