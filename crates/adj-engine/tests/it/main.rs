//! Sessions at work: with real tools in real sandboxes, a scripted model, and stores that fail when they are told to.

mod approvals;
mod beyond;
mod budgets;
mod custom;
mod door;
mod faults;
mod grants;
mod hall;
mod hosted;
mod recovery;
mod secrets;
mod sessions;
mod tls;
mod world;

/// This binary is also the sandbox helper that its own tests start, and what they run inside as a client.
#[ctor::ctor(unsafe)]
fn helper() {
    adj_sandbox::dispatch_helper(adj_tools::worker);
    tls::dispatch_client();
}
