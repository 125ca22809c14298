//! Where callers come in: a Unix socket of the owner's, and addresses.

use crate::seat::Seat;
use rustix::fs::{Mode, OFlags};
use std::{
    fs::{self, File, Permissions},
    io,
    net::SocketAddr,
    os::{
        fd::AsRawFd,
        unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};
use tokio::net::{TcpListener, UnixListener};

/// The name of the socket in the seat's folder.
const SOCKET: &str = "socket";
/// What it is called before it is ready.
const NEW: &str = "socket.new";
/// The longest path that the kernel takes for a socket.
const LONGEST_PATH: usize = 107;

#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("cannot listen on {address}")]
    Tcp { address: SocketAddr, source: io::Error },
    #[error("cannot listen on the socket {}", path.display())]
    Unix { path: PathBuf, source: io::Error },
    #[error("{} is in the way: it is no socket", path.display())]
    NotASocket { path: PathBuf },
    #[error("{address} can be reached from other machines, and tokens would go there in plain text")]
    PlainHttp { address: SocketAddr },
}

/// A place where callers come in.
#[derive(Debug)]
pub enum Door {
    Unix(UnixDoor),
    Tcp(TcpListener),
}

/// A Unix socket, whose file goes away with it.
#[derive(Debug)]
pub struct UnixDoor {
    pub(crate) listener: UnixListener,
    path: PathBuf,
    file: (u64, u64),
}

impl Drop for UnixDoor {
    fn drop(&mut self) {
        // Only ours: another daemon's may lie there by now.
        if identity(&self.path).is_ok_and(|file| file == self.file) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl UnixDoor {
    /// Listens in the seat's folder. Whatever socket lies there belongs to nobody any more, because the seat is ours.
    pub fn open(seat: &Seat) -> Result<Self, ListenError> {
        let path = seat.folder().join(SOCKET);
        if fs::symlink_metadata(&path).is_ok_and(|found| !found.file_type().is_socket()) {
            return Err(ListenError::NotASocket { path });
        }
        let failed = |source| ListenError::Unix { path: path.clone(), source };
        let new = seat.folder().join(NEW);
        // It has its rights, and listens, before anybody finds it under its name.
        let listener = bind(seat.folder(), &new).map_err(failed)?;
        let ready = fs::set_permissions(&new, Permissions::from_mode(0o600)).and_then(|()| fs::rename(&new, &path));
        let file = ready.and_then(|()| identity(&path)).map_err(failed)?;
        Ok(Self { listener, path, file })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn bind(folder: &Path, path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    if path.as_os_str().len() <= LONGEST_PATH {
        return UnixListener::bind(path);
    }
    // A shorter way to the same place.
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = File::from(rustix::fs::open(folder, flags, Mode::empty())?);
    UnixListener::bind(format!("/proc/self/fd/{}/{NEW}", opened.as_raw_fd()))
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|meta| (meta.dev(), meta.ino()))
}

/// Whether tokens may be sent in plain text to where others can listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlainHttp {
    Allowed,
    LoopbackOnly,
}

/// Listens on an address.
pub async fn tcp(address: SocketAddr, plain: PlainHttp) -> Result<TcpListener, ListenError> {
    if !address.ip().to_canonical().is_loopback() && plain == PlainHttp::LoopbackOnly {
        return Err(ListenError::PlainHttp { address });
    }
    TcpListener::bind(address).await.map_err(|source| ListenError::Tcp { address, source })
}
