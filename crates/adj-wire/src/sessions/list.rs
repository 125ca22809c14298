//! Which sessions, threads and resources are listed.

use crate::{
    query::{Limits, Order, Paging, Query, TimeRange},
    read::Invalid,
};
use adj_domain::session::Status;

/// What a session, or a thread, is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionStatus {
    Idle,
    Running,
    Rescheduling,
    Terminated,
}

impl SessionStatus {
    pub const ALL: [Self; 4] = [Self::Idle, Self::Running, Self::Rescheduling, Self::Terminated];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Running => "running",
            Self::Rescheduling => "rescheduling",
            Self::Terminated => "terminated",
        }
    }

    /// An archived session is terminated, whatever it did before.
    pub fn of(status: &Status, is_archived: bool) -> Self {
        match status {
            _ if is_archived => Self::Terminated,
            Status::Idle { .. } => Self::Idle,
            Status::Running => Self::Running,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionsQuery {
    pub paging: Paging,
    pub order: Order,
    pub agent_id: Option<String>,
    pub agent_version: Option<u64>,
    /// Empty: all.
    pub statuses: Vec<SessionStatus>,
    pub include_archived: bool,
    pub created: TimeRange,
}

impl SessionsQuery {
    pub fn read(query: &Query) -> Result<Self, Invalid> {
        query.refuse("deployment_id", "deployments are")?;
        query.refuse("memory_store_id", "memory stores are")?;
        Ok(Self {
            paging: query.paging(Limits::USUAL)?,
            order: query.order(Order::Descending)?,
            agent_id: query.text("agent_id")?.map(str::to_owned),
            agent_version: query.number("agent_version", 1..=u64::MAX)?,
            statuses: read_statuses(query)?,
            include_archived: query.boolean("include_archived")?.unwrap_or(false),
            created: query.times("created_at")?,
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThreadsQuery {
    pub paging: Paging,
    /// Empty: all.
    pub statuses: Vec<SessionStatus>,
}

impl ThreadsQuery {
    pub fn read(query: &Query) -> Result<Self, Invalid> {
        Ok(Self { paging: query.paging(Limits::WHOLE)?, statuses: read_statuses(query)? })
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourcesQuery {
    pub paging: Paging,
}

impl ResourcesQuery {
    pub fn read(query: &Query) -> Result<Self, Invalid> {
        Ok(Self { paging: query.paging(Limits::WHOLE)? })
    }
}

fn read_statuses(query: &Query) -> Result<Vec<SessionStatus>, Invalid> {
    query.words("statuses", &SessionStatus::ALL.map(|status| (status.as_str(), status)))
}
