//! Codex, Claude Code and Gemini CLI, each at a task of three steps, on each of the four wires.

use super::{MODELS, client, world_of};
use crate::support::World;
use adj_testkit::{Asked, Reply};
use serde_json::{Value, json};
use std::{collections::BTreeSet, fmt::Write as _, fs, path::Path, time::Instant};

/// A program, and how it calls a shell.
struct Program {
    name: &'static str,
    client: &'static str,
    /// The wire that it speaks.
    speaks: &'static str,
    words: &'static [&'static str],
    environment: &'static [(&'static str, &'static str)],
    calls: fn(&str) -> Reply,
}

const TASK: &str = "Do the three steps.";

const PROGRAMS: [Program; 4] = [
    Program {
        name: "Codex",
        client: "CODEX",
        speaks: "Responses",
        words: &[
            "-c",
            "check_for_update_on_startup=false",
            "-c",
            "analytics.enabled=false",
            "exec",
            "--json",
            "--skip-git-repo-check",
            "-s",
            "danger-full-access",
            "-m",
            "gpt-5.5",
            TASK,
        ],
        environment: &[],
        calls: |command| Reply::call("exec_command", json!({"cmd": command})),
    },
    Program {
        name: "Codex (code mode)",
        client: "CODEX",
        speaks: "Responses",
        words: &[
            "-c",
            "check_for_update_on_startup=false",
            "-c",
            "analytics.enabled=false",
            "exec",
            "--json",
            "--skip-git-repo-check",
            "-s",
            "danger-full-access",
            "-m",
            "gpt-6-astra",
            TASK,
        ],
        environment: &[],
        calls: |command| {
            let script = format!("text(await tools.exec_command({{cmd: {}}}))", json!(command));
            Reply::empty().and_custom_call("exec", &script)
        },
    },
    Program {
        name: "Claude Code",
        client: "CLAUDE",
        speaks: "Messages",
        words: &[
            "-p",
            TASK,
            "--output-format",
            "stream-json",
            "--verbose",
            "--model",
            "claude-sonnet-4-6",
            "--dangerously-skip-permissions",
        ],
        // It may do as it likes as root only where it is told that nothing can happen.
        environment: &[
            ("IS_SANDBOX", "1"),
            ("DISABLE_AUTOUPDATER", "1"),
            ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1"),
        ],
        calls: |command| Reply::call("Bash", json!({"command": command, "description": "the next step"})),
    },
    Program {
        name: "Gemini CLI",
        client: "GEMINI",
        speaks: "generateContent",
        words: &["-m", "gemini-2.5-flash", "-p", TASK, "--approval-mode", "yolo"],
        environment: &[("GEMINI_CLI_TRUST_WORKSPACE", "true")],
        calls: |command| Reply::call("run_shell_command", json!({"command": command, "description": "the next step"})),
    },
];

/// Each step's command, and what it says; no command holds what it says.
const STEPS: [(&str, &str); 3] = [
    ("printf 'first-%s\\n' 41 | tee one.txt", "first-41"),
    ("cat one.txt; printf 'second-%s\\n' 42 | tee two.txt", "second-42"),
    ("cat one.txt two.txt > three.txt; printf 'third-%s\\n' 43", "third-43"),
];

fn answer(asked: &Asked, calls: fn(&str) -> Reply) -> Reply {
    let said = String::from_utf8_lossy(&asked.bytes);
    match STEPS.iter().find(|(_, result)| !said.contains(result)) {
        Some((command, _)) => calls(command),
        None => Reply::text("All three steps are done."),
    }
}

#[test]
#[ignore = "needs programs of other makers: `cargo xtask check clients`"]
fn every_program_does_its_task_on_every_wire() {
    let mut table = String::from("| program | speaks |");
    MODELS.iter().for_each(|(wire, _)| write!(table, " {wire} |").expect("a string takes it"));
    table.push_str("\n|---|---|---|---|---|---|\n");
    for program in PROGRAMS {
        let version = version(&program);
        write!(table, "| {} {version} | {} |", program.name, program.speaks).expect("a string takes it");
        for (wire, model) in MODELS {
            let cell = cell(&program, wire, model);
            write!(table, " {cell} |").expect("a string takes it");
        }
        table.push('\n');
    }
    check_table(&table);
}

fn version(program: &Program) -> String {
    let world = World::new();
    let done = world.home.command(client(program.client)).arg("--version").output().expect("the program runs");
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    let mut words = text.split_whitespace();
    let version = words.find(|word| word.starts_with(|letter: char| letter.is_ascii_digit()));
    version.unwrap_or_else(|| panic!("no version in {text:?}")).to_owned()
}

/// Lets a program do the task, and returns what came of it, in a few words.
fn cell(program: &Program, wire: &str, model: &str) -> String {
    let calls = program.calls;
    let (mut world, vendor) = world_of(move |asked| answer(asked, calls));
    for (name, value) in program.environment {
        world.set(name, *value);
    }
    quieten(&world.path("home"));
    let folder = world.folder("work", &[]);
    let client = client(program.client);
    let words = [&["gateway", "--model", model, "--", &client][..], program.words].concat();
    let started = Instant::now();
    let done = world.run(&folder, &words);
    let place = format!("{} on {wire}, {:?}: {done}", program.name, started.elapsed());
    assert_eq!(done.code, Some(0), "{place}");
    assert!(done.out.contains("All three steps are done."), "{place}");
    assert_eq!(fs::read_to_string(folder.join("three.txt")).ok().as_deref(), Some("first-41\nsecond-42\n"), "{place}");

    let log = world.only_session().0;
    let events = world.trace(&["export", &log]).exits(0).lines();
    let bodies = |kind: &'static str| {
        let all = events.iter().filter(move |event| event["type"] == kind);
        all.map(|event| event["body"].clone()).collect::<Vec<Value>>()
    };
    let started = bodies("span.model_request_start");
    let ended = bodies("span.model_request_end");
    assert_eq!(started.len(), vendor.requests().len(), "every request is an event: {place}");
    assert!(ended.iter().all(|end| end["result"]["status"] == "answered"), "{ended:?}\n{place}");
    let used = ended.iter().all(|end| end["result"]["model_usage"]["output_tokens"] == 20);
    assert!(used, "the tokens of every request are counted: {ended:?}");
    let converted = program.speaks != wire;
    let told = started.iter().all(|start| start["origin"]["converted"] == json!(converted) || !converted);
    assert!(told, "{started:?}");
    world.verify();
    let losses: BTreeSet<String> = ended
        .iter()
        .flat_map(|end| end["result"]["losses"].as_array().cloned().unwrap_or_default())
        .map(|loss| format!("`{}`", loss.as_str().expect("a loss has a name")))
        .collect();
    match (converted, losses.is_empty()) {
        (false, _) => "passed on".to_owned(),
        (true, true) => "converted".to_owned(),
        (true, false) => format!("converted, without {}", losses.into_iter().collect::<Vec<_>>().join(", ")),
    }
}

/// Nothing is to be sent to anybody else. The way to log in is said here too: what Adjutant says of it, this program passes
/// over where a folder above can be written by others, as `/tmp` can.
fn quieten(home: &Path) {
    let settings = json!({
        "security": {"auth": {"selectedType": "gemini-api-key"}},
        "privacy": {"usageStatisticsEnabled": false},
        "general": {"enableAutoUpdate": false, "maxAttempts": 2},
    });
    fs::create_dir_all(home.join(".gemini")).expect("a folder can be made");
    fs::write(home.join(".gemini/settings.json"), settings.to_string()).expect("it can be written");
}

/// The table in the documents is this one; `ADJUTANT_WRITE_TABLES=1` writes it there.
fn check_table(table: &str) {
    const BEGINS: &str = "<!-- The table is made by `cargo xtask check clients`. -->\n";
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/gateway.md");
    let text = fs::read_to_string(&page).expect("the page is there");
    let (before, rest) = text.split_once(BEGINS).expect("the page has a place for the table");
    let (found, after) = rest.split_once("\n\n").expect("the table ends");
    if std::env::var_os("ADJUTANT_WRITE_TABLES").is_some() {
        fs::write(&page, format!("{before}{BEGINS}{table}\n{after}")).expect("the page can be written");
        return;
    }
    assert_eq!(format!("{found}\n"), table, "docs/gateway.md does not show what was found");
}
