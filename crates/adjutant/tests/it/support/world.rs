//! A home of its own, with commands that are run in it.

use super::helpers::{kill_helpers, wait_for};
use adj_testkit::Home;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

/// A home, a state folder, and what is set in the environment of each command.
#[derive(Debug)]
pub struct World {
    pub home: Home,
    env: Vec<(String, String)>,
}

/// A command that has ended.
#[derive(Debug)]
pub struct Done {
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Done {
    pub fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            signal: output.status.signal(),
            out: String::from_utf8(output.stdout).expect("standard output is UTF-8"),
            err: String::from_utf8(output.stderr).expect("standard error is UTF-8"),
        }
    }

    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self}");
        self
    }

    pub fn was_killed(&self) -> bool {
        self.signal == Some(9)
    }

    /// Standard output as one JSON value a line.
    pub fn lines(&self) -> Vec<Value> {
        self.out.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"))).collect()
    }
}

impl std::fmt::Display for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} {:?}\n--- out\n{}\n--- err\n{}", self.code, self.signal, self.out, self.err)
    }
}

impl World {
    pub fn new() -> Self {
        let world = Self { home: Home::new(), env: Vec::new() };
        // Nobody's keyring is asked, whoever runs the test.
        world.settings("config.toml", "vault_key = \"file\"\n");
        world
    }

    /// Writes a file into the folder of the user's settings.
    pub fn settings(&self, name: &str, text: &str) {
        let folder = self.path("home/.config/adjutant");
        fs::create_dir_all(&folder).expect("a folder can be made");
        fs::write(folder.join(name), text).expect("it can be written");
    }

    /// The ids of the logs, where there is a journal.
    pub fn list_if_any(&self) -> Vec<String> {
        let done = self.trace(&["list", "--json"]);
        if done.code != Some(0) {
            return Vec::new();
        }
        done.lines().iter().filter_map(|log| log["id"].as_str().map(str::to_owned)).collect()
    }

    /// With a playbook that `--model scripted/any` plays.
    pub fn playing(playbook: &str) -> Self {
        let mut world = Self::new();
        world.play(playbook);
        world
    }

    /// Sets the playbook, also for what was begun with another.
    pub fn play(&mut self, playbook: &str) {
        let path = self.path("playbook.yaml");
        fs::write(&path, playbook).expect("a playbook can be written");
        self.set("ADJUTANT_PLAYBOOK", path.to_str().expect("a temporary path is UTF-8"));
        self.set("ADJUTANT_MODEL", "scripted/any");
    }

    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.env.retain(|(known, _)| known != name);
        self.env.push((name.to_owned(), value.into()));
    }

    pub fn state(&self) -> PathBuf {
        self.home.state()
    }

    /// A place in this world that no command looks at by itself.
    pub fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// A new folder with these files.
    pub fn folder(&self, name: &str, files: &[(&str, &str)]) -> PathBuf {
        let folder = self.path(name);
        fs::create_dir(&folder).expect("a folder can be made");
        for (path, content) in files {
            fs::write(folder.join(path), content).expect("a file can be written");
        }
        folder
    }

    pub fn command<S: AsRef<std::ffi::OsStr>>(&self, at: &Path, words: impl IntoIterator<Item = S>) -> Command {
        let mut command = self.home.command(env!("CARGO_BIN_EXE_adjutant"));
        command.args(words).current_dir(at).envs(self.env.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, at: &Path, words: &[&str]) -> Done {
        Done::of(self.command(at, words).output().expect("the binary can be started"))
    }

    /// Runs a command that dies right after its `writes`-th durable write.
    pub fn run_crashing(&self, at: &Path, words: &[&str], writes: u32) -> Done {
        let mut command = self.command(at, words);
        Done::of(command.env("ADJUTANT_CRASH_AFTER", writes.to_string()).output().expect("the binary can be started"))
    }

    /// Runs a command about what is in the state folder, from nowhere special.
    pub fn trace(&self, words: &[&str]) -> Done {
        self.run(self.home.path(), &[&["trace"], words].concat())
    }

    /// The logs, oldest first, as `trace list --json` tells.
    pub fn list(&self) -> Vec<Value> {
        let mut logs = self.trace(&["list", "--json", "--limit", "1000"]).exits(0).lines();
        logs.reverse();
        logs
    }

    /// The only run there is, with the number of its events.
    pub fn only_run(&self) -> (String, u64) {
        only(self.list(), "run_")
    }

    pub fn only_session(&self) -> (String, u64) {
        only(self.list(), "sesn_")
    }

    #[track_caller]
    pub fn verify(&self) {
        self.trace(&["verify"]).exits(0);
    }

    /// Waits until a call whose input holds this text is under way.
    pub fn wait_for_call(&self, part: &str) {
        let path = self.state().join("journal.db");
        let journal = wait_for("a journal", || {
            path.exists().then(|| rusqlite::Connection::open(&path).expect("a journal can be opened"))
        });
        let sql = "SELECT count(*) > 0 FROM events AS use JOIN events AS start USING (log)
                   WHERE use.kind = 'agent.tool_use' AND start.kind = 'tool.started' AND start.seq > use.seq
                   AND instr(use.body, ?1) > 0";
        // The tables are made a moment after the file.
        wait_for("a call", || journal.query_row(sql, [part], |row| row.get(0)).ok().filter(|found: &bool| *found));
    }

    pub fn journal(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.state().join("journal.db")).expect("there is a journal")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // What a failed or crashed command has left must not outlive its test.
        kill_helpers(&self.state());
    }
}

fn only(logs: Vec<Value>, prefix: &str) -> (String, u64) {
    let mut found = logs.iter().filter(|log| log["id"].as_str().is_some_and(|id| id.starts_with(prefix)));
    let log = found.next().unwrap_or_else(|| panic!("no {prefix}… in {logs:?}"));
    assert_eq!(found.next(), None, "more than one {prefix}…");
    let id = log["id"].as_str().expect("a log has an id").to_owned();
    (id, log["events"].as_u64().expect("a log has a number of events"))
}

/// Every file below a folder with its content; `.git` is left out.
pub fn files_of(folder: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).expect("a folder can be read") {
            let path = entry.expect("an entry can be read").path();
            if path.file_name().is_some_and(|name| name == ".git") {
                continue;
            }
            if path.is_dir() && !path.is_symlink() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(folder).expect("it lies below").display().to_string();
            let bytes = fs::read(&path).unwrap_or_else(|error| error.to_string().into_bytes());
            found.insert(name, String::from_utf8_lossy(&bytes).into_owned());
        }
    }
    found
}
