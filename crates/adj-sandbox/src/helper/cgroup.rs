//! A control group of its own for each sandbox, where the kernel and whoever runs us have delegated that.
//!
//! Memory and processes are then counted by the kernel, all of them, at every moment. Everything here is files below one folder: a child
//! of our own group, or of the one above when the manager of services has marked that as ours (`Delegate=` with `DelegateSubgroup=`),
//! because a group that holds processes may have no children with limits. Nothing ever leaves the limits that hold for us.
//! Must not know: what the processes are.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::fs::Access;

use crate::limits::{LimitMechanism, Limits};

const PREFIX: &str = "adjutant-";
const MOUNTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
const CGROUP2: u64 = 0x6367_7270;
const CONTROLLERS: [&str; 2] = ["memory", "pids"];
/// What was killed takes a moment to be gone.
const GONE_WITHIN: u32 = 100;

/// One sandbox's group; dropping it kills what is left in it and removes it.
#[derive(Debug)]
pub(super) struct Cgroup {
    folder: PathBuf,
}

/// What would hold memory and processes of a sandbox that is started now; found out by doing it.
pub fn limit_mechanism() -> LimitMechanism {
    match Cgroup::create(&Limits::default(), false) {
        Some(_) => LimitMechanism::Cgroup,
        None => LimitMechanism::Watching,
    }
}

impl Cgroup {
    /// A new group with these limits; `None` where that is not delegated, and then rlimits and the watcher hold.
    ///
    /// In a session the kernel ends the process that holds most, so that the worker goes on; otherwise all at once.
    pub(super) fn create(limits: &Limits, is_session: bool) -> Option<Cgroup> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let mount = MOUNTS.map(Path::new).into_iter().find(|mount| is_cgroup2(mount))?;
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        let pid = std::process::id();
        let name = format!("{PREFIX}{pid}-{}-{}", start_of(pid)?, COUNT.fetch_add(1, Ordering::Relaxed));
        parents(mount, &own, is_marked).iter().find_map(|parent| {
            let group = create_in(parent, &name, limits, is_session).ok()?;
            sweep(parent, |pid, start| start_of(pid) == Some(start));
            Some(group)
        })
    }

    /// Moves a process in, before it has children.
    pub(super) fn add(&self, pid: i32) -> io::Result<()> {
        fs::write(self.folder.join("cgroup.procs"), pid.to_string())
    }

    /// How often the kernel ended something in it for want of memory.
    pub(super) fn memory_kills(&self) -> u64 {
        let events = fs::read_to_string(self.folder.join("memory.events")).unwrap_or_default();
        let count = events.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok());
        count.unwrap_or(0)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::write(self.folder.join("cgroup.kill"), "1");
        for _ in 0..GONE_WITHIN {
            match fs::remove_dir(&self.folder) {
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                    std::thread::sleep(Duration::from_millis(2));
                }
                // Whatever else it is, the next sandbox sweeps.
                _ => return,
            }
        }
    }
}

fn is_cgroup2(mount: &Path) -> bool {
    rustix::fs::statfs(mount).is_ok_and(|found| u64::try_from(found.f_type) == Ok(CGROUP2))
}

/// Whether the manager of services has handed a group over, with all below it.
fn is_marked(group: &Path) -> bool {
    ["user.delegate", "trusted.delegate"].into_iter().any(|name| {
        let mut value = [0u8; 1];
        rustix::fs::getxattr(group, name, &mut value[..]).is_ok_and(|length| length == 1 && value[0] == b'1')
    })
}

/// Where a group may be made, the best place first.
fn parents(mount: &Path, own: &str, is_marked: impl Fn(&Path) -> bool) -> Vec<PathBuf> {
    let Some(own) = own.lines().find_map(|line| line.strip_prefix("0::/")) else { return Vec::new() };
    let own = Path::new(own);
    if own.components().any(|part| !matches!(part, Component::Normal(_))) {
        // Ours lies outside of what this mount shows.
        return Vec::new();
    }
    let above = own.parent().map(|above| mount.join(above)).filter(|above| is_marked(above));
    [mount.join(own)].into_iter().chain(above).collect()
}

fn create_in(parent: &Path, name: &str, limits: &Limits, is_session: bool) -> io::Result<Cgroup> {
    let has_all = |file: &str| -> io::Result<bool> {
        let text = fs::read_to_string(parent.join(file))?;
        Ok(CONTROLLERS.iter().all(|wanted| text.split_whitespace().any(|found| found == *wanted)))
    };
    if !has_all("cgroup.controllers")? {
        return Err(io::ErrorKind::Unsupported.into());
    }
    // Whoever moves a process must be allowed to write where both groups meet.
    rustix::fs::access(parent.join("cgroup.procs"), Access::WRITE_OK)?;
    if !has_all("cgroup.subtree_control")? {
        // Refused by the kernel while the group itself holds processes.
        fs::write(parent.join("cgroup.subtree_control"), "+memory +pids")?;
    }
    let folder = parent.join(name);
    fs::create_dir(&folder)?;
    // Dropped, and so removed, if it cannot be limited.
    let group = Cgroup { folder };
    limit(&group.folder, limits, is_session)?;
    Ok(group)
}

fn limit(folder: &Path, limits: &Limits, is_session: bool) -> io::Result<()> {
    // Pid 1 of the sandbox counts as well.
    let all = [
        ("memory.max", limits.memory_bytes.to_string()),
        ("memory.oom.group", u8::from(!is_session).to_string()),
        ("pids.max", limits.processes.saturating_add(1).to_string()),
    ];
    for (name, value) in all {
        fs::write(folder.join(name), value)?;
    }
    // Kernels without swap do not have it.
    match fs::write(folder.join("memory.swap.max"), "0") {
        Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => Err(error),
        _ => Ok(()),
    }
}

/// Removes the groups of helpers that were killed before they could. What is not empty stays.
fn sweep(parent: &Path, is_alive: impl Fn(u32, u64) -> bool) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| {
            let mut numbers = name.strip_prefix(PREFIX)?.splitn(3, '-');
            Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
        });
        if owner.is_some_and(|(pid, start)| !is_alive(pid, start)) {
            let _ = fs::remove_dir(entry.path());
        }
    }
}

/// When a process was started, in ticks; with its number it names it for good.
fn start_of(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    text.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_made_in_ours_or_where_it_was_handed_over() {
        let cases: [(&str, &str, &[&str]); 6] = [
            ("4:memory:/x\n0::/user.slice/a.scope\n", "", &["/cg/user.slice/a.scope"]),
            ("0::/a.service/daemon\n", "/cg/a.service", &["/cg/a.service/daemon", "/cg/a.service"]),
            ("0::/\n", "/cg", &["/cg/"]),
            ("0::/../other\n", "/cg", &[]),
            ("4:memory:/x\n", "/cg", &[]),
            ("", "/cg", &[]),
        ];
        for (own, marked, expected) in cases {
            let expected: Vec<PathBuf> = expected.iter().map(PathBuf::from).collect();
            assert_eq!(parents(Path::new("/cg"), own, |group| group == Path::new(marked)), expected, "{own}");
        }
    }

    #[test]
    fn a_group_has_the_limits_and_is_removed() {
        let tree = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| fs::write(tree.path().join(name), text).expect("a file");
        let limits = Limits { memory_bytes: 1000, processes: 7, ..Limits::default() };
        let create = |name: &str, is_session| create_in(tree.path(), name, &limits, is_session);
        assert!(create("adjutant-1-1-0", false).is_err(), "not a control group");
        write("cgroup.controllers", "cpu pids");
        write("cgroup.subtree_control", "");
        write("cgroup.procs", "");
        assert!(create("adjutant-1-1-1", false).is_err(), "memory is not delegated");
        write("cgroup.controllers", "cpu memory pids");
        for (name, is_session, whole) in [("adjutant-1-1-2", false, "1"), ("adjutant-1-1-3", true, "0")] {
            let group = create(name, is_session).expect("a group");
            let folder = group.folder.clone();
            assert_eq!(
                fs::read_to_string(tree.path().join("cgroup.subtree_control")).expect("a file"),
                "+memory +pids"
            );
            write("cgroup.subtree_control", "memory pids");
            let read = |name: &str| fs::read_to_string(folder.join(name)).expect("a file");
            let found = ["memory.max", "memory.swap.max", "memory.oom.group", "pids.max"].map(read);
            assert_eq!(found, ["1000", "0", whole, "8"]);
            write("cgroup.subtree_control", "");
            group.add(42).expect("a member");
            assert_eq!(read("cgroup.procs"), "42");
            assert_eq!(group.memory_kills(), 0);
            fs::write(folder.join("memory.events"), "low 0\noom 1\noom_kill 2\n").expect("a file");
            assert_eq!(group.memory_kills(), 2);
            drop(group);
            assert_eq!(read("cgroup.kill"), "1");
        }
        // What is there already is somebody's, and stays.
        fs::create_dir(tree.path().join("adjutant-1-1-4")).expect("a folder");
        assert!(create("adjutant-1-1-4", false).is_err());
        assert!(!tree.path().join("adjutant-1-1-4/cgroup.kill").exists());
    }

    #[test]
    fn only_abandoned_and_empty_groups_are_swept() {
        let tree = tempfile::tempdir().expect("a folder");
        let own = std::process::id();
        let start = start_of(own).expect("our own start");
        let alive = format!("adjutant-{own}-{start}-0");
        let reused = format!("adjutant-{own}-{}-0", start + 1);
        let busy = format!("adjutant-{own}-{}-1", start + 1);
        let busy_member = format!("{busy}/member");
        for name in [&alive, &reused, &busy, &busy_member, "adjutant-x", "user.slice"] {
            fs::create_dir(tree.path().join(name)).expect("a folder");
        }
        sweep(tree.path(), |pid, start| start_of(pid) == Some(start));
        let found = [&alive, &reused, &busy, "adjutant-x", "user.slice"].map(|name| tree.path().join(name).exists());
        assert_eq!(found, [true, false, true, true, true]);
    }
}
