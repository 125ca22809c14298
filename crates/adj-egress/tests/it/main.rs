//! The door as programs inside and hosts outside see it: real sockets, real TLS, hosts of our own on loopback.

mod names;
mod opened;
mod requests;
mod secrets;
mod seeds;
mod stage;
mod tunnels;
