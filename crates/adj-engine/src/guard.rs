//! What policy says of one session, or of a command outside any: the layers that concern it, and what people allowed to be remembered.

use crate::engine::{Engine, EngineError};
use adj_domain::{
    ApprovalPolicy, Confinement, Destination, Grants, Ruling, SandboxMode, Session, SessionId, SessionSpec, Timestamp,
    ToolPermission, ToolRequest, Verdict, WorkspaceSpec,
};
use adj_policy::{Context, HostRuling, Policy, PolicyError, ProfileError};
use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// Longest time that a command is held while a person is asked about a host.
const LONGEST_HOLD: Duration = Duration::from_secs(300);

/// Why a session may not be what it asks to be.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    #[error("cannot use the policy")]
    Policy(#[from] PolicyError),
    #[error("cannot use the profile")]
    Profile(#[from] ProfileError),
    #[error("policy forbids it: {}{}", ruling.rule, place(ruling))]
    Forbidden { ruling: Box<Ruling> },
}

fn place(ruling: &Ruling) -> String {
    match (&ruling.file, ruling.line) {
        (Some(file), Some(line)) => format!(" ({}, {file}:{line})", ruling.layer),
        _ => format!(" ({})", ruling.layer),
    }
}

/// A policy, and what a profile narrows if one is named.
pub(crate) fn narrowed(policy: Policy, profile: Option<&str>) -> Result<Policy, ProfileError> {
    Ok(if profile.is_some() { policy.profile(profile)?.1 } else { policy })
}

/// Judges for one session, while one process works on it.
pub(crate) struct Guard {
    pub(crate) policy: Policy,
    pub(crate) hash: String,
    /// `None` for a command outside any session.
    session: Option<SessionId>,
    pub(crate) mode: SandboxMode,
    approval: ApprovalPolicy,
    permissions: BTreeMap<String, ToolPermission>,
    /// What is asked for beside the mode.
    pub(crate) confinement: Confinement,
    /// What grants for a repository name it by.
    repository: String,
    grants: Mutex<Grants>,
}

impl Guard {
    /// Puts together the layers for a session, and refuses what the session may not be at all.
    pub(crate) async fn new(
        machine: Policy,
        session: &SessionId,
        spec: &SessionSpec,
        root: &Path,
    ) -> Result<Self, GuardError> {
        let (workspace, root, profile) = (spec.workspace.clone(), root.to_owned(), spec.confinement.profile.clone());
        let policy = tokio::task::spawn_blocking(move || -> Result<Policy, GuardError> {
            let policy = match &workspace {
                WorkspaceSpec::Direct { path } => machine.with_folder(Path::new(path))?,
                WorkspaceSpec::Private { .. } => machine.with_repository(&root)?,
            };
            Ok(narrowed(policy, profile.as_deref())?)
        })
        .await
        .expect("reading policy files does not panic")?;
        for ruling in [policy.mode(spec.sandbox), policy.approval(spec.approval).1] {
            if ruling.verdict == Verdict::Deny {
                return Err(GuardError::Forbidden { ruling: Box::new(ruling) });
            }
        }
        Ok(Self {
            hash: policy.hash(),
            policy,
            session: Some(session.clone()),
            mode: spec.sandbox,
            approval: spec.approval,
            permissions: spec.agent.permissions.clone(),
            confinement: spec.confinement.clone(),
            repository: match &spec.workspace {
                WorkspaceSpec::Direct { path } => path.clone(),
                WorkspaceSpec::Private { repository, .. } => repository.clone(),
            },
            grants: Mutex::default(),
        })
    }

    /// Judges for one command outside any session, to which nobody has granted anything. All layers are in `policy` already.
    pub(crate) fn of_command(
        policy: Policy,
        mode: SandboxMode,
        approval: ApprovalPolicy,
        confinement: Confinement,
    ) -> Result<Self, GuardError> {
        let ruling = policy.mode(mode);
        if ruling.verdict == Verdict::Deny {
            return Err(GuardError::Forbidden { ruling: Box::new(ruling) });
        }
        // Who may not be asked is not asked: what would need an answer is denied.
        let may_ask = policy.approval(approval).1.verdict != Verdict::Deny;
        let approval = if may_ask { approval } else { ApprovalPolicy::Never };
        Ok(Self {
            hash: policy.hash(),
            policy,
            session: None,
            mode,
            approval,
            permissions: BTreeMap::new(),
            confinement,
            repository: String::new(),
            grants: Mutex::default(),
        })
    }

    /// Learns of the grants that were given or taken back meanwhile.
    pub(crate) async fn refresh(&self, engine: &Engine) -> Result<(), EngineError> {
        let mut grants = self.grants().clone();
        engine.follow_grants(&mut grants).await?;
        *self.grants() = grants;
        Ok(())
    }

    pub(crate) fn tool(&self, call: &ToolRequest) -> Ruling {
        self.with_context(|context| self.policy.tool(&call.name, &call.input, context))
    }

    pub(crate) fn host(&self, to: &Destination) -> HostRuling {
        self.with_context(|context| self.policy.host(to, context))
    }

    /// Until when a question about a call may stand.
    pub(crate) fn expiry(&self) -> Timestamp {
        Timestamp::now().saturating_add(self.policy.expire_approvals_after()).unwrap_or(Timestamp::MAX)
    }

    /// Until when a command is held for a question about a host.
    pub(crate) fn host_expiry(&self) -> Timestamp {
        let hold = self.policy.expire_approvals_after().min(LONGEST_HOLD);
        Timestamp::now().saturating_add(hold).unwrap_or(Timestamp::MAX)
    }

    fn with_context<T>(&self, judge: impl FnOnce(&Context<'_>) -> T) -> T {
        let off = adj_domain::NetworkRequest::default();
        let grants = self.grants();
        judge(&Context {
            approval: self.approval,
            mode: self.mode,
            permissions: &self.permissions,
            network: self.confinement.network.as_ref().unwrap_or(&off),
            grants: &grants.standing,
            now: Timestamp::now(),
            session: self.session.as_ref(),
            repository: Some(&self.repository),
        })
    }

    fn grants(&self) -> std::sync::MutexGuard<'_, Grants> {
        self.grants.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine {
    /// The policy for a session, with everything that narrows it.
    pub(crate) async fn guard(&self, session: &Session) -> Result<Arc<Guard>, EngineError> {
        let (_, root) = self.places(&session.spec.workspace).await?;
        let guard = Guard::new(self.0.parts.policy.clone(), &session.id, &session.spec, &root).await?;
        guard.refresh(self).await?;
        Ok(Arc::new(guard))
    }
}
