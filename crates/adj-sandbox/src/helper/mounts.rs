//! The file system that a sandbox sees: a private root with the host's programs read-only, and the workspace.
//!
//! Everything goes through descriptors of the mount API; no path of an untrusted tree is ever resolved through a symlink.
//! Must not know: which processes will run there.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, FileType, Mode as FileMode, OFlags, ResolveFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
};

use super::protect::{Hold, Protection};
use crate::error::{Doing, Layer, SetupError};
use crate::plan::{HOME, Mode, Mount, Plan};
use crate::sys;

pub(super) const READ_ONLY: u64 = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
pub(super) const READ_WRITE: u64 = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
const DEVICE: u64 = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC;

const SYSTEM_FOLDERS: [&str; 7] = ["usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"];

/// What programs look up in `/etc` that is no secret; `ssl/private` and its like stay out.
const ETC: [&str; 16] = [
    "alternatives",
    "crypto-policies",
    "debian_version",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "mime.types",
    "os-release",
    "pki/ca-trust/extracted",
    "pki/tls/certs",
    "protocols",
    "services",
    "ssl/certs",
    "ssl/openssl.cnf",
    "terminfo",
];

/// Longer files are mounted instead of copied; all copies together fit the root by far.
const MOST_COPIED_BYTES: u64 = 128 << 10;

const ETC_TEXTS: [(&str, &str); 7] = [
    ("passwd", "root:x:0:0:root:/root:/usr/sbin/nologin\nagent:x:1000:1000:agent:/home/agent:/bin/bash\n"),
    ("group", "root:x:0:\nagent:x:1000:\n"),
    ("hosts", "127.0.0.1 localhost sandbox\n::1 localhost\n"),
    ("hostname", "sandbox\n"),
    ("nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n"),
    ("resolv.conf", "# There is no name server inside.\n"),
    ("shells", "/bin/sh\n/bin/bash\n"),
];

/// Parts of `/proc` that say something about the host's kernel or other tenants.
const PROC_MASKED: [&str; 5] = ["kallsyms", "key-users", "keys", "latency_stats", "sched_debug"];

/// More of them, which nobody but root could read anyway.
const PROC_MASKED_FOR_ROOT: [&str; 7] =
    ["kcore", "kpagecgroup", "kpagecount", "kpageflags", "slabinfo", "timer_list", "vmallocinfo"];

/// Builds the root, moves into it and forgets the host's.
pub(super) fn build(plan: &Plan, protection: &Protection, is_root: bool) -> Result<(), SetupError> {
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).map_err(|error| {
        match error {
            // Some distributions hand out user namespaces that may do nothing.
            rustix::io::Errno::ACCESS | rustix::io::Errno::PERM => SetupError::new(
                Layer::Namespaces,
                "use the new user namespace, AppArmor or a sysctl may restrict it",
                error,
            ),
            error => SetupError::new(Layer::Mounts, "detach mounts from the host's", error),
        }
    })?;
    let root = tmpfs(&[("size", "4m"), ("nr_inodes", "4096"), ("mode", "0755")], "the root")?;
    // Covering our own "/" hides nothing from paths that are looked up before the pivot.
    rustix::mount::move_mount(root.as_fd(), "", CWD, "/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .doing(Layer::Mounts, || "attach the root".into())?;
    let mut view = View { root: root.as_fd(), own_devices: BTreeSet::new() };
    view.own(root.as_fd())?;
    view.system()?;
    view.etc()?;
    view.devices(plan)?;
    view.proc(is_root)?;
    view.private_folders(plan)?;
    view.requested(plan, protection)?;
    view.masks(plan, protection.sockets())?;
    sys::set_mount_attributes(root.as_fd(), READ_ONLY, false).doing(Layer::Mounts, || "seal the root".into())?;
    rustix::process::fchdir(&root).doing(Layer::Mounts, || "enter the root".into())?;
    rustix::process::pivot_root(".", ".").doing(Layer::Mounts, || "change the root".into())?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).doing(Layer::Mounts, || "let go of the host's root".into())?;
    rustix::process::chdir("/").doing(Layer::Mounts, || "enter the root".into())
}

pub(super) struct View<'a> {
    pub(super) root: BorrowedFd<'a>,
    /// Devices of the file systems that are ours alone, where missing mount points may be created.
    own_devices: BTreeSet<u64>,
}

impl View<'_> {
    fn own(&mut self, mount: BorrowedFd<'_>) -> Result<(), SetupError> {
        let stat = rustix::fs::fstat(mount).doing(Layer::Mounts, || "look at a mount".into())?;
        self.own_devices.insert(stat.st_dev);
        Ok(())
    }

    fn system(&self) -> Result<(), SetupError> {
        for name in SYSTEM_FOLDERS {
            let host = Path::new("/").join(name);
            let Ok(kind) = std::fs::symlink_metadata(&host) else {
                continue;
            };
            if kind.is_symlink() {
                link(&target_of(&host)?, self.root, name)?;
            } else {
                make_folder(self.root, name)?;
                attach_in(&clone_tree(&host)?, READ_ONLY, self.root, name)?;
            }
        }
        make_folder(self.root, "var")?;
        make_folder(self.root, "run")
    }

    fn etc(&self) -> Result<(), SetupError> {
        let etc = self.folder(Path::new("etc"))?;
        for (name, text) in ETC_TEXTS {
            make_file(&etc, name, text.as_bytes())?;
        }
        let mut names: Vec<String> = ETC.iter().map(|name| (*name).to_owned()).collect();
        // Java runtimes keep their configuration there and only link to it.
        names.extend(
            std::fs::read_dir("/etc")
                .into_iter()
                .flatten()
                .flatten()
                .filter_map(|entry| entry.file_name().into_string().ok().filter(|name| name.starts_with("java-"))),
        );
        for name in names {
            let host = Path::new("/etc").join(&name);
            let Ok(kind) = std::fs::symlink_metadata(&host) else {
                continue;
            };
            let (folder, name) = match name.rsplit_once('/') {
                Some((above, name)) => (&self.folder(&Path::new("etc").join(above))?, name),
                None => (&etc, name.as_str()),
            };
            if kind.is_symlink() {
                link(&target_of(&host)?, folder, name)?;
            } else if let Some(text) = short_text(&host, &kind) {
                make_file(folder, name, &text)?;
            } else {
                if kind.is_dir() { make_folder(folder, name) } else { make_file(folder, name, b"") }?;
                attach_in(&clone_tree(&host)?, READ_ONLY, folder, name)?;
            }
        }
        Ok(())
    }

    fn devices(&mut self, plan: &Plan) -> Result<(), SetupError> {
        let dev = self.folder(Path::new("dev"))?;
        for name in ["null", "zero", "full", "random", "urandom", "tty"] {
            // Containers without terminals have no `tty`; all others are needed.
            if name == "tty" && !Path::new("/dev/tty").exists() {
                continue;
            }
            make_file(&dev, name, b"")?;
            attach_in(&clone_tree(&Path::new("/dev").join(name))?, DEVICE, &dev, name)?;
        }
        let links = [
            ("/proc/self/fd", "fd"),
            ("/proc/self/fd/0", "stdin"),
            ("/proc/self/fd/1", "stdout"),
            ("/proc/self/fd/2", "stderr"),
            ("pts/ptmx", "ptmx"),
        ];
        for (target, name) in links {
            link(Path::new(target), &dev, name)?;
        }
        make_folder(&dev, "pts")?;
        let terminals = file_system("devpts", &[("mode", "0600"), ("ptmxmode", "0666")], &[])
            .and_then(|context| {
                mounted(&context, MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC)
            })
            .doing(Layer::Mounts, || "mount /dev/pts".into())?;
        put_in(&terminals, &dev, "pts")?;
        make_folder(&dev, "shm")?;
        let bytes = (plan.limits.tmp_bytes / 4).max(1 << 20);
        let (size, inodes) = (bytes.to_string(), inodes_for(bytes));
        let shared = tmpfs(&[("size", &size), ("nr_inodes", &inodes), ("mode", "1777")], "/dev/shm")?;
        put_in(&shared, &dev, "shm")
    }

    /// A `/proc` that shows only this pid namespace and cannot be written to: a process that is root outside could otherwise
    /// change the host's kernel settings there, capabilities or not.
    fn proc(&self, is_root: bool) -> Result<(), SetupError> {
        make_folder(self.root, "proc")?;
        let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
            | MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let proc = file_system("proc", &[], &[])
            .and_then(|context| mounted(&context, attributes))
            .doing(Layer::Proc, || "mount a new /proc".into())?;
        put_in(&proc, self.root, "proc")?;
        // With the attributes of the device that was mounted already.
        let null = self.open_inside(Path::new("dev/null")).doing(Layer::Proc, || "open /dev/null".into())?;
        let for_root: &[&str] = if is_root { &PROC_MASKED_FOR_ROOT } else { &[] };
        for name in PROC_MASKED.iter().chain(for_root) {
            let what = || format!("cover /proc/{name}");
            match rustix::fs::accessat(&proc, *name, Access::EXISTS, AtFlags::empty()) {
                Ok(()) => move_into(&clone_of(&null, Path::new("/dev/null"))?, &proc, name).doing(Layer::Proc, what)?,
                Err(rustix::io::Errno::NOENT) => {}
                Err(error) => return Err(error).doing(Layer::Proc, what),
            }
        }
        Ok(())
    }

    fn private_folders(&mut self, plan: &Plan) -> Result<(), SetupError> {
        let size = plan.limits.tmp_bytes.to_string();
        let mut folders = vec![("tmp", "1777"), (&HOME[1..], "0755")];
        // Usually one private folder for temporary files is enough; a link, however, is no place to mount something at.
        let mut wanted = plan.binds.iter().map(|bind| bind.inside.as_path()).chain(plan.workspace.inside());
        if wanted.any(|inside| inside.starts_with("/var/tmp")) {
            folders.push(("var/tmp", "1777"));
        } else {
            link(Path::new("/tmp"), self.root, "var/tmp")?;
        }
        for (inside, mode) in folders {
            let place = self.folder(Path::new(inside))?;
            let inodes = inodes_for(plan.limits.tmp_bytes);
            let options = [("size", size.as_str()), ("nr_inodes", &inodes), ("mode", mode)];
            let mount = tmpfs(&options, inside)?;
            self.own(mount.as_fd())?;
            move_to(&mount, &place).doing(Layer::Mounts, || format!("mount /{inside}"))?;
        }
        Ok(())
    }

    /// The workspace and the binds, outer ones first.
    fn requested(&self, plan: &Plan, protection: &Protection) -> Result<(), SetupError> {
        let mut all: Vec<(&Path, Wanted<'_>)> = plan
            .binds
            .iter()
            .map(|bind| (bind.inside.as_path(), Wanted::Bind { host: &bind.host, is_writable: bind.writable }))
            .collect();
        all.extend(plan.workspace.inside().map(|inside| (inside, Wanted::Workspace)));
        all.sort_by_key(|(inside, _)| inside.components().count());
        for (inside, wanted) in all {
            let relative = inside.strip_prefix("/").unwrap_or(inside);
            match wanted {
                Wanted::Bind { host, is_writable } => {
                    let source = open_host(host)?;
                    let place = self.mount_point(relative, is_folder(&source, host)?)?;
                    let attributes = if is_writable { READ_WRITE } else { READ_ONLY };
                    attach(&clone_of(&source, host)?, attributes, &place, relative)?;
                }
                Wanted::Workspace => self.workspace(plan, relative, protection)?,
            }
        }
        Ok(())
    }

    fn workspace(&self, plan: &Plan, inside: &Path, protection: &Protection) -> Result<(), SetupError> {
        let place = self.mount_point(inside, true)?;
        match &plan.workspace {
            Mount::None => Ok(()),
            Mount::Direct { host, .. } => {
                let source = open_host(host)?;
                if plan.mode == Mode::ReadOnly {
                    return attach(&clone_of(&source, host)?, READ_ONLY, &place, inside);
                }
                attach(&clone_of(&source, host)?, READ_WRITE, &place, inside)?;
                // The folders above a protected one are pinned as mount points of their own: renaming one would carry the
                // protection away with it.
                for (path, hold) in protection.in_mount_order() {
                    let what = host.join(&path);
                    let flags = if hold == Hold::Link { OFlags::NOFOLLOW } else { OFlags::empty() };
                    let part = open_beneath(&source, &path, flags)
                        .doing(Layer::Protection, || format!("open {} without symlinks", what.display()))?;
                    let attributes = if hold == Hold::Pinned { READ_WRITE } else { READ_ONLY };
                    let (part, place) = (clone_of(&part, &what)?, inside.join(&path));
                    self.open_with(&place, flags)
                        .map_err(io::Error::from)
                        .and_then(|target| attach_at(&part, attributes, &target))
                        .doing(Layer::Protection, || format!("protect {}", what.display()))?;
                }
                Ok(())
            }
            Mount::Overlay { lower, upper, work, .. } => {
                let (lower_fd, upper_fd) = (open_host(lower)?, open_host(upper)?);
                // Named by descriptor: no character of a path needs escaping, and no path shows up inside.
                let named = |fd: &OwnedFd| format!("/proc/self/fd/{}", fd.as_raw_fd());
                let mount = if plan.mode == Mode::ReadOnly {
                    let layers = format!("{}:{}", named(&upper_fd), named(&lower_fd));
                    overlay(&[("lowerdir", &layers)], true)
                } else {
                    let work_fd = open_host(work)?;
                    let options =
                        [("lowerdir", named(&lower_fd)), ("upperdir", named(&upper_fd)), ("workdir", named(&work_fd))];
                    overlay(&options.each_ref().map(|(key, value)| (*key, value.as_str())), false)
                }
                .doing(Layer::Overlay, || format!("mount {} over {}", upper.display(), lower.display()))?;
                move_to(&mount, &place).doing(Layer::Mounts, || format!("mount /{}", inside.display()))
            }
        }
    }

    /// The place `inside` where something is to be mounted, created only where that leaves nothing behind.
    fn mount_point(&self, inside: &Path, is_folder: bool) -> Result<OwnedFd, SetupError> {
        if is_folder {
            return self.folder(inside);
        }
        let what = || format!("open /{} inside", inside.display());
        match self.open_inside(inside) {
            Err(rustix::io::Errno::NOENT) => {}
            found => return found.doing(Layer::Mounts, what),
        }
        let (parent, name) = self.own_parent(inside)?;
        make_file(&parent, name, b"")?;
        self.open_inside(inside).doing(Layer::Mounts, what)
    }

    /// The folder `inside`, and those above it, made where they are missing.
    fn folder(&self, inside: &Path) -> Result<OwnedFd, SetupError> {
        match self.open_inside(inside) {
            Err(rustix::io::Errno::NOENT) => {}
            found => return found.doing(Layer::Mounts, || format!("open /{} inside", inside.display())),
        }
        let (parent, name) = self.own_parent(inside)?;
        make_folder(&parent, name)?;
        open_beneath(&parent, Path::new(name), OFlags::empty())
            .doing(Layer::Mounts, || format!("open /{} inside", inside.display()))
    }

    /// The folder of `inside`, which must be one of ours: a mount point created in a tree of the host would stay there.
    fn own_parent<'p>(&self, inside: &'p Path) -> Result<(OwnedFd, &'p OsStr), SetupError> {
        let refuse = || format!("create /{} inside: no such file or folder there", inside.display());
        let parent = inside.parent().unwrap_or(Path::new(""));
        let parent = if parent.as_os_str().is_empty() {
            self.open_inside(Path::new(".")).doing(Layer::Mounts, refuse)?
        } else {
            self.folder(parent)?
        };
        let device = rustix::fs::fstat(&parent).doing(Layer::Mounts, refuse)?.st_dev;
        match inside.file_name() {
            Some(name) if self.own_devices.contains(&device) => Ok((parent, name)),
            _ => Err(io::Error::from(io::ErrorKind::NotFound)).doing(Layer::Mounts, refuse),
        }
    }

    pub(super) fn open_inside(&self, inside: &Path) -> rustix::io::Result<OwnedFd> {
        self.open_with(inside, OFlags::empty())
    }

    fn open_with(&self, inside: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        rustix::fs::openat2(self.root, inside, flags | OFlags::PATH | OFlags::CLOEXEC, FileMode::empty(), resolve)
    }
}

enum Wanted<'a> {
    Bind { host: &'a PathBuf, is_writable: bool },
    Workspace,
}

/// Makes a folder in one of ours.
fn make_folder(folder: impl AsFd, name: impl AsRef<OsStr>) -> Result<(), SetupError> {
    let name = name.as_ref();
    rustix::fs::mkdirat(folder, name, FileMode::from_raw_mode(0o755))
        .doing(Layer::Mounts, || format!("create the folder {} inside", name.display()))
}

/// Makes a file in a folder of ours.
fn make_file(folder: impl AsFd, name: impl AsRef<OsStr>, text: &[u8]) -> Result<(), SetupError> {
    let (name, flags) = (name.as_ref(), OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC);
    rustix::fs::openat(folder, name, flags, FileMode::from_raw_mode(0o644))
        .map_err(io::Error::from)
        .and_then(|file| if text.is_empty() { Ok(()) } else { File::from(file).write_all(text) })
        .doing(Layer::Mounts, || format!("create the file {} inside", name.display()))
}

/// Makes a link in a folder of ours.
fn link(target: &Path, folder: impl AsFd, name: &str) -> Result<(), SetupError> {
    rustix::fs::symlinkat(target, folder, name).doing(Layer::Mounts, || format!("link {name} inside"))
}

fn target_of(host: &Path) -> Result<PathBuf, SetupError> {
    std::fs::read_link(host).doing(Layer::Mounts, || format!("read {}", host.display()))
}

/// The text of a regular file that is so short that copying it costs less than a mount.
fn short_text(host: &Path, kind: &Metadata) -> Option<Vec<u8>> {
    if !kind.is_file() || kind.len() > MOST_COPIED_BYTES {
        return None;
    }
    // It may be another file by now, of any size; what cannot be read is mounted, which says who may read it.
    let mut text = Vec::with_capacity(kind.len() as usize + 1);
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = rustix::fs::open(host, flags, FileMode::empty()).ok()?;
    let count = File::from(file).take(MOST_COPIED_BYTES + 1).read_to_end(&mut text).ok()?;
    (count as u64 <= MOST_COPIED_BYTES).then_some(text)
}

/// Sets the attributes of a cloned tree and everything in it, then mounts it.
fn attach(tree: &OwnedFd, attributes: u64, place: &OwnedFd, inside: &Path) -> Result<(), SetupError> {
    attach_at(tree, attributes, place).doing(Layer::Mounts, || format!("mount /{}", inside.display()))
}

/// The same at a name in a folder of ours.
fn attach_in(tree: &OwnedFd, attributes: u64, folder: impl AsFd, name: &str) -> Result<(), SetupError> {
    sys::set_mount_attributes(tree.as_fd(), attributes, true)
        .doing(Layer::Mounts, || format!("mount {name} inside"))?;
    put_in(tree, folder, name)
}

fn put_in(mount: &OwnedFd, folder: impl AsFd, name: &str) -> Result<(), SetupError> {
    move_into(mount, folder, name).doing(Layer::Mounts, || format!("mount {name} inside"))
}

fn move_into(mount: &OwnedFd, folder: impl AsFd, name: &str) -> io::Result<()> {
    Ok(rustix::mount::move_mount(mount, "", folder, name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

pub(super) fn attach_at(tree: &OwnedFd, attributes: u64, target: &OwnedFd) -> io::Result<()> {
    sys::set_mount_attributes(tree.as_fd(), attributes, true)?;
    move_to(tree, target)
}

fn move_to(mount: &OwnedFd, target: &OwnedFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(mount, "", target, "", flags)?)
}

/// A detached copy of a system tree of the host.
fn clone_tree(host: &Path) -> Result<OwnedFd, SetupError> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    rustix::mount::open_tree(CWD, host, flags).doing(Layer::Mounts, || format!("open {}", host.display()))
}

pub(super) fn clone_of(source: &OwnedFd, host: &Path) -> Result<OwnedFd, SetupError> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE
        | OpenTreeFlags::AT_EMPTY_PATH;
    rustix::mount::open_tree(source, "", flags).doing(Layer::Mounts, || format!("open {}", host.display()))
}

/// Opens what the plan names; its last part may not be a symlink.
fn open_host(host: &Path) -> Result<OwnedFd, SetupError> {
    let fd = rustix::fs::open(host, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, FileMode::empty())
        .doing(Layer::Mounts, || format!("open {}", host.display()))?;
    if is_kind(&fd, FileType::Symlink, host)? {
        return Err(rustix::io::Errno::LOOP).doing(Layer::Mounts, || format!("open {}", host.display()));
    }
    Ok(fd)
}

fn is_folder(fd: &OwnedFd, host: &Path) -> Result<bool, SetupError> {
    is_kind(fd, FileType::Directory, host)
}

fn is_kind(fd: &OwnedFd, kind: FileType, host: &Path) -> Result<bool, SetupError> {
    let stat = rustix::fs::statat(fd, "", AtFlags::EMPTY_PATH)
        .doing(Layer::Mounts, || format!("look at {}", host.display()))?;
    Ok(FileType::from_raw_mode(stat.st_mode) == kind)
}

/// Opens something in an untrusted tree without leaving it or following anything; a link itself only with [`OFlags::NOFOLLOW`].
pub(super) fn open_beneath(folder: impl AsFd, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    Ok(rustix::fs::openat2(folder, path, flags | OFlags::PATH | OFlags::CLOEXEC, FileMode::empty(), resolve)?)
}

/// Whether a root can be made, and a tree of the host's cloned into it; for trying the layer alone.
pub(super) fn try_root() -> io::Result<()> {
    tmpfs(&[("size", "4m")], "a trial").map_err(|error| error.source)?;
    let tree = clone_tree(Path::new("/usr")).map_err(|error| error.source)?;
    sys::set_mount_attributes(tree.as_fd(), READ_ONLY, true)
}

/// Whether a new `/proc` can be made; for trying the layer alone.
pub(super) fn try_proc() -> io::Result<()> {
    let context = file_system("proc", &[], &[])?;
    mounted(&context, MountAttrFlags::MOUNT_ATTR_RDONLY).map(drop)
}

fn tmpfs(options: &[(&str, &str)], what: &str) -> Result<OwnedFd, SetupError> {
    file_system("tmpfs", options, &[])
        .and_then(|context| mounted(&context, MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV))
        .doing(Layer::Mounts, || format!("make a tmpfs for {what}"))
}

/// Files cost kernel memory that the size does not count.
fn inodes_for(bytes: u64) -> String {
    (bytes / 4096).clamp(1024, 1 << 20).to_string()
}

fn overlay(options: &[(&str, &str)], is_read_only: bool) -> io::Result<OwnedFd> {
    let context = file_system("overlay", options, &["userxattr"])?;
    let mut attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    if is_read_only {
        attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
    }
    mounted(&context, attributes)
}

fn file_system(kind: &str, options: &[(&str, &str)], flags: &[&str]) -> io::Result<OwnedFd> {
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        rustix::mount::fsconfig_set_string(&context, *key, *value)?;
    }
    for flag in flags {
        rustix::mount::fsconfig_set_flag(&context, *flag)?;
    }
    rustix::mount::fsconfig_create(&context)?;
    Ok(context)
}

fn mounted(context: &OwnedFd, attributes: MountAttrFlags) -> io::Result<OwnedFd> {
    Ok(rustix::mount::fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}
