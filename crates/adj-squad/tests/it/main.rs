//! A run from prompt to merge: as a table, as a property, word for word, and once for real.

mod failing;
mod for_real;
mod prompts;
mod properties;
mod situations;
mod world;

/// This binary is also the sandbox helper that its own tests start.
#[ctor::ctor(unsafe)]
fn helper() {
    adj_sandbox::dispatch_helper(adj_tools::worker);
}
