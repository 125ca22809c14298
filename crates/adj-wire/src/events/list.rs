//! Which events are listed, and what a stream is to carry beside them.

use crate::{
    query::{Limits, Order, Paging, Query, TimeRange},
    read::Invalid,
};
use adj_domain::Timestamp;

/// Filters of a session's, or a thread's, list of events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventsQuery {
    pub paging: Paging,
    pub order: Order,
    /// Empty: all.
    pub types: Vec<String>,
    /// The name says created, and it means when the event was processed.
    pub processed: TimeRange,
}

impl EventsQuery {
    pub fn read(query: &Query) -> Result<Self, Invalid> {
        Ok(Self {
            paging: query.paging(Limits::WHOLE)?,
            order: query.order(Order::Ascending)?,
            types: query.list("types", 100)?,
            processed: query.times("created_at")?,
        })
    }

    /// An event that waits in a queue has no time, and is in no stretch of it.
    pub fn includes(&self, kind: &str, processed_at: Option<Timestamp>) -> bool {
        let is_in_time = match processed_at {
            Some(at) => self.processed.contains(at),
            None => self.processed.is_everything(),
        };
        is_in_time && (self.types.is_empty() || self.types.iter().any(|wanted| wanted == kind))
    }
}

/// Which previews a connection asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeltaKinds {
    /// `agent.message`: its beginning, and its text as it comes.
    pub messages: bool,
    /// `agent.thinking`: its beginning.
    pub thinking: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StreamQuery {
    pub deltas: DeltaKinds,
}

impl StreamQuery {
    pub fn read(query: &Query) -> Result<Self, Invalid> {
        let kinds = query.words("event_deltas", &[("agent.message", true), ("agent.thinking", false)])?;
        let deltas = DeltaKinds { messages: kinds.contains(&true), thinking: kinds.contains(&false) };
        Ok(Self { deltas })
    }
}
