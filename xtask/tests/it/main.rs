//! What this program does for the other rooms, seen from outside.

#[path = "../../../fuzz/bodies/mod.rs"]
mod bodies;

mod gateway;
mod seeds;
