//! Supervisors: one effect happens once, its result survives its caller, and nothing survives the supervisor.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use adj_sandbox::{CallError, Failure, Finding, Launcher, Mode, OpenError, Plan, Reached, Supervisor, find, stop};

use crate::stage::{Stage, eventually, own_program, processes_with, text};

/// A second caller in a process of its own, to be killed.
pub fn dispatch_caller() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [word, dir, plan] = words.as_slice() else { return };
    if word != "__caller" {
        return;
    }
    let plan: Plan = serde_json::from_str(plan).expect("a plan");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let launcher = Launcher::current_exe().expect("our own program");
        let supervisor = launcher.open(Path::new(dir), &plan).await.expect("a supervisor");
        let _ = supervisor.call("effect", b"shell sleep 1; echo survived".to_vec()).await;
    });
    std::process::exit(0);
}

struct Session {
    stage: Stage,
    plan: Plan,
    dir: PathBuf,
}

impl Session {
    fn new() -> Session {
        let stage = Stage::new();
        let mut plan = stage.plan();
        plan.idle = Duration::from_secs(60);
        // Longer than a socket's path may be.
        let dir = stage.outside.join("s".repeat(120));
        Session { stage, plan, dir }
    }

    async fn open(&self) -> Supervisor {
        self.stage.launcher.open(&self.dir, &self.plan).await.expect("a supervisor")
    }

    fn find(&self, effect: &str) -> Finding {
        find(&self.dir, effect).expect("a finding")
    }

    fn pid(&self) -> i32 {
        // The lock's holder is told apart by the folder it lives in.
        let is_ours = |pid: &i32| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == self.dir);
        let entries = fs::read_dir("/proc").expect("/proc").flatten();
        let mut pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(is_ours);
        pids.next().expect("a living supervisor")
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // A failed test shall leave nothing running; the plan's idle time is the last resort.
        let dir = self.dir.clone();
        let ending = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let _ = runtime.block_on(stop(&dir));
        });
        let _ = ending.join();
    }
}

async fn call(supervisor: &Supervisor, effect: &str, request: &str) -> Result<String, CallError> {
    supervisor.call(effect, request.as_bytes().to_vec()).await.map(|reply| text(&reply))
}

#[tokio::test]
async fn a_command_cannot_trace_the_worker() {
    let session = Session::new();
    let supervisor = session.open().await;
    let reply =
        call(&supervisor, "trace", "shell $ATTACK seize $PPID; cat /proc/$PPID/environ; cat /proc/$PPID/fd/0").await;
    let reply = reply.expect("an answer");
    assert!(reply.contains("tried\nerrno Operation not permitted"), "{reply}");
    assert_eq!(reply.matches("Permission denied").count(), 2, "{reply}");
}

#[tokio::test]
async fn calls_are_answered_inside_the_sandbox() {
    for mode in [Mode::WorkspaceWrite, Mode::ReadOnly, Mode::DangerFullAccess] {
        let mut session = Session::new();
        session.plan.mode = mode;
        let supervisor = session.open().await;
        assert!(supervisor.is_new());
        assert_eq!(call(&supervisor, "e1", "echo hello").await.expect("a reply"), "hello", "{mode}");
        let inside = call(&supervisor, "e2", "shell cat $OUT/secret 2>&1; pwd").await.expect("a reply");
        assert_eq!(inside.contains(crate::stage::CANARY), mode == Mode::DangerFullAccess, "{mode}: {inside}");
        assert!(inside.contains(session.stage.workspace.to_str().expect("plain")), "{mode}: {inside}");
        supervisor.stop().await.expect("it ends");
    }
}

#[tokio::test]
async fn the_worker_itself_is_confined_and_untouchable() {
    let session = Session::new();
    let supervisor = session.open().await;
    let script = "shell grep -E '^(CapEff|NoNewPrivs|Seccomp):' /proc/2/status; \
                  cat /proc/2/environ /proc/2/maps /proc/1/maps >/dev/null 2>&1 || echo refused; \
                  (: > /proc/2/mem) 2>/dev/null || echo refused; ls -l /proc/self/fd | grep -c socket";
    let reply = call(&supervisor, "e", script).await.expect("a reply");
    let expected = "CapEff:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\nrefused\nrefused\n0\n";
    assert!(reply.starts_with(expected), "{reply}");
}

#[tokio::test]
async fn an_effect_happens_once() {
    let session = Session::new();
    let supervisor = session.open().await;
    assert_eq!(session.find("e"), Finding::NotStarted);
    // Two ask at the same time, over two connections, and a third when it is done.
    let second = session.open().await;
    assert!(!second.is_new());
    let (one, two) = tokio::join!(call(&supervisor, "e", "mark"), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(session.find("e"), Finding::Running);
        call(&second, "e", "mark").await
    });
    assert_eq!((one.expect("a reply"), two.expect("a reply")), ("marked".to_owned(), "marked".to_owned()));
    assert_eq!(call(&second, "e", "mark").await.expect("a reply"), "marked");
    assert_eq!(session.find("e"), Finding::Done(b"marked".to_vec()));
    supervisor.stop().await.expect("it ends");
    assert_eq!(session.find("e"), Finding::Done(b"marked".to_vec()));
    // A later supervisor in the same place remembers.
    let third = session.open().await;
    assert!(third.is_new());
    assert_eq!(call(&third, "e", "mark").await.expect("a reply"), "marked");
    assert_eq!(fs::read_to_string(session.stage.workspace.join("marks")).expect("the marks"), "x");
}

#[tokio::test]
async fn many_calls_run_side_by_side() {
    let session = Session::new();
    let supervisor = std::sync::Arc::new(session.open().await);
    let began = Instant::now();
    let mut all = tokio::task::JoinSet::new();
    for number in 0..20 {
        let supervisor = std::sync::Arc::clone(&supervisor);
        all.spawn(async move {
            let request = format!("shell sleep 0.5; echo {number}");
            let reply = call(&supervisor, &format!("e{number}"), &request).await.expect("a reply");
            assert!(reply.starts_with(&format!("{number}\n")), "{reply}");
        });
    }
    assert_eq!(all.join_all().await.len(), 20);
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    let reply = call(&supervisor, "large", "large 20000000").await.expect("a reply");
    assert_eq!(reply.len(), 20_000_000);
    assert_eq!(call(&supervisor, "large", "").await.expect("the kept reply").len(), 20_000_000);
}

#[tokio::test]
async fn a_cancelled_call_ends_as_the_worker_says() {
    let session = Session::new();
    let supervisor = session.open().await;
    let (reply, ()) = tokio::join!(call(&supervisor, "e", "wait"), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        supervisor.cancel("e").await.expect("told");
    });
    assert_eq!(reply.expect("a reply"), "cancelled");
    supervisor.cancel("never-started").await.expect("nothing to do");
}

#[tokio::test]
async fn a_result_outlives_the_caller_that_asked_for_it() {
    let session = Session::new();
    let plan = serde_json::to_string(&session.plan).expect("plain data");
    let mut caller = std::process::Command::new(own_program())
        .args(["__caller", session.dir.to_str().expect("plain"), &plan])
        .stdin(Stdio::null())
        .spawn()
        .expect("a caller");
    assert!(eventually(|| find(&session.dir, "effect").is_ok_and(|found| found == Finding::Running)).await);
    caller.kill().expect("a signal");
    caller.wait().expect("its end");
    assert_eq!(session.find("effect"), Finding::Running);
    let supervisor = session.open().await;
    assert!(!supervisor.is_new(), "it is still the same");
    let reply = call(&supervisor, "effect", "shell echo a second time").await.expect("a reply");
    assert!(reply.starts_with("survived\n"), "{reply}");
}

#[tokio::test]
async fn a_dead_worker_is_told_and_replaced() {
    let session = Session::new();
    let supervisor = session.open().await;
    let (bystander, killer) = tokio::join!(call(&supervisor, "bystander", "wait"), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        call(&supervisor, "killer", "die").await
    });
    for (effect, result) in [("bystander", bystander), ("killer", killer)] {
        let error = result.expect_err("no reply");
        assert!(matches!(error, CallError::Failed { source: Failure::WorkerDied, .. }), "{effect}: {error:?}");
        assert_eq!(session.find(effect), Finding::Failed(Failure::WorkerDied), "{effect}");
    }
    assert_eq!(call(&supervisor, "later", "echo back").await.expect("a reply"), "back");
    let error = call(&supervisor, "killer", "echo back").await.expect_err("it is on record");
    assert!(matches!(error, CallError::Failed { .. }), "{error:?}");
    // One that always dies is not started for ever.
    let mut refused = None;
    for number in 0..10 {
        if let Err(error @ CallError::NotStarted { .. }) = call(&supervisor, &format!("die{number}"), "die").await {
            refused = Some(error);
            break;
        }
    }
    assert!(refused.is_some_and(|error| error.to_string().contains("again and again")));
}

#[tokio::test]
async fn nothing_outlives_a_killed_supervisor() {
    for mode in [Mode::WorkspaceWrite, Mode::DangerFullAccess] {
        let mut session = Session::new();
        session.plan.mode = mode;
        let supervisor = session.open().await;
        let mark = format!("{}", 37_000_000 + u64::from(std::process::id()) + mode as u64 * 1_000_000);
        let script = format!("shell (setsid bash -c 'trap \"\" TERM HUP; sleep {mark}' &); sleep {mark}");
        let running = call(&supervisor, "e", &script);
        let (result, ()) = tokio::join!(running, async {
            assert!(eventually(|| processes_with(&mark).len() >= 2).await, "{:?}", processes_with(&mark));
            let pid = rustix::process::Pid::from_raw(session.pid()).expect("a pid");
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("a signal");
        });
        assert!(matches!(result, Err(CallError::SupervisorGone { .. })), "{mode}: {result:?}");
        assert!(eventually(|| processes_with(&mark).is_empty()).await, "{mode}: {:?}", processes_with(&mark));
        assert_eq!(session.find("e"), Finding::Unknown, "{mode}");
        assert_eq!(session.find("other"), Finding::NotStarted, "{mode}");
        let supervisor = session.open().await;
        assert!(supervisor.is_new(), "{mode}");
        let error = call(&supervisor, "e", "echo again").await.expect_err("it may have happened");
        assert!(matches!(error, CallError::Unknown { .. }), "{mode}: {error:?}");
        assert_eq!(call(&supervisor, "other", "echo fresh").await.expect("a reply"), "fresh", "{mode}");
    }
}

#[tokio::test]
async fn stopping_ends_everything_and_can_be_repeated() {
    let session = Session::new();
    stop(&session.dir).await.expect("nothing lives there");
    let supervisor = session.open().await;
    let mark = format!("{}", 57_000_000 + u64::from(std::process::id()));
    let script = format!("shell (setsid sleep {mark} &); sleep {mark}");
    let (result, ()) = tokio::join!(call(&supervisor, "e", &script), async {
        assert!(eventually(|| processes_with(&mark).len() >= 2).await);
        stop(&session.dir).await.expect("it ends");
        assert!(processes_with(&mark).is_empty(), "{:?}", processes_with(&mark));
    });
    let error = result.expect_err("it was ended");
    assert!(matches!(error, CallError::Failed { source: Failure::Stopped, .. }), "{error:?}");
    assert_eq!(session.find("e"), Finding::Failed(Failure::Stopped));
    stop(&session.dir).await.expect("nothing lives there");
}

#[tokio::test]
async fn a_supervisor_that_does_not_listen_is_killed() {
    let session = Session::new();
    let supervisor = session.open().await;
    let mark = format!("{}", 67_000_000 + u64::from(std::process::id()));
    let _ =
        tokio::time::timeout(Duration::from_millis(300), call(&supervisor, "e", &format!("shell sleep {mark}"))).await;
    let pid = rustix::process::Pid::from_raw(session.pid()).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).expect("a signal");
    stop(&session.dir).await.expect("it ends");
    assert!(eventually(|| processes_with(&mark).is_empty()).await, "{:?}", processes_with(&mark));
}

#[tokio::test]
async fn an_idle_supervisor_leaves_but_a_busy_one_stays() {
    let mut session = Session::new();
    session.plan.idle = Duration::from_millis(400);
    let supervisor = session.open().await;
    tokio::time::sleep(Duration::from_millis(900)).await;
    assert_eq!(call(&supervisor, "a", "echo connected").await.expect("a reply"), "connected");
    let abandoned =
        tokio::time::timeout(Duration::from_millis(100), call(&supervisor, "b", "shell sleep 1.2; echo x")).await;
    assert!(abandoned.is_err());
    drop(supervisor);
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(session.find("b"), Finding::Running, "nobody is connected, but a call runs");
    let socket = session.dir.join("sock");
    assert!(eventually(|| !socket.exists()).await);
    assert!(matches!(session.find("b"), Finding::Done(_)));
}

#[tokio::test]
async fn a_late_call_is_ended() {
    let mut session = Session::new();
    session.plan.limits.wall = Duration::from_millis(300);
    let supervisor = session.open().await;
    let error = call(&supervisor, "e", "shell sleep 100").await.expect_err("too late");
    assert!(matches!(error, CallError::Failed { source: Failure::TimedOut, .. }), "{error:?}");
    assert_eq!(call(&supervisor, "f", "echo fine").await.expect("a reply"), "fine");
}

#[tokio::test]
async fn a_memory_hog_is_ended_without_its_worker() {
    let mut session = Session::new();
    session.plan.limits.memory_bytes = 150 << 20;
    let supervisor = session.open().await;
    let script = "shell for i in 1 2 3 4; do perl -e '$x = \"x\" x 60e6; sleep 3' & done; wait; echo survived";
    let reply = call(&supervisor, "e", script).await.expect("the worker lives");
    assert!(reply.contains("survived"), "{reply}");
    assert!(reply.ends_with(" [it held more memory than the limit memory=150MiB]"), "{reply}");
    assert_eq!(call(&supervisor, "f", "echo fine").await.expect("a reply"), "fine");
}

/// Several that begin anew whenever they are killed are ended together.
#[tokio::test]
async fn memory_that_comes_back_is_ended_for_good() {
    let mut session = Session::new();
    session.plan.limits.memory_bytes = 150 << 20;
    fs::write(session.stage.workspace.join("hog"), "while :; do perl -e '$x = \"x\" x 60e6; sleep 20'; done")
        .expect("a file");
    let supervisor = session.open().await;
    let began = Instant::now();
    let script = "shell for i in 1 2 3 4 5 6; do sh ./hog & done; sleep 20; echo slept";
    let reply = call(&supervisor, "e", script).await.expect("the worker lives");
    assert!(reply.ends_with(" [it held more memory than the limit memory=150MiB]"), "{reply}");
    assert!(!reply.contains("slept") && began.elapsed() < Duration::from_secs(15), "{reply} {:?}", began.elapsed());
    assert_eq!(call(&supervisor, "f", "echo fine").await.expect("a reply"), "fine");
}

#[tokio::test]
async fn a_fork_bomb_is_ended_without_its_worker() {
    let mut session = Session::new();
    // Few enough that an ordinary user meets the kernel's own limit, which refuses; root is watched.
    session.plan.limits.processes = 40;
    let supervisor = session.open().await;
    let script = "shell for i in $(seq 80); do sleep 3 & done 2>/dev/null; wait; echo survived";
    let reply = call(&supervisor, "e", script).await.expect("the worker lives");
    if rustix::process::geteuid().is_root() {
        assert!(reply.ends_with(" [it had more processes than the limit processes=40]"), "{reply}");
    }
    assert_eq!(call(&supervisor, "f", "echo fine").await.expect("a reply"), "fine");
}

#[tokio::test]
async fn another_plan_or_an_open_folder_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let session = Session::new();
    let _supervisor = session.open().await;
    let mut narrower = session.plan.clone();
    narrower.mode = Mode::ReadOnly;
    let error = session.stage.launcher.open(&session.dir, &narrower).await.expect_err("another plan");
    assert!(matches!(error, OpenError::OtherPlan { .. }), "{error:?}");

    let open = session.stage.outside.join("open");
    fs::create_dir(&open).expect("a folder");
    fs::set_permissions(&open, fs::Permissions::from_mode(0o755)).expect("a mode");
    let error = session.stage.launcher.open(&open, &session.plan).await.expect_err("everybody can enter it");
    assert!(matches!(error, OpenError::Folder { .. }), "{error:?}");

    let mut broken = session.plan.clone();
    broken.cwd = "/nowhere".into();
    let error =
        session.stage.launcher.open(&session.stage.outside.join("new"), &broken).await.expect_err("no such folder");
    assert!(matches!(error, OpenError::Setup(_)), "{error:?}");
}

#[tokio::test]
async fn names_and_sizes_are_checked() {
    let session = Session::new();
    let supervisor = session.open().await;
    for name in ["", "../up", "with space", &"x".repeat(129)] {
        assert!(matches!(call(&supervisor, name, "echo x").await, Err(CallError::Name { .. })), "{name:?}");
    }
    let too_long = supervisor.call("e", vec![b'x'; (64 << 20) + 1]).await;
    assert!(matches!(too_long, Err(CallError::TooLong { .. })), "{too_long:?}");
}

#[tokio::test]
async fn many_callers_open_one_supervisor() {
    let session = Session::new();
    let (a, b, c, d) = tokio::join!(session.open(), session.open(), session.open(), session.open());
    let new = [&a, &b, &c, &d].into_iter().filter(|supervisor| supervisor.is_new()).count();
    assert_eq!(new, 1);
    for (index, supervisor) in [a, b, c, d].iter().enumerate() {
        assert_eq!(call(supervisor, &format!("e{index}"), "echo x").await.expect("a reply"), "x");
    }
}

#[tokio::test]
async fn a_call_that_reaches_a_limit_says_so_and_its_session_goes_on() {
    let mut session = Session::new();
    session.plan.limits.cpu = Duration::from_millis(600);
    session.plan.limits.disk_bytes = 8 << 20;
    let (cpu, disk) = (Reached::Cpu(Duration::from_millis(600)), Reached::DiskBytes(8 << 20));
    let supervisor = session.open().await;
    let burn = "shell for i in 1 2 3; do (setsid bash -c 'while :; do :; done' &); done; sleep 100";
    let fill = "shell for i in $(seq 100); do head -c 1000000 /dev/zero > $i; done; sleep 100";
    for (effect, request, reached) in [("burn", burn, cpu), ("fill", fill, disk)] {
        let error = call(&supervisor, effect, request).await.expect_err("too much");
        let CallError::Failed { source, .. } = error else { panic!("{effect}: {error:?}") };
        assert_eq!(source, Failure::LimitReached(reached), "{effect}");
        assert_eq!(session.find(effect), Finding::Failed(source), "{effect}: it is on record");
        let after = call(&supervisor, &format!("{effect}-after"), "shell echo fine").await.expect("a reply");
        assert!(after.starts_with("fine\n"), "{effect}: {after}");
    }
    // Whoever cleans up is not ended for what was there before.
    let after = call(&supervisor, "clean", "shell rm [0-9]*; sleep 1; echo clean").await.expect("a reply");
    assert!(after.starts_with("clean\n"), "{after}");
    supervisor.stop().await.expect("it ends");
}

#[tokio::test]
async fn each_call_has_its_own_processor_time() {
    let mut session = Session::new();
    session.plan.limits.cpu = Duration::from_secs(2);
    let supervisor = session.open().await;
    // Together they use more than one may.
    for number in 0..6 {
        let request = "shell timeout 0.7 bash -c 'while :; do :; done'; echo over";
        let reply = call(&supervisor, &format!("e{number}"), request).await.expect("a reply");
        assert!(reply.starts_with("over\n"), "{number}: {reply}");
    }
    // What goes on between calls is watched, but is no later call's.
    let burn = "shell (setsid bash -c 'sleep 1.5; timeout 1.5 bash -c \"while :; do :; done\"' &>/dev/null &)";
    for number in 0..2 {
        call(&supervisor, &format!("background{number}"), burn).await.expect("a reply");
        tokio::time::sleep(Duration::from_millis(3200)).await;
        let reply = call(&supervisor, &format!("later{number}"), "shell sleep 0.2; echo fine").await.expect("a reply");
        assert!(reply.starts_with("fine\n"), "{reply}");
    }
}

#[tokio::test]
async fn what_runs_between_calls_is_limited_too() {
    let mut session = Session::new();
    session.plan.limits.cpu = Duration::from_millis(500);
    session.plan.limits.memory_bytes = 100 << 20;
    let supervisor = session.open().await;
    let mark = format!("{}", 77_000_000 + u64::from(std::process::id()));
    for (name, harm) in [
        ("time", format!("sleep {mark} & exec -a burn{mark} bash -c 'sleep 1.5; while :; do :; done'")),
        ("memory", format!("exec -a hog{mark} perl -e 'sleep 2; $x = \"x\" x 150e6; sleep 1000'")),
    ] {
        let script = format!("shell (setsid bash -c {} &>/dev/null &)", shell_word(&harm));
        call(&supervisor, name, &script).await.expect("a reply");
        assert!(eventually(|| !processes_with(&mark).is_empty()).await, "{name}");
        assert!(eventually(|| processes_with(&mark).is_empty()).await, "{name}: {:?}", processes_with(&mark));
    }
    let reply = call(&supervisor, "after", "shell echo fine").await.expect("a reply");
    assert!(reply.starts_with("fine\n"), "{reply}");
}

fn shell_word(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}
