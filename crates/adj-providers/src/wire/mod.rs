//! The vendors' own protocols, one module each: a pure encoder and a decoder.

pub mod anthropic;
pub mod chat;
pub mod openai;

/// A request in a vendor's own words, without address and credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// The path below the vendor's base URL.
    pub path: &'static str,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

impl Encoded {
    fn new(path: &'static str, body: &serde_json::Value) -> Self {
        let headers = vec![("content-type", "application/json".to_owned()), ("accept", "text/event-stream".to_owned())];
        Self { path, headers, body: body.to_string().into_bytes() }
    }
}

/// Returns a reasoning record, if this vendor and model may see it.
fn own_reasoning<'a>(item: &'a adj_domain::Item, request: &adj_domain::ModelRequest) -> Option<&'a serde_json::Value> {
    match item {
        adj_domain::Item::Reasoning { vendor, model, payload }
            if *vendor == request.model.vendor && *model == request.model.name =>
        {
            Some(payload)
        }
        _ => None,
    }
}
