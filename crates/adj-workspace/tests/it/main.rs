//! Real git repositories, real sandboxes, in folders of their own.

mod diff;
mod hostile;
mod isolation;
mod land;
mod merge;
mod prepare;
mod remove;
mod repository;
mod snapshot;
mod world;

/// This binary is also the sandbox helper that its own tests start.
#[ctor::ctor(unsafe)]
fn helper() {
    adj_sandbox::dispatch_helper(|_| 1);
}
