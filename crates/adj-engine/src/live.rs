//! What can be watched while it happens, and the wish that it ends.

use adj_domain::{Event, SessionId};
use adj_gateway::Delta;
use std::array;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Something a watcher may want to show. Only [`Live::Committed`] is remembered; the rest is gone when it is not seen.
#[derive(Debug, Clone)]
pub enum Live {
    Committed(Box<Event>),
    /// A piece of an answer under way.
    Delta {
        session: SessionId,
        delta: Delta,
    },
}

/// Tells who works on a session that something was queued for it. Several sessions share a bell: whoever hears one looks.
#[derive(Debug)]
pub(crate) struct Bells([Notify; 64]);

impl Default for Bells {
    fn default() -> Self {
        Self(array::from_fn(|_| Notify::new()))
    }
}

impl Bells {
    pub(crate) fn of(&self, session: &SessionId) -> &Notify {
        let sum: usize = session.as_str().bytes().map(usize::from).sum();
        &self.0[sum % self.0.len()]
    }
}

/// Asks turns to end after the step they are in. Clones share the wish.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(CancellationToken);

impl Interrupt {
    pub fn new() -> Self {
        Self::default()
    }

    /// A wish that comes true with this one, but can be had alone.
    pub fn child(&self) -> Self {
        Self(self.0.child_token())
    }

    pub fn ask(&self) {
        self.0.cancel();
    }

    pub fn is_asked(&self) -> bool {
        self.0.is_cancelled()
    }

    pub async fn asked(&self) {
        self.0.cancelled().await;
    }
}
