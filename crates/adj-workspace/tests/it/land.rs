//! Landing: forwards only, nothing of the user's overwritten, and finished after any crash.

use std::fs;
use std::path::PathBuf;

use adj_workspace::{CommitId, LandError, Landed, WorkTreeError};

use crate::world::{World, authorship, git_in, name, tree};

const WORK: &str = "echo landed > README; rm src/deep/er/file; echo new > src/new; echo folder > src/deep.txt; chmod -x run.sh; ln -sf src link";

async fn land(world: &World, old: &CommitId, new: &CommitId) -> Result<Landed, LandError> {
    world.workspaces.land(&world.repository().await, "main", old, new).await
}

fn dirty_paths(refused: &Result<Landed, LandError>) -> Vec<String> {
    match refused {
        Err(LandError::WorkTree { source: WorkTreeError::Dirty { paths }, .. }) => {
            paths.iter().map(|path| path.display().to_string()).collect()
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_checked_out_branch_moves_with_its_tree() {
    let world = World::new().await;
    let (old, new) = (world.head(), world.result("one", WORK).await);
    world.write("notes", "the user's own\n");
    world.write("src/main.txt", "edited meanwhile\n");
    for _ in 0..2 {
        let landed = land(&world, &old, &new).await.expect("lands");
        assert_eq!(landed.work_tree, Some(world.repo.canonicalize().expect("there")));
        assert_eq!(world.head(), new);
        assert_eq!(world.git(&["status", "--porcelain"]), " M src/main.txt\n?? notes");
    }
    assert_eq!((world.read("README"), world.read("src/new")), ("landed\n".to_owned(), "new\n".to_owned()));
    assert_eq!(fs::read_link(world.repo.join("link")).expect("a link"), PathBuf::from("src"));
    assert!(!world.repo.join("src/deep").exists());
    assert_eq!(world.read("src/main.txt"), "edited meanwhile\n");
    assert!(world.git(&["reflog", "-1", "main"]).contains("adjutant: land"));
    assert_eq!(fs::read_dir(world.home.path().join("state/landings")).expect("readable").count(), 0);
}

#[tokio::test]
async fn a_branch_that_is_elsewhere_or_nowhere() {
    let world = World::new().await;
    let (old, new) = (world.head(), world.result("one", WORK).await);
    let repository = world.repository().await;
    world.git(&["branch", "parked"]);
    let landed = world.workspaces.land(&repository, "parked", &old, &new).await.expect("lands");
    assert_eq!(landed.work_tree, None);
    assert_eq!(world.git(&["rev-parse", "parked"]), new.as_str());
    assert_eq!((world.head(), world.git(&["status", "--porcelain"])), (old.clone(), String::new()));
    world.git(&["worktree", "add", "-q", "../linked", "-b", "linked", old.as_str()]);
    let landed = world.workspaces.land(&repository, "linked", &old, &new).await.expect("lands");
    let linked = world.home.path().join("linked").canonicalize().expect("there");
    assert_eq!(landed.work_tree.as_ref(), Some(&linked));
    assert_eq!(git_in(world.home.path(), &linked, &["status", "--porcelain"]), "");
    let missing = world.workspaces.land(&repository, "missing", &old, &new).await;
    assert!(matches!(missing, Err(LandError::Moved { now: None, .. })), "{missing:?}");
}

#[tokio::test]
async fn a_moved_branch_and_a_side_step_are_refused() {
    let world = World::new().await;
    let (old, new) = (world.head(), world.result("one", WORK).await);
    let now = world.commit("meanwhile");
    let refused = land(&world, &old, &new).await;
    assert!(matches!(&refused, Err(LandError::Moved { now: Some(found), .. }) if *found == now), "{refused:?}");
    let refused = land(&world, &now, &new).await;
    assert!(matches!(refused, Err(LandError::NotForward { .. })), "{refused:?}");
    assert_eq!((world.head(), world.git(&["status", "--porcelain"])), (now, String::new()));
}

#[tokio::test]
async fn the_users_work_in_the_way_is_named_and_left_alone() {
    // A preparation of the user's tree, the script of the agent, and what is in the way.
    type Prepare = fn(&World);
    let cases: [(&str, Prepare, &str, &[&str]); 9] = [
        ("edited", |world| world.write("README", "mine\n"), WORK, &["README"]),
        ("deleted", |world| fs::remove_file(world.repo.join("README")).expect("gone"), WORK, &["README"]),
        (
            "staged",
            |world| {
                world.write("README", "mine\n");
                world.git(&["add", "README"]);
                world.write("README", "hello\n");
            },
            WORK,
            &["README"],
        ),
        ("untracked", |world| world.write("src/new", "mine\n"), WORK, &["src/new"]),
        ("ignored", |world| world.write("ignored", "secret\n"), "echo '' > .gitignore; echo x > ignored", &["ignored"]),
        ("folder in the way", |world| world.write("made/mine", "mine\n"), "echo x > made", &["made/mine"]),
        (
            "ignored folder in the way",
            |world| world.write("ignored/mine", "mine\n"),
            "echo '' > .gitignore; echo x > ignored",
            &["ignored/mine"],
        ),
        (
            "ignored file where a folder goes",
            |world| world.write("ignored", "secret\n"),
            "echo '' > .gitignore; mkdir ignored; echo x > ignored/x",
            &["ignored"],
        ),
        (
            "link where a folder goes",
            |world| std::os::unix::fs::symlink("/tmp", world.repo.join("made")).expect("linked"),
            "mkdir made; echo x > made/x",
            &["made"],
        ),
    ];
    for (case, prepare, script, expected) in cases {
        let world = World::new().await;
        let (old, new) = (world.head(), world.result("one", script).await);
        prepare(&world);
        let files = |world: &World| -> Vec<_> {
            tree(&world.repo).into_iter().filter(|(path, ..)| !path.starts_with(b".git/")).collect()
        };
        let (before, index) = (files(&world), world.git(&["ls-files", "--stage"]));
        assert_eq!(dirty_paths(&land(&world, &old, &new).await), expected, "{case}");
        assert!(before == files(&world), "{case}");
        assert_eq!((index, world.head()), (world.git(&["ls-files", "--stage"]), old), "{case}");
    }
}

#[tokio::test]
async fn files_and_folders_can_change_places() {
    let world = World::new().await;
    let old = world.head();
    let new = world.result("one", "rm -r src; echo file > src; rm README; mkdir README; echo in > README/in").await;
    land(&world, &old, &new).await.expect("lands");
    assert_eq!(world.git(&["status", "--porcelain"]), "");
    assert_eq!(world.read("README/in"), "in\n");
}

#[tokio::test]
async fn a_landing_that_was_cut_short_is_finished() {
    let world = World::new().await;
    let (old, new) = (world.head(), world.result("one", WORK).await);
    type Prepare = fn(&World, &CommitId);
    let states: [(&str, Prepare); 4] = [
        ("some files written", |world, _| {
            world.write("README", "landed\n");
            world.write("src/new", "new\n");
            fs::remove_file(world.repo.join("src/deep/er/file")).expect("removed");
        }),
        ("all files and the index written", |world, new| {
            drop(world.git(&["read-tree", "-m", "-u", "HEAD", new.as_str()]))
        }),
        ("only the index written", |world, new| drop(world.git(&["read-tree", new.as_str()]))),
        ("nothing written", |_, _| {}),
    ];
    for (state, prepare) in states {
        prepare(&world, &new);
        land(&world, &old, &new).await.expect(state);
        assert_eq!((world.head(), world.git(&["status", "--porcelain"])), (new.clone(), String::new()), "{state}");
        world.git(&["reset", "-q", "--hard", old.as_str()]);
    }
}

#[tokio::test]
async fn a_git_that_was_killed_while_landing_is_cleaned_up_after() {
    let world = World::new().await;
    world.write(".gitattributes", "*.big filter=deadly\n");
    for number in 0..5 {
        world.write(&format!("{number}.big"), "old\n");
    }
    world.commit("with a filter");
    let (old, new) =
        (world.head(), world.result("one", "for n in 0 1 2 3 4; do echo new > $n.big; done; echo new > zzz").await);
    // The user's filter runs as a child of the git that writes the files; this one kills its parent at the third file.
    let home = world.home.path();
    let script =
        format!("#!/bin/sh\ncat; echo >> {0}/count; [ $(wc -l < {0}/count) != 3 ] || kill -9 $PPID\n", home.display());
    fs::write(home.join("deadly"), script).expect("written");
    fs::set_permissions(home.join("deadly"), crate::world::executable()).expect("set");
    world.git(&["config", "filter.deadly.smudge", home.join("deadly").to_str().expect("plain")]);
    let killed = land(&world, &old, &new).await;
    assert!(killed.is_err(), "{killed:?}");
    assert_eq!(world.git(&["rev-parse", "main"]), old.as_str());
    assert!(world.repo.join(".git/index.lock").exists(), "git did not die: {killed:?}");
    world.git(&["config", "--unset", "filter.deadly.smudge"]);
    // Of the file that was being written only the beginning may be there.
    fs::write(world.repo.join("2.big"), "ne").expect("written");
    land(&world, &old, &new).await.expect("finished");
    assert_eq!((world.head(), world.git(&["status", "--porcelain"])), (new, String::new()));
}

#[tokio::test]
async fn a_lock_that_is_not_ours_is_respected() {
    let world = World::new().await;
    let (old, new) = (world.head(), world.result("one", WORK).await);
    let lock = world.repo.join(".git/index.lock");
    fs::write(&lock, "").expect("written");
    let refused = land(&world, &old, &new).await;
    assert!(matches!(&refused, Err(LandError::Locked { .. })), "{refused:?}");
    assert!(lock.exists());
    fs::remove_file(&lock).expect("removed");
    fs::write(world.repo.join(".git/MERGE_HEAD"), format!("{old}\n")).expect("written");
    let refused = land(&world, &old, &new).await;
    assert!(matches!(&refused, Err(LandError::Busy { operation: "merge", .. })), "{refused:?}");
}

#[tokio::test]
async fn a_result_on_dirty_work_lands_over_it() {
    let world = World::new().await;
    let repository = world.repository().await;
    let old = world.head();
    world.write("README", "dirty\n");
    world.write("untracked", "mine\n");
    world.git(&["rm", "-q", "--cached", "run.sh"]);
    let kept = world.workspaces.snapshot_dirty(&repository, &name("run"), "dirty", &authorship()).await.expect("kept");
    let workspace = world.workspaces.prepare(&repository, &kept.commit, &name("one")).await.expect("prepared");
    crate::world::agent(&workspace, "cat README untracked; echo more >> untracked; echo x > x").await;
    let new = world.workspaces.snapshot(&workspace, "work", &authorship()).await.expect("a snapshot").commit;
    let land = async || world.workspaces.land_over_snapshot(&repository, "main", &old, &kept.commit, &new).await;
    world.write("untracked", "changed since\n");
    let before = world.git(&["status", "--porcelain"]);
    let refused = land().await;
    let Err(LandError::Changed { paths, .. }) = &refused else { panic!("{refused:?}") };
    assert_eq!(paths, &[PathBuf::from("untracked")]);
    assert_eq!((world.head(), world.git(&["status", "--porcelain"])), (old.clone(), before));
    world.write("untracked", "mine\n");
    for _ in 0..2 {
        land().await.expect("lands");
        assert_eq!((world.head(), world.git(&["status", "--porcelain"])), (new.clone(), String::new()));
    }
    assert_eq!((world.read("README"), world.read("untracked")), ("dirty\n".to_owned(), "mine\nmore\n".to_owned()));
    assert_eq!(world.git(&["log", "--format=%s"]), "work\ndirty\nfirst");
    // Killed between the two steps: the branch is at the snapshot, the tree is the snapshot.
    world.git(&["reset", "-q", "--hard", kept.commit.as_str()]);
    land().await.expect("lands");
    assert_eq!((world.head(), world.git(&["status", "--porcelain"])), (new.clone(), String::new()));
    // Killed after the index moved and before the branch did.
    world.git(&["reset", "-q", "--hard", kept.commit.as_str()]);
    world.git(&["reset", "-q", "--soft", old.as_str()]);
    land().await.expect("lands");
    assert_eq!((world.head(), world.git(&["status", "--porcelain"])), (new.clone(), String::new()));
}
