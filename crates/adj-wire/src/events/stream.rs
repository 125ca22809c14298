//! Server-sent events: frames that every official library reads, and ours beside them.

use crate::error::ApiError;
use adj_domain::{EventId, Seq};
use serde_json::{Value, json};

/// Keeps a quiet connection open; it is a comment, which nobody delivers.
pub const PING: &str = ": ping\n\n";

/// A frame bears its event's name, because libraries drop those without. `seq` is where a client may resume.
pub fn frame(event: &Value, seq: Option<Seq>) -> String {
    let name = event["type"].as_str().unwrap_or("message");
    let id = seq.map(|seq| format!("id: {seq}\n")).unwrap_or_default();
    // JSON of one line: the writer puts none in, and escapes those inside of texts.
    format!("event: {name}\n{id}data: {event}\n\n")
}

/// An error that ends the stream; libraries raise it.
pub fn error_frame(error: &ApiError, request_id: &str) -> String {
    format!("event: error\ndata: {}\n\n", error.body(request_id))
}

/// For a client that resumes where nothing is any more: it has to list the events again. Official libraries never ask for it.
pub fn reset(why: &str) -> String {
    frame(&json!({"type": "stream.reset", "message": why}), None)
}

/// The event that is about to be written, before its text.
pub fn start(kind: &str, id: &EventId) -> String {
    frame(&json!({"type": "event_start", "event": {"type": kind, "id": id}}), None)
}

/// A piece of the text of the event's block `index`.
pub fn delta(id: &EventId, index: usize, text: &str) -> String {
    let content = json!({"type": "text", "text": text});
    let delta = json!({"type": "content_delta", "index": index, "content": content});
    frame(&json!({"type": "event_delta", "event_id": id, "delta": delta}), None)
}

/// Reads the header `Last-Event-ID`.
pub fn last_event_id(header: &str) -> Option<Seq> {
    let text = header.trim();
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}
