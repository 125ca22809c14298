//! A folder to work in, a state folder, a store, and engines on them.

use crate::beyond::upstream;
use adj_domain::{
    AgentDefinition, ApprovalPolicy, BlobHash, Confinement, Content, Event, EventId, LogId, PendingInput, PurseKey,
    SandboxMode, Session, SessionEvent, SessionId, WorkspaceSpec, event::Input,
};
use adj_engine::{Engine, EngineError, Interrupt, Live, NewSession, Parts, ToolName, TurnEnd, Upstream};
use adj_gateway::{Catalogue, Gateway, RetryPolicy};
use adj_policy::{Layer, LayerKind, Policy, RuleFile};
use adj_providers::{Playbook, Scripted};
use adj_sandbox::{Launcher, Mount, Plan};
use adj_store::{
    AppendError, Batch, Claim, ClaimError, Expect, Fence, LogFilter, LogMeta, LogSummary, MemoryStore, NodeId,
    OpenHold, Records, Requests, Standing, Store, StoreError, Submitted,
};
use adj_vault::{KeySource, Keys, Vault};
use adj_workspace::Layout;
use async_trait::async_trait;
use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

pub struct World {
    pub home: tempfile::TempDir,
    pub memory: MemoryStore,
    pub id: SessionId,
    /// What the administrator says, for engines made from here on.
    pub policy: Policy,
    pub upstream: Upstream,
    /// Prices of the scripted vendor's models, for engines made from here on; without them they are free.
    pub prices: &'static str,
}

/// How long anything may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

impl World {
    pub fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join("work")).unwrap();
        fs::write(home.path().join("work/a.txt"), "alpha\n").unwrap();
        Self {
            home,
            memory: MemoryStore::new(),
            id: SessionId::derive(&["test"]),
            policy: Policy::built_in(),
            upstream: upstream(),
            prices: "",
        }
    }

    /// Another layer of policy, for engines made from here on.
    pub fn policy(&mut self, text: &str) {
        let layer = Layer::parse(LayerKind::Administrator, Path::new("requirements.toml"), text);
        self.policy = self.policy.with(layer.unwrap_or_else(|error| panic!("{error}")));
    }

    /// A file of rules beside an organisation's policy, for engines made from here on.
    pub fn rules(&mut self, text: &str) {
        let file = RuleFile::load(Path::new("test.rules"), text).unwrap_or_else(|error| panic!("{error}"));
        let mut layer = Layer::new(LayerKind::Organisation, adj_policy::Settings::default());
        layer.rule_files.push(Arc::new(file));
        self.policy = self.policy.with(layer);
    }

    /// Every engine so far is gone with its process, if nobody else holds it; whoever comes now is another process.
    pub fn next_process(&mut self) {
        self.memory = self.memory.another_process();
    }

    pub fn work_dir(&self) -> PathBuf {
        self.home.path().join("work")
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.work_dir().join(name)).unwrap_or_default()
    }

    pub fn state(&self) -> PathBuf {
        self.home.path().join("state")
    }

    /// The folder of the session's supervisor.
    pub fn supervisor(&self) -> PathBuf {
        self.state().join("sessions").join(self.id.as_str())
    }

    pub fn log(&self) -> LogId {
        self.id.clone().into()
    }

    /// An engine on the store in memory.
    pub fn engine(&self, rules: &str) -> Engine {
        self.engine_on(Arc::new(self.memory.clone()), "node_1", rules)
    }

    pub fn engine_on(&self, store: Arc<dyn Store>, node: &str, rules: &str) -> Engine {
        let playbook = Playbook::parse(&format!("rules:\n{rules}"), "test.yaml").unwrap_or_else(|e| panic!("{e}"));
        let scripted = Arc::new(Scripted::new(playbook));
        let prices = Catalogue::builtin().with(self.prices, "prices").unwrap_or_else(|e| panic!("{e}"));
        let retries = RetryPolicy { first_wait: Duration::from_millis(5), ..RetryPolicy::default() };
        let models = Gateway::new(retries).knowing(prices).with("scripted", scripted.clone()).with("nobody", scripted);
        let parts = Parts {
            store,
            models: Arc::new(models),
            launcher: Launcher::current_exe().unwrap(),
            layout: Layout::Overlay,
            state: self.state(),
            policy: self.policy.clone(),
            vault: tokio::sync::Mutex::new(empty_vault(&self.state())),
            home: None,
            node: node.parse::<NodeId>().unwrap(),
        };
        Engine::with_upstream(parts, self.upstream.clone())
    }

    pub fn new_session(&self) -> NewSession {
        NewSession {
            agent: AgentDefinition {
                tools: adj_engine::tool_specs(&ToolName::ALL),
                ..adj_engine::default_agent(&"scripted/test".parse().unwrap())
            },
            workspace: WorkspaceSpec::Direct { path: self.work_dir().to_str().unwrap().to_owned() },
            sandbox: SandboxMode::WorkspaceWrite,
            confinement: Confinement::default(),
            approval: ApprovalPolicy::OnRequest,
            check: None,
            budget: Default::default(),
            run: None,
            title: None,
        }
    }

    /// Makes the session, and queues a first message.
    pub async fn begin(&self, engine: &Engine) {
        engine.create(&self.id, self.new_session()).await.unwrap();
        self.say(engine, "go").await;
    }

    pub async fn say(&self, engine: &Engine, text: &str) {
        engine.send(&self.id, &message(text)).await.unwrap();
    }

    pub async fn work(&self, engine: &Engine) -> Result<TurnEnd, EngineError> {
        let interrupt = Interrupt::new();
        let working = engine.work(&self.id, &interrupt);
        tokio::time::timeout(PATIENCE, working).await.expect("the session comes to rest")
    }

    pub async fn events(&self, engine: &Engine) -> Vec<SessionEvent> {
        let events = engine.events(&self.log()).await.unwrap();
        events.iter().map(|event| event.session_event().unwrap()).collect()
    }

    /// The names of everything that happened, without the first event.
    pub async fn story(&self, engine: &Engine) -> String {
        self.events(engine).await.iter().skip(1).map(SessionEvent::name).collect::<Vec<_>>().join(" ")
    }

    pub async fn memory_holder(&self) -> Option<adj_store::Holder> {
        self.memory.log(&self.log()).await.unwrap().unwrap().holder
    }

    /// The texts of all tool results.
    pub async fn results(&self, engine: &Engine) -> Vec<String> {
        let events = self.events(engine).await;
        let results = events.iter().filter_map(|event| match event {
            SessionEvent::AgentToolResult { content, .. } => Some(Content::join_text(content)),
            _ => None,
        });
        results.collect()
    }

    /// Kills the session's supervisor as a lack of memory would, and waits until it is gone.
    pub async fn kill_supervisor(&self) {
        let dir = self.supervisor().canonicalize().unwrap();
        let entries = fs::read_dir("/proc").unwrap().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let mut ours = pids.filter(|pid| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == dir));
        let pid = rustix::process::Pid::from_raw(ours.next().expect("a living supervisor")).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        // Its folder is let go of before its lock is, so only its end says that both are.
        let gone = || match fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())) {
            Ok(stat) => stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['Z', 'X'])),
            Err(_) => true,
        };
        eventually(gone).await;
    }

    /// The session's supervisors and everything below them.
    pub fn processes(&self) -> Vec<i32> {
        let dir = self.supervisor().canonicalize().unwrap();
        let entries = fs::read_dir("/proc").unwrap().flatten();
        let mut all: Vec<(i32, i32)> = Vec::new();
        let mut found = Vec::new();
        for pid in entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok()) {
            // One that ends while we look is no longer there.
            let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
            let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
            all.extend(parent.map(|parent| (parent, pid)));
            if fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == dir) {
                found.push(pid);
            }
        }
        let mut index = 0;
        while let Some(parent) = found.get(index).copied() {
            let children = all.iter().filter(|(of, _)| *of == parent).map(|(_, pid)| *pid);
            let children: Vec<i32> = children.filter(|pid| !found.contains(pid)).collect();
            found.extend(children);
            index += 1;
        }
        found
    }

    /// The plan of the session's sandbox.
    pub fn plan(&self) -> Plan {
        let (host, inside) = (self.work_dir(), self.work_dir());
        let mut plan = adj_engine::work_plan(SandboxMode::WorkspaceWrite, None);
        plan.cwd = inside.clone();
        plan.workspace = Mount::Direct { host, inside };
        fs::create_dir_all(self.supervisor().parent().unwrap()).unwrap();
        plan
    }

    /// A process that works on the session and is dead as soon as this holds.
    pub async fn work_until_dead_when(&self, engine: &Engine, condition: impl FnMut() -> bool) {
        let (worker, id) = (engine.clone(), self.id.clone());
        let task = tokio::spawn(async move { worker.work(&id, &Interrupt::new()).await });
        eventually(condition).await;
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // A failed test shall leave nothing running.
        let sessions = self.state().join("sessions");
        let ending = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            for dir in fs::read_dir(sessions).into_iter().flatten().flatten() {
                let _ = runtime.block_on(adj_sandbox::stop(&dir.path()));
            }
        });
        let _ = ending.join();
    }
}

pub fn message(text: &str) -> PendingInput {
    let input = Input::Message { content: vec![Content::text(text)], output_schema: None };
    PendingInput { id: EventId::derive(&["message", text]), input }
}

pub async fn eventually(mut condition: impl FnMut() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("it happens");
}

/// Waits until an event of this kind is committed.
pub async fn next(live: &mut tokio::sync::broadcast::Receiver<Live>, kind: &str) {
    let waiting = async {
        loop {
            if let Live::Committed(event) = live.recv().await.unwrap()
                && event.kind == kind
            {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("{kind} happens"));
}

/// Folds events one by one, as a watcher would, and compares with a replay of each beginning.
pub fn check_folds(id: &SessionId, events: &[Event]) -> Session {
    let bodies: Vec<_> = events.iter().map(|event| (event.id.clone(), event.session_event().unwrap())).collect();
    let mut live: Option<Session> = None;
    for (index, (event_id, body)) in bodies.iter().enumerate() {
        match (&mut live, body) {
            (None, SessionEvent::Created { spec }) => live = Some(Session::created(id.clone(), (**spec).clone())),
            (Some(session), body) => session.apply(event_id, body).unwrap(),
            (None, _) => panic!("the first event is {}", body.name()),
        }
        assert_eq!(Session::replay(id, bodies[..=index].to_vec()).unwrap(), live);
    }
    live.unwrap()
}

/// What a store does instead of what it should.
pub enum Fault {
    /// Refuses the append with this number, from 1.
    FullAtAppend(u32),
    FullAtBlob,
    /// Writes the batch with an event of this kind and never answers: the process dies right after.
    DeadAfter(&'static str),
    /// Writes this many times, counting everything that is durable, and never answers the last: the process dies right after.
    DeadAfterWrites(u32),
    /// Writes the batch with an event of this kind, and takes its time.
    SlowAppend(&'static str, Duration),
    /// A message comes in at the last moment before the log is given back.
    MessageAtRelease(PendingInput),
}

/// A store with one fault, which happens once.
pub struct Faulty {
    inner: MemoryStore,
    fault: Mutex<Option<Fault>>,
    appends: Mutex<u32>,
    writes: Mutex<u32>,
}

impl Faulty {
    pub fn new(inner: &MemoryStore, fault: Fault) -> Arc<Self> {
        Arc::new(Self {
            inner: inner.clone(),
            fault: Mutex::new(Some(fault)),
            appends: Mutex::default(),
            writes: Mutex::default(),
        })
    }

    pub fn has_happened(&self) -> bool {
        self.fault.lock().unwrap().is_none()
    }

    fn take(&self, is_now: impl FnOnce(&Fault) -> bool) -> Option<Fault> {
        let mut fault = self.fault.lock().unwrap();
        if fault.as_ref().is_some_and(is_now) { fault.take() } else { None }
    }

    /// Counts what was written, and never comes back from the last write of a life.
    async fn written<T>(&self, done: T) -> T {
        let number = {
            let mut writes = self.writes.lock().unwrap();
            *writes += 1;
            *writes
        };
        if self.take(|fault| matches!(fault, Fault::DeadAfterWrites(last) if *last == number)).is_some() {
            std::future::pending::<()>().await;
        }
        done
    }

    fn full() -> StoreError {
        StoreError::Full { path: "/disk".into() }
    }
}

#[async_trait]
impl Store for Faulty {
    async fn create(&self, log: &LogId, meta: LogMeta) -> Result<bool, StoreError> {
        self.written(self.inner.create(log, meta).await).await
    }

    async fn submit(&self, log: &LogId, input: &PendingInput) -> Result<Submitted, StoreError> {
        self.written(self.inner.submit(log, input).await).await
    }

    async fn pending(&self, log: &LogId) -> Result<Vec<PendingInput>, StoreError> {
        self.inner.pending(log).await
    }

    async fn append(&self, fence: &Fence, expect: Expect, batch: Batch) -> Result<Vec<Event>, AppendError> {
        let number = {
            let mut appends = self.appends.lock().unwrap();
            *appends += 1;
            *appends
        };
        if self.take(|fault| matches!(fault, Fault::FullAtAppend(at) if *at == number)).is_some() {
            return Err(Self::full().into());
        }
        let kinds: Vec<String> = batch.events.iter().map(|event| event.kind.clone()).collect();
        let events = self.inner.append(fence, expect, batch).await;
        if self.take(|fault| matches!(fault, Fault::DeadAfter(last) if kinds.iter().any(|kind| kind == last))).is_some()
        {
            std::future::pending::<()>().await;
        }
        let is_slow =
            |fault: &Fault| matches!(fault, Fault::SlowAppend(kind, _) if kinds.iter().any(|other| other == kind));
        if let Some(Fault::SlowAppend(_, time)) = self.take(is_slow) {
            tokio::time::sleep(time).await;
        }
        self.written(events).await
    }

    async fn read(&self, log: &LogId, after: u64, limit: u32) -> Result<Vec<Event>, StoreError> {
        self.inner.read(log, after, limit).await
    }

    async fn claim(&self, log: &LogId, node: &NodeId) -> Result<Claim, ClaimError> {
        self.written(self.inner.claim(log, node).await).await
    }

    async fn standing(&self, purses: &[PurseKey]) -> Result<Vec<Standing>, StoreError> {
        self.inner.standing(purses).await
    }

    async fn holds(&self, log: Option<&LogId>) -> Result<Vec<OpenHold>, StoreError> {
        self.inner.holds(log).await
    }

    async fn release(&self, fence: Fence) -> Result<(), StoreError> {
        let fault = self.take(|fault| matches!(fault, Fault::MessageAtRelease(_)));
        if let Some(Fault::MessageAtRelease(input)) = fault {
            self.inner.submit(fence.log(), &input).await?;
        }
        self.written(self.inner.release(fence).await).await
    }

    async fn logs(&self, filter: &LogFilter) -> Result<Vec<LogSummary>, StoreError> {
        self.inner.logs(filter).await
    }

    async fn ready(&self, after: Option<&LogId>, limit: u32) -> Result<Vec<LogSummary>, StoreError> {
        self.inner.ready(after, limit).await
    }

    async fn log(&self, log: &LogId) -> Result<Option<LogSummary>, StoreError> {
        self.inner.log(log).await
    }

    async fn put_blob(&self, bytes: &[u8]) -> Result<BlobHash, StoreError> {
        if self.take(|fault| matches!(fault, Fault::FullAtBlob)).is_some() {
            return Err(Self::full());
        }
        self.written(self.inner.put_blob(bytes).await).await
    }

    async fn get_blob(&self, hash: &BlobHash) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.get_blob(hash).await
    }

    fn records(&self) -> &dyn Records {
        self.inner.records()
    }

    fn requests(&self) -> &dyn Requests {
        self.inner.requests()
    }
}

/// A process dies: its engine goes, and with it everything that it has begun.
pub async fn dies(engine: Engine, store: Arc<Faulty>) {
    let left = Arc::downgrade(&store);
    drop((engine, store));
    eventually(|| left.strong_count() == 0).await;
}

/// A vault that nobody has put anything into.
pub fn empty_vault(state: &Path) -> Vault {
    let folder = state.join("vault");
    let keys = Keys::new(KeySource::File, &folder, None);
    Vault::open(&folder, Arc::new(keys)).unwrap()
}
