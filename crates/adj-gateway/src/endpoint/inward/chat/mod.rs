//! Callers that speak chat completions.

mod messages;
mod read;
mod write;

pub(in crate::endpoint) use read::read;
pub(in crate::endpoint) use write::Writer;
