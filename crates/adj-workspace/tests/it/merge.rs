//! Merging without a tree gives what git gives with one, and calls a conflict only what is one.

use adj_workspace::{Merge, MergeError, MergeRequest};
use proptest::prelude::{Strategy, any};
use proptest::test_runner::{Config, TestRunner};

use crate::world::{World, authorship, try_git};

async fn merge(
    world: &World,
    base: Option<&adj_workspace::CommitId>,
    ours: &adj_workspace::CommitId,
    theirs: &adj_workspace::CommitId,
) -> Result<Merge, MergeError> {
    let repository = world.repository().await;
    let authorship = authorship();
    world
        .workspaces
        .merge(&repository, MergeRequest { base, ours, theirs, message: "merge", authorship: &authorship })
        .await
}

#[tokio::test]
async fn each_way_of_coming_together_has_its_name() {
    let world = World::new().await;
    let base = world.head();
    let one = world.result("one", "echo 1 > one; sed -i s/two/TWO/ src/main.txt").await;
    let two = world.result("two", "echo 2 > two").await;
    let three = world.result("three", "sed -i s/two/ZWEI/ src/main.txt; rm README").await;
    let four = world.result("four", "echo x >> README").await;
    assert_eq!(merge(&world, None, &base, &one).await.expect("asked"), Merge::FastForward { commit: one.clone() });
    assert_eq!(merge(&world, None, &one, &base).await.expect("asked"), Merge::UpToDate);
    assert_eq!(merge(&world, None, &one, &one).await.expect("asked"), Merge::UpToDate);
    let Merge::Clean { commit, tree } = merge(&world, None, &one, &two).await.expect("asked") else { panic!("clean") };
    assert_eq!(world.store(&["log", "-1", "--format=%P %T", commit.as_str()]).await, format!("{one} {two} {tree}"));
    assert_eq!(merge(&world, None, &one, &two).await.expect("asked"), Merge::Clean { commit: commit.clone(), tree });
    let Merge::Conflict { conflicts } = merge(&world, None, &one, &three).await.expect("asked") else {
        panic!("conflict")
    };
    assert_eq!(conflicts.len(), 1);
    assert_eq!(conflicts[0].paths, [std::path::PathBuf::from("src/main.txt")]);
    assert_eq!(conflicts[0].kind, "CONFLICT (contents)");
    let Merge::Conflict { conflicts } = merge(&world, None, &four, &three).await.expect("asked") else {
        panic!("conflict")
    };
    assert_eq!(conflicts[0].kind, "CONFLICT (modify/delete)");
    // A sequence: the merged commit takes the next one.
    assert!(matches!(merge(&world, None, &commit, &four).await.expect("asked"), Merge::Clean { .. }));
    // With a base named, only what happened since counts.
    assert!(matches!(merge(&world, Some(&three), &one, &three).await.expect("asked"), Merge::Clean { .. }));
    let missing = "1".repeat(40).parse().expect("an id");
    for (base, ours, theirs) in [(None, &missing, &one), (None, &one, &missing), (Some(&missing), &one, &two)] {
        assert!(matches!(merge(&world, base, ours, theirs).await, Err(MergeError::Store(_))));
    }
    assert_eq!(world.head(), base);
    assert_eq!(world.git(&["status", "--porcelain"]), "");
}

#[tokio::test]
async fn attributes_of_the_tree_count() {
    let world = World::new().await;
    world.write(".gitattributes", "CHANGES merge=union\n");
    world.write("below/.gitattributes", "locked -merge\n");
    world.write("CHANGES", "start\n");
    world.write("below/locked", "1\n2\n3\n4\n5\n6\n7\n8\n9\n");
    world.commit("attributes");
    let one = world.result("one", "echo one >> CHANGES; sed -i s/1/one/ below/locked").await;
    let two = world.result("two", "echo two >> CHANGES").await;
    let three = world.result("three", "sed -i s/9/nine/ below/locked").await;
    let Merge::Clean { commit, .. } = merge(&world, None, &one, &two).await.expect("asked") else { panic!("clean") };
    assert_eq!(world.store(&["show", &format!("{commit}:CHANGES")]).await, "start\none\ntwo");
    assert!(matches!(merge(&world, None, &one, &three).await.expect("asked"), Merge::Conflict { .. }));
}

/// An edit that a side makes: which file, and what happens to it.
type Edit = (u8, u8, u8);

fn apply(world: &World, edits: &[Edit]) {
    for &(file, kind, place) in edits {
        let path = format!("dir{}/file{}", file % 2, file % 3);
        let full = world.repo.join(&path);
        match kind % 5 {
            0 => drop(std::fs::remove_file(&full)),
            1 if full.exists() => {
                let other = world.repo.join(format!("dir{}/moved{}", place % 2, file % 3));
                std::fs::create_dir_all(other.parent().expect("a folder")).expect("made");
                std::fs::rename(&full, other).expect("renamed");
            }
            _ => {
                let text = std::fs::read_to_string(&full).unwrap_or_default();
                let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
                let place = usize::from(place) % (lines.len() + 1);
                lines.insert(place, format!("line {kind}"));
                world.write(&path, lines.join("\n") + "\n");
            }
        }
    }
}

#[test]
fn the_same_as_a_merge_in_a_working_tree() {
    let edits = || proptest::collection::vec((0u8..6, any::<u8>(), 0u8..20), 1..5);
    let mut runner = TestRunner::new(Config { cases: 24, failure_persistence: None, ..Config::default() });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runner
        .run(&(edits(), edits()).prop_map(|both| both), |(mine, theirs)| {
            runtime.block_on(async {
                let world = World::new().await;
                for file in 0..6 {
                    let lines: String = (0..20).map(|line| format!("{file} {line}\n")).collect();
                    world.write(&format!("dir{}/file{}", file % 2, file % 3), lines);
                }
                world.commit("base");
                world.git(&["checkout", "-qb", "theirs"]);
                apply(&world, &theirs);
                let theirs = world.commit("theirs");
                world.git(&["checkout", "-q", "main"]);
                apply(&world, &mine);
                let ours = world.commit("ours");
                let predicted = merge(&world, None, &ours, &theirs).await.expect("asked");
                let real = try_git(world.home.path(), &world.repo, &["merge", "-q", "--no-edit", "--no-ff", "theirs"]);
                match predicted {
                    Merge::Clean { tree, .. } => {
                        assert!(real.status.success(), "{real:?}");
                        assert_eq!(world.git(&["rev-parse", "HEAD^{tree}"]), tree.as_str());
                    }
                    Merge::Conflict { conflicts } => {
                        assert!(!real.status.success() && !conflicts.is_empty());
                        let named: std::collections::BTreeSet<String> = conflicts
                            .iter()
                            .flat_map(|conflict| &conflict.paths)
                            .map(|path| path.display().to_string())
                            .collect();
                        let unmerged = world.git(&["diff", "--name-only", "--diff-filter=U"]);
                        for path in unmerged.lines() {
                            assert!(named.contains(path), "{path} in {named:?}");
                        }
                    }
                    Merge::UpToDate | Merge::FastForward { .. } => panic!("both sides have a commit of their own"),
                }
            });
            Ok(())
        })
        .expect("no case differs");
}
