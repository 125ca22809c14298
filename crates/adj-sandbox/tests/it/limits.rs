//! What a command may use, and that nothing of it is left afterwards.

use std::time::{Duration, Instant};

use adj_sandbox::{Command, Exit, Finished, Limits, Mode, Mount, Plan, Reached};

use crate::stage::{Stage, eventually, processes_with, text};

async fn run(stage: &Stage, plan: &Plan, script: &str, timeout: Duration) -> Finished {
    let mut command = Command::new(["bash", "-c", script]);
    command.timeout = timeout;
    stage.launcher.run(plan, &command).await.expect("a sandbox")
}

#[tokio::test]
async fn a_timeout_ends_the_whole_tree() {
    for (mode, seconds) in [(Mode::WorkspaceWrite, 7_000_000), (Mode::DangerFullAccess, 8_000_000)] {
        let stage = Stage::new();
        let mark = format!("{}", seconds + u64::from(std::process::id()));
        let script = format!(
            "trap '' TERM INT HUP; echo begun; (setsid bash -c 'trap \"\" TERM HUP; (setsid sleep {mark} &) ; sleep {mark}' &) ; \
             nohup sleep {mark} & sleep {mark}"
        );
        let mut plan = stage.plan();
        plan.mode = mode;
        let began = Instant::now();
        let finished = run(&stage, &plan, &script, Duration::from_millis(500)).await;
        assert_eq!((finished.exit, text(&finished.stdout)), (Exit::TimedOut, "begun\n".to_owned()), "{mode}");
        assert!(began.elapsed() < Duration::from_secs(10), "{mode}: {:?}", began.elapsed());
        assert!(eventually(|| processes_with(&mark).is_empty()).await, "{mode}: {:?}", processes_with(&mark));
    }
}

#[tokio::test]
async fn a_daemon_does_not_outlive_its_command() {
    for (mode, seconds) in [(Mode::WorkspaceWrite, 17_000_000), (Mode::DangerFullAccess, 18_000_000)] {
        let stage = Stage::new();
        let mark = format!("{}", seconds + u64::from(std::process::id()));
        let mut plan = stage.plan();
        plan.mode = mode;
        let script = format!("(setsid bash -c '(setsid sleep {mark} &)' &); sleep 0.1; echo done");
        let finished = run(&stage, &plan, &script, Duration::from_secs(10)).await;
        assert_eq!((finished.exit, text(&finished.stdout)), (Exit::Code(0), "done\n".to_owned()), "{mode}");
        assert!(processes_with(&mark).is_empty(), "{mode}: {:?}", processes_with(&mark));
    }
}

#[tokio::test]
async fn a_dropped_future_ends_the_command() {
    let stage = Stage::new();
    let mark = format!("{}", 27_000_000 + u64::from(std::process::id()));
    let script = format!("sleep {mark}");
    {
        let plan = stage.plan();
        let running = run(&stage, &plan, &script, Duration::from_secs(60));
        tokio::pin!(running);
        let begun = eventually(|| !processes_with(&mark).is_empty());
        tokio::select! {
            finished = &mut running => panic!("it ended: {finished:?}"),
            begun = begun => assert!(begun),
        }
    }
    assert!(eventually(|| processes_with(&mark).is_empty()).await);
}

#[tokio::test]
async fn output_is_cut_and_then_ended() {
    let stage = Stage::new();
    let mut plan = stage.plan();
    plan.limits.output_bytes = 1 << 20;
    let mut command =
        Command::new(["bash", "-c", "echo first; head -c 100000 /dev/zero | tr '\\0' x; echo; echo last"]);
    command.keep_output_bytes = 1000;
    let finished = stage.launcher.run(&plan, &command).await.expect("a sandbox");
    let shown = text(&finished.stdout);
    assert_eq!((finished.exit, finished.stdout_bytes), (Exit::Code(0), 100_012));
    assert!(shown.starts_with("first\nxxx") && shown.ends_with("xxx\nlast\n"), "{shown}");
    assert!(shown.contains("[… 99012 bytes left out …]"), "{shown}");

    let began = Instant::now();
    let finished = run(&stage, &plan, "yes", Duration::from_secs(60)).await;
    assert_eq!(finished.exit, Exit::OutputLimit);
    assert!(finished.stdout_bytes > 1 << 20 && finished.stdout_bytes < 4 << 20, "{}", finished.stdout_bytes);
    assert!(began.elapsed() < Duration::from_secs(20));
}

#[tokio::test]
async fn bombs_are_contained() {
    let stage = Stage::new();
    let mut plan = stage.plan();
    plan.limits.memory_bytes = 128 << 20;
    plan.limits.processes = 40;
    plan.limits.file_size_bytes = 1 << 20;
    plan.limits.tmp_bytes = 4 << 20;
    let cases = [
        (
            "several processes' memory",
            "for i in 1 2 3 4; do perl -e '$x = \"x\" x 60e6; sleep 20' & done; wait",
            Exit::MemoryLimit,
        ),
        ("a large file", "head -c 2000000 /dev/zero > big", Exit::Code(153)),
        ("a full /tmp", "for i in 1 2 3 4 5 6; do head -c 1000000 /dev/zero > /tmp/$i || exit 5; done", Exit::Code(5)),
    ];
    for (name, script, expected) in cases {
        let finished = run(&stage, &plan, script, Duration::from_secs(30)).await;
        assert_eq!(finished.exit, expected, "{name}: {}", text(&finished.stderr));
    }
    // One that maps more than twice the limit fails by itself; one that forks for ever meets either limit.
    let finished = run(&stage, &plan, "perl -e '$x = \"x\" x 900e6; print 1'", Duration::from_secs(30)).await;
    assert_ne!(finished.exit, Exit::Code(0));
    let finished = run(&stage, &plan, "f() { f | f & }; f; sleep 5", Duration::from_secs(30)).await;
    assert_ne!(finished.exit, Exit::TimedOut, "{finished:?}");
    let finished = run(&stage, &plan, "echo still fine", Duration::from_secs(30)).await;
    assert_eq!(text(&finished.stdout), "still fine\n");
}

#[tokio::test]
async fn a_crash_leaves_no_core() {
    let stage = Stage::new();
    let finished = run(&stage, &stage.plan(), "ulimit -c; bash -c 'kill -SEGV $$'; ls", Duration::from_secs(10)).await;
    assert_eq!(text(&finished.stdout), "0\ndeep\nfile.txt\n");
}

/// Runs a script with these limits and says which of them ended it.
async fn reached(script: &str, change: impl FnOnce(&mut Limits)) -> Option<Reached> {
    let stage = Stage::new();
    let mut plan = stage.plan();
    change(&mut plan.limits);
    let finished = run(&stage, &plan, script, Duration::from_secs(40)).await;
    assert!(finished.duration < Duration::from_secs(40), "{script}: {finished:?}");
    finished.exit.reached(&plan.limits)
}

#[tokio::test]
async fn processor_time_counts_wherever_it_is_used() {
    let limit = Duration::from_millis(700);
    let burn = "while :; do :; done";
    let cases = [
        ("one", burn.to_owned()),
        ("children", format!("for i in 1 2 3 4; do ({burn}) & done; wait")),
        ("daemons", format!("for i in 1 2 3; do (setsid bash -c '(setsid bash -c \"{burn}\" &)' &); done; sleep 100")),
        ("short ones, one after the other", "while :; do perl -e 'for (1..3e5) {}'; done".to_owned()),
        (
            "children nobody waits for",
            "perl -e '$SIG{CHLD} = \"IGNORE\"; while (1) { for (1..4) { fork or do { for (1..3e6) {} exit } } select undef, undef, undef, 0.3 }'"
                .to_owned(),
        ),
    ];
    for (name, script) in cases {
        assert_eq!(reached(&script, |limits| limits.cpu = limit).await, Some(Reached::Cpu(limit)), "{name}");
    }
    // Time that passes is not time that is used.
    assert_eq!(reached("sleep 1.5", |limits| limits.cpu = limit).await, None);
}

#[tokio::test]
async fn time_of_the_dead_is_counted_once() {
    // A tree that uses about half of what it may, in several generations that are waited for.
    let burn = "for (1..2e6) {}";
    let script = format!("for i in 1 2 3 4 5; do bash -c \"perl -e '{burn}'; sleep 0.1; :\"; done; times | tail -1");
    let stage = Stage::new();
    let mut plan = stage.plan();
    let finished = run(&stage, &plan, &script, Duration::from_secs(40)).await;
    assert_eq!(finished.exit, Exit::Code(0), "{}", text(&finished.stderr));
    let words = text(&finished.stdout);
    let seconds = |word: &str| {
        let (minutes, seconds) = word.trim_end_matches('s').split_once('m').expect("minutes and seconds");
        60.0 * minutes.parse::<f64>().expect("minutes") + seconds.parse::<f64>().expect("seconds")
    };
    let used: f64 = words.split_whitespace().map(seconds).sum();
    plan.limits.cpu = Duration::from_secs_f64(used * 1.8 + 0.3);
    let finished = run(&stage, &plan, &script, Duration::from_secs(40)).await;
    assert_eq!(finished.exit, Exit::Code(0), "{used} seconds are less than {:?}", plan.limits.cpu);
}

#[tokio::test]
async fn the_workspace_grows_only_so_far() {
    let limit = 8 << 20;
    let fill = "head -c 1500000 /dev/zero";
    let cases = [
        ("one large file", "head -c 300000000 /dev/zero > big; sleep 100".to_owned(), true),
        ("many files", format!("for i in $(seq 1000); do {fill} > $i; done; sleep 100"), true),
        // Once it was looked at: before that, what it held at the start is told by the free space, which others change as well.
        ("a file that was there", "sleep 3; head -c 100000000 /dev/zero >> file.txt; sleep 100".to_owned(), true),
        ("out of sight", format!("mkdir -m 300 d; for i in $(seq 1000); do {fill} > d/$i; done; sleep 100"), true),
        ("holes", "truncate -s 1G hole; sleep 1.5; rm hole".to_owned(), false),
        ("little", "head -c 1000000 /dev/zero > little; sleep 1.5".to_owned(), false),
        ("elsewhere", format!("for i in $(seq 20); do {fill} > /tmp/$i; done; sleep 1"), false),
    ];
    // What a file costs beside its bytes counts too.
    let script = "mkdir d; cd d; perl -e 'for (1..1000) { open F, \">$_\" }'; sleep 100";
    let found = reached(script, |limits| limits.disk_bytes = 256 << 10).await;
    assert_eq!(found, Some(Reached::DiskBytes(256 << 10)), "empty files");
    for (name, script, is_too_much) in cases {
        let found = reached(&script, |limits| limits.disk_bytes = limit).await;
        assert_eq!(found, is_too_much.then_some(Reached::DiskBytes(limit)), "{name}");
    }
}

#[tokio::test]
async fn a_private_layer_grows_only_so_far() {
    let stage = Stage::new();
    let at = |name: &str| stage.outside.join(name);
    for name in ["upper", "work"] {
        std::fs::create_dir(at(name)).expect("a folder");
    }
    std::fs::write(stage.workspace.join("large"), vec![1; 6 << 20]).expect("a file");
    let mut plan = stage.plan();
    plan.workspace = Mount::Overlay {
        lower: stage.workspace.clone(),
        upper: at("upper"),
        work: at("work"),
        inside: stage.workspace.clone(),
    };
    plan.limits.disk_bytes = 8 << 20;
    let run = |script: &'static str| run(&stage, &plan, script, Duration::from_secs(40));
    // What lies below is not what was added, until it is changed.
    assert_eq!(run("cat large > /dev/null; sleep 1").await.exit, Exit::Code(0));
    assert_eq!(run("for i in 1 2 3; do cp large copy$i; done; sleep 100").await.exit, Exit::DiskLimit);
}

#[tokio::test]
async fn a_deleted_file_that_is_open_counts() {
    // Ten times what is allowed, as others on this disk may free some meanwhile.
    let script = "exec 5> gone; rm gone; for i in $(seq 40); do head -c 10000000 /dev/zero >&5; done; sleep 100";
    let limit = 8 << 20;
    assert_eq!(reached(script, |limits| limits.disk_bytes = limit).await, Some(Reached::DiskBytes(limit)));
}

#[tokio::test]
async fn threads_and_leaderless_processes_are_seen() {
    let stage = Stage::new();
    let mut plan = stage.plan();
    plan.limits.memory_bytes = 64 << 20;
    plan.limits.processes = 40;
    let finished = run(&stage, &plan, "$ATTACK leaderless-memory 100; echo over", Duration::from_secs(30)).await;
    assert_eq!(finished.exit, Exit::MemoryLimit, "{finished:?}");
    let finished = run(&stage, &plan, "$ATTACK threads 60; echo over", Duration::from_secs(30)).await;
    // The kernel itself refuses an ordinary user the last of them.
    let is_root = rustix::process::geteuid().is_root();
    let expected = if is_root { Exit::ProcessLimit } else { Exit::Code(0) };
    assert_eq!((finished.exit, text(&finished.stdout).contains("BROKEN")), (expected, false), "{finished:?}");
}
