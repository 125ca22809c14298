//! What an agent plants never runs outside its sandbox, and never stops us from bringing its work out.

use std::os::unix::fs::symlink;

use crate::world::{World, agent, authorship, executable, name, os};

/// Plants every way we know in which git executes what it finds, aimed at a marker outside.
fn planted(marker: &std::path::Path) -> String {
    let marker = marker.display();
    format!(
        "printf '#!/bin/sh\\ntouch {marker} /tmp/inside-ran\\n' > evil; chmod +x evil; evil=$PWD/evil
         for hook in post-checkout pre-commit post-index-change reference-transaction post-merge fsmonitor-watchman pre-auto-gc; do
             mkdir -p .git/hooks hooks; cp evil .git/hooks/$hook; cp evil hooks/$hook; done
         git config core.fsmonitor $evil; git config core.hooksPath hooks; git config diff.external $evil; git config core.pager $evil
         git config filter.bad.clean $evil; git config filter.bad.smudge $evil; git config filter.bad.process $evil; git config filter.bad.required true
         git config diff.bad.textconv $evil; git config merge.bad.driver $evil; git config core.sshCommand $evil; git config gpg.program $evil
         git config commit.gpgSign true; git config alias.status \"!$evil\"; git config core.alternateRefsCommand $evil; git config uploadpack.packObjectsHook $evil
         git config core.worktree /; git config extensions.worktreeConfig true; git config --unset core.worktree
         printf '[core]\\nfsmonitor = %s\\n' $evil > .git/config.worktree
         echo '* filter=bad diff=bad merge=bad' > .gitattributes; cp .gitattributes .git/info/attributes
         mkdir common; cp -r .git/. common/; echo ../common > .git/commondir
         git init -q --bare bare.git 2>/dev/null || mkdir bare.git; cp evil bare.git/x
         echo 'work of the agent' > README"
    )
}

#[tokio::test]
async fn planted_code_does_not_run_on_the_host() {
    let world = World::new().await;
    let workspace = world.prepare("one").await;
    agent(&workspace, &planted(&world.marker())).await;
    let snapshot = world.workspaces.snapshot(&workspace, "m", &authorship()).await.expect("comes out");
    let repository = world.repository().await;
    world.workspaces.diff(&repository, workspace.base(), &snapshot.commit, 1 << 20).await.expect("a diff");
    world.workspaces.land(&repository, "main", &world.head(), &snapshot.commit).await.expect("lands");
    assert_eq!(world.read("README"), "work of the agent\n");
    world.workspaces.remove(&name("one"), &authorship()).await.expect("removed");
    world.workspaces.prepare(&repository, &snapshot.commit, &name("two")).await.expect("prepared");
    assert!(!world.marker().exists());
}

#[tokio::test]
async fn the_users_own_hooks_and_monitors_do_not_run_either() {
    let world = World::new().await;
    let result = world.result("one", "echo changed > README").await;
    let evil = world.home.path().join("evil");
    std::fs::write(&evil, format!("#!/bin/sh\ntouch {}\n", world.marker().display())).expect("written");
    std::fs::set_permissions(&evil, executable()).expect("set");
    let evil = evil.display().to_string();
    for hook in
        ["post-checkout", "post-merge", "reference-transaction", "post-index-change", "pre-commit", "post-update"]
    {
        symlink(&evil, world.repo.join(".git/hooks").join(hook)).expect("linked");
    }
    for key in ["core.fsmonitor", "diff.external", "core.sshCommand", "core.pager", "gpg.program", "core.editor"] {
        std::process::Command::new("git")
            .args(["-C", world.repo.to_str().expect("plain"), "config", key, &evil])
            .status()
            .expect("set");
    }
    let repository = world.repository().await;
    std::fs::write(world.repo.join("dirty"), "dirty").expect("written");
    assert!(!repository.dirtiness().await.expect("a status").is_clean());
    world.workspaces.snapshot_dirty(&repository, &name("x"), "m", &authorship()).await.expect("kept");
    let head = repository.head().await.expect("a head").commit;
    world.workspaces.publish(&repository, "topic", &result).await.expect("published");
    world.workspaces.land(&repository, "main", &head, &result).await.expect("lands");
    assert_eq!(world.read("README"), "changed\n");
    assert!(!world.marker().exists());
}

#[tokio::test]
async fn names_of_any_bytes_come_out_and_land() {
    let world = World::new().await;
    let workspace = world.prepare("one").await;
    let names: [&[u8]; 9] =
        [b"new\nline", b"quote\"'`$(x)", b"\xff\xfe", b"-rf", b":(glob)**", b"tab\there", b" space ", b"a\\b", b"%s%n"];
    for name in names {
        let quoted: String = name.iter().map(|byte| format!("\\x{byte:02x}")).collect();
        agent(&workspace, &format!("printf content > \"$(printf '{quoted}')\"")).await;
    }
    let snapshot = world.workspaces.snapshot(&workspace, "m", &authorship()).await.expect("comes out");
    assert_eq!(snapshot.changed.len(), names.len());
    let repository = world.repository().await;
    world.workspaces.land(&repository, "main", &world.head(), &snapshot.commit).await.expect("lands");
    for name in names {
        assert_eq!(std::fs::read(world.repo.join(os(name))).expect("landed"), b"content", "{}", name.escape_ascii());
    }
}

#[tokio::test]
async fn names_that_git_cannot_hold_are_reported_and_do_not_stop_the_rest() {
    let world = World::new().await;
    let workspace = world.prepare("one").await;
    agent(
        &workspace,
        "mkdir .GIT; echo a > .GIT/config; echo b > 'git~1'; printf c > $'.g\\u200cit'; mkfifo pipe; echo good > good",
    )
    .await;
    let snapshot = world.workspaces.snapshot(&workspace, "m", &authorship()).await.expect("comes out");
    assert_eq!(snapshot.changed.len(), 1);
    let mut skipped: Vec<String> = snapshot.skipped.iter().map(|path| path.display().to_string()).collect();
    skipped.sort();
    assert_eq!(skipped, [".GIT/config", ".g\u{200c}it", "git~1"]);
}

#[tokio::test]
async fn a_broken_git_folder_does_not_stop_a_snapshot() {
    let breaks = [
        "rm -rf .git",
        "rm -rf .git; echo 'gitdir: /etc' > .git",
        "rm -rf .git; ln -s /proc/self .git",
        "echo garbage > .git/index; echo garbage > .git/HEAD; echo garbage > .git/config",
        "rm -rf .git/objects; ln -s / .git/objects",
        "mkdir -p .git/objects/pack; head -c 1000 /dev/urandom > .git/objects/pack/pack-x.pack; echo /proc > .git/objects/info/alternates",
        "find .git -depth -exec chmod 0 {} +",
        "git symbolic-ref HEAD refs/heads/none; git update-ref -d refs/heads/work; echo ref: x > .git/refs/heads/loop",
    ];
    let world = World::new().await;
    for (number, script) in breaks.into_iter().enumerate() {
        let text = format!("w{number}");
        let workspace = world.prepare(&text).await;
        agent(&workspace, &format!("echo work > work; {script}")).await;
        let snapshot = world.workspaces.snapshot(&workspace, "m", &authorship()).await;
        assert_eq!(snapshot.expect(script).changed.len(), 1, "{script}");
        let removed = world.workspaces.remove(&name(&text), &authorship()).await.expect(script);
        let file = format!("{}:files/work", removed.commit);
        assert_eq!(world.store(&["cat-file", "blob", &file]).await, "work", "{script}");
    }
}

#[tokio::test]
async fn line_endings_and_missing_filters_round_trip() {
    let world = World::new().await;
    world.write(".gitattributes", "*.win text eol=crlf\n*.lfs filter=lfs diff=lfs merge=lfs -text\n* text=auto\n");
    world.write("a.win", "one\r\ntwo\r\n");
    world.write("b.lfs", "version https://git-lfs.example/spec/v1\n");
    world.commit("attributes");
    let workspace = world.prepare("one").await;
    assert_eq!(agent(&workspace, "git status --porcelain; od -c a.win | head -1 | grep -c '\\\\r'").await, "1");
    let nothing = world.workspaces.snapshot(&workspace, "m", &authorship()).await.expect("works");
    assert_eq!(nothing.commit, *workspace.base());
    agent(&workspace, "printf 'three\\r\\n' >> a.win").await;
    let snapshot = world.workspaces.snapshot(&workspace, "m", &authorship()).await.expect("works");
    let repository = world.repository().await;
    world.workspaces.land(&repository, "main", &world.head(), &snapshot.commit).await.expect("lands");
    assert_eq!(world.read("a.win"), "one\r\ntwo\r\nthree\r\n");
    assert!(repository.dirtiness().await.expect("a status").is_clean());
}
