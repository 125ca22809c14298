//! Callers that speak Google's generateContent API.

mod contents;
mod proto;
mod read;
mod schema;
mod write;

pub(in crate::endpoint) use read::read;
pub(in crate::endpoint) use write::Writer;
