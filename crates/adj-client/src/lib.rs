//! Talking to a daemon, over its Unix socket or HTTP, and starting one where there is none.
//!
//! Must not know: how requests are served, the domain's internals, or what the daemon's program is called.
//! Start at [`Client`]; a [`Place`] is where a daemon of this machine is found, and [`Client::connect_or_start`] makes sure that
//! there is one.

mod client;
mod connection;
mod place;
mod start;

pub use client::{Client, ClientError};
pub use connection::Answer;
pub use place::{Holder, Place};
pub use start::{Start, StartError};
