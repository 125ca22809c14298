//! What a sandbox shall look like: plain data, checked once before any process is started.
//!
//! Must not know: how a kernel is asked for it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::limits::Limits;
use crate::network::NetworkPlan;
use crate::pattern::{PathPattern, is_plain_relative};

/// The home directory inside, a private tmpfs.
pub const HOME: &str = "/home/agent";

/// Names that are read-only wherever they lie in a directly mounted workspace, and cannot be created at its root.
///
/// Programs outside execute what these folders contain (hooks, filters, our own configuration).
pub const PROTECTED: [&str; 2] = [".git", ".adjutant"];

/// More such names, which are protected as well unless a plan lifts them: what shells, editors and git wrappers outside execute.
pub const GUARDED: [&str; 5] = [".envrc", ".githooks", ".husky", ".idea", ".vscode"];

/// How much a command may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Mode {
    /// The workspace is visible but cannot be changed; only the private `/tmp`, the home and explicitly writable binds can.
    #[serde(rename = "read-only")]
    ReadOnly,
    /// The workspace can be changed, except for the [`PROTECTED`] names of a directly mounted one.
    #[serde(rename = "workspace-write")]
    WorkspaceWrite,
    /// No confinement at all, by explicit request only: the host's files, network and processes are reachable.
    ///
    /// The environment is still exactly the plan's, and the process tree is still killed at the end, as well as that is possible
    /// without namespaces: descendants that were orphaned are found through the subreaper, but a command running as the
    /// same user could kill our helper first.
    #[serde(rename = "danger-full-access")]
    DangerFullAccess,
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Mode::ReadOnly => "read-only",
            Mode::WorkspaceWrite => "workspace-write",
            Mode::DangerFullAccess => "danger-full-access",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The text is none of the three modes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown sandbox mode {text:?}: expected read-only, workspace-write or danger-full-access")]
pub struct ParseModeError {
    text: String,
}

impl FromStr for Mode {
    type Err = ParseModeError;

    fn from_str(text: &str) -> Result<Mode, ParseModeError> {
        [Mode::ReadOnly, Mode::WorkspaceWrite, Mode::DangerFullAccess]
            .into_iter()
            .find(|mode| mode.name() == text)
            .ok_or_else(|| ParseModeError { text: text.to_owned() })
    }
}

/// Everything that one sandbox is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    pub mode: Mode,
    pub workspace: Mount,
    /// The current directory, a path inside.
    pub cwd: PathBuf,
    /// The whole environment; nothing is added from the caller's own.
    pub env: BTreeMap<String, String>,
    /// More of the host's files to show, such as a toolchain.
    pub binds: Vec<Bind>,
    /// What cannot be opened inside, wherever it would be shown; new files of such names can still be made.
    #[serde(default)]
    pub hidden: Vec<PathPattern>,
    /// What cannot be changed, in a workspace or bind that is writable otherwise.
    #[serde(default)]
    pub readonly: Vec<PathPattern>,
    /// More paths in a directly mounted workspace that cannot be changed, nor made where they are missing, such as a configured
    /// folder of hooks; relative to the workspace, or absolute inside it.
    #[serde(default)]
    pub protect: Vec<PathBuf>,
    /// Names of [`GUARDED`] that may be changed after all.
    #[serde(default)]
    pub unprotect: Vec<String>,
    /// The workspace is a private copy in which nobody outside runs git as a user would, so `.git` may be changed.
    #[serde(default)]
    pub own_git: bool,
    #[serde(default)]
    pub network: NetworkPlan,
    #[serde(default)]
    pub limits: Limits,
    /// A supervisor leaves by itself when nobody was connected and no call was running for this long.
    #[serde(default = "default_idle")]
    pub idle: Duration,
}

fn default_idle() -> Duration {
    Duration::from_secs(600)
}

impl Plan {
    /// A plan without a workspace, in the private home, with [`base_environment`] and the default limits.
    pub fn new(mode: Mode) -> Plan {
        Plan {
            mode,
            workspace: Mount::None,
            cwd: if mode == Mode::DangerFullAccess { PathBuf::from("/") } else { PathBuf::from(HOME) },
            env: base_environment(),
            binds: Vec::new(),
            hidden: Vec::new(),
            readonly: Vec::new(),
            protect: Vec::new(),
            unprotect: Vec::new(),
            own_git: false,
            network: NetworkPlan::Off,
            limits: Limits::default(),
            idle: default_idle(),
        }
    }
}

/// The tree that the command works on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Mount {
    None,
    /// A folder of the host itself.
    Direct {
        host: PathBuf,
        inside: PathBuf,
    },
    /// A private layer over a tree that nobody changes; read-only mode shows both layers without writing to either.
    ///
    /// Only one writable sandbox at a time may use an upper layer: the kernel does not define what two of them see.
    Overlay {
        lower: PathBuf,
        upper: PathBuf,
        work: PathBuf,
        inside: PathBuf,
    },
}

impl Mount {
    pub(crate) fn inside(&self) -> Option<&Path> {
        match self {
            Mount::None => None,
            Mount::Direct { inside, .. } | Mount::Overlay { inside, .. } => Some(inside),
        }
    }
}

/// A file or folder of the host, shown inside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    pub host: PathBuf,
    pub inside: PathBuf,
    pub writable: bool,
}

/// The environment that every command gets at least; no value comes from the caller's own environment.
pub fn base_environment() -> BTreeMap<String, String> {
    [
        ("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"),
        ("HOME", HOME),
        ("USER", "agent"),
        ("LOGNAME", "agent"),
        ("SHELL", "/bin/bash"),
        ("LANG", "C.UTF-8"),
        ("TERM", "dumb"),
        ("TMPDIR", "/tmp"),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .collect()
}

/// Why a plan makes no sense, whatever the kernel can do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    #[error("{} is not a plain absolute path", path.display())]
    NotPlain { path: PathBuf },
    #[error("{} belongs to the sandbox itself, nothing can be mounted there", path.display())]
    Reserved { path: PathBuf },
    #[error("two things are to be mounted at {}", path.display())]
    Twice { path: PathBuf },
    #[error("{name:?} cannot be a variable of the environment")]
    Variable { name: String },
    #[error("{} cannot be writable: what is protected in the workspace could be changed there", path.display())]
    PastProtection { path: PathBuf },
    #[error("an overlay workspace needs a sandbox; danger-full-access works on a plain folder")]
    OverlayWithoutSandbox,
    #[error("{what} need a sandbox; danger-full-access cannot hold them")]
    NeedsSandbox { what: &'static str },
    #[error("the pattern {pattern} is relative, but there is no workspace")]
    NoWorkspace { pattern: PathPattern },
    #[error("{name:?} is none of the names whose protection can be lifted")]
    NotGuarded { name: String },
    #[error("{} is no plain path in the workspace", path.display())]
    NotInWorkspace { path: PathBuf },
    #[error("the port of the proxy is zero")]
    ZeroPort,
    #[error("the limit {name} is zero")]
    ZeroLimit { name: &'static str },
    #[error("the plan names {}, which is not valid UTF-8", path.display())]
    NotUtf8 { path: PathBuf },
}

const RESERVED: [&str; 12] =
    ["/", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/usr", "/etc", "/tmp", "/var", HOME];
const RESERVED_TREES: [&str; 3] = ["/proc", "/dev", "/sys"];

impl Plan {
    /// Refuses what could never work, before anything is started.
    pub(crate) fn check(&self) -> Result<(), PlanError> {
        plain(&self.cwd)?;
        let mut places = BTreeSet::new();
        for inside in self.workspace.inside().into_iter().chain(self.binds.iter().map(|bind| bind.inside.as_path())) {
            plain(inside)?;
            if RESERVED.iter().any(|reserved| inside == Path::new(reserved))
                || RESERVED_TREES.iter().any(|reserved| inside.starts_with(reserved))
            {
                return Err(PlanError::Reserved { path: inside.to_owned() });
            }
            if !places.insert(inside) {
                return Err(PlanError::Twice { path: inside.to_owned() });
            }
        }
        let workspace_hosts = match &self.workspace {
            Mount::None => Vec::new(),
            Mount::Direct { host, .. } => vec![host],
            Mount::Overlay { lower, upper, work, .. } => vec![lower, upper, work],
        };
        for host in workspace_hosts.into_iter().chain(self.binds.iter().map(|bind| &bind.host)) {
            plain(host)?;
        }
        if let Some(bind) = self.binds.iter().find(|bind| bind.writable && self.is_past_protection(bind)) {
            return Err(PlanError::PastProtection { path: bind.inside.clone() });
        }
        for (name, value) in &self.env {
            if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
                return Err(PlanError::Variable { name: name.clone() });
            }
        }
        if self.mode == Mode::DangerFullAccess && matches!(self.workspace, Mount::Overlay { .. }) {
            return Err(PlanError::OverlayWithoutSandbox);
        }
        self.check_paths()?;
        if self.network == (NetworkPlan::Proxy { port: 0 }) {
            return Err(PlanError::ZeroPort);
        }
        if self.mode == Mode::DangerFullAccess
            && let Some(what) = self.needs_sandbox()
        {
            return Err(PlanError::NeedsSandbox { what });
        }
        match self.limits.zero() {
            Some(name) => Err(PlanError::ZeroLimit { name }),
            None => Ok(()),
        }
    }
}

impl Plan {
    /// Whether a bind covers a part of the workspace, or shows one in another place, where nothing of it would be protected.
    fn is_past_protection(&self, bind: &Bind) -> bool {
        let is_shown = match &self.workspace {
            Mount::Direct { host, inside } => {
                let rest = host.strip_prefix(&bind.host);
                bind.host.starts_with(host) || rest.is_ok_and(|rest| bind.inside.join(rest) != *inside)
            }
            Mount::None | Mount::Overlay { .. } => false,
        };
        is_shown || self.workspace.inside().is_some_and(|inside| bind.inside.starts_with(inside))
    }

    /// What of this plan is only held by a sandbox.
    fn needs_sandbox(&self) -> Option<&'static str> {
        let all = [
            (self.network != NetworkPlan::Off, "network rules"),
            (!self.hidden.is_empty(), "hidden paths"),
            (!self.readonly.is_empty(), "read-only paths"),
            (!self.protect.is_empty(), "protected paths"),
        ];
        all.into_iter().find(|(is_asked, _)| *is_asked).map(|(_, what)| what)
    }

    fn check_paths(&self) -> Result<(), PlanError> {
        let workspace = self.workspace.inside();
        for pattern in self.hidden.iter().chain(&self.readonly) {
            let Some(path) = pattern.literal_part(workspace) else {
                return Err(PlanError::NoWorkspace { pattern: pattern.clone() });
            };
            let is_reserved = RESERVED.iter().any(|reserved| path == Path::new(reserved))
                || RESERVED_TREES.iter().any(|reserved| path.starts_with(reserved))
                || workspace.is_some_and(|workspace| workspace.starts_with(&path));
            if is_reserved && (pattern.is_one_path() || path == Path::new("/")) {
                return Err(PlanError::Reserved { path });
            }
        }
        for path in &self.protect {
            if self.protected_path(path).is_none() {
                return Err(PlanError::NotInWorkspace { path: path.clone() });
            }
        }
        match self.unprotect.iter().find(|name| !GUARDED.contains(&name.as_str())) {
            Some(name) => Err(PlanError::NotGuarded { name: name.clone() }),
            None => Ok(()),
        }
    }

    /// A path of `protect`, relative to the workspace.
    pub(crate) fn protected_path<'p>(&self, path: &'p Path) -> Option<&'p Path> {
        let relative = if path.is_absolute() { path.strip_prefix(self.workspace.inside()?).ok()? } else { path };
        is_plain_relative(relative).then_some(relative)
    }

    /// The names that are protected at any depth of this plan's workspace.
    pub(crate) fn protected_names(&self) -> impl Iterator<Item = &'static str> {
        let kept = PROTECTED.into_iter().filter(|name| !(self.own_git && *name == ".git"));
        kept.chain(GUARDED.into_iter().filter(|name| !self.unprotect.iter().any(|lifted| lifted == name)))
    }
}

fn plain(path: &Path) -> Result<(), PlanError> {
    let Some(text) = path.to_str() else {
        return Err(PlanError::NotUtf8 { path: path.to_owned() });
    };
    let mut components = path.components();
    let starts_at_root = components.next() == Some(Component::RootDir);
    // `components` drops `.` and doubled slashes silently, so the text is compared as well.
    let is_normal = components.all(|component| matches!(component, Component::Normal(_)))
        && path.components().as_path().as_os_str().len() == text.len()
        && !text.contains("/./")
        && !text.ends_with("/.")
        && !text.contains("//")
        && !text.contains('\0');
    if starts_at_root && is_normal { Ok(()) } else { Err(PlanError::NotPlain { path: path.to_owned() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_have_stable_names() {
        for mode in [Mode::ReadOnly, Mode::WorkspaceWrite, Mode::DangerFullAccess] {
            assert_eq!(mode.to_string().parse(), Ok(mode));
            assert_eq!(serde_json::to_string(&mode).expect("a mode is plain data"), format!("\"{mode}\""));
        }
        assert!("full".parse::<Mode>().is_err());
    }

    #[test]
    fn a_plan_is_refused_before_anything_starts() {
        let direct =
            |inside: &str| Mount::Direct { host: PathBuf::from("/srv/project"), inside: PathBuf::from(inside) };
        type Change = fn(&mut Plan);
        let hidden = [
            ("**/.env", true),
            ("/opt/tool/secret", true),
            ("/usr", false),
            ("/proc/version", false),
            ("/workspace", false),
            ("/*/x", false),
        ];
        for (text, is_fine) in hidden {
            let mut plan = Plan::new(Mode::WorkspaceWrite);
            plan.workspace = direct("/workspace");
            plan.hidden.push(text.parse().expect("a pattern"));
            assert_eq!(plan.check().is_ok(), is_fine, "{text}: {:?}", plan.check());
            plan.mode = Mode::DangerFullAccess;
            assert!(plan.check().is_err(), "{text}");
        }
        let places = [
            ("/opt/tool", "/opt/tool", true),
            ("/opt/tool", "/workspace/tool", false),
            ("/opt/tool", "/workspaces/tool", true),
            ("/srv/project", "/opt/tool", false),
            ("/srv/project/nested", "/opt/tool", false),
            ("/srv", "/opt/tool", false),
            ("/srv/projects", "/opt/tool", true),
        ];
        for (host, inside, is_fine) in places {
            let mut plan = Plan::new(Mode::WorkspaceWrite);
            plan.workspace = direct("/workspace");
            plan.binds = vec![Bind { host: host.into(), inside: inside.into(), writable: true }];
            let expected = if is_fine { Ok(()) } else { Err(PlanError::PastProtection { path: inside.into() }) };
            assert_eq!(plan.check(), expected, "{host} at {inside}");
            plan.binds[0].writable = false;
            assert_eq!(plan.check(), Ok(()), "{host} at {inside}, to look at");
        }
        let mut plan = Plan::new(Mode::WorkspaceWrite);
        plan.workspace = direct("/srv/project");
        plan.binds = vec![Bind { host: "/srv".into(), inside: "/srv".into(), writable: true }];
        assert_eq!(plan.check(), Ok(()), "the workspace lies over that part");
        let cases: [(&str, Change, bool); 22] = [
            ("as it is", |_| {}, true),
            ("relative cwd", |plan| plan.cwd = "src".into(), false),
            ("dots in cwd", |plan| plan.cwd = "/workspace/../etc".into(), false),
            ("hidden dot", |plan| plan.cwd = "/workspace/./src".into(), false),
            ("doubled slash", |plan| plan.cwd = "/workspace//src".into(), false),
            ("over /usr", |plan| plan.binds[0].inside = "/usr".into(), false),
            ("in /proc", |plan| plan.binds[0].inside = "/proc/self/x".into(), false),
            ("in /etc", |plan| plan.binds[0].inside = "/etc/extra".into(), true),
            ("twice", |plan| plan.binds[0].inside = "/workspace".into(), false),
            ("equals sign", |plan| drop(plan.env.insert("A=B".into(), "c".into())), false),
            ("nul", |plan| drop(plan.env.insert("A".into(), "c\0d".into())), false),
            ("behind a proxy", |plan| plan.network = NetworkPlan::Proxy { port: 3128 }, true),
            ("port zero", |plan| plan.network = NetworkPlan::Proxy { port: 0 }, false),
            (
                "a proxy without a sandbox",
                |plan| {
                    plan.mode = Mode::DangerFullAccess;
                    plan.network = NetworkPlan::Proxy { port: 3128 };
                },
                false,
            ),
            ("a lifted guard", |plan| plan.unprotect.push(".vscode".into()), true),
            ("a lifted protection", |plan| plan.unprotect.push(".git".into()), false),
            ("hooks elsewhere", |plan| plan.protect.push("tools/hooks".into()), true),
            ("hooks outside", |plan| plan.protect.push("/etc/hooks".into()), false),
            ("hooks above", |plan| plan.protect.push("../hooks".into()), false),
            ("no time", |plan| plan.limits.wall = Duration::ZERO, false),
            ("no processor time", |plan| plan.limits.cpu = Duration::ZERO, false),
            ("no room", |plan| plan.limits.disk_bytes = 0, false),
        ];
        for (name, change, is_fine) in cases {
            let mut plan = Plan::new(Mode::WorkspaceWrite);
            plan.workspace = direct("/workspace");
            plan.binds = vec![Bind { host: "/opt/tool".into(), inside: "/opt/tool".into(), writable: false }];
            change(&mut plan);
            assert_eq!(plan.check().is_ok(), is_fine, "{name}: {:?}", plan.check());
        }
    }
}
