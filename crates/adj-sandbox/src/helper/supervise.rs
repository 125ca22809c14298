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

use super::inside::{Inside, Payload};
use super::protect::Protection;
use super::{Worker, take, timespec};
use crate::error::{Doing, Layer, SetupError, SetupFailure};
use crate::frame::{Connection, Kind, MAX_BODY_BYTES, Packet};
use crate::plan::Plan;
use crate::spool::{Failure, Finding, Spool, is_effect_name};
use crate::supervisor::Refusal;
use crate::sys;
use crate::wire::{InsideReport, Report, write_report};

const MAX_CLIENTS: usize = 16;
const MAX_CALLS: usize = 256;
/// A caller that does not read loses its connection at this point; its results stay in the log.
const MAX_BACKLOG: usize = 2 * MAX_BODY_BYTES;
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
    };
    supervisor.start_sandbox()?;
    let _ = write_report(control, &Report::Ready);
    let _ = control.shutdown(std::net::Shutdown::Both);
    let result = supervisor.serve();
    supervisor.close();
    result
}

struct Supervisor<'a> {
    plan: &'a Plan,
    worker: Worker,
    spool: Spool,
    listener: Option<UnixListener>,
    signals: OwnedFd,
    clients: HashMap<u64, Connection>,
    next_client: u64,
    sandbox: Option<Sandbox>,
    starts: Vec<Instant>,
    /// By the number that the worker knows.
    calls: HashMap<u64, Call>,
    numbers: HashMap<String, u64>,
    next_call: u64,
    /// When the last caller left or the last call ended; what counts towards leaving.
    idle_since: Instant,
    is_stopping: bool,
    stop_waiters: Vec<(u64, u64)>,
}

struct Sandbox {
    inside: Inside,
    worker: Connection,
    is_active: bool,
    quiet_since: Instant,
    /// Kept for as long as the mounts need it.
    _protection: Protection,
}

struct Call {
    effect: String,
    /// Who wants the answer: client and the number it chose.
    waiters: Vec<(u64, u64)>,
    deadline: Instant,
}

/// What a round of waiting brought.
#[derive(Default)]
struct Woken {
    has_signal: bool,
    has_newcomer: bool,
    has_died: bool,
    worker: bool,
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
            if woken.worker {
                self.hear_worker();
            }
            if woken.has_died {
                // Replies that were sent before the end still count.
                self.hear_worker();
                self.bury(Failure::WorkerDied);
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
        }
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
        calls.chain(idle).chain(quiet).min()
    }

    fn is_idle(&self) -> bool {
        self.clients.is_empty() && self.calls.is_empty()
    }

    fn check_clocks(&mut self) {
        let now = Instant::now();
        if self.is_idle() && now >= self.idle_since + self.plan.idle {
            self.is_stopping = true;
            return;
        }
        if self.calls.values().any(|call| now >= call.deadline) {
            // Nobody can end one call for certain but by ending everything.
            let late: Vec<u64> =
                self.calls.iter().filter(|(_, call)| now >= call.deadline).map(|(number, _)| *number).collect();
            self.drop_sandbox();
            for number in late {
                self.fail_call(number, Failure::TimedOut);
            }
            self.bury(Failure::WorkerDied);
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

    fn start_sandbox(&mut self) -> Result<(), SetupError> {
        let protection = Protection::prepare(self.plan)?;
        let (ours, theirs) = UnixStream::pair().doing(Layer::Helper, || "make a socket pair".into())?;
        let payload = Payload::Worker { worker: self.worker, channel: theirs.into() };
        let mut inside = Inside::start(self.plan, payload, &protection)?;
        inside.reports.set_read_timeout(Some(SETUP_TIME)).doing(Layer::Helper, || "set a time limit".into())?;
        match inside.next_report().doing(Layer::Helper, || "hear from the sandbox".into())? {
            InsideReport::Ready => {}
            InsideReport::Setup(failure) => return Err(failure.into()),
            InsideReport::CannotStart { .. } | InsideReport::Finished { .. } => {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof))
                    .doing(Layer::Helper, || "start the worker".into());
            }
        }
        let worker = Connection::new(ours).doing(Layer::Helper, || "reach the worker".into())?;
        let quiet_since = Instant::now();
        self.sandbox = Some(Sandbox { inside, worker, is_active: false, quiet_since, _protection: protection });
        Ok(())
    }

    /// A sandbox that can take a call, started anew if the last one died.
    fn ensure_sandbox(&mut self) -> Result<&mut Sandbox, Refusal> {
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

    fn welcome(&mut self) {
        let Some(listener) = &self.listener else { return };
        while let Ok((socket, _)) = listener.accept() {
            let own = rustix::process::geteuid();
            let is_friend =
                rustix::net::sockopt::socket_peercred(&socket).is_ok_and(|peer| peer.uid == own || peer.uid.is_root());
            if !is_friend || self.clients.len() >= MAX_CLIENTS {
                continue;
            }
            if let Ok(connection) = Connection::new(socket) {
                self.clients.insert(self.next_client, connection);
                self.next_client += 1;
            }
        }
    }

    fn hear_client(&mut self, client: u64) {
        let Some(connection) = self.clients.get_mut(&client) else {
            return;
        };
        let mut is_open = connection.flush().is_ok() && connection.fill().unwrap_or(false);
        loop {
            let Some(connection) = self.clients.get_mut(&client) else {
                return;
            };
            match connection.next_packet() {
                Ok(Some(packet)) => self.obey(client, packet),
                Ok(None) => break,
                Err(_) => {
                    is_open = false;
                    break;
                }
            }
        }
        if !is_open {
            self.part_from(client);
        }
    }

    fn part_from(&mut self, client: u64) {
        self.clients.remove(&client);
        for call in self.calls.values_mut() {
            call.waiters.retain(|waiter| waiter.0 != client);
        }
        if self.is_idle() {
            self.idle_since = Instant::now();
        }
    }

    fn obey(&mut self, client: u64, packet: Packet) {
        let number = packet.number;
        match packet.kind {
            Kind::Call => {
                if let Err(refusal) = self.call(client, packet) {
                    self.refuse(client, number, &refusal);
                }
            }
            Kind::Cancel => {
                let call = std::str::from_utf8(&packet.body).ok().and_then(|name| self.numbers.get(name));
                if let (Some(call), Some(sandbox)) = (call, &mut self.sandbox) {
                    let _ = sandbox.worker.send(&Packet::new(Kind::Cancel, *call, Vec::new()));
                }
                self.answer(client, &Packet::new(Kind::Done, number, Vec::new()));
            }
            Kind::Stop => {
                self.is_stopping = true;
                self.stop_waiters.push((client, number));
            }
            Kind::Reply | Kind::Failed | Kind::Done => self.part_from(client),
        }
    }

    fn call(&mut self, client: u64, packet: Packet) -> Result<(), Refusal> {
        let mut body = packet.body;
        let name_end = 1 + usize::from(*body.first().ok_or(Refusal::Malformed)?);
        if body.len() < name_end || body.len() - name_end > MAX_BODY_BYTES {
            return Err(Refusal::Malformed);
        }
        let request = body.split_off(name_end);
        let effect = String::from_utf8(body.split_off(1)).map_err(|_| Refusal::Malformed)?;
        if !is_effect_name(&effect) {
            return Err(Refusal::Malformed);
        }
        if let Some(call) = self.numbers.get(&effect).and_then(|number| self.calls.get_mut(number)) {
            call.waiters.push((client, packet.number));
            return Ok(());
        }
        match self.spool.recall(&effect) {
            Finding::NotStarted => {}
            Finding::Done(reply) => {
                self.answer(client, &Packet::new(Kind::Reply, packet.number, reply));
                return Ok(());
            }
            Finding::Failed(failure) => return Err(Refusal::Failed(failure)),
            Finding::Running | Finding::Unknown => return Err(Refusal::Unknown),
        }
        if self.calls.len() >= MAX_CALLS {
            return Err(Refusal::TooManyCalls);
        }
        let wall = self.plan.limits.wall;
        self.ensure_sandbox()?;
        self.spool.start(&effect).map_err(|error| Refusal::Log { errno: error.raw_os_error() })?;
        let number = self.next_call;
        self.next_call += 1;
        self.numbers.insert(effect.clone(), number);
        let call = Call { effect, waiters: vec![(client, packet.number)], deadline: Instant::now() + wall };
        self.calls.insert(number, call);
        let sandbox = self.ensure_sandbox()?;
        if !sandbox.is_active {
            sandbox.is_active = true;
            sandbox.inside.set_active(true);
        }
        // A worker that is dying is noticed by its end, which answers the call.
        let _ = sandbox.worker.send(&Packet::new(Kind::Call, number, request));
        Ok(())
    }

    fn hear_worker(&mut self) {
        let Some(sandbox) = &mut self.sandbox else { return };
        let is_open = sandbox.worker.flush().is_ok() && sandbox.worker.fill().unwrap_or(false);
        loop {
            let Some(sandbox) = &mut self.sandbox else { return };
            match sandbox.worker.next_packet() {
                Ok(Some(Packet { kind: Kind::Reply, number, body })) => self.finish_call(number, body),
                Ok(Some(_)) => {}
                Ok(None) => break,
                // It speaks nonsense, so its replies can no longer be told apart.
                Err(_) => return self.bury(Failure::WorkerDied),
            }
        }
        if !is_open {
            self.bury(Failure::WorkerDied);
        }
    }

    fn finish_call(&mut self, number: u64, body: Vec<u8>) {
        let Some(call) = self.forget_call(number) else { return };
        // First remember, then tell. If the disk is full the caller still learns the reply, but a caller that crashes now will
        // find the effect's end unknown.
        let _ = self.spool.reply(&call.effect, &body);
        for (client, number) in call.waiters {
            self.answer(client, &Packet::new(Kind::Reply, number, body.clone()));
        }
    }

    fn fail_call(&mut self, number: u64, failure: Failure) {
        let Some(call) = self.forget_call(number) else { return };
        let _ = self.spool.fail(&call.effect, failure);
        for (client, number) in call.waiters {
            self.refuse(client, number, &Refusal::Failed(failure));
        }
    }

    fn forget_call(&mut self, number: u64) -> Option<Call> {
        let call = self.calls.remove(&number)?;
        self.numbers.remove(&call.effect);
        let now = Instant::now();
        if let Some(sandbox) = &mut self.sandbox {
            sandbox.quiet_since = now;
        }
        self.idle_since = now;
        Some(call)
    }

    fn drop_sandbox(&mut self) {
        // Kills and reaps, then lets the placeholders go.
        self.sandbox = None;
    }

    /// Ends the sandbox and answers all that was running in it.
    fn bury(&mut self, failure: Failure) {
        self.drop_sandbox();
        let numbers: Vec<u64> = self.calls.keys().copied().collect();
        for number in numbers {
            self.fail_call(number, failure);
        }
    }

    fn refuse(&mut self, client: u64, number: u64, refusal: &Refusal) {
        let body = serde_json::to_vec(refusal).unwrap_or_default();
        self.answer(client, &Packet::new(Kind::Failed, number, body));
    }

    fn answer(&mut self, client: u64, packet: &Packet) {
        let Some(connection) = self.clients.get_mut(&client) else {
            return;
        };
        if connection.send(packet).is_err() || connection.backlog() > MAX_BACKLOG {
            self.part_from(client);
        }
    }

    /// Ends everything, tells everybody, and makes the place free.
    fn close(&mut self) {
        self.bury(Failure::Stopped);
        self.listener = None;
        let _ = std::fs::remove_file("sock");
        for (client, number) in std::mem::take(&mut self.stop_waiters) {
            self.answer(client, &Packet::new(Kind::Done, number, Vec::new()));
        }
        // What still waits to be sent gets a moment; it is in the log anyway.
        for connection in self.clients.values_mut() {
            if connection.backlog() > 0 {
                let socket = connection.socket();
                let _ = socket.set_nonblocking(false);
                let _ = socket.set_write_timeout(Some(Duration::from_secs(1)));
                let _ = connection.flush();
            }
        }
    }
}
