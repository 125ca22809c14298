//! A terminal that a command shares with whoever waits for it: who has the foreground, and how it comes back.
//!
//! Must not know: what runs there.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use rustix::process::Pid;
use rustix::termios::{OptionalActions, QueueSelector, Termios};

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
}

/// The terminal of a caller whose command has none, for questions. Cheap to clone.
///
/// A command that shares a terminal can make it answer by itself: through its modes, and through what terminals report when they are
/// asked. So one about which questions are asked gets none, and what it writes there is made plain and waits during a question.
#[derive(Debug, Clone)]
pub struct Questions {
    tty: Arc<OwnedFd>,
    /// Held by whoever writes to the terminal.
    turn: Arc<Mutex<()>>,
}

/// The terminal during one question: nothing of the command's appears there until this is dropped.
#[derive(Debug)]
pub struct Question<'a> {
    tty: &'a OwnedFd,
    _turn: MutexGuard<'a, ()>,
}

impl AsFd for Question<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tty.as_fd()
    }
}

impl Questions {
    pub(crate) fn new(tty: OwnedFd) -> Questions {
        Questions { tty: Arc::new(tty), turn: Arc::default() }
    }

    /// Begins a question; what was typed before it answers nothing. `None` where the terminal is not ours now.
    pub fn begin(&self) -> Option<Question<'_>> {
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let has_foreground =
            rustix::termios::tcgetpgrp(&*self.tty).is_ok_and(|group| group == rustix::process::getpgrp());
        let is_clean = has_foreground && rustix::termios::tcflush(&*self.tty, QueueSelector::IFlush).is_ok();
        is_clean.then_some(Question { tty: &self.tty, _turn: turn })
    }

    /// The right to write to the terminal for a moment; `None` during a question.
    pub(crate) fn turn(&self) -> Option<MutexGuard<'_, ()>> {
        match self.turn.try_lock() {
            Ok(turn) => Some(turn),
            Err(TryLockError::Poisoned(turn)) => Some(turn.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
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
        let state = Mutex::new(State { is_lent });
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

    /// The command was stopped: so are we, like any job of a shell; when that goes on, it goes on.
    pub(crate) fn stop(&self, signal: i32, blocked: &[i32]) {
        let mut state = self.state();
        if state.is_lent {
            self.take();
        } else if self.has_foreground() && signal != libc::SIGTSTP {
            // It wants the terminal, which we have got meanwhile.
            state.is_lent = true;
            return self.tell(words::FOREGROUND);
        }
        // Where nobody could let us go on, this one is ignored.
        let signal = if signal == libc::SIGSTOP { libc::SIGTSTP } else { signal };
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
        if !state.is_lent && self.has_foreground() {
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
