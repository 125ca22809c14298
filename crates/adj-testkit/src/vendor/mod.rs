//! A model vendor on this machine: the three real wires over HTTP, with answers out of a script, and strict about requests.

mod check;
mod prefix;
mod render;
mod reply;
mod serve;

pub use reply::{Reply, TokenCounts};
pub use serve::{Asked, FakeVendor};

/// The protocols that the fake speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    Responses,
    Messages,
    Chat,
}

impl Wire {
    fn of_path(path: &str) -> Option<Self> {
        match path {
            "/v1/responses" => Some(Self::Responses),
            "/v1/messages" => Some(Self::Messages),
            "/v1/chat/completions" => Some(Self::Chat),
            _ => None,
        }
    }
}
