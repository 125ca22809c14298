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
