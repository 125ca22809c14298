//! The one door to the network: made inside, held outside, and found again by whoever comes later.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

use adj_sandbox::{Command, Exit, Launcher, Mode, NetworkPlan, Plan, PlanError, RunError, Supervisor, stop};

/// Sends a line through the door and prints what comes back.
const SPEAK: &str = "exec 3<>/dev/tcp/127.0.0.1/3128 && echo ping >&3 && head -1 <&3";

fn plan(mode: Mode) -> Plan {
    let mut plan = Plan::new(mode);
    plan.network = NetworkPlan::Proxy { port: 3128 };
    plan.idle = Duration::from_secs(30);
    plan
}

/// Answers each connection with its own first line and a word.
fn serve(listener: TcpListener, word: &'static str) {
    listener.set_nonblocking(false).expect("a flag");
    std::thread::spawn(move || {
        for mut peer in listener.incoming().flatten() {
            let mut buffer = [0u8; 64];
            let count = peer.read(&mut buffer).unwrap_or(0);
            let line = String::from_utf8_lossy(&buffer[..count]).trim().to_owned();
            let _ = peer.write_all(format!("{line} {word}\n").as_bytes());
        }
    });
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test]
async fn a_command_reaches_its_caller_and_nobody_else() {
    let launcher = Launcher::current_exe().expect("our own program");
    let outside = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let port = outside.local_addr().expect("an address").port();
    for mode in [Mode::WorkspaceWrite, Mode::ReadOnly] {
        let script = format!("{SPEAK}; (exec 3<>/dev/tcp/127.0.0.1/{port}) 2>/dev/null || echo unreachable");
        let command = Command::new(["bash", "-c", &script]);
        let plan = plan(mode);
        let run = launcher.run_with_listener(&plan, &command, |listener| serve(listener, "pong"));
        let finished = run.await.expect("a sandbox");
        assert_eq!(text(&finished.stdout), "ping pong\nunreachable\n", "{mode}: {}", text(&finished.stderr));
    }
}

#[tokio::test]
async fn nobody_inside_can_stand_in_the_door() {
    let launcher = Launcher::current_exe().expect("our own program");
    let script = "ls -l /proc/self/fd /proc/1/fd 2>/dev/null | grep -c socket; \
                  perl -MIO::Socket -e 'for $a (\"127.0.0.1\", \"0.0.0.0\") { \
                  print IO::Socket::INET->new(Listen=>1, ReuseAddr=>1, ReusePort=>1, LocalAddr=>$a, LocalPort=>3128) ? \"taken\\n\" : \"refused\\n\" }'; \
                  timeout 5 bash -c 'exec 3<>/dev/tcp/127.0.0.1/3128' 2>/dev/null && echo connected || echo closed";
    let command = Command::new(["bash", "-c", script]);
    // Held but not served: connections wait.
    let (sender, receiver) = std::sync::mpsc::channel();
    let plan = plan(Mode::WorkspaceWrite);
    let run = launcher.run_with_listener(&plan, &command, move |listener| {
        sender.send(listener).expect("the test waits for it");
    });
    let finished = run.await.expect("a sandbox");
    assert_eq!(text(&finished.stdout), "0\nrefused\nrefused\nconnected\n", "{}", text(&finished.stderr));
    drop(receiver);
    // Without anybody behind it there is no door.
    let finished = launcher.run(&plan, &Command::new(["bash", "-c", SPEAK])).await;
    assert_ne!(finished.expect("a sandbox").exit, Exit::Code(0));
}

#[tokio::test]
async fn without_a_sandbox_there_is_no_door() {
    let launcher = Launcher::current_exe().expect("our own program");
    let error = launcher.run(&plan(Mode::DangerFullAccess), &Command::new(["true"])).await.expect_err("refused");
    assert!(matches!(error, RunError::Plan(PlanError::NeedsSandbox { .. })), "{error:?}");
}

struct Session {
    folder: tempfile::TempDir,
    launcher: Launcher,
}

impl Session {
    fn new() -> Session {
        let folder = tempfile::tempdir().expect("a folder");
        Session { folder, launcher: Launcher::current_exe().expect("our own program") }
    }

    fn dir(&self) -> PathBuf {
        self.folder.path().join("session")
    }

    async fn open(&self, plan: &Plan) -> Supervisor {
        self.launcher.open(&self.dir(), plan).await.expect("a supervisor")
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let dir = self.dir();
        let ending = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let _ = runtime.block_on(stop(&dir));
        });
        let _ = ending.join();
    }
}

async fn speak(supervisor: &Supervisor, effect: &str) -> String {
    let reply = supervisor.call(effect, format!("shell {SPEAK}").into_bytes()).await.expect("a reply");
    text(&reply).lines().next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_later_caller_finds_the_same_door() {
    let session = Session::new();
    let plan = plan(Mode::WorkspaceWrite);
    let first = session.open(&plan).await;
    {
        let mut listeners = first.listeners().await.expect("a way to ask");
        let listener = listeners.next().await.expect("an answer").expect("a listener");
        serve(listener, "first");
    }
    assert_eq!(speak(&first, "a").await, "ping first");
    drop(first);
    let second = session.open(&plan).await;
    assert!(!second.is_new());
    let mut listeners = second.listeners().await.expect("a way to ask");
    let listener = listeners.next().await.expect("an answer").expect("a listener");
    // The first one still accepts as well, so either may answer: it is the same door.
    serve(listener, "second");
    let heard = speak(&second, "b").await;
    assert!(heard == "ping first" || heard == "ping second", "{heard}");
}

#[tokio::test]
async fn a_new_sandbox_has_a_new_door_and_says_so() {
    let session = Session::new();
    let supervisor = session.open(&plan(Mode::WorkspaceWrite)).await;
    let mut listeners = supervisor.listeners().await.expect("a way to ask");
    serve(listeners.next().await.expect("an answer").expect("a listener"), "old");
    assert_eq!(speak(&supervisor, "a").await, "ping old");
    supervisor.call("b", b"die".to_vec()).await.expect_err("the worker died");
    let (heard, ()) = tokio::join!(speak(&supervisor, "c"), async {
        serve(listeners.next().await.expect("an answer").expect("a listener"), "new");
    });
    assert_eq!(heard, "ping new");
    // Asking while there is no sandbox makes one.
    supervisor.call("d", b"die".to_vec()).await.expect_err("the worker died");
    let mut more = supervisor.listeners().await.expect("a way to ask");
    serve(more.next().await.expect("an answer").expect("a listener"), "newest");
    assert_eq!(speak(&supervisor, "e").await, "ping newest");
}

#[tokio::test]
async fn a_session_without_a_proxy_has_no_door() {
    let session = Session::new();
    let mut plan = plan(Mode::WorkspaceWrite);
    plan.network = NetworkPlan::Off;
    let supervisor = session.open(&plan).await;
    let mut listeners = supervisor.listeners().await.expect("a way to ask");
    assert!(listeners.next().await.expect("an answer").is_none());
}
