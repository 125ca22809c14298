//! The walls inside the walls: resource limits, no privileges, Landlock, seccomp.
//!
//! None of these relies on the mounts being right; each alone stops most of what the others stop.

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, RestrictionStatus, Ruleset,
    RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use super::seccomp;
use crate::error::{Doing, Layer, SetupError};
use crate::plan::{HOME, Mode, Plan};
use crate::sys;

/// Kernel 6.2, the first that controls truncation.
const OLDEST_LANDLOCK: i32 = 3;

/// Applies everything that holds for pid 1 and all it starts.
pub(super) fn apply(plan: &Plan) -> Result<(), SetupError> {
    limits(plan)?;
    sys::drop_capabilities().doing(Layer::Privileges, || "drop all capabilities".into())?;
    sys::set_no_new_privileges().doing(Layer::Privileges, || "refuse new privileges".into())?;
    landlock(plan)?;
    seccomp::apply()?;
    sys::set_not_dumpable().doing(Layer::Privileges, || "become untraceable".into())
}

/// One byte rather than none: the kernel hands a core dump to a piped handler whatever the limit is, except when it is exactly one;
/// and a file of one byte is never written.
pub(super) fn no_core_dumps() -> Result<(), SetupError> {
    sys::set_limit(libc::RLIMIT_CORE, 1).doing(Layer::Limits, || "refuse core dumps".into())
}

fn limits(plan: &Plan) -> Result<(), SetupError> {
    no_core_dumps()?;
    let limits = &plan.limits;
    let all = [
        (libc::RLIMIT_FSIZE, limits.file_size_bytes, "file size"),
        (libc::RLIMIT_NOFILE, limits.open_files, "open files"),
        // Counted per user namespace; does not bind the global root, for whom the watcher counts.
        (libc::RLIMIT_NPROC, limits.processes, "processes"),
        // Mapped is not used: thread stacks and arenas are mapped long before they are touched.
        (libc::RLIMIT_DATA, limits.memory_bytes.saturating_mul(2), "memory"),
    ];
    for (resource, value, name) in all {
        sys::set_limit(resource, value).doing(Layer::Limits, || format!("limit {name} to {value}"))?;
    }
    Ok(())
}

pub(super) fn landlock(plan: &Plan) -> Result<(), SetupError> {
    let abi = sys::landlock_abi();
    if abi < OLDEST_LANDLOCK {
        let found = if abi == 0 { "there is none".to_owned() } else { format!("there is only ABI {abi}") };
        return Err(io::Error::from_raw_os_error(libc::ENOSYS))
            .doing(Layer::Landlock, || format!("find Landlock ABI {OLDEST_LANDLOCK} (Linux 6.2) or newer, {found}"));
    }
    let status =
        landlock_rules(plan).map_err(io::Error::other).doing(Layer::Landlock, || "confine file access".into())?;
    if status.ruleset == RulesetStatus::NotEnforced {
        return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP))
            .doing(Layer::Landlock, || "have the rules enforced".into());
    }
    Ok(())
}

fn landlock_rules(plan: &Plan) -> Result<RestrictionStatus, RulesetError> {
    let read = AccessFs::Execute | AccessFs::ReadFile | AccessFs::ReadDir;
    // Device nodes can be made nowhere, and devices outside /dev take no ioctl.
    let all = AccessFs::from_all(ABI::V3);
    let write = all & !(AccessFs::MakeChar | AccessFs::MakeBlock);
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(all)?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::IoctlDev)?
        // Only to servers of this sandbox, and to sockets that were asked for.
        .handle_access(AccessFs::ResolveUnix)?
        .scope(Scope::from_all(ABI::V6))?
        .create()?;
    ruleset = allow(ruleset, Path::new("/"), read)?;
    for folder in ["/tmp", HOME, "/dev/shm"] {
        ruleset = allow(ruleset, Path::new(folder), write)?;
    }
    ruleset = allow(ruleset, Path::new("/dev"), AccessFs::WriteFile | AccessFs::IoctlDev)?;
    if plan.mode == Mode::WorkspaceWrite
        && let Some(inside) = plan.workspace.inside()
    {
        ruleset = allow(ruleset, inside, write)?;
    }
    for bind in plan.binds.iter().filter(|bind| bind.writable) {
        let access = if bind.inside.is_dir() { write } else { AccessFs::from_file(ABI::V3) };
        ruleset = allow(ruleset, &bind.inside, access)?;
    }
    if super::sockets::are_seen_to() {
        for bind in &plan.binds {
            let kind = std::fs::symlink_metadata(&bind.inside).map(|metadata| metadata.file_type());
            if kind.is_ok_and(|kind| kind.is_socket()) {
                ruleset = allow(ruleset, &bind.inside, AccessFs::ResolveUnix.into())?;
            }
        }
    }
    ruleset.restrict_self()
}

fn allow(ruleset: RulesetCreated, path: &Path, access: BitFlags<AccessFs>) -> Result<RulesetCreated, RulesetError> {
    let file = match PathFd::new(path) {
        Ok(file) => file,
        // A path that does not exist cannot be allowed; everything under it stays denied.
        Err(_) => return Ok(ruleset),
    };
    ruleset.add_rule(PathBeneath::new(file, access))
}
