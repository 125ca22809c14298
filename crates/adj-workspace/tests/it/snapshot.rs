//! Bringing work out: what is in it, what is not, and that asking again changes nothing.

use std::path::PathBuf;

use adj_workspace::{Change, ChangedPath, Layout, SnapshotError};

use crate::world::{World, agent, authorship, paths};

#[tokio::test]
async fn a_snapshot_is_what_a_person_would_commit() {
    for layout in [Layout::Overlay, Layout::Copy, Layout::Unconfined] {
        let world = World::with_layout(layout).await;
        let workspace = world.prepare("one").await;
        let script = "echo four >> src/main.txt; rm src/deep/er/file; echo new > 'a new file'; mkdir -p x/y; echo z > x/y/z; chmod +x x/y/z
                      echo no > ignored; echo no > some.log; ln -s /etc/passwd outside; ln -sf nowhere link; head -c 100 /dev/zero > zeros; mkdir empty";
        agent(&workspace, script).await;
        let snapshot = world.workspaces.snapshot(&workspace, "Work\n\nwith words", &authorship()).await.expect("works");
        let changed = |path: &str, change, lines| ChangedPath { path: PathBuf::from(path), change, lines };
        let expected = [
            changed("a new file", Change::Added, Some((1, 0))),
            changed("link", Change::Modified, Some((1, 1))),
            changed("outside", Change::Added, Some((1, 0))),
            changed("src/deep/er/file", Change::Deleted, Some((0, 1))),
            changed("src/main.txt", Change::Modified, Some((1, 0))),
            changed("x/y/z", Change::Added, Some((1, 0))),
            changed("zeros", Change::Added, None),
        ];
        assert_eq!(snapshot.changed, expected, "{layout:?}");
        assert_eq!(snapshot.skipped, [] as [PathBuf; 0]);
        let commit = snapshot.commit.as_str();
        assert_eq!(world.store(&["cat-file", "-p", &format!("{commit}:outside")]).await, "/etc/passwd");
        assert!(world.store(&["ls-tree", commit, "x/y/z"]).await.starts_with("100755 "));
        let words = world.store(&["log", "-1", "--format=%an|%ae|%at|%cn|%ct|%P|%B", commit]).await;
        let base = workspace.base();
        let expected =
            format!("builder|builder@adjutant.invalid|1700000000|Adjutant|1700000000|{base}|Work\n\nwith words");
        assert_eq!(words.trim_end(), expected);
        assert_eq!(world.store(&["rev-parse", &snapshot.reference]).await, commit);
        world.store(&["fsck", "--strict", "--no-dangling"]).await;
    }
}

#[tokio::test]
async fn the_same_state_gives_the_same_commit_and_no_change_gives_the_base() {
    let world = World::new().await;
    let workspace = world.prepare("one").await;
    let take = async || world.workspaces.snapshot(&workspace, "m", &authorship()).await.expect("works");
    let nothing = take().await;
    assert_eq!((&nothing.commit, nothing.changed.len()), (workspace.base(), 0));
    agent(&workspace, "echo x > x; touch README; git add x; git commit -qm mine").await;
    let first = take().await;
    assert_ne!(&first.commit, workspace.base());
    assert_eq!(take().await, first);
    agent(&workspace, "echo y > y").await;
    let second = take().await;
    assert_eq!(second.changed.len(), 2);
    agent(&workspace, "rm x y").await;
    assert_eq!(take().await.commit, *workspace.base());
    // Earlier results are still there under their own names.
    assert_eq!(world.store(&["rev-parse", &first.reference]).await, first.commit.as_str());
    assert_eq!(world.store(&["rev-parse", &second.reference]).await, second.commit.as_str());
}

#[tokio::test]
async fn an_edit_that_hides_behind_its_old_time_and_size_is_seen() {
    let world = World::new().await;
    let workspace = world.prepare("one").await;
    agent(&workspace, "touch -r README stamp; printf 'HELLO\\n' > README; touch -r stamp README; rm stamp").await;
    let snapshot = world.workspaces.snapshot(&workspace, "m", &authorship()).await.expect("works");
    assert_eq!(snapshot.changed.len(), 1);
}

#[tokio::test]
async fn nested_repositories_come_out_as_plain_files() {
    let world = World::new().await;
    let workspace = world.prepare("one").await;
    let script = "git init -q nested; echo n > nested/n; printf 'skip\\n' > nested/.gitignore; echo s > nested/skip
                  mkdir -p deep/er; git init -q deep/er/repo; (cd deep/er/repo; git config user.name a; git config user.email a; echo c > c; git add c; git commit -qm c)
                  git clone -q . cloned
                  rm README; mkdir README; (cd README; git init -q; git config user.name a; git config user.email a; echo f > f; git add f; git commit -qm f)
                  mkdir src/.git; echo x > src/.git/x";
    agent(&workspace, script).await;
    let snapshot = world.workspaces.snapshot(&workspace, "m", &authorship()).await.expect("works");
    let found = paths(&world, snapshot.commit.as_str()).await;
    for path in ["nested/n", "nested/.gitignore", "deep/er/repo/c", "cloned/README", "README/f", "src/main.txt"] {
        assert!(found.iter().any(|found| found == path), "{path} in {found:?}");
    }
    assert!(!found.iter().any(|path| path.contains(".git/") || path == "nested/skip"), "{found:?}");
    assert!(!world.store(&["ls-tree", "-r", snapshot.commit.as_str()]).await.contains("160000"));
}

#[tokio::test]
async fn a_submodule_stays_at_the_commit_of_the_base() {
    let world = World::new().await;
    let id = world.head();
    world.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{id},module")]);
    world.git(&["commit", "-qm", "with a submodule"]);
    let workspace = world.prepare("one").await;
    agent(&workspace, "cd module; git init -q; git config user.name a; git config user.email a; echo f > f; git add f; git commit -qm f").await;
    agent(&workspace, "echo x > x").await;
    let snapshot = world.workspaces.snapshot(&workspace, "m", &authorship()).await.expect("works");
    assert_eq!(snapshot.changed.len(), 1, "{:?}", snapshot.changed);
    assert!(
        world.store(&["ls-tree", snapshot.commit.as_str(), "module"]).await.starts_with(&format!("160000 commit {id}"))
    );
}

#[tokio::test]
async fn too_much_is_an_error_that_says_so() {
    let mut world = World::new().await;
    world.workspaces = world.workspaces.clone().with_snapshot_limit(1 << 20);
    let workspace = world.prepare("one").await;
    agent(&workspace, "head -c 2000000 /dev/urandom > ignored").await;
    world.workspaces.snapshot(&workspace, "m", &authorship()).await.expect("ignored files do not count");
    agent(&workspace, "mv ignored big").await;
    let refused = world.workspaces.snapshot(&workspace, "m", &authorship()).await.expect_err("too large");
    let source = std::error::Error::source(&refused).expect("a source").to_string();
    assert!(matches!(refused, SnapshotError::Gather { .. }));
    assert_eq!(source, "the changed files have 2000000 bytes, more than the 1048576 allowed");
}

#[tokio::test]
async fn big_files_and_unreadable_ones_come_out() {
    let world = World::new().await;
    let workspace = world.prepare("one").await;
    let script = "head -c 30000000 /dev/urandom > big; mkdir closed; echo in > closed/in; chmod 0 closed; echo s > secret; chmod 0 secret README";
    agent(&workspace, script).await;
    let sum = agent(&workspace, "sha256sum < big").await;
    let snapshot = world.workspaces.snapshot(&workspace, "m", &authorship()).await.expect("works");
    let names: Vec<String> = snapshot.changed.iter().map(|changed| changed.path.display().to_string()).collect();
    assert_eq!(names, ["big", "closed/in", "secret"]);
    let script =
        format!("git --git-dir={} cat-file blob {}:big | sha256sum", workspace_store(&world).await, snapshot.commit);
    let output = std::process::Command::new("sh").args(["-c", &script]).output().expect("runs");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), sum);
}

async fn workspace_store(world: &World) -> String {
    world.workspaces.store_path(&world.repository().await).display().to_string()
}
