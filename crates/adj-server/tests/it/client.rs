//! A client that sends bytes and reads bytes, and knows just enough of HTTP to take an answer apart.

use serde_json::Value;
use std::{net::SocketAddr, path::Path, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, UnixStream},
    time::timeout,
};

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    /// Whether the body came to its proper end.
    pub(crate) whole: bool,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let fields = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    fields.filter(|(held, _)| held.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
}

/// Sends a request and reads its answer to the end.
pub(crate) async fn ask(address: SocketAddr, request: &[u8]) -> Answer {
    say(TcpStream::connect(address).await.expect("the door listens"), request).await
}

pub(crate) async fn ask_unix(path: &Path, request: &[u8]) -> Answer {
    say(UnixStream::connect(path).await.expect("the door listens"), request).await
}

async fn say(mut connection: impl AsyncRead + AsyncWrite + Unpin, request: &[u8]) -> Answer {
    // Who is refused early may find the connection closed while it writes.
    let _ = connection.write_all(request).await;
    read(&mut connection).await
}

pub(crate) async fn read(connection: &mut (impl AsyncRead + Unpin)) -> Answer {
    let mut bytes = Vec::new();
    let mut buffer = [0; 16 * 1024];
    loop {
        if let Some(answer) = parse(&bytes, false) {
            return answer;
        }
        let read = timeout(PATIENCE, connection.read(&mut buffer)).await.expect("the answer takes too long");
        match read {
            Ok(0) | Err(_) => {
                return parse(&bytes, true).unwrap_or_else(|| panic!("no answer: {}", String::from_utf8_lossy(&bytes)));
            }
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
        }
    }
}

fn parse(bytes: &[u8], ended: bool) -> Option<Answer> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let rest = &bytes[end + 4..];
    let (body, whole) = if header(&head, "transfer-encoding") == Some("chunked") {
        unchunk(rest)
    } else {
        let length = header(&head, "content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        (rest[..rest.len().min(length)].to_vec(), rest.len() >= length)
    };
    (whole || ended).then_some(Answer { status, head, body, whole })
}

fn unchunk(mut rest: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    while let Some(end) = rest.windows(2).position(|window| window == b"\r\n") {
        let size = usize::from_str_radix(&String::from_utf8_lossy(&rest[..end]), 16).expect("a chunk has a size");
        let data = &rest[end + 2..];
        if size == 0 {
            return (body, true);
        }
        body.extend_from_slice(&data[..size.min(data.len())]);
        if data.len() < size + 2 {
            break;
        }
        rest = &data[size + 2..];
    }
    (body, false)
}
