//! A vendor's key: only the vendor ever sees it.

use super::{MODELS, world_of};
use crate::support::World;
use adj_testkit::{FakeVendor, Reply};
use serde_json::json;
use std::{fs, path::Path, path::PathBuf};

const CANARY: &str = "sk-canary-4f9b2c77e1d0";

/// Panics when the key stands in any file below the folder.
#[track_caller]
fn assert_clean(folder: &Path) {
    let mut folders = vec![folder.to_owned()];
    let mut files: Vec<PathBuf> = Vec::new();
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).expect("a folder can be read") {
            let path = entry.expect("an entry").path();
            if path.is_symlink() {
                continue;
            }
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    assert!(files.iter().any(|file| file.ends_with("journal.db")));
    for file in files {
        // A socket cannot be opened and holds nothing.
        let Ok(bytes) = fs::read(&file) else { continue };
        let found = bytes.windows(CANARY.len()).any(|window| window == CANARY.as_bytes());
        assert!(!found, "the key stands in {}", file.display());
    }
}

fn with_key(vendor: &FakeVendor) -> World {
    let mut world = world_of(vendor);
    for name in ["OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "OPENAI_COMPATIBLE_API_KEY"] {
        world.set(name, CANARY);
    }
    world
}

#[test]
fn the_key_reaches_no_file_no_output_and_no_command() {
    let look = "env; cat /proc/*/environ | tr '\\0' '\\n'; cat /proc/*/cmdline | tr '\\0' ' '; echo looked";
    for model in MODELS {
        let vendor = FakeVendor::answering([
            Reply::text("I look around.").and_reasoning("Where is it?").and_call("bash", json!({"command": look})),
            Reply::text("Nothing."),
        ]);
        let world = with_key(&vendor);
        let folder = world.folder("work", &[]);
        let done = world.run(&folder, &["exec", "-m", model, "where is the key?"]).exits(0);
        assert!(!done.to_string().contains(CANARY), "{model}: {done}");
        let asked = vendor.requests();
        let heads: Vec<&String> = asked[0].headers.iter().map(|(_, value)| value).collect();
        assert!(heads.iter().any(|value| value.contains(CANARY)), "{model}: the vendor gets it");
        let results = String::from_utf8(asked[1].bytes.clone()).expect("a request is UTF-8");
        assert!(results.contains("looked"), "{model}: {results}");
        assert!(!results.contains(CANARY), "{model}: {results}");
        // Nothing of the caller's environment is inside at all.
        assert!(!results.contains("ADJUTANT_HOME") && !results.contains("OPENAI"), "{model}: {results}");
        assert_clean(&world.state());
        assert_clean_except_journal(&folder);
    }
}

fn assert_clean_except_journal(folder: &Path) {
    for (file, text) in crate::support::files_of(folder) {
        assert!(!text.contains(CANARY), "the key stands in {file}");
    }
}

/// Some vendors, and what stands between them and us, repeat the key in what they answer.
#[test]
fn a_key_that_a_vendor_repeats_is_not_repeated_by_us() {
    for model in MODELS {
        let words = format!("Incorrect API key provided: {CANARY}. You can find it in your account.");
        let vendor = FakeVendor::answering([Reply::failure(401, "invalid_api_key", words)]);
        let world = with_key(&vendor);
        let done = world.run(&world.folder("work", &[]), &["exec", "-m", model, "go"]).exits(1);
        assert!(done.err.contains("Incorrect API key provided"), "{model}: {done}");
        assert!(!done.to_string().contains(CANARY), "{model}: {done}");
        assert_clean(&world.state());
        let traced = world.trace(&["show", &world.only_session().0, "--full"]).exits(0);
        assert!(!traced.out.contains(CANARY), "{model}: {traced}");
    }
}
