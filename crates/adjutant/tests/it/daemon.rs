//! `adjutant daemon` and `adjutant token` as processes: one daemon for a state folder, started, asked, stopped and killed.

use crate::support::{Done, World, kill, wait_for};
use adj_client::{Client, ClientError, Place};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

/// A world whose daemon ends with it.
struct Daemons {
    world: World,
    place: Place,
}

impl Daemons {
    fn new() -> Self {
        let world = World::new();
        let place = Place::new(world.state().join("daemon"));
        Self { world, place }
    }

    fn run(&self, words: &[&str]) -> Done {
        self.world.run(self.world.home.path(), words)
    }

    /// One in the foreground, that listens on a port that was free.
    fn serve(&self, words: &[&str]) -> Child {
        let words = [&["daemon", "--listen", "0"], words].concat();
        let mut command = self.world.command(self.world.home.path(), words);
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the binary can be started")
    }

    fn served(&self, words: &[&str]) -> (Child, Value) {
        let child = self.serve(words);
        (child, wait_for("the daemon to answer", || self.status()))
    }

    fn status(&self) -> Option<Value> {
        let done = self.run(&["daemon", "status", "--json"]);
        (done.code == Some(0)).then(|| done.lines().remove(0))
    }

    fn token(&self, scope: &str) -> String {
        self.run(&["token", "create", "--scope", scope]).exits(0).out.trim().to_owned()
    }
}

impl Drop for Daemons {
    fn drop(&mut self) {
        if let Some(holder) = self.place.holder() {
            kill(i32::try_from(holder.pid).expect("a process has a number"), Signal::KILL);
        }
    }
}

fn ended(mut child: Child) -> (Option<i32>, String) {
    let mut said = String::new();
    child.stderr.take().expect("it is piped").read_to_string(&mut said).expect("it is UTF-8");
    (child.wait().expect("it ends").code(), said)
}

fn address(status: &Value) -> String {
    status["addresses"][0].as_str().expect("it listens").to_owned()
}

/// Asks with a token, as a program would.
fn ask(status: &Value, token: &str, path: &str) -> Result<Value, ClientError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async { Client::http(&address(status), token)?.get(path).await })
}

#[test]
fn one_daemon_serves_a_state_folder_until_it_is_told_to_stop() {
    let daemons = Daemons::new();
    assert_eq!(
        daemons.run(&["daemon", "status"]).exits(1).out,
        format!("No daemon runs for {}\n", daemons.world.state().display())
    );
    let (first, status) = daemons.served(&[]);
    assert_eq!((&status["pid"], &status["running"]), (&json!(first.id()), &json!(true)));
    let second = daemons.run(&["daemon", "--listen", "0"]).exits(2);
    assert!(second.err.contains(&format!("(process {}, since ", first.id())), "{second}");
    assert_eq!(daemons.run(&["daemon", "start"]).exits(0).out.lines().next(), Some("A daemon runs already"));
    let stopped = daemons.run(&["daemon", "stop"]).exits(0);
    assert_eq!(stopped.out, format!("Stopped process {}\n", first.id()));
    assert!(!daemons.place.is_held() && !daemons.place.socket().exists());
    let (code, said) = ended(first);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(" INFO  listening on ") && said.ends_with(" INFO  stopped\n"), "{said}");
    daemons.run(&["daemon", "stop"]).exits(0);
}

#[test]
fn a_daemon_is_started_once_by_whoever_needs_it_and_outlives_them() {
    let daemons = Daemons::new();
    let words = ["daemon", "start", "--listen", "0"];
    let starting: Vec<Child> = (0..4)
        .map(|_| {
            let mut command = daemons.world.command(daemons.world.home.path(), words);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary can be started")
        })
        .collect();
    for child in starting {
        Done::of(child.wait_with_output().expect("it ends")).exits(0);
    }
    let status = daemons.status().expect("it outlives who started it");
    let pid = status["pid"].as_u64().expect("it has a number");
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it is alive");
    let session = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(3)).map(str::to_owned);
    assert_eq!(session, Some(pid.to_string()), "it leads a session of its own: {stat}");
    let log = fs::read_to_string(daemons.place.log()).expect("there is a log");
    assert_eq!(log.matches("listening on").count(), 1, "{log}");
    let mode = |name: &str| {
        let meta = fs::metadata(daemons.place.folder().join(name)).expect("it is there");
        meta.permissions().mode() & 0o777
    };
    assert_eq!(["", "socket", "seat", "log"].map(mode), [0o700, 0o600, 0o600, 0o600]);
    daemons.run(&["daemon", "stop"]).exits(0);
}

#[test]
fn what_a_killed_daemon_leaves_blocks_nobody() {
    let daemons = Daemons::new();
    for _ in 0..2 {
        let (mut child, _) = daemons.served(&[]);
        child.kill().expect("it is ours");
        child.wait().expect("it ends");
        assert!(daemons.place.socket().exists(), "nobody cleaned up");
        daemons.run(&["daemon", "status"]).exits(1);
    }
    daemons.run(&["daemon", "start", "--listen", "none"]).exits(0);
    let status = daemons.status().expect("it runs");
    assert_eq!(status["addresses"], json!([]));
    daemons.run(&["daemon", "stop"]).exits(0);
}

#[test]
fn signals_let_what_is_under_way_end_and_the_second_does_not_wait() {
    let daemons = Daemons::new();
    for signal in [Signal::TERM, Signal::INT] {
        let (child, _) = daemons.served(&[]);
        kill(i32::try_from(child.id()).expect("a number"), signal);
        assert_eq!(ended(child).0, Some(0));
    }
    // A request that never comes to its end.
    let (child, status) = daemons.served(&["--grace", "600"]);
    let host = address(&status).replace("http://", "");
    let mut half = TcpStream::connect(&host).expect("it listens");
    let token = daemons.token("api");
    let head = format!("POST /v1/models HTTP/1.1\r\nhost: {host}\r\nx-api-key: {token}\r\ncontent-length: 5\r\n\r\n");
    half.write_all(&head.as_bytes()[..head.len() - 2]).expect("it can be written");
    let pid = i32::try_from(child.id()).expect("a number");
    wait_for("the connection", || (daemons.status()?["connections"].as_u64()? >= 2).then_some(()));
    kill(pid, Signal::TERM);
    wait_for("the door to close", || (!daemons.place.socket().exists()).then_some(()));
    assert!(daemons.place.is_held(), "it waits for the request");
    let asked = Instant::now();
    kill(pid, Signal::TERM);
    assert_eq!(ended(child).0, Some(130));
    assert!(asked.elapsed() < Duration::from_secs(10));
}

#[test]
fn tokens_open_the_address_until_they_are_revoked() {
    let mut daemons = Daemons::new();
    daemons.world.set("ANTHROPIC_API_KEY", "sk-fake");
    assert_eq!(daemons.run(&["token", "list"]).exits(0).out, "No tokens yet; `adjutant token create` makes one\n");
    let (api, admin) = (daemons.token("api"), daemons.token("admin"));
    let (child, status) = daemons.served(&[]);
    let later = daemons.token("api");
    for token in [&api, &admin, &later] {
        let models = ask(&status, token, "/v1/models?limit=1000").expect("the token is good");
        let ids: Vec<&str> =
            models["data"].as_array().expect("a list").iter().filter_map(|model| model["id"].as_str()).collect();
        assert!(
            ids.contains(&"anthropic/claude-sonnet-4-5") && ids.iter().all(|id| id.starts_with("anthropic/")),
            "{ids:?}"
        );
    }
    let status_of = |answer: Result<Value, ClientError>| match answer {
        Ok(_) => 200,
        Err(ClientError::Refused { status, .. }) => status,
        Err(error) => panic!("{error}"),
    };
    assert_eq!(status_of(ask(&status, &api, "/admin/status")), 403);
    assert_eq!(status_of(ask(&status, &admin, "/admin/status")), 200);
    let listed = daemons.run(&["token", "list", "--json"]).exits(0);
    assert!(!listed.out.contains(&api[4..]) && !listed.out.contains("hash"), "{listed}");
    let ids: Vec<Value> = listed.lines().iter().map(|token| token["id"].clone()).collect();
    let first = ids[0].as_str().expect("a token has an id");
    daemons.run(&["token", "revoke", first]).exits(0);
    assert_eq!([&api, &later].map(|token| status_of(ask(&status, token, "/v1/models"))), [401, 200]);
    assert!(daemons.run(&["token", "revoke", first]).exits(2).err.contains("there is no token"));
    // No text of a token lies anywhere.
    let files = crate::support::files_of(&daemons.world.state());
    assert!(files.values().all(|content| !content.contains(&api[4..]) && !content.contains(&admin[4..])));
    daemons.run(&["daemon", "stop"]).exits(0);
    let (_, said) = ended(child);
    assert!(!said.contains(&api[4..]), "{said}");
}

#[test]
fn a_program_that_speaks_http_is_answered_line_by_line() {
    let daemons = Daemons::new();
    let (_child, status) = daemons.served(&["--host", "box.example"]);
    let host = address(&status).replace("http://", "");
    for (name, expected) in [("box.example", "HTTP/1.1 200 OK"), ("evil.example", "HTTP/1.1 403 Forbidden")] {
        let mut connection = TcpStream::connect(&host).expect("it listens");
        write!(connection, "GET /healthz HTTP/1.1\r\nhost: {name}\r\n\r\n").expect("it can be written");
        let mut first = String::new();
        BufReader::new(&connection).read_line(&mut first).expect("it answers");
        assert_eq!(first.trim_end(), expected, "{name}");
    }
    daemons.run(&["daemon", "stop"]).exits(0);
}
