//! What a caller and its helper process say to each other over the socket that is the helper's standard input.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read, Seek, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::fs::MemfdFlags;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::Interest;

use crate::error::SetupFailure;
use crate::launch::Exit;
use crate::limits::Reached;
use crate::plan::Plan;

/// Our own binary takes this word as its first argument when it is a helper.
pub(crate) const HELPER_WORD: &str = "__sandbox";

const MAX_DESCRIPTORS: usize = 5;
const MAX_JOB_BYTES: u64 = 16 << 20;
const MAX_REPORT_BYTES: usize = 64 << 10;

/// What a helper is to do; its descriptors travel beside it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Job {
    /// Descriptors: standard input, output, error; and the terminal, if there is one that the command shares with its caller.
    Run { plan: Plan, argv: Vec<OsString>, timeout: Duration, terminal: SharedTerminal },
    /// Descriptor: the supervisor's folder.
    Supervise { plan: Plan },
    /// Answered by a list of trials instead of a report.
    Survey,
}

/// Whose terminal a command has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum SharedTerminal {
    /// None: it is in a session of its own.
    No,
    /// The caller's, in whose session it stays, as a group of processes in the background.
    Background,
    /// The same in the foreground: keys reach it, and not the caller.
    Foreground,
}

/// What a caller that waits for its command tells the helper in one byte, which hands it on to pid 1.
pub(crate) mod words {
    /// The output is above its limit.
    pub(crate) const TOO_MUCH: u8 = b'K';
    /// Go on after a stop, in the foreground of the terminal or in the background.
    pub(crate) const FOREGROUND: u8 = b'F';
    pub(crate) const BACKGROUND: u8 = b'B';
    const SIGNAL: u8 = 0x80;

    /// The word that passes a signal on.
    pub(crate) fn signal(number: i32) -> u8 {
        SIGNAL | u8::try_from(number).unwrap_or(0) & !SIGNAL
    }

    /// The signal that a word passes on.
    pub(crate) fn as_signal(word: u8) -> Option<i32> {
        (word & SIGNAL != 0).then_some(i32::from(word & !SIGNAL))
    }
}

/// What a helper answers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    Setup(SetupFailure),
    CannotStart {
        errno: i32,
    },
    Finished {
        exit: Exit,
    },
    /// A command that shares its caller's terminal was stopped by a key, or because it may not use the terminal now.
    Stopped {
        signal: i32,
    },
    /// The listener for the proxy travels beside it; another report follows.
    Listener,
    /// The supervisor listens.
    Ready,
    /// Another supervisor lives in the folder.
    Busy,
}

/// What pid 1 of a sandbox tells the helper that made it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum InsideReport {
    /// The listener for the proxy travels beside it.
    Listener,
    Ready,
    Setup(SetupFailure),
    CannotStart {
        errno: i32,
    },
    Finished {
        exit: Exit,
    },
    /// Processor time of the whole tree while calls were running.
    Used {
        cpu: Duration,
    },
    /// Some of the tree is about to be ended for this, while the worker goes on.
    Trimmed {
        reached: Reached,
    },
    /// As in [`Report`].
    Stopped {
        signal: i32,
    },
}

/// Sends a job and its descriptors in one message.
pub(crate) fn send_job(socket: impl AsFd, job: &Job, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    // The job lies in memory of its own, so its size never meets the socket's buffer.
    let text = memory_file(&serde_json::to_vec(job)?)?;
    let mut all = vec![text.as_fd()];
    all.extend_from_slice(descriptors);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&all)) {
        return Err(io::Error::other("too many descriptors for one message"));
    }
    rustix::net::sendmsg(socket, &[IoSlice::new(b"J")], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Receives what [`send_job`] sent.
pub(crate) fn receive_job(socket: impl AsFd) -> io::Result<(Job, Vec<OwnedFd>)> {
    let mut byte = [0u8; 1];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(&socket, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)
    })?;
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    if received.bytes == 0 || descriptors.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut text = Vec::new();
    let mut file = File::from(descriptors.remove(0));
    file.rewind()?;
    file.take(MAX_JOB_BYTES).read_to_end(&mut text)?;
    Ok((serde_json::from_slice(&text)?, descriptors))
}

/// An anonymous file that holds `bytes`, positioned at its start.
pub(crate) fn memory_file(bytes: &[u8]) -> io::Result<OwnedFd> {
    let mut file = File::from(rustix::fs::memfd_create("adjutant", MemfdFlags::CLOEXEC)?);
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(file.into())
}

/// Writes one report, its length first.
pub(crate) fn write_report(mut to: impl Write, report: &impl Serialize) -> io::Result<()> {
    let body = serde_json::to_vec(report)?;
    let mut bytes = u32::try_from(body.len()).map_err(io::Error::other)?.to_le_bytes().to_vec();
    bytes.extend_from_slice(&body);
    to.write_all(&bytes)
}

/// Writes one short report without waiting; `false` when there is no room for it.
pub(crate) fn try_report(socket: impl AsFd, report: &impl Serialize) -> bool {
    let mut bytes = Vec::new();
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    // The kernel takes so few bytes whole or not at all.
    write_report(&mut bytes, report).is_ok() && rustix::net::send(socket, &bytes, flags).is_ok()
}

/// Writes one report with a descriptor beside it.
pub(crate) fn send_report(socket: impl AsFd, report: &impl Serialize, descriptor: BorrowedFd<'_>) -> io::Result<()> {
    let mut bytes = Vec::new();
    write_report(&mut bytes, report)?;
    send_with(socket, &bytes, descriptor)
}

/// Sends a few bytes with a descriptor beside the first of them; all of them, or it is an error.
pub(crate) fn send_with(socket: impl AsFd, bytes: &[u8], descriptor: BorrowedFd<'_>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let all = [descriptor];
    let is_pushed = control.push(SendAncillaryMessage::ScmRights(&all));
    let sent = rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?;
    if is_pushed && sent == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// Receives what is there, and a descriptor if one travels beside it; zero bytes are the end.
pub(crate) fn receive_some(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(&socket, &mut [IoSliceMut::new(buffer)], &mut control, RecvFlags::CMSG_CLOEXEC)
    })?;
    let mut descriptor = None;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptor = rights.last().or(descriptor);
        }
    }
    Ok((received.bytes, descriptor))
}

/// Reads one report and the descriptor beside it; an end before it is an error.
pub(crate) fn receive_report<T: DeserializeOwned>(socket: impl AsFd) -> io::Result<(T, Option<OwnedFd>)> {
    let mut descriptor = None;
    let mut fill = |buffer: &mut [u8]| -> io::Result<()> {
        let mut filled = 0;
        while filled < buffer.len() {
            let (count @ 1.., found) = receive_some(&socket, &mut buffer[filled..])? else {
                return Err(io::ErrorKind::UnexpectedEof.into());
            };
            filled += count;
            descriptor = found.or_else(|| descriptor.take());
        }
        Ok(())
    };
    let mut length = [0u8; 4];
    fill(&mut length)?;
    let mut body = vec![0u8; report_length(length)?];
    fill(&mut body)?;
    Ok((serde_json::from_slice(&body)?, descriptor))
}

/// The same without blocking the runtime.
pub(crate) async fn receive_report_async<T: DeserializeOwned>(
    socket: &tokio::net::UnixStream,
) -> io::Result<(T, Option<OwnedFd>)> {
    let mut length = [0u8; 4];
    let descriptor = receive_exact(socket, &mut length).await?;
    let mut body = vec![0u8; report_length(length)?];
    let later = receive_exact(socket, &mut body).await?;
    Ok((serde_json::from_slice(&body)?, later.or(descriptor)))
}

/// Fills the buffer, and returns the last descriptor that came with it.
pub(crate) async fn receive_exact(socket: &tokio::net::UnixStream, buffer: &mut [u8]) -> io::Result<Option<OwnedFd>> {
    let (mut filled, mut descriptor) = (0, None);
    while filled < buffer.len() {
        socket.readable().await?;
        match socket.try_io(Interest::READABLE, || receive_some(socket, &mut buffer[filled..])) {
            Ok((0, _)) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok((count, found)) => {
                filled += count;
                descriptor = found.or(descriptor);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(descriptor)
}

/// The length of the report that follows these four bytes.
pub(crate) fn report_length(bytes: [u8; 4]) -> io::Result<usize> {
    let length = u32::from_le_bytes(bytes) as usize;
    if length > MAX_REPORT_BYTES {
        return Err(io::Error::other(format!("a report of {length} bytes is too long")));
    }
    Ok(length)
}
