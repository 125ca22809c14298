//! Names that are protected although they do not exist yet.

use std::fs;
use std::sync::Arc;

use adj_sandbox::Mode;

use crate::stage::{Stage, text};

fn names(stage: &Stage) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(&stage.workspace)
        .expect("the workspace")
        .flatten()
        .map(|entry| entry.file_name().into_string().expect("plain"))
        .collect();
    names.sort();
    names
}

fn without_repository() -> Stage {
    let stage = Stage::new();
    fs::remove_dir_all(stage.workspace.join(".git")).expect("a folder");
    stage
}

#[tokio::test]
async fn a_missing_repository_cannot_be_planted_and_nothing_is_left() {
    let stage = without_repository();
    let script =
        "git init -q . 2>/dev/null || echo refused; mkdir -p .git/hooks || echo refused; rmdir .git || echo refused";
    let finished = stage.run(&stage.plan(), script).await;
    assert_eq!(text(&finished.stdout), "refused\nrefused\nrefused\n");
    assert_eq!(names(&stage), ["deep", "file.txt"], "no placeholder is left behind");
}

#[tokio::test]
async fn a_workspace_does_not_become_a_repository_itself() {
    let script = "(echo x > HEAD) 2>/dev/null || echo refused; rmdir HEAD 2>/dev/null || echo refused; \
                  mv HEAD h 2>/dev/null || echo refused";
    for is_broken in [false, true] {
        let stage = without_repository();
        if is_broken {
            fs::create_dir_all(stage.workspace.join(".git/objects")).expect("a folder");
        }
        let finished = stage.run(&stage.plan(), script).await;
        assert_eq!(text(&finished.stdout), "refused\nrefused\nrefused\n");
        assert!(!stage.workspace.join("HEAD").exists(), "no placeholder is left behind");
    }
    let stage = Stage::new();
    stage.run(&stage.plan(), "echo mine > HEAD").await;
    assert_eq!(fs::read_to_string(stage.workspace.join("HEAD")).expect("a file"), "mine\n", "nobody else's business");
}

#[tokio::test]
async fn placeholders_stay_as_long_as_anybody_needs_them() {
    let stage = Arc::new(without_repository());
    let slow = {
        let stage = Arc::clone(&stage);
        tokio::spawn(async move {
            let script = "touch slow-runs; for i in $(seq 60); do sleep 0.01; mkdir -p .git/hooks 2>/dev/null && echo planted; done";
            text(&stage.run(&stage.plan(), script).await.stdout)
        })
    };
    assert!(crate::stage::eventually(|| stage.workspace.join("slow-runs").exists()).await);
    let finished = stage.run(&stage.plan(), "ls -d .git").await;
    assert_eq!(text(&finished.stdout), ".git\n");
    assert_eq!(slow.await.expect("the slow one ends"), "");
    assert_eq!(names(&stage), ["deep", "file.txt", "slow-runs"]);
}

#[tokio::test]
async fn a_repository_that_is_a_link_is_refused() {
    let stage = without_repository();
    std::os::unix::fs::symlink(&stage.outside, stage.workspace.join(".git")).expect("a link");
    let command = adj_sandbox::Command::new(["true"]);
    let error = stage.launcher.run(&stage.plan(), &command).await.expect_err("a link cannot be covered");
    assert!(error.to_string().contains("protect"), "{error}");
    let mut plan = stage.plan();
    plan.mode = Mode::ReadOnly;
    assert!(stage.launcher.run(&plan, &command).await.is_ok(), "where nothing can be written nothing needs covering");
}

#[tokio::test]
async fn a_gitdir_file_is_protected_too() {
    let stage = without_repository();
    fs::write(stage.workspace.join(".git"), "gitdir: /elsewhere\n").expect("a file");
    stage.run(&stage.plan(), "echo x > .git; rm -f .git; mv .git g; echo 'gitdir: /tmp' > n; mv -f n .git").await;
    assert_eq!(fs::read_to_string(stage.workspace.join(".git")).expect("the file"), "gitdir: /elsewhere\n");
}

#[tokio::test]
async fn debuggers_reach_their_own_children_only() {
    let stage = Stage::new();
    let finished = stage.run(&stage.plan(), "$ATTACK ptrace; $ATTACK seize 1; $ATTACK seize $VICTIM").await;
    let lines = text(&finished.stdout)
        .lines()
        .map(|line| line.split(' ').next().expect("a word").to_owned())
        .collect::<Vec<_>>();
    assert_eq!(lines, ["tried", "BROKEN", "tried", "errno", "tried", "errno"], "{}", text(&finished.stdout));
}
