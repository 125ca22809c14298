//! Finding and ending every process that a shell started.

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitOptions, getpid, kill_process, waitid, waitpid};
use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::File;
use std::io::Read;
use std::time::{Duration, Instant};

const LONGEST_KILLING: Duration = Duration::from_secs(5);
const MOST_ENVIRONMENT_BYTES: u64 = 256 * 1024;

/// Which processes belong to a shell.
#[derive(Debug)]
pub(super) struct Family<'a> {
    pub shell: Pid,
    /// `NAME=value` of a variable that only this shell's processes have in their environment.
    pub mark: &'a str,
    /// Whether orphans become children of this process, and all its children are the shell's.
    pub is_everything: bool,
}

struct Process {
    parent: i32,
    group: i32,
    is_dead: bool,
}

impl Family<'_> {
    /// Kills until nothing is left; processes that start others meanwhile lose that race, because every round takes all it finds.
    /// Returns whether it succeeded in time.
    pub(super) fn kill(&self) -> bool {
        let deadline = Instant::now() + LONGEST_KILLING;
        loop {
            let alive = self.alive();
            if alive.is_empty() {
                return true;
            }
            if Instant::now() > deadline {
                return false;
            }
            for pid in alive {
                // It may be gone by now, which is what is wanted.
                let _ = kill_process(pid, Signal::KILL);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Parents before their children: a shell whose command is killed first would go on with the next one.
    fn alive(&self) -> Vec<Pid> {
        let own = getpid().as_raw_pid();
        let processes = processes();
        let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
        for (&pid, process) in &processes {
            children.entry(process.parent).or_default().push(pid);
        }
        let shell = self.shell.as_raw_pid();
        let mut strays: Vec<i32> = processes
            .iter()
            .filter(|&(&pid, process)| {
                let is_adopted = self.is_everything && process.parent == own;
                is_adopted || process.group == shell || (!self.is_everything && !process.is_dead && self.is_marked(pid))
            })
            .map(|(&pid, _)| pid)
            .collect();
        // Among those whose parents are gone, the older one is more likely to have started the other.
        strays.sort_unstable();
        let mut seen = HashSet::from([own]);
        let mut family = Vec::new();
        for root in std::iter::once(shell).chain(strays) {
            let mut queue = VecDeque::from([root]);
            while let Some(pid) = queue.pop_front() {
                if seen.insert(pid) {
                    family.push(pid);
                    queue.extend(children.get(&pid).into_iter().flatten());
                }
            }
        }
        family
            .into_iter()
            .filter(|pid| processes.get(pid).is_some_and(|process| !process.is_dead))
            .filter_map(Pid::from_raw)
            .collect()
    }

    fn is_marked(&self, pid: i32) -> bool {
        let mut environment = Vec::new();
        let read = File::open(format!("/proc/{pid}/environ"))
            .and_then(|file| file.take(MOST_ENVIRONMENT_BYTES).read_to_end(&mut environment));
        read.is_ok() && environment.split(|&byte| byte == 0).any(|entry| entry == self.mark.as_bytes())
    }
}

fn processes() -> HashMap<i32, Process> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return HashMap::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter_map(|pid| Some((pid, stat(pid)?)))
        .collect()
}

fn stat(pid: i32) -> Option<Process> {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The name of a process stands in parentheses and may hold anything, parentheses too.
    let after_name = stat.iter().rposition(|&byte| byte == b')')? + 1;
    let mut fields = std::str::from_utf8(&stat[after_name..]).ok()?.split_ascii_whitespace();
    let state = fields.next()?;
    Some(Process {
        parent: fields.next()?.parse().ok()?,
        group: fields.next()?.parse().ok()?,
        is_dead: matches!(state, "Z" | "X" | "x"),
    })
}

/// Buries orphans that came to this process, and leaves `shell` to who waits for it.
pub(super) fn reap_orphans(shell: Option<Pid>) {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    // Most of the time nobody died, and then the list of all processes need not be read.
    if !matches!(waitid(WaitId::All, options), Ok(Some(_))) {
        return;
    }
    let own = getpid().as_raw_pid();
    for (pid, process) in processes() {
        let pid = Pid::from_raw(pid);
        if process.parent == own && process.is_dead && pid != shell {
            let _ = waitpid(pid, WaitOptions::NOHANG);
        }
    }
}
