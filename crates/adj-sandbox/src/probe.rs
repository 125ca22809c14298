//! Finds out what this machine can do by really doing it.

use std::path::Path;

use serde::Serialize;

use crate::error::{Layer, SetupError};
use crate::launch::{Command, Launcher, RunError};
use crate::plan::{Mode, Mount, Plan};
use crate::sys;

/// What a sandbox on this machine is made of. Namespaces, Landlock and seccomp are there, or the probe would have failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Capabilities {
    pub landlock_abi: i32,
    /// What this Landlock ABI does not control yet; other walls do.
    pub landlock_lacks: Vec<&'static str>,
    /// Why overlay workspaces cannot be used; plain folders can.
    pub overlay_missing: Option<String>,
    /// What enforces memory and process limits.
    pub limits: &'static str,
}

/// The newest Landlock ABI that the kernel has; 0 when there is none.
pub fn landlock_abi() -> i32 {
    sys::landlock_abi()
}

impl Launcher {
    /// Builds a sandbox and runs `true` in it, then does the same over an overlay below `scratch`, an existing folder on the file system
    /// where workspaces will lie.
    ///
    /// The error names the missing layer; going without is possible only with `--sandbox danger-full-access`.
    pub async fn probe(&self, scratch: &Path) -> Result<Capabilities, RunError> {
        let mut plan = Plan::new(Mode::WorkspaceWrite);
        self.run(&plan, &Command::new(["true"])).await?;
        let lacks = [
            (4, "TCP ports (the network namespace does)"),
            (5, "device commands (the private /dev and seccomp do)"),
            (6, "abstract sockets and signals (namespaces do)"),
        ];
        let landlock_abi = landlock_abi();
        let overlay_missing = match make_layers(scratch) {
            Err(error) => Some(error.to_string()),
            Ok(folder) => {
                let at = |name: &str| folder.join(name);
                plan.workspace = Mount::Overlay {
                    lower: at("lower"),
                    upper: at("upper"),
                    work: at("work"),
                    inside: "/workspace".into(),
                };
                let write = Command::new(["/bin/sh", "-c", "echo probe >/workspace/file"]);
                let result = self.run(&plan, &write).await;
                remove_layers(&folder);
                match result {
                    Ok(finished) if finished.exit.is_success() => None,
                    Ok(finished) => Some(format!("writing to it failed: {:?}", finished.exit)),
                    Err(RunError::Setup(SetupError { layer: Layer::Overlay, doing, source })) => {
                        Some(format!("cannot {doing}: {source}"))
                    }
                    Err(error) => return Err(error),
                }
            }
        };
        Ok(Capabilities {
            landlock_abi,
            landlock_lacks: lacks.into_iter().filter(|(abi, _)| landlock_abi < *abi).map(|(_, what)| what).collect(),
            overlay_missing,
            limits: "rlimits, and the tree's memory and size looked at every 50 ms",
        })
    }
}

fn make_layers(scratch: &Path) -> std::io::Result<std::path::PathBuf> {
    let folder = scratch.join(format!("probe-{}", std::process::id()));
    for name in ["lower", "upper", "work"] {
        std::fs::create_dir_all(folder.join(name))?;
    }
    Ok(folder)
}

fn remove_layers(folder: &Path) {
    use std::os::unix::fs::PermissionsExt;
    // The kernel leaves a folder in `work` that nobody may enter.
    let inner = folder.join("work/work");
    let _ = std::fs::set_permissions(&inner, std::fs::Permissions::from_mode(0o700));
    let _ = std::fs::remove_dir_all(folder);
}
