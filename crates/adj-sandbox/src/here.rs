//! Runs one command for somebody who waits for it: its input, output and terminal are our own, and our signals reach it.
//!
//! Everything happens in the calling thread, without a runtime. Must not know: how the helper builds the sandbox.

use std::ffi::OsString;
use std::io::{self, Write};
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};

use crate::helper::{fork_helper, timespec};
use crate::launch::{Exit, RunError};
use crate::plan::Plan;
use crate::sys;
use crate::terminal::{self, Questions, Terminal};
use crate::wire::{Job, Report, SharedTerminal, receive_report, send_job, words};

/// How long a command that was told to end may take to do so by itself.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// Two signals to end in a row are one, if they come as close as this: many send one to a process and then to its group.
const IN_A_ROW: Duration = Duration::from_millis(500);

/// While a question is on the screen, it is looked this often whether it is over.
const DURING_QUESTIONS: Duration = Duration::from_millis(100);

/// Signals that do not end or stop us, because the command gets them; the last says that we go on after a stop.
const HEARD: [i32; 8] = [
    libc::SIGINT,
    libc::SIGTERM,
    libc::SIGHUP,
    libc::SIGQUIT,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGTSTP,
    libc::SIGCONT,
];

/// These, and what a terminal sends to those who use it from the background.
const BLOCKED: [i32; 10] = [
    libc::SIGINT,
    libc::SIGTERM,
    libc::SIGHUP,
    libc::SIGQUIT,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGTSTP,
    libc::SIGCONT,
    libc::SIGTTIN,
    libc::SIGTTOU,
];

/// What becomes of a command's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Streams {
    /// It writes to our own streams, and nobody counts.
    Inherited,
    /// It goes through our hands, and the plan's `limits.output_bytes` holds.
    Counted,
}

/// A helper that waits for its one command. Dropping it ends the command and everything that it started.
#[derive(Debug)]
pub struct Here {
    control: Arc<UnixStream>,
    helper: Option<i32>,
    signals: OwnedFd,
    terminal: Option<Terminal>,
    questions: Option<Questions>,
    streams: Vec<Stream>,
    most_output: u64,
    program: OsString,
}

impl Here {
    /// Forks the helper. This process must have a single thread, and should not have read anything secret yet.
    ///
    /// From here on SIGINT, SIGTERM and their like no longer end this process: [`Here::wait`] passes them on.
    pub fn fork() -> Result<Here, RunError> {
        Here::fork_with(terminal::find().map_err(failed)?, None)
    }

    /// The same for a command about which questions are asked: it gets no terminal. Its input is empty where ours is one, its output goes
    /// through our hands.
    pub fn fork_apart() -> Result<Here, RunError> {
        let tty = terminal::find().map_err(failed)?;
        Here::fork_with(None, tty.map(Questions::new))
    }

    fn fork_with(tty: Option<OwnedFd>, questions: Option<Questions>) -> Result<Here, RunError> {
        let (control, helper) = fork_helper(tty.is_some()).map_err(failed)?;
        let control = Arc::new(control);
        let here = Here {
            helper: Some(helper),
            signals: sys::signal_fd(&HEARD).map_err(failed)?,
            terminal: tty.map(|tty| Terminal::new(tty, Arc::clone(&control))),
            questions,
            control,
            streams: Vec::new(),
            most_output: u64::MAX,
            program: OsString::new(),
        };
        sys::set_blocked(&BLOCKED);
        Ok(here)
    }

    /// The terminal that the command shares with us, if one of the standard streams is our own.
    pub fn terminal(&self) -> Option<&Terminal> {
        self.terminal.as_ref()
    }

    /// Where questions about the command can be asked.
    pub fn questions(&self) -> Option<&Questions> {
        self.questions.as_ref()
    }

    /// Lets the command begin.
    pub fn start(&mut self, plan: &Plan, argv: &[OsString], streams: Streams) -> Result<(), RunError> {
        plan.check()?;
        self.program = argv.first().ok_or(RunError::NoCommand)?.clone();
        let terminal = self.terminal.as_ref().map_or(SharedTerminal::No, Terminal::word);
        let job = Job::Run { plan: plan.clone(), argv: argv.to_vec(), timeout: plan.limits.wall, terminal };
        let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
        let mut pipes = Vec::new();
        if streams == Streams::Counted {
            self.most_output = plan.limits.output_bytes;
        }
        if streams == Streams::Counted || self.questions.is_some() {
            for to in [stdout.as_fd(), stderr.as_fd()] {
                let (from, into) =
                    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|error| failed(error.into()))?;
                self.streams.push(Stream::new(from, to, self.questions.is_some()).map_err(failed)?);
                pipes.push(into);
            }
        }
        let null = std::fs::File::open("/dev/null").map_err(failed)?;
        let is_withheld = self.questions.is_some() && rustix::termios::isatty(&stdin);
        let mut given = vec![if is_withheld { null.as_fd() } else { stdin.as_fd() }];
        match pipes.as_slice() {
            [] => given.extend([stdout.as_fd(), stderr.as_fd()]),
            pipes => given.extend(pipes.iter().map(AsFd::as_fd)),
        }
        given.extend(self.terminal.as_ref().map(Terminal::as_fd));
        send_job(&*self.control, &job, &given).map_err(failed)
    }

    /// Waits until nothing of the command is left. Where the plan has a network, the listener of its door is handed to `on_listener`
    /// before the command starts.
    ///
    /// A command that was told to end, with SIGTERM or SIGHUP, is killed after ten seconds, or when it is told again.
    pub fn wait(mut self, on_listener: impl FnOnce(TcpListener)) -> Result<Exit, RunError> {
        let mut on_listener = Some(on_listener);
        let mut ending: Option<Ending> = None;
        let mut output = 0;
        let mut is_over_limit = false;
        let report = loop {
            let left = ending.map(|ending| ending.at.saturating_duration_since(Instant::now()));
            if let Some(Ending { signal, .. }) = ending.filter(|_| left == Some(Duration::ZERO)) {
                self.end(true);
                return Ok(Exit::Signal(signal));
            }
            let is_asking = self.questions.as_ref().is_some_and(|questions| questions.turn().is_none());
            let woken = self.poll(left, is_over_limit, is_asking).map_err(failed)?;
            let turn = self.questions.as_ref().map(Questions::turn);
            if !is_over_limit && !matches!(turn, Some(None)) {
                output += self.streams.iter_mut().map(Stream::go_on).sum::<u64>();
                is_over_limit = output > self.most_output;
                if is_over_limit {
                    // Nothing is read any more, so the pipes fill up and hold the command until it is dead.
                    self.tell(words::TOO_MUCH);
                }
            }
            drop(turn);
            if woken.has_signal {
                for signal in sys::read_signals(&self.signals) {
                    self.pass_on(signal);
                    ending = Ending::after(ending, signal);
                }
            }
            if woken.has_report {
                match receive_report::<Report>(&*self.control) {
                    Ok((Report::Listener, Some(listener))) => {
                        if let Some(take) = on_listener.take() {
                            take(TcpListener::from(listener));
                        }
                    }
                    Ok((Report::Stopped { signal }, _)) => {
                        if let Some(terminal) = &self.terminal {
                            terminal.stop(signal, &BLOCKED);
                        }
                    }
                    received => break received,
                }
            }
        };
        // Everything that could write is dead, so what is in the pipes now is all there will ever be.
        if !is_over_limit {
            self.streams.iter_mut().for_each(Stream::finish);
        }
        let was_killed = !matches!(report, Ok((Report::Finished { exit: Exit::Code(_) }, _)));
        self.end(was_killed);
        match report.map_err(|_| RunError::HelperLost)?.0 {
            Report::Finished { .. } if is_over_limit => Ok(Exit::OutputLimit),
            Report::Finished { exit } => Ok(exit),
            Report::Setup(failure) => Err(RunError::Setup(failure.into())),
            Report::CannotStart { errno } => Err(RunError::CannotStart {
                program: std::mem::take(&mut self.program).into(),
                source: io::Error::from_raw_os_error(errno),
            }),
            Report::Listener | Report::Stopped { .. } | Report::Ready | Report::Busy => Err(RunError::HelperLost),
        }
    }

    fn poll(&self, timeout: Option<Duration>, is_over_limit: bool, is_asking: bool) -> io::Result<Woken> {
        let timeout =
            if is_asking { Some(timeout.map_or(DURING_QUESTIONS, |left| left.min(DURING_QUESTIONS))) } else { timeout };
        let report = PollFd::new(&*self.control, PollFlags::IN | PollFlags::RDHUP);
        let mut fds = vec![PollFd::new(&self.signals, PollFlags::IN), report];
        fds.extend(self.streams.iter().filter(|_| !is_over_limit && !is_asking).filter_map(Stream::interest));
        match poll(&mut fds, timeout.map(timespec).as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(Woken { has_signal: !fds[0].revents().is_empty(), has_report: !fds[1].revents().is_empty() })
    }

    fn pass_on(&self, signal: i32) {
        match (signal, &self.terminal) {
            (libc::SIGCONT, Some(terminal)) => terminal.go_on(),
            // Without a terminal nobody would let the command go on.
            (libc::SIGCONT | libc::SIGTSTP, None) => {}
            (signal, _) => self.tell(words::signal(signal)),
        }
    }

    fn tell(&self, word: u8) {
        // When the helper is gone, the next look at its socket says so.
        let _ = (&*self.control).write_all(&[word]);
    }

    /// Ends whatever is left, waits for the helper, and takes the terminal back.
    fn end(&mut self, was_killed: bool) {
        let Some(helper) = self.helper.take() else { return };
        let _ = self.control.shutdown(std::net::Shutdown::Both);
        sys::reap(helper);
        if let Some(terminal) = &self.terminal {
            terminal.take_back(was_killed);
        }
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        self.end(true);
    }
}

fn failed(source: io::Error) -> RunError {
    RunError::Helper { source }
}

/// A command that was told to end.
#[derive(Debug, Clone, Copy)]
struct Ending {
    signal: i32,
    since: Instant,
    /// When it is killed.
    at: Instant,
}

impl Ending {
    fn after(earlier: Option<Ending>, signal: i32) -> Option<Ending> {
        let now = Instant::now();
        match earlier {
            None if [libc::SIGTERM, libc::SIGHUP].contains(&signal) => {
                Some(Ending { signal, since: now, at: now + LAST_WORDS })
            }
            Some(earlier)
                if [libc::SIGTERM, libc::SIGHUP, libc::SIGINT].contains(&signal) && earlier.since + IN_A_ROW < now =>
            {
                Some(Ending { at: now, ..earlier })
            }
            earlier => earlier,
        }
    }
}

/// What a round of waiting brought.
struct Woken {
    has_signal: bool,
    has_report: bool,
}

/// One of two outputs on its way from the command to ours.
#[derive(Debug)]
struct Stream {
    from: Option<OwnedFd>,
    to: OwnedFd,
    waiting: Vec<u8>,
    plain: Option<Plain>,
}

/// Makes what is written to a terminal plain text, so that it can neither be asked anything nor be drawn over.
#[derive(Debug, Default)]
struct Plain {
    /// The last byte began a control character of two.
    is_within: bool,
}

impl Plain {
    fn make(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            let is_second = std::mem::replace(&mut self.is_within, *byte == 0xC2);
            let is_control = byte.is_ascii_control() && !b"\t\n\r".contains(byte);
            if is_control || is_second && (0x80..0xA0).contains(byte) {
                *byte = b'?';
            }
        }
    }
}

impl Stream {
    /// A pipe that can be written to takes as much at once.
    const PIECE: usize = 4096;

    fn new(from: OwnedFd, to: BorrowedFd<'_>, is_apart: bool) -> io::Result<Stream> {
        let plain = (is_apart && rustix::termios::isatty(to)).then(Plain::default);
        Ok(Stream { from: Some(from), to: rustix::io::fcntl_dupfd_cloexec(to, 3)?, waiting: Vec::new(), plain })
    }

    fn interest(&self) -> Option<PollFd<'_>> {
        if !self.waiting.is_empty() {
            return Some(PollFd::new(&self.to, PollFlags::OUT));
        }
        self.from.as_ref().map(|from| PollFd::new(from, PollFlags::IN))
    }

    /// One step: writes what waits, or reads more. Returns how much came in.
    fn go_on(&mut self) -> u64 {
        let is_ready = |fd: &OwnedFd, flags| {
            let now = timespec(Duration::ZERO);
            poll(&mut [PollFd::new(fd, flags)], Some(&now)).is_ok_and(|count| count > 0)
        };
        if !self.waiting.is_empty() {
            if is_ready(&self.to, PollFlags::OUT) {
                self.write();
            }
            return 0;
        }
        let Some(from) = self.from.as_ref().filter(|from| is_ready(from, PollFlags::IN)) else {
            return 0;
        };
        let count = Self::read(from, &mut self.waiting, self.plain.as_mut());
        if count == 0 {
            self.from = None;
        }
        count as u64
    }

    fn read(from: &OwnedFd, waiting: &mut Vec<u8>, plain: Option<&mut Plain>) -> usize {
        waiting.resize(Self::PIECE, 0);
        let count = rustix::io::read(from, &mut **waiting).unwrap_or(0);
        waiting.truncate(count);
        if let Some(plain) = plain {
            plain.make(waiting);
        }
        count
    }

    fn write(&mut self) {
        match rustix::io::write(&self.to, &self.waiting) {
            Ok(count) => drop(self.waiting.drain(..count)),
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            Err(_) => {
                // Nobody reads any more, and the command learns of it from its next write.
                self.waiting.clear();
                self.from = None;
            }
        }
    }

    /// Passes on what is left.
    fn finish(&mut self) {
        if let Some(from) = &self.from {
            let _ = rustix::io::ioctl_fionbio(from, true);
        }
        // Bounded by what a pipe holds, whatever an unconfined process that escaped its end still writes.
        for _ in 0..1024 {
            while !self.waiting.is_empty() {
                self.write();
            }
            let Some(from) = &self.from else { return };
            if Self::read(from, &mut self.waiting, self.plain.as_mut()) == 0 {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_text_reaches_a_terminal_that_asks_questions() {
        let cases: [(&[&str], &str); 5] = [
            (&["plain\ttext\r\n"], "plain\ttext\r\n"),
            (&["\x1b[?1$p\x05\x07\x08\x7f\0"], "?[?1$p?????"),
            (&["größe → ✓ Â "], "größe → ✓ Â "),
            (&["a\u{9b}6n"], "a\u{fffd}?6n"),
            (&["a", "b\x1b", "[c"], "ab?[c"),
        ];
        for (pieces, expected) in cases {
            let mut plain = Plain::default();
            let mut shown = Vec::new();
            for piece in pieces {
                let mut bytes = piece.as_bytes().to_vec();
                plain.make(&mut bytes);
                shown.extend(bytes);
            }
            assert_eq!(String::from_utf8_lossy(&shown), expected);
        }
        // Cut in the middle.
        let mut plain = Plain::default();
        let (mut first, mut second) = (vec![0xC2], vec![0x9B]);
        plain.make(&mut first);
        plain.make(&mut second);
        assert_eq!(second, b"?");
    }
}
