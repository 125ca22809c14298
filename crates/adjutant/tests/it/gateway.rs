//! `adjutant gateway`: other programs on any model. The program here is mostly Adjutant itself, which speaks all wires.

use crate::{
    exec::{MODELS, failover::world_between, world_of},
    support::{World, files_of, wait_until_no_helper},
};
use adj_testkit::{FakeVendor, Reply};
use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::Stdio,
};

const SELF: &str = env!("CARGO_BIN_EXE_adjutant");

/// The vendors' own keys; none of them may be seen by the program.
const KEYS: [&str; 4] = ["sk-fake-openai", "sk-fake-anthropic", "fake-gemini-key", "sk-fake-compatible"];

/// The events of the gateway's own session.
fn recorded(world: &World) -> Vec<Value> {
    let logs = world.list();
    let mut programs = logs.iter().map(|log| {
        let id = log["id"].as_str().expect("a log has an id");
        world.trace(&["export", id]).exits(0).lines()
    });
    programs.find(|events| !events[0]["body"]["spec"]["program"].is_null()).expect("a program's session")
}

fn of_kind<'a>(events: &'a [Value], kind: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["type"] == kind).map(|event| &event["body"]).collect()
}

#[test]
fn every_wire_reaches_its_own_vendor_and_each_request_is_recorded() {
    for model in MODELS {
        let vendor = FakeVendor::answering([
            Reply::text("I look.").and_call("bash", json!({"command": "echo seen > seen.txt"})),
            Reply::text("It is done."),
        ]);
        let world = world_of(&vendor);
        let folder = world.folder("work", &[]);
        let done = world.run(&folder, &["gateway", "--", SELF, "exec", "-m", model, "go"]).exits(0);
        assert_eq!(done.out, "It is done.\n", "{model}");
        assert!(done.err.contains("adjutant: 2 requests, "), "{model}: {}", done.err);
        assert_eq!(files_of(&folder)["seen.txt"], "seen\n");
        assert_eq!(vendor.violations(), Vec::<String>::new(), "{model}");
        let asked = vendor.requests();
        assert_eq!(asked.len(), 2, "{model}");
        let keys = asked[0].headers.iter().map(|(_, value)| value.as_str()).collect::<Vec<_>>().join(" ");
        assert!(KEYS.iter().any(|key| keys.contains(key)), "the vendor is shown its own key: {keys}");
        assert!(!keys.contains("adjt_"), "{model}: the program's token goes nowhere: {keys}");

        let events = recorded(&world);
        let started = of_kind(&events, "span.model_request_start");
        assert_eq!(started.len(), 2, "{model}");
        assert_eq!(started[0]["model"], model);
        assert_eq!(started[0]["origin"]["converted"], Value::Null);
        let ended = of_kind(&events, "span.model_request_end");
        assert!(ended.iter().all(|end| end["result"]["status"] == "answered"), "{model}: {ended:?}");
        assert!(ended[0]["result"]["model_usage"]["output_tokens"].as_u64() > Some(0), "{model}: {ended:?}");
        assert_eq!(of_kind(&events, "agent.program_ended"), [&json!({"type": "agent.program_ended", "code": 0})]);
        wait_until_no_helper(&world.state());
        world.verify();
    }
}

#[test]
fn a_programs_task_is_ended_by_another_vendor_that_speaks_another_wire() {
    let call = |command: &str| Reply::empty().and_reasoning("Hm.").and_call("bash", json!({"command": command}));
    let first = FakeVendor::answering([call("echo one > one.txt"), Reply::failure(402, "billing_error", "no money")]);
    let second = FakeVendor::answering([call("cat one.txt > two.txt"), Reply::text("Both are there.")]);
    let world = world_between(&first, &second);
    let folder = world.folder("work", &[]);
    // Whoever meets no money at home gives up; this program never hears of it.
    let words = ["gateway", "-m", MODELS[0], "--fallback", MODELS[1], "--", SELF, "exec", "-m", MODELS[0], "go"];
    let done = world.run(&folder, &words).exits(0);
    assert_eq!((done.out.as_str(), files_of(&folder)["two.txt"].as_str()), ("Both are there.\n", "one\n"));
    assert_eq!((first.requests().len(), second.requests().len()), (2, 2), "the third began where the second was led");
    for vendor in [&first, &second] {
        assert_eq!(vendor.violations(), Vec::<String>::new());
    }
    let events = recorded(&world);
    let ended = of_kind(&events, "span.model_request_end");
    let by: Vec<&Value> = ended.iter().map(|end| &end["result"]["answered_by"]).collect();
    assert_eq!(by, [&Value::Null, &json!(MODELS[1]), &json!(MODELS[1])]);
    let moved: Vec<&Value> = ended.iter().map(|end| &end["result"]["moved"][0]["why"]).collect();
    assert_eq!(moved, [&Value::Null, &json!("billing"), &Value::Null]);
    wait_until_no_helper(&world.state());
    world.verify();
}

#[test]
fn the_programs_end_and_its_words_are_passed_on_and_no_key_is_shown_to_it() {
    let vendor = FakeVendor::answering([]);
    let world = world_of(&vendor);
    let folder = world.folder("work", &[]);
    let run = |words: &[&str]| world.run(&folder, &[&["gateway"], words].concat());
    let done = run(&["--", "sh", "-c", "env; pwd; echo aside >&2; exit 3"]).exits(3);
    assert!(KEYS.iter().all(|key| !done.out.contains(key)), "{}", done.out);
    assert!(done.out.contains("OPENAI_API_KEY=adjt_") && done.out.contains(folder.to_str().expect("UTF-8")), "{done}");
    assert!(done.err.starts_with("aside\nsh: 0 requests, 0 tokens in, 0 out\n"), "{done}");
    assert_eq!(run(&["-q", "--", "sh", "-c", "kill -TERM $$"]).exits(143).err, "");
    assert!(run(&["--", "no-such-program"]).exits(127).err.contains("is it installed"));
    assert!(run(&["--", "/"]).exits(126).err.contains("may be executed"));
    // What is wrong with us is told apart from what the program answers.
    for (words, wrong) in [
        (&["--port", "70000", "--", "true"][..], "70000"),
        (&["--model", "nobody/x", "--", "true"], "no key and no address"),
        (&["--resume", "sesn_0123456789abcdef", "--", "true"], "there is no session"),
        (&["-C", "nowhere", "--", "true"], "cannot work in nowhere"),
    ] {
        let done = run(words).exits(125);
        assert!(done.err.contains(wrong), "{words:?}: {done}");
    }
    let ids: Vec<String> = world.list_if_any();
    assert_eq!(ids.len(), 4, "what could not begin left no session: {ids:?}");
    world.verify();
}

#[test]
fn known_programs_are_told_in_their_own_ways() {
    use std::os::unix::fs::PermissionsExt;
    let vendor = FakeVendor::answering([]);
    let world = world_of(&vendor);
    let folder = world.folder("work", &[]);
    let told = |name: &str| {
        let path = folder.join(name);
        std::fs::write(
            &path,
            "#!/bin/sh\nfor word; do echo \"word $word\"; done\nenv\ncat \"$GEMINI_CLI_SYSTEM_SETTINGS_PATH\" 2>&1\n",
        )
        .expect("a script can be written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("it can be made a program");
        world.run(&folder, &["gateway", "--", path.to_str().expect("UTF-8"), "own", "words"])
    };
    let codex = told("codex").out;
    let words: Vec<_> = codex.lines().filter_map(|line| line.strip_prefix("word ")).collect();
    assert_eq!([words[0], words[1], words[2]], ["-c", "model_provider=\"adjutant\"", "-c"]);
    assert!(words[3].starts_with("model_providers.adjutant={ name = \"Adjutant\", base_url = \"http://127.0.0.1:"));
    assert_eq!(words[4..], ["own", "words"]);
    let claude = told("claude").out;
    assert!(claude.contains("\nANTHROPIC_AUTH_TOKEN=adjt_") && !claude.contains("ANTHROPIC_API_KEY"), "{claude}");
    let gemini = told("gemini").out;
    assert!(gemini.contains("\nGEMINI_CLI_NO_RELAUNCH=true"), "{gemini}");
    assert!(gemini.contains("{\"security\":{\"auth\":{\"selectedType\":\"gemini-api-key\"}}}"), "{gemini}");
    let left = std::fs::read_dir(world.state().join("gateway")).map_or(0, Iterator::count);
    assert_eq!(left, 0, "files for a program are gone when it has ended");
}

#[test]
fn without_a_program_it_serves_until_it_is_told_to_stop_and_a_second_turn_can_follow() {
    let world = World::playing("rules:\n  - say: From the playbook.\n");
    let folder = world.folder("work", &[]);
    let mut session = String::new();
    for turn in 1..=2 {
        let mut words = vec!["gateway"];
        if turn == 2 {
            words.extend(["--resume", &session]);
        }
        let mut command = world.command(&folder, &words);
        let mut serving = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let mut out = BufReader::new(serving.stdout.take().expect("it is piped"));
        let mut exports = String::new();
        while !exports.contains("NO_PROXY") {
            assert!(out.read_line(&mut exports).expect("it is UTF-8") > 0, "it ended: {exports}");
        }
        let value = |name: &str| {
            let line = exports.lines().find_map(|line| line.strip_prefix(&format!("export {name}=")));
            line.unwrap_or_else(|| panic!("no {name} in {exports}")).to_owned()
        };
        let said = ask(&value("ANTHROPIC_BASE_URL"), &value("ANTHROPIC_API_KEY"));
        assert!(said.starts_with("HTTP/1.1 200") && said.contains("From the playbook."), "{said}");
        let said = ask(&value("ANTHROPIC_BASE_URL"), "adjt_wrong");
        assert!(said.starts_with("HTTP/1.1 401"), "{said}");
        let pid = rustix::process::Pid::from_child(&serving);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it runs");
        let mut err = String::new();
        serving.stderr.take().expect("it is piped").read_to_string(&mut err).expect("it is UTF-8");
        assert_eq!(serving.wait().expect("it ends").code(), Some(0), "{err}");
        let id = err.lines().find_map(|line| line.strip_prefix("Recording into ")).expect("it names its session");
        id.split_once(". ").expect("it says how to stop").0.clone_into(&mut session);
    }
    let events = recorded(&world);
    assert_eq!(of_kind(&events, "span.model_request_start").len(), 2);
    assert_eq!(of_kind(&events, "session.status_running").last().expect("a turn")["turn"], 2);
    let wrong = world.run(&folder, &["exec", "--resume", &session, "go on"]).exits(2);
    assert!(wrong.err.contains("is another program") && wrong.err.contains("adjutant gateway --resume"), "{wrong}");
    world.verify();
}

/// Asks as a client of Messages would.
fn ask(base: &str, token: &str) -> String {
    let body = r#"{"model": "some", "max_tokens": 99, "messages": [{"role": "user", "content": "hello"}]}"#;
    let address = base.strip_prefix("http://").expect("it is a plain address");
    let mut connection = TcpStream::connect(address).expect("somebody listens");
    let head = format!(
        "POST /v1/messages HTTP/1.1\r\nhost: {address}\r\nx-api-key: {token}\r\nanthropic-version: 2023-06-01\r\n\
         connection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    connection.write_all(head.as_bytes()).expect("it is taken");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).expect("it is UTF-8");
    answer
}

/// The process dies after each durable write; whatever it had come to, the next turn begins on a whole log.
#[test]
fn killed_after_any_write_the_log_is_whole_and_the_session_goes_on() {
    let vendor = FakeVendor::with(|_| Reply::text("Said."));
    for writes in 1..20 {
        let mut world = world_of(&vendor);
        // The inner one must not die with the outer one.
        world.set("ADJUTANT_MODEL", "anthropic/claude-test");
        world.set("INNER", world.path("inner").to_str().expect("a temporary path is UTF-8"));
        let folder = world.folder("work", &[]);
        let script = "unset ADJUTANT_CRASH_AFTER; ADJUTANT_HOME=$INNER exec \"$0\" exec go";
        let words = ["gateway", "--", "sh", "-c", script, SELF];
        let died = world.run_crashing(&folder, &words, writes);
        if !died.was_killed() {
            assert!(writes > 6, "only {writes} writes: {died}");
            return;
        }
        let Some(id) = world.list_if_any().into_iter().find(|id| id.starts_with("sesn_")) else { continue };
        world.verify();
        let begun = world.trace(&["export", &id]).exits(0).lines();
        if begun.is_empty() {
            continue;
        }
        let done = world.run(&folder, &["gateway", "--resume", &id, "--", "sh", "-c", script, SELF]).exits(0);
        assert_eq!(done.out, "Said.\n", "{done}");
        let events = world.trace(&["export", &id]).exits(0).lines();
        let open = of_kind(&events, "span.model_request_start").len();
        assert_eq!(of_kind(&events, "span.model_request_end").len(), open, "after {writes} writes");
        assert_eq!(events.last().expect("there are some")["type"], "session.status_idle");
        world.verify();
    }
    panic!("it never came to its end");
}

/// Both what is passed on and what is converted; the second time there is no vendor any more.
#[test]
fn what_a_program_was_answered_is_recorded_and_played_again() {
    for (speaks, model) in
        [("anthropic/claude-test", "anthropic/claude-test"), ("openai/gpt-test", "gemini/gemini-test")]
    {
        let vendor = FakeVendor::answering([
            Reply::text("I look.").and_call("bash", json!({"command": "echo seen > seen.txt"})),
            Reply::text("It is done."),
        ]);
        let mut world = world_of(&vendor);
        let folder = world.folder("work", &[]);
        let tape = world.path("tape.jsonl").to_str().expect("a temporary path is UTF-8").to_owned();
        world.set("INNER", world.path("inner").to_str().expect("a temporary path is UTF-8"));
        let program = format!("ADJUTANT_HOME=$INNER exec {SELF} exec -m {speaks} go");
        let words = |how: &str| {
            let words = ["gateway", "-q", "--model", model, how, &tape, "--", "sh", "-c", &program];
            words.map(str::to_owned)
        };
        let run = |how: &str| crate::support::Done::of(world.command(&folder, words(how)).output().expect("it starts"));
        assert_eq!(run("--record").exits(0).out, "It is done.\n");
        let text = std::fs::read_to_string(&tape).expect("the cassette is there");
        assert!(KEYS.iter().all(|key| !text.contains(key)) && !text.contains("adjt_"), "{text}");
        drop(vendor);
        std::fs::remove_file(folder.join("seen.txt")).expect("it was made");
        assert_eq!(run("--replay").exits(0).out, "It is done.\n", "{speaks} on {model}");
        assert_eq!(files_of(&folder)["seen.txt"], "seen\n");
    }
}
