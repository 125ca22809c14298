//! Creating an agent and changing it. An agent that is created is an empty one, changed.

use super::{
    AgentSpec, McpServer, Model, Multiagent,
    tools::{Tool, read_tools},
};
use crate::{
    abilities::Abilities,
    metadata::{self, Empty, MetadataPatch},
    query::{Limits, Paging, Query, TimeRange},
    read::{Change, Invalid, Node, Object},
};
use serde_json::Value;

const LONGEST_SYSTEM: usize = 100_000;
const MOST_SERVERS: usize = 20;

/// What is said of an agent's fields: by an update, by a session's overrides.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentPatch {
    pub name: Option<String>,
    pub model: Option<Model>,
    pub system: Change<String>,
    pub description: Change<String>,
    pub tools: Option<Vec<Tool>>,
    pub mcp_servers: Option<Vec<McpServer>>,
    pub metadata: MetadataPatch,
}

impl Default for AgentPatch {
    fn default() -> Self {
        Self {
            name: None,
            model: None,
            system: Change::Keep,
            description: Change::Keep,
            tools: None,
            mcp_servers: None,
            metadata: MetadataPatch::default(),
        }
    }
}

impl AgentPatch {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The agent after it.
    pub fn apply(&self, current: &AgentSpec) -> Result<AgentSpec, Invalid> {
        let spec = AgentSpec {
            name: self.name.clone().unwrap_or_else(|| current.name.clone()),
            model: self.model.clone().unwrap_or_else(|| current.model.clone()),
            system: self.system.clone().over(current.system.clone()),
            description: self.description.clone().over(current.description.clone()),
            tools: self.tools.clone().unwrap_or_else(|| current.tools.clone()),
            mcp_servers: self.mcp_servers.clone().unwrap_or_else(|| current.mcp_servers.clone()),
            multiagent: current.multiagent.clone(),
            metadata: self.metadata.apply(&current.metadata)?,
        };
        spec.check()?;
        Ok(spec)
    }
}

/// An update, applied.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentUpdate {
    /// The version that the client believes to be the newest, where it cares.
    pub expected_version: Option<u64>,
    /// Equal to the current one where nothing changes: then there is no new version.
    pub spec: AgentSpec,
}

/// Reads the body of `POST /v1/agents`.
pub fn create(body: &Value, can: Abilities) -> Result<AgentSpec, Invalid> {
    let fields = Node::root(body).object()?;
    refuse_always(&fields)?;
    let spec = AgentSpec {
        name: read_name(&fields.need("name")?)?,
        model: Model::read(&fields.need("model")?)?,
        system: read_text(&fields, "system", LONGEST_SYSTEM)?.over(None),
        description: read_text(&fields, "description", 2_048)?.over(None),
        tools: read_tools_of(&fields, can)?.unwrap_or_default(),
        mcp_servers: read_servers(&fields, can)?.unwrap_or_default(),
        multiagent: fields.get("multiagent").map(|node| Multiagent::read(&node, None, can)).transpose()?,
        metadata: metadata::read(&fields)?,
    };
    spec.check()?;
    Ok(spec)
}

/// Reads the body of `POST /v1/agents/{id}`.
pub fn update(body: &Value, current: &AgentSpec, can: Abilities) -> Result<AgentUpdate, Invalid> {
    let fields = Node::root(body).object()?;
    refuse_always(&fields)?;
    let patch = AgentPatch {
        name: cannot_clear(&fields, "name")?.map(|node| read_name(&node)).transpose()?,
        description: read_text(&fields, "description", 2_048)?,
        metadata: metadata::read_patch(&fields, Empty::IsValue)?,
        ..read_patch(&fields, can)?
    };
    let mut spec = patch.apply(current)?;
    spec.multiagent = match fields.change("multiagent") {
        Change::Keep => spec.multiagent,
        Change::Clear => None,
        Change::Set(node) => Some(Multiagent::read(&node, current.multiagent.as_ref(), can)?),
    };
    let expected_version = fields.get("version").map(|version| version.number(1..=u64::MAX)).transpose()?;
    Ok(AgentUpdate { expected_version, spec })
}

/// What a session changes of the agent that it starts from.
pub(crate) fn read_overrides(fields: &Object<'_>, can: Abilities) -> Result<AgentPatch, Invalid> {
    fields.refuse("skills", "skills are")?;
    read_patch(fields, can)
}

/// What a session may change later.
pub(crate) fn read_tools_patch(fields: &Object<'_>, can: Abilities) -> Result<AgentPatch, Invalid> {
    for name in ["model", "system", "skills", "name", "description", "multiagent", "id", "version"] {
        if !fields.change(name).is_keep() {
            return Err(fields.wrong(name, "cannot be changed in a session: only tools and mcp_servers can"));
        }
    }
    let (tools, mcp_servers) = (read_tools_of(fields, can)?, read_servers(fields, can)?);
    Ok(AgentPatch { tools, mcp_servers, ..AgentPatch::default() })
}

fn read_patch(fields: &Object<'_>, can: Abilities) -> Result<AgentPatch, Invalid> {
    Ok(AgentPatch {
        model: cannot_clear(fields, "model")?.map(|node| Model::read(&node)).transpose()?,
        system: read_text(fields, "system", LONGEST_SYSTEM)?,
        tools: read_tools_of(fields, can)?,
        mcp_servers: read_servers(fields, can)?,
        ..AgentPatch::default()
    })
}

fn refuse_always(fields: &Object<'_>) -> Result<(), Invalid> {
    fields.refuse("skills", "skills are")?;
    let Some(identity) = fields.get("execution_identity") else { return Ok(()) };
    match identity.object()?.kind(&[("service_account", true), ("aws_role", false)])? {
        true => Ok(()),
        false => Err(identity.unsupported("an aws_role as the execution identity is")),
    }
}

fn cannot_clear<'a>(fields: &Object<'a>, name: &str) -> Result<Option<Node<'a>>, Invalid> {
    match fields.change(name) {
        Change::Keep => Ok(None),
        Change::Clear => Err(fields.wrong(name, "cannot be cleared")),
        Change::Set(node) => Ok(Some(node)),
    }
}

fn read_name(node: &Node<'_>) -> Result<String, Invalid> {
    node.text_of(1..=256).map(str::to_owned)
}

/// A text that null and the empty text clear.
fn read_text(fields: &Object<'_>, name: &str, longest: usize) -> Result<Change<String>, Invalid> {
    Ok(match fields.change(name) {
        Change::Keep => Change::Keep,
        Change::Clear => Change::Clear,
        Change::Set(node) => match node.text_of(0..=longest)? {
            "" => Change::Clear,
            text => Change::Set(text.to_owned()),
        },
    })
}

fn read_tools_of(fields: &Object<'_>, can: Abilities) -> Result<Option<Vec<Tool>>, Invalid> {
    match fields.change("tools") {
        Change::Keep => Ok(None),
        Change::Clear => Ok(Some(Vec::new())),
        Change::Set(node) => read_tools(&node, can).map(Some),
    }
}

fn read_servers(fields: &Object<'_>, can: Abilities) -> Result<Option<Vec<McpServer>>, Invalid> {
    let node = match fields.change("mcp_servers") {
        Change::Keep => return Ok(None),
        Change::Clear => return Ok(Some(Vec::new())),
        Change::Set(node) => node,
    };
    let entries = node.list_up_to(MOST_SERVERS)?;
    if !entries.is_empty() && !can.mcp {
        return Err(node.unsupported("MCP servers are"));
    }
    let read = |entry: &Node<'_>| {
        let fields = entry.object()?;
        fields.kind(&[("url", ())])?;
        let name = fields.need("name")?.text_of(1..=255)?.to_owned();
        let url = fields.need("url")?;
        let text = url.text_of(1..=2_048)?;
        if !["http://", "https://"].iter().any(|scheme| text.starts_with(scheme)) {
            return Err(url.wrong("must be an http or https URL"));
        }
        Ok(McpServer { name, url: text.to_owned() })
    };
    entries.iter().map(read).collect::<Result<_, _>>().map(Some)
}

/// Which agents are listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentsQuery {
    pub paging: Paging,
    pub include_archived: bool,
    pub created: TimeRange,
}

impl AgentsQuery {
    pub fn read(query: &Query) -> Result<Self, Invalid> {
        Ok(Self {
            paging: query.paging(Limits::USUAL)?,
            include_archived: query.boolean("include_archived")?.unwrap_or(false),
            created: query.times("created_at")?,
        })
    }

    /// The `version` of `GET /v1/agents/{id}`.
    pub fn version(query: &Query) -> Result<Option<u64>, Invalid> {
        query.number("version", 1..=u64::MAX)
    }
}
