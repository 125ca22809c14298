//! A vendor that answers what a cassette holds.

use super::{
    compare::{Difference, Normal, moved},
    format::{Body, End, Exchange, Failed, Neutral, Passed, Places},
    reader::{Cassette, CassetteError, Entry, Key},
};
use crate::{EventStream, HttpProvider, ModelEvent, Provider, ProviderError, WireKind, http::Raw};
use adj_domain::{AnswerBlock, FailureKind, ModelRef, ModelRequest};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use reqwest::{
    StatusCode,
    header::{HeaderMap, HeaderName, HeaderValue},
};
use serde_json::Value;
use std::{
    collections::VecDeque,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// How exact a request has to be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Manner {
    /// It must be the one that was recorded.
    #[default]
    Strict,
    /// The next answer that the agent got is given, whatever it asks.
    Loose,
}

/// When the pieces of an answer come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Timing {
    #[default]
    AtOnce,
    /// With the pauses that were recorded, and the waits that the vendor asked for.
    AsRecorded,
}

/// How a cassette is played.
#[derive(Debug, Clone, Default)]
pub struct Replay {
    pub manner: Manner,
    pub timing: Timing,
    /// Where the recorded folders lie now.
    pub places: Places,
}

/// Answers from a cassette, each exchange once; copies of it share what was used.
#[derive(Debug, Clone)]
pub struct Player {
    deck: Arc<Deck>,
}

#[derive(Debug)]
struct Deck {
    cassette: Cassette,
    replay: Replay,
    /// For each entry, whether it was played.
    used: Mutex<Vec<bool>>,
}

type Step = (Duration, Result<ModelEvent, ProviderError>);

impl Player {
    pub fn open(path: &Path, replay: Replay) -> Result<Self, CassetteError> {
        let cassette = Cassette::open(path)?;
        let used = Mutex::new(vec![false; cassette.entries.len()]);
        Ok(Self { deck: Arc::new(Deck { cassette, replay, used }) })
    }

    /// The model that the recorded command was told to use.
    pub fn model(&self) -> &ModelRef {
        &self.deck.cassette.head.heading.model
    }

    /// Returns the vendors that could be called then, by name; each is this player, and speaks the wire that it spoke.
    pub fn providers(&self) -> Vec<(String, Arc<dyn Provider>)> {
        let heading = &self.deck.cassette.head.heading;
        let mut vendors = heading.vendors.clone();
        vendors.entry(heading.model.vendor.clone()).or_default();
        let provider = |wire: Option<WireKind>| -> Arc<dyn Provider> {
            match wire {
                Some(wire) => Arc::new(HttpProvider::played_by(wire, self.clone())),
                None => Arc::new(self.clone()),
            }
        };
        vendors.into_iter().map(|(name, wire)| (name, provider(wire))).collect()
    }

    /// What is missing at the end, if the recording process died while it wrote.
    pub fn torn(&self) -> Option<&str> {
        self.deck.cassette.torn.as_deref()
    }

    /// Returns how many exchanges were not played yet.
    pub fn left(&self) -> usize {
        self.deck.used.lock().unwrap_or_else(PoisonError::into_inner).iter().filter(|used| !**used).count()
    }

    /// Answers a request in the vendor's own words.
    pub(crate) fn forward(&self, wire: WireKind, raw: &Raw) -> Result<Played, ProviderError> {
        let body = Body::of(&raw.body);
        let key = Key::of_passed(wire, &raw.path, &body);
        let normal = Normal::of_body(&body, &self.deck.replay.places);
        let (exchange, is_last) = self.deck.choose(&key, &normal)?;
        match exchange {
            Exchange::Passed(passed) => Played::new(*passed, self.deck.replay.timing, is_last),
            Exchange::Neutral(_) | Exchange::TooLarge(_) => Err(changed(&self.deck.cassette)),
        }
    }

    fn steps(&self, request: &ModelRequest) -> Result<VecDeque<Step>, ProviderError> {
        let key = Key::of_request(request);
        let normal = Normal::of_request(request, &self.deck.replay.places);
        let (exchange, is_last) = self.deck.choose(&key, &normal)?;
        let Exchange::Neutral(neutral) = exchange else { return Err(changed(&self.deck.cassette)) };
        let recorded = Normal::of_request(&neutral.request, &self.deck.cassette.head.heading.places);
        let moves = self.deck.moves(&recorded, &normal);
        Ok(steps(*neutral, self.deck.replay.timing, is_last, &moves))
    }
}

impl Provider for Player {
    fn stream(&self, request: &ModelRequest, _attempt: u32) -> EventStream {
        let steps = self.steps(request).unwrap_or_else(|error| VecDeque::from([(Duration::ZERO, Err(error))]));
        stream::unfold(steps, |mut steps| async {
            let (wait, event) = steps.pop_front()?;
            if !wait.is_zero() {
                tokio::time::sleep(wait).await;
            }
            Some((event, steps))
        })
        .boxed()
    }
}

fn changed(cassette: &Cassette) -> ProviderError {
    let message = format!("the cassette {} has changed since it was first read", cassette.path.display());
    ProviderError::new(FailureKind::InvalidRequest, message)
}

impl Deck {
    /// Chooses what answers a request, and takes it out. Also tells whether nothing more is there for the same request.
    fn choose(&self, key: &Key, normal: &Normal) -> Result<(Exchange, bool), ProviderError> {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let entries = self.cassette.entries.iter().enumerate();
        let free = entries.filter(|(place, _)| !used[*place]).collect::<Vec<_>>();
        let hash = normal.hash();
        let place = match self.replay.manner {
            Manner::Strict => self.strictly(&free, key, normal, hash)?,
            Manner::Loose => self.loosely(&free, key, hash)?,
        };
        let entry = &self.cassette.entries[place];
        let exchange = self.cassette.exchange(entry).map_err(|error| refuse(error.to_string()))?;
        used[place] = true;
        let is_same = |other: &Entry| other.key == entry.key && other.hash == entry.hash && !other.was_dropped;
        let is_last = !free.iter().any(|(other, entry)| *other != place && is_same(entry));
        Ok((exchange, is_last))
    }

    fn strictly(
        &self,
        free: &[(usize, &Entry)],
        key: &Key,
        normal: &Normal,
        hash: u64,
    ) -> Result<usize, ProviderError> {
        let mine = free.iter().filter(|(_, entry)| is_asked_alike(&entry.key, key));
        let mine = mine.copied().collect::<Vec<_>>();
        let mut same = mine.iter().filter(|(_, entry)| entry.hash == hash);
        let whole = same.clone().find(|(_, entry)| !entry.was_dropped || matches!(key, Key::Passed { .. }));
        let file = self.cassette.path.display();
        if let Some((place, _)) = whole {
            return Ok(*place);
        }
        if let Some((_, entry)) = same.next() {
            let line = entry.line;
            return Err(refuse(format!(
                "the recorded request was given up before its answer came ({file}, line {line})"
            )));
        }
        let Some((_, first)) = mine.first() else { return Err(self.nothing_left(free, key)) };
        let difference = self.difference(first, normal)?;
        let difference = difference.map_or_else(|| "nowhere".to_owned(), |difference| difference.to_string());
        let (line, recorded) = (first.line, &first.key);
        Err(refuse(format!(
            "the request is not the one that was recorded ({file}, line {line}: {recorded}); it differs first at {difference}"
        )))
    }

    fn difference(&self, entry: &Entry, normal: &Normal) -> Result<Option<Difference>, ProviderError> {
        let places = &self.cassette.head.heading.places;
        let exchange = self.cassette.exchange(entry).map_err(|error| refuse(error.to_string()))?;
        Ok(match exchange {
            Exchange::Neutral(neutral) => Normal::of_request(&neutral.request, places).difference(normal),
            Exchange::Passed(passed) => Normal::of_body(&passed.body, places).difference(normal),
            Exchange::TooLarge(_) => None,
        })
    }

    /// The same request if it is there, else the same step, else whatever comes next.
    fn loosely(&self, free: &[(usize, &Entry)], key: &Key, hash: u64) -> Result<usize, ProviderError> {
        let rank = |entry: &Entry| {
            let is_other_step = match (&entry.key, key) {
                (Key::Neutral { turn, step, .. }, Key::Neutral { turn: asked_turn, step: asked_step, .. }) => {
                    (turn, step) != (asked_turn, asked_step)
                }
                (recorded, asked) => recorded != asked,
            };
            (entry.hash != hash, is_other_step)
        };
        let fitting = free.iter().filter(|(_, entry)| is_about_alike(&entry.key, key));
        let whole = fitting.filter(|(_, entry)| !entry.was_dropped || matches!(key, Key::Passed { .. }));
        let best = whole.min_by_key(|(_, entry)| rank(entry));
        best.map(|(place, _)| *place).ok_or_else(|| self.nothing_left(free, key))
    }

    fn nothing_left(&self, free: &[(usize, &Entry)], key: &Key) -> ProviderError {
        let next = match free.first() {
            Some((_, entry)) => format!("the next that was not played is that of {} (line {})", entry.key, entry.line),
            None => "all were played".to_owned(),
        };
        let lost = match self.cassette.too_large {
            0 => String::new(),
            count => format!("; exchanges that were too large to be recorded: {count}"),
        };
        refuse(format!("the cassette {} has no answer left for {key}; {next}{lost}", self.cassette.path.display()))
    }

    /// What stands for what: folders, and the ids of sessions and runs, as they were and as they are.
    fn moves(&self, recorded: &Normal, now: &Normal) -> Vec<(String, String)> {
        let places = self.cassette.head.heading.places.iter();
        let places = places.filter_map(|(name, old)| Some((old.clone(), self.replay.places.get(name)?.clone())));
        let kind = |id: &String| id.split('_').next().map(str::to_owned);
        let ids = recorded.ids.iter().cloned().zip(now.ids.iter().cloned());
        let ids = ids.filter(|(old, new)| kind(old) == kind(new));
        let mut moves = places.chain(ids).filter(|(old, new)| old != new).collect::<Vec<_>>();
        moves.sort_by_key(|(old, _)| std::cmp::Reverse(old.len()));
        moves
    }
}

/// Whether two requests stand at the same place of the work. The model does not count: another one is a difference to be shown.
fn is_asked_alike(recorded: &Key, asked: &Key) -> bool {
    match (recorded, asked) {
        (
            Key::Neutral { agent, role, purpose, turn, step, model: _ },
            Key::Neutral {
                agent: agent_asked,
                role: role_asked,
                purpose: purpose_asked,
                turn: turn_asked,
                step: step_asked,
                model: _,
            },
        ) => (agent, role, purpose, turn, step) == (agent_asked, role_asked, purpose_asked, turn_asked, step_asked),
        (Key::Passed { wire, path, model: _ }, Key::Passed { wire: wire_asked, path: path_asked, model: _ }) => {
            (wire, path) == (wire_asked, path_asked)
        }
        _ => false,
    }
}

fn is_about_alike(recorded: &Key, asked: &Key) -> bool {
    match (recorded, asked) {
        (Key::Neutral { agent, purpose, .. }, Key::Neutral { agent: agent_asked, purpose: purpose_asked, .. }) => {
            (agent, purpose) == (agent_asked, purpose_asked)
        }
        (Key::Passed { wire, path, .. }, Key::Passed { wire: wire_asked, path: path_asked, .. }) => {
            // Where the model stands in the path, what is done with it stands behind it.
            let operation = |path: &str| path.rsplit(':').next().map(str::to_owned);
            wire == wire_asked && operation(path) == operation(path_asked)
        }
        _ => false,
    }
}

fn refuse(message: String) -> ProviderError {
    ProviderError::new(FailureKind::InvalidRequest, message)
}

fn steps(neutral: Neutral, timing: Timing, is_last: bool, moves: &[(String, String)]) -> VecDeque<Step> {
    let Neutral { events, end, took_ms, .. } = neutral;
    let mut last = 0;
    let mut wait = |at: u64| {
        let wait = Duration::from_millis(at.saturating_sub(last));
        last = last.max(at);
        if timing == Timing::AsRecorded { wait } else { Duration::ZERO }
    };
    let mut steps = VecDeque::new();
    for (at, event) in events {
        // What is left of a limit by now is another matter.
        if timing == Timing::AtOnce && matches!(event, ModelEvent::Limits(_)) {
            continue;
        }
        steps.push_back((wait(at), Ok(event_moved(event, moves))));
    }
    match end {
        End::Failed(failed) => steps.push_back((wait(took_ms), Err(error(failed, timing, is_last)))),
        End::Finished | End::Cut | End::Dropped => {}
    }
    steps
}

/// The failure that was. A wait that was waited for is not waited for again, unless times are to be as they were.
fn error(failed: Failed, timing: Timing, is_last: bool) -> ProviderError {
    let mut error = ProviderError::from(failed);
    if timing == Timing::AtOnce {
        error.readings.clear();
        if !is_last {
            error.retry_after = error.retry_after.map(|_| Duration::ZERO);
        }
    }
    error
}

fn event_moved(event: ModelEvent, moves: &[(String, String)]) -> ModelEvent {
    if moves.is_empty() {
        return event;
    }
    let text = |text: String| text_moved(text, moves);
    match event {
        ModelEvent::TextDelta { index, text: delta } => ModelEvent::TextDelta { index, text: text(delta) },
        ModelEvent::ToolCallDelta { index, name, arguments } => {
            ModelEvent::ToolCallDelta { index, name, arguments: text(arguments) }
        }
        ModelEvent::Block(AnswerBlock::Text { text: whole }) => {
            ModelEvent::Block(AnswerBlock::Text { text: text(whole) })
        }
        ModelEvent::Block(AnswerBlock::ToolCall { vendor_call_id, name, input }) => {
            let input = input.map(|input| value_moved(input, moves)).map_err(text);
            ModelEvent::Block(AnswerBlock::ToolCall { vendor_call_id, name, input })
        }
        // Records of reasoning may be signed, and go back as they came.
        event => event,
    }
}

fn text_moved(text: String, moves: &[(String, String)]) -> String {
    moves.iter().fold(text, |text, (old, new)| if text.contains(old.as_str()) { moved(&text, old, new) } else { text })
}

fn value_moved(value: Value, moves: &[(String, String)]) -> Value {
    match value {
        Value::String(text) => Value::String(text_moved(text, moves)),
        Value::Array(list) => list.into_iter().map(|one| value_moved(one, moves)).collect(),
        Value::Object(fields) => fields.into_iter().map(|(name, one)| (name, value_moved(one, moves))).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) => value,
    }
}

/// A recorded answer in the vendor's own words.
#[derive(Debug)]
pub(crate) struct Played {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    chunks: VecDeque<(Duration, Result<Bytes, ProviderError>)>,
}

impl Played {
    fn new(passed: Passed, timing: Timing, is_last: bool) -> Result<Self, ProviderError> {
        let Some(head) = passed.answer else {
            return Err(match passed.end {
                End::Failed(failed) => error(failed, timing, is_last),
                End::Finished | End::Cut | End::Dropped => {
                    refuse("the recorded request was given up before its answer came".to_owned())
                }
            });
        };
        let mut headers = HeaderMap::new();
        for (name, value) in head.headers {
            let asks_to_wait = name.contains("retry-after") || name.contains("ratelimit");
            if timing == Timing::AtOnce && asks_to_wait && !is_last {
                continue;
            }
            if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(&value)) {
                headers.insert(name, value);
            }
        }
        let mut last = 0;
        let mut wait = |at: u64| {
            let wait = Duration::from_millis(at.saturating_sub(last));
            last = last.max(at);
            if timing == Timing::AsRecorded { wait } else { Duration::ZERO }
        };
        let mut chunks: VecDeque<_> =
            passed.chunks.into_iter().map(|(at, piece)| (wait(at), piece.into_bytes())).collect();
        if let End::Failed(failed) = passed.end {
            chunks.push_back((wait(passed.took_ms), Err(error(failed, timing, is_last))));
        }
        let status = StatusCode::from_u16(head.status).map_err(|_| refuse("the recorded status is none".to_owned()))?;
        Ok(Self { status, headers, chunks })
    }

    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, ProviderError> {
        while let Some((wait, chunk)) = self.chunks.pop_front() {
            if !wait.is_zero() {
                tokio::time::sleep(wait).await;
            }
            match chunk {
                // A piece that held nothing but the beginning of a key.
                Ok(bytes) if bytes.is_empty() => {}
                chunk => return chunk.map(Some),
            }
        }
        Ok(None)
    }
}
