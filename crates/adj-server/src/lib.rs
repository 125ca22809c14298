//! The HTTP face of a daemon: listeners, who may call, routes, and an end that nobody falls off.
//!
//! Must not know: how a decision is made, terminals, or how a daemon is started.
//! Start at [`Server`], which serves [`Routes`] behind a [`listen::Door`]. What a request goes through, in this order: its host and
//! origin and its caller (`gate`), its route, its body, its handler. Whoever adds a route writes a function from a [`Call`] to a
//! [`Reply`] or an [`ApiError`](adj_wire::ApiError); [`models`] is an example.

mod server;

mod body;
mod connection;
mod gate;
mod reply;
mod route;

pub mod listen;
mod seat;
mod token;

pub mod admin;
pub mod models;

pub use gate::{Caller, Who};
pub use reply::Reply;
pub use route::{Access, Call, Routes};
pub use seat::{Holder, Seat, SeatError};
pub use server::{Bounds, Gauges, Parts, Server};
pub use token::{NewToken, Scope, Token, TokenError, TokenFile, Tokens};
