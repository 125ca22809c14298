//! Writing a cassette: one line for each attempt, as it ends.

use super::{
    blot::{Blot, Pieces},
    format::{AnswerHead, Body, End, Exchange, FORMAT, Failed, Head, Heading, MAX_LINE_BYTES, Neutral, Passed, Piece},
    format::{TooLarge, VERSION},
    reader::Key,
};
use crate::{EventStream, ModelEvent, Provider, ProviderError, Secret, WireKind, http::Raw};
use adj_domain::{ModelRequest, Timestamp};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use reqwest::{StatusCode, header::HeaderMap};
use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};
use tokio::time::Instant;

/// Of a request's headers, those that change what the vendor answers.
const ASKED_HEADERS: [&str; 3] = ["anthropic-version", "anthropic-beta", "openai-beta"];
/// Of an answer's headers, those that clients act upon; those that speak of limits are kept too.
const ANSWERED_HEADERS: [&str; 5] = ["content-type", "request-id", "x-request-id", "x-should-retry", "openai-model"];

/// What an event takes besides its text.
const EVENT_BYTES: usize = 40;

/// A recording that cannot be made, or that is not whole.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("{} exists, and nothing is recorded over it", path.display())]
    Exists { path: PathBuf },
    #[error("cannot make the cassette {}", path.display())]
    Create { path: PathBuf, source: io::Error },
    #[error("the cassette {} is not whole", path.display())]
    Write { path: PathBuf, source: io::Error },
}

/// Writes down what is asked and answered; copies of it write into the same file.
#[derive(Debug, Clone)]
pub struct Recorder {
    tape: Arc<Tape>,
}

#[derive(Debug)]
struct Tape {
    path: PathBuf,
    started: Instant,
    blot: Blot,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    file: File,
    exchanges: u64,
    /// After this nothing more is written: a line in the middle may be half there.
    problem: Option<io::Error>,
}

impl Recorder {
    /// Makes the file, which must not exist and is readable by its owner only. `secrets` are written nowhere.
    pub fn create(path: &Path, heading: Heading, secrets: &[Secret]) -> Result<Self, RecordError> {
        let mut options = OpenOptions::new();
        options.append(true).create_new(true).mode(0o600);
        let mut file = options.open(path).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => RecordError::Exists { path: path.to_owned() },
            _ => RecordError::Create { path: path.to_owned(), source },
        })?;
        let head = Head {
            format: FORMAT.to_owned(),
            version: VERSION,
            adjutant: env!("CARGO_PKG_VERSION").to_owned(),
            recorded_at: Timestamp::now(),
            heading,
        };
        let blot = Blot::new(secrets);
        let line = blot.text(serde_json::to_string(&head).expect("names and paths are JSON"));
        writeln!(file, "{line}").map_err(|source| RecordError::Create { path: path.to_owned(), source })?;
        let state = Mutex::new(State { file, exchanges: 0, problem: None });
        Ok(Self { tape: Arc::new(Tape { path: path.to_owned(), started: Instant::now(), blot, state }) })
    }

    /// Returns the same vendor, recorded: where it is reached over HTTP, also what passes through in its own words.
    pub fn around(&self, provider: Arc<dyn Provider>) -> Arc<dyn Provider> {
        match provider.http() {
            Some(http) => Arc::new(http.clone().recorded_by(self.clone())),
            None => Arc::new(Recorded { recorder: self.clone(), provider }),
        }
    }

    /// Returns how many exchanges were written, or why the cassette is not whole.
    pub fn finish(&self) -> Result<u64, RecordError> {
        let mut state = self.tape.state.lock().unwrap_or_else(PoisonError::into_inner);
        match state.problem.take() {
            Some(source) => Err(RecordError::Write { path: self.tape.path.clone(), source }),
            None => Ok(state.exchanges),
        }
    }

    /// Writes down what a stream of events says until it ends, or until it is dropped.
    pub(crate) fn tap(&self, request: &ModelRequest, attempt: u32, events: EventStream) -> EventStream {
        let take = NeutralTake {
            recorder: self.clone(),
            started: Instant::now(),
            request: request.clone(),
            attempt,
            events: Vec::new(),
            bytes: 0,
            held: None,
            end: None,
        };
        stream::unfold((events, take), |(mut events, mut take)| async move {
            let event = events.next().await;
            take.note(event.as_ref());
            Some((event?, (events, take)))
        })
        .boxed()
    }

    pub(crate) fn tap_passing(&self, wire: WireKind, raw: &Raw) -> PassedTake {
        let headers = kept(&raw.headers, |name| ASKED_HEADERS.contains(&name));
        let passed = Passed {
            at_ms: 0,
            took_ms: 0,
            wire,
            path: raw.path.clone(),
            query: raw.query.clone().filter(|query| !query.is_empty()),
            headers,
            body: Body::of(&raw.body),
            answer: None,
            chunks: Vec::new(),
            end: End::Dropped,
        };
        let pieces = self.tape.blot.pieces();
        let started = Instant::now();
        PassedTake { recorder: self.clone(), started, passed, pieces, left: None, bytes: 0, end: None }
    }

    fn write(&self, at: Instant, who: impl FnOnce() -> String, exchange: impl FnOnce() -> Option<Exchange>) {
        let too_large = || Exchange::TooLarge(TooLarge { at_ms: self.at_ms(at), who: who() });
        let line = |exchange: &Exchange| {
            // Everything is blotted out at once, in whichever field it stands.
            let line = serde_json::to_string(exchange).expect("what was said is JSON");
            self.tape.blot.text(line)
        };
        let whole = exchange().map(|exchange| line(&exchange)).filter(|line| line.len() < MAX_LINE_BYTES);
        let mut line = whole.unwrap_or_else(|| line(&too_large()));
        line.push('\n');
        let mut state = self.tape.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.problem.is_some() {
            return;
        }
        // The file has no buffer: what is written survives the end of this process, however it comes.
        match state.file.write_all(line.as_bytes()) {
            Ok(()) => state.exchanges += 1,
            Err(error) => state.problem = Some(error),
        }
    }

    fn at_ms(&self, at: Instant) -> u64 {
        milliseconds(at.saturating_duration_since(self.tape.started))
    }
}

fn milliseconds(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn kept(headers: &HeaderMap, is_kept: impl Fn(&str) -> bool) -> BTreeMap<String, String> {
    let kept = headers.iter().filter(|(name, _)| is_kept(name.as_str()));
    kept.filter_map(|(name, value)| Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))).collect()
}

/// A vendor that is recorded.
#[derive(Debug)]
struct Recorded {
    recorder: Recorder,
    provider: Arc<dyn Provider>,
}

impl Provider for Recorded {
    fn stream(&self, request: &ModelRequest, attempt: u32) -> EventStream {
        self.recorder.tap(request, attempt, self.provider.stream(request, attempt))
    }
}

/// One attempt in neutral form; dropping it writes it down.
struct NeutralTake {
    recorder: Recorder,
    started: Instant,
    request: ModelRequest,
    attempt: u32,
    events: Vec<(u64, ModelEvent)>,
    /// Roughly, what the events come to; of one that no line can hold nothing is kept.
    bytes: usize,
    /// The text that is arriving: a key may be cut into two of its pieces.
    held: Option<(Strand, Pieces)>,
    end: Option<End>,
}

/// Which text a piece belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Strand {
    Text(u32),
    Reasoning(u32),
    Arguments(u32),
}

impl Strand {
    fn of(event: &mut ModelEvent) -> Option<(Self, &mut String)> {
        match event {
            ModelEvent::TextDelta { index, text } => Some((Self::Text(*index), text)),
            ModelEvent::ReasoningDelta { index, text } => Some((Self::Reasoning(*index), text)),
            ModelEvent::ToolCallDelta { index, arguments, .. } => Some((Self::Arguments(*index), arguments)),
            ModelEvent::Limits(_)
            | ModelEvent::Started { .. }
            | ModelEvent::Block(_)
            | ModelEvent::Usage(_)
            | ModelEvent::Finished { .. } => None,
        }
    }

    fn delta(self, text: String) -> ModelEvent {
        match self {
            Self::Text(index) => ModelEvent::TextDelta { index, text },
            Self::Reasoning(index) => ModelEvent::ReasoningDelta { index, text },
            Self::Arguments(index) => ModelEvent::ToolCallDelta { index, name: None, arguments: text },
        }
    }
}

impl NeutralTake {
    fn note(&mut self, event: Option<&Result<ModelEvent, ProviderError>>) {
        if self.end.is_some() {
            return;
        }
        match event {
            Some(Ok(event)) => {
                self.push(event.clone());
                if matches!(event, ModelEvent::Finished { .. }) {
                    self.end = Some(End::Finished);
                }
            }
            Some(Err(error)) => self.end = Some(End::Failed(Failed::from(error))),
            None => self.end = Some(End::Cut),
        }
    }

    fn push(&mut self, mut event: ModelEvent) {
        let at = milliseconds(self.started.elapsed());
        let strand = Strand::of(&mut event).map(|(strand, _)| strand);
        if self.held.as_ref().is_some_and(|(held, _)| Some(*held) != strand) {
            self.release(at);
        }
        if let Some((strand, text)) = Strand::of(&mut event) {
            let blot = &self.recorder.tape.blot;
            let (_, pieces) = self.held.get_or_insert_with(|| (strand, blot.pieces()));
            *text = text_of(pieces.push(std::mem::take(text).into()));
            self.bytes += text.len();
        }
        self.bytes += EVENT_BYTES;
        if self.bytes <= MAX_LINE_BYTES {
            self.events.push((at, event));
        } else {
            self.events.clear();
        }
    }

    /// Adds what was held back of a text that has ended.
    fn release(&mut self, at: u64) {
        if let Some((strand, mut pieces)) = self.held.take() {
            let rest = text_of(pieces.finish());
            if !rest.is_empty() {
                self.events.push((at, strand.delta(rest)));
            }
        }
    }
}

/// What is cut off is cut before or behind a key, and so never within a character.
fn text_of(bytes: Bytes) -> String {
    String::from_utf8_lossy(&bytes).into_owned()
}

impl Drop for NeutralTake {
    fn drop(&mut self) {
        let took_ms = milliseconds(self.started.elapsed());
        self.release(took_ms);
        let key = Key::of_request(&self.request);
        let exchange = || {
            let neutral = Neutral {
                at_ms: self.recorder.at_ms(self.started),
                took_ms,
                attempt: self.attempt,
                request: self.request.clone(),
                events: std::mem::take(&mut self.events),
                end: self.end.take().unwrap_or(End::Dropped),
            };
            (self.bytes <= MAX_LINE_BYTES).then_some(Exchange::Neutral(Box::new(neutral)))
        };
        self.recorder.clone().write(self.started, || key.to_string(), exchange);
    }
}

/// One attempt in the vendor's own words; dropping it writes it down.
#[derive(Debug)]
pub(crate) struct PassedTake {
    recorder: Recorder,
    started: Instant,
    passed: Passed,
    pieces: Pieces,
    /// How many bytes are still to come, where that was announced.
    left: Option<u64>,
    bytes: usize,
    end: Option<End>,
}

impl PassedTake {
    /// The answer's head is there.
    pub(crate) fn head(&mut self, status: StatusCode, headers: &HeaderMap) {
        let length = headers.get("content-length").and_then(|value| value.to_str().ok());
        self.left = length.and_then(|length| length.parse().ok());
        let of_limits = crate::headers::is_of_interest;
        let headers = kept(headers, |name| name != "date" && (ANSWERED_HEADERS.contains(&name) || of_limits(name)));
        self.passed.answer = Some(AnswerHead { status: status.as_u16(), headers });
        self.look_for_end();
    }

    pub(crate) fn chunk(&mut self, bytes: &Bytes) {
        self.left = self.left.map(|left| left.saturating_sub(bytes.len() as u64));
        self.bytes += bytes.len();
        if self.bytes <= MAX_LINE_BYTES {
            let at = milliseconds(self.started.elapsed());
            let bytes = self.pieces.push(bytes.clone());
            self.passed.chunks.push((at, Piece::of(&bytes)));
        } else {
            self.passed.chunks.clear();
        }
        self.look_for_end();
    }

    /// Whoever knows the length does not ask for more than that.
    fn look_for_end(&mut self) {
        if self.left == Some(0) {
            self.end.get_or_insert(End::Finished);
        }
    }

    /// The vendor's last byte was read, or nothing more will come.
    pub(crate) fn end(&mut self, outcome: Result<(), &ProviderError>) {
        self.end.get_or_insert(match outcome {
            Ok(()) => End::Finished,
            Err(error) => End::Failed(Failed::from(error)),
        });
    }
}

impl Drop for PassedTake {
    fn drop(&mut self) {
        let took_ms = milliseconds(self.started.elapsed());
        let rest = self.pieces.finish();
        if !rest.is_empty() {
            self.passed.chunks.push((took_ms, Piece::of(&rest)));
        }
        let key = Key::of_passed(self.passed.wire, &self.passed.path, &self.passed.body);
        let exchange = || {
            let passed = Passed {
                at_ms: self.recorder.at_ms(self.started),
                took_ms,
                end: self.end.take().unwrap_or(End::Dropped),
                ..self.passed.clone()
            };
            (self.bytes <= MAX_LINE_BYTES).then_some(Exchange::Passed(Box::new(passed)))
        };
        self.recorder.clone().write(self.started, || key.to_string(), exchange);
    }
}
