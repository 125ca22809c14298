//! Repositories and agents that plant code, links and strange names: nothing of it may run, be read or be written on the host.

use super::{does, squad};
use crate::support::{Done, World, files_of, wait_until_no_helper};
use adj_testkit::{GitRepository, git_repository};
use std::{
    ffi::OsStr,
    fs,
    net::TcpListener,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt, fs::symlink},
    path::Path,
};

const A: &str = "{ id: a, title: Part a, task: Write a }";
const SECRET: &str = "canary-7f21-secret-of-the-host";

fn run(world: &World, repository: &GitRepository) -> Done {
    let done = world.run(repository.path(), &["run", "Do it", "--gate", "true"]);
    wait_until_no_helper(&world.state());
    done
}

/// A script that tells whether it ever ran.
fn trap(world: &World, name: &str) -> String {
    let (script, mark) = (world.path(name), world.path("sprung").join(name));
    fs::create_dir_all(world.path("sprung")).expect("a folder can be made");
    fs::write(&script, format!("#!/bin/sh\ntouch '{}'\ncat\n", mark.display())).expect("a script can be written");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("a script can be made executable");
    script.to_str().expect("a temporary path is UTF-8").to_owned()
}

fn sprung(world: &World) -> Vec<String> {
    files_of(&world.path("sprung")).into_keys().collect()
}

/// Every hook of git, and every setting by which it starts other programs; filters are the user's own choice, as LFS is.
fn plant(world: &World, git: &Path) {
    let hooks = [
        "pre-commit",
        "post-commit",
        "pre-merge-commit",
        "post-merge",
        "post-checkout",
        "pre-auto-gc",
        "post-rewrite",
        "reference-transaction",
        "post-index-change",
        "pre-push",
        "prepare-commit-msg",
        "commit-msg",
        "update",
    ];
    fs::create_dir_all(git.join("hooks")).expect("a folder can be made");
    for hook in hooks {
        symlink(trap(world, hook), git.join("hooks").join(hook)).expect("a link can be made");
    }
    let mut config = fs::read_to_string(git.join("config")).expect("a repository has a configuration");
    let settings = [
        ("core", "fsmonitor"),
        ("core", "sshCommand"),
        ("core", "editor"),
        ("core", "pager"),
        ("core", "askPass"),
        ("diff", "external"),
        ("gpg", "program"),
        ("diff \"trap\"", "textconv"),
        ("diff \"trap\"", "command"),
        ("merge \"trap\"", "driver"),
        ("credential", "helper"),
        ("uploadpack", "packObjectsHook"),
    ];
    for (section, key) in settings {
        let name = format!("{}-{key}", section.replace(['"', ' '], ""));
        config.push_str(&format!("[{section}]\n\t{key} = {}\n", trap(world, &name)));
    }
    config.push_str("[commit]\n\tgpgSign = true\n[gc]\n\tauto = 1\n");
    fs::write(git.join("config"), config).expect("the configuration can be written");
}

#[test]
fn what_a_repository_plants_for_git_never_runs() {
    // Both change the same file, so that its halves have to be merged.
    let rules =
        does("a", "sed -i '1s/.*/by a/' file.txt; echo a > a.txt") + &does("b", "sed -i '9s/.*/by b/' file.txt");
    let two = "{ id: a, title: Part a, task: Write a }\n{ id: b, title: Part b, task: Write b }";
    let world = World::playing(&squad(two, &rules));
    let lines: String = (1..10).map(|number| format!("{number}\n")).collect();
    let files = [("file.txt", lines.as_str()), (".gitattributes", "* diff=trap merge=trap\n")];
    let repository = git_repository(&files);
    plant(&world, &repository.path().join(".git"));
    run(&world, &repository).exits(0);
    assert_eq!(sprung(&world), Vec::<String>::new());
    let text = fs::read_to_string(repository.path().join("file.txt")).expect("the file is there");
    assert_eq!(text, "by a\n2\n3\n4\n5\n6\n7\n8\nby b\n");

    // The same with changes that are taken along.
    fs::write(repository.path().join("new.txt"), "new\n").expect("a file can be written");
    let words = ["run", "Do it", "--gate", "true", "--include-dirty"];
    world.run(repository.path(), &words).exits(0);
    assert_eq!(sprung(&world), Vec::<String>::new());

    // The traps do work: the same git without our care springs some.
    repository.git(&["update-index", "--refresh"]);
    assert_ne!(sprung(&world), Vec::<String>::new());
}

/// A filter of the user's own configuration, such as LFS, is the user's choice, and serves the files that the user sees.
#[test]
fn filters_serve_only_the_users_own_files_and_only_those_of_the_user() {
    let mut world = World::new();
    let mark = world.folder("outside", &[]).join("planted");
    let own = format!(
        "git config filter.own.clean 'touch {0}; cat'; git config filter.own.smudge 'touch {0}; cat'
         echo '*.txt filter=own' >> .gitattributes; cat word.low > seen.txt; echo WORLD >> word.low",
        mark.display()
    );
    world.play(&squad(A, &does("a", &own)));
    let repository = git_repository(&[("seed.txt", "seed\n")]);
    repository.git(&["config", "filter.case.clean", "tr a-z A-Z"]);
    repository.git(&["config", "filter.case.smudge", "tr A-Z a-z"]);
    repository.write(".gitattributes", "*.low filter=case\n");
    repository.write("word.low", "hello\n");
    repository.git(&["add", "--all"]);
    repository.git(&["commit", "--quiet", "--message=words"]);
    run(&world, &repository).exits(0);
    assert_eq!(repository.git(&["show", "main:seen.txt"]), "HELLO", "agents see what is stored");
    assert_eq!(repository.git(&["show", "main:word.low"]), "HELLO\nWORLD");
    let text = fs::read_to_string(repository.path().join("word.low")).expect("the file is there");
    assert_eq!(text, "hello\nworld\n");
    assert_eq!(repository.git(&["status", "--porcelain"]), "");
    assert!(!mark.exists());
}

#[test]
fn links_of_a_repository_lead_nobody_to_the_hosts_files() {
    let world = World::new();
    fs::write(world.path("secret.txt"), SECRET).expect("a file can be written");
    let secret = world.path("secret.txt");
    let look = format!("cat AGENTS.md notes/link.txt {}; ls {}; true", secret.display(), world.home.path().display());
    let mut world = world;
    world.play(&squad(A, &does("a", &look)));
    let repository = git_repository(&[("seed.txt", "seed\n")]);
    fs::create_dir(repository.path().join("notes")).expect("a folder can be made");
    for link in ["AGENTS.md", "CLAUDE.md", "notes/link.txt"] {
        symlink(&secret, repository.path().join(link)).expect("a link can be made");
    }
    repository.git(&["add", "--all"]);
    repository.git(&["commit", "--quiet", "--message=links"]);
    run(&world, &repository).exits(0);
    let (run, _) = world.only_run();
    let log = world.trace(&["export", &run]).exits(0).out;
    assert!(log.contains("No such file or directory"), "the agent did look: {log}");
    assert!(!log.contains(SECRET), "{log}");
}

#[test]
fn strange_names_are_names() {
    let names: [&[u8]; 7] = [
        b"new\nline.txt",
        b"-rf",
        b"--help",
        b"esc\x1b[31mred.txt",
        b"space and 'quote\".txt",
        b"not utf8 \xff.txt",
        b"\t",
    ];
    let world = World::playing(&squad(
        A,
        &does("a", "for file in ./*; do echo more >> \"$file\"; done; echo a > \"$(printf 'of\\na')\""),
    ));
    let repository = git_repository(&[]);
    for name in names {
        fs::write(repository.path().join(OsStr::from_bytes(name)), "one\n").expect("a file can be written");
    }
    repository.git(&["add", "--all"]);
    repository.git(&["commit", "--quiet", "--message=names"]);
    let done = run(&world, &repository).exits(0);
    assert!(!done.to_string().contains('\u{1b}'), "{done:?}");
    assert_eq!(repository.git(&["status", "--porcelain"]), "");
    for name in names {
        let text = fs::read_to_string(repository.path().join(OsStr::from_bytes(name))).expect("the file is there");
        assert_eq!(text, "one\nmore\n", "{}", String::from_utf8_lossy(name));
    }
    assert!(repository.path().join("of\na").exists());
    world.verify();
    let (run, _) = world.only_run();
    for words in [&["show", &run][..], &["show", &run, "--full"], &["list"]] {
        let shown = world.trace(words).exits(0).out;
        assert!(!shown.contains('\u{1b}'), "{shown:?}");
    }
}

#[test]
fn what_an_agent_plants_stays_in_its_workspace() {
    let mut world = World::new();
    let outside = world.folder("outside", &[]);
    let mark = outside.join("planted");
    let plant = format!(
        "hook() {{ printf '#!/bin/sh\\ntouch {0}\\n' > \"$1\"; chmod +x \"$1\"; }}
         for name in post-checkout post-merge reference-transaction pre-commit post-index-change; do
             hook .git/hooks/$name; mkdir -p sub/.git/hooks; hook sub/.git/hooks/$name
         done
         git config core.fsmonitor 'touch {0}'; git config core.hooksPath \"$PWD/sub/.git/hooks\"
         printf '[core]\\n\\tfsmonitor = touch {0}\\n' >> .git/config
         git config --global core.fsmonitor 'touch {0}'
         touch {0} {1}/x \"$HOME/../x\" /etc/adj-planted /adj-planted /usr/adj-planted ../x ../../x
         mkdir -p {1}; ln -s {1} out; echo x > out/x
         ln -s / root; echo x > root{0}
         echo a > a.txt; true",
        mark.display(),
        outside.display()
    );
    world.play(&squad(A, &does("a", &plant)));
    let repository = git_repository(&[("seed.txt", "seed\n")]);
    let config = fs::read(repository.path().join(".git/config")).expect("a repository has a configuration");
    let hooks = files_of(&repository.path().join(".git/hooks"));
    run(&world, &repository).exits(0);
    assert_eq!(files_of(&outside).len(), 0, "{:?}", files_of(&outside));
    assert_eq!(fs::read(repository.path().join(".git/config")).expect("it is still there"), config);
    assert_eq!(files_of(&repository.path().join(".git/hooks")), hooks);
    // Links that were made are only links; the user's own git runs nothing of it either.
    assert_eq!(repository.git(&["status", "--porcelain"]), "");
    let landed = repository.git(&["ls-files"]);
    assert!(landed.contains("a.txt") && !landed.contains(".git/"), "{landed}");
    assert_eq!(files_of(&outside).len(), 0);
    for place in ["/etc/adj-planted", "/adj-planted", "/usr/adj-planted"] {
        assert!(!Path::new(place).exists(), "{place}");
    }
    world.verify();
}

#[test]
fn no_tool_reaches_the_network() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    listener.set_nonblocking(true).expect("a listener can be made non-blocking");
    let port = listener.local_addr().expect("a bound listener has an address").port();
    let call = format!(
        "(echo hello > /dev/tcp/127.0.0.1/{port}) 2>&1; (echo hello > /dev/udp/127.0.0.1/{port}) 2>&1; \
         cat /sys/class/net/*/operstate 2>/dev/null | sort -u; echo a > a.txt"
    );
    let world = World::playing(&squad(A, &does("a", &call)));
    let repository = git_repository(&[]);
    let gate = format!("! (echo hello > /dev/tcp/127.0.0.1/{port})");
    world.run(repository.path(), &["run", "Do it", "--gate", &gate]).exits(0);
    assert_eq!(repository.git(&["show", "main:a.txt"]), "a");
    let accepted = listener.accept().map(drop).map_err(|error| error.kind());
    assert_eq!(accepted, Err(std::io::ErrorKind::WouldBlock), "somebody came through");
}
