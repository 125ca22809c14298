//! The worker's end of its supervisor: requests come in, replies go out, several at a time.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};

use crate::frame::{Kind, MAX_BODY_BYTES, Packet, read_packet, write_packet};

/// What a supervisor sends its worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Answer with [`WorkerChannel::reply`], once, from any thread.
    Request { call: u64, body: Vec<u8> },
    /// The caller no longer wants that call; it still expects a reply.
    Cancel { call: u64 },
}

/// Cheap to clone and usable from every thread of the worker.
#[derive(Debug, Clone)]
pub struct WorkerChannel {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// One at a time, so that frames stay whole.
    reader: Mutex<UnixStream>,
    writer: Mutex<UnixStream>,
}

impl WorkerChannel {
    pub(crate) fn new(socket: UnixStream) -> WorkerChannel {
        let writer = socket.try_clone().expect("a second descriptor: the process has just closed all others");
        WorkerChannel { shared: Arc::new(Shared { reader: Mutex::new(socket), writer: Mutex::new(writer) }) }
    }

    /// Waits for the next frame; `None` when the supervisor is gone and the worker shall end.
    pub fn recv(&self) -> Option<Frame> {
        let reader = self.shared.reader.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let packet = read_packet(&*reader).ok()??;
            match packet.kind {
                Kind::Call => {
                    return Some(Frame::Request { call: packet.number, body: packet.body });
                }
                Kind::Cancel => return Some(Frame::Cancel { call: packet.number }),
                Kind::Stop | Kind::Reply | Kind::Failed | Kind::Done | Kind::Listeners => {}
            }
        }
    }

    /// Answers a call; a body above 64 MiB is refused, and then the call is still unanswered.
    pub fn reply(&self, call: u64, body: Vec<u8>) -> io::Result<()> {
        if body.len() > MAX_BODY_BYTES {
            let length = body.len();
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("a reply of {length} bytes is too long")));
        }
        let writer = self.shared.writer.lock().unwrap_or_else(PoisonError::into_inner);
        write_packet(&*writer, &Packet::new(Kind::Reply, call, body))
    }
}
