//! One session's door to the network: it asks the policy, and people where policy leaves it to them, and tells the session's log.

use crate::{
    engine::{Engine, Upstream},
    guard::Guard,
};
use adj_domain::{Destination, HostRule, Ruling, Timestamp, Verdict};
use adj_egress::{
    CertificateAuthority, Credential, Decided, Egress, EgressLimits, Judge, Judged, Protocol, Settings,
    StartEgressError,
};
use async_trait::async_trait;
use std::{
    collections::{HashMap, HashSet},
    net::TcpListener,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::{mpsc, watch};

/// Decisions that wait to be written down; while there is no room for more, nothing is let through.
const ROOM: usize = 1024;

/// Decisions that one turn may write down; a program inside that asks for more reaches nothing more, so it cannot fill the journal.
const MOST_TOLD: u32 = 100_000;
/// Bytes of a path that are written down.
const LONGEST_PATH: usize = 1_024;

/// What the door tells whoever writes the session's log.
#[derive(Debug)]
pub(crate) enum News {
    Decided(Decided),
    /// A person is to be asked; dropping `reply` is a denial.
    Asked {
        to: Destination,
        expires_at: Timestamp,
        reply: Reply,
    },
}

/// Tells everybody who waits for one host.
pub(crate) type Reply = watch::Sender<Option<bool>>;

/// A host and a port.
pub(crate) type Place = (String, u16);

pub(crate) struct Door {
    turn: Mutex<Turn>,
    sender: mpsc::Sender<News>,
    pub(crate) news: tokio::sync::Mutex<mpsc::Receiver<News>>,
}

/// What is known while a turn is at work.
#[derive(Default)]
struct Turn {
    /// The judge of the turn. Between turns nobody could write down what happens, so nothing is let through.
    judge: Option<(Option<Engine>, Arc<Guard>)>,
    allowed: HashSet<Place>,
    /// Nobody is asked twice in a turn: a command that tries again and again shall not wear people out.
    denied: HashSet<Place>,
    /// Several connections may wait for one answer.
    asking: HashMap<Place, watch::Receiver<Option<bool>>>,
    told: u32,
}

impl Door {
    pub(crate) fn new() -> Self {
        let (sender, news) = mpsc::channel(ROOM);
        Self { turn: Mutex::default(), sender, news: tokio::sync::Mutex::new(news) }
    }

    /// Opens for a turn, or for a command outside any, for which nothing is ever granted and so no engine is needed.
    pub(crate) fn open(&self, engine: Option<&Engine>, guard: &Arc<Guard>) {
        self.turn().judge = Some((engine.cloned(), Arc::clone(guard)));
    }

    /// From here on nothing is let through, and nothing more is told.
    pub(crate) fn close(&self) {
        *self.turn() = Turn::default();
    }

    /// Lets through what a person has allowed to this session.
    pub(crate) fn allow(&self, places: impl Iterator<Item = Place>) {
        self.turn().allowed.extend(places);
    }

    /// Learns what came of a question.
    pub(crate) fn answered(&self, place: &Place, is_allowed: bool) {
        let mut turn = self.turn();
        turn.asking.remove(place);
        let places = if is_allowed { &mut turn.allowed } else { &mut turn.denied };
        places.insert(place.clone());
    }

    /// Takes a decision for the log; `false` where there is nobody to write it.
    pub(crate) fn record(&self, mut decided: Decided) -> bool {
        if let Some(path) = &mut decided.to.path {
            path.truncate(path.floor_char_boundary(LONGEST_PATH));
        }
        // Under the lock, so that whoever closes the door finds all that was told before.
        let mut turn = self.turn();
        turn.told = turn.told.saturating_add(1);
        turn.judge.is_some() && turn.told <= MOST_TOLD && self.sender.try_send(News::Decided(decided)).is_ok()
    }

    /// Asks a person, once for all who wait for the same host.
    async fn ask(&self, to: &Destination, expires_at: Timestamp) -> bool {
        let place = (to.host.clone(), to.port);
        let mut answer = {
            let mut turn = self.turn();
            if turn.judge.is_none() || turn.denied.contains(&place) {
                return false;
            }
            match turn.asking.get(&place) {
                Some(answer) => answer.clone(),
                None => {
                    let (reply, answer) = watch::channel(None);
                    let to = Destination { method: None, path: None, ..to.clone() };
                    if self.sender.try_send(News::Asked { to, expires_at, reply }).is_err() {
                        return false;
                    }
                    turn.asking.insert(place, answer.clone());
                    answer
                }
            }
        };
        answer.wait_for(Option::is_some).await.is_ok_and(|answer| *answer == Some(true))
    }

    fn turn(&self) -> MutexGuard<'_, Turn> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Judge for Door {
    async fn judge(&self, to: &Destination) -> Judged {
        let Some((engine, guard)) = self.turn().judge.clone() else {
            return denied("no turn is at work, so nobody could write down what happens");
        };
        // A command may run for long, and what people granted may be taken back meanwhile.
        if let Some(engine) = engine
            && let Err(error) = guard.refresh(&engine).await
        {
            tracing::warn!(%error, "cannot look up what people have granted");
            return denied("what people have granted could not be looked up");
        }
        let found = guard.host(to);
        if found.ruling.verdict != Verdict::Ask {
            return Judged { ruling: found.ruling, rule: found.rule };
        }
        let is_known = self.turn().allowed.contains(&(to.host.clone(), to.port));
        if is_known || self.ask(to, guard.host_expiry()).await {
            return allowed(found.ruling, found.rule);
        }
        let rule = format!("{}, and nobody allowed it", found.ruling.rule);
        Judged { ruling: Ruling { verdict: Verdict::Deny, rule, ..found.ruling }, rule: None }
    }
}

/// Begins to serve the door at a sandbox's listener.
pub(crate) fn serve(
    door: &Arc<Door>,
    listener: TcpListener,
    upstream: &Upstream,
    credentials: Vec<Credential>,
    authority: CertificateAuthority,
) -> Result<Egress, StartEgressError> {
    let recorder = Arc::clone(door);
    let settings = Settings {
        judge: Arc::clone(door) as Arc<dyn Judge>,
        credentials,
        resolver: Arc::clone(&upstream.resolver),
        limits: EgressLimits::default(),
        on_decision: Arc::new(move |decided| recorder.record(decided)),
        authority,
        extra_roots: upstream.extra_roots.clone(),
    };
    Egress::start(listener, settings)
}

/// How somebody inside asked, as logs spell it.
pub(crate) fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::HttpConnect => "connect",
        Protocol::Http => "http",
        Protocol::Socks5 => "socks5",
        Protocol::Tls => "tls",
    }
}

fn allowed(ruling: Ruling, rule: Option<HostRule>) -> Judged {
    let text = format!("{}, and a person allowed it for this session", ruling.rule);
    Judged { ruling: Ruling { verdict: Verdict::Allow, rule: text, ..ruling }, rule }
}

fn denied(why: &str) -> Judged {
    Judged { ruling: Ruling::new(Verdict::Deny, "session", why), rule: None }
}
