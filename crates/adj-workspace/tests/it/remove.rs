//! Removal keeps every byte, can be killed anywhere, and says where things are.

use std::fs;

use adj_workspace::{Layout, RemoveError, Swept};

use crate::world::{World, agent, authorship, git_in, name, open};

#[tokio::test]
async fn every_byte_is_still_reachable() {
    let world = World::new().await;
    let workspace = world.prepare("one").await;
    let script = "echo new > untracked; echo secret > ignored; mkdir -p empty/folder; echo staged > staged; git add staged; echo later > staged
                  echo committed > committed; git add committed; git commit -qm 'my commit'; git checkout -q --detach; git commit -q --allow-empty -m detached; git checkout -q work
                  echo stashed > stashed; git add stashed; git stash -q; echo again > stashed2; git add stashed2; git stash -q
                  git checkout -q -b topic; echo topic > topic; git add topic; git commit -qm 'on a branch'; git checkout -q work; git tag mine topic; echo dirty >> README
                  git init -q nested; cd nested; git config user.name a; git config user.email a; echo inner > inner; git add inner; git commit -qm 'inner commit'; rm inner
                  mkdir ../.GIT; echo odd > ../.GIT/odd; ln -s /etc/hostname ../pointer; chmod 700 ../untracked";
    agent(&workspace, script).await;
    let removed = world.workspaces.remove(&name("one"), &authorship()).await.expect("removed");
    assert!(!world.home.path().join("state/workspaces/one").exists());
    let commit = removed.commit.as_str();
    assert_eq!(world.store(&["rev-parse", removed.reference.as_deref().expect("a ref")]).await, commit);
    let files = [
        ("README", "hello\ndirty"),
        ("untracked", "new"),
        ("ignored", "secret"),
        ("committed", "committed"),
        ("pointer", "/etc/hostname"),
    ];
    for (path, content) in files {
        assert_eq!(world.store(&["cat-file", "blob", &format!("{commit}:files/{path}")]).await, content, "{path}");
    }
    // The agent's commits are parents, so their history is there too.
    let history = world.store(&["log", "--format=%s", commit]).await;
    for subject in ["my commit", "detached", "on a branch", "WIP on work", "index on work"] {
        assert!(history.contains(subject), "{subject} in {history}");
    }
    assert_eq!(history.matches("WIP on work").count(), 2, "both stashes: {history}");
    // What git cannot hold is in the tar: unpacked, the git folders are as they were.
    let out = world.home.path().join("out");
    fs::create_dir(&out).expect("made");
    let script = format!(
        "git --git-dir={} cat-file blob {commit}:rest.tar | tar -x -C {}",
        removed.store.display(),
        out.display()
    );
    assert!(std::process::Command::new("sh").args(["-c", &script]).status().expect("runs").success());
    assert_eq!(git_in(world.home.path(), &out.join("nested"), &["show", "HEAD:inner"]), "inner");
    assert_eq!(git_in(world.home.path(), &out, &["stash", "list"]).lines().count(), 2);
    assert_eq!(git_in(world.home.path(), &out, &["tag"]), "mine");
    assert_eq!(fs::read_to_string(out.join(".GIT/odd")).expect("there"), "odd\n");
    assert!(out.join("empty/folder").is_dir());
    world.store(&["fsck", "--strict", "--no-dangling"]).await;
}

#[tokio::test]
async fn copies_are_saved_too() {
    for layout in [Layout::Copy, Layout::Unconfined] {
        let world = World::with_layout(layout).await;
        let workspace = world.prepare("one").await;
        agent(&workspace, "echo mine > ignored; mkdir closed; chmod 0 closed").await;
        let removed = world.workspaces.remove(&name("one"), &authorship()).await.expect("removed");
        assert!(!world.home.path().join("state/workspaces/one").exists());
        let content = world.store(&["cat-file", "blob", &format!("{}:files/ignored", removed.commit)]).await;
        assert_eq!(content, "mine", "{layout:?}");
    }
}

#[tokio::test]
async fn removing_again_gives_the_same_answer() {
    let world = World::new().await;
    let workspace = world.prepare("one").await;
    agent(&workspace, "echo x > x").await;
    let first = world.workspaces.remove(&name("one"), &authorship()).await.expect("removed");
    let again = world.workspaces.remove(&name("one"), &authorship()).await.expect("the same");
    assert_eq!(first, again);
    let missing = world.workspaces.remove(&name("two"), &authorship()).await;
    assert!(matches!(missing, Err(RemoveError::Find(_))), "{missing:?}");
    // The name is free again.
    let workspace = world.prepare("one").await;
    assert_eq!(agent(&workspace, "git status --porcelain").await, "");
}

#[tokio::test]
async fn what_is_unchanged_or_disposable_goes_without_a_snapshot() {
    let world = World::new().await;
    let repository = world.repository().await;
    world.prepare("untouched").await;
    let removed = world.workspaces.remove(&name("untouched"), &authorship()).await.expect("removed");
    assert_eq!((&removed.commit, removed.reference), (&world.head(), None));
    let check = world.workspaces.prepare_check(&repository, &world.head(), &name("check")).await.expect("prepared");
    agent(&check, "echo product > product").await;
    let removed = world.workspaces.remove(&name("check"), &authorship()).await.expect("removed");
    assert_eq!((&removed.commit, removed.reference), (&world.head(), None));
}

#[tokio::test]
async fn what_cannot_be_saved_stays() {
    let mut world = World::new().await;
    world.workspaces = world.workspaces.clone().with_snapshot_limit(1 << 20);
    let workspace = world.prepare("one").await;
    agent(&workspace, "head -c 3000000 /dev/urandom > ignored").await;
    let refused = world.workspaces.remove(&name("one"), &authorship()).await;
    assert!(matches!(refused, Err(RemoveError::Snapshot { .. })), "{refused:?}");
    assert_eq!(agent(&workspace, "wc -c < ignored").await, "3000000");
}

#[tokio::test]
async fn leftovers_of_a_crash_are_swept() {
    let world = World::new().await;
    let workspace = world.prepare("kept").await;
    agent(&workspace, "echo x > x").await;
    let state = world.home.path().join("state");
    fs::create_dir_all(state.join("trash/1-dead/upper/folder")).expect("made");
    fs::write(state.join("trash/1-dead/upper/folder/file"), "x").expect("written");
    // Process numbers end far below this one, so nobody has it.
    fs::create_dir_all(state.join("scratch/999999999-dead/out")).expect("made");
    fs::create_dir_all(state.join(format!("scratch/{}-mine", std::process::id()))).expect("made");
    let again = open(world.home.path(), Layout::Overlay).await;
    assert_eq!(again.sweep().await.expect("swept"), Swept { trash: 1, scratch: 1 });
    assert_eq!(again.sweep().await.expect("swept"), Swept { trash: 0, scratch: 0 });
    assert_eq!(agent(&workspace, "cat x").await, "x");
}

#[tokio::test]
async fn trees_in_use_are_not_pruned() {
    let world = World::new().await;
    let repository = world.repository().await;
    let used = world.prepare("used").await;
    for number in 0..3 {
        world.commit(&format!("commit {number}"));
        let text = format!("w{number}");
        world.prepare(&text).await;
        world.workspaces.remove(&name(&text), &authorship()).await.expect("removed");
    }
    assert_eq!(world.workspaces.prune_trees(&repository.id, 1).await.expect("pruned"), 2);
    assert_eq!(world.workspaces.prune_trees(&repository.id, 1).await.expect("pruned"), 0);
    assert_eq!(agent(&used, "git status --porcelain; cat README").await, "hello");
}
