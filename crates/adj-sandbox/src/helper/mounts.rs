//! The file system that a sandbox sees: a private root with the host's programs read-only, and the workspace.
//!
//! Everything goes through descriptors of the mount API; no path of an untrusted tree is ever resolved through a symlink.
//! Must not know: which processes will run there.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode as FileMode, OFlags, ResolveFlags};
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
                let target = std::fs::read_link(&host).doing(Layer::Mounts, || format!("read /{name}"))?;
                rustix::fs::symlinkat(&target, self.root, name).doing(Layer::Mounts, || format!("link /{name}"))?;
            } else {
                self.folder(name, 0o755)?;
                self.attach(clone_tree(&host)?, READ_ONLY, name)?;
            }
        }
        self.folder("var", 0o755)?;
        self.folder("run", 0o755)
    }

    fn etc(&self) -> Result<(), SetupError> {
        self.folder("etc", 0o755)?;
        for (name, text) in ETC_TEXTS {
            self.file(format!("etc/{name}"), text.as_bytes())?;
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
            let inside = format!("etc/{name}");
            self.parents(Path::new(&inside))?;
            if kind.is_symlink() {
                let target = std::fs::read_link(&host).doing(Layer::Mounts, || format!("read {}", host.display()))?;
                rustix::fs::symlinkat(&target, self.root, &inside)
                    .doing(Layer::Mounts, || format!("link /{inside}"))?;
                continue;
            }
            if kind.is_dir() {
                self.folder(&inside, 0o755)?
            } else {
                self.file(&inside, b"")?
            }
            self.attach(clone_tree(&host)?, READ_ONLY, &inside)?;
        }
        Ok(())
    }

    fn devices(&mut self, plan: &Plan) -> Result<(), SetupError> {
        self.folder("dev", 0o755)?;
        for name in ["null", "zero", "full", "random", "urandom", "tty"] {
            // Containers without terminals have no `tty`; all others are needed.
            if name == "tty" && !Path::new("/dev/tty").exists() {
                continue;
            }
            let inside = format!("dev/{name}");
            self.file(&inside, b"")?;
            self.attach(clone_tree(&Path::new("/dev").join(name))?, DEVICE, &inside)?;
        }
        let links = [
            ("/proc/self/fd", "dev/fd"),
            ("/proc/self/fd/0", "dev/stdin"),
            ("/proc/self/fd/1", "dev/stdout"),
            ("/proc/self/fd/2", "dev/stderr"),
            ("pts/ptmx", "dev/ptmx"),
        ];
        for (target, inside) in links {
            rustix::fs::symlinkat(target, self.root, inside).doing(Layer::Mounts, || format!("link /{inside}"))?;
        }
        self.folder("dev/pts", 0o755)?;
        let terminals = file_system("devpts", &[("mode", "0600"), ("ptmxmode", "0666")], &[])
            .and_then(|context| {
                mounted(&context, MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC)
            })
            .doing(Layer::Mounts, || "mount /dev/pts".into())?;
        self.put(terminals, "dev/pts")?;
        self.folder("dev/shm", 0o755)?;
        let bytes = (plan.limits.tmp_bytes / 4).max(1 << 20);
        let (size, inodes) = (bytes.to_string(), inodes_for(bytes));
        let shared = tmpfs(&[("size", &size), ("nr_inodes", &inodes), ("mode", "1777")], "/dev/shm")?;
        self.put(shared, "dev/shm")
    }

    /// A `/proc` that shows only this pid namespace and cannot be written to: a process that is root outside could otherwise
    /// change the host's kernel settings there, capabilities or not.
    fn proc(&self, is_root: bool) -> Result<(), SetupError> {
        self.folder("proc", 0o555)?;
        let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
            | MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let mount = file_system("proc", &[], &[])
            .and_then(|context| mounted(&context, attributes))
            .doing(Layer::Proc, || "mount a new /proc".into())?;
        self.put(mount, "proc")?;
        let for_root: &[&str] = if is_root { &PROC_MASKED_FOR_ROOT } else { &[] };
        for name in PROC_MASKED.iter().chain(for_root) {
            let inside = format!("proc/{name}");
            match self.open_inside(Path::new(&inside)) {
                Ok(target) => attach_at(&clone_tree(Path::new("/dev/null"))?, DEVICE, &target)
                    .doing(Layer::Proc, || format!("cover /{inside}"))?,
                Err(rustix::io::Errno::NOENT) => {}
                Err(error) => return Err(error).doing(Layer::Proc, || format!("open /{inside}")),
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
            rustix::fs::symlinkat("/tmp", self.root, "var/tmp").doing(Layer::Mounts, || "link /var/tmp".into())?;
        }
        for (inside, mode) in folders {
            self.parents(Path::new(inside))?;
            self.folder(inside, 0o755)?;
            let inodes = inodes_for(plan.limits.tmp_bytes);
            let options = [("size", size.as_str()), ("nr_inodes", &inodes), ("mode", mode)];
            let mount = tmpfs(&options, inside)?;
            self.own(mount.as_fd())?;
            self.put(mount, inside)?;
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
                    self.mount_point(relative, is_folder(&source, host)?)?;
                    let attributes = if is_writable { READ_WRITE } else { READ_ONLY };
                    self.attach(clone_of(&source, host)?, attributes, relative)?;
                }
                Wanted::Workspace => self.workspace(plan, relative, protection)?,
            }
        }
        Ok(())
    }

    fn workspace(&self, plan: &Plan, inside: &Path, protection: &Protection) -> Result<(), SetupError> {
        self.mount_point(inside, true)?;
        match &plan.workspace {
            Mount::None => Ok(()),
            Mount::Direct { host, .. } => {
                let source = open_host(host)?;
                if plan.mode == Mode::ReadOnly {
                    return self.attach(clone_of(&source, host)?, READ_ONLY, inside);
                }
                self.attach(clone_of(&source, host)?, READ_WRITE, inside)?;
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
                self.put(mount, inside)
            }
        }
    }

    /// Makes sure that something can be mounted at `inside`, creating it only where that leaves nothing behind.
    fn mount_point(&self, inside: &Path, is_folder: bool) -> Result<(), SetupError> {
        match self.open_inside(inside) {
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(error).doing(Layer::Mounts, || format!("open /{} inside", inside.display())),
        }
        self.parents(inside)?;
        if is_folder { self.folder(inside, 0o755) } else { self.file(inside, b"") }
    }

    fn parents(&self, inside: &Path) -> Result<(), SetupError> {
        let mut above: Vec<&Path> = inside.ancestors().skip(1).filter(|path| !path.as_os_str().is_empty()).collect();
        above.reverse();
        above.into_iter().try_for_each(|path| self.folder(path, 0o755))
    }

    fn folder(&self, inside: impl AsRef<Path>, mode: u32) -> Result<(), SetupError> {
        let inside = inside.as_ref();
        if self.open_inside(inside).is_ok() {
            return Ok(());
        }
        let (parent, name) = self.own_parent(inside)?;
        rustix::fs::mkdirat(parent, name, FileMode::from_raw_mode(mode))
            .doing(Layer::Mounts, || format!("create /{}", inside.display()))
    }

    fn file(&self, inside: impl AsRef<Path>, text: &[u8]) -> Result<(), SetupError> {
        let inside = inside.as_ref();
        let (parent, name) = self.own_parent(inside)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        rustix::fs::openat(parent, name, flags, FileMode::from_raw_mode(0o644))
            .and_then(|file| rustix::io::write(file, text))
            .map(drop)
            .doing(Layer::Mounts, || format!("create /{}", inside.display()))
    }

    /// The folder of `inside`, which must be one of ours: a mount point created in a tree of the host would stay there.
    fn own_parent<'p>(&self, inside: &'p Path) -> Result<(OwnedFd, &'p Path), SetupError> {
        let refuse = || format!("create /{} inside: no such file or folder there", inside.display());
        let parent = inside.parent().unwrap_or(Path::new(""));
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        let parent = self.open_inside(parent).doing(Layer::Mounts, refuse)?;
        let device = rustix::fs::fstat(&parent).doing(Layer::Mounts, refuse)?.st_dev;
        let name = inside.file_name().map(Path::new);
        match name {
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

    /// Sets the attributes of a cloned tree and everything in it, then mounts it.
    fn attach(&self, tree: OwnedFd, attributes: u64, inside: impl AsRef<Path>) -> Result<(), SetupError> {
        let inside = inside.as_ref();
        self.open_inside(inside)
            .map_err(io::Error::from)
            .and_then(|target| attach_at(&tree, attributes, &target))
            .doing(Layer::Mounts, || format!("mount /{}", inside.display()))
    }

    fn put(&self, mount: OwnedFd, inside: impl AsRef<Path>) -> Result<(), SetupError> {
        let inside = inside.as_ref();
        self.open_inside(inside)
            .map_err(io::Error::from)
            .and_then(|target| move_to(&mount, &target))
            .doing(Layer::Mounts, || format!("mount /{}", inside.display()))
    }
}

enum Wanted<'a> {
    Bind { host: &'a PathBuf, is_writable: bool },
    Workspace,
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
