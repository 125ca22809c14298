//! The body of `POST /v1/sessions/{id}`.

use super::{create::LONGEST_TITLE, record::SessionRecord};
use crate::{
    abilities::Abilities,
    agents::{AgentPatch, read_tools_patch},
    error::ErrorCode,
    metadata::{self, Empty, MetadataPatch},
    read::{Change, Invalid, Node},
    usage::Cents,
};
use serde_json::Value;

#[derive(Debug, Clone, PartialEq)]
pub struct SessionUpdate {
    pub title: Change<String>,
    pub metadata: MetadataPatch,
    /// Only while the session rests.
    pub agent: Option<AgentPatch>,
    pub budget: Change<Cents>,
}

pub fn update(body: &Value, can: Abilities) -> Result<SessionUpdate, Invalid> {
    let fields = Node::root(body).object()?;
    // The contract has the field, and refuses it in whatever form.
    if !fields.change("vault_ids").is_keep() {
        return Err(fields.wrong("vault_ids", "cannot be changed in a session"));
    }
    let title = match fields.change("title") {
        Change::Keep => Change::Keep,
        Change::Clear => Change::Clear,
        Change::Set(node) => match node.text_of(0..=LONGEST_TITLE)? {
            "" => Change::Clear,
            title => Change::Set(title.to_owned()),
        },
    };
    let budget = match fields.change("budget") {
        Change::Keep => Change::Keep,
        Change::Clear => Change::Clear,
        Change::Set(node) => Change::Set(Cents::read_budget(&node)?),
    };
    let agent = fields.get("agent").map(|node| read_tools_patch(&node.object()?, can));
    Ok(SessionUpdate {
        title,
        metadata: metadata::read_patch(&fields, Empty::IsValue)?,
        agent: agent.transpose()?,
        budget,
    })
}

impl SessionUpdate {
    /// The session after it. `spent` is what it has cost so far.
    pub fn apply(&self, current: &SessionRecord, spent: Option<&Cents>) -> Result<SessionRecord, Invalid> {
        let mut record = current.clone();
        record.title = self.title.clone().over(record.title);
        record.metadata = self.metadata.apply(&current.metadata)?;
        if let Some(patch) = &self.agent {
            record.agent.spec = patch.apply(&current.agent.spec).map_err(|invalid| invalid.below("agent"))?;
        }
        record.budget = match &self.budget {
            Change::Keep => record.budget,
            Change::Clear => None,
            Change::Set(budget) => {
                if current.budget.is_none() {
                    let why = "can be set only when a session is created";
                    return Err(Invalid::new("budget", why).with_code(ErrorCode::BudgetCreateOnly));
                }
                if spent.is_some_and(|spent| budget.amount <= spent.amount) {
                    let why = "must be more than the session has cost already";
                    return Err(Invalid::new("budget", why).with_code(ErrorCode::BudgetNotRaised));
                }
                Some(budget.clone())
            }
        };
        Ok(record)
    }
}
