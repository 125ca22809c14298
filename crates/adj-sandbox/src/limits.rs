//! How much a command may use, and which of these limits ended it.
//!
//! Must not know: how a limit is held.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::launch::Exit;

/// What a command, or all calls of a supervisor together, may use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Longest time for one command or one call; a call that is late ends its sandbox with everything in it.
    pub wall: Duration,
    /// Processor time of the whole process tree for one command, or while one call runs: what other calls use meanwhile counts as
    /// well, because nobody can tell whose a process is.
    ///
    /// Looked at every 50 ms. Children that nobody waits for and that live shorter than that are seen only in part; `wall` times the
    /// number of processors bounds them too.
    pub cpu: Duration,
    /// Resident memory of the whole process tree, watched every 50 ms; a single process may map twice as much.
    ///
    /// Segments of System V count as well, even while nobody maps them. `/tmp`, home and `/dev/shm` have their own sizes.
    pub memory_bytes: u64,
    /// Processes and threads of the whole tree.
    pub processes: u64,
    pub file_size_bytes: u64,
    pub open_files: u64,
    /// What the workspace may grow by, counted in blocks from the start of the command or supervisor: holes are free, names are not.
    ///
    /// Found by a search that takes at most a twentieth of a processor, or half of one while the file system fills up fast, so a
    /// command can be ahead of it. Deleted files that a process still holds open are looked for as well.
    pub disk_bytes: u64,
    /// More output than this ends a command (what a worker prints is its own business); how much of it is kept is said by each command.
    pub output_bytes: u64,
    /// Size of each of the private `/tmp` and home.
    pub tmp_bytes: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            wall: Duration::from_secs(600),
            // An hour on a hundred processors: what a large build may take, but not what somebody's coins take.
            cpu: Duration::from_secs(360_000),
            memory_bytes: 2 << 30,
            processes: 512,
            file_size_bytes: 2 << 30,
            open_files: 4096,
            disk_bytes: 16 << 30,
            output_bytes: 32 << 20,
            tmp_bytes: 512 << 20,
        }
    }
}

impl Limits {
    /// The name of a limit that is zero, if one is.
    pub(crate) fn zero(&self) -> Option<&'static str> {
        let all = [
            ("wall", self.wall.is_zero()),
            ("cpu", self.cpu.is_zero()),
            ("memory_bytes", self.memory_bytes == 0),
            ("processes", self.processes == 0),
            ("file_size_bytes", self.file_size_bytes == 0),
            ("open_files", self.open_files == 0),
            ("disk_bytes", self.disk_bytes == 0),
            ("output_bytes", self.output_bytes == 0),
            ("tmp_bytes", self.tmp_bytes == 0),
        ];
        all.into_iter().find(|(_, is_zero)| *is_zero).map(|(name, _)| name)
    }
}

/// A limit that ended something, and what it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reached {
    Wall(Duration),
    Cpu(Duration),
    MemoryBytes(u64),
    Processes(u64),
    DiskBytes(u64),
    OutputBytes(u64),
}

impl fmt::Display for Reached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Reached::Wall(limit) => write!(f, "it took longer than the limit wall={}", Time(limit)),
            Reached::Cpu(limit) => write!(f, "it used more processor time than the limit cpu={}", Time(limit)),
            Reached::MemoryBytes(limit) => write!(f, "it held more memory than the limit memory={}", Size(limit)),
            Reached::Processes(limit) => write!(f, "it had more processes than the limit processes={limit}"),
            Reached::DiskBytes(limit) => write!(f, "the workspace grew by more than the limit disk={}", Size(limit)),
            Reached::OutputBytes(limit) => write!(f, "it wrote more output than the limit output={}", Size(limit)),
        }
    }
}

impl Exit {
    /// The limit that this end is about, with its value in `limits`; a command's own timeout may have been shorter.
    pub fn reached(self, limits: &Limits) -> Option<Reached> {
        match self {
            Exit::Code(_) | Exit::Signal(_) => None,
            Exit::TimedOut => Some(Reached::Wall(limits.wall)),
            Exit::CpuLimit => Some(Reached::Cpu(limits.cpu)),
            Exit::MemoryLimit => Some(Reached::MemoryBytes(limits.memory_bytes)),
            Exit::ProcessLimit => Some(Reached::Processes(limits.processes)),
            Exit::DiskLimit => Some(Reached::DiskBytes(limits.disk_bytes)),
            Exit::OutputLimit => Some(Reached::OutputBytes(limits.output_bytes)),
        }
    }
}

struct Time(Duration);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = self.0.as_millis();
        let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms")];
        let (size, name) = units.into_iter().find(|(size, _)| milliseconds.is_multiple_of(*size)).unwrap_or((1, "ms"));
        write!(f, "{}{name}", milliseconds / size)
    }
}

struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"), (1, "B")];
        let (size, name) = units.into_iter().find(|(size, _)| self.0.is_multiple_of(*size)).unwrap_or((1, "B"));
        write!(f, "{}{name}", self.0 / size)
    }
}

/// What holds memory and processes to their limits on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LimitMechanism {
    /// The kernel counts everything, at every moment.
    Cgroup,
    /// What a process may use by itself is the kernel's business, what all of them use is looked at.
    Watching,
}

impl LimitMechanism {
    /// The mechanism in words.
    pub fn text(self) -> &'static str {
        match self {
            LimitMechanism::Cgroup => "cgroup v2",
            LimitMechanism::Watching => "rlimits and watching every 50 ms",
        }
    }
}

impl fmt::Display for LimitMechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_names_its_limit_and_the_value() {
        let limits = Limits {
            cpu: Duration::from_millis(1500),
            memory_bytes: 1536 << 20,
            disk_bytes: 1000,
            ..Limits::default()
        };
        let cases = [
            (Exit::Code(1), None),
            (Exit::Signal(9), None),
            (Exit::TimedOut, Some("it took longer than the limit wall=10m")),
            (Exit::CpuLimit, Some("it used more processor time than the limit cpu=1500ms")),
            (Exit::MemoryLimit, Some("it held more memory than the limit memory=1536MiB")),
            (Exit::ProcessLimit, Some("it had more processes than the limit processes=512")),
            (Exit::DiskLimit, Some("the workspace grew by more than the limit disk=1000B")),
            (Exit::OutputLimit, Some("it wrote more output than the limit output=32MiB")),
        ];
        for (exit, expected) in cases {
            let found = exit.reached(&limits).map(|reached| reached.to_string());
            assert_eq!(found.as_deref(), expected, "{exit:?}");
        }
    }
}
