//! Making workspaces: what an agent sees, again and at the same time.

use std::fs;

use adj_workspace::{Layout, PrepareError};

use crate::world::{World, agent, git_in, name, open, tree};

#[tokio::test]
async fn an_agent_sees_a_clean_checkout_with_history() {
    let world = World::new().await;
    world.write("README", "hello again\n");
    world.commit("second");
    let workspace = world.prepare("one").await;
    let script = "git status --porcelain; git log --format=%s; git branch --show-current; cat README src/deep/er/file; \
                  ./run.sh; readlink link; git fsck --no-dangling 2>&1";
    assert_eq!(agent(&workspace, script).await, "second\nfirst\nwork\nhello again\ndeep\nrun\nREADME");
}

#[tokio::test]
async fn nothing_is_hashed_again_by_the_first_status() {
    let world = World::new().await;
    let workspace = world.prepare("one").await;
    // `diff-files` does not refresh: it names every file whose recorded owner, number or time is not what is seen.
    assert_eq!(agent(&workspace, "git diff-files --name-only").await, "");
}

#[tokio::test]
async fn every_layout_shows_the_same_tree() {
    for layout in [Layout::Overlay, Layout::Copy, Layout::Unconfined] {
        let world = World::with_layout(layout).await;
        let workspace = world.prepare("one").await;
        assert_eq!(
            agent(&workspace, "git status --porcelain; ls; cat README").await,
            "README\nlink\nrun.sh\nsrc\nhello"
        );
        agent(&workspace, "echo new > new; rm README").await;
        assert_eq!(agent(&workspace, "git status --porcelain").await, " D README\n?? new", "{layout:?}");
        assert!(world.repo.join("README").exists() && !world.repo.join("new").exists());
    }
}

#[tokio::test]
async fn an_agent_commits_in_every_layout_and_the_user_sees_nothing_of_it() {
    for layout in [Layout::Overlay, Layout::Copy, Layout::Unconfined] {
        let world = World::with_layout(layout).await;
        let workspace = world.prepare("one").await;
        let before = tree(&world.repo);
        let script = "mkdir .vscode; echo {} > .vscode/settings.json; echo new > new; git add -A; git commit -qm mine; \
                      git branch other; git checkout -q other; echo more >> new; git stash -q; git stash pop -q; \
                      git log --format=%s | head -1; git status --porcelain; git config user.name";
        // The hooks that it makes are its own, too.
        let hook = "mkdir -p .git/hooks; printf '#!/bin/sh\necho hooked\n' > .git/hooks/pre-commit; chmod +x .git/hooks/pre-commit; git commit -qam two";
        assert!(agent(&workspace, script).await.starts_with("mine\n M new"), "{layout:?}");
        let committed = agent(&workspace, &format!("{hook} 2>&1; git log --oneline | wc -l")).await;
        assert_eq!(committed, "hooked\n3", "{layout:?}");
        assert!(tree(&world.repo) == before, "{layout:?}");
    }
}

#[tokio::test]
async fn asking_twice_gives_the_same_workspace_and_another_base_is_refused() {
    let world = World::new().await;
    let repository = world.repository().await;
    let first = world.prepare("one").await;
    agent(&first, "echo mine > mine").await;
    let again = world.prepare("one").await;
    assert_eq!(first, again);
    assert_eq!(agent(&again, "cat mine").await, "mine");
    let second = world.commit("second");
    let refused = world.workspaces.prepare(&repository, &second, &name("one")).await;
    assert!(matches!(refused, Err(PrepareError::OtherCommit { .. })), "{refused:?}");
    let other = world.home.path().join("other");
    git_in(world.home.path(), world.home.path(), &["clone", "-q", "project", "other"]);
    let other = world.workspaces.repository(&other).await.expect("a clone");
    let refused = world.workspaces.prepare(&other, &second, &name("one")).await;
    assert!(matches!(refused, Err(PrepareError::OtherRepository { .. })), "{refused:?}");
    let unknown = "1".repeat(40).parse().expect("an id");
    assert!(world.workspaces.prepare(&repository, &unknown, &name("two")).await.is_err());
    let names: Vec<String> = world
        .workspaces
        .list()
        .expect("a list")
        .into_iter()
        .map(|found| found.expect("good").name().to_string())
        .collect();
    assert_eq!(names, ["one"]);
    assert_eq!(world.workspaces.existing(&name("one")).expect("there"), first);
    assert!(world.workspaces.existing(&name("two")).is_err());
}

#[tokio::test]
async fn many_at_once_share_one_tree() {
    let world = World::new().await;
    let repository = world.repository().await;
    let head = world.head();
    // Each has its own doors, as if it were a process of its own: the locks are between open files.
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..8 {
        let workspaces = open(world.home.path(), Layout::Overlay).await;
        let (repository, head) = (repository.clone(), head.clone());
        tasks.spawn(async move {
            let text = format!("w{}", number / 2);
            workspaces.prepare(&repository, &head, &name(&text)).await.expect("prepared")
        });
    }
    let found = tasks.join_all().await;
    assert_eq!(found.len(), 8);
    assert_eq!(world.workspaces.list().expect("a list").len(), 4);
    let trees = world.home.path().join("state/trees");
    let trees = fs::read_dir(trees).expect("readable").next().expect("one repository").expect("readable");
    assert_eq!(fs::read_dir(trees.path()).expect("readable").count(), 1);
    assert_eq!(fs::read_dir(world.home.path().join("state/scratch")).expect("readable").count(), 0);
}

#[tokio::test]
async fn the_shared_tree_is_never_written_to() {
    let world = World::new().await;
    let workspace = world.prepare("one").await;
    let trees = world.home.path().join("state/trees");
    let before = tree(&trees);
    agent(
        &workspace,
        "echo x >> README; chmod +x README; git add -A; git commit -qm x; git gc -q; rm -rf src; git status -s",
    )
    .await;
    world.workspaces.snapshot(&workspace, "m", &crate::world::authorship()).await.expect("a snapshot");
    assert!(before == tree(&trees));
}
