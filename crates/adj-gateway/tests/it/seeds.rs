//! Every request that the fuzz target started from, or once found, goes through the same function here.

#[path = "../../../../fuzz/bodies/caller.rs"]
mod body;

use std::{fs, panic, path::Path};

#[test]
fn callers_requests() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/caller");
    let mut count = 0;
    for entry in fs::read_dir(&folder).expect("the seeds are there") {
        let seed = entry.expect("the folder can be listed").path();
        let data = fs::read(&seed).expect("the seed can be read");
        // Without one byte, or with another one, much of it is a request still.
        for place in (1..data.len()).step_by(1 + data.len() / 300) {
            let mut without = data.clone();
            without.remove(place);
            let mut other = data.clone();
            other[place] ^= 1;
            for damaged in [&data[..place], &without, &other] {
                let outcome = panic::catch_unwind(|| body::run(damaged));
                assert!(outcome.is_ok(), "it fails on {}, damaged at {place}", seed.display());
                count += 1;
            }
        }
        body::run(&data);
    }
    assert!(count > 1000, "there are seeds");
}
