//! The hall: where sessions work that nobody stands beside. Whatever has something to do is worked on until nothing is left,
//! so many at a time; a session at rest takes no place.

use crate::{
    engine::{Engine, EngineError},
    live::Interrupt,
};
use adj_domain::{LogId, SessionId};
use std::{
    collections::HashMap,
    fmt,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Notify, Semaphore},
    task::JoinSet,
};

/// Waits before a session is taken up again that could not be worked on: each is twice the one before.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Sessions read from the store at a time.
const PAGE: u32 = 500;

/// Works on sessions that are [woken](Hall::wake). Clones are the same hall; the last one that goes ends all work.
#[derive(Clone)]
pub struct Hall(Arc<Inner>);

struct Inner {
    engine: Engine,
    places: Arc<Semaphore>,
    state: Mutex<State>,
    /// Rung whenever a session leaves.
    left: Arc<Notify>,
}

#[derive(Default)]
struct State {
    is_closed: bool,
    /// Those at work or in line, and whether somebody has called them again since.
    called: HashMap<SessionId, bool>,
    tasks: JoinSet<()>,
}

impl fmt::Debug for Hall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hall").field("called", &self.len()).finish_non_exhaustive()
    }
}

impl Hall {
    /// A hall in which so many sessions are worked on at a time.
    pub fn new(engine: Engine, places: usize) -> Self {
        let (places, left) = (Arc::new(Semaphore::new(places)), Arc::new(Notify::new()));
        Self(Arc::new(Inner { engine, places, state: Mutex::default(), left }))
    }

    /// Says that there may be something to do in a session. Returns at once; what was queued before is taken up.
    pub fn wake(&self, id: &SessionId) {
        let mut state = self.state();
        if state.is_closed {
            return;
        }
        if let Some(again) = state.called.get_mut(id) {
            *again = true;
            return;
        }
        state.called.insert(id.clone(), false);
        // What has ended leaves its place among the tasks.
        while state.tasks.try_join_next().is_some() {}
        let work = self.clone().attend(id.clone());
        state.tasks.spawn(work);
    }

    /// Wakes every session that waits for somebody to take it: what was queued for it, or a turn that its last holder left.
    pub async fn recover(&self) -> Result<usize, EngineError> {
        let mut woken = 0;
        let mut after = None;
        loop {
            let page = self.0.engine.store().ready(after.as_ref(), PAGE).await?;
            let Some(last) = page.last() else { return Ok(woken) };
            after = Some(last.log.clone());
            for summary in &page {
                if let LogId::Session(id) = &summary.log {
                    self.wake(id);
                    woken += 1;
                }
            }
        }
    }

    /// How many sessions are at work or in line.
    pub fn len(&self) -> usize {
        self.state().called.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Waits until nobody is at work or in line.
    pub async fn empty(&self) {
        loop {
            let left = self.0.left.notified();
            if self.is_empty() {
                return;
            }
            left.await;
        }
    }

    /// Lets nobody in any more, and ends all work where it stands: what was begun is in the log, and whoever opens the next
    /// hall goes on with it. Commands outlive this.
    pub async fn close(&self) {
        let mut tasks = {
            let mut state = self.state();
            state.is_closed = true;
            std::mem::take(&mut state.tasks)
        };
        tasks.shutdown().await;
        self.state().called.clear();
        self.0.left.notify_waiters();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn attend(self, id: SessionId) -> impl Future<Output = ()> + Send {
        // The tasks are the hall's own: they must not keep it alive.
        let (hall, engine) = (Arc::downgrade(&self.0), self.0.engine.clone());
        let (places, left) = (Arc::clone(&self.0.places), Arc::clone(&self.0.left));
        drop(self);
        async move {
            let mut wait = FIRST_WAIT;
            loop {
                let Ok(place) = places.acquire().await else { return };
                let worked = engine.work(&id, &Interrupt::new()).await;
                drop(place);
                match worked {
                    Ok(_) => wait = FIRST_WAIT,
                    Err(EngineError::NoSession(_) | EngineError::IsHosted(_)) => {}
                    Err(error) => {
                        tracing::warn!(session = %id, "cannot work on a session, and try again: {}", with_causes(&error));
                        tokio::time::sleep(wait).await;
                        wait = (wait * 2).min(LONGEST_WAIT);
                        continue;
                    }
                }
                let Some(hall) = hall.upgrade() else { return };
                let mut state = hall.state.lock().unwrap_or_else(PoisonError::into_inner);
                // Whoever called meanwhile may have come after the last look at the queue.
                if let Some(again) = state.called.get_mut(&id)
                    && std::mem::take(again)
                {
                    continue;
                }
                state.called.remove(&id);
                drop(state);
                left.notify_waiters();
                return;
            }
        }
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
