//! The one thread that writes: it commits together whatever waits at that moment.
//!
//! A pool of writing connections would starve on SQLite's lock (stalls of seconds); one thread and one sync for everybody
//! who waits makes the disk nearly irrelevant.

use super::trouble::{Stop, classify, is_busy, is_fatal};
use crate::{error::StoreError, files::io_error};
use rusqlite::Connection;
use std::{
    error::Error,
    fs::{File, TryLockError},
    path::PathBuf,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, oneshot};

/// The most that one commit holds.
const GROUP_WORKS: usize = 512;
const GROUP_BYTES: usize = 32 << 20;

/// Called after each durable write of this process with its number, before the caller is answered.
pub type AfterCommit = Box<dyn Fn(u64) + Send + Sync>;

/// Counts durable writes, and lets a test stop the process after any one of them.
#[derive(Default)]
pub(crate) struct Durable {
    count: AtomicU64,
    hook: RwLock<Option<Arc<AfterCommit>>>,
}

impl Durable {
    pub(crate) fn set(&self, hook: AfterCommit) {
        *self.hook.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(hook));
    }

    pub(crate) fn happened(&self) {
        let number = self.count.fetch_add(1, Ordering::SeqCst) + 1;
        let hook = self.hook.read().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(hook) = hook {
            hook(number);
        }
    }
}

/// Work that waits for a commit. It may run more than once; only the last run counts.
pub(crate) trait Work: Send {
    /// Returns whether what it wrote shall stay. `Err` is a failure of the database, and of the whole group.
    fn run(&mut self, connection: &Connection) -> rusqlite::Result<bool>;
    /// Tells the caller: the verdict of the run, or why there was no commit.
    fn answer(self: Box<Self>, failure: Option<StoreError>);
    fn bytes(&self) -> usize;
}

/// A function with a caller who waits for it.
pub(crate) struct Task<F, T, E> {
    pub path: PathBuf,
    pub bytes: usize,
    pub work: F,
    pub verdict: Option<Result<T, E>>,
    pub reply: oneshot::Sender<Result<T, E>>,
}

impl<F, T, E> Work for Task<F, T, E>
where
    F: FnMut(&Connection) -> Result<T, Stop<E>> + Send,
    T: Send,
    E: From<StoreError> + Send,
{
    fn run(&mut self, connection: &Connection) -> rusqlite::Result<bool> {
        let verdict = match (self.work)(connection) {
            Err(Stop::Failed(error)) => return Err(error),
            Err(stop) => Err(stop.into_error("write to", &self.path)),
            Ok(value) => Ok(value),
        };
        let stays = verdict.is_ok();
        self.verdict = Some(verdict);
        Ok(stays)
    }

    fn answer(self: Box<Self>, failure: Option<StoreError>) {
        let answer = match failure {
            Some(error) => Err(error.into()),
            None => self.verdict.expect("work that was committed has run"),
        };
        // The caller may have stopped waiting; what was written stays written.
        let _ = self.reply.send(answer);
    }

    fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Why a group was not committed.
struct Failure {
    error: StoreError,
    is_fatal: bool,
}

pub(crate) struct Writer {
    pub connection: Connection,
    pub path: PathBuf,
    /// Held by the process whose turn it is next, so that a busy process cannot keep the others out.
    pub turn: File,
    pub patience: Duration,
    pub durable: Arc<Durable>,
    /// Set by the failure after which nothing more is written.
    pub stopped: Option<String>,
}

impl Writer {
    /// Writes until the last sender is gone, and everything that was sent is answered.
    pub(crate) fn run(mut self, mut inbox: mpsc::Receiver<Box<dyn Work>>) {
        while let Some(first) = inbox.blocking_recv() {
            let mut bytes = first.bytes();
            let mut group = vec![first];
            while group.len() < GROUP_WORKS
                && bytes < GROUP_BYTES
                && let Ok(next) = inbox.try_recv()
            {
                bytes += next.bytes();
                group.push(next);
            }
            self.serve(group);
        }
    }

    fn serve(&mut self, mut group: Vec<Box<dyn Work>>) {
        if let Some(cause) = &self.stopped {
            let error = StoreError::Stopped { path: self.path.clone(), cause: cause.clone() };
            return answer_all(group, Some(&error));
        }
        match self.commit(&mut group) {
            Ok(()) => answer_all(group, None),
            // What is too large for the space that is left shall not take the small ones with it.
            Err(Failure { error: StoreError::Full { .. }, is_fatal: false }) if group.len() > 1 => {
                for work in group {
                    self.serve(vec![work]);
                }
            }
            Err(Failure { error, is_fatal }) => {
                if is_fatal {
                    tracing::error!(path = %self.path.display(), %error, "the journal takes no more writes");
                    self.stopped = Some(with_source(&error));
                }
                answer_all(group, Some(&error));
            }
        }
    }

    fn commit(&mut self, group: &mut [Box<dyn Work>]) -> Result<(), Failure> {
        self.begin()?;
        match self.run_group(group) {
            Ok(true) => {
                self.durable.happened();
                Ok(())
            }
            Ok(false) => Ok(()),
            Err(error) => {
                let is_fatal = is_fatal(&error) || self.roll_back().is_err();
                Err(Failure { error: classify("write to", &self.path, error), is_fatal })
            }
        }
    }

    /// Runs the works, each behind its own savepoint, and commits; returns whether there was anything to commit.
    fn run_group(&self, group: &mut [Box<dyn Work>]) -> rusqlite::Result<bool> {
        let mut wrote = false;
        for work in group {
            let before = self.connection.total_changes();
            self.execute("SAVEPOINT work")?;
            if work.run(&self.connection)? {
                wrote |= self.connection.total_changes() > before;
            } else {
                self.execute("ROLLBACK TO work")?;
            }
            self.execute("RELEASE work")?;
        }
        self.execute(if wrote { "COMMIT" } else { "ROLLBACK" })?;
        Ok(wrote)
    }

    fn execute(&self, sql: &str) -> rusqlite::Result<()> {
        self.connection.prepare_cached(sql)?.execute([]).map(|_| ())
    }

    /// A full disk rolls back by itself; everything else is rolled back here.
    fn roll_back(&self) -> rusqlite::Result<()> {
        if self.connection.is_autocommit() {
            return Ok(());
        }
        self.connection.execute_batch("ROLLBACK")
    }

    /// Opens a transaction, after whoever asked before us. The two locks make processes alternate: the one that has just
    /// committed finds the turn taken by the one that waits.
    fn begin(&self) -> Result<(), Failure> {
        let mut wait = Wait::new(self.patience);
        loop {
            match self.turn.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) => self.or_busy(&mut wait)?,
                Err(TryLockError::Error(source)) => {
                    return Err(Failure { error: io_error("lock", &self.path, source), is_fatal: false });
                }
            }
        }
        let begun = loop {
            match self.execute("BEGIN IMMEDIATE") {
                Ok(()) => break Ok(()),
                Err(error) if is_busy(&error) => {
                    if let Err(failure) = self.or_busy(&mut wait) {
                        break Err(failure);
                    }
                }
                Err(error) => {
                    break Err(Failure { is_fatal: is_fatal(&error), error: classify("write to", &self.path, error) });
                }
            }
        };
        // Unlocking our own lock cannot fail in a way that we could mend; the next try would show it.
        let _ = self.turn.unlock();
        begun
    }

    fn or_busy(&self, wait: &mut Wait) -> Result<(), Failure> {
        wait.pause()
            .map_err(|waited| Failure { error: StoreError::Busy { path: self.path.clone(), waited }, is_fatal: false })
    }
}

fn with_source(error: &StoreError) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn answer_all(group: Vec<Box<dyn Work>>, failure: Option<&StoreError>) {
    for work in group {
        work.answer(failure.cloned());
    }
}

/// Short pauses that grow a little, until patience ends.
pub(crate) struct Wait {
    started: Instant,
    patience: Duration,
    next: Duration,
}

impl Wait {
    const LONGEST: Duration = Duration::from_millis(2);

    pub(crate) fn new(patience: Duration) -> Self {
        Self { started: Instant::now(), patience, next: Duration::from_micros(100) }
    }

    /// Sleeps a little, or returns how long we have waited when that is enough.
    pub(crate) fn pause(&mut self) -> Result<(), Duration> {
        let waited = self.started.elapsed();
        if waited >= self.patience {
            return Err(waited);
        }
        thread::sleep(self.next);
        self.next = (self.next * 3 / 2).min(Self::LONGEST);
        Ok(())
    }
}
