//! Requests that the tests share.

use adj_domain::{Caller, Content, EventId, Item, ModelRef, ModelRequest, Purpose, SessionId, ToolSpec};
use serde_json::{Value, json};

pub fn event_id(name: &str) -> EventId {
    EventId::derive(&["test", name])
}

pub fn user(text: &str) -> Item {
    Item::User { content: vec![Content::text(text)] }
}

pub fn assistant(text: &str) -> Item {
    Item::Assistant { text: text.to_owned() }
}

pub fn call(id: &str, name: &str, input: Value) -> Item {
    Item::ToolCall { id: event_id(id), name: name.to_owned(), input }
}

pub fn result(id: &str, text: &str) -> Item {
    Item::ToolResult { call: event_id(id), content: vec![Content::text(text)], is_error: false }
}

pub fn request(model: &str, items: Vec<Item>) -> ModelRequest {
    ModelRequest {
        model: model.parse::<ModelRef>().expect("a test's model has a name"),
        purpose: Purpose::Step,
        caller: Caller {
            session: SessionId::derive(&["test"]),
            run: None,
            agent: "builder".to_owned(),
            role: "specialist".to_owned(),
            turn: 1,
            step: 0,
        },
        system: "You fix programs.".to_owned(),
        items,
        tools: vec![
            ToolSpec {
                name: "bash".to_owned(),
                description: "Runs a command.".to_owned(),
                input_schema: json!({"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]}),
            },
            ToolSpec {
                name: "read".to_owned(),
                description: "Reads a file.".to_owned(),
                input_schema: json!({"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]}),
            },
        ],
        max_output_tokens: 4096,
        output_schema: None,
        effort: None,
        sampling: Default::default(),
    }
}

/// A conversation with one of everything; reasoning of every vendor, of which each may see only its own.
pub fn conversation() -> Vec<Item> {
    let reasoning = |vendor: &str, model: &str, payload| Item::Reasoning {
        vendor: vendor.to_owned(),
        model: model.to_owned(),
        payload,
    };
    vec![
        Item::User {
            content: vec![
                Content::text("What is wrong here?"),
                Content::Image { media_type: "image/png".to_owned(), data: "iVBORw0KGgo=".to_owned() },
            ],
        },
        reasoning(
            "anthropic",
            "claude-sonnet-4-5",
            json!({"type": "thinking", "thinking": "Look first.", "signature": "c2ln"}),
        ),
        reasoning("anthropic", "claude-of-old", json!({"type": "redacted_thinking", "data": "never"})),
        reasoning(
            "openai",
            "gpt-5.5",
            json!({"id": "rs_1", "type": "reasoning", "status": null, "summary": [], "encrypted_content": "ZW5j"}),
        ),
        reasoning("openai", "gpt-5.5", json!({"id": "rs_2", "type": "reasoning", "summary": []})),
        reasoning("openai-chat", "local", json!({"reasoning_content": "Look first."})),
        reasoning("gemini", "gemini-3.8-flash", json!({"thought": "Look first."})),
        assistant("I shall look."),
        reasoning("gemini", "gemini-3.8-flash", json!({"thoughtSignature": "c2lnbmVk"})),
        call("one", "bash", json!({"command": "ls -1"})),
        call("two", "read", json!({"path": "a \"b\"\né"})),
        result("one", "main.rs\n"),
        Item::ToolResult {
            call: event_id("two"),
            content: vec![
                Content::text("a picture"),
                Content::Image { media_type: "image/png".to_owned(), data: "iVBORw0KGgo=".to_owned() },
            ],
            is_error: true,
        },
        user("And hurry."),
        reasoning("gemini", "gemini-3.8-flash", json!({"thoughtSignature": "YmVoaW5k", "from": 20})),
        assistant("It is the semicolon."),
        user("Thanks."),
        user("Now fix it."),
    ]
}
