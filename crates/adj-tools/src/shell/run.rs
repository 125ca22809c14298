//! Commands, one after another, and what became of each.

use super::bash::{Bash, BashError, CONTROL_FD, MARK_VARIABLE, ShellPlan, quoted, quoted_text};
use super::processes::Family;
use super::{random, reap_orphans};
use crate::cancel::Cancel;
use crate::clip::Kept;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, ioctl_fionread};
use rustix::process::Pid;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Background jobs that still write to the pipe of an old command; beyond this, the next one finds its pipe closed.
const MOST_LINGERING: usize = 64;
const LONGEST_CONTROL: usize = 4096;
const PIECE: usize = 64 * 1024;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Exited(i32),
    /// The shell itself ended: by `exit`, `exec`, `set -e`, or a signal.
    ShellEnded(i32),
    TimedOut,
    Cancelled,
}

#[derive(Debug)]
pub(crate) struct Run {
    pub output: String,
    pub end: End,
    /// Whether everything that had to be killed is gone.
    pub is_clean: bool,
}

/// The shell of a toolbox, opened when it is first needed.
#[derive(Debug)]
pub(crate) struct Commands {
    plan: ShellPlan,
    /// The same for all shells of this toolbox, so that what an earlier one left behind is found too.
    mark: String,
    bash: Option<Bash>,
    /// The shell before the present one, which jobs in the background may have outlived.
    earlier: Vec<Pid>,
    lingering: Arc<AtomicUsize>,
}

impl Commands {
    pub(crate) fn new(plan: ShellPlan) -> Self {
        let mark = format!("{:016x}", random());
        Self { plan, mark, bash: None, earlier: Vec::new(), lingering: Arc::default() }
    }

    pub(crate) fn cwd(&self) -> &std::path::Path {
        &self.plan.cwd
    }

    /// Ends the shell and everything that was started through it.
    pub(crate) fn stop(&mut self) -> bool {
        let is_everything = self.plan.adopts_orphans;
        let mut is_clean = match self.bash.take() {
            Some(bash) => bash.kill(&self.mark, is_everything),
            None => true,
        };
        let mark = format!("{MARK_VARIABLE}={}", self.mark);
        for shell in self.earlier.drain(..) {
            is_clean &= Family { shell, mark: &mark, is_everything }.kill();
        }
        if is_everything {
            reap_orphans(None);
        }
        is_clean
    }

    pub(crate) fn run(
        &mut self,
        command: &str,
        timeout: Duration,
        keep_bytes: usize,
        cancel: &Cancel,
    ) -> Result<Run, BashError> {
        if self.bash.as_mut().is_some_and(|bash| bash.exit_code().is_some()) {
            self.forget();
        }
        let bash = match self.bash.take() {
            Some(bash) => bash,
            None => Bash::start(&self.plan, &self.mark)?,
        };
        let bash = self.bash.insert(bash);
        let (output, path) = bash.output_pipe()?;
        let nonce = format!("{:016x}{:016x}", random(), random());
        let mut running = Running {
            bash,
            output: Some(output),
            script: script(command, &quoted(&path), &nonce),
            written: 0,
            nonce,
            control: Vec::new(),
            status: None,
            is_ready: false,
            kept: Kept::new(keep_bytes),
        };
        let end = running.until_end(Instant::now() + timeout, cancel);
        // Only after this is everything that a killed command wrote in the pipe.
        let is_over = matches!(end, Ok(End::Exited(_) | End::ShellEnded(_)));
        if is_over {
            running.drain();
        }
        let Running { output, mut kept, .. } = running;
        let mut is_clean = true;
        if !is_over {
            is_clean = self.stop();
            if let Some(output) = &output {
                drain(output, &mut kept);
            }
        }
        let end = end?;
        if matches!(end, End::ShellEnded(_)) {
            self.forget();
        }
        if let Some(output) = output.filter(|_| is_over) {
            self.linger(output);
        }
        if self.plan.adopts_orphans {
            reap_orphans(self.bash.as_ref().map(Bash::pid));
        }
        Ok(Run { output: kept.into_text(), end, is_clean })
    }

    /// Lets go of a shell that has ended, but not of what it may have left running.
    fn forget(&mut self) {
        if let Some(bash) = self.bash.take() {
            if self.earlier.len() >= 100 {
                self.earlier.remove(0);
            }
            self.earlier.push(bash.pid());
        }
    }

    /// Keeps reading for jobs in the background, which would block or be killed otherwise; what they write is not kept.
    fn linger(&self, output: OwnedFd) {
        let lingering = Arc::clone(&self.lingering);
        if lingering.fetch_add(1, Ordering::Relaxed) >= MOST_LINGERING {
            lingering.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let drain = move || {
            if rustix::io::ioctl_fionbio(&output, false).is_ok() {
                let mut output = File::from(output);
                let mut piece = [0; 8192];
                while matches!(output.read(&mut piece), Ok(1..)) {}
            }
            lingering.fetch_sub(1, Ordering::Relaxed);
        };
        if std::thread::Builder::new().name("output".into()).stack_size(PIECE).spawn(drain).is_err() {
            // The pipe closes with the closure: the job gets SIGPIPE, as it would from any pipe.
            self.lingering.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Commands {
    fn drop(&mut self) {
        if self.bash.is_some() || !self.earlier.is_empty() {
            self.stop();
        }
    }
}

/// What the shell reads for one command. Backslashes keep aliases out; `set` ends what options a command asked for itself.
fn script(command: &str, output: &str, nonce: &str) -> Vec<u8> {
    format!(
        "\\exec </dev/null >{output} 2>&1\n\
         \\builtin eval -- {command}\n\
         \\builtin printf '\\n%s %d\\n' {nonce} \"$?\" >&{CONTROL_FD}\n\
         \\builtin set +euvx\n\
         \\exec </dev/null >/dev/null 2>&1\n\
         \\builtin printf '\\n%s ready\\n' {nonce} >&{CONTROL_FD}\n",
        command = quoted_text(command),
    )
    .into_bytes()
}

struct Running<'b> {
    bash: &'b mut Bash,
    output: Option<OwnedFd>,
    script: Vec<u8>,
    written: usize,
    nonce: String,
    control: Vec<u8>,
    status: Option<i32>,
    is_ready: bool,
    kept: Kept,
}

impl Running<'_> {
    fn until_end(&mut self, deadline: Instant, cancel: &Cancel) -> Result<End, BashError> {
        let talk = |error: Errno| BashError::Talk { source: error.into() };
        // A pipe that everybody has left reports so again and again; it is asked again only at the end.
        let mut is_silent = false;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(End::TimedOut);
            }
            let mut waits = vec![
                PollFd::new(&self.bash.control, PollFlags::IN),
                PollFd::new(&self.bash.ended, PollFlags::IN),
                PollFd::from_borrowed_fd(cancel.as_fd(), PollFlags::IN),
            ];
            if self.written < self.script.len() {
                waits.push(PollFd::new(&self.bash.script, PollFlags::OUT));
            } else {
                waits.push(PollFd::from_borrowed_fd(self.bash.script.as_fd(), PollFlags::empty()));
            }
            if let (Some(output), false) = (&self.output, is_silent) {
                waits.push(PollFd::new(output, PollFlags::IN));
            }
            let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
            match poll(&mut waits, Some(&timeout)) {
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(error) => return Err(talk(error)),
            }
            let events: Vec<PollFlags> = waits.iter().map(PollFd::revents).collect();
            drop(waits);

            if let Some(output) = events.get(4) {
                if output.contains(PollFlags::IN) {
                    self.read_piece();
                } else if !output.is_empty() {
                    is_silent = true;
                }
            }
            if events[0].contains(PollFlags::IN) {
                self.read_control().map_err(talk)?;
                if let (Some(status), true) = (self.status, self.is_ready) {
                    return Ok(End::Exited(status));
                }
            }
            if !events[2].is_empty() {
                return Ok(End::Cancelled);
            }
            if !events[1].is_empty()
                && let Some(code) = self.bash.exit_code()
            {
                return Ok(End::ShellEnded(code));
            }
            if events[3].contains(PollFlags::OUT) {
                match rustix::io::write(&self.bash.script, &self.script[self.written..]) {
                    Ok(bytes) => self.written += bytes,
                    Err(Errno::AGAIN | Errno::INTR) => {}
                    Err(error) => return Err(talk(error)),
                }
            }
        }
    }

    fn read_piece(&mut self) {
        let Some(output) = &self.output else { return };
        let mut piece = [0; PIECE];
        if let Ok(bytes) = rustix::io::read(output, &mut piece) {
            self.kept.push(&piece[..bytes]);
        }
    }

    fn read_control(&mut self) -> Result<(), Errno> {
        let mut piece = [0; 512];
        match rustix::io::read(&self.bash.control, &mut piece) {
            Ok(bytes) => self.control.extend_from_slice(&piece[..bytes]),
            Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
            Err(error) => return Err(error),
        }
        while let Some(at) = self.control.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.control.drain(..=at).collect();
            // Commands can write here too; without the number of this call it means nothing.
            let Some(word) = std::str::from_utf8(&line).ok().and_then(|line| line.strip_prefix(&self.nonce)) else {
                continue;
            };
            match word.trim() {
                "ready" => self.is_ready = true,
                status => self.status = status.parse().ok().or(self.status),
            }
        }
        if self.control.len() > LONGEST_CONTROL {
            self.control.clear();
        }
        Ok(())
    }

    /// Takes what is in the pipe now; closes it if nobody can write to it any more.
    fn drain(&mut self) {
        if let Some(output) = self.output.take()
            && drain(&output, &mut self.kept)
        {
            self.output = Some(output);
        }
    }
}

/// Takes what is in a pipe now, and no more: a job in the background may write faster than this reads. Returns whether somebody may
/// still write.
fn drain(output: &OwnedFd, kept: &mut Kept) -> bool {
    let mut left = ioctl_fionread(output).unwrap_or(0) as usize;
    let mut piece = [0; PIECE];
    while left > 0 {
        match rustix::io::read(output, &mut piece[..left.min(PIECE)]) {
            Ok(0) => return false,
            Ok(bytes) => {
                kept.push(&piece[..bytes]);
                left = left.saturating_sub(bytes);
            }
            Err(Errno::INTR) => {}
            Err(_) => return true,
        }
    }
    let mut waits = [PollFd::new(output, PollFlags::IN)];
    let asked = poll(&mut waits, Some(&Timespec::default()));
    let events = waits[0].revents();
    asked.is_err() || events.contains(PollFlags::IN) || !events.contains(PollFlags::HUP)
}
