//! A model vendor on this machine: the four real wires over HTTP, with answers out of a script, and strict about requests.

mod check;
mod prefix;
mod render;
mod reply;
mod serve;

pub use render::gemini_signature;
pub use reply::{Reply, TokenCounts};
pub use serve::{Asked, FakeVendor};

/// The protocols that the fake speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    Responses,
    Messages,
    Chat,
    Gemini,
}

impl Wire {
    fn of_path(path: &str) -> Option<Self> {
        match path {
            "/v1/responses" => Some(Self::Responses),
            "/v1/messages" => Some(Self::Messages),
            "/v1/chat/completions" => Some(Self::Chat),
            _ => model_in(path).map(|_| Self::Gemini),
        }
    }
}

/// Returns the model that a path names, which is where Gemini's wire has it.
fn model_in(path: &str) -> Option<&str> {
    let named = path.strip_prefix("/v1beta/models/").or_else(|| path.strip_prefix("/v1/models/"))?;
    named.strip_suffix(":streamGenerateContent").or_else(|| named.strip_suffix(":generateContent"))
}
