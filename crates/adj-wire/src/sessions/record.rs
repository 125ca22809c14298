//! A session as it is kept beside its log, and its answer.

use super::{
    list::SessionStatus,
    resources::{self, Resource},
};
use crate::{
    agents::{AgentSpec, RosterAgent},
    metadata::Metadata,
    record::{Stamp, object},
    usage::{Cents, Tally},
};
use adj_domain::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// What a store keeps of a session. What happens in it is in its log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SessionRecord {
    /// The agent as it was then, with what the session changes of it.
    pub agent: AgentSnapshot,
    /// The agents of its roster, as they were then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roster: Vec<AgentSnapshot>,
    pub environment_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    #[serde(default, skip_serializing_if = "Metadata::is_empty")]
    pub metadata: Metadata,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<Resource>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<Cents>,
}

/// A version of an agent, whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AgentSnapshot {
    pub id: String,
    pub version: u64,
    pub spec: AgentSpec,
}

/// What changes about a session from moment to moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Moment<'a> {
    pub status: SessionStatus,
    pub tally: &'a Tally,
    pub now: Timestamp,
}

impl AgentSnapshot {
    /// What a thread shows of its agent.
    pub(super) fn answer(&self) -> Map<String, Value> {
        self.spec.snapshot(&self.id, self.version)
    }
}

impl SessionRecord {
    /// The whole resource.
    pub fn answer(&self, stamp: &Stamp, at: &Moment<'_>) -> Value {
        let mut session = object(json!({
            "id": stamp.id,
            "type": "session",
            "status": at.status.as_str(),
            "agent": self.agent_answer(),
            "environment_id": self.environment_id,
            "title": self.title,
            "metadata": self.metadata,
            "resources": resources::answers(&self.resources),
            "vault_ids": [],
            "outcome_evaluations": [],
            "stats": at.tally.stats(stamp, at.now),
            "usage": at.tally.answer(at.now),
            "budget": self.budget.as_ref().map(Cents::answer),
            "deployment_id": null,
        }));
        stamp.add_times(&mut session);
        Value::Object(session)
    }

    /// The agent with its whole roster.
    pub fn agent_answer(&self) -> Value {
        let mut agent = self.agent.answer();
        let of_roster = |entry: &RosterAgent| {
            let snapshot = match entry {
                RosterAgent::Itself => Some(&self.agent),
                RosterAgent::Agent { id, .. } => self.roster.iter().find(|snapshot| snapshot.id == *id),
            };
            snapshot.map_or(Value::Null, |snapshot| Value::Object(snapshot.answer()))
        };
        let multiagent = self.agent.spec.multiagent.as_ref().map(|multiagent| multiagent.answer(of_roster));
        agent.insert("multiagent".to_owned(), multiagent.into());
        Value::Object(agent)
    }

    /// What `session.updated` tells of a change: only the fields that are different; nothing where none is.
    pub fn changed_since(&self, before: &Self) -> Option<Map<String, Value>> {
        let mut changed = Map::new();
        if self.title != before.title {
            changed.insert("title".to_owned(), json!(self.title));
        }
        if self.metadata != before.metadata && !self.metadata.is_empty() {
            changed.insert("metadata".to_owned(), json!(self.metadata));
        }
        if self.budget != before.budget {
            changed.insert("budget".to_owned(), json!(self.budget.as_ref().map(Cents::answer)));
        }
        if self.agent != before.agent {
            changed.insert("agent".to_owned(), self.agent_answer());
        }
        (self != before).then_some(changed)
    }
}
