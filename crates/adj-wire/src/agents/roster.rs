//! Agents that an agent may start: rosters as they are asked for, kept and answered.

use crate::{
    abilities::Abilities,
    read::{Change, Invalid, Node, Object},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

const MOST: usize = 20;

/// An agent's `multiagent`. Whoever keeps it writes the version of each agent that has none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum Multiagent {
    #[serde(rename = "coordinator")]
    Coordinator { agents: Vec<RosterAgent> },
    #[serde(rename = "multiagent_20261001")]
    Members { subagents: Subagents },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum RosterAgent {
    Agent {
        id: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        version: Option<u64>,
    },
    /// The agent whose roster it is.
    #[serde(rename = "self")]
    Itself,
}

/// Whether the agent may start others, and which.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Subagents {
    Enabled { predefined_agents: Vec<RosterAgent> },
    Disabled,
}

#[derive(Clone, Copy)]
enum Kind {
    Coordinator,
    Members,
}

const SWITCH: [(&str, bool); 2] = [("enabled", true), ("disabled", false)];

impl Multiagent {
    /// The agents that may be started.
    pub fn roster(&self) -> &[RosterAgent] {
        match self {
            Self::Coordinator { agents } => agents,
            Self::Members { subagents: Subagents::Enabled { predefined_agents } } => predefined_agents,
            Self::Members { subagents: Subagents::Disabled } => &[],
        }
    }

    pub fn roster_mut(&mut self) -> Option<&mut Vec<RosterAgent>> {
        match self {
            Self::Coordinator { agents } => Some(agents),
            Self::Members { subagents: Subagents::Enabled { predefined_agents } } => Some(predefined_agents),
            Self::Members { subagents: Subagents::Disabled } => None,
        }
    }

    /// `current` is what the agent has; an object of the same newer type changes only what it names.
    pub(super) fn read(node: &Node<'_>, current: Option<&Self>, can: Abilities) -> Result<Self, Invalid> {
        if !can.multiagent {
            return Err(node.unsupported("rosters of agents are"));
        }
        let fields = node.object()?;
        match fields.kind(&[("coordinator", Kind::Coordinator), ("multiagent_20261001", Kind::Members)])? {
            Kind::Coordinator => {
                let list = fields.need("agents")?;
                let agents = read_roster(&list)?;
                if agents.is_empty() {
                    return Err(list.wrong(format!("must name 1 to {MOST} agents")));
                }
                Ok(Self::Coordinator { agents })
            }
            Kind::Members => {
                for (name, what) in [("workflows", "workflows are"), ("advisor", "advisors are")] {
                    if let Some(member) = fields.get(name)
                        && member.object()?.kind(&SWITCH)?
                    {
                        return Err(member.unsupported(what));
                    }
                }
                let current = match current {
                    Some(Self::Members { subagents }) => Some(subagents),
                    Some(Self::Coordinator { .. }) | None => None,
                };
                Ok(Self::Members { subagents: read_subagents(&fields, current)? })
            }
        }
    }

    /// `resolve` makes what the roster shows of an agent: its reference, or all of it.
    pub(crate) fn answer(&self, resolve: impl Fn(&RosterAgent) -> Value) -> Value {
        let roster: Vec<Value> = self.roster().iter().map(resolve).collect();
        match self {
            Self::Coordinator { .. } => json!({"type": "coordinator", "agents": roster}),
            Self::Members { subagents } => {
                let subagents = match subagents {
                    Subagents::Disabled => json!({"type": "disabled"}),
                    Subagents::Enabled { .. } => json!({
                        "type": "enabled",
                        "inline_agents": {"type": "disabled"},
                        "predefined_agents": roster,
                    }),
                };
                json!({
                    "type": "multiagent_20261001",
                    "subagents": subagents,
                    "workflows": {"type": "disabled"},
                    "advisor": {"type": "disabled"},
                })
            }
        }
    }
}

fn read_subagents(fields: &Object<'_>, current: Option<&Subagents>) -> Result<Subagents, Invalid> {
    let node = match fields.change("subagents") {
        Change::Keep => return Ok(current.cloned().unwrap_or(Subagents::Disabled)),
        Change::Clear => return Ok(Subagents::Disabled),
        Change::Set(node) => node,
    };
    let member = node.object()?;
    if !member.kind(&SWITCH)? {
        return Ok(Subagents::Disabled);
    }
    if let Some(inline) = member.get("inline_agents")
        && inline.object()?.kind(&SWITCH)?
    {
        return Err(inline.unsupported("agents that are defined as they are started are"));
    }
    let predefined_agents = match (member.change("predefined_agents"), current) {
        (Change::Set(list), _) => read_roster(&list)?,
        (Change::Keep, Some(Subagents::Enabled { predefined_agents })) => predefined_agents.clone(),
        (Change::Keep | Change::Clear, _) => Vec::new(),
    };
    if predefined_agents.is_empty() {
        return Err(member.wrong("predefined_agents", format!("must name 1 to {MOST} agents")));
    }
    Ok(Subagents::Enabled { predefined_agents })
}

fn read_roster(list: &Node<'_>) -> Result<Vec<RosterAgent>, Invalid> {
    let mut agents: Vec<RosterAgent> = Vec::new();
    for entry in list.list_up_to(MOST)? {
        let agent = read_agent(&entry)?;
        let is_same = |known: &RosterAgent| match (known, &agent) {
            (RosterAgent::Agent { id, .. }, RosterAgent::Agent { id: new, .. }) => id == new,
            (RosterAgent::Itself, RosterAgent::Itself) => true,
            (RosterAgent::Agent { .. }, RosterAgent::Itself) | (RosterAgent::Itself, RosterAgent::Agent { .. }) => {
                false
            }
        };
        if agents.iter().any(is_same) {
            return Err(entry.wrong("is there already"));
        }
        agents.push(agent);
    }
    Ok(agents)
}

fn read_agent(entry: &Node<'_>) -> Result<RosterAgent, Invalid> {
    #[derive(Clone, Copy)]
    enum Entry {
        Agent,
        Itself,
        Advisor,
    }
    if entry.value.is_string() {
        return Ok(RosterAgent::Agent { id: entry.text_of(1..=128)?.to_owned(), version: None });
    }
    let fields = entry.object()?;
    match fields.kind(&[("agent", Entry::Agent), ("self", Entry::Itself), ("advisor", Entry::Advisor)])? {
        Entry::Itself => Ok(RosterAgent::Itself),
        Entry::Advisor => Err(entry.unsupported("advisors are")),
        Entry::Agent => {
            let version = fields.get("version").map(|version| version.number(1..=u64::MAX)).transpose()?;
            Ok(RosterAgent::Agent { id: fields.need("id")?.text_of(1..=128)?.to_owned(), version })
        }
    }
}
