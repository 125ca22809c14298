//! One agent at work: what its prompt is, what it does next, when its turn is over.
//!
//! Must not know: other agents, HTTP, SQL, processes, or the time.
//! Start at [`decide`]: every step of the native loop is one call of it.

mod approval;
mod compaction;
mod decide;
mod output;
mod policy;
mod prompt;
mod request;

pub use decide::{Decision, Effect, Input, can_wake, decide};
pub use output::{OutputError, check_output};
pub use policy::{Judge, by_sandbox};
pub use prompt::{EnvironmentFacts, Instructions, assemble};
pub use request::{build_request, prompt_record};
