//! Finds out what this machine can do by really doing it.

use std::path::Path;

use serde::Serialize;

use crate::error::{Layer, SetupError};
use crate::helper::limit_mechanism;
use crate::launch::{Command, Launcher, RunError};
use crate::plan::{Mode, Mount, Plan};
use crate::survey::landlock_lacks;
use crate::sys;

/// What a sandbox on this machine is made of. Namespaces, Landlock and seccomp are there, or the probe would have failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Capabilities {
    pub landlock_abi: i32,
    /// What this Landlock ABI does not control yet; other walls do.
    pub landlock_lacks: Vec<&'static str>,
    /// Why overlay workspaces cannot be used; plain folders can.
    pub overlay_missing: Option<String>,
    /// What enforces memory and process limits: the words of [`limit_mechanism`].
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
        let plan = Plan::new(Mode::WorkspaceWrite);
        self.run(&plan, &Command::new(["true"])).await?;
        let landlock_abi = landlock_abi();
        let overlay_missing = self.try_overlay(scratch).await?.err();
        Ok(Capabilities {
            landlock_abi,
            landlock_lacks: landlock_lacks(landlock_abi),
            overlay_missing,
            limits: limit_mechanism().text(),
        })
    }

    /// Runs a command over an overlay below `scratch`; the inner error says why overlays do not work.
    pub(crate) async fn try_overlay(&self, scratch: &Path) -> Result<Result<(), String>, RunError> {
        let folder = match make_layers(scratch) {
            Err(error) => return Ok(Err(error.to_string())),
            Ok(folder) => folder,
        };
        let at = |name: &str| folder.join(name);
        let mut plan = Plan::new(Mode::WorkspaceWrite);
        plan.workspace =
            Mount::Overlay { lower: at("lower"), upper: at("upper"), work: at("work"), inside: "/workspace".into() };
        let write = Command::new(["/bin/sh", "-c", "echo probe >/workspace/file"]);
        let result = self.run(&plan, &write).await;
        remove_layers(&folder);
        match result {
            Ok(finished) if finished.exit.is_success() => Ok(Ok(())),
            Ok(finished) => Ok(Err(format!("writing to it failed: {:?}", finished.exit))),
            Err(RunError::Setup(SetupError { layer: Layer::Overlay, doing, source })) => {
                Ok(Err(format!("cannot {doing}: {source}")))
            }
            Err(error) => Err(error),
        }
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
