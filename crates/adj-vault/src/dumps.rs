//! Keeps the memory of a process that holds secrets from being written to disk when it dies.

use rustix::process::{Resource, Rlimit, setrlimit};
use std::io;

/// From here on this process leaves no core dump, and no other process of its user may read its memory or attach to it.
///
/// Two things follow. The limit is inherited by every child and cannot be raised again by an ordinary user. And on Linux the files of this process in `/proc`
/// belong to root: it still reads its own (`/proc/self/exe`, `/proc/self/fd/…`), but as an ordinary user neither it nor others can write
/// them (`/proc/self/uid_map`, `oom_score_adj`) or read `environ`, `maps` and `mem` of it from outside. A child is an ordinary process again as soon as it
/// has executed a program.
pub fn forbid_core_dumps() -> io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    #[cfg(target_os = "linux")]
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    Ok(())
}
