//! Differences and what reaches the user's repository without landing.

use adj_workspace::PublishError;

use crate::world::{World, authorship, name};

#[tokio::test]
async fn a_diff_is_text_with_a_limit() {
    let world = World::new().await;
    let base = world.head();
    let result = world.result("one", "printf 'one\\nTWO\\nthree\\n' > src/main.txt; echo new > new").await;
    let repository = world.repository().await;
    let diff = world.workspaces.diff(&repository, &base, &result, 1 << 20).await.expect("a diff");
    let text = String::from_utf8(diff.text).expect("text");
    assert!(text.contains("-two\n+TWO\n") && text.contains("+++ b/new"), "{text}");
    assert_eq!((diff.changed.len(), diff.is_cut), (2, false));
    let cut = world.workspaces.diff(&repository, &base, &result, 50).await.expect("a diff");
    assert_eq!((cut.text.len(), cut.changed.len(), cut.is_cut), (50, 2, true));
    let unknown = "1".repeat(40).parse().expect("an id");
    assert!(world.workspaces.diff(&repository, &base, &unknown, 50).await.is_err());
}

#[tokio::test]
async fn publishing_only_moves_forwards() {
    let world = World::new().await;
    let base = world.head();
    let first = world.result("one", "echo 1 > one").await;
    let other = world.result("two", "echo 2 > two").await;
    let repository = world.repository().await;
    let publish = async |name: &str, commit| world.workspaces.publish(&repository, name, commit).await;
    assert_eq!(publish("run/topic", &base).await.expect("made"), "refs/heads/run/topic");
    for _ in 0..2 {
        publish("run/topic", &first).await.expect("moved");
        assert_eq!(world.git(&["show", "run/topic:one"]), "1");
    }
    assert!(matches!(publish("run/topic", &other).await, Err(PublishError::NotForward { .. })));
    assert!(matches!(publish("run/topic", &base).await, Err(PublishError::NotForward { .. })));
    assert!(matches!(publish("main", &first).await, Err(PublishError::CheckedOut { .. })));
    for bad in ["-x", "a..b", "", "HEAD", "refs/heads/", "a b", "x.lock", "/x", "a\nb"] {
        assert!(matches!(publish(bad, &first).await, Err(PublishError::Name { .. })), "{bad:?}");
    }
    publish("refs/adjutant/runs/r1", &other).await.expect("made");
    assert_eq!(world.git(&["status", "--porcelain"]), "");
    assert_eq!(world.head(), base);
    world.git(&["fsck", "--strict"]);
    // The user's repository needs nothing of ours afterwards.
    std::fs::remove_dir_all(world.home.path().join("state/repos")).expect("removed");
    assert_eq!(world.git(&["log", "--format=%s", "run/topic"]), "work\nfirst");
    world.git(&["gc", "-q", "--prune=now"]);
    let merged = world.workspaces.snapshot_dirty(&repository, &name("x"), "m", &authorship()).await;
    assert_eq!(merged.expect("kept").commit, base);
}
