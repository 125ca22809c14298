//! The engine's face: make a session, send to it, let it work, look at it, close it.

use crate::{
    answers::AnswerError,
    context,
    drive::{self, TurnEnd},
    guard::GuardError,
    live::{Bells, Interrupt, Live},
    state::state_after,
    toolbox::{Toolbox, ToolboxError},
    watch::{Watch, Watchers},
};
use adj_domain::{
    AgentDefinition, ApprovalPolicy, Budget, Confinement, Event, EventId, IdleReason, LogId, ModelRef, NewEvent,
    PendingInput, Refusal, RunId, SandboxMode, Session, SessionEvent, SessionId, SessionSpec, StepId, WorkspaceSpec,
    event::{BodyError, EventBody},
    session::IllegalEvent,
};
use adj_egress::{Egress, Resolve, StartEgressError, SystemResolver};
use adj_gateway::ModelCaller;
use adj_harness::{EnvironmentFacts, assemble};
use adj_policy::Policy;
use adj_sandbox::Launcher;
use adj_store::{AppendError, Batch, ClaimError, Expect, LogMeta, NodeId, Store, StoreError};
use adj_vault::Vault;
use adj_workspace::{
    Layout, OpenRepositoryError, OpenWorkspacesError, ParseNameError, ParseObjectIdError, PrepareError, Workspaces,
};
use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::sync::{Mutex, OnceCell, broadcast};

/// Why the engine could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("there is no session {0}")]
    NoSession(SessionId),
    #[error("the agent of the session {0} is our own loop, and no other program")]
    NotHosted(SessionId),
    #[error("the agent of the session {0} is another program, and not our own loop")]
    IsHosted(SessionId),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cannot write to {log}")]
    Append { log: LogId, source: AppendError },
    #[error("cannot take over {log}")]
    Claim { log: LogId, source: ClaimError },
    #[error("a stored commit is not one")]
    Commit(#[from] ParseObjectIdError),
    #[error("a stored name is not one")]
    Name(#[from] ParseNameError),
    #[error("the log cannot be read back")]
    Body(#[from] BodyError),
    #[error("the log is not a legal history")]
    Illegal(#[from] IllegalEvent),
    #[error("cannot open the folder for workspaces")]
    Workspaces(#[from] OpenWorkspacesError),
    #[error("cannot open the repository")]
    Repository(#[from] OpenRepositoryError),
    #[error("cannot prepare the workspace")]
    Prepare(#[from] PrepareError),
    #[error("cannot prepare the sandbox")]
    Toolbox(#[from] ToolboxError),
    #[error(transparent)]
    Guard(#[from] GuardError),
    #[error("cannot look at the workspace that an approval is to be bound to")]
    Bind { source: std::io::Error },
    #[error(transparent)]
    Answer(#[from] AnswerError),
}

/// What an engine is made of.
pub struct Parts {
    pub store: Arc<dyn Store>,
    pub models: Arc<dyn ModelCaller>,
    pub launcher: Launcher,
    /// How private workspaces are kept apart.
    pub layout: Layout,
    /// The folder for workspaces, supervisors and their spools.
    pub state: PathBuf,
    /// What the administrator and the organisation allow.
    pub policy: Policy,
    pub vault: Mutex<Vault>,
    /// The user's home, for the toolchains in it.
    pub home: Option<PathBuf>,
    pub node: NodeId,
}

/// What lies beyond the doors of sandboxes: who knows the addresses of names, and whose certificates are believed.
#[derive(Clone)]
pub struct Upstream {
    pub resolver: Arc<dyn Resolve>,
    /// Certificates in PEM that are trusted beside the public ones, outside and inside: a company's own authority.
    pub extra_roots: String,
}

impl Upstream {
    /// Looks whether a text is what [`extra_roots`](Self::extra_roots) may be; with another one no door would open.
    pub fn check_roots(pem: &str) -> Result<(), StartEgressError> {
        Egress::check_roots(pem)
    }
}

impl Default for Upstream {
    fn default() -> Self {
        Self { resolver: Arc::new(SystemResolver), extra_roots: String::new() }
    }
}

/// Hosts sessions. Clones are the same engine.
#[derive(Clone)]
pub struct Engine(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) parts: Parts,
    pub(crate) upstream: Upstream,
    live: broadcast::Sender<Live>,
    watchers: Arc<Watchers>,
    /// Held while somebody in this process writes to the log of grants.
    pub(crate) giving: Mutex<()>,
    /// Rung when something was queued in this process.
    pub(crate) bells: Bells,
    pub(crate) workspaces: OnceCell<Arc<Workspaces>>,
    toolboxes: Mutex<HashMap<SessionId, Arc<Toolbox>>>,
    /// One for each session that was worked on here, held while somebody works on it.
    doors: Mutex<HashMap<SessionId, Arc<Mutex<()>>>>,
}

/// Whether a sandbox here can lay a private layer over a shared tree; an error shows up with the first command anyway.
async fn has_overlay(launcher: &Launcher, state: &Path) -> bool {
    match launcher.probe(state).await {
        Ok(found) => {
            if let Some(missing) = &found.overlay_missing {
                tracing::warn!(missing, "agents get copies of the tree instead of layers over it");
            }
            found.overlay_missing.is_none()
        }
        Err(error) => {
            tracing::warn!(%error, "cannot find out what sandboxes can do here");
            true
        }
    }
}

impl Inner {
    /// Opened at the first need: a session on the user's own folder has none.
    pub(crate) async fn workspaces(&self) -> Result<Arc<Workspaces>, OpenWorkspacesError> {
        let open = || async {
            let Parts { state, launcher, layout, .. } = &self.parts;
            let layout = match layout {
                Layout::Overlay if !has_overlay(launcher, state).await => Layout::Copy,
                layout => *layout,
            };
            Workspaces::open(state, launcher.clone(), layout).await.map(Arc::new)
        };
        self.workspaces.get_or_try_init(open).await.cloned()
    }
}

impl std::fmt::Debug for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upstream").field("extra_roots", &self.extra_roots).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("state", &self.state).field("node", &self.node).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Engine").field(&self.0.parts).finish()
    }
}

/// What a session is to be; the engine adds what the workspace says.
#[derive(Debug, Clone)]
pub struct NewSession {
    pub agent: AgentDefinition,
    pub workspace: WorkspaceSpec,
    pub sandbox: SandboxMode,
    pub confinement: Confinement,
    pub approval: ApprovalPolicy,
    /// The command its result will be judged by, for the prompt.
    pub check: Option<String>,
    /// What it may spend.
    pub budget: Budget,
    pub run: Option<(RunId, StepId)>,
    pub title: Option<String>,
}

/// Live events that a slow watcher may fall behind before it misses some.
const LIVE_BUFFER: usize = 4096;
/// Characters of a title in a list of sessions; agents may have chosen it.
const TITLE_CHARS: usize = 200;
/// Events read from the store at a time.
const PAGE: u32 = 1000;

impl Engine {
    pub fn new(parts: Parts) -> Self {
        Self::with_upstream(parts, Upstream::default())
    }

    /// An engine whose sandboxes look at the network with other eyes than the machine's.
    pub fn with_upstream(parts: Parts, upstream: Upstream) -> Self {
        let (live, _) = broadcast::channel(LIVE_BUFFER);
        Self(Arc::new(Inner {
            parts,
            upstream,
            live,
            watchers: Arc::default(),
            giving: Mutex::default(),
            bells: Bells::default(),
            workspaces: OnceCell::new(),
            toolboxes: Mutex::default(),
            doors: Mutex::default(),
        }))
    }

    pub fn store(&self) -> &Arc<dyn Store> {
        &self.0.parts.store
    }

    pub async fn workspaces(&self) -> Result<Arc<Workspaces>, EngineError> {
        Ok(self.0.workspaces().await?)
    }

    pub fn home(&self) -> Option<&Path> {
        self.0.parts.home.as_deref()
    }

    pub fn launcher(&self) -> &Launcher {
        &self.0.parts.launcher
    }

    pub fn node(&self) -> &NodeId {
        &self.0.parts.node
    }

    /// Watches everything that happens here. Who falls behind misses some of it.
    pub fn subscribe(&self) -> broadcast::Receiver<Live> {
        self.0.live.subscribe()
    }

    /// Watches one session from now on.
    pub fn watch(&self, id: &SessionId) -> Watch {
        self.0.watchers.watch(id)
    }

    pub(crate) fn tell(&self, live: Live) {
        self.0.watchers.tell(&live);
        // Nobody watching is fine.
        let _ = self.0.live.send(live);
    }

    /// Tells watchers of an event that somebody else committed to this engine's store.
    pub fn announce(&self, event: &Event) {
        self.tell(Live::Committed(Box::new(event.clone())));
    }

    /// Makes a session with an id of the caller's choice. A session that exists already is left as it is.
    pub async fn create(&self, id: &SessionId, new: NewSession) -> Result<(), EngineError> {
        if self.store().log(&LogId::from(id.clone())).await?.is_some_and(|log| log.head > 0) {
            return Ok(());
        }
        let (inside, root) = self.places(&new.workspace).await?;
        let facts = EnvironmentFacts {
            workspace: inside.display().to_string(),
            sandbox: new.sandbox,
            platform: format!("{} {}", platform_name(), std::env::consts::ARCH),
            check: new.check,
        };
        let instructions = tokio::task::spawn_blocking(move || context::gather(&root)).await.unwrap_or_default();
        let spec = SessionSpec {
            system: assemble(&new.agent.role, &facts, &instructions),
            agent: new.agent,
            workspace: new.workspace,
            sandbox: new.sandbox,
            confinement: new.confinement,
            approval: new.approval,
            budget: new.budget,
            run: new.run,
            title: new.title,
            program: None,
        };
        self.create_as(id, spec).await
    }

    /// Makes a session that starts from this, unless it exists already.
    pub(crate) async fn create_as(&self, id: &SessionId, spec: SessionSpec) -> Result<(), EngineError> {
        let log = LogId::from(id.clone());
        let parent = spec.run.as_ref().map(|(run, _)| LogId::from(run.clone()));
        let title = spec.title.as_deref().unwrap_or(&spec.agent.name).chars();
        let title = title.filter(|character| !character.is_control()).take(TITLE_CHARS).collect();
        self.store().create(&log, LogMeta { title, parent, ..LogMeta::default() }).await?;
        let claim = self.claim(&log).await?;
        let ledger = spec.budget.of_session(id);
        let session = Session::created(id.clone(), spec.clone());
        let event = SessionEvent::Created { spec: Box::new(spec) };
        let state = state_after(&session, [&event]);
        let new = event.into_new(EventId::derive(&[id.as_str(), "1"]));
        // Another process may have been faster; then its event stands.
        let appended = match claim.head {
            0 => self.append_batch(&claim.fence, 0, Batch { ledger, state, ..Batch::events(vec![new]) }).await,
            _ => Ok(()),
        };
        let released = self.store().release(claim.fence).await;
        appended?;
        Ok(released?)
    }

    /// Where the workspace is for the agent, and a folder on the host that shows the tree it starts from.
    pub(crate) async fn places(&self, workspace: &WorkspaceSpec) -> Result<(PathBuf, PathBuf), EngineError> {
        match workspace {
            WorkspaceSpec::Direct { path } => Ok((PathBuf::from(path), PathBuf::from(path))),
            WorkspaceSpec::Private { repository, commit, name } => {
                let workspaces = self.workspaces().await?;
                let repository = workspaces.repository(Path::new(repository)).await?;
                let workspace = workspaces.prepare(&repository, &commit.parse()?, &name.parse()?).await?;
                Ok((workspace.inside().to_owned(), workspace.base_tree().to_owned()))
            }
        }
    }

    /// Queues a message. Once it returns, the message is safe; the same id is taken up once.
    pub async fn send(&self, id: &SessionId, input: &PendingInput) -> Result<(), EngineError> {
        self.store().submit(&LogId::from(id.clone()), input).await?;
        self.0.bells.of(id).notify_waiters();
        Ok(())
    }

    /// Fails if another living process holds the session.
    pub async fn check_free(&self, id: &SessionId) -> Result<(), EngineError> {
        // A claim takes the session from whoever in this process works on it.
        let door = self.door(id).await;
        let _alone = door.lock().await;
        let claim = self.claim(&LogId::from(id.clone())).await?;
        Ok(self.store().release(claim.fence).await?)
    }

    /// Lets a session work until it is idle and nothing waits for it.
    pub async fn work(&self, id: &SessionId, interrupt: &Interrupt) -> Result<TurnEnd, EngineError> {
        drive::work(self, id, interrupt).await
    }

    /// Like [`work`](Engine::work), and where people are asked waits for them, until they answer, their time is over, or the
    /// wish to stop comes.
    pub async fn work_with_people(&self, id: &SessionId, interrupt: &Interrupt) -> Result<TurnEnd, EngineError> {
        loop {
            let end = self.work(id, interrupt).await?;
            if !matches!(end.reason, Some(IdleReason::RequiresAction { .. })) || interrupt.is_asked() {
                return Ok(end);
            }
            tokio::select! {
                answered = self.wait_for_answer(id) => answered?,
                () = interrupt.asked() => return Ok(end),
            }
        }
    }

    /// Reads and folds a session's log.
    pub async fn session(&self, id: &SessionId) -> Result<Session, EngineError> {
        let mut events = Vec::new();
        for event in self.events(&LogId::from(id.clone())).await? {
            events.push((event.id.clone(), event.session_event()?));
        }
        Session::replay(id, events)?.ok_or_else(|| EngineError::NoSession(id.clone()))
    }

    /// Returns the newest error of a session, in words.
    pub async fn last_error(&self, id: &SessionId) -> Result<Option<String>, EngineError> {
        let mut last = None;
        for event in self.events(&LogId::from(id.clone())).await? {
            if let SessionEvent::Error { message, .. } = event.session_event()? {
                last = Some(message);
            }
        }
        Ok(last)
    }

    /// Returns why a budget last let a session send nothing.
    pub async fn last_refusal(&self, id: &SessionId) -> Result<Option<Refusal>, EngineError> {
        let mut last = None;
        for event in self.events(&LogId::from(id.clone())).await? {
            if let SessionEvent::BudgetReached { refusal } = event.session_event()? {
                last = Some(refusal);
            }
        }
        Ok(last)
    }

    /// Reads a whole log.
    pub async fn events(&self, log: &LogId) -> Result<Vec<Event>, EngineError> {
        let mut events: Vec<Event> = Vec::new();
        loop {
            let after = events.last().map_or(0, |event| event.seq);
            let page = self.store().read(log, after, PAGE).await?;
            if page.is_empty() {
                return Ok(events);
            }
            events.extend(page);
        }
    }

    /// Ends every sandbox that this engine has opened; one that cannot be ended does not spare the others.
    pub async fn close_all(&self) -> Result<(), EngineError> {
        let toolboxes: Vec<_> = self.0.toolboxes.lock().await.drain().collect();
        let mut closed = Ok(());
        for (_, toolbox) in toolboxes {
            closed = closed.and(toolbox.close().await);
        }
        Ok(closed?)
    }

    /// Ends the sandbox of a session with everything that runs in it. The session itself can be taken up again.
    pub async fn close(&self, id: &SessionId) -> Result<(), EngineError> {
        let toolbox = self.0.toolboxes.lock().await.remove(id);
        match toolbox {
            Some(toolbox) => toolbox.close().await?,
            None => Toolbox::close_left_over(&self.0.parts, id).await?,
        }
        Ok(())
    }

    pub(crate) async fn door(&self, id: &SessionId) -> Arc<Mutex<()>> {
        Arc::clone(self.0.doors.lock().await.entry(id.clone()).or_default())
    }

    pub(crate) async fn toolbox(&self, session: &Session) -> Arc<Toolbox> {
        let mut toolboxes = self.0.toolboxes.lock().await;
        let toolbox = toolboxes
            .entry(session.id.clone())
            .or_insert_with(|| Arc::new(Toolbox::new(&self.0.parts, &session.id, &session.spec)));
        Arc::clone(toolbox)
    }

    /// Takes a log, a session's or a run's, for this engine's process.
    pub async fn claim(&self, log: &LogId) -> Result<adj_store::Claim, EngineError> {
        let claimed = self.store().claim(log, self.node()).await;
        claimed.map_err(|source| EngineError::Claim { log: log.clone(), source })
    }

    /// Appends on top of `head` and tells watchers.
    pub async fn append(
        &self,
        fence: &adj_store::Fence,
        head: u64,
        events: Vec<NewEvent>,
        takes: Vec<EventId>,
    ) -> Result<(), EngineError> {
        self.append_batch(fence, head, Batch { events, takes, ..Batch::default() }).await
    }

    /// The same, with what changes in the books.
    pub async fn append_batch(&self, fence: &adj_store::Fence, head: u64, batch: Batch) -> Result<(), EngineError> {
        let appended = self.store().append(fence, Expect::Head(head), batch).await;
        let events = appended.map_err(|source| EngineError::Append { log: fence.log().clone(), source })?;
        for event in &events {
            self.announce(event);
        }
        Ok(())
    }
}

/// An agent with the built-in limits and no tools.
pub fn default_agent(model: &ModelRef) -> AgentDefinition {
    AgentDefinition {
        name: "agent".to_owned(),
        role: "agent".to_owned(),
        model: model.clone(),
        effort: None,
        tools: Vec::new(),
        custom_tools: Vec::new(),
        max_output_tokens: 16_384,
        max_steps: 200,
        context_window_tokens: 200_000,
        permissions: BTreeMap::new(),
    }
}

fn platform_name() -> &'static str {
    if cfg!(target_os = "linux") { "Linux" } else { std::env::consts::OS }
}
