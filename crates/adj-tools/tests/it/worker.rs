//! The tools where they really run: in a worker inside a sandbox.

use adj_domain::{ToolOutcome, ToolRequest};
use adj_sandbox::{Launcher, Mode, Mount, Plan, Supervisor, base_environment};
use adj_tools::WorkerRequest;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

struct Stage {
    supervisor: Supervisor,
    folder: tempfile::TempDir,
}

async fn stage(mode: Mode) -> Stage {
    limited_stage(mode, |_| {}).await
}

async fn limited_stage(mode: Mode, change: impl FnOnce(&mut Plan)) -> Stage {
    let folder = tempfile::tempdir().expect("a folder");
    let workspace = folder.path().join("host");
    fs::create_dir(&workspace).expect("a workspace");
    fs::write(workspace.join("a.txt"), "one\ntwo\n").expect("a file");
    fs::write(folder.path().join("secret"), "canary").expect("a file");
    let mut plan = Plan {
        workspace: Mount::Direct { host: workspace, inside: PathBuf::from("/workspace") },
        cwd: PathBuf::from("/workspace"),
        env: base_environment(),
        ..Plan::new(mode)
    };
    change(&mut plan);
    let launcher = Launcher::current_exe().expect("this binary");
    let supervisor = launcher.open(&folder.path().join("supervisor"), &plan).await.expect("a sandbox");
    Stage { supervisor, folder }
}

impl Stage {
    async fn call(&self, effect: &str, name: &str, input: Value) -> ToolOutcome {
        let request = WorkerRequest::new(ToolRequest { name: name.into(), input }, "/workspace".into());
        let body = serde_json::to_vec(&request).expect("JSON");
        let reply = self.supervisor.call(effect, body).await.expect("a reply");
        serde_json::from_slice(&reply).expect("an outcome")
    }

    fn host(&self, path: &str) -> PathBuf {
        self.folder.path().join("host").join(path)
    }
}

#[tokio::test]
async fn every_tool_works_inside_a_sandbox() {
    let stage = stage(Mode::WorkspaceWrite).await;
    let patch = "*** Begin Patch\n*** Update File: a.txt\n@@\n-two\n+2\n*** Add File: c/d\n+new\n*** End Patch";
    let calls = [
        ("bash", json!({"command": "cd / && export X=1 && whoami && pwd"}), "agent\n/\n"),
        ("bash", json!({"command": "echo $X; pwd; cat /workspace/a.txt"}), "1\n/\none\ntwo\n"),
        ("read", json!({"file_path": "/workspace/a.txt"}), "     1\tone\n     2\ttwo\n"),
        ("write", json!({"file_path": "b/c.sh", "content": "echo hi\n"}), "created b/c.sh (1 line)"),
        (
            "edit",
            json!({"file_path": "a.txt", "old_string": "one", "new_string": "1"}),
            "replaced 1 occurrence in a.txt (in line 1)",
        ),
        ("apply_patch", json!({"patch": patch}), "updated a.txt (+1 -1)\nadded c/d (+1)\n"),
        ("bash", json!({"command": "bash /workspace/b/c.sh; touch -d 2001-01-01 /workspace/c/d"}), "hi\n"),
        ("glob", json!({"pattern": "c/*"}), "c/d\n"),
        ("grep", json!({"pattern": "^[0-9]"}), "a.txt:1:1\na.txt:2:2\n"),
        ("write", json!({"file_path": "/tmp/note", "content": "x"}), "created /tmp/note (1 line)"),
        ("bash", json!({"command": "cat /tmp/note"}), "x"),
        ("bash", json!({"command": "rm -r /tmp/adjutant-shell-* && echo clean"}), "clean\n"),
        ("bash", json!({"command": "echo $X"}), "1\n"),
    ];
    for (index, (tool, input, expected)) in calls.into_iter().enumerate() {
        let outcome = stage.call(&format!("e{index}"), tool, input.clone()).await;
        assert_eq!((outcome.text.as_str(), outcome.is_error), (expected, false), "{tool} {input}");
    }
    assert_eq!(fs::read_to_string(stage.host("a.txt")).expect("a file"), "1\n2\n");
    assert_eq!(fs::read_to_string(stage.host("c/d")).expect("a file"), "new\n");
    assert!(!Path::new("/tmp/note").exists());

    // What the tools refuse, the kernel refuses too; and what a call cannot mean is answered.
    let secret = stage.folder.path().join("secret");
    for (index, (tool, input)) in [
        ("read", json!({"file_path": secret})),
        ("write", json!({"file_path": ".git/hooks/pre-commit", "content": "x"})),
        ("bash", json!({"command": format!("cat {}", secret.display())})),
        ("bash", json!({"command": "mkdir -p .git/hooks && echo x > .git/hooks/pre-commit", "restart": true})),
        ("launch", json!({})),
    ]
    .into_iter()
    .enumerate()
    {
        let outcome = stage.call(&format!("bad{index}"), tool, input.clone()).await;
        assert!(outcome.is_error && !outcome.text.contains("canary"), "{tool} {input}: {outcome:?}");
    }
    assert!(!stage.host(".git/hooks").exists());
    let reply = stage.supervisor.call("garbage", b"{}".to_vec()).await.expect("a reply");
    let outcome: ToolOutcome = serde_json::from_slice(&reply).expect("an outcome");
    assert!(outcome.is_error && outcome.text.contains("missing field"), "{outcome:?}");
    stage.supervisor.stop().await.expect("an end");
}

#[tokio::test]
async fn calls_run_side_by_side_and_are_cancelled_one_by_one() {
    let stage = stage(Mode::WorkspaceWrite).await;
    let long = json!({"command": "setsid -f sleep 300; touch started; sleep 300"});
    let queued = json!({"command": "touch queued"});
    let started = Instant::now();
    let others = async {
        while !stage.host("started").exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let outcome = stage.call("read", "read", json!({"file_path": "a.txt"})).await;
        assert!(!outcome.is_error);
        stage.supervisor.cancel("queued").await.expect("a cancellation");
        stage.supervisor.cancel("long").await.expect("a cancellation");
    };
    let in_order = async {
        while !stage.host("started").exists() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        stage.call("queued", "bash", queued).await
    };
    let (long, queued, ()) = tokio::join!(stage.call("long", "bash", long), in_order, others);
    assert!(long.is_error && long.text.contains("[cancelled, and killed"), "{long:?}");
    assert!(queued.is_error && queued.text.contains("cancelled before it started"), "{queued:?}");
    assert!(!stage.host("queued").exists());
    // Nothing is left of what was cancelled: this shell, the count itself, and no sleepers.
    let outcome = stage.call("after", "bash", json!({"command": "cat /proc/[0-9]*/comm | grep -c sleep"})).await;
    assert_eq!(outcome.text, "0\n[exit code 1]");
    assert!(started.elapsed() < Duration::from_secs(20));
    stage.supervisor.stop().await.expect("an end");
}

#[tokio::test]
async fn a_read_only_workspace_is_refused_in_words() {
    let stage = stage(Mode::ReadOnly).await;
    let outcome = stage.call("read", "read", json!({"file_path": "a.txt"})).await;
    assert!(!outcome.is_error, "{outcome:?}");
    let write = stage.call("write", "write", json!({"file_path": "b", "content": "x"})).await;
    let text = "b cannot be written: this part of the file system is read-only in this session";
    assert_eq!((write.text.as_str(), write.is_error), (text, true));
    let bash =
        stage.call("bash", "bash", json!({"command": "cat a.txt; echo x > /tmp/x && cat /tmp/x; touch b"})).await;
    assert!(bash.text.starts_with("one\ntwo\nx\ntouch: "), "{bash:?}");
    assert!(!stage.host("b").exists());
    stage.supervisor.stop().await.expect("an end");
}

#[tokio::test]
async fn a_call_through_the_sandbox_costs_little() {
    let stage = stage(Mode::WorkspaceWrite).await;
    let mut times = Vec::new();
    for index in 0..51 {
        let started = Instant::now();
        let outcome = stage.call(&format!("e{index}"), "bash", json!({"command": "true"})).await;
        assert_eq!(outcome.exit_code, Some(0), "{outcome:?}");
        times.push(started.elapsed());
    }
    times.sort();
    assert!(times[25] < Duration::from_millis(50), "{:?}", times[25]);
    stage.supervisor.stop().await.expect("an end");
}

#[tokio::test]
async fn a_command_that_was_ended_by_a_limit_says_so() {
    let stage = limited_stage(Mode::WorkspaceWrite, |plan| plan.limits.memory_bytes = 150 << 20).await;
    // Each of the two is within what one process may have; together they are not.
    let one = "perl -e '$x = \"x\" x 90e6; sleep 20' &";
    let hog = json!({"command": format!("{one} {one} wait -n; echo code $?; kill %1 %2; wait; false")});
    let outcome = stage.call("hog", "bash", hog).await;
    let note = "[processes were ended by the sandbox: it held more memory than the limit memory=150MiB]";
    assert!(outcome.text.contains("code 137\n") && outcome.text.ends_with(note), "{outcome:?}");
    let fine = stage.call("fine", "bash", json!({"command": "false"})).await;
    assert_eq!(fine.text, "[exit code 1]", "{fine:?}");
    stage.supervisor.stop().await.expect("an end");
}
