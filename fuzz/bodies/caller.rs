//! Reads a request of a caller: it is refused, or it becomes an orderly conversation that every vendor can be asked to go on
//! with.
//!
//! The first byte chooses the wire (`m`: Messages, `c`: chat, `g`: Gemini, else Responses).

use adj_domain::{EventId, Item, ModelRequest, SessionId};
use adj_gateway::endpoint::{Wire, understand};
use adj_providers::{anthropic, chat, gemini, openai};
use std::collections::BTreeSet;

pub fn run(data: &[u8]) {
    let [wire, body @ ..] = data else { return };
    let wire = match wire {
        b'm' => Wire::Messages,
        b'c' => Wire::Chat,
        b'g' => Wire::Gemini,
        _ => Wire::Responses,
    };
    let model = "vendor/claude-x".parse().expect("it names a model");
    let session = SessionId::derive(&["fuzz"]);
    let Ok((request, losses)) = understand(wire, body, &model, &session) else { return };
    assert_eq!(understand(wire, body, &model, &session), Ok((request.clone(), losses)), "it is the same each time");
    is_orderly(&request);
    // What a wire has no words for is refused; nothing else may happen.
    let _ = anthropic::encode(&request);
    let _ = openai::encode(&request);
    let _ = chat::encode(&request, chat::Variant::Compatible);
    let _ = gemini::encode(&request);
}

fn is_orderly(request: &ModelRequest) {
    let mut called = BTreeSet::new();
    let mut open: Vec<&EventId> = Vec::new();
    let mut is_answering = false;
    for item in &request.items {
        match item {
            Item::ToolCall { id, .. } => {
                assert!(called.insert(id), "two calls have one id");
                assert!(!is_answering || open.is_empty(), "a call stands among results");
                is_answering = false;
                open.push(id);
            }
            Item::ToolResult { call, .. } => {
                assert!(!open.is_empty() && open.remove(0) == call, "a result is out of its place");
                is_answering = true;
            }
            Item::User { content } => {
                assert!(open.is_empty(), "somebody speaks before all calls are answered");
                assert!(!content.is_empty(), "somebody says nothing");
            }
            Item::Assistant { text } => assert!(!text.trim().is_empty(), "the model says nothing"),
            Item::Reasoning { .. } => {}
        }
    }
    assert!(open.is_empty(), "a call is not answered");
    assert!(matches!(request.items.last(), Some(Item::User { .. } | Item::ToolResult { .. })), "nobody asks");
    assert!(request.max_output_tokens > 0, "nothing may be answered");
}
