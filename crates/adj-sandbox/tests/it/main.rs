//! Everything that needs a kernel: real sandboxes, judged by what happened outside and not by exit codes.
//!
//! This test binary is its own sandbox helper, its own worker, and its own attacker.

mod attacker;
mod stage;
mod worker;

mod works;

mod escapes;
mod here;
mod limits;
mod network;
mod overlay;
mod paths;
mod protection;
mod sessions;
mod survey;

#[ctor::ctor(unsafe)]
fn helper() {
    adj_sandbox::dispatch_helper(worker::work);
    attacker::dispatch();
    sessions::dispatch_caller();
    survey::dispatch();
    here::dispatch_caller();
}
