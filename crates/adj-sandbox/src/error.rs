//! Which wall could not be built: the one error that crosses from a helper process to its caller.

use std::fmt;
use std::io;

use serde::{Deserialize, Serialize};

/// One of the layers that a sandbox is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layer {
    /// User, mount, pid, network, ipc, uts and cgroup namespaces.
    Namespaces,
    /// The private root and everything mounted into it.
    Mounts,
    /// The private layer over a shared workspace.
    Overlay,
    /// A `/proc` of its own.
    Proc,
    /// The loopback interface.
    Network,
    /// Resource limits.
    Limits,
    /// Dropping capabilities, no new privileges.
    Privileges,
    Landlock,
    Seccomp,
    /// Making what would run code outside unchangeable.
    Protection,
    /// The helper processes themselves.
    Helper,
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Layer::Namespaces => "namespaces",
            Layer::Mounts => "mounts",
            Layer::Overlay => "overlay workspace",
            Layer::Proc => "own /proc",
            Layer::Network => "network namespace",
            Layer::Limits => "resource limits",
            Layer::Privileges => "dropped privileges",
            Layer::Landlock => "Landlock",
            Layer::Seccomp => "seccomp",
            Layer::Protection => "protected folders",
            Layer::Helper => "helper process",
        })
    }
}

/// What goes without a sandbox, where one cannot be had.
pub const ACCEPTS_RISK: &str = "--sandbox danger-full-access";

impl Layer {
    /// What brings it to a machine that lacks it.
    pub fn fix(self) -> &'static str {
        match self {
            Layer::Namespaces | Layer::Mounts | Layer::Network | Layer::Privileges => {
                "let users make namespaces: `sysctl -w kernel.unprivileged_userns_clone=1 user.max_user_namespaces=10000 \
                 kernel.apparmor_restrict_unprivileged_userns=0` (those that exist; `user.max_*_namespaces` for each kind); \
                 in a container, a profile that permits `clone`, `unshare` and `mount`"
            }
            Layer::Proc => {
                "run outside of the container, or let it show all of /proc (`--security-opt systempaths=unconfined`)"
            }
            Layer::Landlock => "boot Linux 6.2 or newer with `landlock` in the `lsm=` list",
            Layer::Seccomp => "boot a kernel with seccomp filters (CONFIG_SECCOMP_FILTER)",
            Layer::Overlay => {
                "put ADJUTANT_HOME on a file system that overlayfs takes (ext4, xfs, btrfs), with Linux 5.11 or newer"
            }
            Layer::Limits => "raise the hard limits of the process that starts it (`ulimit -H`)",
            Layer::Protection => {
                "mend what the detail names, or work with `--sandbox read-only`, which protects nothing by name"
            }
            Layer::Helper => "look at what the detail names; the program must still be where it was started from",
        }
    }
}

/// A layer that is missing; the command did not run. Only `--sandbox danger-full-access` accepts to go without.
#[derive(Debug, thiserror::Error)]
#[error("the sandbox cannot be set up ({layer}): cannot {doing}")]
pub struct SetupError {
    pub layer: Layer,
    /// What was attempted, naming the path or thing.
    pub doing: String,
    pub source: io::Error,
}

impl SetupError {
    pub(crate) fn new(layer: Layer, doing: impl Into<String>, source: impl Into<io::Error>) -> SetupError {
        SetupError { layer, doing: doing.into(), source: source.into() }
    }

    pub(crate) fn to_wire(&self) -> SetupFailure {
        SetupFailure {
            layer: self.layer,
            doing: self.doing.clone(),
            errno: self.source.raw_os_error(),
            detail: self.source.to_string(),
        }
    }
}

/// [`SetupError`] as it travels between processes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SetupFailure {
    pub layer: Layer,
    pub doing: String,
    pub errno: Option<i32>,
    pub detail: String,
}

impl From<SetupFailure> for SetupError {
    fn from(failure: SetupFailure) -> SetupError {
        let source = match failure.errno {
            Some(errno) => io::Error::from_raw_os_error(errno),
            None => io::Error::other(failure.detail),
        };
        SetupError { layer: failure.layer, doing: failure.doing, source }
    }
}

/// Says what was being done when a system call fails.
pub(crate) trait Doing<T> {
    fn doing(self, layer: Layer, what: impl FnOnce() -> String) -> Result<T, SetupError>;
}

impl<T, E: Into<io::Error>> Doing<T> for Result<T, E> {
    fn doing(self, layer: Layer, what: impl FnOnce() -> String) -> Result<T, SetupError> {
        self.map_err(|source| SetupError::new(layer, what(), source))
    }
}
