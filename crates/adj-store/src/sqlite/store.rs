//! The face of the SQLite store.

use super::{
    books, logs,
    open::{Access, locate, open_for_reading, open_for_writing, prepare},
    readers::{Readers, blocking},
    records, requests,
    trouble::{Stop, classify},
    writer::{AfterCommit, Durable, Task, Work, Writer},
};
use crate::{
    blobs::Blobs,
    error::{AppendError, ClaimError, InsertError, OpenError, ReplaceError, StoreError},
    files::io_error,
    limits,
    nodes::Nodes,
    place::to_millis,
    records::{NewRecord, Record, RecordFilter, RecordKey, RecordPage, Records, Replacement},
    requests::{Remembered, RequestKey, Requests},
    store::{
        Batch, Claim, Clock, Expect, Fence, LogFilter, LogMeta, LogSummary, NodeId, OpenHold, Standing, Store,
        Submitted, system_clock,
    },
};
use adj_domain::{BlobHash, Event, LogId, PendingInput, PurseKey, Seq, Timestamp};
use async_trait::async_trait;
use rusqlite::Connection;
use std::{
    fmt,
    fs::OpenOptions,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};
use tokio::sync::{Semaphore, mpsc, oneshot};

/// Callers that may wait for the writer before the next one waits for a place in the line.
const WAITING: usize = 1_024;
/// Blobs written or read at once, each of them wholly in memory.
const BLOBS_AT_ONCE: usize = 4;

/// How a store behaves; the default is right outside of tests.
#[derive(Clone)]
pub struct SqliteOptions {
    pub clock: Clock,
    /// How long a write waits for other processes before it is refused as [`StoreError::Busy`].
    pub patience: Duration,
    /// How large the journal may grow; beyond it, writes are refused as [`StoreError::Full`].
    pub most_bytes: Option<u64>,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self { clock: system_clock(), patience: Duration::from_secs(10), most_bytes: None }
    }
}

impl fmt::Debug for SqliteOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteOptions")
            .field("patience", &self.patience)
            .field("most_bytes", &self.most_bytes)
            .finish_non_exhaustive()
    }
}

/// A store in `journal.db`, `nodes/` and `blobs/` of a state directory.
///
/// What returned `Ok` has been synced to the disk. Several processes may use one directory at once. Dropping the store
/// finishes what waits, and lets go of everything that its nodes hold.
pub struct SqliteStore {
    journal: PathBuf,
    clock: Clock,
    readers: Readers,
    nodes: Arc<Nodes>,
    blobs: Arc<Blobs>,
    blob_permits: Arc<Semaphore>,
    durable: Arc<Durable>,
    /// `None` in a store that was opened read-only.
    writer: Option<WriterHandle>,
}

struct WriterHandle {
    inbox: mpsc::Sender<Box<dyn Work>>,
    thread: JoinHandle<()>,
}

impl SqliteStore {
    /// Opens the store in `state_dir`, which is made when it is missing, as are the store's files.
    pub fn open(state_dir: &Path) -> Result<Self, OpenError> {
        Self::open_with(state_dir, SqliteOptions::default())
    }

    pub fn open_with(state_dir: &Path, options: SqliteOptions) -> Result<Self, OpenError> {
        let place = prepare(state_dir)?;
        let connection = open_for_writing(&place.journal, options.patience)?;
        if let Some(bytes) = options.most_bytes {
            limit_size(&connection, bytes).map_err(|error| classify("open", &place.journal, error))?;
        }
        let nodes = Arc::new(Nodes::new(&place.dir));
        nodes.make_dir()?;
        nodes.sweep();
        let blobs = Arc::new(Blobs::new(&place.dir));
        blobs.make_dirs()?;
        blobs.sweep();
        let turn_path = place.dir.join("turn.lock");
        let turn = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&turn_path)
            .map_err(|source| io_error("open the lock file", &turn_path, source))?;
        let durable = Arc::new(Durable::default());
        let (inbox, works) = mpsc::channel(WAITING);
        let writer = Writer {
            connection,
            path: place.journal.clone(),
            turn,
            patience: options.patience,
            durable: Arc::clone(&durable),
            stopped: None,
        };
        let thread = thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || writer.run(works))
            .map_err(|source| io_error("start the writer of", &place.journal, source))?;
        Ok(Self {
            readers: Readers::new(place.journal.clone(), Access::Read),
            journal: place.journal,
            clock: options.clock,
            nodes,
            blobs,
            blob_permits: Arc::new(Semaphore::new(BLOBS_AT_ONCE)),
            durable,
            writer: Some(WriterHandle { inbox, thread }),
        })
    }

    /// Opens an existing store without changing it, also from a disk that cannot be written. Whatever would write is
    /// refused as [`StoreError::ReadOnly`].
    pub fn open_read_only(state_dir: &Path) -> Result<Self, OpenError> {
        let place = locate(state_dir)?;
        let access = open_for_reading(&place.journal)?;
        Ok(Self {
            readers: Readers::new(place.journal.clone(), access),
            clock: system_clock(),
            nodes: Arc::new(Nodes::new(&place.dir)),
            blobs: Arc::new(Blobs::new(&place.dir)),
            blob_permits: Arc::new(Semaphore::new(BLOBS_AT_ONCE)),
            durable: Arc::default(),
            writer: None,
            journal: place.journal,
        })
    }

    /// Sets what is called after each durable write (a commit, a new blob) with its number, from 1, before its caller is
    /// answered: a test that kills the process there sees every state that a crash can leave behind.
    pub fn set_after_commit(&self, hook: AfterCommit) {
        self.durable.set(hook);
    }

    fn now(&self) -> Timestamp {
        to_millis((self.clock)())
    }

    fn read_only(&self) -> StoreError {
        StoreError::ReadOnly { path: self.journal.clone() }
    }

    fn ended(&self) -> StoreError {
        StoreError::Stopped { path: self.journal.clone(), cause: "its writer has ended".to_owned() }
    }

    /// Has the writer run `work` in its next commit.
    async fn write<T, E, F>(&self, bytes: usize, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        F: FnMut(&Connection) -> Result<T, Stop<E>> + Send + 'static,
    {
        let writer = self.writer.as_ref().ok_or_else(|| self.read_only())?;
        let (reply, answer) = oneshot::channel();
        let task = Task { path: self.journal.clone(), bytes, work, verdict: None, reply };
        writer.inbox.send(Box::new(task)).await.map_err(|_| self.ended())?;
        match answer.await {
            Ok(answer) => answer,
            Err(_) => Err(self.ended().into()),
        }
    }

    async fn with_blobs<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Blobs) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let blobs = Arc::clone(&self.blobs);
        let permit = Arc::clone(&self.blob_permits).acquire_owned().await;
        let joined = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            work(&blobs)
        });
        blocking(joined.await, &self.journal)
    }
}

fn limit_size(connection: &Connection, bytes: u64) -> rusqlite::Result<()> {
    let page: i64 = connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
    let pages = i64::try_from(bytes).unwrap_or(i64::MAX) / page.max(1);
    connection.pragma_update_and_check(None, "max_page_count", pages.max(1), |_| Ok(()))
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        self.readers.close_idle();
        if let Some(WriterHandle { inbox, thread }) = self.writer.take() {
            drop(inbox);
            // A writer that panicked has said so already.
            let _ = thread.join();
        }
        self.nodes.release_all();
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore")
            .field("journal", &self.journal)
            .field("read_only", &self.writer.is_none())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn create(&self, log: &LogId, meta: LogMeta) -> Result<bool, StoreError> {
        let labels = limits::check_meta(&meta)?;
        let (log, now) = (log.clone(), self.now());
        self.write(labels.len(), move |connection| logs::create(connection, &log, &meta, &labels, now)).await
    }

    async fn submit(&self, log: &LogId, input: &PendingInput) -> Result<Submitted, StoreError> {
        let body = limits::check_input(input)?;
        let (log, input) = (log.clone(), input.clone());
        self.write(body.len(), move |connection| logs::submit(connection, &log, &input, &body)).await
    }

    async fn pending(&self, log: &LogId) -> Result<Vec<PendingInput>, StoreError> {
        let log = log.clone();
        self.readers.run(move |connection| logs::pending(connection, &log)).await
    }

    async fn append(&self, fence: &Fence, expect: Expect, batch: Batch) -> Result<Vec<Event>, AppendError> {
        let (bodies, bytes) = limits::check_batch(fence.log(), &batch)?;
        let (fence, now) = (fence.clone(), self.now());
        self.write(bytes, move |connection| logs::append(connection, &fence, expect, &batch, &bodies, now)).await
    }

    async fn standing(&self, purses: &[PurseKey]) -> Result<Vec<Standing>, StoreError> {
        let purses = purses.to_vec();
        self.readers.run(move |connection| books::standing(connection, &purses)).await
    }

    async fn holds(&self, log: Option<&LogId>) -> Result<Vec<OpenHold>, StoreError> {
        let (nodes, log) = (Arc::clone(&self.nodes), log.cloned());
        self.readers.run(move |connection| books::holds(connection, &nodes, log.as_ref())).await
    }

    async fn read(&self, log: &LogId, after: Seq, limit: u32) -> Result<Vec<Event>, StoreError> {
        let log = log.clone();
        self.readers.run(move |connection| logs::read(connection, &log, after, limit)).await
    }

    async fn claim(&self, log: &LogId, node: &NodeId) -> Result<Claim, ClaimError> {
        if self.writer.is_none() {
            return Err(self.read_only().into());
        }
        let (nodes, name) = (Arc::clone(&self.nodes), node.clone());
        let holding = tokio::task::spawn_blocking(move || nodes.hold(&name));
        if !blocking(holding.await, &self.journal)? {
            return Err(ClaimError::NodeTaken { node: node.clone() });
        }
        let (nodes, log, node, now) = (Arc::clone(&self.nodes), log.clone(), node.clone(), self.now());
        self.write(0, move |connection| logs::claim(connection, &nodes, &log, &node, now)).await
    }

    async fn release(&self, fence: Fence) -> Result<(), StoreError> {
        self.write(0, move |connection| logs::release(connection, &fence)).await
    }

    async fn logs(&self, filter: &LogFilter) -> Result<Vec<LogSummary>, StoreError> {
        let (nodes, filter) = (Arc::clone(&self.nodes), filter.clone());
        self.readers.run(move |connection| logs::summaries(connection, &nodes, &filter)).await
    }

    async fn ready(&self, after: Option<&LogId>, limit: u32) -> Result<Vec<LogSummary>, StoreError> {
        let (nodes, after) = (Arc::clone(&self.nodes), after.cloned());
        self.readers.run(move |connection| logs::ready(connection, &nodes, after.as_ref(), limit)).await
    }

    async fn log(&self, log: &LogId) -> Result<Option<LogSummary>, StoreError> {
        let (nodes, log) = (Arc::clone(&self.nodes), log.clone());
        self.readers.run(move |connection| logs::summary(connection, &nodes, &log)).await
    }

    async fn put_blob(&self, bytes: &[u8]) -> Result<BlobHash, StoreError> {
        if self.writer.is_none() {
            return Err(self.read_only());
        }
        limits::within("a blob", bytes.len(), limits::BLOB_BYTES)?;
        let (bytes, durable) = (bytes.to_vec(), Arc::clone(&self.durable));
        self.with_blobs(move |blobs| {
            let (hash, is_new) = blobs.put(&bytes)?;
            if is_new {
                durable.happened();
            }
            Ok(hash)
        })
        .await
    }

    async fn get_blob(&self, hash: &BlobHash) -> Result<Option<Vec<u8>>, StoreError> {
        let hash = hash.clone();
        self.with_blobs(move |blobs| blobs.get(&hash)).await
    }

    fn records(&self) -> &dyn Records {
        self
    }

    fn requests(&self) -> &dyn Requests {
        self
    }
}

#[async_trait]
impl Records for SqliteStore {
    async fn insert(&self, new: NewRecord) -> Result<Record, InsertError> {
        limits::check_new_record(&new)?;
        let now = self.now();
        self.write(new.body.len(), move |connection| records::insert(connection, &new, now)).await
    }

    async fn get(&self, key: &RecordKey) -> Result<Option<Record>, StoreError> {
        let key = key.clone();
        self.readers.run(move |connection| records::get(connection, &key)).await
    }

    async fn get_version(&self, key: &RecordKey, version: u64) -> Result<Option<Record>, StoreError> {
        let key = key.clone();
        self.readers.run(move |connection| records::get_version(connection, &key, version)).await
    }

    async fn versions(&self, key: &RecordKey, before: Option<u64>, limit: u32) -> Result<RecordPage, StoreError> {
        let key = key.clone();
        self.readers.run(move |connection| records::versions(connection, &key, before, limit)).await
    }

    async fn replace(&self, change: Replacement) -> Result<Record, ReplaceError> {
        limits::check_replacement(&change)?;
        let now = self.now();
        self.write(change.body.len(), move |connection| records::replace(connection, &change, now)).await
    }

    async fn archive(&self, key: &RecordKey) -> Result<Option<Record>, StoreError> {
        let (key, now) = (key.clone(), self.now());
        self.write(0, move |connection| records::archive(connection, &key, now)).await
    }

    async fn delete(&self, key: &RecordKey) -> Result<bool, StoreError> {
        let key = key.clone();
        self.write(0, move |connection| records::delete(connection, &key)).await
    }

    async fn list(&self, filter: &RecordFilter) -> Result<RecordPage, StoreError> {
        let filter = filter.clone();
        self.readers.run(move |connection| records::list(connection, &filter)).await
    }
}

#[async_trait]
impl Requests for SqliteStore {
    async fn remember(&self, key: &RequestKey, hash: &BlobHash) -> Result<Remembered, StoreError> {
        limits::check_request(key)?;
        let (key, hash, now) = (key.clone(), hash.clone(), self.now());
        self.write(0, move |connection| requests::remember(connection, &key, &hash, now)).await
    }

    async fn answer(&self, key: &RequestKey, answer: &str) -> Result<bool, StoreError> {
        limits::within("an answer", answer.len(), limits::ANSWER_BYTES)?;
        let (key, answer, now) = (key.clone(), answer.to_owned(), self.now());
        self.write(answer.len(), move |connection| requests::answer(connection, &key, &answer, now)).await
    }

    async fn forget(&self, key: &RequestKey) -> Result<(), StoreError> {
        let key = key.clone();
        self.write(0, move |connection| requests::forget(connection, &key)).await
    }
}
