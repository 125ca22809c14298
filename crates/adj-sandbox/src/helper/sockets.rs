//! Finds the sockets of servers outside that a sandbox would show, so that they can be covered.
//!
//! Whoever sees a socket's path and may write to it can connect, whatever is mounted how; only Landlock ABI 9 refuses that by itself.
//! What is looked through for repositories anyway is looked through for sockets. Other trees may be large toolchains, so for
//! those the kernel is asked which sockets live at which paths; it knows those of this network namespace.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode as FileMode, OFlags, Stat};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};

use super::mounts::open_beneath;
use super::walk::{Met, Walk};
use crate::error::{Doing, Layer, SetupError};
use crate::plan::{Mode, Mount, Plan};
use crate::sys;

/// The first Landlock that keeps a sandbox from connecting to sockets made outside.
pub(crate) const SEES_TO_SOCKETS: i32 = 9;

/// Something whose sockets are to be covered: a folder of the host's and where it is shown.
struct Tree<'a> {
    host: &'a Path,
    inside: &'a Path,
    root: OwnedFd,
    device: u64,
}

/// Where live sockets are shown, except in the directly mounted workspace that `walk` was through already.
pub(super) fn shown(plan: &Plan, walk: &mut Walk) -> Result<BTreeSet<PathBuf>, SetupError> {
    let mut found = BTreeSet::new();
    let mut trees = trees(plan)?;
    if trees.is_empty() {
        return Ok(found);
    }
    // Without the kernel's list there is only the long way.
    if let Ok(sockets) = bound() {
        let mut homeless = BTreeSet::new();
        for socket in sockets {
            if !socket.place(&trees, &mut found) {
                homeless.insert(socket.device);
            }
        }
        // A server that was told a relative name, or renamed its socket, may have it anywhere on its file system.
        trees.retain(|tree| homeless.iter().any(|device| may_be(*device, tree.device)));
    }
    for tree in trees {
        walk.through(&tree.root, tree.host, |path, met| {
            if met == Met::Other(FileType::Socket) && is_live_at(&tree.root, path) {
                found.insert(tree.inside.join(path));
            }
            Ok(true)
        })?;
    }
    Ok(found)
}

fn trees(plan: &Plan) -> Result<Vec<Tree<'_>>, SetupError> {
    let workspace = match &plan.workspace {
        Mount::Direct { host, inside } if plan.mode == Mode::ReadOnly => Some((host, inside)),
        // What an overlay shows are other inodes, at which nobody listens.
        _ => None,
    };
    let binds = plan.binds.iter().map(|bind| (&bind.host, &bind.inside));
    let mut trees = Vec::new();
    for (host, inside) in workspace.into_iter().chain(binds) {
        let what = || format!("open {}", host.display());
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = match rustix::fs::open(host, flags, FileMode::empty()) {
            Ok(root) => root,
            // Mounting it says so better.
            Err(Errno::NOENT) => continue,
            Err(error) => return Err(error).doing(Layer::Protection, what),
        };
        let stat = rustix::fs::fstat(&root).doing(Layer::Protection, what)?;
        // Who asks for a socket itself gets it.
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            trees.push(Tree { host, inside, root, device: stat.st_dev });
        }
    }
    Ok(trees)
}

/// Whether both numbers may mean one file system. Those without a disk have one number for each volume, which is not the kernel's own.
fn may_be(kernels: u32, stats: u64) -> bool {
    let (major, minor) = (kernels >> 20, kernels & 0xf_ffff);
    let (stat_major, stat_minor) = (rustix::fs::major(stats), rustix::fs::minor(stats));
    (major, minor) == (stat_major, stat_minor) || (major == 0 && stat_major == 0)
}

/// A socket with a path, as the kernel tells of it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Bound {
    name: PathBuf,
    /// The lower half of its inode's number.
    inode: u32,
    device: u32,
}

impl Bound {
    /// Adds the places where it is shown; `false` when it is not where its name says.
    fn place(&self, trees: &[Tree<'_>], found: &mut BTreeSet<PathBuf>) -> bool {
        let (Some(parent), Some(name)) = (self.name.parent(), self.name.file_name()) else { return false };
        if !self.name.is_absolute() {
            return false;
        }
        let Ok(real) = parent.canonicalize().map(|parent| parent.join(name)) else { return false };
        if !rustix::fs::lstat(&real).is_ok_and(|stat| self.is(&stat)) {
            return false;
        }
        for tree in trees {
            let host = tree.host.canonicalize();
            if let Ok(path) = real.strip_prefix(host.as_deref().unwrap_or(tree.host)) {
                found.insert(tree.inside.join(path));
            }
        }
        true
    }

    fn is(&self, stat: &Stat) -> bool {
        FileType::from_raw_mode(stat.st_mode) == FileType::Socket && stat.st_ino as u32 == self.inode
    }
}

/// Whether somebody listens at a socket that was met in a tree. What cannot be told counts as yes.
pub(super) fn is_live_at(root: &OwnedFd, path: &Path) -> bool {
    match open_beneath(root, path, OFlags::NOFOLLOW) {
        Ok(socket) => is_live(&socket),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

/// Connecting as a datagram is noticed by nobody: a stream refuses the kind, and where nobody listens that is what is said.
fn is_live(socket: &OwnedFd) -> bool {
    let own = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None);
    let address = SocketAddrUnix::new(format!("/proc/self/fd/{}", socket.as_raw_fd()));
    match (own, address) {
        (Ok(own), Ok(address)) => rustix::net::connect(own, &address) != Err(Errno::CONNREFUSED),
        _ => true,
    }
}

/// Every socket of this network namespace that has a path.
fn bound() -> io::Result<BTreeSet<Bound>> {
    let kind = SocketType::RAW;
    let diagnostics = Some(rustix::net::netlink::SOCK_DIAG);
    let socket = rustix::net::socket_with(AddressFamily::NETLINK, kind, SocketFlags::CLOEXEC, diagnostics)?;
    rustix::net::send(&socket, &question(), SendFlags::empty())?;
    let mut all = BTreeSet::new();
    let mut buffer = vec![0u8; 64 << 10];
    while read_answer(&socket, &mut buffer, &mut all)? {}
    Ok(all)
}

const BY_FAMILY: u16 = 20;
const SHOW_NAME_AND_PLACE: u32 = 1 | 2;
const NAME: u16 = 0;
const PLACE: u16 = 1;
const HEADER: usize = 16;
const BODY: usize = 16;

/// A netlink header, then a `unix_diag_req`: all states, whoever's.
fn question() -> [u8; HEADER + 24] {
    let mut bytes = [0u8; HEADER + 24];
    bytes[0..4].copy_from_slice(&((HEADER + 24) as u32).to_ne_bytes());
    bytes[4..6].copy_from_slice(&BY_FAMILY.to_ne_bytes());
    bytes[6..8].copy_from_slice(&((libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16).to_ne_bytes());
    bytes[16] = libc::AF_UNIX as u8;
    bytes[20..24].copy_from_slice(&u32::MAX.to_ne_bytes());
    bytes[28..32].copy_from_slice(&SHOW_NAME_AND_PLACE.to_ne_bytes());
    bytes
}

/// Reads one datagram of messages; `false` at the end of the list.
fn read_answer(socket: impl AsFd, buffer: &mut [u8], all: &mut BTreeSet<Bound>) -> io::Result<bool> {
    let received = rustix::net::recv(socket, &mut *buffer, RecvFlags::TRUNC)?;
    let count = received.1;
    let bytes = buffer.get(..count).ok_or_else(|| io::Error::from(io::ErrorKind::FileTooLarge))?;
    read_messages(bytes, all).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?
}

/// `None` for what is no list of messages.
fn read_messages(mut bytes: &[u8], all: &mut BTreeSet<Bound>) -> Option<io::Result<bool>> {
    while !bytes.is_empty() {
        let length = u32::from_ne_bytes(bytes.get(0..4)?.try_into().ok()?) as usize;
        let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
        let message = bytes.get(HEADER..length)?;
        match i32::from(kind) {
            libc::NLMSG_DONE => return Some(Ok(false)),
            libc::NLMSG_ERROR => return Some(Err(io::ErrorKind::Unsupported.into())),
            _ => {}
        }
        if kind == BY_FAMILY {
            all.extend(read_socket(message.get(BODY..)?)?);
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(Ok(true))
}

/// One socket's attributes; the inner `None` for one without a path.
fn read_socket(mut bytes: &[u8]) -> Option<Option<Bound>> {
    let (mut name, mut place) = (None, None);
    while !bytes.is_empty() {
        let length = usize::from(u16::from_ne_bytes(bytes.get(0..2)?.try_into().ok()?));
        let value = bytes.get(4..length)?;
        match u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?) {
            NAME => name = value.split(|byte| *byte == 0).next(),
            PLACE => {
                let number = |at: usize| Some(u32::from_ne_bytes(value.get(at..at + 4)?.try_into().ok()?));
                place = Some((number(0)?, number(4)?));
            }
            _ => {}
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(place.map(|(inode, device)| Bound {
        name: PathBuf::from(OsStr::from_bytes(name.unwrap_or_default())),
        inode,
        device,
    }))
}

/// Whether the kernel keeps sandboxes from sockets by itself.
pub(super) fn are_seen_to() -> bool {
    sys::landlock_abi() >= SEES_TO_SOCKETS
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::{UnixDatagram, UnixListener};

    #[test]
    fn the_kernel_knows_who_listens_where() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().canonicalize().expect("a real path");
        let listener = UnixListener::bind(root.join("stream")).expect("a socket");
        let datagrams = UnixDatagram::bind(root.join("datagrams")).expect("a socket");
        std::fs::rename(root.join("datagrams"), root.join("renamed")).expect("another name");
        let fd = rustix::fs::open(&root, OFlags::PATH | OFlags::CLOEXEC, FileMode::empty()).expect("a folder");
        let device = rustix::fs::fstat(&fd).expect("a folder").st_dev;
        let tree = Tree { host: &root, inside: Path::new("/inside"), root: fd, device };
        let sockets = bound().expect("the kernel's list");
        let mut found = BTreeSet::new();
        let own = |name: &str| sockets.iter().find(|socket| socket.name == root.join(name)).expect(name);
        assert!(own("stream").place(&[tree], &mut found));
        assert_eq!(found, BTreeSet::from([PathBuf::from("/inside/stream")]));
        assert!(!own("datagrams").place(&[], &mut found), "it is no longer there");
        assert!(may_be(own("datagrams").device, device));
        let fd = rustix::fs::open(&root, OFlags::PATH | OFlags::CLOEXEC, FileMode::empty()).expect("a folder");
        assert!(is_live_at(&fd, Path::new("stream")) && is_live_at(&fd, Path::new("renamed")));
        drop((listener, datagrams));
        assert!(!is_live_at(&fd, Path::new("stream")) && !is_live_at(&fd, Path::new("renamed")));
    }

    #[test]
    fn nonsense_is_no_list() {
        let mut all = BTreeSet::new();
        for bytes in [&[0u8; 3][..], &[0; 16], &[255; 64], &[20, 0, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]] {
            assert!(read_messages(bytes, &mut all).is_none(), "{bytes:?}");
        }
        assert!(all.is_empty());
    }
}
