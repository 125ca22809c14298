//! The caller's side of a supervisor: find or start it, call into it, end it.
//!
//! Must not know: what a call means to the worker.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::error::{SetupError, SetupFailure};
use crate::frame::{HEADER_BYTES, Kind, MAX_BODY_BYTES, Packet, parse_header, read_packet_async};
use crate::launch::Launcher;
use crate::plan::{Plan, PlanError};
use crate::spool::{Failure, is_effect_name, is_occupied, prepare_folder};
use crate::wire::{Job, Report, receive_exact, receive_report_async};

const OPEN_TIME: Duration = Duration::from_secs(30);
const STOP_TIME: Duration = Duration::from_secs(10);
const RETRY_EVERY: Duration = Duration::from_millis(5);

/// Why no supervisor could be reached or started.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the sandbox plan cannot be carried out")]
    Plan(#[from] PlanError),
    #[error("cannot use {} as a supervisor's folder", dir.display())]
    Folder { dir: PathBuf, source: io::Error },
    /// A living sandbox is never changed; stop it first.
    #[error("the supervisor in {} was started with another plan", dir.display())]
    OtherPlan { dir: PathBuf },
    #[error(transparent)]
    Setup(#[from] SetupError),
    #[error("cannot start the sandbox helper")]
    Helper { source: io::Error },
    #[error("the supervisor in {} does not answer", dir.display())]
    NoAnswer { dir: PathBuf },
}

/// Why a call has no reply.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error("{effect:?} cannot be the name of an effect")]
    Name { effect: String },
    #[error("a request of {bytes} bytes is too long")]
    TooLong { bytes: usize },
    /// It was started; its end is on record and will not change.
    #[error("the call {effect} ended without a reply")]
    Failed { effect: String, source: Failure },
    /// It must not be started again: it may have happened.
    #[error("the call {effect} was started by a supervisor that is gone, its end is not known")]
    Unknown { effect: String },
    /// It was not started and may be tried again.
    #[error("the call {effect} was not started: {reason}")]
    NotStarted { effect: String, reason: String },
    /// It was not started, because the sandbox that died could not be built again.
    #[error("the call {effect} was not started")]
    Setup { effect: String, source: SetupError },
    /// Ask [`find`](crate::find) what became of it.
    #[error("the supervisor is gone while the call {effect} was waiting")]
    SupervisorGone { effect: String },
}

/// Why the listener for a proxy could not be had.
#[derive(Debug, thiserror::Error)]
pub enum ListenerError {
    #[error("cannot reach the supervisor in {}", dir.display())]
    Unreachable { dir: PathBuf, source: io::Error },
    /// The sandbox that died could not be built again.
    #[error(transparent)]
    Setup(#[from] SetupError),
    #[error("the supervisor in {} has no sandbox: {reason}", dir.display())]
    NoSandbox { dir: PathBuf, reason: String },
}

/// Why a supervisor could not be ended.
#[derive(Debug, thiserror::Error)]
pub enum StopError {
    #[error("cannot look into {}", dir.display())]
    Folder { dir: PathBuf, source: io::Error },
    #[error("the supervisor in {} does not end", dir.display())]
    StillThere { dir: PathBuf },
}

/// What a supervisor answers instead of a reply.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Refusal {
    Malformed,
    Failed(Failure),
    Unknown,
    TooManyCalls,
    DiesTooOften,
    Log { errno: Option<i32> },
    Setup(SetupFailure),
}

impl Refusal {
    fn into_error(self, effect: &str) -> CallError {
        let effect = effect.to_owned();
        let reason = match self {
            Refusal::Failed(source) => return CallError::Failed { effect, source },
            Refusal::Unknown => return CallError::Unknown { effect },
            Refusal::Setup(failure) => {
                return CallError::Setup { effect, source: failure.into() };
            }
            Refusal::Malformed => "the supervisor does not understand it".to_owned(),
            Refusal::TooManyCalls => "too many calls are running".to_owned(),
            Refusal::DiesTooOften => "the worker dies again and again".to_owned(),
            Refusal::Log { errno } => {
                let detail = errno.map(|errno| format!(": {}", io::Error::from_raw_os_error(errno)));
                format!("it cannot be written to the supervisor's log{}", detail.unwrap_or_default())
            }
        };
        CallError::NotStarted { effect, reason }
    }
}

/// A connection to the supervisor of one thread; dropping it leaves the supervisor running.
#[derive(Debug)]
pub struct Supervisor {
    dir: PathBuf,
    is_new: bool,
    outgoing: mpsc::Sender<Packet>,
    waiting: Waiting,
    next_number: AtomicU64,
    tasks: [JoinHandle<()>; 2],
}

/// Who waits for which number; `None` once the connection has ended.
type Waiting = Arc<Mutex<Option<HashMap<u64, oneshot::Sender<Packet>>>>>;

impl Drop for Supervisor {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Launcher {
    /// Connects to the supervisor that lives in `dir`, or starts one there.
    ///
    /// `dir` is made if its parent exists. A supervisor outlives this process; see [`Plan::idle`] and [`stop`].
    pub async fn open(&self, dir: &Path, plan: &Plan) -> Result<Supervisor, OpenError> {
        plan.check()?;
        let folder_error = |source| OpenError::Folder { dir: dir.to_owned(), source };
        prepare_folder(dir).map_err(folder_error)?;
        let folder = File::open(dir).map_err(folder_error)?;
        let deadline = Instant::now() + OPEN_TIME;
        let mut is_new = false;
        loop {
            if let Ok(socket) = connect(&folder).await {
                let wanted = serde_json::to_vec(plan).map_err(|error| folder_error(error.into()))?;
                let found = std::fs::read(dir.join("plan")).map_err(folder_error)?;
                if wanted != found {
                    return Err(OpenError::OtherPlan { dir: dir.to_owned() });
                }
                return Ok(Supervisor::new(dir, is_new, socket));
            }
            if Instant::now() >= deadline {
                return Err(OpenError::NoAnswer { dir: dir.to_owned() });
            }
            let started = tokio::time::timeout_at(deadline, self.start_supervisor(&folder, plan)).await;
            match started.map_err(|_| OpenError::NoAnswer { dir: dir.to_owned() })?? {
                Started::Now => is_new = true,
                // Somebody else is just starting or just leaving.
                Started::Elsewhere => tokio::time::sleep(RETRY_EVERY).await,
            }
        }
    }

    async fn start_supervisor(&self, folder: &File, plan: &Plan) -> Result<Started, OpenError> {
        let job = Job::Supervise { plan: plan.clone() };
        let mut helper = self.start_helper(&job, &[folder.as_fd()]).map_err(|source| OpenError::Helper { source })?;
        let report = receive_report_async(&helper.socket).await;
        let _ = helper.child.wait().await;
        let (report, _) = report.map_err(|source| OpenError::Helper { source })?;
        match report {
            Report::Ready => Ok(Started::Now),
            Report::Busy => Ok(Started::Elsewhere),
            Report::Setup(failure) => Err(OpenError::Setup(failure.into())),
            Report::CannotStart { errno } => Err(OpenError::Helper { source: io::Error::from_raw_os_error(errno) }),
            Report::Listener | Report::Finished { .. } | Report::Stopped { .. } => {
                Err(OpenError::Helper { source: io::ErrorKind::UnexpectedEof.into() })
            }
        }
    }
}

enum Started {
    Now,
    Elsewhere,
}

/// The path of a socket has at most 107 bytes, so it is reached through the folder's descriptor.
async fn connect(folder: &File) -> io::Result<UnixStream> {
    UnixStream::connect(format!("/proc/self/fd/{}/sock", folder.as_raw_fd())).await
}

impl Supervisor {
    fn new(dir: &Path, is_new: bool, socket: UnixStream) -> Supervisor {
        let (reader, writer) = socket.into_split();
        let (outgoing, queue) = mpsc::channel(16);
        let waiting: Waiting = Arc::new(Mutex::new(Some(HashMap::new())));
        let tasks = [tokio::spawn(write_all(writer, queue)), tokio::spawn(read_all(reader, Arc::clone(&waiting)))];
        Supervisor { dir: dir.to_owned(), is_new, outgoing, waiting, next_number: AtomicU64::new(0), tasks }
    }

    /// Whether it was started by this very `open`, so that nothing of an earlier one (files in `/tmp`, background jobs) is left.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Makes the effect happen once, however often it is asked for, and returns the worker's reply.
    ///
    /// Finished: the kept reply; running: waits with whoever asked first; otherwise the request goes to the worker.
    /// Dropping the future does not end the call.
    pub async fn call(&self, effect: &str, request: Vec<u8>) -> Result<Vec<u8>, CallError> {
        if !is_effect_name(effect) {
            return Err(CallError::Name { effect: effect.to_owned() });
        }
        if request.len() > MAX_BODY_BYTES {
            return Err(CallError::TooLong { bytes: request.len() });
        }
        let gone = || CallError::SupervisorGone { effect: effect.to_owned() };
        let mut body = Vec::with_capacity(1 + effect.len() + request.len());
        body.push(effect.len() as u8);
        body.extend_from_slice(effect.as_bytes());
        body.extend_from_slice(&request);
        let answer = self.ask(Kind::Call, body).await.ok_or_else(gone)?;
        match answer.kind {
            Kind::Reply => Ok(answer.body),
            Kind::Failed => {
                let refusal: Refusal = serde_json::from_slice(&answer.body).map_err(|_| gone())?;
                Err(refusal.into_error(effect))
            }
            Kind::Call | Kind::Cancel | Kind::Stop | Kind::Done | Kind::Listeners | Kind::Reached => Err(gone()),
        }
    }

    /// Tells the worker that nobody wants the effect any more; its call still ends with whatever the worker replies.
    pub async fn cancel(&self, effect: &str) -> Result<(), CallError> {
        let answer = self.ask(Kind::Cancel, effect.as_bytes().to_vec()).await;
        answer.map(drop).ok_or_else(|| CallError::SupervisorGone { effect: effect.to_owned() })
    }

    /// The listeners of a plan with [`NetworkPlan::Proxy`](crate::NetworkPlan::Proxy), for this caller and any later one.
    pub async fn listeners(&self) -> Result<Listeners, ListenerError> {
        let unreachable = |source| ListenerError::Unreachable { dir: self.dir.clone(), source };
        let folder = File::open(&self.dir).map_err(unreachable)?;
        // A connection of its own: descriptors travel beside bytes, and nobody else may read those.
        let mut socket = connect(&folder).await.map_err(unreachable)?;
        socket.write_all(&Packet::new(Kind::Listeners, 0, Vec::new()).header()).await.map_err(unreachable)?;
        Ok(Listeners { dir: self.dir.clone(), socket })
    }

    /// Kills everything inside, ends the supervisor, and waits until both are gone.
    pub async fn stop(self) -> Result<(), StopError> {
        stop(&self.dir).await
    }

    async fn ask(&self, kind: Kind, body: Vec<u8>) -> Option<Packet> {
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).as_mut()?.insert(number, sender);
        let guard = Forget { waiting: &self.waiting, number };
        self.outgoing.send(Packet::new(kind, number, body)).await.ok()?;
        let answer = receiver.await.ok();
        drop(guard);
        answer
    }
}

/// What a proxy listens on, one sandbox after the other.
#[derive(Debug)]
pub struct Listeners {
    dir: PathBuf,
    socket: UnixStream,
}

impl Listeners {
    /// The listener of the present sandbox at first, then that of each sandbox that takes the place of a dead one; `None` when the
    /// plan has no proxy.
    ///
    /// Listeners are non-blocking and shared with the supervisor; what connected to an old one is gone with its sandbox.
    /// An error is the end: the supervisor is gone, or it has no sandbox.
    pub async fn next(&mut self) -> Result<Option<TcpListener>, ListenerError> {
        let unreachable = |source| ListenerError::Unreachable { dir: self.dir.clone(), source };
        let mut header = [0u8; HEADER_BYTES];
        let descriptor = receive_exact(&self.socket, &mut header).await.map_err(unreachable)?;
        let header = parse_header(header).map_err(unreachable)?;
        let mut body = vec![0u8; header.length];
        receive_exact(&self.socket, &mut body).await.map_err(unreachable)?;
        if header.kind != Kind::Failed {
            return Ok(descriptor.map(TcpListener::from));
        }
        let refusal = serde_json::from_slice::<Refusal>(&body).map_err(|error| unreachable(error.into()))?;
        Err(match refusal.into_error("") {
            CallError::Setup { source, .. } => ListenerError::Setup(source),
            CallError::NotStarted { reason, .. } => ListenerError::NoSandbox { dir: self.dir.clone(), reason },
            other => ListenerError::NoSandbox { dir: self.dir.clone(), reason: other.to_string() },
        })
    }
}

/// Takes an entry out again when its caller no longer waits.
struct Forget<'a> {
    waiting: &'a Waiting,
    number: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        if let Some(waiting) = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            waiting.remove(&self.number);
        }
    }
}

async fn write_all(mut writer: OwnedWriteHalf, mut queue: mpsc::Receiver<Packet>) {
    while let Some(packet) = queue.recv().await {
        let mut bytes = Vec::with_capacity(packet.header().len() + packet.body.len());
        bytes.extend_from_slice(&packet.header());
        bytes.extend_from_slice(&packet.body);
        if writer.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

async fn read_all(mut reader: OwnedReadHalf, waiting: Waiting) {
    while let Ok(packet) = read_packet_async(&mut reader).await {
        let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = waiting.as_mut().and_then(|waiting| waiting.remove(&packet.number)) {
            // A caller that went away in this moment needs no answer.
            let _ = sender.send(packet);
        }
    }
    // Dropping the senders wakes everybody who waits, and nobody can join them any more.
    *waiting.lock().unwrap_or_else(PoisonError::into_inner) = None;
}

/// Ends the supervisor that lives in `dir`, if one does, with everything inside; waits until it is gone.
pub async fn stop(dir: &Path) -> Result<(), StopError> {
    let folder_error = |source| StopError::Folder { dir: dir.to_owned(), source };
    let folder = match File::open(dir) {
        Ok(folder) => folder,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(folder_error(error)),
    };
    let deadline = Instant::now() + STOP_TIME;
    let mut told: Option<OwnedFd> = None;
    while is_occupied(dir).map_err(folder_error)? {
        let now = Instant::now();
        if now >= deadline {
            return Err(StopError::StillThere { dir: dir.to_owned() });
        }
        match &told {
            None => {
                if let Ok(mut socket) = connect(&folder).await {
                    // Its answer comes when everything inside is dead; the lock is let go right after.
                    let patience = now + STOP_TIME / 2;
                    told = socket.peer_cred().ok().and_then(|peer| pidfd_of(peer.pid()?));
                    let _ = socket.write_all(&Packet::new(Kind::Stop, 0, Vec::new()).header()).await;
                    let _ = tokio::time::timeout_at(patience, read_packet_async(&mut socket)).await;
                }
            }
            // One that does not listen is killed, and all it holds dies with it.
            Some(pidfd) if now + STOP_TIME / 3 >= deadline => {
                let _ = rustix::process::pidfd_send_signal(pidfd, rustix::process::Signal::KILL);
            }
            Some(_) => {}
        }
        tokio::time::sleep(RETRY_EVERY).await;
    }
    Ok(())
}

/// A handle on the process at the other end of an open connection, taken while it certainly lives.
fn pidfd_of(pid: i32) -> Option<OwnedFd> {
    let pid = rustix::process::Pid::from_raw(pid)?;
    rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()
}
