//! What each fuzz target does with its input, so that the tests can do the same with the seeds.
//!
//! A body panics when something that must hold does not.

pub mod caller;
pub mod command;
pub mod egress;
pub mod journal;
pub mod limits;
pub mod patch;
pub mod policy;
pub mod provider_stream;
pub mod rules;
