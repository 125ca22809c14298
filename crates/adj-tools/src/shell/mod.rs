//! The bash tool: one shell that stays open between commands.

mod run;

mod bash;
mod processes;

use processes::reap_orphans;

pub(crate) use bash::ShellPlan;
pub(crate) use run::{Commands, End, Run};

use std::hash::{BuildHasher, Hasher, RandomState};

/// A number that nobody can guess, from the keys that the standard library draws for its hash maps.
pub(crate) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
