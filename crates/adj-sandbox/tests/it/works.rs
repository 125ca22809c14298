//! What must work inside: a sandbox that breaks ordinary tools is switched off by its users.

use std::fs;
use std::time::Duration;

use adj_sandbox::{Bind, Command, Exit, Layer, Mode, Mount, Plan, RunError, SetupError};

use crate::stage::{Stage, text};

#[tokio::test]
async fn ordinary_tools_work() {
    let cases = [
        ("a pipeline", "printf 'b\\na\\n' | sort | head -1", "a\n"),
        ("the workspace", "echo new > file2 && cat file.txt file2", "hello\nnew\n"),
        ("renames across folders", "mkdir d && mv file.txt d/ && cat d/file.txt", "hello\n"),
        ("/tmp", "f=$(mktemp) && echo x > $f && cat $f", "x\n"),
        ("/var/tmp", "echo x > /var/tmp/f && cat /tmp/f", "x\n"),
        ("the home", "echo x > ~/f && cat ~/f && echo $HOME", "x\n/home/agent\n"),
        ("shared memory", "echo x > /dev/shm/f && cat /dev/shm/f", "x\n"),
        ("devices", "head -c 4 /dev/zero | wc -c; echo x > /dev/null; head -c 8 /dev/urandom | wc -c", "4\n8\n"),
        ("who am I", "id -un; id -u; hostname", "agent\n1000\nsandbox\n"),
        ("here documents and substitution", "cat <<< $(echo hi); diff <(echo a) <(echo a) && echo same", "hi\nsame\n"),
        ("background jobs", "sleep 0.01 & wait $! && echo waited", "waited\n"),
        ("folder modes", "mkdir d && chmod 755 d && chmod +x file.txt && ls -ld d | cut -c1-10", "drwxr-xr-x\n"),
        ("pseudo-terminals", "script -qec 'echo in a terminal' /dev/null | tr -d '\\r'", "in a terminal\n"),
        (
            "loopback of its own",
            "perl -MIO::Socket -e '$l=IO::Socket::INET->new(Listen=>1,LocalAddr=>\"127.0.0.1\") or die; \
             $c=IO::Socket::INET->new(PeerAddr=>\"127.0.0.1:\".$l->sockport) or die; print \"linked\\n\"'",
            "linked\n",
        ),
        ("own processes", "ls /proc | grep -c '^1$'", "1\n"),
        ("git reads", "git status --short | head -1", "?? deep/\n"),
        (
            "git writes its own repository",
            "cd /tmp && git init -q r && cd r && echo x > f && git add f && \
             git -c user.name=a -c user.email=a@b commit -qm one && git log --format=%s && git stash list",
            "one\n",
        ),
    ];
    let mut wrong = Vec::new();
    for (name, script, expected) in cases {
        let stage = Stage::new();
        let finished = stage.run(&stage.plan(), script).await;
        if text(&finished.stdout) != expected || finished.exit != Exit::Code(0) {
            wrong.push((name, finished.exit, text(&finished.stdout), text(&finished.stderr)));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn exits_and_streams_are_told_apart() {
    let stage = Stage::new();
    let cases = [
        ("exit 7", Exit::Code(7), "", ""),
        ("kill -TERM $$", Exit::Signal(15), "", ""),
        ("echo out; echo err >&2", Exit::Code(0), "out\n", "err\n"),
        ("cat", Exit::Code(0), "fed", ""),
        ("sleep 0.1; (sleep 100 &) ; echo x", Exit::Code(0), "x\n", ""),
    ];
    for mode in [Mode::WorkspaceWrite, Mode::DangerFullAccess] {
        let mut plan = stage.plan();
        plan.mode = mode;
        for (script, exit, stdout, stderr) in cases {
            let mut command = Command::new(["sh", "-c", script]);
            command.stdin = b"fed".to_vec();
            let finished = stage.launcher.run(&plan, &command).await.expect("a sandbox");
            let found = (finished.exit, text(&finished.stdout), text(&finished.stderr));
            assert_eq!(found, (exit, stdout.to_owned(), stderr.to_owned()), "{mode}: {script}");
            assert!(finished.duration < Duration::from_secs(20), "{mode}: {script}");
        }
        let mut command = Command::new(["sh", "-c", "echo 1; echo 2 >&2; echo 3"]);
        command.merge_stderr = true;
        let finished = stage.launcher.run(&plan, &command).await.expect("a sandbox");
        assert_eq!(text(&finished.stdout), "1\n2\n3\n", "{mode}");
    }
}

#[tokio::test]
async fn read_only_means_the_workspace_is() {
    let stage = Stage::new();
    let mut plan = stage.plan();
    plan.mode = Mode::ReadOnly;
    let scratch = stage.outside.join("scratch");
    fs::create_dir(&scratch).expect("a folder");
    plan.binds.push(Bind { host: scratch.clone(), inside: "/scratch".into(), writable: true });
    let finished = stage
        .run(&plan, "cat file.txt; echo x > file.txt; echo x > new; rm file.txt; echo y > /scratch/f; echo z > /tmp/f")
        .await;
    assert_eq!(text(&finished.stdout), "hello\n");
    assert_eq!(fs::read_to_string(stage.workspace.join("file.txt")).expect("the file"), "hello\n");
    assert!(!stage.workspace.join("new").exists());
    assert_eq!(fs::read_to_string(scratch.join("f")).expect("the bind is writable"), "y\n");
}

#[tokio::test]
async fn binds_show_files_where_asked() {
    let stage = Stage::new();
    let mut plan = stage.plan();
    let bind = |inside: &str, writable| Bind { host: stage.outside.clone(), inside: inside.into(), writable };
    plan.binds.extend([bind("/opt/tool", false), bind("/home/agent/.tool", false), bind("/data/deep/down", true)]);
    plan.binds.push(Bind { host: stage.outside.join("file"), inside: "/etc/tool.conf".into(), writable: false });
    let script = "cat /opt/tool/file /home/agent/.tool/file /etc/tool.conf; echo; \
                  touch /opt/tool/x /home/agent/.tool/x 2>/dev/null; echo w > /data/deep/down/w; ls /opt/tool";
    let finished = stage.run(&plan, script).await;
    assert_eq!(
        text(&finished.stdout),
        "as it wasas it wasas it was\ndatagrams\nfile\nsecret\nsock\nw\n",
        "{}",
        text(&finished.stderr)
    );
}

#[tokio::test]
async fn mistakes_have_names() {
    let stage = Stage::new();
    let launcher = &stage.launcher;
    let command = Command::new(["true"]);

    let mut plan = stage.plan();
    plan.cwd = "/nowhere".into();
    let error = launcher.run(&plan, &command).await.expect_err("no such folder");
    assert!(error.to_string().contains("/nowhere"), "{error}");

    let error = launcher.run(&stage.plan(), &Command::new(["no-such-program"])).await.expect_err("no such program");
    assert!(
        matches!(&error, RunError::CannotStart { source, .. } if source.raw_os_error() == Some(libc::ENOENT)),
        "{error:?}"
    );
    let error = launcher.run(&stage.plan(), &Command::new(["./file.txt"])).await.expect_err("not executable");
    assert!(
        matches!(&error, RunError::CannotStart { source, .. } if source.raw_os_error() == Some(libc::EACCES)),
        "{error:?}"
    );
    let nothing: [&str; 0] = [];
    assert!(matches!(launcher.run(&stage.plan(), &Command::new(nothing)).await, Err(RunError::NoCommand)));

    let mut plan = stage.plan();
    plan.binds.push(Bind { host: stage.outside.join("none"), inside: "/opt/none".into(), writable: false });
    let error = launcher.run(&plan, &command).await.expect_err("no such bind");
    assert!(matches!(&error, RunError::Setup(SetupError { layer: Layer::Mounts, .. })), "{error:?}");

    // A mount point is never created in a tree of the host.
    let mut plan = stage.plan();
    let inside = stage.workspace.join("not/there");
    plan.binds.push(Bind { host: stage.outside.clone(), inside, writable: false });
    assert!(launcher.run(&plan, &command).await.is_err());
    assert!(!stage.workspace.join("not").exists());

    // Nor is anything of the host reached through a link that an earlier command left behind.
    std::os::unix::fs::symlink(&stage.outside, stage.workspace.join("link")).expect("a link");
    let mut plan = stage.plan();
    plan.workspace = Mount::Direct { host: stage.workspace.join("link"), inside: "/workspace".into() };
    plan.cwd = "/workspace".into();
    assert!(launcher.run(&plan, &command).await.is_err());
}

#[tokio::test]
async fn programs_are_never_looked_up_in_the_workspace() {
    let stage = Stage::new();
    fs::copy("/bin/echo", stage.workspace.join("planted")).expect("a copy");
    let mut plan = stage.plan();
    plan.env.insert("PATH".into(), ".::relative:/usr/bin:/bin".into());
    assert!(stage.launcher.run(&plan, &Command::new(["planted"])).await.is_err());
    assert!(stage.launcher.run(&plan, &Command::new(["true"])).await.is_ok());
}

#[tokio::test]
async fn the_probe_builds_a_real_sandbox() {
    let stage = Stage::new();
    let found = stage.launcher.probe(&stage.outside).await.expect("this machine has what it takes");
    assert!(found.landlock_abi >= 3);
    assert_eq!(found.limits, adj_sandbox::limit_mechanism().text());
    let left: Vec<_> =
        fs::read_dir(&stage.outside).expect("a folder").flatten().map(|entry| entry.file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with("probe")), "{left:?}");
}

#[tokio::test]
async fn many_at_once_do_not_disturb_each_other() {
    let stage = std::sync::Arc::new(Stage::new());
    let mut all = tokio::task::JoinSet::new();
    for number in 0..50 {
        let stage = std::sync::Arc::clone(&stage);
        all.spawn(async move {
            let finished = stage.run(&Plan::new(Mode::WorkspaceWrite), &format!("echo {number}")).await;
            assert_eq!(text(&finished.stdout), format!("{number}\n"));
        });
    }
    assert_eq!(all.join_all().await.len(), 50);
}
