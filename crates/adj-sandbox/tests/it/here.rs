//! One command for somebody who waits for it: streams, codes, signals, terminals, and that nothing is left of it.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command as Program, Output, Stdio};
use std::time::{Duration, Instant};

use adj_sandbox::{Exit, Here, Mode, Plan, RunError, Streams};

use crate::stage::{Stage, eventually, processes_with, text};

/// The part of a caller, played by this very program: `__here inherited|counted PLAN WORDS…`.
pub fn dispatch_caller() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [word, streams, plan, argv @ ..] = words.as_slice() else { return };
    if word != "__here" {
        return;
    }
    let plan: Plan = serde_json::from_str(plan).expect("a plan");
    let argv: Vec<_> = argv.iter().map(Into::into).collect();
    let streams = if streams == "counted" { Streams::Counted } else { Streams::Inherited };
    let ended = Here::fork().and_then(|mut here| {
        here.start(&plan, &argv, streams)?;
        here.wait(drop)
    });
    let code = match ended {
        Ok(Exit::Code(code)) => code,
        Ok(Exit::Signal(signal)) => 128 + signal,
        Ok(other) => {
            say(format!("{other:?}"));
            99
        }
        Err(RunError::CannotStart { source, .. }) => 120 + source.raw_os_error().unwrap_or(0),
        Err(error) => {
            say(error.to_string());
            125
        }
    };
    std::process::exit(code);
}

fn say(text: String) {
    std::io::stderr().write_all(format!("{text}\n").as_bytes()).expect("somebody listens");
}

fn caller(plan: &Plan, streams: &str, argv: &[&str]) -> Program {
    let mut program = Program::new(std::env::current_exe().expect("our own program"));
    program.arg("__here").arg(streams).arg(serde_json::to_string(plan).expect("a plan")).args(argv);
    program.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    program
}

/// Runs a script to its end, with something to read.
fn run(plan: &Plan, streams: &str, script: &str, input: &str) -> Output {
    let mut program = caller(plan, streams, &["bash", "-c", script]);
    let mut child = program.stdin(Stdio::piped()).spawn().expect("our own program starts");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("it is read");
    child.wait_with_output().expect("it ends")
}

const MODES: [Mode; 2] = [Mode::WorkspaceWrite, Mode::DangerFullAccess];

fn plan_of(stage: &Stage, mode: Mode) -> Plan {
    Plan { mode, ..stage.plan() }
}

/// Words that no other process on this machine has.
fn mark(number: u32) -> String {
    format!("{}", number * 1_000_000 + std::process::id())
}

#[tokio::test]
async fn streams_and_codes_pass_through() {
    let stage = Stage::new();
    let cases = [
        ("exit 7", 7, "", ""),
        ("kill -TERM $$", 143, "", ""),
        ("cat; echo err >&2", 0, "fed", "err\n"),
        ("(sleep 1000 &); echo done", 0, "done\n", ""),
        ("umask; pwd | tail -c 10", 0, "0022\nworkspace\n", ""),
        // The helper's arguments, which were ours, and its environment.
        ("tr -d '\\0' </proc/$PPID/cmdline; (tr -d '\\0' </proc/$PPID/environ) 2>/dev/null; true", 0, "", ""),
    ];
    for mode in MODES {
        for streams in ["inherited", "counted"] {
            for (script, code, out, err) in cases {
                let output = run(&plan_of(&stage, mode), streams, script, "fed");
                let found = (output.status.code(), text(&output.stdout), text(&output.stderr));
                assert_eq!(found, (Some(code), out.into(), err.into()), "{mode} {streams}: {script}");
            }
        }
        for (word, errno) in [("no-such-program", libc::ENOENT), ("./file.txt", libc::EACCES)] {
            let output = caller(&plan_of(&stage, mode), "inherited", &[word]).output().expect("it ends");
            assert_eq!(output.status.code(), Some(120 + errno), "{mode}: {word}");
        }
    }
    let large = "head -c 3000000 /dev/zero | tr '\\0' x";
    for streams in ["inherited", "counted"] {
        let output = run(&stage.plan(), streams, large, "");
        assert_eq!(output.stdout.len(), 3_000_000, "{streams}");
    }
    let left: Vec<_> =
        fs::read_dir(&stage.workspace).expect("a folder").flatten().map(|entry| entry.file_name()).collect();
    assert!(!left.iter().any(|name| name == ".adjutant" || name == ".envrc"), "placeholders are gone: {left:?}");
}

#[tokio::test]
async fn limits_hold() {
    let stage = Stage::new();
    let mut plan = stage.plan();
    plan.limits.wall = Duration::from_millis(300);
    plan.limits.memory_bytes = 64 << 20;
    plan.limits.output_bytes = 100_000;
    let cases = [
        ("inherited", "sleep 1000", "TimedOut"),
        ("inherited", "for i in 1 2 3 4; do perl -e '$x = \"x\" x 30e6; sleep 20' & done; wait", "MemoryLimit"),
        ("counted", "yes", "OutputLimit"),
        ("counted", "yes >&2", "OutputLimit"),
    ];
    for (streams, script, limit) in cases {
        let began = Instant::now();
        if limit != "TimedOut" {
            plan.limits.wall = Duration::from_secs(60);
        }
        let output = run(&plan, streams, script, "");
        assert_eq!(output.status.code(), Some(99), "{script}");
        assert!(text(&output.stderr).ends_with(&format!("{limit}\n")), "{script}: {}", text(&output.stderr).len());
        assert!(output.stdout.len() + output.stderr.len() < 200_000, "{script}");
        assert!(began.elapsed() < Duration::from_secs(15), "{script}");
    }
}

struct Running {
    child: Child,
    out: BufReader<std::process::ChildStdout>,
}

impl Running {
    /// Starts a script and waits until it says that it is ready.
    fn start(plan: &Plan, script: &str) -> Running {
        let mut child = caller(plan, "inherited", &["bash", "-c", script]).spawn().expect("our own program starts");
        let mut out = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut line = String::new();
        out.read_line(&mut line).expect("a line");
        assert_eq!(line, "ready\n");
        Running { child, out }
    }

    fn signal(&self, signal: i32) {
        let pid = rustix::process::Pid::from_raw(self.child.id().cast_signed()).expect("a process");
        let signal = rustix::process::Signal::from_named_raw(signal).expect("a signal");
        rustix::process::kill_process(pid, signal).expect("it runs");
    }

    fn end(mut self) -> (Option<i32>, String) {
        let mut said = String::new();
        self.out.read_to_string(&mut said).expect("text");
        let status = self.child.wait().expect("it ends");
        (status.code().or(status.signal().map(|signal| -signal)), said)
    }
}

#[tokio::test]
async fn signals_reach_the_command() {
    let stage = Stage::new();
    for mode in MODES {
        for (signal, name) in
            [(libc::SIGTERM, "TERM"), (libc::SIGINT, "INT"), (libc::SIGHUP, "HUP"), (libc::SIGUSR1, "USR1")]
        {
            let script = format!("trap 'echo heard; exit 5' {name}; echo ready; while :; do sleep 0.05; done");
            let running = Running::start(&plan_of(&stage, mode), &script);
            running.signal(signal);
            assert_eq!(running.end(), (Some(5), "heard\n".to_owned()), "{mode}: {name}");
        }
        let running = Running::start(&plan_of(&stage, mode), "echo ready; exec sleep 1000");
        running.signal(libc::SIGTERM);
        assert_eq!(running.end().0, Some(143), "{mode}");
    }
}

#[tokio::test]
async fn whoever_is_told_to_end_twice_is_killed() {
    let stage = Stage::new();
    for (mode, number) in [(Mode::WorkspaceWrite, 31), (Mode::DangerFullAccess, 32)] {
        let mark = mark(number);
        let script = format!("trap '' TERM HUP INT; (setsid sleep {mark} &); echo ready; sleep {mark}; sleep {mark}");
        let running = Running::start(&plan_of(&stage, mode), &script);
        let began = Instant::now();
        running.signal(libc::SIGTERM);
        // Close together they would count as one.
        tokio::time::sleep(Duration::from_millis(700)).await;
        assert!(!processes_with(&mark).is_empty(), "{mode}");
        running.signal(libc::SIGTERM);
        assert_eq!(running.end().0, Some(143), "{mode}");
        assert!(began.elapsed() < Duration::from_secs(8), "{mode}: {:?}", began.elapsed());
        assert!(eventually(|| processes_with(&mark).is_empty()).await, "{mode}");
    }
}

#[tokio::test]
async fn nothing_outlives_a_caller_that_is_killed() {
    let stage = Stage::new();
    for (mode, number) in [(Mode::WorkspaceWrite, 33), (Mode::DangerFullAccess, 34)] {
        let mark = mark(number);
        let script = format!("trap '' TERM HUP INT; (setsid sleep {mark} &); echo ready; sleep {mark}");
        let mut running = Running::start(&plan_of(&stage, mode), &script);
        running.child.kill().expect("it runs");
        running.child.wait().expect("it is dead");
        assert!(eventually(|| processes_with(&mark).is_empty()).await, "{mode}: {:?}", processes_with(&mark));
        let placeholder = stage.workspace.join(".adjutant");
        assert!(eventually(|| !placeholder.exists()).await, "{mode}: a placeholder is left");
    }
}

/// Runs a caller in a terminal of its own, types, and returns what stood on the screen.
fn at_a_terminal(plan: &Plan, script: &str, types: &[(&str, &str)]) -> (Option<i32>, String) {
    let quoted = |word: &str| format!("'{}'", word.replace('\'', "'\\''"));
    let exe = std::env::current_exe().expect("our own program");
    let plan = serde_json::to_string(plan).expect("a plan");
    let words = [exe.to_str().expect("plain"), "__here", "inherited", &plan, "bash", "-c", script].map(quoted);
    let mut program = Program::new("script");
    // The caller is not alone in its group.
    let line = format!("{}; code=$?; echo the caller said $code; test $code = 137 || exit $code", words.join(" "));
    program.args(["-qe", "-c", &line, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = program.spawn().expect("script can be started");
    let (mut keys, mut screen) = (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
    let mut shown = Vec::new();
    let mut piece = [0u8; 1024];
    let mut read_until = |wanted: Option<&str>| {
        while wanted.is_none_or(|wanted| !text(&shown).contains(wanted)) {
            match screen.read(&mut piece) {
                Ok(count @ 1..) => shown.extend_from_slice(&piece[..count]),
                _ => return,
            }
        }
    };
    for (wait_for, keys_typed) in types {
        read_until(Some(wait_for));
        keys.write_all(keys_typed.as_bytes()).expect("it is typed");
    }
    read_until(None);
    let status = child.wait().expect("it ends");
    (status.code(), text(&shown).replace('\r', ""))
}

/// A script, what is typed when something stands on the screen, the code, and what stands there at the end.
type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], i32, &'a str);

#[tokio::test]
async fn the_terminal_is_the_commands() {
    let stage = Stage::new();
    for mode in MODES {
        let plan = plan_of(&stage, mode);
        let cases: [Case<'_>; 4] = [
            ("read -p 'name? ' name; echo hello $name", &[("name? ", "Ada\n")], 0, "hello Ada"),
            (
                "trap 'echo caught; exit 3' INT; echo begun; while :; do sleep 0.05; done",
                &[("begun", "\u{3}")],
                3,
                "caught",
            ),
            ("echo begun; sleep 1000", &[("begun", "\u{3}")], 130, "^C"),
            // The controlling terminal is there, and the command is in its foreground.
            ("[ -t 0 ] && : </dev/tty && ps -o stat= -p $$ | tr -cd + && echo ' foreground'", &[], 0, "+ foreground"),
        ];
        for (script, types, code, expected) in cases {
            let (found, shown) = at_a_terminal(&plan, script, types);
            assert!(found == Some(code) && shown.contains(expected), "{mode}: {script}: {found:?}\n{shown}");
        }
    }
}

/// What keys do to a group of processes a command must not do to its caller's, nor may it press them.
#[tokio::test]
async fn a_shared_terminal_gives_no_power_over_those_who_share_it() {
    let stage = Stage::new();
    let attempts = "kill -KILL 0";
    let (code, shown) = at_a_terminal(&stage.plan(), attempts, &[]);
    assert!(code == Some(0) && shown.contains("the caller said 137"), "{code:?}\n{shown}");
    let attempts = "perl -e '$key = \"x\"; print ioctl(STDIN, 0x5412, $key) ? \"typed\" : \"refused\", \"\\n\"'";
    let (_, shown) = at_a_terminal(&stage.plan(), attempts, &[]);
    assert!(shown.contains("refused\n"), "{shown}");
}

/// An interactive shell at a terminal of its own, for its job control. `HERE` and `PLAN` are what a caller is started with.
struct Shell {
    child: Child,
    keys: std::process::ChildStdin,
    screen: std::process::ChildStdout,
    shown: Vec<u8>,
}

const PROMPT: &str = "what next? ";

impl Shell {
    fn start(plan: &Plan) -> Shell {
        let plan = serde_json::to_string(plan).expect("a plan");
        let exe = std::env::current_exe().expect("our own program");
        let mut program = Program::new("script");
        program.args(["-qe", "-c", "bash --norc --noprofile -i", "/dev/null"]).env("PLAN", plan).env("HERE", exe);
        let mut child = program.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("script can be started");
        let (keys, screen) = (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
        let mut shell = Shell { child, keys, screen, shown: Vec::new() };
        shell.types("PS1='what next''? '\n");
        shell.wait_for(PROMPT);
        shell
    }

    fn wait_for(&mut self, wanted: &str) {
        let mut piece = [0u8; 1024];
        let end = loop {
            if let Some(at) = self.shown.windows(wanted.len()).position(|part| part == wanted.as_bytes()) {
                break at + wanted.len();
            }
            match self.screen.read(&mut piece) {
                Ok(count @ 1..) => self.shown.extend_from_slice(&piece[..count]),
                _ => panic!("{wanted:?} never came: {}", text(&self.shown)),
            }
        };
        self.shown.drain(..end);
    }

    fn types(&mut self, text: &str) {
        self.keys.write_all(text.as_bytes()).expect("it is typed");
    }

    fn end(mut self, code: i32) {
        self.types(&format!("exit {code}\n"));
        assert_eq!(self.child.wait().expect("it ends").code(), Some(code));
    }
}

/// A key stops the command and whoever waits for it, and a shell that is told so lets both go on.
#[tokio::test]
async fn a_stopped_command_goes_on() {
    let stage = Stage::new();
    let mut shell = Shell::start(&stage.plan());
    shell.types(
        "\"$HERE\" __here inherited \"$PLAN\" bash -c 'echo be\"\"gun; read x; echo got $x; read y; echo then $y'\n",
    );
    shell.wait_for("begun");
    shell.types("\u{1a}");
    shell.wait_for("Stopped");
    shell.wait_for(PROMPT);
    shell.types("fg\n");
    shell.wait_for("__here");
    shell.types("first\n");
    shell.wait_for("got first");
    shell.types("\u{1a}");
    shell.wait_for("Stopped");
    shell.wait_for(PROMPT);
    // In the background it stops by itself, because it wants to read.
    shell.types("bg\n");
    shell.wait_for(PROMPT);
    shell.types("wait; fg\n");
    shell.wait_for("Stopped");
    shell.wait_for("__here");
    shell.types("second\n");
    shell.wait_for("then second");
    shell.wait_for(PROMPT);
    shell.end(4);
}

/// One that stops and goes on all the time fills every socket that nobody reads while the caller is stopped with it.
#[tokio::test]
async fn a_caller_that_is_stopped_again_and_again_switches_nothing_off() {
    let stage = Stage::new();
    let mut plan = stage.plan();
    plan.limits.wall = Duration::from_secs(5);
    let mark = mark(35);
    let toggle = "while (1) { kill STOP => $ARGV[0]; kill CONT => $ARGV[0] }";
    fs::write(stage.workspace.join("toggle.pl"), toggle).expect("a file");
    let mut shell = Shell::start(&plan);
    let script = format!("echo be\"\"gun; perl toggle.pl $$ & exec sleep {mark}");
    shell.types(&format!("\"$HERE\" __here inherited \"$PLAN\" bash -c '{script}'\n"));
    shell.wait_for("begun");
    // Whether and how often its caller is stopped is a matter of chance.
    let is_running = || processes_with(&mark).iter().any(|line| line.starts_with("sleep "));
    assert!(eventually(|| !is_running()).await, "the limit of time holds");
    shell.child.kill().expect("it runs");
    shell.child.wait().expect("it ends");
}
