//! The worker's end of its supervisor: requests come in, replies go out, several at a time.

use std::collections::HashMap;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::frame::{Kind, MAX_BODY_BYTES, Packet, read_packet, write_packet};
use crate::limits::Reached;

/// A supervisor answers at once; one that is stopped holds nobody up for long.
const ANSWER_TIME: Duration = Duration::from_secs(1);

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
    /// Who waits to hear what limit was reached during a call.
    askers: Mutex<HashMap<u64, Sender<Option<Reached>>>>,
}

impl WorkerChannel {
    pub(crate) fn new(socket: UnixStream) -> WorkerChannel {
        let writer = socket.try_clone().expect("a second descriptor: the process has just closed all others");
        let (reader, writer) = (Mutex::new(socket), Mutex::new(writer));
        WorkerChannel { shared: Arc::new(Shared { reader, writer, askers: Mutex::default() }) }
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
                Kind::Reached => {
                    let asker = self.askers().remove(&packet.number);
                    // Whoever asked may have given up.
                    let _ = asker.map(|asker| asker.send(serde_json::from_slice(&packet.body).unwrap_or_default()));
                }
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
        self.write(&Packet::new(Kind::Reply, call, body))
    }

    /// The limit that was reached while this call ran, so that some of what runs here was ended by force; to be asked before the reply,
    /// while another thread is in [`WorkerChannel::recv`].
    ///
    /// Calls share one sandbox, so it may have been another one's doing.
    pub fn reached(&self, call: u64) -> Option<Reached> {
        let (sender, answer) = channel();
        self.askers().insert(call, sender);
        let is_asked = self.write(&Packet::new(Kind::Reached, call, Vec::new())).is_ok();
        let reached = if is_asked { answer.recv_timeout(ANSWER_TIME).ok().flatten() } else { None };
        self.askers().remove(&call);
        reached
    }

    fn write(&self, packet: &Packet) -> io::Result<()> {
        let writer = self.shared.writer.lock().unwrap_or_else(PoisonError::into_inner);
        write_packet(&*writer, packet)
    }

    fn askers(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Sender<Option<Reached>>>> {
        self.shared.askers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
