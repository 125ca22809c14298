//! Frames of bounded length between a caller, a supervisor and its worker, and a non-blocking connection that carries them.

use std::io::{self, Read, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;

use crate::wire::send_with;

/// The longest request or reply.
pub(crate) const MAX_BODY_BYTES: usize = 64 << 20;

pub(crate) const HEADER_BYTES: usize = 13;

/// What a frame is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Body: the length of the effect's name in one byte, the name, the request. To a worker: the request alone.
    Call = 1,
    /// Body: the effect's name. To a worker: nothing.
    Cancel = 2,
    Stop = 3,
    Reply = 4,
    /// Body: a failed call as JSON.
    Failed = 5,
    /// What was asked for has been done.
    Done = 6,
    /// Asks for the listener of the proxy: each answer is a `Done` with it beside, one now and one for every later sandbox.
    Listeners = 7,
    /// A worker asks what limit was reached during one of its calls; the answer's body says it as JSON, `null` for none.
    Reached = 8,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Kind> {
        [Kind::Call, Kind::Cancel, Kind::Stop, Kind::Reply, Kind::Failed, Kind::Done, Kind::Listeners, Kind::Reached]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }
}

/// A frame as it travels: length, kind, number, body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Packet {
    pub kind: Kind,
    /// Chosen by the asking side, repeated in the answer.
    pub number: u64,
    pub body: Vec<u8>,
}

impl Packet {
    pub(crate) fn new(kind: Kind, number: u64, body: impl Into<Vec<u8>>) -> Packet {
        Packet { kind, number, body: body.into() }
    }

    pub(crate) fn header(&self) -> [u8; HEADER_BYTES] {
        let mut header = [0u8; HEADER_BYTES];
        // Bodies are checked against the much smaller bound before they get here.
        header[..4].copy_from_slice(&(self.body.len() as u32).to_le_bytes());
        header[4] = self.kind as u8;
        header[5..].copy_from_slice(&self.number.to_le_bytes());
        header
    }
}

/// A frame's first bytes, once they are understood.
pub(crate) struct Header {
    pub length: usize,
    pub kind: Kind,
    pub number: u64,
}

pub(crate) fn parse_header(bytes: [u8; HEADER_BYTES]) -> io::Result<Header> {
    let [l0, l1, l2, l3, kind, number @ ..] = bytes;
    let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    // An effect's name travels in front of the longest body.
    if length > MAX_BODY_BYTES + 256 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a frame of {length} bytes is too long")));
    }
    let kind = Kind::from_byte(kind)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("a frame of unknown kind {kind}")))?;
    Ok(Header { length, kind, number: u64::from_le_bytes(number) })
}

/// Waits for a whole frame; `None` at a clean end.
pub(crate) fn read_packet(mut from: impl Read) -> io::Result<Option<Packet>> {
    let mut header = [0u8; HEADER_BYTES];
    if let Err(error) = from.read_exact(&mut header) {
        return if error.kind() == io::ErrorKind::UnexpectedEof { Ok(None) } else { Err(error) };
    }
    let header = parse_header(header)?;
    let mut body = vec![0u8; header.length];
    from.read_exact(&mut body)?;
    Ok(Some(Packet { kind: header.kind, number: header.number, body }))
}

/// The same for an asynchronous reader.
pub(crate) async fn read_packet_async(mut from: impl tokio::io::AsyncRead + Unpin) -> io::Result<Packet> {
    use tokio::io::AsyncReadExt;
    let mut header = [0u8; HEADER_BYTES];
    from.read_exact(&mut header).await?;
    let header = parse_header(header)?;
    let mut body = vec![0u8; header.length];
    from.read_exact(&mut body).await?;
    Ok(Packet { kind: header.kind, number: header.number, body })
}

/// Writes a whole frame.
pub(crate) fn write_packet(mut to: impl Write, packet: &Packet) -> io::Result<()> {
    let mut bytes = packet.header().to_vec();
    if packet.body.len() <= 16 << 10 {
        bytes.extend_from_slice(&packet.body);
        return to.write_all(&bytes);
    }
    to.write_all(&bytes)?;
    to.write_all(&packet.body)
}

/// A socket that never blocks: what cannot be sent yet waits here, what has come in part is kept.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: UnixStream,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
    sent: usize,
}

impl Connection {
    pub(crate) fn new(socket: UnixStream) -> io::Result<Connection> {
        socket.set_nonblocking(true)?;
        Ok(Connection { socket, incoming: Vec::new(), outgoing: Vec::new(), sent: 0 })
    }

    pub(crate) fn socket(&self) -> &UnixStream {
        &self.socket
    }

    /// How much waits to be sent.
    pub(crate) fn backlog(&self) -> usize {
        self.outgoing.len() - self.sent
    }

    /// Queues a frame and sends what can be sent.
    pub(crate) fn send(&mut self, packet: &Packet) -> io::Result<()> {
        self.outgoing.extend_from_slice(&packet.header());
        self.outgoing.extend_from_slice(&packet.body);
        self.flush()
    }

    /// Sends a frame with a descriptor beside it, which only works when nothing waits to be sent before it.
    pub(crate) fn send_with(&mut self, packet: &Packet, descriptor: BorrowedFd<'_>) -> io::Result<()> {
        if self.backlog() > 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut bytes = packet.header().to_vec();
        bytes.extend_from_slice(&packet.body);
        send_with(&self.socket, &bytes, descriptor)
    }

    /// Sends what can be sent.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        while self.backlog() > 0 {
            match (&self.socket).write(&self.outgoing[self.sent..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.outgoing = Vec::new();
        self.sent = 0;
        Ok(())
    }

    /// Reads what is there; `false` at the end of the stream.
    pub(crate) fn fill(&mut self) -> io::Result<bool> {
        let mut buffer = [0u8; 32 << 10];
        // A few rounds only, so that one peer cannot starve the others.
        for _ in 0..32 {
            match (&self.socket).read(&mut buffer) {
                Ok(0) => return Ok(false),
                Ok(count) => {
                    self.incoming.extend_from_slice(&buffer[..count]);
                    if count < buffer.len() {
                        return Ok(true);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// The next frame that has come in whole.
    pub(crate) fn next_packet(&mut self) -> io::Result<Option<Packet>> {
        let Some(header) = self.incoming.first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let header = parse_header(*header)?;
        let end = HEADER_BYTES + header.length;
        if self.incoming.len() < end {
            return Ok(None);
        }
        let rest = self.incoming.split_off(end);
        let mut body = std::mem::replace(&mut self.incoming, rest);
        body.drain(..HEADER_BYTES);
        Ok(Some(Packet { kind: header.kind, number: header.number, body }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_any_fragmentation() {
        let (ours, theirs) = UnixStream::pair().expect("a socket pair");
        let mut connection = Connection::new(ours).expect("a connection");
        let packets = [
            Packet::new(Kind::Call, 7, b"hello".as_slice()),
            Packet::new(Kind::Stop, u64::MAX, Vec::new()),
            Packet::new(Kind::Reply, 0, vec![9; 3000]),
        ];
        let mut bytes = Vec::new();
        for packet in &packets {
            write_packet(&mut bytes, packet).expect("memory takes everything");
        }
        let mut received = Vec::new();
        for chunk in bytes.chunks(11) {
            (&theirs).write_all(chunk).expect("the socket takes a chunk");
            assert!(connection.fill().expect("the socket is readable"));
            while let Some(packet) = connection.next_packet().expect("frames are well-formed") {
                received.push(packet);
            }
        }
        assert_eq!(received, packets);
    }

    #[test]
    fn hostile_headers_are_refused() {
        let mut too_long = Packet::new(Kind::Call, 1, Vec::new()).header();
        too_long[..4].copy_from_slice(&u32::MAX.to_le_bytes());
        let mut unknown = Packet::new(Kind::Call, 1, Vec::new()).header();
        unknown[4] = 99;
        for bytes in [too_long, unknown] {
            let (ours, theirs) = UnixStream::pair().expect("a socket pair");
            let mut connection = Connection::new(ours).expect("a connection");
            (&theirs).write_all(&bytes).expect("the socket takes a header");
            connection.fill().expect("the socket is readable");
            assert!(connection.next_packet().is_err());
            assert!(read_packet(bytes.as_slice()).is_err());
        }
        assert_eq!(read_packet([].as_slice()).expect("a clean end"), None);
    }
}
