//! An agent as it is kept, and its answer.

use super::{Model, Multiagent, RosterAgent, Tool};
use crate::{
    metadata::Metadata,
    read::Invalid,
    record::{Stamp, object},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// What a store keeps of a version of an agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AgentSpec {
    pub name: String,
    pub model: Model,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<Tool>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mcp_servers: Vec<McpServer>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub multiagent: Option<Multiagent>,
    #[serde(default, skip_serializing_if = "Metadata::is_empty")]
    pub metadata: Metadata,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct McpServer {
    pub name: String,
    pub url: String,
}

impl AgentSpec {
    /// The whole resource.
    pub fn answer(&self, stamp: &Stamp) -> Value {
        let mut agent = self.snapshot(&stamp.id, stamp.version);
        let multiagent = self.multiagent.as_ref();
        let multiagent =
            multiagent.map(|multiagent| multiagent.answer(|entry| reference(entry, &stamp.id, stamp.version)));
        agent.insert("multiagent".to_owned(), multiagent.into());
        agent.insert("metadata".to_owned(), json!(self.metadata));
        stamp.add_times(&mut agent);
        Value::Object(agent)
    }

    /// What sessions and threads show of it: no roster, no metadata, no times.
    pub(crate) fn snapshot(&self, id: &str, version: u64) -> Map<String, Value> {
        let servers = self.mcp_servers.iter();
        let servers: Vec<Value> =
            servers.map(|server| json!({"type": "url", "name": server.name, "url": server.url})).collect();
        object(json!({
            "id": id,
            "type": "agent",
            "version": version,
            "name": self.name,
            "model": self.model.answer(),
            "system": self.system,
            "description": self.description,
            "tools": self.tools.iter().map(Tool::answer).collect::<Vec<_>>(),
            "mcp_servers": servers,
            "skills": [],
            "execution_identity": {"type": "service_account"},
        }))
    }

    /// What no field shows alone: every server is used, and every set of tools has its server.
    pub(super) fn check(&self) -> Result<(), Invalid> {
        let mut names = BTreeSet::new();
        for (index, server) in self.mcp_servers.iter().enumerate() {
            if !names.insert(server.name.as_str()) {
                let why = format!("{:?} is there already", server.name);
                return Err(Invalid::new(format!("mcp_servers[{index}].name"), why));
            }
        }
        let used: BTreeSet<&str> = self.tools.iter().filter_map(Tool::server).collect();
        for (index, tool) in self.tools.iter().enumerate() {
            if let Some(server) = tool.server().filter(|server| !names.contains(server)) {
                let why = format!("{server:?} is none of the agent's mcp_servers");
                return Err(Invalid::new(format!("tools[{index}].mcp_server_name"), why));
            }
        }
        for (index, server) in self.mcp_servers.iter().enumerate() {
            if !used.contains(server.name.as_str()) {
                let why = format!("no mcp_toolset uses the server {:?}", server.name);
                return Err(Invalid::new(format!("mcp_servers[{index}]"), why));
            }
        }
        Ok(())
    }
}

/// What an agent's answer shows of its roster: one that was pinned has a version.
fn reference(entry: &RosterAgent, own_id: &str, own_version: u64) -> Value {
    match entry {
        RosterAgent::Agent { id, version } => json!({"type": "agent", "id": id, "version": version}),
        RosterAgent::Itself => json!({"type": "agent", "id": own_id, "version": own_version}),
    }
}
