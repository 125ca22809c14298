//! The processes that hold a state folder's sandboxes.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

/// How long something that must happen may take, on a machine with much else to do.
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until `found` finds something; panics when it takes too long.
pub fn wait_for<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(started.elapsed() < PATIENCE, "waited too long for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Everything that runs for sessions of this state folder: supervisors, what is inside, what that has started.
pub fn helpers_of(state: &Path) -> Vec<i32> {
    let processes: Vec<i32> = fs::read_dir("/proc")
        .expect("there are processes")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    let mut found = Vec::new();
    for pid in processes {
        // One that ends while we look is no longer there.
        let Some(parent) = parent_of(pid) else { continue };
        children.entry(parent).or_default().push(pid);
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let is_helper = command.split(|byte| *byte == 0).any(|word| word == b"__sandbox");
        if is_helper && fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(state)) {
            found.push(pid);
        }
    }
    let mut index = 0;
    while let Some(pid) = found.get(index) {
        for child in children.get(pid).into_iter().flatten() {
            if !found.contains(child) {
                found.push(*child);
            }
        }
        index += 1;
    }
    found
}

/// The command lines of what runs for sessions of this state folder.
pub fn commands_of(state: &Path) -> Vec<String> {
    let lines = helpers_of(state).into_iter().filter_map(|pid| fs::read(format!("/proc/{pid}/cmdline")).ok());
    lines.map(|line| String::from_utf8_lossy(&line).trim_end_matches('\0').replace('\0', " ")).collect()
}

/// `None` for a process that is gone, or is dead and only waits to be taken off the table.
fn parent_of(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let is_dead = matches!(fields.next()?, "Z" | "X");
    let parent = fields.next()?.parse().ok()?;
    (!is_dead).then_some(parent)
}

pub fn kill(pid: i32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid).expect("a process has a number above zero");
    // It may have ended in this moment.
    let _ = rustix::process::kill_process(pid, signal);
}

/// Kills the supervisors of a state folder with everything in them, as a power cut would; returns how many there were.
pub fn kill_helpers(state: &Path) -> usize {
    let found = helpers_of(state);
    for pid in &found {
        kill(*pid, rustix::process::Signal::KILL);
    }
    let still_there = || found.iter().any(|pid| parent_of(*pid).is_some());
    wait_for("killed supervisors to be gone", || (!still_there()).then_some(()));
    found.len()
}

/// Panics when something of this state folder goes on running.
pub fn wait_until_no_helper(state: &Path) {
    let started = Instant::now();
    loop {
        let left = helpers_of(state);
        if left.is_empty() {
            return;
        }
        // What a supervisor held is dead when it is gone, but the kernel may still be busy taking it apart.
        assert!(started.elapsed() < Duration::from_secs(3), "processes are left: {left:?}");
        thread::sleep(Duration::from_millis(10));
    }
}
