//! What an agent does with git stays in its workspace.

use crate::world::{World, agent, tree};

#[tokio::test]
async fn stash_config_hooks_branches_and_gc_are_private() {
    let world = World::new().await;
    world.git(&["branch", "precious"]);
    world.git(&["tag", "v1"]);
    let (one, two) = (world.prepare("one").await, world.prepare("two").await);
    let users = tree(&world.repo);
    let script = "echo one > README; git stash -q; git config user.name Mallory; git config core.hooksPath /tmp/h; git tag -f v1 2>/dev/null
                  git checkout -qb other; git commit -q --allow-empty -m mine; git branch -qD work; git gc -q --prune=now
                  mkdir -p .git/hooks; echo x > .git/hooks/pre-commit; git update-ref refs/heads/precious HEAD; git remote add origin https://example.invalid/x";
    agent(&one, script).await;
    let state = "git stash list; git config user.name; git config core.hooksPath || true; git branch -a --format='%(refname)'; git tag; ls .git/hooks 2>/dev/null || true; git remote";
    assert_eq!(agent(&two, state).await, "Agent\nrefs/heads/work");
    assert_eq!(agent(&two, "git log --format=%s; git status --porcelain; git fsck").await, "first");
    assert_eq!(agent(&one, "git stash list | wc -l; git log --format=%s -1").await, "1\nmine");
    assert!(users == tree(&world.repo));
    agent(&two, "git stash list; echo two > README; git stash -q; git stash pop -q; cat README").await;
    assert_eq!(agent(&one, "git stash pop -q; cat README").await, "one");
}

#[tokio::test]
async fn the_objects_of_others_cannot_be_harmed() {
    let world = World::new().await;
    let workspace = world.prepare("one").await;
    let objects = world.repo.join(".git/objects").canonicalize().expect("there");
    let script = format!(
        "echo x > {0}/x || echo refused; rm -rf {0}/* 2>/dev/null || echo refused; ls {0} | wc -l",
        objects.display()
    );
    let before = tree(&objects);
    assert!(agent(&workspace, &script).await.starts_with("refused\nrefused\n"));
    assert!(before == tree(&objects));
}
