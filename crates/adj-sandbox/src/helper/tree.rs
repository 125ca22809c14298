//! Looks at process trees through `/proc`: how much they hold and use, and how to end one that has no namespace of its own.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read;
use std::time::Duration;

use crate::limits::Limits;
use crate::sys;

/// Which limit a tree is above.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Excess {
    /// With those that hold most, without which the rest is below the limit; never the main one.
    Memory {
        largest: Vec<i32>,
    },
    Processes,
}

impl Excess {
    /// Whether somebody beside the main process is to blame.
    pub(super) fn has_others(&self) -> bool {
        !matches!(self, Excess::Memory { largest } if largest.is_empty())
    }
}

/// Page tables are asked for only where they may come to this much.
const TABLES_MATTER: u64 = 8 << 20;
/// A page table takes at most one part in so many of what it maps.
const TABLE_SHARE: u64 = 512;

/// The watch over everything in this pid namespace, except pid 1.
///
/// Memory that no process maps and no segment holds (shared memory of which all but a page was given back) is not seen; that needs a
/// control group.
#[derive(Debug)]
pub(super) struct Watch<'a> {
    limits: &'a Limits,
    main: i32,
    /// By number and start, which together name a process for good: ticks of its own, and of the children it waited for.
    before: HashMap<(i32, u64), (u64, u64)>,
    used: u64,
    /// Time of children that was seen twice, or that is still to turn up with whoever waits for them.
    unsettled: i64,
    has_others: bool,
}

impl<'a> Watch<'a> {
    pub(super) fn new(limits: &'a Limits, main: i32) -> Watch<'a> {
        Watch { limits, main, before: HashMap::new(), used: 0, unsettled: 0, has_others: false }
    }

    /// Processor time that was used up to the last look, and is not to be told again.
    pub(super) fn take_used(&mut self) -> Duration {
        let second = rustix::param::clock_ticks_per_second().max(1);
        Duration::from_millis(std::mem::take(&mut self.used).saturating_mul(1000) / second)
    }

    /// Whether the last look found more than the main process.
    pub(super) fn has_others(&self) -> bool {
        self.has_others
    }

    /// Counts the time used since the last look, and compares processes and memory with the limits.
    pub(super) fn look(&mut self) -> Option<Excess> {
        let all: Vec<Seen> = pids().filter_map(Seen::read).collect();
        self.count_time(&all);
        let inside = || all.iter().filter(|seen| seen.pid != 1);
        self.has_others = inside().any(|seen| seen.pid != self.main);
        if inside().map(|seen| seen.threads).sum::<u64>() > self.limits.processes {
            return Some(Excess::Processes);
        }
        let segments = segment_bytes();
        let estimate =
            inside().map(|seen| seen.resident.saturating_add(seen.tables)).fold(segments, u64::saturating_add);
        if estimate <= self.limits.memory_bytes {
            return None;
        }
        // Shared pages were counted once for each process; the exact share costs more, so it is asked for only now.
        let mut total = segments;
        let mut others = Vec::new();
        for seen in inside() {
            let bytes = proportional_bytes(seen.holder).unwrap_or(seen.resident).saturating_add(seen.tables);
            total = total.saturating_add(bytes);
            if seen.pid != self.main && bytes > 0 {
                others.push((bytes, seen.pid));
            }
        }
        let limit = self.limits.memory_bytes;
        (total > limit).then(|| Excess::Memory { largest: largest(others, total, limit) })
    }

    fn count_time(&mut self, all: &[Seen]) {
        let (mut own, mut waited) = (0, 0);
        let mut now = HashMap::with_capacity(all.len());
        for seen in all {
            let key = (seen.pid, seen.start);
            // What pid 1 itself does is watching; its dead children are somebody's.
            let own_ticks = if seen.pid == 1 { 0 } else { seen.own };
            let (own_before, waited_before) = self.before.remove(&key).unwrap_or((0, 0));
            own += own_ticks.saturating_sub(own_before);
            waited += seen.waited.saturating_sub(waited_before);
            now.insert(key, (own_ticks, seen.waited));
        }
        // What is left has ended, and turns up once more in the time of whoever waited for it.
        let ended: u64 = self.before.values().map(|(own, waited)| own + waited).sum();
        self.before = now;
        self.unsettled = self.unsettled.saturating_add_unsigned(waited).saturating_sub_unsigned(ended);
        let settled = u64::try_from(self.unsettled).unwrap_or(0);
        self.unsettled = self.unsettled.min(0);
        self.used = self.used.saturating_add(own).saturating_add(settled);
    }
}

/// The largest of these, so many of them that without them `total` is not above `limit`; all, where that is not enough.
fn largest(mut others: Vec<(u64, i32)>, total: u64, limit: u64) -> Vec<i32> {
    others.sort_unstable_by(|one, other| other.cmp(one));
    let mut left = total;
    let largest = others.into_iter().take_while(|(bytes, _)| {
        let is_too_much = left > limit;
        left = left.saturating_sub(*bytes);
        is_too_much
    });
    largest.map(|(_, pid)| pid).collect()
}

/// A process as one read of its file shows it, whoever owns it.
#[derive(Debug)]
struct Seen {
    pid: i32,
    start: u64,
    threads: u64,
    resident: u64,
    /// What it maps, present or not.
    mapped: u64,
    /// What the kernel holds to map it, where that matters.
    tables: u64,
    /// Whose number shows its memory.
    holder: i32,
    own: u64,
    waited: u64,
}

impl Seen {
    fn read(pid: i32) -> Option<Seen> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let mut seen = Seen::parse(pid, &text)?;
        // When its first thread has ended a process seems to hold nothing, while its other threads go on.
        if seen.threads > 1 && is_ended(&text) {
            let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten();
            let mut numbers = threads.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
            let living = numbers.find_map(|number| {
                let text = fs::read_to_string(format!("/proc/{pid}/task/{number}/stat")).ok()?;
                if is_ended(&text) { None } else { Seen::parse(number, &text) }
            });
            (seen.holder, seen.resident, seen.mapped) =
                living.map_or((pid, 0, 0), |living| (living.pid, living.resident, living.mapped));
        }
        if seen.mapped / TABLE_SHARE > TABLES_MATTER {
            seen.tables = kilobytes(&format!("/proc/{}/status", seen.holder), "VmPTE:").unwrap_or(0);
        }
        Some(seen)
    }

    fn parse(pid: i32, text: &str) -> Option<Seen> {
        // The name in parentheses may contain anything, so fields are counted from its end.
        let fields: Vec<&str> = text.rsplit_once(") ")?.1.split(' ').collect();
        let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
        Some(Seen {
            pid,
            own: number(11)?.saturating_add(number(12)?),
            waited: number(13)?.saturating_add(number(14)?),
            threads: number(17)?.max(1),
            start: number(19)?,
            resident: number(21)?.saturating_mul(rustix::param::page_size() as u64),
            mapped: number(20)?,
            tables: 0,
            holder: pid,
        })
    }
}

fn is_ended(stat: &str) -> bool {
    stat.rsplit_once(") ").is_some_and(|(_, fields)| fields.starts_with(['Z', 'X']))
}

/// What this ipc namespace holds in segments, queues and semaphores, whoever has them mapped.
fn segment_bytes() -> u64 {
    // What an empty one costs the kernel, and one message or semaphore in it.
    const EACH: u64 = 256;
    const PIECE: u64 = 64;
    let shared = table("shm", |field| field(14).saturating_add(field(15)));
    let queues = table("msg", |field| field(3).saturating_add(field(4).saturating_mul(PIECE)));
    let semaphores = table("sem", |field| field(3).saturating_mul(PIECE));
    let all = [shared, queues, semaphores];
    all.iter().fold(0, |sum, (lines, bytes)| sum.saturating_add(lines * EACH).saturating_add(*bytes))
}

/// How many lines one of the kernel's tables has, and what they come to.
fn table(name: &str, bytes_of: impl Fn(&dyn Fn(usize) -> u64) -> u64) -> (u64, u64) {
    // Longer than the kernel's own bounds on their number let any of them become.
    const LONGEST: u64 = 16 << 20;
    let mut text = String::new();
    let Ok(file) = File::open(format!("/proc/sysvipc/{name}")) else { return (0, 0) };
    if file.take(LONGEST).read_to_string(&mut text).is_err() {
        return (0, 0);
    }
    text.lines().skip(1).fold((0, 0), |(lines, sum), line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let field = |index: usize| fields.get(index).and_then(|field| field.parse().ok()).unwrap_or(0u64);
        (lines + 1, u64::saturating_add(sum, bytes_of(&field)))
    })
}

/// Ends what is too much in a session while its worker goes on, if that is possible.
pub(super) fn trim(limits: &Limits, excess: &Excess, worker: i32) {
    match excess {
        Excess::Memory { largest } if largest.is_empty() => sys::kill(worker, libc::SIGKILL),
        Excess::Memory { largest } => largest.iter().for_each(|&pid| sys::kill(pid, libc::SIGKILL)),
        Excess::Processes => trim_others(limits, worker),
    }
}

/// Ends everything but the worker.
pub(super) fn trim_others(limits: &Limits, worker: i32) {
    for _ in 0..50 {
        pids().filter(|&pid| pid != 1 && pid != worker).for_each(|pid| sys::kill(pid, libc::SIGKILL));
        while sys::reap_one().is_some() {}
        if (pids().count() as u64) < (limits.processes / 2).max(3) {
            return;
        }
    }
    // It multiplies faster than single kills; this one is atomic, and the worker is started anew.
    sys::kill(-1, libc::SIGKILL);
}

fn pids() -> impl Iterator<Item = i32> {
    fs::read_dir("/proc").into_iter().flatten().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

fn proportional_bytes(pid: i32) -> Option<u64> {
    kilobytes(&format!("/proc/{pid}/smaps_rollup"), "Pss:")
}

/// The bytes that a line of one of the kernel's files says in kilobytes.
fn kilobytes(path: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
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
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Everything below `root`, quickly: the kernel says who the children are, but may leave one out that moves meanwhile.
pub(super) fn below(root: i32) -> Vec<i32> {
    let mut found = vec![root];
    let mut next = 0;
    while next < found.len() {
        let threads = fs::read_dir(format!("/proc/{}/task", found[next])).into_iter().flatten().flatten();
        next += 1;
        for thread in threads {
            match fs::read_to_string(thread.path().join("children")) {
                Ok(children) => found.extend(children.split_whitespace().filter_map(|word| word.parse::<i32>().ok())),
                // A kernel without these files, unless the thread has just ended.
                Err(_) if thread.path().exists() => return descendants(root),
                Err(_) => {}
            }
        }
    }
    found.remove(0);
    found
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_whatever_its_name_is() {
        let fields = "S 1 7 7 0 -1 4194304 100 0 0 0 11 22 33 44 20 0 5 0 777 1000 12 99";
        for name in ["cat", "a b", ") S 1 2", "(((", "x) Z 0 0 0", "\n"] {
            let seen = Seen::parse(9, &format!("9 ({name}) {fields}")).expect(name);
            let found = (seen.own, seen.waited, seen.threads, seen.start, seen.holder, seen.mapped);
            assert_eq!(found, (33, 77, 5, 777, 9, 1000), "{name}");
            assert_eq!(seen.resident, 12 * rustix::param::page_size() as u64, "{name}");
        }
        for text in
            ["", "9 (cat", "9 (cat) ", "9 (cat) S 1 2 3", "9 (cat) S x x x x x x x x x x x x x x x x x x x x x x"]
        {
            assert!(Seen::parse(9, text).is_none(), "{text}");
        }
        assert!(is_ended("9 (cat) Z 1") && !is_ended("9 (Z Z) S 1"));
    }

    #[test]
    fn as_many_of_the_largest_as_it_takes_are_ended() {
        // What others hold, what is held in all, and who is ended.
        type Case = (&'static [(u64, i32)], u64, &'static [i32]);
        let cases: [Case; 6] = [
            (&[(60, 2), (50, 3), (60, 4), (1, 5)], 180, &[4, 2]),
            (&[(60, 2), (50, 3)], 110, &[2]),
            (&[(60, 2), (50, 3)], 100, &[]),
            // The main process or segments hold the rest.
            (&[(60, 2), (50, 3)], 500, &[2, 3]),
            (&[], 500, &[]),
            (&[(u64::MAX, 2), (u64::MAX, 3)], u64::MAX, &[3]),
        ];
        for (others, total, expected) in cases {
            assert_eq!(largest(others.to_vec(), total, 100), expected, "{others:?} of {total}");
        }
        assert!(!Excess::Memory { largest: vec![] }.has_others() && Excess::Processes.has_others());
    }

    #[test]
    fn page_tables_are_read_where_much_is_mapped() {
        let own = rustix::process::getpid().as_raw_nonzero().get();
        let tables = kilobytes(&format!("/proc/{own}/status"), "VmPTE:").expect("the kernel says");
        assert!(tables > 0 && tables < 1 << 30, "{tables}");
        let seen = Seen::read(own).expect("ourselves");
        assert_eq!(seen.tables > 0, seen.mapped / TABLE_SHARE > TABLES_MATTER, "{seen:?}");
    }

    #[test]
    fn time_is_counted_once_however_a_process_ends() {
        // Number, ticks of its own, ticks of children it waited for; and what all looks so far come to.
        type Process = (i32, u64, u64);
        type Look = (&'static [Process], u64);
        let cases: [(&str, &[Look]); 6] = [
            ("one that goes on", &[(&[(1, 0, 0), (2, 10, 0)], 10), (&[(1, 0, 0), (2, 25, 0)], 25)]),
            ("pid 1 itself", &[(&[(1, 50, 0), (2, 10, 0)], 10), (&[(1, 90, 0), (2, 10, 0)], 10)]),
            ("a child that was seen", &[(&[(1, 0, 0), (2, 5, 0), (3, 30, 0)], 35), (&[(1, 0, 0), (2, 5, 32)], 37)]),
            ("a child that was not seen", &[(&[(1, 0, 0), (2, 5, 0)], 5), (&[(1, 0, 0), (2, 6, 40)], 46)]),
            ("a child nobody waited for", &[(&[(1, 0, 0), (2, 5, 0), (3, 30, 0)], 35), (&[(1, 0, 0), (2, 6, 0)], 36)]),
            // The parent was read after the child had ended, the child before.
            (
                "a child that was seen twice",
                &[
                    (&[(1, 0, 0), (2, 5, 30), (3, 30, 0)], 65),
                    (&[(1, 0, 0), (2, 6, 30)], 66),
                    (&[(1, 0, 0), (2, 6, 50)], 66),
                    (&[(1, 0, 0), (2, 6, 65)], 71),
                ],
            ),
        ];
        for (name, looks) in cases {
            let limits = Limits::default();
            let mut watch = Watch::new(&limits, 2);
            for (index, (processes, expected)) in looks.iter().enumerate() {
                let seen = |&(pid, own, waited): &Process| Seen {
                    pid,
                    start: 1,
                    threads: 1,
                    resident: 0,
                    mapped: 0,
                    tables: 0,
                    holder: pid,
                    own,
                    waited,
                };
                watch.count_time(&processes.iter().map(seen).collect::<Vec<_>>());
                assert_eq!(watch.used, *expected, "{name}, look {index}");
            }
        }
    }

    #[test]
    fn the_tree_below_us_is_found() {
        let own = rustix::process::getpid().as_raw_nonzero().get();
        let mut child = std::process::Command::new("sh")
            .args(["-c", "sleep 100 & echo $!; read x; kill $!"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("a shell");
        let mut word = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.as_mut().expect("a pipe")), &mut word)
            .expect("a number");
        let grandchild = word.trim().parse::<i32>().expect("a number");
        for found in [below(own), descendants(own)] {
            assert!(found.contains(&(child.id() as i32)) && found.contains(&grandchild), "{found:?}");
            assert!(!found.contains(&own), "{found:?}");
        }
        drop(child.stdin.take());
        child.wait().expect("its end");
    }
}
