//! A command that may reach some hosts, against servers on loopback: only a profile of the organisation may permit that.

use super::{CANARY, run};
use crate::support::{Done, World, files_of};
use serde_json::Value;
use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

/// A server that answers everything alike, and remembers what it was sent.
struct Server {
    port: u16,
    heard: Arc<Mutex<String>>,
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
        let port = listener.local_addr().expect("it is bound").port();
        let heard: Arc<Mutex<String>> = Arc::default();
        let memory = Arc::clone(&heard);
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut head = [0; 4096];
                let count = stream.read(&mut head).unwrap_or(0);
                memory.lock().expect("nobody panics here").push_str(&String::from_utf8_lossy(&head[..count]));
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\nconnection: close\r\n\r\nhello\n");
            }
        });
        Self { port, heard }
    }

    fn heard(&self) -> String {
        self.heard.lock().expect("nobody panics here").clone()
    }
}

/// The organisation's profile `local`, which permits what no flag can: an address that is not public.
fn permit(world: &World, port: u16, more: &str) {
    let host = format!("{{ host = \"localhost\", ports = [{port}], private_addresses = [\"127.0.0.0/8\", \"::1\"] }}");
    world.settings("policy.toml", &format!("[profiles.local]\nnetwork = {{ hosts = [{host}] }}\n{more}"));
}

fn fetch(world: &World, folder: &Path, flags: &[&str], more: &[&str], port: u16) -> Done {
    let url = format!("http://localhost:{port}/greeting?key=value");
    // Names of this machine are not sent to a proxy otherwise.
    let curl = ["--", "curl", "-sS", "--noproxy", "", "--max-time", "20", "-w", "%{http_code}"];
    run(world, folder, &[flags, &curl, more, &[&url]].concat())
}

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).expect("there is a log");
    text.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect()
}

#[test]
fn a_host_that_is_allowed_is_reached_and_all_is_written_down() {
    let world = World::new();
    let folder = world.folder("work", &[]);
    let (server, other) = (Server::start(), Server::start());
    permit(&world, server.port, "");
    let log = world.path("egress.jsonl");
    let flags = ["--profile", "local", "--log", log.to_str().expect("a temporary path is UTF-8")];
    let done = fetch(&world, &folder, &flags, &[], server.port).exits(0);
    assert_eq!((done.out.as_str(), done.err.as_str()), ("hello\n200", ""));
    assert!(server.heard().starts_with("GET /greeting?key=value HTTP/1.1\r\n"), "{}", server.heard());
    let done = fetch(&world, &folder, &flags, &[], other.port).exits(0);
    assert!(done.out.ends_with("403"), "{done}");
    let port = other.port;
    assert!(
        done.err.contains(&format!(
            "adjutant: refused GET localhost:{port}/greeting: hosts: localhost:{port} is not listed"
        )),
        "{done}"
    );
    assert_eq!(other.heard(), "");
    let written = lines(&log);
    let told: Vec<_> = written.iter().map(|line| (&line["type"], &line["verdict"], &line["to"]["port"])).collect();
    assert_eq!(told.len(), 2, "{written:?}");
    assert_eq!(told[0], (&"network.decided".into(), &"allow".into(), &server.port.into()));
    assert_eq!(told[1], (&"network.decided".into(), &"deny".into(), &other.port.into()));
    assert!(written.iter().all(|line| line["at"].is_string() && line["layer"].is_string()), "{written:?}");
    assert!(!written[0].to_string().contains("key=value"), "queries may hold what nobody should write down");
    // A flag alone opens no private address, and without either nothing is there.
    let allowed = format!("localhost:{}", server.port);
    let done = fetch(&world, &folder, &["--allow-host", &allowed], &[], server.port).exits(0);
    assert!(done.out.ends_with("403") && done.err.contains("addresses that are not public"), "{done}");
    let before = server.heard();
    assert_eq!(fetch(&world, &folder, &[], &[], server.port).code, Some(7), "curl cannot connect");
    assert_eq!(server.heard(), before);
    assert_eq!(fs::read_dir(world.state().join("trust")).expect("it was used").count(), 0, "certificates are gone");
}

#[test]
fn what_cannot_be_written_down_does_not_happen() {
    let world = World::new();
    let folder = world.folder("work", &[]);
    let server = Server::start();
    permit(&world, server.port, "");
    let flags = ["--profile", "local", "--log", "/dev/full"];
    let url = format!("http://localhost:{}/", server.port);
    let curl =
        format!("for i in 1 2 3; do curl -s -o /dev/null -w '%{{http_code}} ' --noproxy '' {url}; sleep 0.3; done");
    let done = run(&world, &folder, &[&flags[..], &["--", "sh", "-c", &curl]].concat()).exits(0);
    assert!(done.err.contains("the log cannot be written"), "{done}");
    assert!(done.out.ends_with("403 403 "), "{done}");
}

#[test]
fn a_secret_is_a_placeholder_inside_and_never_goes_out_in_the_clear() {
    let world = World::new();
    let folder = world.folder("work", &[]);
    let server = Server::start();
    permit(&world, server.port, "secrets = [\"token\"]\n");
    let host = format!("localhost:{}", server.port);
    let set = ["secret", "set", "token", "--host", &host, "--env", "TOKEN"];
    let mut child = world.command(&folder, set).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("it starts");
    child.stdin.take().expect("a pipe").write_all(CANARY.as_bytes()).expect("it is read");
    assert!(child.wait().expect("it ends").success());
    let look = "echo $TOKEN; env; cat /proc/*/environ | tr '\\0' ' '; cat /etc/ssl/adjutant.pem; grep -rs canary- / --include=* \
                --exclude-dir=proc --exclude-dir=usr --exclude-dir=lib; echo looked";
    let done = run(&world, &folder, &["--profile", "local", "--", "sh", "-c", look]).exits(0);
    let placeholder = done.out.lines().next().expect("a line").to_owned();
    assert!(placeholder.len() > 10 && done.out.contains("looked"), "{done}");
    assert!(!done.to_string().contains(CANARY), "{done}");
    let header = "Authorization: Bearer $TOKEN";
    let curl = format!("curl -sS --noproxy '' -H \"{header}\" -w '%{{http_code}}' http://{host}/");
    let done = run(&world, &folder, &["--profile", "local", "--", "sh", "-c", &curl]).exits(0);
    assert!(!done.out.ends_with("200"), "{done}");
    assert!(!server.heard().contains(CANARY) && !server.heard().contains(&placeholder), "{}", server.heard());
    for (file, text) in files_of(world.home.path()) {
        assert!(!text.contains(CANARY), "the value stands in {file}");
    }
    let explained = run(&world, &folder, &["explain", "--profile", "local", "--json"]).exits(0);
    assert!(!explained.out.contains(CANARY) && !explained.out.contains(&placeholder), "{explained}");
    assert_eq!(explained.lines()[0]["secrets"]["token"], "TOKEN");
}

/// A command that ends while its connections begin: each that is made is written down, or none is made any more.
#[test]
fn what_happens_at_the_end_is_written_down_too() {
    let world = World::new();
    let folder = world.folder("work", &[]);
    let server = Server::start();
    permit(&world, server.port, "");
    let log = world.path("egress.jsonl");
    let flags = ["--profile", "local", "--log", log.to_str().expect("a temporary path is UTF-8")];
    let url = format!("http://localhost:{}/", server.port);
    let curls = format!("for i in $(seq 20); do curl -s --noproxy '' {url} & done; sleep 0.1");
    for _ in 0..3 {
        run(&world, &folder, &[&flags[..], &["--", "bash", "-c", &curls]].concat()).exits(0);
    }
    thread::sleep(Duration::from_millis(300));
    let (reached, written) = (server.heard().matches("GET /").count(), lines(&log).len());
    assert!(reached <= written, "{reached} were reached, {written} are written down");
}

/// Runs a command at a terminal, types an answer when it is asked for, and returns what stood on the screen.
fn asked(world: &World, folder: &Path, answer: &str, port: u16) -> String {
    // No terminal in any place, no way to ask one anything, and nothing on the screen while a question is.
    let script = format!(
        "for i in 0 1 2; do [ -t $i ] && echo terminal; done; (: </dev/tty) 2>/dev/null && echo terminal; read x && echo heard; \
         printf '\\033[c\\n'; (while sleep 0.05; do echo tick; done) & curl -sS --noproxy '' http://localhost:{port}/; \
         kill $!; echo over"
    );
    let line = "exec \"$ADJUTANT\" sandbox --ask-hosts -- bash -c \"$SCRIPT\"";
    let mut command = world.command(folder, [""; 0]);
    let adjutant = command.get_program().to_owned();
    let environment: Vec<_> =
        command.get_envs().filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned()))).collect();
    command = Command::new("script");
    command.args(["-qe", "-c", line, "/dev/null"]).current_dir(folder).env_clear().envs(environment);
    command.env("ADJUTANT", adjutant).env("SCRIPT", script).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("script can be started");
    let (mut keys, mut screen) = (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
    let mut shown = String::new();
    let mut piece = [0; 1024];
    while !shown.contains("Allow it? ") {
        let count = screen.read(&mut piece).expect("the screen can be read");
        assert!(count > 0, "nobody asked: {shown}");
        shown.push_str(&String::from_utf8_lossy(&piece[..count]));
    }
    thread::sleep(Duration::from_millis(400));
    keys.write_all(answer.as_bytes()).expect("it is typed");
    while let Ok(count @ 1..) = screen.read(&mut piece) {
        shown.push_str(&String::from_utf8_lossy(&piece[..count]));
    }
    child.wait().expect("it ends");
    assert!(shown.contains("over") && shown.contains("?[c\r\n") && shown.contains("tick"), "{shown}");
    assert!(!shown.contains("terminal\r") && !shown.contains("heard") && !shown.contains('\u{1b}'), "{shown}");
    let typed = answer.replace('\n', "\r\n");
    assert!(shown.contains(&format!("Allow it? {typed}")), "what is written meanwhile waits: {shown}");
    shown
}

#[test]
fn people_at_the_terminal_are_asked_about_hosts() {
    let world = World::new();
    let folder = world.folder("work", &[]);
    let port = Server::start().port;
    let shown = asked(&world, &folder, "n\n", port);
    assert!(
        shown.contains(&format!("asks to reach localhost:{port}")) && shown.contains("nobody allowed it"),
        "{shown}"
    );
    // Whoever says yes to a name does not say yes to the addresses of this machine.
    let shown = asked(&world, &folder, "what?\ny\n", port);
    assert!(shown.contains("y or n, please") && shown.contains("addresses that are not public"), "{shown}");
}
