//! The tools of one session: a supervised worker inside the session's sandbox, started with the first call.

use crate::{
    command::trust_file,
    confinement::{self, ConfinementError},
    door::{self, Door},
    engine::{Inner, Parts, Upstream},
    guard::Guard,
    secrets::{self, Secrets},
};
use adj_domain::{EventId, SessionId, SessionSpec, ToolOutcome, ToolRequest, WorkspaceSpec};
use adj_egress::{CertificateAuthority, CertificateError, Credential, Egress};
use adj_sandbox::{
    CallError, Finding, ListenerError, Listeners, Mode, Mount, NetworkPlan, OpenError, StopError, Supervisor,
};
use adj_workspace::{OpenRepositoryError, OpenWorkspacesError, ParseNameError, ParseObjectIdError, PrepareError};
use std::{
    fs::DirBuilder,
    os::unix::fs::DirBuilderExt,
    path::{Component, Path, PathBuf},
    sync::Arc,
};
use tokio::{sync::Mutex, task::JoinHandle};
use tokio_util::sync::CancellationToken;

/// Why a tool could not be called.
#[derive(Debug, thiserror::Error)]
pub enum ToolboxError {
    #[error("cannot open the folder for workspaces")]
    Workspaces(#[from] OpenWorkspacesError),
    #[error("cannot open the repository")]
    Repository(#[from] OpenRepositoryError),
    #[error("cannot prepare the workspace")]
    Prepare(#[from] PrepareError),
    #[error("a stored commit is not one")]
    Commit(#[from] ParseObjectIdError),
    #[error("a stored name is not one")]
    Name(#[from] ParseNameError),
    #[error("cannot plan the sandbox")]
    Confinement(#[from] ConfinementError),
    #[error("cannot read the vault")]
    Vault(#[from] adj_vault::VaultError),
    #[error("cannot make the certificates of the sandbox's door to the network")]
    Certificate(#[from] CertificateError),
    #[error("cannot open the sandbox's door to the network")]
    Listener(#[from] ListenerError),
    #[error("the sandbox is not available")]
    Open(#[from] OpenError),
    #[error("the sandbox could not be stopped")]
    Stop(#[from] StopError),
    #[error("cannot look up the folder of hooks")]
    Hooks(#[from] adj_workspace::GitError),
    #[error("the call did not come back from the sandbox")]
    Call(#[from] CallError),
    #[error("cannot use the folder of the session's sandbox")]
    Folder(#[from] std::io::Error),
}

const NOT_KNOWN: &str = "It is not known whether this call took effect: the machine or its sandbox stopped while it was \
                         under way. Look at the state of the workspace before you repeat it.";
/// How often a sandbox that died during a call is started anew before the session stops with an error.
const ATTEMPTS: u32 = 3;
/// Tools cut their answers much shorter; this holds also if a worker does not.
const MOST_ANSWER_BYTES: usize = 256 * 1024;
const MOST_CHANGED: usize = 1000;
const MOST_CHANGED_BYTES: usize = 128 * 1024;

pub(crate) struct Toolbox {
    dir: PathBuf,
    trust: PathBuf,
    session: SessionId,
    workspace: WorkspaceSpec,
    pub(crate) door: Arc<Door>,
    open: Mutex<Option<Arc<Opened>>>,
}

struct Opened {
    supervisor: Supervisor,
    root: PathBuf,
    /// The policy that the sandbox was made under; under another one it is made anew.
    policy: String,
    /// The secrets that its door puts in; with others it is made anew.
    credentials: Vec<Credential>,
    shut: CancellationToken,
    door: Mutex<Option<JoinHandle<()>>>,
}

impl Opened {
    /// Ends all connections of its door and waits until they have ended.
    async fn shut_door(&self) {
        self.shut.cancel();
        if let Some(door) = self.door.lock().await.take() {
            // A panic in there has been reported; the door is shut either way.
            let _ = door.await;
        }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        if let Some(door) = self.door.get_mut() {
            door.abort();
        }
    }
}

impl Toolbox {
    pub(crate) fn new(parts: &Parts, id: &SessionId, spec: &SessionSpec) -> Self {
        Self {
            dir: dir(parts, id),
            trust: trust_file(&parts.state, id.as_str()),
            session: id.clone(),
            workspace: spec.workspace.clone(),
            door: Arc::new(Door::new()),
            open: Mutex::default(),
        }
    }

    /// Makes a call happen once, or finds out what became of it if it was started before, by a process or in a sandbox
    /// that is dead.
    pub(crate) async fn call(
        &self,
        engine: &Inner,
        guard: &Guard,
        id: &EventId,
        request: &ToolRequest,
        earlier: Earlier,
    ) -> Result<ToolOutcome, ToolboxError> {
        let (mut look_first, objection) = match earlier {
            Earlier::Never => (false, None),
            Earlier::Started { objection } => (true, objection),
        };
        let mut attempts = 0;
        loop {
            let effect = if look_first {
                match (self.look(id, request).await?, &objection) {
                    (Seen::Over(outcome), _) => return Ok(outcome),
                    (Seen::NotBegun, Some(objection)) => return Ok(ToolOutcome::error(objection.clone())),
                    (Seen::NotBegun, None) => id.to_string(),
                    (Seen::Open(effect), _) => effect,
                }
            } else {
                id.to_string()
            };
            attempts += 1;
            match self.call_as(engine, guard, &effect, request).await {
                // It died while we waited: what it has written down tells what became of the call.
                Err(ToolboxError::Call(CallError::SupervisorGone { .. })) if attempts < ATTEMPTS => look_first = true,
                called => return called,
            }
        }
    }

    async fn look(&self, id: &EventId, request: &ToolRequest) -> Result<Seen, ToolboxError> {
        let (dir, effect) = (self.dir.clone(), id.to_string());
        let found = tokio::task::spawn_blocking(move || adj_sandbox::find(&dir, &effect));
        Ok(match found.await.expect("looking a call up does not panic")? {
            Finding::Done(answer) => Seen::Over(read_answer(&answer)),
            Finding::Failed(failure) => Seen::Over(ended_badly(&failure)),
            Finding::NotStarted => Seen::NotBegun,
            // Attaches to the running call.
            Finding::Running => Seen::Open(id.to_string()),
            Finding::Unknown if adj_tools::is_repeatable(&request.name) => Seen::Open(format!("{id}-again")),
            Finding::Unknown => Seen::Over(ToolOutcome::error(NOT_KNOWN)),
        })
    }

    async fn call_as(
        &self,
        engine: &Inner,
        guard: &Guard,
        effect: &str,
        request: &ToolRequest,
    ) -> Result<ToolOutcome, ToolboxError> {
        let opened = self.opened(engine, guard).await?;
        let frame = adj_tools::WorkerRequest::new(request.clone(), opened.root.clone());
        let frame = serde_json::to_vec(&frame).expect("a request is JSON with string keys");
        match opened.supervisor.call(effect, frame).await {
            Ok(answer) => Ok(read_answer(&answer)),
            Err(CallError::Failed { source, .. }) => Ok(ended_badly(&source)),
            Err(CallError::Unknown { .. }) => Ok(ToolOutcome::error(NOT_KNOWN)),
            // Nothing has happened, and the model's next call may fare better.
            Err(error @ (CallError::NotStarted { .. } | CallError::TooLong { .. })) => {
                Ok(ToolOutcome::error(format!("the call was not run: {error}")))
            }
            Err(error @ CallError::SupervisorGone { .. }) => {
                let mut open = self.open.lock().await;
                if open.as_ref().is_some_and(|other| Arc::ptr_eq(other, &opened)) {
                    *open = None;
                }
                Err(error.into())
            }
            Err(error @ (CallError::Name { .. } | CallError::Setup { .. })) => Err(error.into()),
        }
    }

    async fn opened(&self, engine: &Inner, guard: &Guard) -> Result<Arc<Opened>, ToolboxError> {
        let mut open = self.open.lock().await;
        let secrets = self.secrets(engine, guard).await?;
        match open.as_ref() {
            Some(opened) if opened.policy == guard.hash && opened.credentials == secrets.credentials => {
                Ok(Arc::clone(opened))
            }
            _ => {
                // Two doors would stand side by side, one of them with what holds no longer.
                if let Some(old) = open.take() {
                    old.shut_door().await;
                }
                Ok(Arc::clone(open.insert(Arc::new(self.start(engine, guard, secrets).await?))))
            }
        }
    }

    /// What the vault has for the session now: a secret may have been replaced or removed since the last call.
    async fn secrets(&self, engine: &Inner, guard: &Guard) -> Result<Secrets, ToolboxError> {
        if guard.confinement.network.is_none() {
            return Ok(Secrets::default());
        }
        let mut vault = engine.parts.vault.lock().await;
        vault.reload()?;
        Ok(secrets::choose(&vault, guard, self.session.as_str()))
    }

    async fn start(&self, engine: &Inner, guard: &Guard, secrets: Secrets) -> Result<Opened, ToolboxError> {
        let mut plan = confinement::plan(guard, engine.parts.home.as_deref(), &self.trust)?;
        let mut through = None;
        if plan.network != NetworkPlan::Off {
            plan.env.extend(secrets.environment);
            let authority = CertificateAuthority::generate()?;
            write_in_place(&self.trust, &authority.trust_bundle(&engine.upstream.extra_roots))?;
            through = Some(authority);
        }
        match &self.workspace {
            WorkspaceSpec::Direct { path } => {
                let path = PathBuf::from(path);
                plan.workspace = Mount::Direct { host: path.clone(), inside: path.clone() };
                if plan.mode != Mode::DangerFullAccess {
                    plan.protect.extend(hooks_within(engine, &path).await?);
                }
                plan.cwd = path;
            }
            WorkspaceSpec::Private { repository, commit, name } => {
                let workspaces = engine.workspaces().await?;
                let repository = workspaces.repository(Path::new(repository)).await?;
                let workspace = workspaces.prepare(&repository, &commit.parse()?, &name.parse()?).await?;
                workspace.place_in(&mut plan);
            }
        }
        let parent = self.dir.parent().expect("a session's folder lies below the state folder");
        DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
        let root = plan.cwd.clone();
        let launcher = &engine.parts.launcher;
        let supervisor = match launcher.open(&self.dir, &plan).await {
            // Left by a process that saw other toolchains on this machine; its calls are on record.
            Err(OpenError::OtherPlan { .. }) => {
                adj_sandbox::stop(&self.dir).await?;
                launcher.open(&self.dir, &plan).await?
            }
            opened => opened?,
        };
        let shut = CancellationToken::new();
        let door = match through {
            Some(authority) => {
                let listeners = supervisor.listeners().await?;
                let (door, upstream) = (Arc::clone(&self.door), engine.upstream.clone());
                let credentials = secrets.credentials.clone();
                Some(tokio::spawn(keep_open(listeners, shut.clone(), door, credentials, authority, upstream)))
            }
            None => None,
        };
        let (policy, door) = (guard.hash.clone(), Mutex::new(door));
        Ok(Opened { supervisor, root, policy, credentials: secrets.credentials, shut, door })
    }

    pub(crate) async fn close(&self) -> Result<(), ToolboxError> {
        adj_sandbox::stop(&self.dir).await?;
        // Nothing trusts it any more.
        let _ = std::fs::remove_file(&self.trust);
        Ok(())
    }

    /// Ends a sandbox that an earlier process opened.
    pub(crate) async fn close_left_over(parts: &Parts, id: &SessionId) -> Result<(), ToolboxError> {
        Ok(adj_sandbox::stop(&dir(parts, id)).await?)
    }
}

/// Serves the door of each sandbox in turn: one takes the place of another that died.
async fn keep_open(
    mut listeners: Listeners,
    shut: CancellationToken,
    door: Arc<Door>,
    credentials: Vec<Credential>,
    authority: CertificateAuthority,
    upstream: Upstream,
) {
    let mut serving: Option<Egress> = None;
    loop {
        let next = tokio::select! {
            () = shut.cancelled() => break,
            next = listeners.next() => next,
        };
        match next {
            Ok(Some(listener)) => match door::serve(&door, listener, &upstream, credentials.clone(), authority.clone())
            {
                Ok(egress) => serving = Some(egress),
                Err(error) => tracing::warn!(%error, "a sandbox has no way to the network"),
            },
            Ok(None) => break,
            Err(error) => {
                tracing::debug!(%error, "no more sandboxes to open a door for");
                break;
            }
        }
    }
    if let Some(egress) = serving {
        egress.stop().await;
    }
}

/// The user's own folder of hooks, where it lies in the folder that is worked on.
async fn hooks_within(engine: &Inner, folder: &Path) -> Result<Vec<PathBuf>, ToolboxError> {
    // Without a repository there is nothing to configure.
    if !folder.ancestors().any(|above| above.join(".git").exists()) {
        return Ok(Vec::new());
    }
    let Some(hooks) = engine.workspaces().await?.hooks_folder(folder).await? else {
        return Ok(Vec::new());
    };
    // As it is written, and where it leads to.
    let target = hooks.canonicalize().unwrap_or_else(|_| hooks.clone());
    let mut within = vec![hooks.components().collect(), target];
    within.retain(|path: &PathBuf| {
        let mut rest = path.strip_prefix(folder).into_iter().flat_map(Path::components).peekable();
        rest.peek().is_some() && rest.all(|part| matches!(part, Component::Normal(_)))
    });
    within.dedup();
    Ok(within)
}

/// Writes into the same file, which a living sandbox shows.
pub(crate) fn write_in_place(path: &Path, text: &str) -> std::io::Result<()> {
    use std::{io::Write, os::unix::fs::OpenOptionsExt};
    let parent = path.parent().expect("the file lies below the state folder");
    DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o644);
    options.custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed());
    options.open(path)?.write_all(text.as_bytes())
}

/// What the log says of a call's start.
pub(crate) enum Earlier {
    Never,
    /// It may have begun. If it has not, this is why it may not begin any more.
    Started {
        objection: Option<String>,
    },
}

/// What became of a call.
enum Seen {
    Over(ToolOutcome),
    NotBegun,
    /// To be asked for under this name.
    Open(String),
}

/// Reads what came out of the sandbox. It is on record and will not change, so one that cannot be read is the call's end too.
fn read_answer(answer: &[u8]) -> ToolOutcome {
    let mut outcome = match serde_json::from_slice::<ToolOutcome>(answer) {
        Ok(outcome) => outcome,
        Err(error) => return ToolOutcome::error(format!("the answer of this call cannot be read: {error}")),
    };
    outcome.text.truncate(outcome.text.floor_char_boundary(MOST_ANSWER_BYTES));
    outcome.changed.truncate(MOST_CHANGED);
    let mut bytes = 0;
    outcome.changed.retain(|path| {
        bytes += path.len();
        bytes <= MOST_CHANGED_BYTES
    });
    outcome
}

fn ended_badly(failure: &adj_sandbox::Failure) -> ToolOutcome {
    ToolOutcome::error(format!("the call did not end well: {failure}"))
}

fn dir(parts: &Parts, id: &SessionId) -> PathBuf {
    parts.state.join("sessions").join(id.as_str())
}
