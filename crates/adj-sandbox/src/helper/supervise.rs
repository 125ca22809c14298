//! A supervisor: holds one sandbox with a worker in it, takes calls over a socket, and remembers what became of each.
//!
//! It belongs to nobody's session, outlives a crashed caller, and leaves when it is told to, or by itself when it was idle long enough.
//! One loop, one thread; every peer is non-blocking and every queue has a bound.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};

use super::disk::DiskWatch;
use super::inside::{Inside, Payload};
use super::protect::Protection;
use super::{Worker, take, timespec};
use crate::error::{Doing, Layer, SetupError, SetupFailure};
use crate::frame::{Connection, MAX_BODY_BYTES};
use crate::limits::Reached;
use crate::plan::Plan;
use crate::spool::{Failure, Spool};
use crate::supervisor::Refusal;
use crate::sys;
use crate::wire::{InsideReport, Report, write_report};

/// So many new workers in so much time, then calls are refused: one that dies at once must not be started for ever.
const MAX_STARTS: usize = 5;
const STARTS_WITHIN: Duration = Duration::from_secs(60);
const SETUP_TIME: Duration = Duration::from_secs(20);
/// The sandbox is told that it is idle only after a while, so that calls in a row cost nothing extra.
const STAYS_ACTIVE: Duration = Duration::from_secs(1);

/// Becomes a supervisor in the folder that was handed over; the starting process goes back to its caller at once.
pub(super) fn start(
    control: &UnixStream,
    plan: &Plan,
    descriptors: Vec<OwnedFd>,
    worker: Worker,
) -> Result<(), SetupError> {
    let folder = take(&mut descriptors.into_iter())?;
    // The caller waits for its child, which is us; the supervisor shall be nobody's child.
    if sys::fork().doing(Layer::Helper, || "leave the caller".into())?.is_some() {
        return Ok(());
    }
    let _ = rustix::process::setsid();
    rustix::process::fchdir(&folder).doing(Layer::Helper, || "enter the supervisor's folder".into())?;
    drop(folder);
    let plan_text =
        serde_json::to_vec(plan).map_err(io::Error::from).doing(Layer::Helper, || "write the plan".into())?;
    let Some(spool) = Spool::open(&plan_text).doing(Layer::Helper, || "open the supervisor's log".into())? else {
        let _ = write_report(control, &Report::Busy);
        return Ok(());
    };
    let signals = sys::signal_fd(&[libc::SIGTERM, libc::SIGINT, libc::SIGHUP])
        .doing(Layer::Helper, || "watch for signals".into())?;
    // The lock is ours, so a socket that is there belongs to nobody.
    let _ = std::fs::remove_file("sock");
    let listener = UnixListener::bind("sock").doing(Layer::Helper, || "listen".into())?;
    listener.set_nonblocking(true).doing(Layer::Helper, || "listen".into())?;
    let mut supervisor = Supervisor {
        plan,
        disk: DiskWatch::open(plan)?,
        worker,
        spool,
        listener: Some(listener),
        signals,
        clients: HashMap::new(),
        next_client: 0,
        sandbox: None,
        starts: Vec::new(),
        calls: HashMap::new(),
        numbers: HashMap::new(),
        next_call: 0,
        idle_since: Instant::now(),
        is_stopping: false,
        stop_waiters: Vec::new(),
        subscribers: Vec::new(),
    };
    supervisor.start_sandbox()?;
    let _ = write_report(control, &Report::Ready);
    let _ = control.shutdown(std::net::Shutdown::Both);
    let result = supervisor.serve();
    supervisor.close();
    result
}

pub(super) struct Supervisor<'a> {
    pub(super) plan: &'a Plan,
    /// Over all sandboxes of this supervisor.
    pub(super) disk: Option<DiskWatch>,
    pub(super) worker: Worker,
    pub(super) spool: Spool,
    pub(super) listener: Option<UnixListener>,
    pub(super) signals: OwnedFd,
    pub(super) clients: HashMap<u64, Connection>,
    pub(super) next_client: u64,
    pub(super) sandbox: Option<Sandbox>,
    pub(super) starts: Vec<Instant>,
    /// By the number that the worker knows.
    pub(super) calls: HashMap<u64, Call>,
    pub(super) numbers: HashMap<String, u64>,
    pub(super) next_call: u64,
    /// When the last caller left or the last call ended; what counts towards leaving.
    pub(super) idle_since: Instant,
    pub(super) is_stopping: bool,
    pub(super) stop_waiters: Vec<(u64, u64)>,
    /// Who wants the listeners of sandboxes: client and the number it chose.
    pub(super) subscribers: Vec<(u64, u64)>,
}

pub(super) struct Sandbox {
    pub(super) inside: Inside,
    pub(super) worker: Connection,
    /// What the proxy of whoever asks listens on.
    pub(super) listener: Option<OwnedFd>,
    pub(super) is_active: bool,
    pub(super) quiet_since: Instant,
    /// What all calls so far have used of a processor, as last heard.
    pub(super) cpu: Duration,
    is_silent: bool,
    /// How often the kernel had ended something in it when the last call began.
    pub(super) memory_kills: u64,
    /// Kept for as long as the mounts need it.
    _protection: Protection,
}

pub(super) struct Call {
    pub(super) effect: String,
    /// Who wants the answer: client and the number it chose.
    pub(super) waiters: Vec<(u64, u64)>,
    pub(super) deadline: Instant,
    pub(super) cpu_at_start: Duration,
    /// For what some of the sandbox was ended while it ran.
    pub(super) reached: Option<Reached>,
}

/// What a round of waiting brought.
#[derive(Default)]
struct Woken {
    has_signal: bool,
    has_newcomer: bool,
    has_died: bool,
    worker: bool,
    reports: bool,
    clients: Vec<u64>,
}

impl Supervisor<'_> {
    fn serve(&mut self) -> Result<(), SetupError> {
        while !self.is_stopping {
            let woken = self.wait().doing(Layer::Helper, || "wait for calls".into())?;
            if woken.has_signal {
                return Ok(());
            }
            if woken.has_newcomer {
                self.welcome();
            }
            if woken.reports {
                self.hear_pid_one();
            }
            if woken.worker {
                self.hear_worker();
            }
            if woken.has_died {
                // Replies that were sent before the end still count.
                self.hear_worker();
                self.bury(self.cause_of_death());
            }
            for client in woken.clients {
                self.hear_client(client);
            }
            self.check_clocks();
        }
        Ok(())
    }

    fn wait(&mut self) -> io::Result<Woken> {
        let timeout = self.next_deadline().map(|at| timespec(at.saturating_duration_since(Instant::now())));
        let interest = |connection: &Connection, takes_more: bool| {
            let mut flags = PollFlags::RDHUP;
            flags.set(PollFlags::IN, takes_more);
            flags.set(PollFlags::OUT, connection.backlog() > 0);
            flags
        };
        let mut fds = vec![PollFd::new(&self.signals, PollFlags::IN)];
        if let Some(listener) = &self.listener {
            fds.push(PollFd::new(listener, PollFlags::IN));
        }
        let first_sandbox = fds.len();
        // A worker that reads slowly holds callers up instead of filling our memory.
        let mut takes_calls = true;
        if let Some(sandbox) = &self.sandbox {
            takes_calls = sandbox.worker.backlog() < MAX_BODY_BYTES;
            fds.push(PollFd::new(sandbox.inside.pidfd(), PollFlags::IN));
            fds.push(PollFd::new(sandbox.worker.socket(), interest(&sandbox.worker, true)));
            if !sandbox.is_silent {
                fds.push(PollFd::new(&sandbox.inside.reports, PollFlags::IN));
            }
        }
        let has_reports = fds.len() == first_sandbox + 3;
        let first_client = fds.len();
        let order: Vec<u64> = self.clients.keys().copied().collect();
        for client in order.iter().map(|client| &self.clients[client]) {
            fds.push(PollFd::new(client.socket(), interest(client, takes_calls)));
        }
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(Woken::default()),
            Err(error) => return Err(error.into()),
        }
        let is_woken = |index: usize| !fds[index].revents().is_empty();
        let has_sandbox = self.sandbox.is_some();
        Ok(Woken {
            has_signal: is_woken(0),
            has_newcomer: first_sandbox == 2 && is_woken(1),
            has_died: has_sandbox && is_woken(first_sandbox),
            worker: has_sandbox && is_woken(first_sandbox + 1),
            reports: has_reports && is_woken(first_sandbox + 2),
            clients: order.iter().enumerate().filter(|(n, _)| is_woken(first_client + n)).map(|(_, id)| *id).collect(),
        })
    }

    fn next_deadline(&self) -> Option<Instant> {
        let calls = self.calls.values().map(|call| call.deadline);
        let idle = self.is_idle().then(|| self.idle_since + self.plan.idle);
        let quiet = self
            .sandbox
            .as_ref()
            .filter(|sandbox| sandbox.is_active && self.calls.is_empty())
            .map(|sandbox| sandbox.quiet_since + STAYS_ACTIVE);
        let disk = self.disk.as_ref().filter(|_| self.sandbox.is_some()).map(DiskWatch::next_look);
        calls.chain(idle).chain(quiet).chain(disk).min()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.clients.is_empty() && self.calls.is_empty()
    }

    fn check_clocks(&mut self) {
        let now = Instant::now();
        if self.is_idle() && now >= self.idle_since + self.plan.idle {
            self.is_stopping = true;
            return;
        }
        if self.calls.values().any(|call| now >= call.deadline) {
            self.end_calls(|call| now >= call.deadline, Failure::TimedOut);
        }
        let cpu = self.plan.limits.cpu;
        let used = self.sandbox.as_ref().map_or(Duration::ZERO, |sandbox| sandbox.cpu);
        if self.calls.values().any(|call| used.saturating_sub(call.cpu_at_start) >= cpu) {
            let is_over = |call: &Call| used.saturating_sub(call.cpu_at_start) >= cpu;
            self.end_calls(is_over, Failure::LimitReached(Reached::Cpu(cpu)));
        }
        let is_idle = self.calls.is_empty();
        if let (Some(disk), Some(sandbox)) = (&mut self.disk, &self.sandbox)
            && disk.look(sandbox.inside.pid(), is_idle)
        {
            disk.forgive();
            // Whoever runs may have done it, the background included.
            self.end_calls(|_| true, Failure::LimitReached(Reached::DiskBytes(self.plan.limits.disk_bytes)));
        }
        if let Some(sandbox) = &mut self.sandbox
            && sandbox.is_active
            && self.calls.is_empty()
            && now >= sandbox.quiet_since + STAYS_ACTIVE
        {
            sandbox.is_active = false;
            sandbox.inside.set_active(false);
        }
    }

    /// Why a sandbox ended by itself.
    pub(super) fn cause_of_death(&self) -> Failure {
        match &self.sandbox {
            Some(sandbox) if sandbox.inside.memory_kills() > sandbox.memory_kills => {
                Failure::LimitReached(Reached::MemoryBytes(self.plan.limits.memory_bytes))
            }
            _ => Failure::WorkerDied,
        }
    }

    /// Ends the sandbox: nobody can end one call for certain but by ending everything. The calls that `is_over` speaks of fail for this
    /// reason, all others because their worker died.
    fn end_calls(&mut self, is_over: impl Fn(&Call) -> bool, failure: Failure) {
        let over: Vec<u64> = self.calls.iter().filter(|(_, call)| is_over(call)).map(|(number, _)| *number).collect();
        self.drop_sandbox();
        for number in over {
            self.fail_call(number, failure);
        }
        self.bury(Failure::WorkerDied);
    }

    /// Takes everything that pid 1 has said so far.
    pub(super) fn hear_all_of_pid_one(&mut self) {
        while let Some(sandbox) = self.sandbox.as_ref().filter(|sandbox| !sandbox.is_silent) {
            let mut fds = [PollFd::new(&sandbox.inside.reports, PollFlags::IN)];
            if !poll(&mut fds, Some(&timespec(Duration::ZERO))).is_ok_and(|count| count > 0) {
                return;
            }
            self.hear_pid_one();
        }
    }

    /// Takes one thing that pid 1 has to say while its worker runs.
    fn hear_pid_one(&mut self) {
        let Some(sandbox) = &mut self.sandbox else { return };
        match sandbox.inside.next_report() {
            Ok((InsideReport::Used { cpu }, _)) => sandbox.cpu = cpu,
            Ok((InsideReport::Trimmed { reached }, _)) => {
                self.calls.values_mut().for_each(|call| call.reached = Some(reached));
            }
            Ok(_) => {}
            // Its end is seen by its descriptor.
            Err(_) => sandbox.is_silent = true,
        }
    }

    fn start_sandbox(&mut self) -> Result<(), SetupError> {
        let protection = Protection::prepare(self.plan)?;
        let (ours, theirs) = UnixStream::pair().doing(Layer::Helper, || "make a socket pair".into())?;
        let payload = Payload::Worker { worker: self.worker, channel: theirs.into() };
        let mut inside = Inside::start(self.plan, payload, &protection)?;
        inside.reports.set_read_timeout(Some(SETUP_TIME)).doing(Layer::Helper, || "set a time limit".into())?;
        let mut listener = None;
        loop {
            let (report, descriptor) = inside.next_report().doing(Layer::Helper, || "hear from the sandbox".into())?;
            match report {
                InsideReport::Listener => listener = descriptor,
                InsideReport::Ready => break,
                InsideReport::Used { .. } | InsideReport::Trimmed { .. } => {}
                InsideReport::Setup(failure) => return Err(failure.into()),
                InsideReport::CannotStart { .. } | InsideReport::Finished { .. } | InsideReport::Stopped { .. } => {
                    return Err(io::Error::from(io::ErrorKind::UnexpectedEof))
                        .doing(Layer::Helper, || "start the worker".into());
                }
            }
        }
        let worker = Connection::new(ours).doing(Layer::Helper, || "reach the worker".into())?;
        let quiet_since = Instant::now();
        let sandbox = Sandbox {
            inside,
            worker,
            listener,
            is_active: false,
            quiet_since,
            cpu: Duration::ZERO,
            is_silent: false,
            memory_kills: 0,
            _protection: protection,
        };
        self.sandbox = Some(sandbox);
        self.announce_listener();
        Ok(())
    }

    /// A sandbox that can take a call, started anew if the last one died.
    pub(super) fn ensure_sandbox(&mut self) -> Result<&mut Sandbox, Refusal> {
        if self.sandbox.is_none() {
            let now = Instant::now();
            self.starts.retain(|at| now.duration_since(*at) < STARTS_WITHIN);
            if self.starts.len() >= MAX_STARTS {
                return Err(Refusal::DiesTooOften);
            }
            self.starts.push(now);
            self.start_sandbox().map_err(|error| Refusal::Setup(error.to_wire()))?;
        }
        let no_sandbox = || {
            Refusal::Setup(SetupFailure {
                layer: Layer::Helper,
                doing: "start the worker".into(),
                errno: None,
                detail: "no sandbox".into(),
            })
        };
        self.sandbox.as_mut().ok_or_else(no_sandbox)
    }
}
