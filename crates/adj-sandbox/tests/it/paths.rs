//! Paths that a plan hides, makes unchangeable or guards, and what a guard leaves behind: nothing.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use adj_sandbox::{Bind, Command, GUARDED, Launcher, Layer, Mode, Mount, Plan, RunError};

struct Tree {
    _folder: tempfile::TempDir,
    workspace: PathBuf,
    launcher: Launcher,
}

impl Tree {
    fn new(files: &[(&str, &str)]) -> Tree {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().canonicalize().expect("a real path");
        let workspace = root.join("workspace");
        for (path, text) in files {
            let path = workspace.join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            fs::write(path, text).expect("a file");
        }
        fs::create_dir_all(&workspace).expect("a folder");
        fs::create_dir_all(root.join("shown")).expect("a folder");
        fs::write(root.join("shown/key.pem"), "pem").expect("a file");
        Tree { _folder: folder, workspace, launcher: Launcher::current_exe().expect("our own program") }
    }

    fn plan(&self) -> Plan {
        let mut plan = Plan::new(Mode::WorkspaceWrite);
        plan.workspace = Mount::Direct { host: self.workspace.clone(), inside: "/workspace".into() };
        plan.cwd = "/workspace".into();
        let shown = self.workspace.with_file_name("shown");
        plan.binds.push(Bind { host: shown, inside: "/opt/shown".into(), writable: true });
        plan
    }

    async fn run(&self, plan: &Plan, script: &str) -> String {
        let finished = self.launcher.run(plan, &Command::new(["bash", "-c", script])).await.expect("a sandbox");
        String::from_utf8_lossy(&[finished.stdout, finished.stderr].concat()).into_owned()
    }

    async fn refusal(&self, plan: &Plan) -> String {
        match self.launcher.run(plan, &Command::new(["true"])).await {
            Err(RunError::Setup(error)) if error.layer == Layer::Protection => error.to_string(),
            other => panic!("not refused: {other:?}"),
        }
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.workspace.join(path)).expect("a file")
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder").flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().into_string().expect("plain")).collect();
    names.sort();
    names
}

fn patterns(texts: &[&str]) -> Vec<adj_sandbox::PathPattern> {
    texts.iter().map(|text| text.parse().expect("a pattern")).collect()
}

const SECRETS: [(&str, &str); 7] = [
    (".env", "canary"),
    ("app/.env", "canary"),
    ("app/.env.example", "shown"),
    ("keys/a/b.key", "canary"),
    ("real/target", "canary"),
    ("other/one.key", "canary"),
    ("plain.txt", "shown"),
];

#[tokio::test]
async fn what_is_hidden_cannot_be_read_by_any_way() {
    let tree = Tree::new(&SECRETS);
    symlink("real/target", tree.workspace.join("link.env")).expect("a link");
    symlink("/workspace/real", tree.workspace.join("app/folder-link")).expect("a link");
    let mut plan = tree.plan();
    plan.hidden = patterns(&["**/.env", "keys/**", "link.env", "other/*.key", "/opt/shown/*.pem"]);
    let ways = "cat .env app/.env keys/a/b.key real/target link.env app/folder-link/target other/one.key \
                /opt/shown/key.pem; ls keys; grep -r canary . /proc/self/root/workspace; mv app moved; cat moved/.env; \
                chmod 600 .env keys; cat .env; ln .env e; cat e; cp -r keys k; cat k/a/b.key; rm -f .env; cat .env; \
                mv .env f; cat f; ln -s .env g; cat g; exec 3<.env; cat <&3; dd if=.env; tar c . | strings";
    for mode in [Mode::WorkspaceWrite, Mode::ReadOnly] {
        plan.mode = mode;
        let shown = tree.run(&plan, ways).await;
        assert!(!shown.contains("canary") && !shown.contains("\npem"), "{mode}: {shown}");
        assert!(shown.contains("Permission denied"), "{mode}: {shown}");
        let shown = tree.run(&plan, "cat plain.txt; cat */.env.example; ls -d /.hidden* 2>/dev/null").await;
        assert_eq!(shown, "shownshown", "{mode}");
    }
    plan.hidden.clear();
    assert!(tree.run(&plan, ways).await.contains("canary"), "the ways lead there when nothing is hidden");
}

#[tokio::test]
async fn what_is_hidden_stays_where_it_is_for_the_next_command() {
    let tree = Tree::new(&[("app/deep/prod.pem", "canary"), ("app/file", "shown")]);
    let mut plan = tree.plan();
    let attack = "mv app moved; mv app/deep app/d; mv app/deep /tmp/d; mv app/file app/f; true";
    let look = "cat moved/deep/prod.pem app/d/prod.pem app/deep/prod.pem app/f";
    for texts in [["app/deep/prod.pem"], ["**/*.pem"]] {
        plan.hidden = patterns(&texts);
        tree.run(&plan, attack).await;
        let shown = tree.run(&plan, look).await;
        assert!(!shown.contains("canary") && shown.contains("shown"), "{shown}");
    }
    plan.hidden.clear();
    tree.run(&plan, attack).await;
    plan.hidden = patterns(&["app/deep/prod.pem"]);
    assert!(tree.run(&plan, look).await.contains("canary"), "the attack works when nothing was hidden");
}

#[tokio::test]
async fn a_pattern_through_a_link_holds_beside_a_wider_one() {
    let tree = Tree::new(&[("real/x.key", "canary"), ("real/plain", "shown"), ("sub/.env", "canary")]);
    symlink("real", tree.workspace.join("keys")).expect("a link");
    let mut plan = tree.plan();
    for (texts, is_hidden) in
        [(&["keys/*.key"][..], true), (&["keys/*.key", "**/.env"], true), (&["sub/*.env", "**/.env"], false)]
    {
        plan.hidden = patterns(texts);
        let shown = tree.run(&plan, "cat real/x.key keys/x.key real/plain").await;
        assert_eq!(shown.contains("canary"), !is_hidden, "{texts:?}: {shown}");
        assert!(shown.contains("shown"), "{texts:?}: {shown}");
    }
}

#[tokio::test]
async fn private_folders_hold_as_many_files_as_their_size_allows() {
    let tree = Tree::new(&[]);
    let mut plan = tree.plan();
    plan.limits.tmp_bytes = 64 << 20;
    assert_eq!(tree.run(&plan, "stat -f -c %c /tmp /dev/shm").await, "16384\n4096\n");
    plan.limits.tmp_bytes = 1 << 20;
    assert_eq!(tree.run(&plan, "stat -f -c %c /tmp /dev/shm").await, "1024\n1024\n");
}

#[tokio::test]
async fn hiding_works_over_a_private_layer() {
    let tree = Tree::new(&SECRETS);
    let root = tree.workspace.with_file_name("layers");
    for name in ["upper", "work"] {
        fs::create_dir_all(root.join(name)).expect("a folder");
    }
    let mut plan = tree.plan();
    plan.workspace = Mount::Overlay {
        lower: tree.workspace.clone(),
        upper: root.join("upper"),
        work: root.join("work"),
        inside: "/workspace".into(),
    };
    plan.hidden = patterns(&["**/.env", "keys"]);
    plan.readonly = patterns(&["app/*.example"]);
    let shown =
        tree.run(&plan, "cat .env app/.env keys/a/b.key; echo x > app/.env.example; cat app/.env.example").await;
    assert!(!shown.contains("canary") && shown.contains("shown"), "{shown}");
    let _ = fs::set_permissions(root.join("work/work"), std::os::unix::fs::PermissionsExt::from_mode(0o700));
}

#[tokio::test]
async fn a_hostile_tree_cannot_turn_hiding_against_its_user() {
    let tree = Tree::new(&[("a/b", "text")]);
    for (name, target) in
        [("1.env", "/usr"), ("2.env", "."), ("3.env", "3.env"), ("4.env", "/nowhere"), ("5.env", "..")]
    {
        symlink(target, tree.workspace.join(name)).expect("a link");
    }
    let mut plan = tree.plan();
    plan.hidden = patterns(&["*.env", "missing/**", "nowhere.txt"]);
    assert_eq!(tree.run(&plan, "cat a/b; ls a").await, "textb\n");
}

#[tokio::test]
async fn what_is_read_only_stays_as_it_is() {
    let tree = Tree::new(&[("docs/a/plan.md", "plan"), ("docs/a/free", "free"), ("lock", "lock"), ("x/y/z", "z")]);
    let mut plan = tree.plan();
    plan.readonly = patterns(&["docs/**/*.md", "lock", "x/**", "/opt/shown/key.pem", "/usr/bin/env"]);
    let attacks = "for f in docs/a/plan.md lock x/y/z /opt/shown/key.pem; do echo evil > $f; rm -f $f; mv $f /tmp/m; \
                   echo evil > n; mv -f n $f; ln -sf /tmp/evil $f; chmod 777 $f; done; mv docs d; mv docs/a docs/b; mv x xx; \
                   rm -rf docs x lock; mkdir -p docs/a; echo evil > docs/a/plan.md; echo changed > docs/a/new";
    tree.run(&plan, attacks).await;
    assert_eq!([tree.read("docs/a/plan.md"), tree.read("lock"), tree.read("x/y/z")], ["plan", "lock", "z"]);
    assert_eq!(fs::read_to_string(tree.workspace.with_file_name("shown").join("key.pem")).expect("a file"), "pem");
    assert_eq!(tree.read("docs/a/new"), "changed\n", "what lies beside it can be changed");
    plan.readonly.clear();
    tree.run(&plan, attacks).await;
    assert_eq!(tree.read("docs/a/plan.md"), "evil\n", "the attacks work when nothing is read-only");

    symlink("docs", tree.workspace.join("linked")).expect("a link");
    plan.readonly = patterns(&["linked"]);
    assert!(tree.refusal(&plan).await.contains("linked"), "a link could be replaced");
}

const PLANT: &str = "for n in .envrc .githooks .husky .idea .vscode; do (echo evil > $n) 2>/dev/null || mkdir $n/sub 2>/dev/null || \
                     rm -rf $n/* 2>/dev/null && rmdir $n 2>/dev/null || true; mkdir -p $n 2>/dev/null; echo evil > $n/tasks.json; \
                     rm -rf $n; (echo evil > $n); mv new $n; done 2>/dev/null; true";

#[tokio::test]
async fn what_programs_outside_execute_cannot_be_planted_or_changed() {
    let tree = Tree::new(&[("file", "")]);
    tree.run(&tree.plan(), PLANT).await;
    assert_eq!(names(&tree.workspace), ["file"], "nothing planted, nothing left behind");

    let tree = Tree::new(&[(".envrc", "mine"), (".vscode/tasks.json", "mine"), ("nested/.husky/pre-commit", "mine")]);
    let shown = tree.run(&tree.plan(), &format!("{PLANT}; cd nested; {PLANT}; git -C .. status 2>&1 | head -1")).await;
    assert_eq!([tree.read(".envrc"), tree.read(".vscode/tasks.json")], ["mine", "mine"], "{shown}");
    assert_eq!(tree.read("nested/.husky/pre-commit"), "mine");

    let mut plan = tree.plan();
    plan.unprotect = GUARDED.iter().map(|name| (*name).to_owned()).collect();
    tree.run(&plan, PLANT).await;
    assert_eq!(tree.read(".envrc"), "evil\n", "a lifted guard guards nothing");
}

#[tokio::test]
async fn a_configured_folder_of_hooks_is_protected() {
    let attack = "mkdir -p tools/hooks ci/hooks; echo evil > tools/hooks/pre-push; echo evil > ci/hooks/pre-push; mv ci c; \
                  mkdir -p ci/hooks; echo evil > ci/hooks/pre-push; true";
    for protect in [["tools/hooks", "ci/hooks"], ["/workspace/tools/hooks", "/workspace/ci/hooks"]] {
        let tree = Tree::new(&[("ci/hooks/pre-push", "mine")]);
        let mut plan = tree.plan();
        plan.protect = protect.iter().map(PathBuf::from).collect();
        tree.run(&plan, attack).await;
        assert_eq!(tree.read("ci/hooks/pre-push"), "mine");
        assert_eq!(names(&tree.workspace), ["ci"]);
        plan.protect.clear();
        tree.run(&plan, attack).await;
        assert_eq!(tree.read("tools/hooks/pre-push"), "evil\n");
    }
    let tree = Tree::new(&[]);
    symlink("/tmp", tree.workspace.join("tools")).expect("a link");
    let mut plan = tree.plan();
    plan.protect = vec!["tools/hooks".into()];
    assert!(tree.refusal(&plan).await.contains("tools"));
}

#[tokio::test]
async fn submodules_are_protected_and_an_own_repository_is_not() {
    let files = [
        (".git/HEAD", "ref: refs/heads/main\n"),
        (".git/config", "[core]\n"),
        (".git/modules/sub/hooks/post-checkout", "mine"),
        ("sub/.git", "gitdir: ../.git/modules/sub\n"),
    ];
    let attack = "echo evil > .git/modules/sub/hooks/post-checkout; echo evil >> .git/config; rm -f sub/.git; \
                  echo 'gitdir: /tmp/evil' > sub/.git; mv sub s; mkdir sub; echo evil > sub/.git; mkdir .adjutant; \
                  echo evil > .adjutant/config.toml; true";
    let tree = Tree::new(&files);
    tree.run(&tree.plan(), attack).await;
    for (path, text) in files {
        assert_eq!(tree.read(path), text, "{path}");
    }
    let mut plan = tree.plan();
    plan.own_git = true;
    tree.run(&plan, attack).await;
    assert_eq!(tree.read(".git/modules/sub/hooks/post-checkout"), "evil\n");
    assert_eq!(tree.read("sub/.git"), "evil\n");
    assert!(!tree.workspace.join(".adjutant").exists(), "our own name stays protected");
}

#[tokio::test]
async fn what_work_trees_have_in_common_is_protected() {
    let files = [
        ("main/.git", "gitdir: ../store/worktrees/main\n"),
        ("store/worktrees/main/HEAD", "ref: refs/heads/main\n"),
        ("store/worktrees/main/commondir", "../..\n"),
        ("store/config", "[core]\n"),
        ("store/hooks/pre-commit", "mine"),
        ("own/.git/HEAD", "ref: refs/heads/main\n"),
        ("own/.git/commondir", "../../shared\n"),
        ("shared/config", "[core]\n"),
        ("bare/HEAD", "ref: refs/heads/main\n"),
        ("bare/objects/x", "x"),
        ("bare/refs/x", "x"),
        ("bare/config", "[core]\n"),
    ];
    let attack = "for r in store shared bare; do echo evil > $r/config; rm -rf $r/config; mv $r r; cp -r r $r; \
                  mkdir -p $r/hooks; echo evil > $r/hooks/pre-commit; echo evil > $r/commondir; done; true";
    let tree = Tree::new(&files);
    tree.run(&tree.plan(), attack).await;
    for (path, text) in files {
        assert_eq!(tree.read(path), text, "{path}");
    }
    assert!(!tree.workspace.join("bare/hooks").exists() && !tree.workspace.join("bare/commondir").exists());
    let mut plan = tree.plan();
    plan.own_git = true;
    tree.run(&plan, attack).await;
    assert!(tree.workspace.join("bare/hooks").exists(), "an own copy has nobody to protect");
}

#[tokio::test]
async fn a_hostile_common_folder_ends_no_search() {
    let tree = Tree::new(&[
        ("a/.git/commondir", "."),
        ("b/.git/commondir", "../../c/.git"),
        ("c/.git/commondir", "../../b/.git"),
    ]);
    for name in ["d", "e"] {
        fs::create_dir_all(tree.workspace.join(name).join(".git")).expect("a folder");
    }
    let pipe = tree.workspace.join("d/.git/commondir");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::from_raw_mode(0o600)).expect("a pipe");
    symlink("/proc/self/environ", tree.workspace.join("e/.git/commondir")).expect("a link");
    assert_eq!(tree.run(&tree.plan(), "echo fine").await, "fine\n");
}

#[tokio::test]
async fn a_socket_is_covered_only_while_somebody_listens_outside() {
    let tree = Tree::new(&[]);
    let path = tree.workspace.join("server.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).expect("a listener");
    let script = "test -S server.sock && echo shown; rm -f server.sock 2>/dev/null && echo removed";
    if adj_sandbox::landlock_abi() < 9 {
        assert_eq!(tree.run(&tree.plan(), script).await, "");
    }
    drop(listener);
    // What a server of an earlier command has left behind is in nobody's way.
    assert_eq!(tree.run(&tree.plan(), script).await, "shown\nremoved\n");
}
