//! What happens in the helper processes: small, single-threaded, and the only ones that fork.
//!
//! Must not know: async code, or anything about the process that started them except the socket to it.
//! Reading order: here, then `oneshot` or `supervise` (outside), then `inside` (pid 1 and its walls).

mod calls;
mod here;
mod oneshot;
mod supervise;

mod inside;

mod cgroup;
mod confine;
mod disk;
mod filter;
mod masks;
mod mounts;
mod protect;
mod seccomp;
mod sockets;
mod tree;
mod trial;
mod walk;
mod watch;

pub use cgroup::limit_mechanism;

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::event::Timespec;
use rustix::fs::{Mode, OFlags};

pub(crate) use here::fork as fork_helper;

use crate::channel::WorkerChannel;
use crate::error::{Doing, Layer, SetupError};
use crate::sys;
use crate::wire::{HELPER_WORD, Job, Report, receive_job, write_report};

/// The code that runs inside a supervisor's sandbox: answers requests until the channel ends.
pub(crate) type Worker = fn(WorkerChannel) -> i32;

/// Call this first in `main`: it runs and never returns when this process was started as a sandbox helper.
///
/// `worker` is what [`Launcher::open`](crate::Launcher::open) runs inside. The process must still have a single thread.
pub fn dispatch_helper(worker: Worker) {
    if std::env::args_os().nth(1).is_none_or(|word| word != HELPER_WORD) {
        return;
    }
    sys::set_name(c"adj-sandbox");
    // Started by hand there is no socket; the exit code is all that can be said.
    let code = match control_socket() {
        Some(control) => serve(control, worker),
        None => 2,
    };
    sys::exit_now(code);
}

/// Moves the socket that is our standard input out of the way, so that 0, 1 and 2 are `/dev/null` for good.
fn control_socket() -> Option<UnixStream> {
    let socket = rustix::io::fcntl_dupfd_cloexec(sys::inherited(0)?, 3).ok()?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).ok()?;
    for number in 0..3 {
        sys::place_fd(&null, number).ok()?;
    }
    // `null` may be number 0 itself, which must stay open.
    std::mem::forget(null);
    Some(UnixStream::from(socket))
}

fn serve(control: UnixStream, worker: Worker) -> i32 {
    sys::reset_signals();
    sys::ignore_signal(libc::SIGPIPE);
    // A Ctrl+C in the caller's terminal is the caller's business, not ours.
    let _ = rustix::process::setsid();
    rustix::process::umask(Mode::from_raw_mode(0o022));
    carry_out(&control, worker)
}

fn carry_out(control: &UnixStream, worker: Worker) -> i32 {
    let result = match receive_job(control) {
        Ok((Job::Run { plan, argv, timeout, terminal }, descriptors)) => {
            oneshot::run(control, &plan, argv, timeout, terminal, descriptors)
        }
        Ok((Job::Supervise { plan }, descriptors)) => supervise::start(control, &plan, descriptors, worker),
        Ok((Job::Survey, _)) => write_report(control, &trial::all()).doing(Layer::Helper, || "answer".into()),
        Err(error) => Err(error).doing(Layer::Helper, || "receive the job".into()),
    };
    let Err(error) = result else { return 0 };
    // When the caller is gone nobody is left to be told.
    let _ = write_report(control, &Report::Setup(error.to_wire()));
    1
}

/// The next descriptor of a job.
fn take(descriptors: &mut std::vec::IntoIter<OwnedFd>) -> Result<OwnedFd, SetupError> {
    let missing = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
    descriptors.next().ok_or_else(missing).doing(Layer::Helper, || "receive a descriptor".into())
}

pub(crate) fn timespec(duration: Duration) -> Timespec {
    // A hundred years are long enough, and fit every kernel's number.
    Timespec { tv_sec: duration.as_secs().min(100 * 366 * 86_400) as i64, tv_nsec: duration.subsec_nanos().into() }
}
