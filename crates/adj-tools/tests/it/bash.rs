//! The bash tool: what survives between commands, how they end, and what cannot break it.

use crate::support::{Home, home};
use adj_domain::{ToolOutcome, ToolRequest};
use adj_tools::{Cancel, Caps};
use serde_json::json;
use std::fs;
use std::time::{Duration, Instant};

fn run(home: &Home, command: &str) -> ToolOutcome {
    home.call("bash", json!({"command": command}))
}

fn with(home: &Home, command: &str, caps: Caps) -> ToolOutcome {
    let request = ToolRequest { name: "bash".into(), input: json!({"command": command}) };
    home.toolbox.execute_with(&request, &caps, &Cancel::open().expect("a cancel"))
}

/// The text with the shell's own count of lines left out: it spans all commands.
fn plain(home: &Home, outcome: &ToolOutcome) -> String {
    let text = home.plain(&outcome.text);
    match text.split_once("bash: line ") {
        Some((before, after)) => {
            format!("{before}bash: line N{}", after.trim_start_matches(|c: char| c.is_ascii_digit()))
        }
        None => text,
    }
}

/// Runs commands in one shell and compares each with its text and exit code.
fn check(cases: &[(&str, &str, Option<i32>)]) {
    let home = home(&[]);
    for (command, text, exit_code) in cases {
        let started = Instant::now();
        let outcome = run(&home, command);
        assert_eq!((plain(&home, &outcome).as_str(), outcome.exit_code), (*text, *exit_code), "{command:?}");
        assert_eq!(outcome.is_error, *exit_code != Some(0), "{command:?}");
        assert!(started.elapsed() < Duration::from_secs(20), "{command:?} took {:?}", started.elapsed());
    }
}

const AFRESH: &str = "the shell starts afresh with the next command, in ROOT and without earlier variables";

#[test]
fn state_survives_between_commands() {
    check(&[
        ("pwd; echo \"$0 $OLDPWD\"", "ROOT\nbash \n", Some(0)),
        ("mkdir sub && cd sub && export A=1 && b=2 && f() { echo \"f $1\"; }", "(no output)", Some(0)),
        ("pwd; echo $A $b; f x; env | grep ^A=", "ROOT/sub\n1 2\nf x\nA=1\n", Some(0)),
        ("shopt -s expand_aliases; alias hi='echo hello'", "(no output)", Some(0)),
        ("hi", "hello\n", Some(0)),
        ("cd /nope", "bash: line N: cd: /nope: No such file or directory\n[exit code 1]", Some(1)),
        ("pwd", "ROOT/sub\n", Some(0)),
        ("exec 10>lock; flock 10 && echo locked", "locked\n", Some(0)),
        ("echo still >&10; cat lock", "still\n", Some(0)),
    ]);
}

#[test]
fn exit_codes_are_exact() {
    check(&[
        ("true", "(no output)", Some(0)),
        ("false", "[exit code 1]", Some(1)),
        ("(exit 42)", "[exit code 42]", Some(42)),
        ("x=$(sh -c 'kill -9 $$')", "[exit code 137]", Some(137)),
        ("echo out; echo err >&2; (exit 3)", "out\nerr\n[exit code 3]", Some(3)),
        ("printf 'no newline'; (exit 3)", "no newline\n[exit code 3]", Some(3)),
        ("false | true", "(no output)", Some(0)),
        ("set -o pipefail; false | true", "[exit code 1]", Some(1)),
        ("test -t 0; cat; read x; echo $?", "1\n", Some(0)),
        ("return 4 2>/dev/null", "[exit code 2]", Some(2)),
        (
            "break; continue 2>/dev/null; echo on",
            "bash: line N: break: only meaningful in a `for', `while', or `until' loop\non\n",
            Some(0),
        ),
        ("", "(no output)", Some(0)),
        ("# only a comment", "(no output)", Some(0)),
        ("cat <<'EOF'\na 'b' \"c\" $d \\ \\\\\nEOF", "a 'b' \"c\" $d \\ \\\\\n", Some(0)),
        ("for i in 1 2\ndo\n  echo $i\ndone", "1\n2\n", Some(0)),
        ("echo ä; echo '  two  '", "ä\n  two  \n", Some(0)),
    ]);
}

#[test]
fn hard_commands_do_not_harm_the_shell() {
    let home = home(&[]);
    let survives = [
        "echo \"unbalanced",
        "echo 'unbalanced",
        "if true; then",
        "{ echo a;",
        ")",
        "cat <<EOF\nnever ends",
        "echo $(",
        "\\",
        "exec >/dev/null",
        "exec 2>&1 >/dev/null </dev/zero",
        "exec <&- >&- 2>&-",
        "exec 0<&-",
        "exec 3>&- 10>&- 11>&- 12>&-",
        "for fd in 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do eval \"exec $fd>&-\"; done",
        "set -e; true",
        "set -u",
        "set -x; set -v",
        "set -f; set -C; set -o noclobber; set -o posix; set +o posix",
        "IFS=abcdefghijklmnopqrstuvwxyz0123456789",
        "unset PATH",
        "PATH=/usr/bin:/bin",
        "unset IFS HOME PWD BASH",
        "shopt -s expand_aliases; alias builtin=false eval=false printf=false exec=false set=false",
        "alias if=false then=echo '{=echo'",
        "unalias -a",
        "trap 'echo debug' DEBUG; trap - DEBUG",
        "trap 'echo err' ERR; false; trap - ERR",
        "LINENO=5; BASH_COMMAND=x",
        "printf '%s 0\\n' 0123456789abcdef0123456789abcdef >&250; printf 'x ready\\n' >&250; head -c 100000 /dev/zero >&250",
        "printf 'a\\0b\\377\\n'",
        "ulimit -c 0",
        "readonly PS4",
        "echo ready; echo \"'\\'' $? >&250\"",
        "disown -a; wait; jobs",
        "nope-no-such-command",
        "enable -n printf; enable printf",
        "stty sane </dev/tty",
        "cat /dev/stdin; echo x >/dev/stdout; echo y >/dev/stderr",
        "head -c 300000 /dev/urandom",
    ];
    assert_eq!(run(&home, "alive=yes").exit_code, Some(0));
    for command in survives {
        let started = Instant::now();
        let outcome = run(&home, command);
        assert!(outcome.exit_code.is_some() && started.elapsed() < Duration::from_secs(20), "{command:?}: {outcome:?}");
        assert!(!outcome.text.contains("afresh"), "{command:?} ended the shell: {outcome:?}");
        let outcome = run(&home, "echo \"$alive\"; echo e >&2; (exit 7)");
        assert_eq!((outcome.text.as_str(), outcome.exit_code), ("yes\ne\n[exit code 7]", Some(7)), "after {command:?}");
    }
}

#[test]
fn a_shell_survives_the_loss_of_its_private_folder() {
    let home = home(&[]);
    assert_eq!(run(&home, "alive=yes").exit_code, Some(0));
    // As an agent does that tidies up the temporary folder.
    let folder = fs::read_dir(&home.scratch).expect("tmp").flatten().next().expect("the shell's folder").path();
    let outcome = run(&home, &format!("rm -r '{}'; echo gone", folder.display()));
    assert_eq!(outcome.text, "gone\n");
    assert!(!folder.exists());
    assert_eq!(run(&home, "echo $alive").text, "yes\n");
}

#[test]
fn output_is_text_whatever_the_bytes() {
    check(&[
        ("printf 'a\\0b\\377c\\n'", "a\u{FFFD}b\u{FFFD}c\n", Some(0)),
        ("printf '\\033[31mred\\r\\n'", "\u{1b}[31mred\r\n", Some(0)),
    ]);
}

#[test]
fn a_shell_that_ends_is_replaced() {
    let ended = |code: i32| format!("[exit code {code}; the command ended the shell: {AFRESH}]");
    let commands = [
        ("exit 3", 3, ""),
        ("echo before; exit", 0, "before\n"),
        ("set -e; false; echo not reached", 1, ""),
        ("set -u; echo $nope; echo not reached", 1, "bash: line N: nope: unbound variable\n"),
        ("kill -9 $$", 137, ""),
        ("exec sh -c 'echo replaced; exit 5'", 5, "replaced\n"),
        ("trap 'echo bye' EXIT; exit 2", 2, "bye\n"),
    ];
    for (command, code, output) in commands {
        let home = home(&[]);
        assert_eq!(run(&home, "cd /; x=1").exit_code, Some(0));
        let outcome = run(&home, command);
        assert_eq!(
            (plain(&home, &outcome), outcome.exit_code),
            (format!("{output}{}", ended(code)), Some(code)),
            "{command}"
        );
        assert_eq!(home.plain(&run(&home, "pwd; echo \"<$x>\"").text), "ROOT\n<>\n", "{command}");
    }
    // Options of one command do not end the shell in the next.
    let home = home(&[]);
    assert_eq!(run(&home, "set -eu; x=1").exit_code, Some(0));
    assert_eq!(run(&home, "false; echo $x $nope").text, "1\n");
}

#[test]
fn a_shell_killed_between_commands_is_replaced() {
    let home = home(&[]);
    let outcome = run(&home, "(sleep 0.2; kill -9 $$) >/dev/null 2>&1 & echo started");
    assert_eq!(outcome.text, "started\n");
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(run(&home, "echo again").text, "again\n");
}

#[test]
fn background_jobs_neither_block_nor_leak() {
    let home = home(&[]);
    let started = Instant::now();
    let outcome = run(&home, "(for i in 1 2 3 4 5 6; do echo noise; sleep 0.1; done; echo end > done) & echo started");
    assert!(outcome.text.starts_with("started\n") || outcome.text.ends_with("started\n"), "{outcome:?}");
    assert!(started.elapsed() < Duration::from_millis(550), "{:?}", started.elapsed());
    for _ in 0..3 {
        assert_eq!(run(&home, "echo quiet; sleep 0.15").text, "quiet\n");
    }
    // It was neither blocked nor killed for what it wrote.
    assert_eq!(run(&home, "wait; cat done").text, "end\n");

    // One that writes for ever is heard only while its command runs.
    let started = Instant::now();
    assert_eq!(run(&home, "yes flood & disown; sleep 0.1; echo done > /dev/null").exit_code, Some(0));
    assert_eq!(run(&home, "echo quiet").text, "quiet\n");
    assert_eq!(run(&home, "kill $(pgrep -P $$ yes); true").exit_code, Some(0));
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_timeout_ends_everything_the_command_started() {
    let home = home(&[]);
    // Double forks, new sessions, ignored signals, an emptied process group.
    let command = "(setsid sh -c 'trap \"\" TERM INT HUP; echo $$ > a; sleep 300' &) ; \
                   nohup sleep 301 >/dev/null 2>&1 & echo $! > b; \
                   setsid -f sh -c 'echo $$ > c; exec sleep 302'; \
                   echo before; trap '' TERM; sleep 303";
    let started = Instant::now();
    let outcome = home.call("bash", json!({"command": command, "timeout_ms": 700}));
    assert!(started.elapsed() < Duration::from_secs(10));
    assert_eq!(
        home.plain(&outcome.text),
        format!("before\n[timed out after 0.7 s and was killed with everything it had started; {AFRESH}]")
    );
    assert_eq!((outcome.exit_code, outcome.is_error), (None, true));
    for file in ["a", "b", "c"] {
        let pid = home.content(file);
        let state = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        assert!(state.is_empty() || state.contains(") Z "), "{file} lives: {state}");
    }
    assert_eq!(home.plain(&run(&home, "pwd").text), "ROOT\n");
    // A command that turns execution off can only run into its timeout.
    let outcome = home.call("bash", json!({"command": "set -n", "timeout_ms": 200}));
    assert!(outcome.text.contains("timed out"), "{outcome:?}");
}

#[test]
fn restart_ends_background_jobs_and_forgets_state() {
    let home = home(&[]);
    assert_eq!(
        run(&home, "x=1; setsid -f sh -c 'echo $$ > pid; exec sleep 300'; until test -s pid; do sleep 0.01; done")
            .exit_code,
        Some(0)
    );
    let outcome = home.call("bash", json!({"restart": true}));
    assert_eq!(home.plain(&outcome.text), "the shell was restarted; its working folder is ROOT");
    let pid = home.content("pid");
    let state = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    assert!(state.is_empty() || state.contains(") Z "), "it lives: {state}");
    assert_eq!(home.call("bash", json!({"restart": true, "command": "echo \"<$x>\""})).text, "<>\n");
}

#[test]
fn huge_output_is_cut_in_the_middle() {
    let home = home(&[]);
    let outcome = run(&home, "seq 1 100000");
    let text = &outcome.text;
    assert!(text.starts_with("1\n2\n") && text.ends_with("99999\n100000\n"), "{text}");
    assert!(text.chars().count() < 30_100 && text.contains(" lines) left out …]\n"), "{}", text.len());
    let full = outcome.full.expect("the whole");
    assert_eq!(full, (1..=100_000).map(|n| format!("{n}\n")).collect::<String>());

    let started = Instant::now();
    let outcome = with(
        &home,
        "head -c 200000000 /dev/zero | tr '\\0' x; echo; echo end",
        Caps { keep_chars: 100, full_bytes: 1000, default_timeout_ms: 60_000 },
    );
    let full = outcome.full.expect("the whole");
    assert!(
        full.len() < 1100 && full.contains("[… 199999005 bytes were not kept …]") && full.ends_with("\nend\n"),
        "{full}"
    );
    assert!(outcome.text.chars().count() < 200 && outcome.text.ends_with("\nend\n"), "{}", outcome.text);
    assert!(started.elapsed() < Duration::from_secs(30));
}

#[test]
fn long_commands_arrive_whole() {
    let home = home(&[]);
    let text = "it's a line with 'quotes'\n".repeat(10_000);
    let outcome = run(&home, &format!("cat > file <<'EOF'\n{text}EOF\nwc -l < file"));
    assert_eq!(outcome.text, "10000\n");
    assert_eq!(home.content("file"), text);
}

#[test]
fn commands_queue_and_can_be_cancelled() {
    let home = home(&[]);
    let request = |command: &str| ToolRequest { name: "bash".into(), input: json!({"command": command}) };
    let caps = Caps::default();
    let (running, waiting) = (Cancel::open().expect("a cancel"), Cancel::open().expect("a cancel"));
    std::thread::scope(|scope| {
        let first =
            scope.spawn(|| home.toolbox.execute_with(&request("echo a; touch started; sleep 300"), &caps, &running));
        while !home.root.join("started").exists() {
            std::thread::sleep(Duration::from_millis(5));
        }
        let second = scope.spawn(|| home.toolbox.execute_with(&request("touch second"), &caps, &waiting));
        // Other tools do not wait for a command.
        assert!(!home.call("glob", json!({"pattern": "*"})).is_error);
        waiting.cancel();
        running.cancel();
        let first = first.join().expect("an outcome");
        assert_eq!(
            home.plain(&first.text),
            format!("a\n[cancelled, and killed with everything it had started; {AFRESH}]")
        );
        assert!(first.is_error);
        assert_eq!(second.join().expect("an outcome").text, "cancelled before it started");
    });
    assert!(!home.root.join("second").exists());
    assert_eq!(run(&home, "echo again").text, "again\n");
}

#[test]
fn nothing_of_a_toolbox_outlives_it() {
    let home = home(&[]);
    assert_eq!(
        run(
            &home,
            "echo $$ > shell; setsid -f sh -c 'echo $$ > pid; exec sleep 300'; until test -s pid; do sleep 0.01; done"
        )
        .exit_code,
        Some(0)
    );
    assert_eq!(fs::read_dir(&home.scratch).expect("tmp").count(), 1);
    let (shell, pid) = (home.content("shell"), home.content("pid"));
    let Home { toolbox, scratch, outside, .. } = home;
    drop(toolbox);
    for pid in [shell, pid] {
        let state = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        assert!(state.is_empty() || state.contains(") Z "), "it lives: {state}");
    }
    assert_eq!(fs::read_dir(&scratch).expect("tmp").count(), 0);
    drop(outside);
}

#[test]
fn only_the_given_environment_arrives() {
    let home = home(&[]);
    let outcome = run(&home, "env | cut -d= -f1 | sort | tr '\\n' ' '");
    assert_eq!(outcome.text, "ADJUTANT_SHELL HOME LANG PATH PWD SHLVL _ ");
}

#[test]
fn a_command_costs_little() {
    let home = home(&[]);
    run(&home, "true");
    let mut times: Vec<Duration> = (0..101)
        .map(|_| {
            let started = Instant::now();
            assert_eq!(run(&home, ":").exit_code, Some(0));
            started.elapsed()
        })
        .collect();
    times.sort();
    // The aim is 2 ms; machines that run tests are busy.
    assert!(times[50] < Duration::from_millis(20), "{:?}", times[50]);
}
