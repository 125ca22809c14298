//! What ends a command, and that nothing of it is left then.

use super::sandboxed;
use crate::support::{World, kill, wait_for};
use rustix::process::Signal;
use std::{
    fs,
    io::{BufRead, BufReader, Read},
    os::unix::process::ExitStatusExt,
    path::Path,
    process::Child,
};

struct Running {
    child: Child,
    out: BufReader<std::process::ChildStdout>,
}

impl Running {
    /// Starts a script and waits until it says that it is ready.
    fn start(world: &World, at: &Path, flags: &[&str], script: &str) -> Self {
        let words = [flags, &["--", "sh", "-c", script]].concat();
        let mut child = sandboxed(world, at, &words).spawn().expect("the binary can be started");
        let mut out = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut line = String::new();
        out.read_line(&mut line).expect("a line");
        assert_eq!(line, "ready\n");
        Self { child, out }
    }

    fn signal(&self, signal: Signal) {
        kill(self.child.id().cast_signed(), signal);
    }

    fn end(mut self) -> (Option<i32>, String) {
        let mut said = String::new();
        self.out.read_to_string(&mut said).expect("text");
        let status = self.child.wait().expect("it ends");
        (status.code().or(status.signal().map(|signal| -signal)), said)
    }
}

/// Whether something runs whose command line holds this word.
fn runs(word: &str) -> bool {
    let processes = fs::read_dir("/proc").expect("there are processes").flatten();
    processes
        .filter_map(|entry| fs::read(entry.path().join("cmdline")).ok())
        .any(|line| line.split(|byte| *byte == 0).any(|part| part == word.as_bytes()))
}

fn mark(number: u32) -> String {
    format!("{}", number * 1_000_000 + std::process::id())
}

const MODES: [&[&str]; 2] = [&[], &["--sandbox", "danger-full-access"]];

#[test]
fn a_request_to_end_reaches_the_command_and_ends_all_of_it() {
    let world = World::new();
    let folder = world.folder("work", &[]);
    for (number, flags) in (51..).zip(MODES) {
        let mark = mark(number);
        for (signal, code) in [(Signal::TERM, 143), (Signal::HUP, 129), (Signal::INT, 130)] {
            let script = format!("(setsid sleep {mark} &); echo ready; exec sleep {mark}");
            let running = Running::start(&world, &folder, flags, &script);
            wait_for("the command to be under way", || runs(&mark).then_some(()));
            running.signal(signal);
            assert_eq!(running.end().0, Some(code), "{flags:?} {signal:?}");
            wait_for("all of it to be gone", || (!runs(&mark)).then_some(()));
        }
        let script = "trap 'echo cleaned up; exit 6' TERM; echo ready; while :; do sleep 0.05; done";
        let running = Running::start(&world, &folder, flags, script);
        running.signal(Signal::TERM);
        assert_eq!(running.end(), (Some(6), "cleaned up\n".to_owned()), "{flags:?}");
    }
}

#[test]
fn nothing_outlives_a_caller_that_is_killed() {
    let world = World::new();
    let folder = world.folder("work", &[]);
    for (number, flags) in (61..).zip(MODES) {
        let mark = mark(number);
        let script = format!("trap '' TERM HUP INT; (setsid sleep {mark} &); echo ready; sleep {mark}");
        let running = Running::start(&world, &folder, flags, &script);
        wait_for("the command to be under way", || runs(&mark).then_some(()));
        running.signal(Signal::KILL);
        assert_eq!(running.end().0, Some(-9), "{flags:?}");
        wait_for("all of it to be gone", || (!runs(&mark)).then_some(()));
        wait_for("placeholders to be gone", || super::left_in(&folder).is_empty().then_some(()));
    }
}
