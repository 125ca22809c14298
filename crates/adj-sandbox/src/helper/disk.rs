//! Watches how much a workspace grows, by looking through it a little at a time.
//!
//! The first search finds out what was there at the start: files that were born later are never taken for that, and changed ones only
//! as far as the free space allows. A search takes a twentieth of a processor, or half of one while the file system fills up faster
//! than the limit allows. No symlink is followed, and no other file system is entered.
//! Must not know: who writes there.

use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, Dir, FileType, Mode as FileMode, OFlags, Statx, StatxFlags, statx};

use super::tree;
use crate::error::{Doing, Layer, SetupError};
use crate::plan::{Mode, Mount, Plan};

/// Short commands are never looked at.
const FIRST_LOOK: Duration = Duration::from_millis(200);
const BETWEEN_LOOKS: Duration = Duration::from_millis(500);
/// While nothing is supposed to write, only the free space is looked at, and this seldom.
const BETWEEN_IDLE_LOOKS: Duration = Duration::from_secs(5);
/// So long at a time, then others have their turn.
const SLICE: Duration = Duration::from_millis(2);
/// However long looking took, the next look is not later than this.
const LATEST_LOOK: Duration = Duration::from_secs(2);
/// So long deleted files are looked for; whoever has more processes and files is taken at the free space that was lost.
const LOOKING_FOR_DELETED: Duration = Duration::from_millis(50);
/// A search takes one part in so many of a processor.
const SHARE: u32 = 20;
/// The same when every moment counts.
const URGENT_SHARE: u32 = 2;
/// Deleted files that are open are looked for after so many searches at the latest.
const DELETED_EVERY: u32 = 4;
/// Each open folder costs a descriptor; nobody nests so deep but to hide something.
const MAX_DEPTH: usize = 200;
/// Files with several names are counted once, as long as so many of them can be remembered.
const MAX_LINKED: usize = 100_000;
/// What an empty file or folder costs at least.
const ENTRY_BYTES: u64 = 512;

/// The watch over one folder, for all sandboxes that write to it one after the other.
#[derive(Debug)]
pub(super) struct DiskWatch {
    root: OwnedFd,
    limit: u64,
    /// Above this it is too much; more than the limit only after that was reached.
    threshold: u64,
    since: Duration,
    free_at_start: u64,
    baseline: Option<u64>,
    growth: u64,
    /// What the file system had free at the end of the last search.
    free: u64,
    search: Option<Search>,
    searches: u32,
    next: Instant,
}

impl DiskWatch {
    /// `None` where nothing of a workspace can be written.
    pub(super) fn open(plan: &Plan) -> Result<Option<DiskWatch>, SetupError> {
        let folder = match &plan.workspace {
            _ if plan.mode != Mode::WorkspaceWrite => return Ok(None),
            Mount::None => return Ok(None),
            Mount::Direct { host, .. } => host,
            Mount::Overlay { upper, .. } => upper,
        };
        DiskWatch::over(folder, plan.limits.disk_bytes)
            .doing(Layer::Limits, || format!("watch the size of {}", folder.display()))
            .map(Some)
    }

    fn over(folder: &Path, limit: u64) -> rustix::io::Result<DiskWatch> {
        // Whoever starts a sandbox may name its workspace by a symlink; what lies in it may not.
        let root = rustix::fs::open(folder, FOLDER.difference(OFlags::NOFOLLOW), FileMode::empty())?;
        let free = free_bytes(&root);
        // The kernel's stamps lag behind the clock by up to one tick.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let since = since.saturating_sub(Duration::from_millis(10));
        let next = Instant::now() + FIRST_LOOK;
        Ok(DiskWatch {
            root,
            limit,
            threshold: limit,
            since,
            free_at_start: free,
            baseline: None,
            growth: 0,
            free,
            search: None,
            searches: 0,
            next,
        })
    }

    /// A call begins after a pause: looks on soon.
    pub(super) fn hurry(&mut self) {
        self.next = self.next.min(Instant::now() + FIRST_LOOK);
    }

    pub(super) fn next_look(&self) -> Instant {
        self.next
    }

    /// Looks on if it is time; `true` when the folder has grown by more than the limit. What runs below `pid_one` may hold deleted files
    /// open; with `is_idle` nobody is supposed to write.
    pub(super) fn look(&mut self, pid_one: i32, is_idle: bool) -> bool {
        let began = Instant::now();
        if began < self.next {
            return false;
        }
        // As long as the file system has not lost that much, nothing in it can have grown so.
        let is_searching = self.baseline.is_none() || self.search.is_some();
        if is_idle && !is_searching && self.lost() <= self.threshold.saturating_sub(self.growth) {
            self.next = began + BETWEEN_IDLE_LOOKS;
            return false;
        }
        let mut search = match self.search.take() {
            Some(search) => search,
            None => match Search::begin(&self.root) {
                Ok(search) => search,
                // The folder itself is gone, so nothing can grow in it.
                Err(_) => {
                    self.next = began + BETWEEN_LOOKS;
                    return false;
                }
            },
        };
        let mut has_more = true;
        while has_more && began.elapsed() < SLICE {
            for _ in 0..64 {
                has_more = has_more && search.step(self.since);
            }
        }
        let lost_in_all = self.free_at_start.saturating_sub(free_bytes(&self.root));
        let changed = search.changed_bytes.min(lost_in_all.saturating_sub(search.new_bytes));
        let mut growth = match self.baseline {
            Some(baseline) => search.total().saturating_sub(baseline),
            None => search.new_bytes + changed,
        };
        if !has_more {
            self.baseline.get_or_insert(search.total().saturating_sub(growth));
            self.searches = self.searches.wrapping_add(1);
            // Somebody may fill the file system where no name leads to, unless others free as much meanwhile; so both are asked.
            let is_suspicious = lost_in_all > self.threshold / 2 || self.searches.is_multiple_of(DELETED_EVERY);
            if growth <= self.threshold && is_suspicious {
                growth = match deleted_bytes(pid_one, search.device, Instant::now() + LOOKING_FOR_DELETED) {
                    Some(deleted) => growth.saturating_add(deleted),
                    None => growth.max(lost_in_all),
                };
            }
            if search.has_closed_folders && lost_in_all > self.threshold {
                growth = growth.max(lost_in_all);
            }
        }
        let is_too_much = growth > self.threshold;
        let took = began.elapsed();
        if has_more && !is_too_much {
            let is_urgent = self.lost() > self.threshold.saturating_sub(self.growth);
            self.next = began + took * if is_urgent { URGENT_SHARE } else { SHARE };
            self.search = Some(search);
            return false;
        }
        if !has_more {
            self.free = free_bytes(&self.root);
            if growth <= self.limit {
                self.threshold = self.limit;
            }
        }
        self.growth = growth;
        self.next = began + (took * SHARE).clamp(BETWEEN_LOOKS, LATEST_LOOK);
        is_too_much
    }

    /// How much less is free than at the end of the last search.
    fn lost(&self) -> u64 {
        self.free.saturating_sub(free_bytes(&self.root))
    }

    /// After an end for this reason a later command may still clean up, but not fill the rest of the disk: above twice the limit
    /// nothing runs for longer than it takes to look.
    pub(super) fn forgive(&mut self) {
        let most = self.limit.saturating_mul(2);
        self.threshold = self.growth.saturating_add(1 << 20).clamp(self.limit, most);
        self.search = None;
    }
}

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const LOOKED_AT: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::BTIME);

fn free_bytes(folder: &OwnedFd) -> u64 {
    rustix::fs::fstatvfs(folder).map_or(0, |stat| stat.f_bfree.saturating_mul(stat.f_frsize))
}

fn device_of(stat: &Statx) -> (u32, u32) {
    (stat.stx_dev_major, stat.stx_dev_minor)
}

fn bytes_of(stat: &Statx) -> u64 {
    stat.stx_blocks.saturating_mul(512).max(ENTRY_BYTES)
}

/// What processes below `root` hold open on a file system although no name leads to it any more; `None` where that takes too long.
fn deleted_bytes(root: i32, device: (u32, u32), until: Instant) -> Option<u64> {
    let mut seen = HashSet::new();
    let mut sum = 0u64;
    for pid in tree::below(root) {
        let files = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        for file in files {
            if Instant::now() >= until {
                return None;
            }
            let Ok(stat) = statx(rustix::fs::CWD, file.path(), AtFlags::empty(), LOOKED_AT) else { continue };
            let is_deleted = stat.stx_nlink == 0 && device_of(&stat) == device;
            if is_deleted && seen.len() < MAX_LINKED && seen.insert(stat.stx_ino) {
                sum = sum.saturating_add(bytes_of(&stat));
            }
        }
    }
    Some(sum)
}

/// One way through the tree, to be continued.
#[derive(Debug)]
struct Search {
    folders: Vec<Dir>,
    device: (u32, u32),
    linked: HashSet<u64>,
    /// Of files that were there at the start and have not been written to since.
    old_bytes: u64,
    /// Of files that were there at the start and are not as they were.
    changed_bytes: u64,
    new_bytes: u64,
    /// Some folders could not be looked into, or lie too deep; then the free space is all there is to go by.
    has_closed_folders: bool,
}

impl Search {
    fn begin(root: &OwnedFd) -> rustix::io::Result<Search> {
        let stat = statx(root, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)?;
        Ok(Search {
            folders: vec![Dir::read_from(root)?],
            device: device_of(&stat),
            linked: HashSet::new(),
            old_bytes: 0,
            changed_bytes: 0,
            new_bytes: 0,
            has_closed_folders: false,
        })
    }

    fn total(&self) -> u64 {
        self.old_bytes.saturating_add(self.changed_bytes).saturating_add(self.new_bytes)
    }

    /// Looks at one entry; `false` at the end.
    fn step(&mut self, since: Duration) -> bool {
        let depth = self.folders.len();
        let Some(folder) = self.folders.last_mut() else { return false };
        let Some(Ok(entry)) = folder.read() else {
            self.folders.pop();
            return !self.folders.is_empty();
        };
        let name = entry.file_name();
        if name == c"." || name == c".." {
            return true;
        }
        let Ok(folder) = folder.fd() else { return true };
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        // Names vanish while we look.
        let Ok(stat) = statx(folder, name, flags, LOOKED_AT) else { return true };
        if device_of(&stat) != self.device {
            return true;
        }
        let kind = FileType::from_raw_mode(stat.stx_mode.into());
        let is_linked = kind != FileType::Directory && stat.stx_nlink > 1;
        if !(is_linked && self.linked.len() < MAX_LINKED && !self.linked.insert(stat.stx_ino)) {
            let is_since = |stamp: rustix::fs::StatxTimestamp| {
                Duration::new(u64::try_from(stamp.tv_sec).unwrap_or(0), stamp.tv_nsec) >= since
            };
            let sum = if stat.stx_mask & StatxFlags::BTIME.bits() != 0 && is_since(stat.stx_btime) {
                &mut self.new_bytes
            } else if is_since(stat.stx_ctime) {
                &mut self.changed_bytes
            } else {
                &mut self.old_bytes
            };
            *sum = sum.saturating_add(bytes_of(&stat));
        }
        if kind == FileType::Directory {
            if depth >= MAX_DEPTH {
                self.has_closed_folders = true;
                return true;
            }
            match rustix::fs::openat(folder.as_fd(), name, FOLDER, FileMode::empty()).and_then(Dir::new) {
                Ok(next) => self.folders.push(next),
                Err(rustix::io::Errno::NOENT) => {}
                Err(_) => self.has_closed_folders = true,
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write;
    use std::path::PathBuf;

    struct World {
        folder: tempfile::TempDir,
        watch: Option<DiskWatch>,
    }

    impl World {
        fn new() -> World {
            World { folder: tempfile::tempdir().expect("a folder"), watch: None }
        }

        fn at(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn write(&self, name: &str, bytes: usize) {
            fs::write(self.at(name), vec![1; bytes]).expect("a file");
        }

        fn watch(&mut self, limit: u64) {
            // What is there now shall not look as if it were born later.
            std::thread::sleep(Duration::from_millis(50));
            self.watch = Some(DiskWatch::over(self.folder.path(), limit).expect("a folder"));
        }

        fn is_too_much(&mut self) -> bool {
            let own = rustix::process::getpid().as_raw_nonzero().get();
            let watch = self.watch.as_mut().expect("a watch");
            loop {
                watch.next = Instant::now();
                let is_too_much = watch.look(own, false);
                if watch.search.is_none() {
                    return is_too_much;
                }
            }
        }
    }

    #[test]
    fn only_what_was_added_counts() {
        let mut world = World::new();
        fs::create_dir(world.at("old")).expect("a folder");
        world.write("old/large", 3 << 20);
        fs::hard_link(world.at("old/large"), world.at("again")).expect("a link");
        world.watch(1 << 20);
        assert!(!world.watch.as_mut().expect("a watch").look(1, false), "not yet");
        assert!(!world.is_too_much());
        fs::hard_link(world.at("old/large"), world.at("third")).expect("a link");
        world.write("small", 300 << 10);
        assert!(!world.is_too_much());
        world.write("more", 900 << 10);
        assert!(world.is_too_much(), "{:?}", world.watch);
        // The next command may clean up, but not go on.
        world.watch.as_mut().expect("a watch").forgive();
        assert!(!world.is_too_much());
        world.write("evenmore", 2 << 20);
        assert!(world.is_too_much());
        fs::remove_file(world.at("evenmore")).expect("a file");
        assert!(!world.is_too_much());
        // Once it is clean again, all is as before.
        fs::remove_file(world.at("more")).expect("a file");
        assert!(!world.is_too_much());
        world.write("more", 900 << 10);
        assert!(world.is_too_much());
        world.write("most", 3 << 20);
        assert!(world.is_too_much());
        world.watch.as_mut().expect("a watch").forgive();
        assert!(world.is_too_much(), "more than twice as much is not forgiven");
    }

    #[test]
    fn looking_leaves_the_processor_to_others() {
        let mut world = World::new();
        for number in 0..500 {
            world.write(&number.to_string(), 0);
        }
        world.watch(1 << 30);
        let watch = world.watch.as_mut().expect("a watch");
        // One step can be late, so several are looked at together.
        let (mut busy, mut free, mut searches) = (Duration::ZERO, Duration::ZERO, 0);
        while searches < 3 {
            watch.next = Instant::now();
            let began = Instant::now();
            assert!(!watch.look(1, false));
            busy += began.elapsed();
            free += watch.next.saturating_duration_since(began);
            searches += usize::from(watch.search.is_none());
        }
        assert!(free >= busy * (SHARE - 2), "{busy:?} busy, {free:?} until the next looks");
    }

    #[test]
    fn many_empty_files_and_deep_folders_count_too() {
        let mut world = World::new();
        world.watch(100 * ENTRY_BYTES);
        for number in 0..101 {
            world.write(&number.to_string(), 0);
        }
        assert!(world.is_too_much(), "what was born after the start is never part of it");
        let mut world = World::new();
        fs::create_dir_all(world.at(&"d/".repeat(MAX_DEPTH + 1))).expect("folders");
        world.watch(1 << 30);
        assert!(!world.is_too_much());
        world.watch.as_mut().expect("a watch").free_at_start = u64::MAX;
        assert!(world.is_too_much(), "nobody can look there, and much was lost");
    }

    #[test]
    fn holes_and_symlinks_are_free() {
        let mut world = World::new();
        let elsewhere = World::new();
        elsewhere.write("large", 3 << 20);
        world.watch(1 << 20);
        fs::File::create(world.at("sparse")).and_then(|file| file.set_len(1 << 40)).expect("a hole");
        std::os::unix::fs::symlink(elsewhere.folder.path(), world.at("link")).expect("a link");
        assert!(!world.is_too_much(), "{:?}", world.watch);
    }

    #[test]
    fn what_grew_before_the_first_search_counts_as_far_as_space_was_lost() {
        let mut world = World::new();
        world.write("file", 4 << 20);
        world.watch(1 << 20);
        let mut file = fs::OpenOptions::new().append(true).open(world.at("file")).expect("a file");
        // Nothing was lost, so nothing was added, whatever the stamps say.
        world.watch.as_mut().expect("a watch").free_at_start = 0;
        file.write_all(b"x").expect("room");
        assert!(!world.is_too_much(), "{:?}", world.watch);
        world.watch(1 << 20);
        file.write_all(b"x").expect("room");
        world.watch.as_mut().expect("a watch").free_at_start = u64::MAX;
        assert!(world.is_too_much(), "{:?}", world.watch);
    }

    #[test]
    fn a_deleted_file_counts_while_it_is_open() {
        let mut world = World::new();
        world.watch(1 << 20);
        world.write("file", 4096);
        assert!(!world.is_too_much());
        let mut child = std::process::Command::new("sh")
            .args(["-c", "exec 5>\"$0\"; rm \"$0\"; head -c 3000000 /dev/zero >&5; echo; read x"])
            .arg(world.at("gone"))
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("a shell");
        let mut word = [0u8; 1];
        std::io::Read::read_exact(child.stdout.as_mut().expect("a pipe"), &mut word).expect("written");
        // Others on this file system may free space meanwhile; what was lost is set, so that it does not matter.
        world.watch.as_mut().expect("a watch").free_at_start = u64::MAX;
        let is_too_much = world.is_too_much();
        let own = rustix::process::getpid().as_raw_nonzero().get();
        let watch = world.watch.as_ref().expect("a watch");
        let device = device_of(&statx(&watch.root, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS).expect("it"));
        let now = Instant::now();
        assert_eq!(deleted_bytes(own, device, now), None, "no time is not enough");
        let found = deleted_bytes(own, device, now + Duration::from_secs(60));
        assert!(found.is_some_and(|bytes| bytes >= 3_000_000), "{found:?}");
        drop(child.stdin.take());
        child.wait().expect("its end");
        assert!(is_too_much, "{:?}", world.watch);
        assert!(!world.is_too_much(), "{:?}", world.watch);
    }
}
