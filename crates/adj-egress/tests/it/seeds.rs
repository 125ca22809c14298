//! Every input that the fuzz target started from, or once found, goes through the same function here.

#[path = "../../../../fuzz/bodies/egress.rs"]
mod body;

use std::{fs, panic, path::Path};

#[test]
fn strangers_bytes() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/egress");
    let mut count = 0;
    for entry in fs::read_dir(&folder).expect("the seeds are there") {
        let seed = entry.expect("the folder can be listed").path();
        let data = fs::read(&seed).expect("the seed can be read");
        for end in 0..=data.len() {
            let outcome = panic::catch_unwind(|| body::run(&data[..end]));
            assert!(outcome.is_ok(), "it fails on the first {end} bytes of {}", seed.display());
            count += 1;
        }
    }
    assert!(count > 100, "there are seeds");
}
