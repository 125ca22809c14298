//! The body of `POST /v1/sessions`.

use super::resources::{NewResource, read_resources};
use crate::{
    abilities::Abilities,
    agents::{AgentPatch, AgentSpec, read_overrides},
    events::{ClientEvent, read_initial_events},
    metadata::{self, Metadata},
    read::{Invalid, Node},
    usage::Cents,
};
use serde_json::Value;

pub(super) const LONGEST_TITLE: usize = 1_024;

#[derive(Debug, Clone, PartialEq)]
pub struct NewSession {
    pub agent: AgentChoice,
    pub environment_id: String,
    pub title: Option<String>,
    pub metadata: Metadata,
    pub resources: Vec<NewResource>,
    /// With any of these the session starts running.
    pub initial_events: Vec<ClientEvent>,
    pub budget: Option<Cents>,
}

/// Which agent, and what is to be different about it in this session.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentChoice {
    pub id: String,
    /// `None`: the newest.
    pub version: Option<u64>,
    pub overrides: AgentPatch,
}

pub fn create(body: &Value, can: Abilities) -> Result<NewSession, Invalid> {
    let fields = Node::root(body).object()?;
    fields.refuse("vault_ids", "vaults are")?;
    let title = fields.get("title").map(|node| node.text_of(0..=LONGEST_TITLE)).transpose()?;
    Ok(NewSession {
        agent: read_choice(&fields.need("agent")?, can)?,
        environment_id: fields.need("environment_id")?.text_of(1..=128)?.to_owned(),
        title: title.filter(|title| !title.is_empty()).map(str::to_owned),
        metadata: metadata::read(&fields)?,
        resources: fields.get("resources").map_or(Ok(Vec::new()), |node| read_resources(&node, can))?,
        initial_events: fields.get("initial_events").map_or(Ok(Vec::new()), |node| read_initial_events(&node, can))?,
        budget: fields.get("budget").map(|node| Cents::read_budget(&node)).transpose()?,
    })
}

impl AgentChoice {
    /// The agent as this session has it.
    pub fn apply(&self, agent: &AgentSpec) -> Result<AgentSpec, Invalid> {
        self.overrides.apply(agent).map_err(|invalid| invalid.below("agent"))
    }
}

fn read_choice(node: &Node<'_>, can: Abilities) -> Result<AgentChoice, Invalid> {
    if node.value.is_string() {
        let id = node.text_of(1..=128)?.to_owned();
        return Ok(AgentChoice { id, version: None, overrides: AgentPatch::default() });
    }
    let fields = node.object()?;
    let has_overrides = fields.kind(&[("agent", false), ("agent_with_overrides", true)])?;
    let overrides = if has_overrides { read_overrides(&fields, can)? } else { AgentPatch::default() };
    Ok(AgentChoice {
        id: fields.need("id")?.text_of(1..=128)?.to_owned(),
        version: fields.get("version").map(|version| version.number(1..=u64::MAX)).transpose()?,
        overrides,
    })
}
