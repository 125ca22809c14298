//! Outside a one-shot sandbox: starts it, watches the clock and the caller, and reports how the command ended.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};

use super::disk::DiskWatch;
use super::inside::{Inside, Payload, Terminal};
use super::protect::Protection;
use super::{take, timespec};
use crate::error::{Doing, Layer, SetupError};
use crate::launch::Exit;
use crate::plan::Plan;
use crate::wire::{InsideReport, Report, SharedTerminal, send_report, try_report, words, write_report};

/// Runs one command and reports to `control`; when the caller goes away, everything is killed.
pub(super) fn run(
    control: &UnixStream,
    plan: &Plan,
    argv: Vec<OsString>,
    timeout: Duration,
    terminal: SharedTerminal,
    descriptors: Vec<OwnedFd>,
) -> Result<(), SetupError> {
    let mut descriptors = descriptors.into_iter();
    let stdio = [take(&mut descriptors)?, take(&mut descriptors)?, take(&mut descriptors)?];
    let terminal = match terminal {
        SharedTerminal::No => None,
        shared => Some(Terminal { tty: take(&mut descriptors)?, is_ours: shared == SharedTerminal::Foreground }),
    };
    let deadline = Instant::now() + timeout;
    let protection = Protection::prepare(plan)?;
    let mut disk = DiskWatch::open(plan)?;
    let mut inside = Inside::start(plan, Payload::Command { argv, stdio, terminal }, &protection)?;
    let watched = watch(control, &mut inside, disk.as_mut(), deadline);
    inside.finish();
    drop(protection);
    let Some(report) = watched? else { return Ok(()) };
    // When the caller is gone nobody is left to be told.
    let _ = write_report(control, &report);
    Ok(())
}

/// Waits for the end of the command; `None` when the caller went away first.
fn watch(
    control: &UnixStream,
    inside: &mut Inside,
    mut disk: Option<&mut DiskWatch>,
    deadline: Instant,
) -> Result<Option<Report>, SetupError> {
    loop {
        if let Some(disk) = &mut disk
            && disk.look(inside.pid(), false)
        {
            return Ok(Some(Report::Finished { exit: Exit::DiskLimit }));
        }
        let until = disk.as_ref().map_or(deadline, |disk| disk.next_look().min(deadline));
        let left = until.saturating_duration_since(Instant::now());
        let mut fds =
            [PollFd::new(control, PollFlags::IN), PollFd::new(&inside.reports, PollFlags::IN | PollFlags::RDHUP)];
        match poll(&mut fds, Some(&timespec(left))) {
            Ok(0) if Instant::now() >= deadline => return Ok(Some(Report::Finished { exit: Exit::TimedOut })),
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error).doing(Layer::Helper, || "wait for the command".into()),
        }
        let (is_asked, is_told) = (!fds[0].revents().is_empty(), !fds[1].revents().is_empty());
        if is_told {
            return match inside.next_report() {
                Ok((InsideReport::Listener, Some(listener))) => {
                    // When the caller is gone, the next look at its socket says so.
                    let _ = send_report(control, &Report::Listener, listener.as_fd());
                    continue;
                }
                Ok((InsideReport::Stopped { signal }, _)) => {
                    // A stopped caller reads nothing, and must not keep us from the clock; it has others to read then.
                    try_report(control, &Report::Stopped { signal });
                    continue;
                }
                Ok((
                    InsideReport::Listener
                    | InsideReport::Ready
                    | InsideReport::Used { .. }
                    | InsideReport::Trimmed { .. },
                    _,
                )) => continue,
                Ok((InsideReport::Setup(failure), _)) => Ok(Some(Report::Setup(failure))),
                Ok((InsideReport::CannotStart { errno }, _)) => Ok(Some(Report::CannotStart { errno })),
                Ok((InsideReport::Finished { exit: Exit::Signal(libc::SIGKILL) }, _)) | Err(_)
                    if inside.memory_kills() > 0 =>
                {
                    Ok(Some(Report::Finished { exit: Exit::MemoryLimit }))
                }
                Ok((InsideReport::Finished { exit }, _)) => Ok(Some(Report::Finished { exit })),
                // Only somebody outside, or the kernel short of memory, can end pid 1 of the sandbox.
                Err(_) => Ok(Some(Report::Finished { exit: Exit::Signal(libc::SIGKILL) })),
            };
        }
        if is_asked {
            let mut word = [0u8; 1];
            match io::Read::read(&mut &*control, &mut word) {
                // The caller counts the output and wants the command to end.
                Ok(1) if word[0] == words::TOO_MUCH => return Ok(Some(Report::Finished { exit: Exit::OutputLimit })),
                Ok(1) => inside.tell(word[0]),
                _ => return Ok(None),
            }
        }
    }
}
