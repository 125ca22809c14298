//! Calling a tool call off.

use rustix::event::{EventfdFlags, eventfd};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// Tells one call, from another thread, that its result is no longer wanted.
#[derive(Debug)]
pub struct Cancel {
    is_cancelled: AtomicBool,
    /// Readable once cancelled, for those who wait in `poll`.
    event: OwnedFd,
}

impl Cancel {
    pub fn open() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { is_cancelled: AtomicBool::new(false), event })
    }

    pub fn cancel(&self) {
        self.is_cancelled.store(true, Ordering::Release);
        // It can only fail when the counter is full, and then it is readable anyway.
        let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
    }

    pub fn is_cancelled(&self) -> bool {
        self.is_cancelled.load(Ordering::Acquire)
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}
