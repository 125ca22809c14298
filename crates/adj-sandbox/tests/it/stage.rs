//! A small world around a sandbox: a workspace, things outside that must stay untouched, and servers that must not be reached.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Program, Stdio};
use std::time::{Duration, Instant};

use adj_sandbox::{Bind, Command, Finished, Launcher, Mode, Mount, Plan, base_environment};

/// What nobody inside may ever see.
pub const CANARY: &str = "canary-7f3a91c5";

/// Where the attacker (this very program) lies inside.
const ATTACKER: &str = "/opt/attacker";

pub struct Stage {
    /// Removed with everything in it at the end.
    _folder: tempfile::TempDir,
    pub outside: PathBuf,
    pub workspace: PathBuf,
    pub launcher: Launcher,
    pub victim: Child,
    pub datagrams: UnixDatagram,
    pub udp: UdpSocket,
    pub abstract_name: String,
    port: u16,
    /// The canary in the memory of this process, where only an attacker who may look into it finds it.
    memory: Vec<u8>,
    secret: File,
    /// Whether the attempt was made in the sandbox.
    pub is_confined: bool,
    variables: Vec<(String, String)>,
    cleanups: Vec<Box<dyn FnOnce() + Send + Sync>>,
}

/// What an attempt left behind for its judge.
pub struct Evidence {
    pub stdout: String,
    pub stderr: String,
    pub took: Duration,
}

/// How an attempt is made without a sandbox.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Freely {
    AsWeAre,
    /// As root of namespaces of its own, because it would harm this machine otherwise.
    InOwnNamespaces,
}

impl Drop for Stage {
    fn drop(&mut self) {
        for cleanup in self.cleanups.drain(..) {
            cleanup();
        }
        let _ = self.victim.kill();
        let _ = self.victim.wait();
    }
}

impl Stage {
    pub fn new() -> Stage {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().canonicalize().expect("a real path");
        let (outside, workspace) = (root.join("outside"), root.join("workspace"));
        fs::create_dir(&outside).expect("a folder");
        fs::write(outside.join("secret"), CANARY).expect("a file");
        fs::write(outside.join("file"), "as it was").expect("a file");
        fs::create_dir(&workspace).expect("a folder");
        fs::write(workspace.join("file.txt"), "hello\n").expect("a file");
        for kept in [".ssh/id_ed25519", ".aws/credentials", ".docker/config.json", ".netrc", ".config/adjutant/vault"] {
            let file = root.join("home").join(kept);
            fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
            fs::write(file, CANARY).expect("a file");
        }
        repository(&workspace);
        repository(&workspace.join("deep/sub"));

        let tcp = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let port = tcp.local_addr().expect("an address").port();
        std::thread::spawn(move || {
            tcp.incoming().flatten().for_each(|mut peer| drop(peer.write_all(CANARY.as_bytes())))
        });
        let by_path = UnixListener::bind(outside.join("sock")).expect("a listener");
        let abstract_name = root.to_str().expect("plain").replace('/', "-");
        let address = SocketAddr::from_abstract_name(&abstract_name).expect("an address");
        let by_name = UnixListener::bind_addr(&address).expect("a listener");
        for listener in [by_path, by_name] {
            std::thread::spawn(move || {
                listener.incoming().flatten().for_each(|mut peer| drop(peer.write_all(CANARY.as_bytes())));
            });
        }
        let datagrams = UnixDatagram::bind(outside.join("datagrams")).expect("a socket");
        datagrams.set_nonblocking(true).expect("a flag");
        let victim = Program::new("sleep")
            .arg0(CANARY)
            .arg("1000")
            .process_group(0)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a process");
        let launcher = Launcher::current_exe().expect("our own program");
        let udp = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        udp.set_nonblocking(true).expect("a flag");
        let secret = File::open(outside.join("secret")).expect("the secret");
        Stage {
            _folder: folder,
            outside,
            workspace,
            launcher,
            victim,
            datagrams,
            udp,
            abstract_name,
            port,
            memory: CANARY.as_bytes().to_vec(),
            secret,
            is_confined: false,
            variables: Vec::new(),
            cleanups: Vec::new(),
        }
    }

    /// One more word for the scripts.
    pub fn say(&mut self, name: &str, value: impl ToString) {
        self.variables.push((name.to_owned(), value.to_string()));
    }

    /// What is to be done when the stage is taken down.
    pub fn finally(&mut self, cleanup: impl FnOnce() + Send + Sync + 'static) {
        self.cleanups.push(Box::new(cleanup));
    }

    /// The workspace at its own path, writable, with the attacker beside it.
    pub fn plan(&self) -> Plan {
        let mut plan = Plan::new(Mode::WorkspaceWrite);
        plan.workspace = Mount::Direct { host: self.workspace.clone(), inside: self.workspace.clone() };
        plan.cwd = self.workspace.clone();
        plan.binds.push(Bind { host: own_program(), inside: ATTACKER.into(), writable: false });
        plan.env.extend(self.variables(Path::new(ATTACKER)));
        plan
    }

    fn variables(&self, attacker: &Path) -> Vec<(String, String)> {
        let text = |path: &Path| path.to_str().expect("plain").to_owned();
        let fixed = [
            ("OUT", text(&self.outside)),
            ("WS", text(&self.workspace)),
            ("KEEPS", text(&self.workspace.with_file_name("home"))),
            ("ATTACK", format!("{} __attack", text(attacker))),
            ("PORT", self.port.to_string()),
            ("UDP", self.udp.local_addr().expect("an address").port().to_string()),
            ("ABSTRACT", self.abstract_name.clone()),
            ("VICTIM", self.victim.id().to_string()),
            ("OWN", std::process::id().to_string()),
            ("ADDRESS", (self.memory.as_ptr() as usize).to_string()),
            ("DESCRIPTOR", self.secret.as_raw_fd().to_string()),
        ];
        let fixed = fixed.map(|(name, value)| (name.to_owned(), value));
        fixed.into_iter().chain(self.variables.iter().cloned()).collect()
    }

    /// Runs a script in the sandbox.
    pub async fn run(&self, plan: &Plan, script: &str) -> Finished {
        let mut command = Command::new(["bash", "-c", script]);
        command.timeout = Duration::from_secs(20);
        self.launcher.run(plan, &command).await.expect("the sandbox works")
    }

    /// Runs a script in the sandbox, for a judge.
    pub async fn attack(&self, plan: &Plan, script: &str) -> Evidence {
        let finished = self.run(plan, script).await;
        Evidence { stdout: text(&finished.stdout), stderr: text(&finished.stderr), took: finished.duration }
    }

    /// Runs a script without any sandbox, to show that it would do harm.
    pub fn run_plainly(&self, script: &str) -> String {
        self.attack_freely(script, Freely::AsWeAre).stdout
    }

    /// Runs a script without any sandbox, for a judge; the environment is inherited, as everywhere where nobody cares.
    pub fn attack_freely(&self, script: &str, freely: Freely) -> Evidence {
        let mut program = match freely {
            Freely::AsWeAre => Program::new("bash"),
            Freely::InOwnNamespaces => {
                let mut program = Program::new("unshare");
                program.args(["--user", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child", "--net"]);
                program.args(["--uts", "--ipc", "--mount-proc", "bash"]);
                program
            }
        };
        let began = Instant::now();
        let output = program
            .args(["-c", script])
            .envs(base_environment())
            .envs(self.variables(&own_program()))
            .current_dir(&self.workspace)
            .stdin(Stdio::null())
            .output()
            .expect("bash");
        Evidence { stdout: text(&output.stdout), stderr: text(&output.stderr), took: began.elapsed() }
    }
}

/// A minimal repository, made by hand so that no configuration of this machine matters.
pub fn repository(folder: &Path) {
    fs::create_dir_all(folder.join(".git/objects")).expect("a folder");
    fs::create_dir_all(folder.join(".git/refs/heads")).expect("a folder");
    fs::create_dir_all(folder.join(".git/hooks")).expect("a folder");
    fs::write(folder.join(".git/HEAD"), "ref: refs/heads/main\n").expect("a file");
    fs::write(folder.join(".git/config"), "[core]\n\trepositoryformatversion = 0\n").expect("a file");
}

pub fn own_program() -> PathBuf {
    std::env::current_exe().expect("our own program")
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Processes of this machine whose command line contains a word, ourselves excepted.
pub fn processes_with(word: impl AsRef<OsStr>) -> Vec<String> {
    let word = word.as_ref().to_str().expect("plain").to_owned();
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    entries
        .filter(|entry| entry.file_name().to_str().is_some_and(|name| name.parse::<u32>().is_ok()))
        .filter_map(|entry| fs::read(entry.path().join("cmdline")).ok())
        .map(|line| text(&line).replace('\0', " "))
        .filter(|line| line.contains(&word))
        .collect()
}

/// Waits until a condition holds; `false` after ten seconds.
pub async fn eventually(mut condition: impl FnMut() -> bool) -> bool {
    for _ in 0..1000 {
        if condition() {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    false
}
