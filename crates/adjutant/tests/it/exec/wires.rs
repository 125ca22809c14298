//! What must be the same over each wire: messages, calls, retries.

use super::{MODELS, world_of};
use crate::support::{files_of, wait_until_no_helper};
use adj_testkit::{FakeVendor, Reply};
use serde_json::json;
use std::time::{Duration, Instant};

#[test]
fn a_message_goes_there_and_back() {
    for model in MODELS {
        let vendor = FakeVendor::answering([Reply::text("It is the linker.").in_chunks_of(7)]);
        let world = world_of(&vendor);
        let folder = world.folder("work", &[("main.c", "int main;\n")]);
        let done = world.run(&folder, &["exec", "-m", model, "why does the build fail?"]).exits(0);
        assert_eq!(done.out, "It is the linker.\n", "{model}");
        assert_eq!(done.err, "", "{model}");
        let asked = vendor.requests();
        assert_eq!(asked.len(), 1, "{model}");
        assert_eq!(asked[0].model(), model.split_once('/').expect("a model has a vendor").1);
        assert!(asked[0].last().to_string().contains("why does the build fail?"), "{model}");
        assert_eq!(vendor.violations(), Vec::<String>::new(), "{model}");
        assert!(!world.state().join("sessions").exists(), "no sandbox is started for nothing");
        world.verify();
    }
}

#[test]
fn calls_of_one_answer_really_run_and_are_all_answered() {
    for model in MODELS {
        let vendor = FakeVendor::answering([
            Reply::text("I look and write.")
                .and_call("bash", json!({"command": "echo from bash > bash.txt; echo seen; exit 3"}))
                .and_call("write", json!({"file_path": "deep/written.txt", "content": "from write\n"}))
                .and_call("read", json!({"file_path": "seed.txt"}))
                .and_call("fly", json!({}))
                .and_raw_call("write", "{\"file_path\": \"half.txt\", \"conte"),
            Reply::text("Done."),
        ]);
        let world = world_of(&vendor);
        let folder = world.folder("work", &[("seed.txt", "seedling\n")]);
        let done = world.run(&folder, &["exec", "-m", model, "go"]).exits(0);
        assert_eq!(done.out, "Done.\n", "{model}");
        let files = files_of(&folder);
        assert_eq!(files.keys().collect::<Vec<_>>(), ["bash.txt", "deep/written.txt", "seed.txt"], "{model}");
        assert_eq!((&*files["bash.txt"], &*files["deep/written.txt"]), ("from bash\n", "from write\n"), "{model}");
        let second = String::from_utf8(vendor.requests()[1].bytes.clone()).expect("a request is UTF-8");
        for part in ["seen", "exit code 3", "seedling", "not allowed", "the arguments are not JSON"] {
            assert!(second.contains(part), "{model}: no {part:?} in {second}");
        }
        assert_eq!(vendor.violations(), Vec::<String>::new(), "{model}");
        wait_until_no_helper(&world.state());
        world.verify();
    }
}

#[test]
fn a_vendor_that_asks_to_wait_is_waited_for() {
    for model in MODELS {
        let busy = Reply::failure(429, "rate_limit_error", "slow down").retry_after("1");
        let vendor = FakeVendor::answering([busy, Reply::text("Here.")]);
        let world = world_of(&vendor);
        let folder = world.folder("work", &[]);
        let started = Instant::now();
        let done = world.run(&folder, &["exec", "-m", model, "go", "--json"]).exits(0);
        assert!(started.elapsed() >= Duration::from_secs(1), "{model}");
        let ended = done.lines().into_iter().find(|event| event["type"] == "span.model_request_end");
        let ended = ended.unwrap_or_else(|| panic!("a request ends: {done}"));
        assert_eq!(ended["body"]["result"]["attempts"], 2, "{model}");
        assert_eq!(vendor.requests().len(), 2, "{model}");
        assert_eq!(vendor.requests()[0].bytes, vendor.requests()[1].bytes, "{model}: the same request again");
    }
}

/// The call arrives whole, the answer does not.
#[test]
fn nothing_of_a_half_answer_is_run() {
    let half = || Reply::call("bash", json!({"command": "echo bad > bad.txt"})).and_text("x".repeat(30_000));
    for model in MODELS {
        for cut in [half().broken_after(9_000), half().ended_after(9_000)] {
            let vendor = FakeVendor::answering([cut.in_chunks_of(500), Reply::text("Whole.")]);
            let world = world_of(&vendor);
            let folder = world.folder("work", &[]);
            let done = world.run(&folder, &["exec", "-m", model, "go"]).exits(0);
            assert_eq!(done.out, "Whole.\n", "{model}");
            assert_eq!(vendor.requests().len(), 2, "{model}");
            assert_eq!(files_of(&folder).len(), 0, "{model}: {:?}", files_of(&folder));
            let (session, _) = world.only_session();
            let log = world.trace(&["export", &session]).exits(0).out;
            assert!(!log.contains("bad.txt"), "{model}: {log}");
        }
    }
}

#[test]
fn what_a_vendor_refuses_is_told_in_its_words_and_not_repeated() {
    let cases = [
        (400, "invalid_request_error", "temperature is not supported by this model"),
        (401, "authentication_error", "this key is not valid here"),
        (404, "not_found_error", "there is no such model"),
    ];
    for model in MODELS {
        for (status, code, message) in cases {
            let vendor = FakeVendor::answering([Reply::failure(status, code, message)]);
            let world = world_of(&vendor);
            let done = world.run(&world.folder("work", &[]), &["exec", "-m", model, "go"]).exits(1);
            assert_eq!(done.out, "", "{model}");
            assert!(done.err.contains(message), "{model} {status}: {done}");
            assert!(done.err.contains("Hint: `adjutant exec --resume sesn_"), "{model} {status}: {done}");
            assert_eq!(vendor.requests().len(), 1, "{model} {status}");
        }
    }
}
