//! Language toolchains in the user's home that commands inside a sandbox may use: read-only, and without any login file.

use adj_domain::SandboxMode;
use adj_sandbox::{Bind, HOME, Mode, Plan};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// Folders below the home that hold programs and libraries, and nothing secret. The flag says whether it goes on `PATH`.
const FOLDERS: [(&str, bool); 9] = [
    (".cargo/bin", true),
    (".rustup", false),
    (".pyenv", false),
    (".pyenv/shims", true),
    (".nvm/versions", false),
    (".local/share/mise/installs", false),
    (".bun/bin", true),
    (".deno/bin", true),
    ("go/bin", true),
];
/// Caches of packages that tools look for below their own home.
pub(crate) const CACHES: [&str; 3] = [".cargo/registry", ".cargo/git", "go/pkg/mod"];

/// A little more than the longest timeout that a tool may be given.
const LONGEST_CALL: Duration = Duration::from_secs(3_660);

/// The plan of a sandbox for work on a project, without its workspace: limits, environment, and the toolchains of `home`.
pub fn work_plan(mode: SandboxMode, home: Option<&Path>) -> Plan {
    let mut plan = Plan::new(match mode {
        SandboxMode::ReadOnly => Mode::ReadOnly,
        SandboxMode::WorkspaceWrite => Mode::WorkspaceWrite,
        SandboxMode::DangerFullAccess => Mode::DangerFullAccess,
    });
    // A tool has its own, shorter limit; this one ends what did not keep to it.
    plan.limits.wall = LONGEST_CALL;
    let Some(home) = home else { return plan };
    if mode == SandboxMode::DangerFullAccess {
        // Nothing is mounted there: the home is the user's own.
        plan.env.insert("HOME".to_owned(), home.display().to_string());
    }
    let mut path = Vec::new();
    let mut shown: Vec<PathBuf> = Vec::new();
    for (folder, on_path) in FOLDERS {
        let host = home.join(folder);
        if !host.is_dir() {
            continue;
        }
        if on_path {
            path.push(host.display().to_string());
        }
        if !shown.iter().any(|other| host.starts_with(other)) {
            plan.binds.push(Bind { inside: host.clone(), host: host.clone(), writable: false });
            shown.push(host);
        }
    }
    for cache in CACHES {
        let host = home.join(cache);
        if host.is_dir() {
            plan.binds.push(Bind { host, inside: Path::new(HOME).join(cache), writable: false });
        }
    }
    for (variable, folder) in [("RUSTUP_HOME", ".rustup"), ("PYENV_ROOT", ".pyenv")] {
        if home.join(folder).is_dir() {
            plan.env.insert(variable.to_owned(), home.join(folder).display().to_string());
        }
    }
    if mode == SandboxMode::DangerFullAccess {
        plan.binds.clear();
    } else {
        // Nothing can be fetched: cargo says so at once instead of waiting for a network.
        plan.env.insert("CARGO_NET_OFFLINE".to_owned(), "true".to_owned());
    }
    path.extend(plan.env.get("PATH").cloned());
    plan.env.insert("PATH".to_owned(), path.join(":"));
    plan
}
