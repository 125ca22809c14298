//! One session's door to the network: it asks the policy, and people where policy leaves it to them, and tells the session's log.

use crate::guard::Guard;
use adj_domain::{Destination, HostRule, Ruling, Timestamp, Verdict};
use adj_egress::{Decided, Judge, Judged};
use async_trait::async_trait;
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::{mpsc, oneshot, watch};

/// Decisions that wait to be written down; while there is no room for more, nothing is let through.
const ROOM: usize = 1024;

/// What the door tells whoever writes the session's log.
#[derive(Debug)]
pub(crate) enum News {
    Decided(Decided),
    /// A person is to be asked; dropping `reply` is a denial.
    Asked {
        to: Destination,
        expires_at: Timestamp,
        reply: oneshot::Sender<bool>,
    },
}

/// A host and a port.
type Place = (String, u16);

pub(crate) struct Door {
    /// The judge of the turn at work. Between turns nobody could write down what happens, so nothing is let through.
    guard: Mutex<Option<Arc<Guard>>>,
    sender: mpsc::Sender<News>,
    pub(crate) news: tokio::sync::Mutex<mpsc::Receiver<News>>,
    allowed: Mutex<HashSet<Place>>,
    /// Several connections may wait for one answer.
    asking: Mutex<HashMap<Place, watch::Receiver<Option<bool>>>>,
}

impl Door {
    pub(crate) fn new() -> Self {
        let (sender, news) = mpsc::channel(ROOM);
        Self {
            guard: Mutex::default(),
            sender,
            news: tokio::sync::Mutex::new(news),
            allowed: Mutex::default(),
            asking: Mutex::default(),
        }
    }

    /// Opens for a turn, with the hosts that a person has allowed to this session.
    pub(crate) fn open(&self, guard: Arc<Guard>, allowed: impl Iterator<Item = Place>) {
        lock(&self.allowed).extend(allowed);
        *lock(&self.guard) = Some(guard);
    }

    pub(crate) fn close(&self) {
        *lock(&self.guard) = None;
        lock(&self.asking).clear();
    }

    /// Takes a decision for the log; `false` where there is nobody to write it.
    pub(crate) fn record(&self, decided: Decided) -> bool {
        let is_open = lock(&self.guard).is_some();
        is_open && self.sender.try_send(News::Decided(decided)).is_ok()
    }

    /// Asks a person, once for all who wait for the same host.
    async fn ask(&self, to: &Destination, expires_at: Timestamp) -> bool {
        let place = (to.host.clone(), to.port);
        let (mut answer, first) = {
            let mut asking = lock(&self.asking);
            match asking.get(&place) {
                Some(answer) => (answer.clone(), None),
                None => {
                    let (sender, answer) = watch::channel(None);
                    asking.insert(place.clone(), answer.clone());
                    (answer, Some(sender))
                }
            }
        };
        let Some(sender) = first else {
            return answer.wait_for(Option::is_some).await.is_ok_and(|answer| *answer == Some(true));
        };
        let (reply, replied) = oneshot::channel();
        let asked = News::Asked { to: Destination { method: None, path: None, ..to.clone() }, expires_at, reply };
        let is_allowed = self.sender.send(asked).await.is_ok() && replied.await.unwrap_or(false);
        if is_allowed {
            lock(&self.allowed).insert(place.clone());
        }
        lock(&self.asking).remove(&place);
        // Nobody else waiting is fine.
        let _ = sender.send(Some(is_allowed));
        is_allowed
    }
}

#[async_trait]
impl Judge for Door {
    async fn judge(&self, to: &Destination) -> Judged {
        let Some(guard) = lock(&self.guard).clone() else {
            return denied("no turn is at work, so nobody could write down what happens");
        };
        let found = guard.host(to);
        if found.ruling.verdict != Verdict::Ask {
            return Judged { ruling: found.ruling, rule: found.rule };
        }
        let is_known = lock(&self.allowed).contains(&(to.host.clone(), to.port));
        if is_known || self.ask(to, guard.host_expiry()).await {
            return allowed(found.ruling, found.rule);
        }
        let rule = format!("{}, and nobody allowed it", found.ruling.rule);
        Judged { ruling: Ruling { verdict: Verdict::Deny, rule, ..found.ruling }, rule: None }
    }
}

fn allowed(ruling: Ruling, rule: Option<HostRule>) -> Judged {
    let text = format!("{}, and a person allowed it for this session", ruling.rule);
    Judged { ruling: Ruling { verdict: Verdict::Allow, rule: text, ..ruling }, rule }
}

fn denied(why: &str) -> Judged {
    Judged { ruling: Ruling::new(Verdict::Deny, "session", why), rule: None }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
