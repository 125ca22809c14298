//! Callers that speak OpenAI's Responses API.

mod items;
mod read;
#[cfg(test)]
mod tests;
mod tools;
mod write;

pub(in crate::endpoint) use read::read;
pub(in crate::endpoint) use tools::Tools;
pub(in crate::endpoint) use write::Writer;
