//! A helper that is a copy of its caller instead of a program started anew: that saves an exec where every millisecond is waited for.
//!
//! What the caller had in memory is in this copy too, so it is made before anything secret was read; arguments and environment are wiped.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use rustix::fs::{Mode, OFlags};

use super::carry_out;
use crate::sys;

/// Forks a helper that waits for its job on the socket; the calling process must have a single thread.
///
/// With `shares_terminal` it stays in the caller's session, as a group of its own that no key reaches.
pub(crate) fn fork(shares_terminal: bool) -> io::Result<(UnixStream, i32)> {
    let (ours, theirs) = UnixStream::pair()?;
    match sys::fork()? {
        Some(pid) => Ok((ours, pid)),
        // Nothing of the caller's frames is ever dropped here.
        None => sys::exit_now(if settle(&theirs, shares_terminal).is_ok() { run(&theirs) } else { 2 }),
    }
}

fn run(control: &UnixStream) -> i32 {
    // Nobody asks such a helper for a worker.
    carry_out(control, |_| 1)
}

/// Leaves everything of the caller's behind, except for the socket and perhaps the session.
fn settle(control: &UnixStream, shares_terminal: bool) -> io::Result<()> {
    sys::reset_signals();
    sys::ignore_signal(libc::SIGPIPE);
    sys::set_name(c"adj-sandbox");
    sys::wipe_beginnings()?;
    if shares_terminal {
        rustix::process::setpgid(None, None)?;
        // The end of the session is told by the caller's end.
        sys::ignore_signal(libc::SIGHUP);
    } else {
        rustix::process::setsid()?;
    }
    rustix::process::umask(Mode::from_raw_mode(0o022));
    rustix::process::chdir("/")?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR, Mode::empty())?;
    for number in 0..3 {
        sys::place_fd(&null, number)?;
    }
    // It is closed with all others.
    std::mem::forget(null);
    sys::close_all_but(&mut [0, 1, 2, control.as_raw_fd()])
}
