//! Callers that speak Anthropic's Messages API.

mod content;
mod read;
mod write;

pub(in crate::endpoint) use read::read;
pub(in crate::endpoint) use write::{Writer, whole};
