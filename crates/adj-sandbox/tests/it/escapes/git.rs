//! Planting what git, or another tool of the user's, will execute outside; the judge is the user's own git, as plain as it comes.
//!
//! Where a command may make new folders it may make new repositories, so the last few are judged by a git with the settings that we run it with.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command as Program, Stdio};

use super::Harm::Seen;
use super::{Case, case};
use crate::stage::{Stage, repository};

/// A script that shows that it ran, and folders for other repositories; everything is committed.
const PLAIN: fn(&mut Stage) = prepare;

const FIVE: &str = "a/b/c/d/e";
const TWELVE: &str = "1/2/3/4/5/6/7/8/9/10/11/12";

/// How we run git ourselves, as far as it matters here.
const OURS: &[&str] = &["core.fsmonitor=false", "core.hooksPath=/dev/null", "safe.bareRepository=explicit"];

pub(super) const CASES: &[Case] = &[
    case("hook before a commit", "cp evil .git/hooks/pre-commit", Seen(by_commit)).after(PLAIN),
    case("hook after a checkout", "cp evil .git/hooks/post-checkout", Seen(by_checkout)).after(PLAIN),
    case("hooks elsewhere", "mkdir h; cp evil h/pre-commit; git config core.hooksPath $WS/h", Seen(by_commit)).after(PLAIN),
    case("hooks in a folder that was named before", "cp evil hooks/pre-commit", Seen(by_commit))
        .after(|stage| {
            prepare(stage);
            fs::create_dir(stage.workspace.join("hooks")).expect("a folder");
            git(&stage.workspace, &["config", "core.hooksPath", "hooks"]);
        })
        .with(|_, plan| plan.protect.push("hooks".into())),
    case("file system monitor", "git config core.fsmonitor $WS/evil", Seen(by_status)).after(PLAIN),
    case("config by appending", "printf '[core]\\nfsmonitor = %s/evil\\n' $WS >> .git/config", Seen(by_status)).after(PLAIN),
    case("config by renaming", "cp .git/config n; git config -f n core.fsmonitor $WS/evil; mv -f n .git/config", Seen(by_status)).after(PLAIN),
    case("config by a second name", "ln .git/config n; git config -f n core.fsmonitor $WS/evil; cat n > .git/config", Seen(by_status)).after(PLAIN),
    case("config of an included file", "git config include.path ../c; git config -f c core.fsmonitor $WS/evil", Seen(by_status)).after(PLAIN),
    case("difference program", "git config diff.external $WS/evil; echo x >> file.txt", Seen(by_diff)).after(PLAIN),
    case("text conversion", "git config diff.x.textconv $WS/evil; echo '* diff=x' > .gitattributes; echo x >> file.txt", Seen(by_diff)).after(PLAIN),
    case("clean filter", "git config filter.x.clean $WS/evil; echo '* filter=x' > .gitattributes; echo x >> file.txt", Seen(by_add)).after(PLAIN),
    case("smudge filter", "git config filter.x.smudge $WS/evil; echo '* filter=x' > .gitattributes", Seen(by_checkout)).after(PLAIN),
    case("attributes of the repository", "mkdir -p .git/info; echo '* filter=known' > .git/info/attributes; echo x >> file.txt", Seen(by_add))
        .after(|stage| {
            prepare(stage);
            let evil = stage.workspace.join("evil");
            git(&stage.workspace, &["config", "filter.known.clean", evil.to_str().expect("plain")]);
        }),
    case("editor", "git config core.editor $WS/evil", Seen(by_commit)).after(PLAIN),
    case("signing program", "git config gpg.program $WS/evil; git config commit.gpgSign true", Seen(by_commit)).after(PLAIN),
    case("secure shell", "git config core.sshCommand $WS/evil; git config remote.origin.url ssh://nowhere.invalid/x", Seen(by_fetch)).after(PLAIN),
    case("other end's program", "git config remote.origin.url $WS; git config remote.origin.uploadpack $WS/evil", Seen(by_fetch)).after(PLAIN),
    case("another protocol", "git config remote.origin.url \"ext::$WS/evil\"; git config protocol.ext.allow always", Seen(by_fetch)).after(PLAIN),
    case("keeper of passwords", "git config credential.helper $WS/evil", Seen(by_credential)).after(PLAIN),
    case("alias", "git config alias.st \"!$WS/evil\"", Seen(by_alias)).after(PLAIN),
    case("common folder", "cp -r .git fake; git config -f fake/config core.fsmonitor $WS/evil; echo $WS/fake > .git/commondir", Seen(by_status)).after(PLAIN),
    case("config of the work tree", "git config -f .git/config.worktree core.fsmonitor $WS/evil", Seen(by_status)).after(|stage| {
        prepare(stage);
        git(&stage.workspace, &["config", "extensions.worktreeConfig", "true"]);
    }),
    case("replace .git", "mv .git g; cp -r g .git; git config core.fsmonitor $WS/evil", Seen(by_status)).after(PLAIN),
    case("exchange .git", "cp -r .git g; git config -f g/config core.fsmonitor $WS/evil; $ATTACK exchange g .git", Seen(by_status)).after(PLAIN),
    case("remove .git", "rm -rf .git", Seen(|stage| !stage.workspace.join(".git/config").exists())).after(PLAIN),
    case("change what .git points at", "cp -r ../real fake; git config -f fake/config core.fsmonitor $WS/evil; echo gitdir: $WS/fake > .git", Seen(by_status))
        .after(linked)
        .with(|stage, plan| {
            let host = stage.workspace.with_file_name("real");
            plan.binds.push(adj_sandbox::Bind { inside: host.clone(), host, writable: false });
        }),
    case("replace what .git points at", "cp -r ../real fake; git config -f fake/config core.fsmonitor $WS/evil; echo gitdir: $WS/fake > n; mv -f n .git", Seen(by_status))
        .after(linked)
        .with(|stage, plan| {
            let host = stage.workspace.with_file_name("real");
            plan.binds.push(adj_sandbox::Bind { inside: host.clone(), host, writable: false });
        }),
    case("make the missing .git", "git init -q; git config core.fsmonitor $WS/evil", Seen(by_status)).after(without),
    case("link the missing .git", "git init -q fake; git config -f fake/.git/config core.fsmonitor $WS/evil; ln -s fake/.git .git", Seen(by_status)).after(without),
    case("point the missing .git", "git init -q fake; git config -f fake/.git/config core.fsmonitor $WS/evil; echo gitdir: fake/.git > .git", Seen(by_status)).after(without),
    case("make the workspace a repository", "git init -q --bare n; mv n/* .; git config -f config core.bare false; git config -f config core.worktree $WS; git config -f config core.fsmonitor $WS/evil", Seen(by_status)).after(without),
    case("config of a bare repository", "git config -f config core.bare false; git config -f config core.worktree $WS; git config -f config core.fsmonitor $WS/evil", Seen(by_status)).after(bare),
    case("common folder of a bare repository", "mkdir n; cp -r objects refs config n; git config -f n/config alias.st \"!$WS/evil\"; echo n > commondir", Seen(by_alias)).after(bare),
    case("config of a nested bare repository", "git config -f store/config core.bare false; git config -f store/config core.worktree $WS; git config -f store/config core.fsmonitor $WS/evil", Seen(|stage| does_run(stage, "store", &[&["status"]]))).after(|stage| {
        prepare(stage);
        git(&stage.workspace, &["init", "-q", "--bare", "store"]);
    }),
    case("config that work trees share", "git config -f store/config core.fsmonitor $WS/evil", Seen(in_tree)).after(work_tree),
    case("hooks that work trees share", "mkdir -p store/hooks; cp evil store/hooks/pre-commit", Seen(|stage| does_run(stage, "tree", &[&["commit", "--allow-empty", "-m", "two"]]))).after(work_tree),
    case("a repository above", "git init -q ..; git -C .. config core.fsmonitor $WS/evil", Seen(by_status)).after(without),
    case("nested config", "git -C deep/sub config core.fsmonitor $WS/evil", Seen(in_nested)).after(PLAIN),
    case("nested five deep", "git -C a/b/c/d/e config core.fsmonitor $WS/evil", Seen(in_five)).after(|stage| {
        prepare(stage);
        repository(&stage.workspace.join(FIVE));
    }),
    case("nested twelve deep", "git -C 1/2/3/4/5/6/7/8/9/10/11/12 config core.fsmonitor $WS/evil", Seen(in_twelve)).after(|stage| {
        prepare(stage);
        repository(&stage.workspace.join(TWELVE));
    }),
    case("nested two hundred deep", "git -C $DEEP config core.fsmonitor $WS/evil", Seen(in_deep)).after(|stage| {
        prepare(stage);
        stage.say("DEEP", deep());
        repository(&stage.workspace.join(deep()));
    }),
    case("nested in a folder that cannot be listed", "chmod 700 shut; git -C shut/sub config core.fsmonitor $WS/evil", Seen(|stage| {
        let _ = fs::set_permissions(stage.workspace.join("shut"), PermissionsExt::from_mode(0o700));
        does_run(stage, "shut/sub", &[&["status"]])
    })).after(|stage| {
        prepare(stage);
        repository(&stage.workspace.join("shut/sub"));
        fs::set_permissions(stage.workspace.join("shut"), PermissionsExt::from_mode(0o300)).expect("a mode");
    }),
    case("config that a nested link leads to", "git config -f store/config core.fsmonitor $WS/evil", Seen(in_linked)).after(nested_link),
    case("replace a nested link", "cp -r store s2; git config -f s2/config core.fsmonitor $WS/evil; ln -s ../s2 n; mv -fT n linked/.git; rm -f linked/.git && ln -s ../s2 linked/.git", Seen(in_linked)).after(nested_link),
    case("config that a nested file leads to", "git config -f store/config core.fsmonitor $WS/evil", Seen(in_linked)).after(|stage| {
        nested_link(stage);
        fs::remove_file(stage.workspace.join("linked/.git")).expect("a link");
        fs::write(stage.workspace.join("linked/.git"), "gitdir: ../store\n").expect("a file");
    }),
    case("rename above a nested repository", "mv deep d; cp -r d deep; git -C deep/sub config core.fsmonitor $WS/evil", Seen(in_nested)).after(PLAIN),
    case("rename just above a nested repository", "mv deep/sub deep/s; cp -r deep/s deep/sub; git -C deep/sub config core.fsmonitor $WS/evil", Seen(in_nested)).after(PLAIN),
    case("change a submodule's .git", "git init -q fake; git config -f fake/.git/config core.fsmonitor $WS/evil; echo gitdir: $WS/fake/.git > module/.git", Seen(by_status)).after(|stage| {
        submodule(stage);
        repository(&stage.workspace.join("elsewhere"));
        fs::write(stage.workspace.join("module/.git"), "gitdir: ../elsewhere/.git\n").expect("a file");
    }),
    case("change a submodule's own folder", "git config -f .git/modules/m/config core.fsmonitor $WS/evil", Seen(|stage| {
        fs::read_to_string(stage.workspace.join(".git/modules/m/config")).is_ok_and(|text| text.contains("fsmonitor"))
    })).after(|stage| {
        prepare(stage);
        fs::create_dir_all(stage.workspace.join(".git/modules/m")).expect("a folder");
        fs::write(stage.workspace.join(".git/modules/m/config"), "").expect("a file");
    }),
    case("alternates", "mkdir -p .git/objects/info; echo /etc > .git/objects/info/alternates", Seen(|stage| stage.workspace.join(".git/objects/info/alternates").exists())).after(PLAIN),
    case("index", "echo x > .git/index", Seen(|stage| fs::read(stage.workspace.join(".git/index")).expect("an index") == b"x\n")).after(PLAIN),
    case("move the user's branch", "git -c user.name=a -c user.email=b commit -q --allow-empty -m x", Seen(|stage| {
        let log = fs::read_to_string(stage.workspace.join(".git/logs/HEAD")).expect("a log");
        log.lines().count() > 1
    })).after(PLAIN),
    case("delete the user's branch", "rm -f .git/refs/heads/main; git branch -D main", Seen(|stage| !stage.workspace.join(".git/refs/heads/main").exists())).after(PLAIN),
    case("our own folder", "mkdir -p .adjutant; echo x > .adjutant/settings", Seen(|stage| stage.workspace.join(".adjutant/settings").exists())),
    case("our own folder by a link", "ln -s /tmp .adjutant; rmdir .adjutant; ln -s /tmp .adjutant", Seen(|s| fs::symlink_metadata(s.workspace.join(".adjutant")).is_ok())),
    case("settings of the shell's folder", "echo x > .envrc", Seen(|stage| stage.workspace.join(".envrc").exists())),
    case("tasks of an editor", "mkdir .vscode; echo x > .vscode/tasks.json", Seen(|stage| stage.workspace.join(".vscode/tasks.json").exists())),
    case("settings of another editor", "mkdir .idea; echo x > .idea/workspace.xml", Seen(|stage| stage.workspace.join(".idea/workspace.xml").exists())),
    case("hooks of a known folder", "mkdir .husky; echo x > .husky/pre-commit", Seen(|stage| stage.workspace.join(".husky/pre-commit").exists())),
    // From here on by the git that we run ourselves.
    case("a submodule that was not there", "git init -q module; git -C module config core.fsmonitor $WS/evil", Seen(ours_by_status)).after(submodule),
    case("a new repository", "git init -q new; git -C new config core.fsmonitor $WS/evil; cp evil new/.git/hooks/pre-commit", Seen(ours_in_new)).after(PLAIN),
    case("a bare repository", "git init -q --bare new; git -C new config core.bare false; git -C new config core.worktree $WS; git -C new config core.fsmonitor $WS/evil", Seen(ours_in_new)).after(PLAIN),
];

/// A repository with one commit, a script that shows that it ran, and two nested repositories.
fn prepare(stage: &mut Stage) {
    let workspace = &stage.workspace;
    let evil = workspace.join("evil");
    fs::write(&evil, format!("#!/bin/sh\ntouch {}/planted\n", stage.outside.display())).expect("a script");
    fs::set_permissions(&evil, PermissionsExt::from_mode(0o755)).expect("a mode");
    git(workspace, &["add", "file.txt"]);
    git(workspace, &["-c", "user.name=a", "-c", "user.email=b", "commit", "-q", "-m", "one"]);
    fs::create_dir_all(workspace.join(".git/info")).expect("a folder");
}

/// The git folder lies elsewhere, as that of a linked work tree does.
fn linked(stage: &mut Stage) {
    prepare(stage);
    let real = stage.workspace.with_file_name("real");
    fs::rename(stage.workspace.join(".git"), &real).expect("a folder");
    fs::write(stage.workspace.join(".git"), format!("gitdir: {}\n", real.display())).expect("a file");
}

/// No repository at all.
fn without(stage: &mut Stage) {
    prepare(stage);
    fs::remove_dir_all(stage.workspace.join(".git")).expect("a folder");
}

/// The workspace itself is a repository without a work tree.
fn bare(stage: &mut Stage) {
    without(stage);
    git(&stage.workspace, &["init", "-q", "--bare", "."]);
}

/// A work tree of a repository that lies beside it.
fn work_tree(stage: &mut Stage) {
    prepare(stage);
    git(&stage.workspace, &["clone", "-q", "--bare", ".", "store"]);
    git(&stage.workspace.join("store"), &["worktree", "add", "-q", "-b", "new", "../tree"]);
}

/// The index knows a submodule that was not checked out.
fn submodule(stage: &mut Stage) {
    prepare(stage);
    fs::create_dir(stage.workspace.join("module")).expect("a folder");
    let entry = format!("160000,{},module", "1".repeat(40));
    git(&stage.workspace, &["update-index", "--add", "--cacheinfo", &entry]);
}

fn git(folder: &Path, arguments: &[&str]) {
    let status = user_git(folder).args(arguments).status().expect("git");
    assert!(status.success(), "git {arguments:?}");
}

fn user_git(folder: &Path) -> Program {
    let mut program = Program::new("git");
    program
        .current_dir(folder)
        .env_clear()
        .env("PATH", "/usr/bin:/bin:/usr/local/bin")
        .envs([("GIT_CONFIG_GLOBAL", "/dev/null"), ("GIT_CONFIG_NOSYSTEM", "1"), ("GIT_TERMINAL_PROMPT", "0")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    program
}

fn by_status(stage: &mut Stage) -> bool {
    does_run(stage, "", &[&["status"]])
}

fn by_diff(stage: &mut Stage) -> bool {
    does_run(stage, "", &[&["diff"]])
}

fn by_add(stage: &mut Stage) -> bool {
    does_run(stage, "", &[&["add", "file.txt"]])
}

fn by_commit(stage: &mut Stage) -> bool {
    does_run(stage, "", &[&["commit", "--allow-empty", "-m", "two"], &["commit", "--allow-empty"]])
}

fn by_checkout(stage: &mut Stage) -> bool {
    fs::remove_file(stage.workspace.join("file.txt")).expect("a file");
    does_run(stage, "", &[&["checkout", "-f", "-b", "other"], &["checkout", "-f"]])
}

fn by_fetch(stage: &mut Stage) -> bool {
    does_run(stage, "", &[&["fetch"]])
}

fn by_alias(stage: &mut Stage) -> bool {
    does_run(stage, "", &[&["st"]])
}

fn in_nested(stage: &mut Stage) -> bool {
    does_run(stage, "deep/sub", &[&["status"]])
}

fn in_five(stage: &mut Stage) -> bool {
    does_run(stage, FIVE, &[&["status"]])
}

fn in_twelve(stage: &mut Stage) -> bool {
    does_run(stage, TWELVE, &[&["status"]])
}

fn deep() -> String {
    (0..200).map(|level| level.to_string()).collect::<Vec<_>>().join("/")
}

fn in_deep(stage: &mut Stage) -> bool {
    does_run(stage, &deep(), &[&["status"]])
}

fn in_linked(stage: &mut Stage) -> bool {
    does_run(stage, "linked", &[&["status"]])
}

fn in_tree(stage: &mut Stage) -> bool {
    does_run(stage, "tree", &[&["status"]])
}

/// A repository whose `.git` is a link to a folder of another name.
fn nested_link(stage: &mut Stage) {
    prepare(stage);
    repository(&stage.workspace.join("linked"));
    fs::rename(stage.workspace.join("linked/.git"), stage.workspace.join("store")).expect("a folder");
    std::os::unix::fs::symlink("../store", stage.workspace.join("linked/.git")).expect("a link");
}

fn by_credential(stage: &mut Stage) -> bool {
    let question = stage.outside.join("question");
    fs::write(&question, "protocol=https\nhost=nowhere.invalid\n\n").expect("a file");
    let mut program = user_git(&stage.workspace);
    program.args(["credential", "fill"]).stdin(fs::File::open(question).expect("a file"));
    let _ = program.status();
    stage.outside.join("planted").exists()
}

/// What runs without the sandbox runs without our settings too.
fn ours_by_status(stage: &mut Stage) -> bool {
    if stage.is_confined { does_run_with(stage, "", OURS, &[&["status"]]) } else { by_status(stage) }
}

fn ours_in_new(stage: &mut Stage) -> bool {
    let commands: &[&[&str]] = &[&["status"], &["commit", "--allow-empty", "-m", "two"]];
    let settings = if stage.is_confined { OURS } else { &[] };
    does_run_with(stage, "new", settings, commands)
}

/// Lets the user work in a folder of the workspace, and tells whether the script ran.
fn does_run(stage: &Stage, folder: &str, commands: &[&[&str]]) -> bool {
    does_run_with(stage, folder, &[], commands)
}

fn does_run_with(stage: &Stage, folder: &str, settings: &[&str], commands: &[&[&str]]) -> bool {
    for arguments in commands {
        let mut program = user_git(&stage.workspace.join(folder));
        program.args(settings.iter().flat_map(|setting| ["-c", setting]));
        let _ = program.args(["-c", "user.name=a", "-c", "user.email=b"]).args(*arguments).status();
    }
    stage.outside.join("planted").exists()
}

#[tokio::test]
async fn nothing_is_planted_for_git() {
    super::nobody_gets_out("git", "escapes::git::nothing_is_planted_for_git", CASES).await;
}
