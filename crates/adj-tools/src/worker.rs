//! A toolbox at work inside a sandbox: requests and cancellations come in through a channel, answers go out.
//!
//! Calls run side by side, a thread each; commands queue one after another, in the order they came.

use crate::cancel::Cancel;
use crate::name::ToolName;
use crate::toolbox::{Caps, Toolbox, ToolboxPlan};
use adj_domain::{ToolOutcome, ToolRequest};
use adj_sandbox::{Frame, WorkerChannel};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

/// More would only wait for the same disk and processors.
const MOST_AT_ONCE: usize = 64;
const MOST_QUEUED: usize = 256;
/// Of one request in JSON; what the tools accept is smaller.
const MOST_REQUEST_BYTES: usize = 32 * 1024 * 1024;
const STACK_BYTES: usize = 2 * 1024 * 1024;
const SCRATCH: &str = "/tmp";

/// One call with all a worker must know; in JSON it is the body of a request frame. The reply is a [`ToolOutcome`] in JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerRequest {
    pub request: ToolRequest,
    /// The workspace, as the sandbox shows it; the same in every call to one worker.
    pub root: PathBuf,
    /// Characters the model is shown.
    pub keep_chars: usize,
    /// Bytes of a command's output that are kept at all.
    pub full_bytes: usize,
    pub default_timeout_ms: u64,
}

impl WorkerRequest {
    /// A request with the usual caps.
    pub fn new(request: ToolRequest, root: PathBuf) -> Self {
        let Caps { keep_chars, full_bytes, default_timeout_ms } = Caps::default();
        Self { request, root, keep_chars, full_bytes, default_timeout_ms }
    }

    fn caps(&self) -> Caps {
        Caps { keep_chars: self.keep_chars, full_bytes: self.full_bytes, default_timeout_ms: self.default_timeout_ms }
    }
}

/// Serves tool calls until the channel ends; for `adj_sandbox::dispatch_helper`.
pub fn worker(channel: WorkerChannel) -> i32 {
    // Orphans of commands come here instead of to pid 1, so that all of a command can be found and killed.
    let adopts_orphans = rustix::process::set_child_subreaper(Some(rustix::process::getpid())).is_ok();
    let (queue, queued) = sync_channel(MOST_QUEUED);
    let desk = Arc::new(Desk { channel, calls: Mutex::default(), toolbox: Mutex::default(), adopts_orphans });
    let for_commands = Arc::clone(&desk);
    let started = thread().name("commands".into()).spawn(move || serve_commands(&for_commands, &queued));
    let Ok(commands) = started else { return 1 };
    while let Some(frame) = desk.channel.recv() {
        match frame {
            Frame::Request { call, body } => take(&desk, &queue, call, &body),
            Frame::Cancel { call } => desk.cancel(call),
        }
    }
    desk.cancel_all();
    drop(queue);
    // The running command was cancelled above, so this ends.
    let _ = commands.join();
    desk.stop();
    0
}

/// What all threads of a worker share.
struct Desk {
    channel: WorkerChannel,
    calls: Mutex<HashMap<u64, Arc<Cancel>>>,
    toolbox: Mutex<Option<(PathBuf, Arc<Toolbox>)>>,
    adopts_orphans: bool,
}

struct Call {
    number: u64,
    request: WorkerRequest,
    toolbox: Arc<Toolbox>,
    cancel: Arc<Cancel>,
}

fn thread() -> std::thread::Builder {
    std::thread::Builder::new().stack_size(STACK_BYTES)
}

fn take(desk: &Arc<Desk>, queue: &SyncSender<Call>, number: u64, body: &[u8]) {
    let call = match desk.open_call(number, body) {
        Ok(call) => call,
        Err(message) => return desk.reply(number, &ToolOutcome::error(message)),
    };
    let refusal = if call.request.request.name == ToolName::Bash.as_str() {
        queue.try_send(call).err().map(|_| "too many commands are waiting; try again later".to_owned())
    } else {
        let desk = Arc::clone(desk);
        let started = thread().name("tool".into()).spawn(move || serve(&desk, &call));
        started.err().map(|error| format!("cannot start a thread for this call: {error}"))
    };
    if let Some(message) = refusal {
        desk.reply(number, &ToolOutcome::error(message));
    }
}

fn serve_commands(desk: &Desk, queued: &Receiver<Call>) {
    while let Ok(call) = queued.recv() {
        serve(desk, &call);
    }
}

fn serve(desk: &Desk, call: &Call) {
    let work = || call.toolbox.execute_with(&call.request.request, &call.request.caps(), &call.cancel);
    // Whatever goes wrong, the caller is waiting for an answer.
    let mut outcome = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        ToolOutcome::error("the tool failed through a fault of its own; this is not the fault of the call")
    });
    if outcome.is_error
        && let Some(reached) = desk.channel.reached(call.number)
    {
        // Whoever sees a program die without this would look for a bug in it.
        outcome.text.push_str(&format!("\n[processes were ended by the sandbox: {reached}]"));
    }
    desk.reply(call.number, &outcome);
}

impl Desk {
    fn open_call(&self, number: u64, body: &[u8]) -> Result<Call, String> {
        if body.len() > MOST_REQUEST_BYTES {
            return Err(format!("this call is too large: {} bytes of {MOST_REQUEST_BYTES}", body.len()));
        }
        let request: WorkerRequest =
            serde_json::from_slice(body).map_err(|error| format!("the worker cannot read this request: {error}"))?;
        let toolbox = self.toolbox(&request.root)?;
        let cancel = Cancel::open().map_err(|error| format!("cannot prepare this call: {error}"))?;
        let cancel = Arc::new(cancel);
        let mut calls = lock(&self.calls);
        if calls.len() >= MOST_QUEUED
            || (calls.len() >= MOST_AT_ONCE && request.request.name != ToolName::Bash.as_str())
        {
            return Err("too many calls at once; try again later".to_owned());
        }
        calls.insert(number, Arc::clone(&cancel));
        Ok(Call { number, request, toolbox, cancel })
    }

    fn toolbox(&self, root: &Path) -> Result<Arc<Toolbox>, String> {
        let mut kept = lock(&self.toolbox);
        if let Some((of, toolbox)) = kept.as_ref() {
            return if of == root {
                Ok(Arc::clone(toolbox))
            } else {
                Err(format!("this worker serves {}, not {}", of.display(), root.display()))
            };
        }
        let plan = ToolboxPlan {
            root: root.to_owned(),
            scratch: Path::new(SCRATCH).is_dir().then(|| SCRATCH.into()),
            // The sandbox made this environment for its commands.
            environment: std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
                .collect(),
            adopts_orphans: self.adopts_orphans,
        };
        let toolbox = Arc::new(Toolbox::open(plan).map_err(|error| {
            let cause = std::error::Error::source(&error).map_or(String::new(), |cause| format!(": {cause}"));
            format!("{error}{cause}")
        })?);
        *kept = Some((root.to_owned(), Arc::clone(&toolbox)));
        Ok(toolbox)
    }

    fn reply(&self, call: u64, outcome: &ToolOutcome) {
        lock(&self.calls).remove(&call);
        let body = serde_json::to_vec(outcome).unwrap_or_default();
        if self.channel.reply(call, body).is_err() {
            // Too long, or nobody is there; the second try is for the first case.
            let short = ToolOutcome::error("the answer of this call was too long to be delivered");
            let _ = self.channel.reply(call, serde_json::to_vec(&short).unwrap_or_default());
        }
    }

    fn cancel(&self, call: u64) {
        // A call that is over, or never came, needs no cancelling.
        if let Some(cancel) = lock(&self.calls).get(&call) {
            cancel.cancel();
        }
    }

    fn cancel_all(&self) {
        for cancel in lock(&self.calls).values() {
            cancel.cancel();
        }
    }

    fn stop(&self) {
        if let Some((_, toolbox)) = lock(&self.toolbox).take() {
            toolbox.stop();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
