//! What a command may use, and that nothing of it is left afterwards.

use std::time::{Duration, Instant};

use adj_sandbox::{Command, Exit, Finished, Mode, Plan};

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
