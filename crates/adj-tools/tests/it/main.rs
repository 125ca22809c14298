//! The tools as callers use them: requests in, outcomes out.

mod bash;
mod files;
mod patch;
mod search;
mod support;
mod worker;

/// This very binary is the helper that a sandbox starts.
#[ctor::ctor(unsafe)]
fn helper() {
    adj_sandbox::dispatch_helper(adj_tools::worker);
}
