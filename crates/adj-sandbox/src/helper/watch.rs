//! Pid 1 at its post: reaps, holds the tree to its limits, and says how the main process ended.
//!
//! Must not know: what runs, or how the walls were built.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::Pid;

use super::inside::{ACTIVE, IDLE, Terminal};
use super::timespec;
use super::tree::{self, Excess, Watch};
use crate::launch::Exit;
use crate::limits::Reached;
use crate::plan::{Mode, Plan};
use crate::sys::{self, Ended};
use crate::wire::{InsideReport, try_report, words};

/// How often the tree is looked at while something runs.
const WATCH_EVERY: Duration = Duration::from_millis(50);
const WATCH_AT_LEAST_EVERY: Duration = Duration::from_secs(1);
/// The same while the tree is above a limit.
const WATCH_EXCESS_AT_LEAST_EVERY: Duration = Duration::from_millis(250);
/// Whoever is above the limit of memory at more looks in a row multiplies as fast as single processes are killed.
const MOST_IN_A_ROW: u32 = 3;
/// Between calls, while what is left in the background sleeps.
const WATCH_SLEEPERS_EVERY: Duration = Duration::from_millis(500);
/// Looking takes at most one part in so many of a processor, however large the tree is.
const SHARE: u32 = 20;

/// Reaps until the main process has ended, and holds the tree to its limits; `None` when the helper outside is gone.
pub(super) fn attend(
    plan: &Plan,
    main: i32,
    terminal: Option<&Terminal>,
    is_session: bool,
    deaths: &OwnedFd,
    reports: &UnixStream,
) -> Option<Exit> {
    let is_confined = plan.mode != Mode::DangerFullAccess;
    let limits = &plan.limits;
    let mut is_active = !is_session;
    let mut watch = Watch::new(limits, main);
    // Of calls, of what was told about them, and of what went on since the last one.
    let (mut used, mut told, mut between) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    let mut pace = WATCH_EVERY;
    let mut over = 0u32;
    let mut next_look = Instant::now() + WATCH_EVERY;
    loop {
        // What a call left running in the background is watched as well; a worker alone costs no wake-ups.
        let is_watching = is_confined && (is_active || watch.has_others());
        let timeout = is_watching.then(|| next_look.saturating_duration_since(Instant::now()));
        let mut fds = [PollFd::new(deaths, PollFlags::IN), PollFd::new(reports, PollFlags::IN)];
        let polled = poll(&mut fds, timeout.map(timespec).as_ref());
        if polled.is_err_and(|error| error != rustix::io::Errno::INTR) {
            return None;
        }
        let (has_deaths, has_words) = (!fds[0].revents().is_empty(), !fds[1].revents().is_empty());
        if has_deaths {
            let mut skipped = [0u8; 1024];
            while rustix::io::read(deaths, &mut skipped).is_ok_and(|count| count > 0) {}
            while let Some((pid, ended)) = sys::reap_one() {
                if pid == main {
                    return Some(match ended {
                        Ended::Code(code) => Exit::Code(code),
                        Ended::Signal(signal) => Exit::Signal(signal),
                    });
                }
            }
            if terminal.is_some()
                && let Some(signal) = sys::stopped(main)
            {
                if is_confined {
                    // One that left the session is no part of its job control, and would read on from the terminal.
                    sys::kill(-1, libc::SIGSTOP);
                }
                // Where there is no room for it, earlier ones are still to be read, and each is followed by a word.
                try_report(reports, &InsideReport::Stopped { signal });
            }
        }
        if has_words {
            let mut said = [0u8; 64];
            let count = (&*reports).read(&mut said).ok().filter(|count| *count > 0)?;
            let was_active = is_active;
            for word in &said[..count] {
                match *word {
                    ACTIVE => is_active = true,
                    IDLE => is_active = false,
                    word => obey(word, main, terminal, is_confined),
                }
            }
            if is_confined && is_active != was_active {
                // What runs between calls is no call's.
                let _ = watch.look();
                let since = watch.take_used();
                used += if was_active { since } else { Duration::ZERO };
                between = Duration::ZERO;
                pace = WATCH_EVERY;
                next_look = next_look.min(Instant::now() + pace);
            }
        }
        if !is_watching || Instant::now() < next_look {
            continue;
        }
        let began = Instant::now();
        let excess = watch.look();
        let since = watch.take_used();
        *if is_active { &mut used } else { &mut between } += since;
        let is_asleep = !is_active && excess.is_none() && since.is_zero();
        pace = if is_asleep { (pace * 2).min(WATCH_SLEEPERS_EVERY) } else { WATCH_EVERY };
        let longest = if excess.is_some() { WATCH_EXCESS_AT_LEAST_EVERY } else { WATCH_AT_LEAST_EVERY };
        next_look = began + (began.elapsed() * SHARE).clamp(pace, longest);
        over = if matches!(excess, Some(Excess::Memory { .. })) { over + 1 } else { 0 };
        if !is_session {
            let exit = match excess {
                Some(Excess::Memory { .. }) => Exit::MemoryLimit,
                Some(Excess::Processes) => Exit::ProcessLimit,
                None if used >= limits.cpu => Exit::CpuLimit,
                None => continue,
            };
            sys::kill(-1, libc::SIGKILL);
            return Some(exit);
        }
        if let Some(excess) = excess {
            // Said first, so that nobody can hear of the deaths before.
            let reached = match &excess {
                Excess::Memory { .. } => Reached::MemoryBytes(limits.memory_bytes),
                Excess::Processes => Reached::Processes(limits.processes),
            };
            try_report(reports, &InsideReport::Trimmed { reached });
            if over > MOST_IN_A_ROW && excess.has_others() {
                tree::trim_others(limits, main);
            } else {
                tree::trim(limits, &excess, main);
            }
        }
        if !is_active {
            if between >= limits.cpu {
                tree::trim_others(limits, main);
                between = Duration::ZERO;
            }
        } else if used.saturating_sub(told) >= (limits.cpu / 64).min(Duration::from_secs(1))
            && try_report(reports, &InsideReport::Used { cpu: used })
        {
            told = used;
        }
    }
}

/// Does what the caller of a command wants done with it.
fn obey(word: u8, main: i32, terminal: Option<&Terminal>, is_confined: bool) {
    // Where nothing else is in sight, everybody is meant, as with a key of a terminal.
    let everybody = if is_confined { -1 } else { main };
    match (words::as_signal(word), terminal) {
        (Some(signal), _) => sys::kill(everybody, signal),
        (None, Some(terminal)) if matches!(word, words::FOREGROUND | words::BACKGROUND) => {
            if word == words::FOREGROUND {
                terminal.give_to(Pid::from_raw(main));
            }
            sys::kill(everybody, libc::SIGCONT);
        }
        (None, _) => {}
    }
}
