//! `adjutant sandbox`: any command, confined, with its streams and codes passed through.

mod network;
mod signals;

use crate::support::{Done, World};
use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

const CANARY: &str = "canary-51d0c7aa93e8";

/// A command line, without having been started.
fn sandboxed(world: &World, at: &Path, words: &[&str]) -> Command {
    let mut command = world.command(at, [&["sandbox"], words].concat());
    command.env("SECRET_OF_MINE", CANARY).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(world: &World, at: &Path, words: &[&str]) -> Done {
    Done::of(sandboxed(world, at, words).output().expect("the binary can be started"))
}

/// Runs a shell script with these flags.
fn script(world: &World, at: &Path, flags: &[&str], script: &str) -> Done {
    run(world, at, &[flags, &["--", "sh", "-c", script]].concat())
}

#[test]
fn streams_and_codes_are_the_commands() {
    let world = World::new();
    let folder = world.folder("work", &[("plain.txt", "text\n")]);
    let mut command = sandboxed(&world, &folder, &["--", "sh", "-c", "cat; echo said >&2; exit 41"]);
    let mut child = command.stdin(Stdio::piped()).spawn().expect("the binary can be started");
    child.stdin.take().expect("a pipe").write_all(b"fed").expect("it is read");
    let done = Done::of(child.wait_with_output().expect("it ends")).exits(41);
    assert_eq!((done.out.as_str(), done.err.as_str()), ("fed", "said\n"));
    let link = world.path("link");
    std::os::unix::fs::symlink("elsewhere", &link).expect("a link can be made");
    let cases: [(&[&str], i32, &str); 12] = [
        (&["--", "true"], 0, ""),
        (&["--", "sh", "-c", "kill -9 $$"], 137, ""),
        (&["--", "no-such-program"], 127, "cannot start no-such-program"),
        (&["--", "./missing"], 127, "only the folder"),
        (&["--", "./plain.txt"], 126, "chmod +x"),
        (&["--sandbox", "none", "--", "true"], 125, "read-only, workspace-write"),
        (&["--"], 125, "CMD"),
        (&["true"], 125, "--"),
        (&["--cd", "/usr", "--", "true"], 125, "too much"),
        (&["--log", "/proc/none", "--", "true"], 125, "cannot write to /proc/none"),
        (&["--log", "egress.jsonl", "--", "true"], 125, "where the command may change it"),
        (&["--log", link.to_str().expect("plain"), "--", "true"], 125, "symbolic links"),
    ];
    for (words, code, expected) in cases {
        let done = run(&world, &folder, words).exits(code);
        assert!(done.err.contains(expected), "{words:?}: {done}");
        assert_eq!(done.out, "", "{words:?}");
    }
    assert_eq!(run(&world, &folder, &["explain", "--profile", "none"]).code, Some(2), "nothing is run there");
}

#[test]
fn a_mode_is_what_can_be_changed() {
    let world = World::new();
    let folder = world.folder("work", &[("file", "as it was\n")]);
    std::fs::create_dir(folder.join(".git")).expect("a folder can be made");
    let change =
        "cat file; echo new > file; echo x > .git/config; echo y > /etc/z; echo t > /tmp/t && cat /tmp/t; true";
    let done = script(&world, &folder, &["--sandbox", "read-only"], change).exits(0);
    assert_eq!(done.out, "as it was\nt\n");
    assert_eq!(done.err.matches("cannot create").count(), 3, "{done}");
    let done = script(&world, &folder, &[], change).exits(0);
    assert_eq!(done.err.matches("cannot create").count(), 2, "{done}");
    assert_eq!(std::fs::read_to_string(folder.join("file")).expect("it is there"), "new\n");
    assert!(!folder.join(".git/config").exists());
    let home = world.path("home");
    std::fs::write(home.join("mine"), CANARY).expect("it can be written");
    let look = format!("cat {}; ls -A ~", home.join("mine").display());
    let done = script(&world, &folder, &[], &look).exits(0);
    assert!(done.err.contains("No such file") && !done.to_string().contains(CANARY), "{done}");
    let done = script(&world, &folder, &["--sandbox", "danger-full-access"], &look).exits(0);
    assert!(done.out.starts_with(CANARY), "{done}");
    assert_eq!(left_in(&folder), [".git", "file"], "no placeholder is left");
}

fn left_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a folder").flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn nothing_of_ours_is_inside() {
    let world = World::new();
    let folder = world.folder("work", &[]);
    let look =
        "env; cat /proc/*/environ /proc/*/cmdline | tr '\\0' ' '; grep -a SECRET_OF /proc/[0-9]*/mem; echo looked";
    let done = script(&world, &folder, &[], look).exits(0);
    assert!(done.out.contains("looked") && done.out.contains("HOME=/home/agent"), "{done}");
    assert!(!done.to_string().contains(CANARY), "{done}");
    let done = script(&world, &folder, &["--sandbox", "danger-full-access"], "env").exits(0);
    assert!(!done.out.contains(CANARY), "{done}");
}

#[test]
fn limits_hold_and_say_so() {
    let world = World::new();
    let folder = world.folder("work", &[]);
    let cases = [
        ("wall=300ms", "sleep 100", 124, "longer than the limit wall=300ms"),
        (
            "memory=64MiB",
            "for i in 1 2 3 4; do perl -e '$x = \"x\" x 30e6; sleep 20' & done; wait",
            137,
            "more memory than the limit memory=64MiB",
        ),
        ("output=10KiB", "yes", 137, "more output than the limit output=10KiB"),
        ("cpu=1s", "while :; do :; done", 137, "more processor time than the limit cpu=1s"),
        ("disk=4MiB", "head -c 8000000 /dev/zero > much; sleep 100", 137, "grew by more than the limit disk=4MiB"),
        ("file-size=1KiB", "head -c 2000 /dev/zero > big; exit 3", 3, ""),
    ];
    for (limit, command, code, expected) in cases {
        let done = script(&world, &folder, &["--limit", limit], command).exits(code);
        assert!(done.err.contains(expected), "{limit}: {done}");
        assert!(done.out.len() < 50_000, "{limit}");
    }
    assert_eq!(std::fs::metadata(folder.join("big")).expect("it was begun").len(), 1024);
    // What nobody limits is not cut either.
    assert_eq!(script(&world, &folder, &[], "head -c 300000 /dev/zero | tr '\\0' x").exits(0).out.len(), 300_000);
}

#[test]
fn policy_has_the_last_word() {
    let world = World::new();
    let folder = world.folder("work", &[(".env", CANARY), ("open", "open\n")]);
    world.settings(
        "policy.toml",
        "allowed_sandbox_modes = [\"read-only\", \"workspace-write\"]\n[limits]\nwall = \"300ms\"\n\
         [filesystem]\nhidden = [\"**/.env\"]\nreadonly = [\"open\"]\n[secrets]\nallowed = []\n",
    );
    let refused = script(&world, &folder, &["--sandbox", "danger-full-access"], "echo ran").exits(125);
    assert!(refused.err.contains("allowed_sandbox_modes") && refused.err.contains("policy.toml:1"), "{refused}");
    let refused = script(&world, &folder, &["--secret", "token", "--allow-host", "a.test"], "echo ran").exits(125);
    assert!(refused.err.contains("secrets.allowed"), "{refused}");
    assert_eq!(script(&world, &folder, &["--limit", "wall=1h"], "sleep 100").code, Some(124));
    let done = script(&world, &folder, &[], "cat .env; echo x > open; cat open").exits(0);
    assert_eq!(done.out, "open\n", "{done}");
    assert!(!done.to_string().contains(CANARY), "{done}");
    let useless = script(&world, &folder, &["--secret", "token"], "true").exits(125);
    assert!(useless.err.contains("secrets.allowed"), "{useless}");
    world.settings("policy.toml", "");
    let useless = script(&world, &folder, &["--secret", "token"], "true").exits(125);
    assert!(useless.err.contains("no host may be reached"), "{useless}");
}
