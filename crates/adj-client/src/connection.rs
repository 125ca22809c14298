//! One request over one connection.

use crate::client::ClientError;
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Request, StatusCode, body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use rustix::fs::{Mode, OFlags};
use std::{
    fs::File,
    io,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    task::JoinHandle,
    time::timeout,
};

/// The longest path that the kernel takes for a socket.
const LONGEST_PATH: usize = 107;
/// The largest document that is read whole.
const MAX_DOCUMENT_BYTES: usize = 256 * 1024 * 1024;

/// Where a daemon listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    Unix(PathBuf),
    /// Host and port.
    Http(String),
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => path.display().fmt(f),
            Self::Http(authority) => write!(f, "http://{authority}"),
        }
    }
}

/// An answer of which the head is here, and the body is read as it comes.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    body: Incoming,
    address: Address,
    driver: Driver,
}

/// The connection at work; it ends with whoever holds this.
#[derive(Debug)]
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Connects, sends the request, and waits for the head of its answer.
pub(crate) async fn send(
    address: &Address,
    request: Request<Full<Bytes>>,
    patience: Duration,
) -> Result<Answer, ClientError> {
    let asking = async {
        match address {
            Address::Unix(path) => {
                let stream = open(path).await.map_err(|error| no_connection(address, error))?;
                ask(address, stream, request).await
            }
            Address::Http(authority) => {
                let stream = TcpStream::connect(authority).await.map_err(|error| no_connection(address, error))?;
                let _ = stream.set_nodelay(true);
                ask(address, stream, request).await
            }
        }
    };
    let silent = || ClientError::Silent { address: address.to_string(), seconds: patience.as_secs() };
    timeout(patience, asking).await.map_err(|_| silent())?
}

async fn open(path: &Path) -> io::Result<UnixStream> {
    match (path.as_os_str().len() <= LONGEST_PATH, path.parent(), path.file_name().and_then(|name| name.to_str())) {
        // A shorter way to the same place.
        (false, Some(folder), Some(name)) => {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let opened = File::from(rustix::fs::open(folder, flags, Mode::empty())?);
            UnixStream::connect(format!("/proc/self/fd/{}/{name}", opened.as_raw_fd())).await
        }
        _ => UnixStream::connect(path).await,
    }
}

fn no_connection(address: &Address, source: io::Error) -> ClientError {
    let address = address.to_string();
    match source.kind() {
        // Nothing is there, or what is there belongs to nobody any more.
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ClientError::NoDaemon { address },
        _ => ClientError::NoConnection { address, source },
    }
}

async fn ask(
    address: &Address,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> Result<Answer, ClientError> {
    let broken = |source| ClientError::Broken { address: address.to_string(), source };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let driver = Driver(tokio::spawn(async move {
        // What breaks here is told to whoever waits for the answer.
        let _ = connection.await;
    }));
    let response = sender.send_request(request).await.map_err(broken)?;
    let (head, body) = response.into_parts();
    Ok(Answer { status: head.status, headers: head.headers, body, address: address.clone(), driver })
}

impl Answer {
    /// The next piece of the body; `None` at its end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(source)) => {
                    return Err(ClientError::Broken { address: self.address.to_string(), source });
                }
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if data.is_empty() => {}
                    Ok(data) => return Ok(Some(data)),
                    Err(_) => {}
                },
            }
        }
    }

    /// The whole body. Nobody may say nothing for longer than `patience`.
    pub(crate) async fn whole(mut self, patience: Duration) -> Result<Bytes, ClientError> {
        let mut bytes = BytesMut::new();
        let silent = ClientError::Silent { address: self.address.to_string(), seconds: patience.as_secs() };
        loop {
            let Ok(chunk) = timeout(patience, self.chunk()).await else { return Err(silent) };
            let Some(chunk) = chunk? else { break };
            if bytes.len() + chunk.len() > MAX_DOCUMENT_BYTES {
                return Err(ClientError::TooLarge { address: self.address.to_string() });
            }
            bytes.extend_from_slice(&chunk);
        }
        drop(self.driver);
        Ok(bytes.freeze())
    }
}
