//! A secret through the whole binary: typed in once, used by its host, and found nowhere else.

use crate::support::{Done, World, helpers_of, wait_for};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    crypto::ring,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::MetadataExt,
    path::Path,
    process::Stdio,
    sync::{Arc, Mutex},
};

const CANARY: &str = "canary-9b0e5d2f71c84a36ee";

/// A forge on loopback that shows one branch to whoever signs in; it remembers how they did.
struct Forge {
    port: u16,
    roots: String,
    signed_in: Arc<Mutex<Vec<String>>>,
}

impl Forge {
    fn start() -> Self {
        let key = rcgen::KeyPair::generate().expect("a key can be made");
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let roots = params.self_signed(&key).expect("it can be signed").pem();
        let issuer = rcgen::Issuer::new(params, key);
        let leaf_key = rcgen::KeyPair::generate().expect("a key can be made");
        let leaf = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("the name is good");
        let leaf = leaf.signed_by(&leaf_key, &issuer).expect("it can be signed");
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(leaf_key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring knows them")
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], key);
        let config = Arc::new(config.expect("the key is the certificate's"));
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
        let port = listener.local_addr().expect("it is bound").port();
        let signed_in: Arc<Mutex<Vec<String>>> = Arc::default();
        let remembered = Arc::clone(&signed_in);
        // Ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // Who breaks off is no concern of the others.
                let _ = answer(stream, &config, &remembered);
            }
        });
        Self { port, roots, signed_in }
    }
}

fn answer(stream: TcpStream, config: &Arc<ServerConfig>, signed_in: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let connection = ServerConnection::new(Arc::clone(config)).map_err(std::io::Error::other)?;
    let mut stream = StreamOwned::new(connection, stream);
    let mut asked = Vec::new();
    while !asked.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        asked.push(byte[0]);
    }
    let asked = String::from_utf8_lossy(&asked).into_owned();
    let basic = asked.lines().find_map(|line| line.strip_prefix("Authorization: Basic "));
    let answer = match basic {
        None => "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"x\"\r\nContent-Length: 0\r\n".to_owned(),
        Some(pair) => {
            signed_in.lock().expect("no test panics here").push(pair.trim().to_owned());
            let packet = |line: &str| format!("{:04x}{line}", line.len() + 4);
            // A forge that talks too much gives away what it was given.
            let branch = format!("{} refs/heads/{CANARY}\0agent=test\n", "1".repeat(40));
            let body = format!("{}0000{}0000", packet("# service=git-upload-pack\n"), packet(&branch));
            let kind = "application/x-git-upload-pack-advertisement";
            format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n@@{body}", body.len())
        }
    };
    let (head, body) = answer.split_once("@@").unwrap_or((&answer, ""));
    write!(stream, "{head}Connection: close\r\n\r\n{body}")?;
    stream.conn.send_close_notify();
    stream.flush()
}

#[track_caller]
fn assert_without(what: &str, bytes: &[u8]) {
    let hex: String = CANARY.bytes().map(|byte| format!("{byte:02x}")).collect();
    let basic = BASE64_STANDARD.encode(format!("x-access-token:{CANARY}"));
    let encoded = BASE64_STANDARD.encode(CANARY);
    for spelling in [CANARY, &CANARY[7..], &hex, &basic[20..40], &encoded[..encoded.len() - 4]] {
        let found = bytes.windows(spelling.len()).any(|window| window == spelling.as_bytes());
        assert!(!found, "{what} holds {spelling}");
    }
}

/// Looks at every file below a folder, and tells how many there were.
fn look_through(folder: &Path) -> usize {
    let mut seen = 0;
    for entry in fs::read_dir(folder).expect("a folder can be read") {
        let path = entry.expect("an entry can be read").path();
        assert_without("a name", path.to_string_lossy().as_bytes());
        let kind = fs::symlink_metadata(&path).expect("it is there").file_type();
        if kind.is_dir() {
            seen += look_through(&path);
        } else if kind.is_file() {
            assert_without(&path.display().to_string(), &fs::read(&path).expect("it is ours"));
            seen += 1;
        }
    }
    seen
}

/// What others can see of a process, and whether it may leave a dump. Tells whether it was there to look at.
fn look_at(pid: i32, most_core: &[&str]) -> bool {
    for file in ["cmdline", "environ"] {
        // What not even we may read is read by nobody.
        let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        assert_without(&format!("{file} of {pid}"), &bytes);
    }
    // One that ends while we look is no longer there.
    let Ok(limits) = fs::read_to_string(format!("/proc/{pid}/limits")) else { return false };
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).expect("there is such a limit");
    let most: Vec<&str> = core.split_whitespace().skip(4).take(2).collect();
    assert!(most.iter().all(|limit| most_core.contains(limit)), "{pid}: {core}");
    true
}

#[test]
fn a_secret_reaches_its_host_and_appears_nowhere_else() {
    let forge = Forge::start();
    let script = format!(
        "env; cat /proc/*/environ /proc/*/cmdline | tr '\\\\0' '\\\\n'; touch here; until [ -e go ]; do sleep 0.02; done; \
         env -u no_proxy -u NO_PROXY git ls-remote https://localhost:{}/x.git 2>&1; echo looked",
        forge.port
    );
    let world = World::playing(&format!(
        "rules:\n  - {{when: {{after_tool: bash, input: \"(?s)^.*$\"}}, say: \"{{{{0}}}}\"}}\n  \
         - calls: [{{tool: bash, input: {{command: \"{script}\"}}}}]\n"
    ));
    fs::write(world.path("roots.pem"), &forge.roots).expect("it can be written");
    let roots = world.path("roots.pem").display().to_string();
    world.settings("config.toml", &format!("vault_key = \"file\"\nextra_roots = \"{roots}\"\n"));
    world.settings(
        "policy.toml",
        &format!(
            "[profiles.forge]\nnetwork = {{ hosts = [{{ host = \"localhost\", ports = [{}], \
             private_addresses = [\"127.0.0.1\", \"::1\"] }}] }}\n",
            forge.port
        ),
    );
    let folder = world.folder("work", &[]);
    let host = format!("localhost:{}", forge.port);
    let mut storing = world.command(&folder, ["secret", "set", "forge", "--host", &host, "--env", "TOKEN", "--git"]);
    let mut storing =
        storing.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    storing.stdin.take().expect("it has an input").write_all(CANARY.as_bytes()).expect("it reads");
    let stored = Done::of(storing.wait_with_output().expect("it ends")).exits(0);

    let mut command =
        world.command(&folder, ["exec", "--profile", "forge", "--secret", "forge", "show me the branches"]);
    command.env("RUST_LOG", "trace").stdout(Stdio::piped()).stderr(Stdio::piped());
    let running = command.spawn().expect("it starts");
    wait_for("a call under way", || folder.join("here").exists().then_some(()));
    // The one process that holds the value: no dump of it is ever written, and no other process of its user looks inside.
    let pid = i32::try_from(running.id()).expect("a process id fits");
    assert!(look_at(pid, &["0"]));
    let owner = fs::metadata(format!("/proc/{pid}/environ")).expect("it runs").uid();
    assert_eq!(owner, 0, "what cannot be dumped belongs to root");
    let helpers = helpers_of(&world.state()).into_iter();
    assert!(helpers.filter(|pid| look_at(*pid, &["0", "1"])).count() >= 2);
    fs::write(folder.join("go"), "").expect("it can be written");
    let done = Done::of(running.wait_with_output().expect("it ends")).exits(0);

    // Its host has it; of what the host gave back, the command has stars.
    let expected = BASE64_STANDARD.encode(format!("x-access-token:{CANARY}"));
    assert_eq!(*forge.signed_in.lock().expect("no test panics here"), [expected], "{done}");
    assert!(done.out.contains(&format!("refs/heads/{}", "*".repeat(CANARY.len()))), "{done}");
    assert!(done.out.contains("looked") && done.out.contains("TOKEN="), "{done}");
    for said in [&stored, &done] {
        assert_without("what was said", said.to_string().as_bytes());
    }
    let (session, _) = world.only_session();
    for words in [&["export", &session][..], &["show", &session, "--full"], &["list", "--json"]] {
        let told = world.trace(words).exits(0);
        assert_without("a trace", told.to_string().as_bytes());
        assert!(!told.out.is_empty());
    }
    let exported = world.trace(&["export", &session]).exits(0).lines();
    let used = exported.iter().find(|event| event["body"]["secrets"][0] == "forge").expect("the door tells of it");
    assert_eq!(used["type"], "network.decided", "{used}");
    assert!(look_through(world.home.path()) > 5);
    world.verify();
}

#[test]
fn certificates_that_are_none_are_refused_before_anything_starts() {
    let world = World::playing("rules:\n  - say: hello\n");
    let folder = world.folder("work", &[]);
    let path = world.path("roots.pem");
    world.settings("config.toml", &format!("vault_key = \"file\"\nextra_roots = \"{}\"\n", path.display()));
    let missing = world.run(&folder, &["exec", "hello"]).exits(2);
    assert!(missing.err.contains("extra_roots") && missing.err.contains("roots.pem"), "{missing}");
    fs::write(&path, "no certificate\n").expect("it can be written");
    let wrong = world.run(&folder, &["exec", "hello"]).exits(2);
    assert!(wrong.err.contains("not a certificate"), "{wrong}");
    fs::write(&path, Forge::start().roots).expect("it can be written");
    world.run(&folder, &["exec", "hello"]).exits(0);
}
