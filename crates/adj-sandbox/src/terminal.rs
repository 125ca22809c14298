//! A terminal that a command shares with whoever waits for it: who has the foreground, and how it comes back.
//!
//! Must not know: what runs there.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::Pid;
use rustix::termios::{OptionalActions, Termios};

use crate::sys;
use crate::wire::{SharedTerminal, words};

/// The terminal of a [`Here`](crate::Here). Cheap to clone.
#[derive(Debug, Clone)]
pub struct Terminal {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    tty: OwnedFd,
    own_group: Pid,
    modes: Option<Termios>,
    /// The helper, through which the command is told to go on.
    control: Arc<UnixStream>,
    state: Mutex<State>,
}

#[derive(Debug, Clone, Copy)]
struct State {
    /// Whether the command has the foreground, which was ours.
    is_lent: bool,
    /// Whether we have it back for a question.
    is_borrowed: bool,
}

/// The terminal while we have it back for a question, as it was before the command; dropping this lets the command go on.
#[derive(Debug)]
pub struct Borrowed<'a> {
    terminal: &'a Terminal,
    /// What the command had made of it.
    modes: Option<Termios>,
}

impl AsFd for Borrowed<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.terminal.as_fd()
    }
}

/// The terminal that controls this process, if one of the standard streams is it.
pub(crate) fn find() -> io::Result<Option<OwnedFd>> {
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    let all = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()];
    // The foreground of a terminal that is not ours cannot be asked for.
    match all.into_iter().find(|fd| rustix::termios::tcgetpgrp(fd).is_ok()) {
        Some(tty) => Ok(Some(rustix::io::fcntl_dupfd_cloexec(tty, 3)?)),
        None => Ok(None),
    }
}

impl Terminal {
    pub(crate) fn new(tty: OwnedFd, control: Arc<UnixStream>) -> Terminal {
        let own_group = rustix::process::getpgrp();
        let is_lent = rustix::termios::tcgetpgrp(&tty).is_ok_and(|group| group == own_group);
        let state = Mutex::new(State { is_lent, is_borrowed: false });
        Terminal {
            shared: Arc::new(Shared { modes: rustix::termios::tcgetattr(&tty).ok(), tty, own_group, control, state }),
        }
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.tty.as_fd()
    }

    /// How the command is to have it at its start.
    pub(crate) fn word(&self) -> SharedTerminal {
        if self.state().is_lent { SharedTerminal::Foreground } else { SharedTerminal::Background }
    }

    /// Takes the terminal back from the command for a question, which the command is stopped for if it wants to read meanwhile.
    ///
    /// `None` where the terminal is not ours to take.
    pub fn borrow(&self) -> Option<Borrowed<'_>> {
        let mut state = self.state();
        if !state.is_lent || state.is_borrowed || !self.take() {
            return None;
        }
        state.is_borrowed = true;
        let modes = rustix::termios::tcgetattr(&self.shared.tty).ok();
        if let Some(own) = &self.shared.modes {
            // What was typed before a question answers nothing.
            let _ = rustix::termios::tcsetattr(&self.shared.tty, OptionalActions::Flush, own);
        }
        Some(Borrowed { terminal: self, modes })
    }

    /// The command was stopped: so are we, like any job of a shell; when that goes on, it goes on.
    pub(crate) fn stop(&self, signal: i32, blocked: &[i32]) {
        let mut state = self.state();
        // It touched the terminal during a question, and goes on after that.
        if state.is_borrowed {
            return;
        }
        if state.is_lent {
            self.take();
        } else if self.has_foreground() && signal != libc::SIGTSTP {
            // It wants the terminal, which we have got meanwhile.
            state.is_lent = true;
            return self.tell(words::FOREGROUND);
        }
        sys::stop_group(signal, blocked);
        state.is_lent = self.has_foreground();
        if !state.is_lent {
            // Where nobody can stop us, one that wants a terminal it cannot have must not keep us busy.
            std::thread::sleep(Duration::from_millis(100));
        }
        self.tell(if state.is_lent { words::FOREGROUND } else { words::BACKGROUND });
    }

    /// We were brought into the foreground, and so is the command.
    pub(crate) fn go_on(&self) {
        let mut state = self.state();
        if !state.is_lent && !state.is_borrowed && self.has_foreground() {
            state.is_lent = true;
            self.tell(words::FOREGROUND);
        }
    }

    /// Takes the foreground back at the end, and undoes what a command that was killed has left of the terminal.
    pub(crate) fn take_back(&self, was_killed: bool) {
        let mut state = self.state();
        if !std::mem::replace(&mut state.is_lent, false) || !self.take() {
            return;
        }
        if let Some(modes) = self.shared.modes.as_ref().filter(|_| was_killed) {
            let _ = rustix::termios::tcsetattr(&self.shared.tty, OptionalActions::Drain, modes);
        }
    }

    fn take(&self) -> bool {
        // The signal that this sends to groups in the background is blocked since the helper was forked.
        rustix::termios::tcsetpgrp(&self.shared.tty, self.shared.own_group).is_ok()
    }

    fn has_foreground(&self) -> bool {
        rustix::termios::tcgetpgrp(&self.shared.tty).is_ok_and(|group| group == self.shared.own_group)
    }

    fn tell(&self, word: u8) {
        // A helper that is gone is noticed by whoever waits for it.
        let _ = (&*self.shared.control).write_all(&[word]);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Borrowed<'_> {
    fn drop(&mut self) {
        let mut state = self.terminal.state();
        state.is_borrowed = false;
        if let Some(modes) = &self.modes {
            let _ = rustix::termios::tcsetattr(&self.terminal.shared.tty, OptionalActions::Drain, modes);
        }
        if state.is_lent {
            self.terminal.tell(words::FOREGROUND);
        }
    }
}
