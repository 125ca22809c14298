//! The tools of one session: a supervised worker inside the session's sandbox, started with the first call.

use crate::{
    engine::{Inner, Parts},
    toolchains::work_plan,
};
use adj_domain::{EventId, SandboxMode, SessionId, SessionSpec, ToolOutcome, ToolRequest, WorkspaceSpec};
use adj_sandbox::{CallError, Finding, Mount, OpenError, StopError, Supervisor};
use adj_workspace::{OpenRepositoryError, OpenWorkspacesError, ParseNameError, ParseObjectIdError, PrepareError};
use std::{
    fs::DirBuilder,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::sync::OnceCell;

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
    #[error("the sandbox is not available")]
    Open(#[from] OpenError),
    #[error("the sandbox could not be stopped")]
    Stop(#[from] StopError),
    #[error("the call did not come back from the sandbox")]
    Call(#[from] CallError),
    #[error("cannot use the folder of the session's sandbox")]
    Folder(#[from] std::io::Error),
    #[error("the answer from inside the sandbox is not what tools answer")]
    Answer(#[from] serde_json::Error),
}

const NOT_KNOWN: &str = "It is not known whether this call took effect: the machine or its sandbox stopped while it was \
                         under way. Look at the state of the workspace before you repeat it.";

pub(crate) struct Toolbox {
    engine: Arc<Inner>,
    dir: PathBuf,
    workspace: WorkspaceSpec,
    sandbox: SandboxMode,
    open: OnceCell<Opened>,
}

struct Opened {
    supervisor: Supervisor,
    root: PathBuf,
}

impl Toolbox {
    pub(crate) fn new(engine: Arc<Inner>, id: SessionId, spec: &SessionSpec) -> Self {
        Self {
            dir: dir(&engine.parts, &id),
            engine,
            workspace: spec.workspace.clone(),
            sandbox: spec.sandbox,
            open: OnceCell::new(),
        }
    }

    pub(crate) async fn call(&self, id: &EventId, request: &ToolRequest) -> Result<ToolOutcome, ToolboxError> {
        match self.call_as(id.as_str(), request).await {
            // The supervisor died while we waited: what it has written down tells what became of the call.
            Err(ToolboxError::Call(CallError::SupervisorGone { .. })) => self.recover(id, request).await,
            called => called,
        }
    }

    /// Finds out what became of a call that was started by a process, or a sandbox, that is dead.
    pub(crate) async fn recover(&self, id: &EventId, request: &ToolRequest) -> Result<ToolOutcome, ToolboxError> {
        match adj_sandbox::find(&self.dir, id.as_str())? {
            Finding::Done(answer) => Ok(serde_json::from_slice(&answer)?),
            Finding::Failed(failure) => Ok(ToolOutcome::error(format!("the call did not end well: {failure}"))),
            // Attaches to the running call, or starts the one that never began.
            Finding::Running | Finding::NotStarted => self.call_as(id.as_str(), request).await,
            Finding::Unknown if adj_tools::is_repeatable(&request.name) => {
                self.call_as(&format!("{id}-again"), request).await
            }
            Finding::Unknown => Ok(ToolOutcome::error(NOT_KNOWN)),
        }
    }

    async fn call_as(&self, effect: &str, request: &ToolRequest) -> Result<ToolOutcome, ToolboxError> {
        let opened = self.open.get_or_try_init(|| self.open()).await?;
        let frame = adj_tools::WorkerRequest::new(request.clone(), opened.root.clone());
        match opened.supervisor.call(effect, serde_json::to_vec(&frame)?).await {
            Ok(answer) => Ok(serde_json::from_slice(&answer)?),
            Err(CallError::Failed { source, .. }) => {
                Ok(ToolOutcome::error(format!("the call did not end well: {source}")))
            }
            Err(CallError::Unknown { .. }) => Ok(ToolOutcome::error(NOT_KNOWN)),
            Err(error) => Err(error.into()),
        }
    }

    async fn open(&self) -> Result<Opened, ToolboxError> {
        let mut plan = work_plan(self.sandbox, self.engine.parts.home.as_deref());
        match &self.workspace {
            WorkspaceSpec::Direct { path } => {
                let path = PathBuf::from(path);
                plan.workspace = Mount::Direct { host: path.clone(), inside: path.clone() };
                plan.cwd = path;
            }
            WorkspaceSpec::Private { repository, commit, name } => {
                let workspaces = self.engine.workspaces().await?;
                let repository = workspaces.repository(Path::new(repository)).await?;
                let workspace = workspaces.prepare(&repository, &commit.parse()?, &name.parse()?).await?;
                plan.workspace = workspace.mount();
                plan.binds.extend(workspace.object_binds());
                plan.cwd = workspace.inside().to_owned();
            }
        }
        let parent = self.dir.parent().expect("a session's folder lies below the state folder");
        DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
        let root = plan.cwd.clone();
        let supervisor = self.engine.parts.launcher.open(&self.dir, &plan).await?;
        Ok(Opened { supervisor, root })
    }

    pub(crate) async fn close(&self) -> Result<(), ToolboxError> {
        Ok(adj_sandbox::stop(&self.dir).await?)
    }

    /// Ends a sandbox that an earlier process opened.
    pub(crate) async fn close_left_over(parts: &Parts, id: &SessionId) -> Result<(), ToolboxError> {
        let dir = dir(parts, id);
        if dir.exists() { Ok(adj_sandbox::stop(&dir).await?) } else { Ok(()) }
    }
}

fn dir(parts: &Parts, id: &SessionId) -> PathBuf {
    parts.state.join("sessions").join(id.as_str())
}
