//! One command in a sandbox of its own, outside any session: planned, watched at its door and given secrets as a session's are.
//!
//! Must not know: who runs the command, or what becomes of its output.

use crate::{
    confinement::{self, ConfinementError},
    door::{self, Door, News, protocol},
    engine::{Engine, Upstream},
    guard::{Guard, GuardError, narrowed},
    secrets,
    toolbox::write_in_place,
};
use adj_domain::{ApprovalPolicy, Confinement, Destination, SandboxMode, SessionEvent, Timestamp};
use adj_egress::{CertificateAuthority, CertificateError, Credential, Egress, StartEgressError};
use adj_policy::{HostRuling, Limit, LimitValue, Policy};
use adj_sandbox::{Mount, Plan};
use adj_vault::Vault;
use std::{
    collections::BTreeMap,
    fmt,
    net::TcpListener,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::sync::oneshot;

/// What is asked for, and who narrows it.
#[derive(Debug, Clone)]
pub struct CommandSpec {
    /// All layers: those of the folder too, and what a profile narrows.
    pub policy: Policy,
    pub mode: SandboxMode,
    pub confinement: Confinement,
    /// Whether somebody answers questions about hosts.
    pub has_people: bool,
    /// The workspace, at its own path.
    pub folder: PathBuf,
    /// Where toolchains are looked for.
    pub home: Option<PathBuf>,
    /// A file that does not exist yet: certificates for inside, where there is a network.
    pub trust: PathBuf,
}

/// A command that policy permits.
pub struct ConfinedCommand {
    guard: Arc<Guard>,
    plan: Plan,
    trust: PathBuf,
}

impl ConfinedCommand {
    /// Plans the sandbox. Nothing is started or written, and no secret is read.
    pub fn new(spec: CommandSpec) -> Result<Self, CommandError> {
        let approval = if spec.has_people { ApprovalPolicy::OnRequest } else { ApprovalPolicy::Never };
        let guard = Guard::of_command(spec.policy, spec.mode, approval, spec.confinement)?;
        let mut plan = confinement::plan(&guard, spec.home.as_deref(), &spec.trust)?;
        plan.workspace = Mount::Direct { host: spec.folder.clone(), inside: spec.folder.clone() };
        plan.cwd = spec.folder;
        Ok(Self { guard: Arc::new(guard), plan, trust: spec.trust })
    }

    /// The plan as it is without secrets.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The limits that the sandbox holds, as they came out.
    pub fn limits(&self) -> impl Iterator<Item = (Limit, LimitValue)> {
        Limit::ALL.into_iter().map(|limit| (limit, confinement::get(&self.plan.limits, limit)))
    }

    /// What is said of a destination, and by whom.
    pub fn host(&self, to: &Destination) -> HostRuling {
        self.guard.host(to)
    }

    /// The names of the secrets that are given in, each with its variable inside if it has one.
    pub fn secrets(&self, vault: &Vault) -> BTreeMap<String, Option<String>> {
        secrets::chosen(vault, &self.guard)
            .map(|entry| (entry.name.to_string(), entry.env.as_ref().map(ToString::to_string)))
            .collect()
    }

    /// Makes everything ready for a sandbox with a network. `id` is what the placeholders of this command are bound to.
    pub fn with_network(
        mut self,
        vault: &Vault,
        id: &str,
        upstream: Upstream,
    ) -> Result<(Plan, CommandDoor), CommandError> {
        let secrets = secrets::choose(vault, &self.guard, id);
        self.plan.env.extend(secrets.environment);
        let authority = CertificateAuthority::generate()?;
        write_in_place(&self.trust, &authority.trust_bundle(&upstream.extra_roots))
            .map_err(|source| CommandError::Trust { path: self.trust.clone(), source })?;
        let door = Arc::new(Door::new());
        door.open(None, &self.guard);
        let credentials = secrets.credentials;
        let door = CommandDoor { door, upstream, credentials, authority, trust: self.trust };
        Ok((self.plan, door))
    }
}

impl Engine {
    /// The plan for a check of what agents have made, without its workspace: what they may, but no network and no secrets. A check
    /// may write into its throw-away tree also where they may not.
    pub fn check_plan(
        &self,
        repository: &Path,
        sandbox: SandboxMode,
        confinement: &Confinement,
        timeout: Duration,
    ) -> Result<Plan, CommandError> {
        let mut confinement = Confinement { network: None, secrets: Some(Vec::new()), ..confinement.clone() };
        confinement.limits.insert(Limit::Wall.to_string(), LimitValue::Time(timeout).to_string());
        let policy = self.0.parts.policy.with_repository(repository).map_err(GuardError::from)?;
        let policy = narrowed(policy, confinement.profile.as_deref()).map_err(GuardError::from)?;
        let mut guard = Guard::of_command(policy, sandbox, ApprovalPolicy::Never, confinement)?;
        if guard.mode == SandboxMode::ReadOnly {
            guard.mode = SandboxMode::WorkspaceWrite;
        }
        Ok(confinement::plan(&guard, self.home(), Path::new(""))?)
    }
}

/// The command's door to the network: opened once, then watched.
pub struct CommandDoor {
    door: Arc<Door>,
    upstream: Upstream,
    credentials: Vec<Credential>,
    authority: CertificateAuthority,
    trust: PathBuf,
}

/// The door while it is open; dropping it ends all connections.
#[must_use]
#[derive(Debug)]
pub struct OpenDoor {
    egress: Egress,
}

impl OpenDoor {
    /// Ends all connections and waits until they have ended: nothing is decided any more after that.
    pub async fn stop(self) {
        self.egress.stop().await;
    }
}

impl fmt::Debug for ConfinedCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConfinedCommand").field("plan", &self.plan).finish_non_exhaustive()
    }
}

impl fmt::Debug for CommandDoor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommandDoor").field("credentials", &self.credentials).finish_non_exhaustive()
    }
}

/// What happens at the door.
#[derive(Debug)]
pub enum DoorNews {
    /// A `network.decided`, before a byte goes out.
    Decided(Box<SessionEvent>),
    /// A person is to be asked; dropping `reply` is a denial.
    Asked { to: Destination, expires_at: Timestamp, reply: oneshot::Sender<bool> },
}

impl CommandDoor {
    /// Begins to serve, within a tokio runtime. The sandbox is built by now, so the file of certificates is taken away again.
    pub fn open(&self, listener: TcpListener) -> Result<OpenDoor, CommandError> {
        self.remove_trust();
        let egress =
            door::serve(&self.door, listener, &self.upstream, self.credentials.clone(), self.authority.clone())?;
        Ok(OpenDoor { egress })
    }

    /// Waits for the next thing that happens. Nothing is let through while too much of it is waiting here.
    pub async fn news(&self) -> Option<DoorNews> {
        Some(match self.door.news.lock().await.recv().await? {
            News::Decided(decided) => DoorNews::Decided(Box::new(SessionEvent::NetworkDecided {
                to: decided.to,
                protocol: protocol(decided.protocol).to_owned(),
                ruling: decided.ruling,
                address: decided.addresses.first().map(ToString::to_string),
                secrets: decided.used_secrets,
            })),
            News::Asked { to, expires_at, reply } => {
                let (answer, answered) = oneshot::channel();
                let (door, place) = (Arc::clone(&self.door), (to.host.clone(), to.port));
                tokio::spawn(async move {
                    let is_allowed = answered.await.unwrap_or(false);
                    door.answered(&place, is_allowed);
                    reply.send_replace(Some(is_allowed));
                });
                DoorNews::Asked { to, expires_at, reply: answer }
            }
        })
    }

    /// Shuts it: nothing more is let through.
    pub fn shut(&self) {
        self.door.close();
    }

    fn remove_trust(&self) {
        // Whoever takes it away first is right.
        let _ = std::fs::remove_file(&self.trust);
    }
}

impl Drop for CommandDoor {
    fn drop(&mut self) {
        self.remove_trust();
    }
}

/// Why a command cannot be run as it is asked for.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    #[error(transparent)]
    Guard(#[from] GuardError),
    #[error("cannot plan the sandbox")]
    Confinement(#[from] ConfinementError),
    #[error("cannot make the certificates of the sandbox's door to the network")]
    Certificate(#[from] CertificateError),
    #[error("cannot write the certificates for the sandbox to {}", path.display())]
    Trust { path: PathBuf, source: std::io::Error },
    #[error("cannot open the sandbox's door to the network")]
    Door(#[from] StartEgressError),
}

/// A place for the certificates of one sandbox, below the folder of all state.
pub fn trust_file(state: &Path, id: &str) -> PathBuf {
    state.join("trust").join(format!("{id}.pem"))
}
