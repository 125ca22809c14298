//! Measures what confinement costs: `cargo run -p adj-sandbox --example overhead`
#![expect(clippy::print_stdout, reason = "a measurement is printed")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use adj_sandbox::{Command, Frame, Here, Launcher, Mode, Mount, Plan, Streams, WorkerChannel, dispatch_helper};

const ROUNDS: usize = 100;

fn work(channel: WorkerChannel) -> i32 {
    while let Some(frame) = channel.recv() {
        if let Frame::Request { call, body } = frame
            && channel.reply(call, body).is_err()
        {
            return 1;
        }
    }
    0
}

#[tokio::main(flavor = "current_thread")]
async fn measure() {
    let folder = tempfile::tempdir().expect("a folder");
    let launcher = Launcher::current_exe().expect("our own program");
    let mut plan = Plan::new(Mode::WorkspaceWrite);

    let mut bare = Vec::new();
    let mut confined = Vec::new();
    let mut over = Vec::new();
    let mut overlay = plan.clone();
    for name in ["lower", "upper", "work"] {
        fs::create_dir(folder.path().join(name)).expect("a folder");
    }
    overlay.workspace = Mount::Overlay {
        lower: folder.path().join("lower"),
        upper: folder.path().join("upper"),
        work: folder.path().join("work"),
        inside: "/workspace".into(),
    };
    for _ in 0..ROUNDS {
        let began = Instant::now();
        let mut child = tokio::process::Command::new("/bin/true").stdin(Stdio::null()).spawn().expect("true");
        child.wait().await.expect("its end");
        bare.push(began.elapsed());
        for (plan, times) in [(&plan, &mut confined), (&overlay, &mut over)] {
            let began = Instant::now();
            let finished = launcher.run(plan, &Command::new(["/bin/true"])).await.expect("a sandbox");
            assert!(finished.exit.is_success());
            times.push(began.elapsed());
        }
    }
    report("bare /bin/true", bare);
    report("confined /bin/true", confined);
    report("confined /bin/true, overlay workspace", over);

    plan.idle = Duration::from_secs(5);
    let dir = folder.path().join("session");
    let began = Instant::now();
    let supervisor = launcher.open(&dir, &plan).await.expect("a supervisor");
    println!("open a supervisor: {:?}", began.elapsed());
    let mut calls = Vec::new();
    for number in 0..ROUNDS * 10 {
        let began = Instant::now();
        supervisor.call(&format!("e{number}"), b"hello".to_vec()).await.expect("a reply");
        calls.push(began.elapsed());
    }
    report("call into an open supervisor", calls);
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if line.starts_with(b"adjutant\0__sandbox") {
            let memory = fs::read_to_string(entry.path().join("smaps_rollup")).unwrap_or_default();
            let pss = memory.lines().find(|line| line.starts_with("Pss:")).unwrap_or("Pss: not readable").to_owned();
            println!("{}: {pss}", name.trim());
        }
    }
    supervisor.stop().await.expect("it ends");
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |part: usize| times[(times.len() * part / 100).min(times.len() - 1)];
    println!("{what}: median {:?}, least {:?}, 95 % below {:?}", at(50), at(0), at(95));
}

/// One command for somebody who waits, from the start of a program to its end: this program itself, with a word and perhaps a workspace.
fn cold(workspace: Option<PathBuf>) {
    let mut plan = Plan::new(Mode::WorkspaceWrite);
    plan.workspace = workspace.map_or(Mount::None, |host| Mount::Direct { inside: host.clone(), host });
    plan.limits.wall = Duration::from_secs(60);
    let ended = Here::fork().and_then(|mut here| {
        here.start(&plan, &["/bin/true".into()], Streams::Inherited)?;
        here.wait(drop)
    });
    assert!(ended.expect("a sandbox").is_success());
}

fn measure_cold() {
    let (mut bare, mut empty, mut cold, mut work) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let folder = tempfile::tempdir().expect("a folder");
    for part in ["hooks", "info", "objects/info", "objects/pack", "refs/heads", "refs/tags"] {
        fs::create_dir_all(folder.path().join(".git").join(part)).expect("a folder");
    }
    fs::write(folder.path().join(".git/HEAD"), "ref: refs/heads/main\n").expect("a file");
    let exe = std::env::current_exe().expect("our own program");
    for _ in 0..ROUNDS {
        for (program, words, times) in [
            (Path::new("/bin/true"), vec![], &mut bare),
            (&exe, vec!["nothing".as_ref()], &mut empty),
            (&exe, vec!["cold".as_ref()], &mut cold),
            (&exe, vec!["cold".as_ref(), folder.path().as_os_str()], &mut work),
        ] {
            let began = Instant::now();
            let status =
                std::process::Command::new(program).args(words).stdin(Stdio::null()).status().expect("it starts");
            times.push(began.elapsed());
            assert!(status.success());
        }
    }
    report("spawned: /bin/true", bare);
    report("spawned: this program, which does nothing", empty);
    report("spawned: this program, which confines /bin/true", cold);
    report("spawned: the same in a repository", work);
}

fn main() {
    dispatch_helper(work);
    match std::env::args().nth(1).as_deref() {
        Some("nothing") => {}
        Some("cold") => cold(std::env::args_os().nth(2).map(PathBuf::from)),
        _ => {
            measure_cold();
            measure();
        }
    }
}
