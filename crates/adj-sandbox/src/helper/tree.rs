//! Looks at process trees through `/proc`: how much they hold, and how to end one that has no namespace of its own.

use std::fs;

use crate::plan::Limits;
use crate::sys;

/// Which limit a tree is above.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Excess {
    /// With the process that holds most, if it is not the main one.
    Memory {
        largest: Option<i32>,
    },
    Processes,
}

/// Compares everything in this pid namespace, except pid 1, with the limits.
///
/// Memory that no process maps (an unmapped memfd) is not seen; that needs a cgroup.
pub(super) fn look(limits: &Limits, main: i32) -> Option<Excess> {
    let pids: Vec<i32> = pids().filter(|&pid| pid != 1).collect();
    if pids.len() as u64 > limits.processes {
        return Some(Excess::Processes);
    }
    let estimate: u64 = pids.iter().filter_map(|&pid| resident_bytes(pid)).sum();
    if estimate <= limits.memory_bytes {
        return None;
    }
    // Shared pages were counted once for each process; the exact share costs more, so it is asked for only now.
    let mut total = 0;
    let mut largest = (0, None);
    for pid in pids {
        let bytes = proportional_bytes(pid).or_else(|| resident_bytes(pid)).unwrap_or(0);
        total += bytes;
        if pid != main && bytes > largest.0 {
            largest = (bytes, Some(pid));
        }
    }
    (total > limits.memory_bytes).then_some(Excess::Memory { largest: largest.1 })
}

/// Ends what is too much in a session while its worker goes on, if that is possible.
pub(super) fn trim(limits: &Limits, excess: Excess, worker: i32) {
    match excess {
        Excess::Memory { largest: Some(pid) } => sys::kill(pid, libc::SIGKILL),
        Excess::Memory { largest: None } => sys::kill(worker, libc::SIGKILL),
        Excess::Processes => {
            for _ in 0..50 {
                pids().filter(|&pid| pid != 1 && pid != worker).for_each(|pid| sys::kill(pid, libc::SIGKILL));
                while sys::reap_one().is_some() {}
                if (pids().count() as u64) < limits.processes / 2 {
                    return;
                }
            }
            // It multiplies faster than single kills; this one is atomic, and the worker is started anew.
            sys::kill(-1, libc::SIGKILL);
        }
    }
}

fn pids() -> impl Iterator<Item = i32> {
    fs::read_dir("/proc").into_iter().flatten().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

fn resident_bytes(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

fn proportional_bytes(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

/// Kills `root` and everything below it, however deep; used where no pid namespace does it for us.
pub(super) fn kill_descendants(root: i32) {
    // Stopped first, so that nothing is born between looking and killing.
    sys::kill(root, libc::SIGSTOP);
    for pid in descendants(root) {
        sys::kill(pid, libc::SIGKILL);
    }
    sys::kill(root, libc::SIGKILL);
}

/// Kills and reaps all children of this process, again and again while orphans are handed to us.
pub(super) fn kill_children() {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    for round in 0..200 {
        let all = descendants(own);
        if all.is_empty() {
            return;
        }
        for pid in all {
            sys::kill(pid, libc::SIGKILL);
        }
        while sys::reap_one().is_some() {}
        if round > 2 {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}

fn descendants(root: i32) -> Vec<i32> {
    let parents: Vec<(i32, i32)> = pids().filter_map(|pid| Some((pid, parent_of(pid)?))).collect();
    let mut found = vec![root];
    let mut next = 0;
    while next < found.len() {
        let parent = found[next];
        next += 1;
        found.extend(parents.iter().filter(|entry| entry.1 == parent).map(|entry| entry.0));
    }
    found.remove(0);
    found
}

fn parent_of(pid: i32) -> Option<i32> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may contain anything, so fields are counted from its end.
    text.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}
