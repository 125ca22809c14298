//! Starts helper processes of our own binary, and runs one command in one of them from start to end.
//!
//! Must not know: how the helper builds the sandbox.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::net::unix::pipe;

use crate::error::SetupError;
use crate::output::Kept;
use crate::plan::{Plan, PlanError};
use crate::wire::{HELPER_WORD, Job, Report, SharedTerminal, memory_file, receive_report_async, send_job, words};

/// How long a helper may need beyond the command's own time before it counts as lost.
const HELPER_GRACE: Duration = Duration::from_secs(30);

/// Starts sandboxes; cheap to clone.
#[derive(Debug, Clone)]
pub struct Launcher {
    exe: Arc<File>,
}

/// One command to run from start to end.
#[derive(Debug, Clone)]
pub struct Command {
    pub argv: Vec<OsString>,
    pub stdin: Vec<u8>,
    /// Standard error goes where standard output goes, in the order in which it was written.
    pub merge_stderr: bool,
    /// The plan's `limits.wall` holds as well.
    pub timeout: Duration,
    /// How much of each stream is kept: half of it from the start, half from the end.
    pub keep_output_bytes: usize,
}

impl Command {
    /// A command without input, with both streams apart, at most ten minutes long, keeping 1 MiB of each stream.
    pub fn new<S: Into<OsString>>(argv: impl IntoIterator<Item = S>) -> Command {
        Command {
            argv: argv.into_iter().map(Into::into).collect(),
            stdin: Vec::new(),
            merge_stderr: false,
            timeout: Duration::from_secs(600),
            keep_output_bytes: 1 << 20,
        }
    }
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Exit {
    Code(i32),
    Signal(i32),
    /// It took longer than its time; the whole tree was killed.
    TimedOut,
    /// It wrote more than `limits.output_bytes`; the whole tree was killed.
    OutputLimit,
    /// The tree held more than `limits.memory_bytes`; it was killed.
    MemoryLimit,
    /// The tree had more than `limits.processes`; it was killed.
    ProcessLimit,
    /// The tree used more processor time than `limits.cpu`; it was killed.
    CpuLimit,
    /// The workspace grew by more than `limits.disk_bytes`; the whole tree was killed.
    DiskLimit,
}

impl Exit {
    pub fn is_success(self) -> bool {
        self == Exit::Code(0)
    }
}

/// What is left of a command when nothing of it runs any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    pub exit: Exit,
    /// Head and tail with a marker between them when it was longer than asked for.
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    /// What was written in all.
    pub stdout_bytes: u64,
    pub stderr_bytes: u64,
    pub duration: Duration,
}

/// Why a command did not run, or its end is not known.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("the sandbox plan cannot be carried out")]
    Plan(#[from] PlanError),
    #[error("no command was given")]
    NoCommand,
    #[error("cannot start the sandbox helper")]
    Helper { source: io::Error },
    #[error(transparent)]
    Setup(#[from] SetupError),
    #[error("cannot start {} in the sandbox", program.display())]
    CannotStart { program: PathBuf, source: io::Error },
    #[error("the sandbox helper ended without an answer")]
    HelperLost,
}

/// A helper process and the socket to it.
pub(crate) struct Helper {
    pub child: tokio::process::Child,
    pub socket: UnixStream,
}

impl Launcher {
    /// The running binary, held open: a later upgrade on disk does not change what a helper is.
    ///
    /// That binary's `main` must call [`dispatch_helper`](crate::dispatch_helper) first.
    pub fn current_exe() -> io::Result<Launcher> {
        Ok(Launcher { exe: Arc::new(File::open("/proc/self/exe")?) })
    }

    /// Starts a helper with an empty environment and hands it its job.
    ///
    /// The standard library spawns it without copying this process, however large it is; so nothing may be run between fork and exec here.
    pub(crate) fn start_helper(&self, job: &Job, descriptors: &[BorrowedFd<'_>]) -> io::Result<Helper> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        send_job(&ours, job, descriptors)?;
        let child = tokio::process::Command::new(format!("/proc/self/fd/{}", self.exe.as_raw_fd()))
            .arg0("adjutant")
            .arg(HELPER_WORD)
            .env_clear()
            .current_dir("/")
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        ours.set_nonblocking(true)?;
        Ok(Helper { child, socket: UnixStream::from_std(ours)? })
    }

    /// Runs one command from start to end; afterwards nothing of it is left.
    ///
    /// It dies with this process, and when the returned future is dropped: the helper sees its socket close.
    pub async fn run(&self, plan: &Plan, command: &Command) -> Result<Finished, RunError> {
        // Without anybody behind it the door is closed again, and connections are refused.
        self.run_with_listener(plan, command, drop).await
    }

    /// The same for a plan with [`NetworkPlan::Proxy`](crate::NetworkPlan::Proxy): before the command starts, the listener that it
    /// can reach is handed to `on_listener`. It is non-blocking, and the last thing left of the sandbox's network.
    pub async fn run_with_listener(
        &self,
        plan: &Plan,
        command: &Command,
        on_listener: impl FnOnce(TcpListener) + Send,
    ) -> Result<Finished, RunError> {
        plan.check()?;
        if command.argv.is_empty() {
            return Err(RunError::NoCommand);
        }
        let began = Instant::now();
        let helper_error = |source| RunError::Helper { source };
        let timeout = command.timeout.min(plan.limits.wall);
        let terminal = SharedTerminal::No;
        let job = Job::Run { plan: plan.clone(), argv: command.argv.clone(), timeout, terminal };
        let stdin = memory_file(&command.stdin).map_err(helper_error)?;
        let (out_reader, out_writer) = pipe().map_err(helper_error)?;
        let (err_reader, err_writer) = if command.merge_stderr {
            (None, out_writer.try_clone().map_err(helper_error)?)
        } else {
            let (reader, writer) = pipe().map_err(helper_error)?;
            (Some(reader), writer)
        };
        let mut helper =
            self.start_helper(&job, &[stdin.as_fd(), out_writer.as_fd(), err_writer.as_fd()]).map_err(helper_error)?;
        drop((stdin, out_writer, err_writer));

        let mut stdout = Stream::new(Some(out_reader), command.keep_output_bytes).map_err(helper_error)?;
        let mut stderr = Stream::new(err_reader, command.keep_output_bytes).map_err(helper_error)?;
        let mut is_over_limit = false;
        let deadline = tokio::time::sleep(timeout.saturating_add(HELPER_GRACE));
        tokio::pin!(deadline);
        let mut on_listener = Some(on_listener);
        let report: io::Result<Report> = {
            let report = receive_report_async(&helper.socket);
            tokio::pin!(report);
            loop {
                // Above the limit nothing is read any more, so the pipes fill up and hold the command until it is dead.
                tokio::select! {
                    received = &mut report => match received {
                        Ok((Report::Listener, Some(listener))) => {
                            if let Some(take) = on_listener.take() {
                                take(TcpListener::from(listener));
                            }
                            report.set(receive_report_async(&helper.socket));
                        }
                        received => break received.map(|(report, _)| report),
                    },
                    () = &mut deadline => return Err(RunError::HelperLost),
                    () = stdout.read(), if !is_over_limit => {}
                    () = stderr.read(), if !is_over_limit => {}
                }
                if !is_over_limit && stdout.kept.total() + stderr.kept.total() > plan.limits.output_bytes {
                    is_over_limit = true;
                    // A helper that is gone already needs no word, and the only one ever sent finds room.
                    let _ = helper.socket.try_write(&[words::TOO_MUCH]);
                }
            }
        };
        // Everything that could write is dead, so what is in the pipes now is all there will ever be.
        stdout.drain();
        stderr.drain();
        // The helper has said its last word; waiting only takes its entry off the process table.
        let _ = tokio::time::timeout(HELPER_GRACE, helper.child.wait()).await;
        match report.map_err(|_| RunError::HelperLost)? {
            Report::Finished { exit } => Ok(Finished {
                exit: if is_over_limit { Exit::OutputLimit } else { exit },
                stdout_bytes: stdout.kept.total(),
                stderr_bytes: stderr.kept.total(),
                stdout: stdout.kept.finish(),
                stderr: stderr.kept.finish(),
                duration: began.elapsed(),
            }),
            Report::Setup(failure) => Err(RunError::Setup(failure.into())),
            Report::CannotStart { errno } => Err(RunError::CannotStart {
                program: command.argv[0].clone().into(),
                source: io::Error::from_raw_os_error(errno),
            }),
            Report::Stopped { .. } | Report::Listener | Report::Ready | Report::Busy => Err(RunError::HelperLost),
        }
    }
}

fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?)
}

/// One of the two outputs.
struct Stream {
    reader: Option<pipe::Receiver>,
    kept: Kept,
    buffer: Vec<u8>,
}

impl Stream {
    fn new(reader: Option<OwnedFd>, keep: usize) -> io::Result<Stream> {
        let reader = reader.map(pipe::Receiver::from_owned_fd).transpose()?;
        let buffer = vec![0; if reader.is_some() { 16 << 10 } else { 0 }];
        Ok(Stream { reader, kept: Kept::new(keep), buffer })
    }

    /// Waits for the next bytes; never comes back once the stream has ended.
    async fn read(&mut self) {
        let Some(reader) = &mut self.reader else {
            return std::future::pending().await;
        };
        match reader.read(&mut self.buffer).await {
            Ok(0) | Err(_) => self.reader = None,
            Ok(count) => self.kept.push(&self.buffer[..count]),
        }
    }

    /// Takes what is there without waiting.
    fn drain(&mut self) {
        let Some(reader) = self.reader.take() else { return };
        // Bounded, because without a sandbox a process that escaped its end may still be writing.
        for _ in 0..128 {
            let Ok(count @ 1..) = rustix::io::read(&reader, &mut *self.buffer) else {
                return;
            };
            self.kept.push(&self.buffer[..count]);
        }
    }
}
