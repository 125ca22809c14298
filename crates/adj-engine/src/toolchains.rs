//! Language toolchains in the user's home that commands inside a sandbox may use: read-only, and without any login file.

use adj_sandbox::{Bind, HOME, Plan};
use std::path::Path;

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
const CACHES: [(&str, &str); 3] =
    [(".cargo/registry", ".cargo/registry"), (".cargo/git", ".cargo/git"), ("go/pkg/mod", "go/pkg/mod")];

/// Shows what `home` has of them inside, at the same paths.
pub fn add_toolchains(plan: &mut Plan, home: Option<&Path>) {
    let Some(home) = home else { return };
    let mut path = Vec::new();
    let mut shown: Vec<std::path::PathBuf> = Vec::new();
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
    for (cache, inside) in CACHES {
        let host = home.join(cache);
        if host.is_dir() {
            plan.binds.push(Bind { host, inside: Path::new(HOME).join(inside), writable: false });
        }
    }
    if home.join(".rustup").is_dir() {
        plan.env.insert("RUSTUP_HOME".to_owned(), home.join(".rustup").display().to_string());
    }
    if home.join(".pyenv").is_dir() {
        plan.env.insert("PYENV_ROOT".to_owned(), home.join(".pyenv").display().to_string());
    }
    // Builds cannot fetch anything: tools that know of it say so at once instead of waiting for a network.
    plan.env.insert("CARGO_NET_OFFLINE".to_owned(), "true".to_owned());
    if let Some(known) = plan.env.get("PATH") {
        path.push(known.clone());
    }
    plan.env.insert("PATH".to_owned(), path.join(":"));
}
