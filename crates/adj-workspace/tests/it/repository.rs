//! The user's repository: found or refused with a reason, asked questions, its uncommitted work kept.

use std::fs;

use adj_workspace::{DirtySnapshotError, Layout, OpenRepositoryError};

use crate::world::{World, agent, authorship, git_in, name, open, tree, try_git};

#[tokio::test]
async fn what_cannot_be_worked_on_is_refused_with_its_reason() {
    let world = World::new().await;
    let home = world.home.path();
    let git = |arguments: &[&str]| git_in(home, home, arguments);
    let origin = format!("file://{}", world.repo.display());
    world.commit("second");
    git(&["init", "-q", "--bare", "bare.git"]);
    git(&["init", "-q", "unborn"]);
    git(&["clone", "-q", "--depth=1", &origin, "shallow"]);
    world.git(&["config", "uploadpack.allowFilter", "true"]);
    git(&["clone", "-q", "--filter=blob:none", &origin, "partial"]);
    fs::create_dir(home.join("plain")).expect("made");
    use OpenRepositoryError as E;
    type Check = fn(&OpenRepositoryError) -> bool;
    let cases: [(&str, Check); 7] = [
        ("missing", |error| matches!(error, E::Folder { .. })),
        ("plain", |error| matches!(error, E::NotARepository { .. })),
        ("bare.git", |error| matches!(error, E::NoWorkTree { .. })),
        ("project/.git", |error| matches!(error, E::NoWorkTree { .. })),
        ("unborn", |error| matches!(error, E::NoCommit { .. })),
        ("shallow", |error| matches!(error, E::Shallow { .. })),
        ("partial", |error| matches!(error, E::Partial { .. })),
    ];
    for (folder, is_expected) in cases {
        let error = world.workspaces.repository(&home.join(folder)).await.expect_err(folder);
        assert!(is_expected(&error), "{folder}: {error:?}");
    }
    let found = world.workspaces.repository(&world.repo.join("src/deep")).await.expect("a folder inside");
    assert_eq!(found.root, world.repo.canonicalize().expect("there"));
}

#[tokio::test]
async fn linked_trees_borrowed_objects_and_long_ids_work() {
    let world = World::new().await;
    let home = world.home.path();
    world.git(&["worktree", "add", "-q", "../linked", "-b", "linked"]);
    git_in(home, home, &["clone", "-q", "--shared", "project", "shared"]);
    git_in(home, home, &["init", "-q", "--object-format=sha256", "-b", "main", "long"]);
    fs::write(home.join("long/file"), "x").expect("written");
    git_in(home, &home.join("long"), &["add", "-A"]);
    git_in(home, &home.join("long"), &["commit", "-qm", "first"]);
    git_in(home, home, &["clone", "-q", "project", "odd \"name\n"]);
    for (number, folder) in ["linked", "shared", "long", "odd \"name\n"].into_iter().enumerate() {
        let repository = world.workspaces.repository(&home.join(folder)).await.expect(folder);
        let head = repository.head().await.expect("a head");
        let text = name(&format!("w{number}"));
        let workspace = world.workspaces.prepare(&repository, &head.commit, &text).await.expect(folder);
        let branch = head.branch.expect("a branch");
        agent(&workspace, "git log --oneline | wc -l; echo new > new; git add new; git commit -qm new").await;
        let snapshot = world.workspaces.snapshot(&workspace, "m", &authorship()).await.expect(folder);
        let landed = world.workspaces.land(&repository, &branch, &head.commit, &snapshot.commit).await.expect(folder);
        assert_eq!(landed.work_tree.as_ref(), Some(&repository.root));
        assert_eq!(fs::read(repository.root.join("new")).expect(folder), b"new\n");
        assert!(repository.dirtiness().await.expect("a status").is_clean(), "{folder}");
    }
    let id = world.repository().await.id;
    assert_eq!(world.workspaces.repository(&home.join("linked")).await.expect("linked").id, id);
}

#[tokio::test]
async fn head_and_dirtiness_say_what_is() {
    let world = World::new().await;
    let repository = world.repository().await;
    assert!(repository.dirtiness().await.expect("a status").is_clean());
    let head = repository.head().await.expect("a head");
    assert_eq!((head.branch.as_deref(), &head.commit), (Some("main"), &world.head()));
    assert_eq!(repository.resolve("main~0").await.expect("asked"), Some(world.head()));
    for unknown in ["nothing", "--all", "main^{tree}", ""] {
        assert_eq!(repository.resolve(unknown).await.expect("asked"), None, "{unknown:?}");
    }
    world.write("README", "changed\n");
    world.write("staged", "x");
    world.git(&["add", "staged"]);
    world.write("new/file", "x");
    world.write("ignored", "x");
    let dirtiness = repository.dirtiness().await.expect("a status");
    let lists = [&dirtiness.staged, &dirtiness.unstaged, &dirtiness.untracked, &dirtiness.conflicted];
    let found: Vec<String> = lists.iter().flat_map(|list| &list.first).map(|path| path.display().to_string()).collect();
    assert_eq!(found, ["staged", "README", "new/"]);
    world.git(&["checkout", "-q", "--detach"]);
    assert_eq!(repository.head().await.expect("a head").branch, None);
}

#[tokio::test]
async fn dirty_work_is_kept_and_nothing_is_touched() {
    let world = World::new().await;
    let repository = world.repository().await;
    let head = world.head();
    let take = async || world.workspaces.snapshot_dirty(&repository, &name("run1"), "dirty", &authorship()).await;
    let clean = take().await.expect("kept");
    assert_eq!((&clean.commit, &clean.index_reference), (&head, &None));
    world.write("README", "staged\n");
    world.git(&["add", "README"]);
    world.write("README", "and more\n");
    world.write("new file", "new\n");
    world.write("ignored", "no\n");
    fs::remove_file(world.repo.join("src/main.txt")).expect("removed");
    world.write("inner/file", "x");
    git_in(world.home.path(), &world.repo.join("inner"), &["init", "-q"]);
    let without_objects = |repo: &std::path::Path| -> Vec<_> {
        tree(repo)
            .into_iter()
            .filter(|(path, ..)| !path.starts_with(b".git/objects") && !path.starts_with(b".git/refs/adjutant"))
            .collect()
    };
    let before = without_objects(&world.repo);
    let kept = take().await.expect("kept");
    assert!(before == without_objects(&world.repo));
    assert_eq!(take().await.expect("kept"), kept);
    let show = |path: &str| world.git(&["show", &format!("{}:{path}", kept.commit)]);
    assert_eq!((show("README"), show("new file")), ("and more".to_owned(), "new".to_owned()));
    let paths = world.git(&["ls-tree", "-r", "--name-only", kept.commit.as_str()]);
    assert_eq!(paths, ".gitignore\nREADME\nlink\nnew file\nrun.sh\nsrc/deep/er/file");
    assert_eq!(world.git(&["rev-parse", &kept.reference]), kept.commit.as_str());
    let index = kept.index_reference.expect("the index was something else");
    assert_eq!(world.git(&["show", &format!("{index}:README")]), "staged");
    // It survives the harshest clean-up that git has.
    world.git(&["reflog", "expire", "--expire=now", "--all"]);
    world.git(&["gc", "-q", "--prune=now"]);
    assert_eq!(show("README"), "and more");
}

/// Git compares times by seconds, and a size says nothing here: only the time of the index tells that it has to look.
#[tokio::test]
async fn a_change_in_the_second_of_the_commit_is_seen_later_too() {
    let world = World::new().await;
    world.write("README", "one\n");
    world.commit("one");
    world.write("README", "two\n");
    let repository = world.repository().await;
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
    let kept = world.workspaces.snapshot_dirty(&repository, &name("x"), "m", &authorship()).await.expect("kept");
    assert_eq!(world.git(&["show", &format!("{}:README", kept.commit)]), "two");
}

#[tokio::test]
async fn a_conflict_in_the_users_tree_is_named() {
    let world = World::new().await;
    world.git(&["checkout", "-qb", "other"]);
    world.write("README", "theirs\n");
    world.commit("theirs");
    world.git(&["checkout", "-q", "main"]);
    world.write("README", "ours\n");
    world.commit("ours");
    assert!(!try_git(world.home.path(), &world.repo, &["merge", "-q", "other"]).status.success());
    let repository = world.repository().await;
    let refused = world.workspaces.snapshot_dirty(&repository, &name("x"), "m", &authorship()).await;
    assert!(matches!(&refused, Err(DirtySnapshotError::Conflicted { paths }) if paths.count == 1), "{refused:?}");
}

#[tokio::test]
async fn the_state_folder_can_be_opened_again() {
    let world = World::new().await;
    let workspace = world.prepare("one").await;
    let result = world.result("one", "echo x > x").await;
    let again = open(world.home.path(), Layout::Overlay).await;
    assert_eq!(again.existing(&name("one")).expect("there"), workspace);
    let repository = again.repository(&world.repo).await.expect("there");
    again.publish(&repository, "topic", &result).await.expect("published");
}
