//! `adjutant secret`: values go in, and never come out again.

use crate::support::{Done, World, files_of};
use std::{
    io::Write,
    process::{Command, Stdio},
};

const CANARY: &str = "canary-7d1f03b2c8aa45";

/// Runs a command with a value on its standard input.
fn given(mut command: Command, value: &str) -> Done {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary can be started");
    let mut stdin = child.stdin.take().expect("it has an input");
    // One that refuses its arguments reads nothing.
    let _ = stdin.write_all(value.as_bytes());
    drop(stdin);
    Done::of(child.wait_with_output().expect("it ends"))
}

fn secret(world: &World, words: &[&str], value: &str) -> Done {
    given(world.command(world.home.path(), [&["secret"], words].concat()), value)
}

#[test]
fn a_value_is_stored_replaced_and_removed_but_never_shown() {
    let world = World::new();
    let host = ["--host", "api.example.org", "--host", "*.example.net:8443"];
    let set = [&["set", "token", "--env", "API_TOKEN", "--git", "--note", "for tests"], &host[..]].concat();
    let done = secret(&world, &set, &format!("{CANARY}\n")).exits(0);
    assert!(done.out.starts_with("Stored token; the vault's key lies in the key file\n"), "{done}");
    let mut said = vec![done, secret(&world, &set, CANARY).exits(0)];
    assert!(said[1].out.starts_with("Replaced token"), "{}", said[1]);
    for words in [&["list"][..], &["list", "--json"], &["show", "token"], &["show", "token", "--json"]] {
        let done = secret(&world, words, "").exits(0);
        assert!(done.out.contains("api.example.org") && done.out.contains("API_TOKEN"), "{done}");
        said.push(done);
    }
    for done in said {
        assert!(!done.to_string().contains(CANARY), "{done}");
    }
    for (file, text) in files_of(world.home.path()) {
        assert!(!text.contains(CANARY), "the value stands in {file}");
    }
    secret(&world, &["remove", "token"], "").exits(0);
    let gone = secret(&world, &["show", "token"], "").exits(2);
    assert!(gone.err.contains("there is no secret token"), "{gone}");
}

#[test]
fn what_cannot_be_stored_is_refused_with_a_reason() {
    let world = World::new();
    secret(&world, &["set", "first", "--host", "a.test", "--env", "TAKEN"], CANARY).exits(0);
    let cases: [(&[&str], &str, &str); 9] = [
        (&["set", "a"], CANARY, "--host"),
        (&["set", "a b", "--host", "a.test"], CANARY, "not a secret's name"),
        (&["set", "a", "--host", "127.0.0.1"], CANARY, "address"),
        (&["set", "a", "--host", "*.org"], CANARY, "all of *.org"),
        (&["set", "a", "--host", "a.test", "--env", "LD_PRELOAD"], CANARY, "steers programs"),
        (&["set", "a", "--host", "a.test", "--env", "TAKEN"], CANARY, "already holds"),
        (&["set", "a", "--host", "a.test", "--header", "Host"], CANARY, "steers the connection"),
        (&["set", "a", "--host", "a.test"], "", "there is no value"),
        (&["set", "a", "--host", "a.test"], "short", "shorter than"),
    ];
    for (words, value, expected) in cases {
        let done = secret(&world, words, value).exits(2);
        assert!(done.err.contains(expected), "{words:?}: {done}");
        assert!(!done.to_string().contains(CANARY), "{words:?}: {done}");
    }
    let listed = secret(&world, &["list", "--json"], "").exits(0).lines();
    assert_eq!(listed.len(), 1, "nothing of it was stored");
}

#[test]
fn a_session_is_refused_a_secret_that_is_not_there_or_not_permitted() {
    let world = World::playing("rules:\n  - say: hello\n");
    let folder = world.folder("work", &[]);
    let exec = ["exec", "hello", "--allow-host", "a.test", "--secret", "token"];
    let missing = world.run(&folder, &exec).exits(2);
    assert!(missing.err.contains("there is no secret token"), "{missing}");
    secret(&world, &["set", "token", "--host", "a.test"], CANARY).exits(0);
    world.run(&folder, &exec).exits(0);
    world.settings("policy.toml", "[secrets]\nallowed = [\"other\"]\n");
    let forbidden = world.run(&folder, &exec).exits(2);
    assert!(forbidden.err.contains("secrets.allowed") && forbidden.err.contains("policy.toml:2"), "{forbidden}");
}
