//! Bodies and moments that many tests use.

use adj_domain::Timestamp;
use adj_wire::{
    Abilities, Invalid, Stamp,
    agents::{self, AgentSpec},
};
use serde_json::{Value, json};
use std::fmt::Debug;

pub fn moment(seconds: i64) -> Timestamp {
    let start: Timestamp = "2026-01-02T03:04:05.678Z".parse().unwrap();
    Timestamp::from_millisecond(start.as_millisecond() + seconds * 1_000).unwrap()
}

pub fn stamp(id: &str) -> Stamp {
    Stamp { id: id.to_owned(), version: 2, created_at: moment(0), updated_at: moment(60), archived_at: None }
}

pub fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap()
}

/// What came of each body, a line each.
pub fn outcomes<T: Debug>(bodies: &[Value], read: impl Fn(&Value) -> Result<T, Invalid>) -> String {
    let line = |body: &Value| {
        let shown = body.to_string();
        let shown: String = if shown.len() > 200 { format!("{}…", &shown[..200]) } else { shown };
        match read(body) {
            Ok(_) => format!("{shown}\n    is taken\n"),
            Err(invalid) => {
                let code = invalid.code.map(|code| format!(" ({})", code.as_str())).unwrap_or_default();
                format!("{shown}\n    {invalid}{code}\n")
            }
        }
    };
    bodies.iter().map(line).collect()
}

/// `base`, with each of these fields in turn put in place of its own.
pub fn variants(base: &Value, fields: Value) -> Vec<Value> {
    let Value::Array(fields) = fields else { panic!("a list of objects") };
    let with = |extra: Value| {
        let mut body = base.clone();
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        body
    };
    fields.into_iter().map(with).collect()
}

pub fn whole_agent() -> Value {
    json!({
        "name": "Reviewer",
        "model": {"id": "anthropic/claude-sonnet-4-5", "effort": "xhigh", "speed": "standard"},
        "system": "Review.",
        "description": "Reads what others wrote.",
        "tools": [
            {
                "type": "agent_toolset_20260401",
                "default_config": {"permission_policy": {"type": "always_ask"}},
                "configs": [
                    {"name": "read", "permission_policy": {"type": "always_allow"}},
                    {"name": "bash", "enabled": false},
                ],
            },
            {"type": "mcp_toolset", "mcp_server_name": "tickets", "configs": [{"name": "find", "enabled": true}]},
            {
                "type": "custom",
                "name": "weather",
                "description": "The weather of a place.",
                "input_schema": {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]},
            },
        ],
        "mcp_servers": [{"type": "url", "name": "tickets", "url": "https://mcp.example.org/"}],
        "skills": [],
        "multiagent": {"type": "coordinator", "agents": ["agent_b", {"type": "agent", "id": "agent_c", "version": 3}, {"type": "self"}]},
        "metadata": {"team": "a"},
        "execution_identity": {"type": "service_account"},
    })
}

pub fn whole_spec() -> AgentSpec {
    let mut spec = agents::create(&whole_agent(), Abilities::ALL).unwrap();
    // Whoever keeps it pins the versions.
    for entry in spec.multiagent.as_mut().and_then(|roster| roster.roster_mut()).unwrap() {
        if let agents::RosterAgent::Agent { version: version @ None, .. } = entry {
            *version = Some(1);
        }
    }
    spec
}

pub fn plain_spec() -> AgentSpec {
    let body = json!({"name": "Plain", "model": "openai/gpt-5", "tools": [{"type": "agent_toolset_20260401"}]});
    agents::create(&body, Abilities::default()).unwrap()
}
