//! Callers that speak OpenAI's Responses API.

mod items;
mod read;
mod write;

pub(in crate::endpoint) use read::read;
pub(in crate::endpoint) use write::Writer;
