//! A vendor that says exactly the bytes it is told to, and tells what it heard.

use super::client::header;
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinHandle,
};

#[derive(Debug, Clone)]
pub(crate) enum Act {
    Say(Vec<u8>),
    Wait(Duration),
    /// Says nothing until the other side hangs up.
    Listen,
}

pub(crate) fn say(bytes: impl AsRef<[u8]>) -> Act {
    Act::Say(bytes.as_ref().to_vec())
}

/// One chunk of a body.
pub(crate) fn chunk(bytes: impl AsRef<[u8]>) -> Act {
    let bytes = bytes.as_ref();
    Act::Say([format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat())
}

pub(crate) fn stream_head() -> Act {
    say("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
}

pub(crate) fn stream_end() -> Act {
    say("0\r\n\r\n")
}

pub(crate) fn whole(status: &str, headers: &str, body: impl AsRef<[u8]>) -> Vec<Act> {
    let body = body.as_ref();
    vec![say(format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n", body.len())), say(body)]
}

#[derive(Debug)]
pub(crate) enum Heard {
    Request {
        head: String,
        body: Vec<u8>,
    },
    /// The connection of the answer was closed from the other side.
    HungUp,
}

pub(crate) struct Puppet {
    pub(crate) address: SocketAddr,
    heard: mpsc::UnboundedReceiver<Heard>,
    task: JoinHandle<()>,
}

impl Puppet {
    pub(crate) async fn playing(acts: Vec<Act>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("a listener has an address");
        let (tell, heard) = mpsc::unbounded_channel();
        let acts = Arc::new(acts);
        let task = tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                tokio::spawn(play(connection, Arc::clone(&acts), tell.clone()));
            }
        });
        Self { address, heard, task }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) async fn heard(&mut self) -> Heard {
        let heard = tokio::time::timeout(Duration::from_secs(10), self.heard.recv()).await;
        heard.expect("the puppet hears nothing").expect("the puppet listens")
    }

    pub(crate) async fn request(&mut self) -> (String, Vec<u8>) {
        match self.heard().await {
            Heard::Request { head, body } => (head, body),
            Heard::HungUp => panic!("hung up before a request"),
        }
    }

    pub(crate) fn was_left_alone(&mut self) -> bool {
        self.heard.try_recv().is_err()
    }
}

impl Drop for Puppet {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn play(mut connection: TcpStream, acts: Arc<Vec<Act>>, tell: mpsc::UnboundedSender<Heard>) {
    let mut bytes = Vec::new();
    let mut buffer = [0; 64 * 1024];
    let (head, body) = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            let length: usize = header(&head, "content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
            if bytes.len() >= end + 4 + length {
                break (head, bytes[end + 4..].to_vec());
            }
        }
        match connection.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
        }
    };
    let _ = tell.send(Heard::Request { head, body });
    for act in acts.iter() {
        match act {
            Act::Say(bytes) => {
                if connection.write_all(bytes).await.is_err() {
                    let _ = tell.send(Heard::HungUp);
                    return;
                }
            }
            Act::Wait(time) => tokio::time::sleep(*time).await,
            Act::Listen => {
                while !matches!(connection.read(&mut buffer).await, Ok(0) | Err(_)) {}
                let _ = tell.send(Heard::HungUp);
                return;
            }
        }
    }
    let _ = connection.shutdown().await;
}
