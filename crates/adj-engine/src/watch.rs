//! Watching one session as it happens, however many others are at work and however many watch.
//!
//! Nobody waits for a watcher: who falls behind is let go, and has seen everything up to there without a gap.

use crate::live::Live;
use adj_domain::{LogId, SessionId};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::sync::mpsc;

/// What a watcher may have unread before it is let go.
const UNREAD: usize = 1_024;

/// Who watches what.
#[derive(Debug, Default)]
pub(crate) struct Watchers {
    by_session: Mutex<HashMap<SessionId, Vec<Watcher>>>,
    number: AtomicU64,
}

#[derive(Debug)]
struct Watcher {
    number: u64,
    tell: mpsc::Sender<Arc<Live>>,
}

/// One watcher's view of a session, from the moment at which it was made.
#[derive(Debug)]
pub struct Watch {
    watchers: Arc<Watchers>,
    session: SessionId,
    number: u64,
    told: mpsc::Receiver<Arc<Live>>,
}

impl Watch {
    /// Waits for what happens next; `None`: this watcher was too slow, and is told no more.
    pub async fn next(&mut self) -> Option<Arc<Live>> {
        self.told.recv().await
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut by_session = self.watchers.lock();
        if let Some(watchers) = by_session.get_mut(&self.session) {
            watchers.retain(|watcher| watcher.number != self.number);
            if watchers.is_empty() {
                by_session.remove(&self.session);
            }
        }
    }
}

impl Watchers {
    pub(crate) fn watch(self: &Arc<Self>, session: &SessionId) -> Watch {
        let (tell, told) = mpsc::channel(UNREAD);
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        self.lock().entry(session.clone()).or_default().push(Watcher { number, tell });
        Watch { watchers: Arc::clone(self), session: session.clone(), number, told }
    }

    /// Tells those who watch the session, and lets those go who are too far behind.
    pub(crate) fn tell(&self, live: &Live) {
        let session = match live {
            Live::Delta { session, .. } => session,
            Live::Committed(event) => match &event.log {
                LogId::Session(session) => session,
                LogId::Run(_) | LogId::Grants | LogId::Budgets => return,
            },
        };
        let mut by_session = self.lock();
        let Some(watchers) = by_session.get_mut(session) else { return };
        let live = Arc::new(live.clone());
        watchers.retain(|watcher| watcher.tell.try_send(Arc::clone(&live)).is_ok());
        if watchers.is_empty() {
            by_session.remove(session);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, Vec<Watcher>>> {
        self.by_session.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use adj_gateway::Delta;

    fn delta(session: &SessionId, text: usize) -> Live {
        Live::Delta { session: session.clone(), delta: Delta::Text { index: 0, text: text.to_string() } }
    }

    fn text(live: &Live) -> String {
        match live {
            Live::Delta { delta: Delta::Text { text, .. }, .. } => text.clone(),
            other => panic!("{other:?} was not told"),
        }
    }

    #[tokio::test]
    async fn each_is_told_of_its_own_session_and_the_slow_are_let_go_after_all_they_had_room_for() {
        let watchers = Arc::new(Watchers::default());
        let (one, two) = (SessionId::derive(&["one"]), SessionId::derive(&["two"]));
        let (mut quick, mut slow, mut other) = (watchers.watch(&one), watchers.watch(&one), watchers.watch(&two));
        for n in 0..UNREAD + 10 {
            watchers.tell(&delta(&one, n));
            assert_eq!(text(&quick.next().await.expect("it keeps up")), n.to_string());
        }
        for n in 0..UNREAD {
            assert_eq!(text(&slow.next().await.expect("it was told")), n.to_string());
        }
        assert!(slow.next().await.is_none(), "without a gap, and then no more");
        watchers.tell(&delta(&two, 7));
        assert_eq!(text(&other.next().await.expect("it keeps up")), "7");
        drop((quick, slow, other));
        assert!(watchers.lock().is_empty(), "whom nobody watches is forgotten");
    }
}
