//! From a wire to the same wire: the request goes out as it came, and the answer comes back as it is.

use super::{
    Refusal, RefusalKind,
    body::{self, Body},
    call::{Ask, InPath, Streams, query},
    journey::{Missed, Saying},
    meter::{Metered, Operation, Outcome},
    records::{self, Whose},
    splice::Top,
    tap::{Shape, Tap},
    wire::Wire,
};
use crate::{governor::Asked, passage::Again};
use adj_domain::{FailureKind, ModelRef};
use adj_providers::{
    HttpProvider, ProviderError,
    http::{Raw, RawAnswer},
};
use bytes::Bytes;
use futures_util::stream;
use hyper::{
    HeaderMap, Response, StatusCode, Uri,
    header::{CONTENT_LENGTH, HeaderValue},
};
use std::io;
use tokio_util::sync::CancellationToken;

/// Of the caller and its connection only; nobody behind it gets to see them.
const NOT_PASSED_ON: [&str; 18] = [
    "authorization",
    "x-api-key",
    "x-goog-api-key",
    "cookie",
    "proxy-authorization",
    "host",
    "accept-encoding",
    "content-length",
    "expect",
    "forwarded",
    "x-forwarded-for",
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Of the vendor and its connection only.
const NOT_PASSED_BACK: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-connection",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// A body that is to leave.
pub(super) struct Outgoing {
    bytes: Bytes,
    /// Records of reasoning that are not in it any more.
    taken: usize,
}

impl Outgoing {
    /// The caller's body with another model in it, and nothing else changed but for what would be refused.
    pub(super) fn new(ask: &Ask, top: &Top, body: &Bytes, model: &str) -> Self {
        let (body, taken) = records::without(ask.wire, body, Whose::Sealed).unwrap_or_else(|| (body.clone(), 0));
        let bytes = match (&ask.in_path, taken) {
            (Some(_), _) => body,
            (None, 0) => top.with_model(&body, model),
            // What was read once is read again.
            (None, _) => Top::read(&body).map_or(body.clone(), |top| top.with_model(&body, model)),
        };
        Self { bytes, taken }
    }
}

fn lost(taken: usize) -> Vec<String> {
    Some(taken).filter(|taken| *taken > 0).map(records::told).into_iter().collect()
}

/// A request on its way, and all that is known of it.
pub(super) struct Forwarding<'a> {
    pub(super) ask: &'a Ask,
    pub(super) uri: &'a Uri,
    pub(super) headers: &'a HeaderMap,
    pub(super) body: Outgoing,
    pub(super) provider: &'a HttpProvider,
    pub(super) model: ModelRef,
    /// Other models may have answered what stands in the body.
    pub(super) is_one_of_many: bool,
    pub(super) streams: bool,
    pub(super) revoked: CancellationToken,
    pub(super) tapped_bytes: usize,
}

impl Forwarding<'_> {
    /// What the body had to leave behind.
    pub(super) fn losses(&self) -> Vec<String> {
        lost(self.body.taken)
    }

    /// Sends the request until there is an answer to pass on, or no use in sending it again.
    pub(super) async fn ask(&self, asked: Asked<'_>, metered: &mut Metered) -> Result<Saying, Missed> {
        let mut raw = Raw {
            path: self.path(),
            query: Some(passed_query(self.uri)),
            headers: passed_headers(self.headers, &NOT_PASSED_ON),
            body: self.body.bytes.clone(),
        };
        metered.closing.losses = self.losses();
        let mut refused: Option<(RawAnswer, Bytes)> = None;
        let mut may_shed = self.is_one_of_many;
        loop {
            // Counting costs nothing, and has limits of its own.
            if self.ask.operation == Operation::Generate
                && let Err(error) = metered.enter(asked).await
            {
                let say = match refused {
                    // The vendor's own words say more than that there was no time to wait any longer.
                    Some((answer, body)) => self.saying(answer, Some(body)),
                    None => self.failing(&error),
                };
                return Err(Missed { error, say });
            }
            let mut answer = match self.provider.forward(raw.clone()).await {
                Ok(answer) => answer,
                Err(error) => {
                    let is_ours = error.is_unsent || metered.may_move(&error);
                    match self.again(&error, is_ours, metered) {
                        Some(again) => {
                            again.rest().await;
                            continue;
                        }
                        None => return Err(self.missed(error)),
                    }
                }
            };
            metered.mark_first_byte();
            metered.learn(&answer.readings());
            if answer.status.is_success() {
                return match check(&mut answer, self.wanted()).await {
                    Ok(first) => {
                        metered.let_in();
                        Ok(self.saying(answer, first))
                    }
                    Err(error) => {
                        metered.end_attempt(&error);
                        Err(self.missed(error))
                    }
                };
            }
            let (body, error) = match answer.refusal().await {
                Ok(refusal) => refusal,
                Err(error) => {
                    metered.end_attempt(&error);
                    return Err(self.missed(error));
                }
            };
            if is_about_records(&error, &body)
                && std::mem::take(&mut may_shed)
                && let Some((bare, taken)) = records::without(self.ask.wire, &raw.body, Whose::All)
            {
                metered.end_attempt(&error);
                metered.closing.losses = lost(self.body.taken + taken);
                raw.body = bare;
                continue;
            }
            // Everything else callers repeat themselves, with a patience of their own; but a fleet that does so about a limit
            // is a storm. Where another model may answer, nobody is told before it was worth trying here.
            let is_ours = error.kind == FailureKind::RateLimit || metered.may_move(&error);
            match self.again(&error, is_ours, metered) {
                Some(again) => {
                    refused = Some((answer, body));
                    again.rest().await;
                }
                None => return Err(Missed { error, say: self.saying(answer, Some(body)) }),
            }
        }
    }

    /// Ends an attempt; says whether another follows, where that is our business. Counts are the caller's own to repeat.
    fn again(&self, error: &ProviderError, is_ours: bool, metered: &mut Metered) -> Option<Again> {
        if is_ours && self.ask.operation == Operation::Generate {
            return metered.again(error);
        }
        metered.end_attempt(error);
        None
    }

    fn missed(&self, error: ProviderError) -> Missed {
        Missed { say: self.failing(&error), error }
    }

    /// Answers for the vendor, which did not.
    fn failing(&self, error: &ProviderError) -> Saying {
        let (wire, error) = (self.ask.wire, error.clone());
        Box::new(move |mut metered| {
            let error = metered.retold(error);
            metered.fail(error.kind, error.message.clone());
            upstream(error).response(wire)
        })
    }

    /// Answers with what the vendor says.
    fn saying(&self, answer: RawAnswer, first: Option<Bytes>) -> Saying {
        let passing = Passing {
            wire: self.ask.wire,
            shape: match answer.status.is_success() {
                true => self.wanted(),
                false => Shape::Failure(answer.status.as_u16()),
            },
            model: self.model.to_string(),
            revoked: self.revoked.clone(),
            tapped_bytes: self.tapped_bytes,
        };
        Box::new(move |metered| passing.on(answer, first, metered))
    }

    /// The path as the provider's own encoder would write it.
    fn path(&self) -> String {
        match (&self.ask.in_path, self.ask.wire, self.ask.operation) {
            (Some(InPath { version, model, raw_model, method, .. }), _, _) => {
                let name = if *model == self.model.name { raw_model.clone() } else { escaped(&self.model.name) };
                format!("/{version}/models/{name}:{method}")
            }
            (None, Wire::Messages, Operation::CountTokens) => "/v1/messages/count_tokens".to_owned(),
            (None, Wire::Messages, Operation::Generate) => "/v1/messages".to_owned(),
            (None, Wire::Chat, _) => "/chat/completions".to_owned(),
            (None, Wire::Responses | Wire::Gemini, _) => "/responses".to_owned(),
        }
    }

    fn wanted(&self) -> Shape {
        let events = match &self.ask.in_path {
            Some(path) => path.streams == Streams::Events,
            None => self.streams && self.ask.operation == Operation::Generate,
        };
        if events { Shape::Events } else { Shape::Document }
    }
}

/// How an answer is passed on.
struct Passing {
    wire: Wire,
    shape: Shape,
    model: String,
    revoked: CancellationToken,
    tapped_bytes: usize,
}

impl Passing {
    /// Answers with what the vendor says.
    fn on(self, answer: RawAnswer, first: Option<Bytes>, mut metered: Metered) -> Response<Body> {
        let Self { wire, shape, .. } = self;
        metered.closing.status = Some(answer.status.as_u16());
        metered.closing.vendor_request = request_id(&answer.headers);
        let mut response = Response::new(());
        *response.status_mut() = answer.status;
        *response.headers_mut() = passed_headers(&answer.headers, &NOT_PASSED_BACK);
        let mut left = None;
        if shape == Shape::Events {
            // A stream has no length, or nothing could be said after it broke off.
            response.headers_mut().remove(CONTENT_LENGTH);
        } else {
            let length = response.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
            left = length.and_then(|length| length.parse().ok());
        }
        name(response.headers_mut(), &self.model, &metered.closing.losses);
        let tap = Tap::new(wire, shape, self.tapped_bytes);
        let first = first.filter(|first| !first.is_empty());
        let mut flow = Flow { wire, answer, first, left, tap, metered, revoked: self.revoked, is_over: false };
        if left == Some(0) {
            flow.end();
        }
        let chunks = stream::unfold(flow, |mut flow| async { Some((flow.next().await?, flow)) });
        response.map(|()| body::streaming(chunks))
    }
}

/// Looks whether an answer of success is what the wire says; returns the first bytes where they were needed for that.
async fn check(answer: &mut RawAnswer, wanted: Shape) -> Result<Option<Bytes>, ProviderError> {
    let media_type = answer.headers.get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_json = media_type == "application/json" || media_type.ends_with("+json");
    let good = match wanted {
        Shape::Events => media_type == "text/event-stream",
        Shape::Document | Shape::Failure(_) => is_json,
    };
    if good {
        return Ok(None);
    }
    let first = answer.chunk().await?.unwrap_or_default();
    if media_type.is_empty() {
        // Some servers at home say nothing of the type; a page or a document betrays itself by how it begins.
        let begins = first.iter().find(|byte| !byte.is_ascii_whitespace());
        let good = match wanted {
            Shape::Events => begins.is_some_and(|byte| !matches!(byte, b'<' | b'{' | b'[')),
            Shape::Document | Shape::Failure(_) => matches!(begins, Some(b'{' | b'[')),
        };
        if good {
            return Ok(Some(first));
        }
    }
    if let Some(error) = ProviderError::in_document(&first) {
        return Err(error);
    }
    let expected = if wanted == Shape::Events { "a stream of events" } else { "a JSON document" };
    let what = if media_type.is_empty() { "something without a type" } else { &media_type };
    let start = String::from_utf8_lossy(&first[..first.len().min(800)]);
    let start = start.split_whitespace().collect::<Vec<_>>().join(" ");
    let start = &start[..start.floor_char_boundary(200)];
    Err(ProviderError::protocol(format!("the vendor answered with {what} and not with {expected}: {start}")))
}

/// An answer that is passing through.
struct Flow {
    wire: Wire,
    answer: RawAnswer,
    first: Option<Bytes>,
    /// How much is still to come, where that was announced: nobody asks for more once it was sent.
    left: Option<u64>,
    tap: Tap,
    metered: Metered,
    revoked: CancellationToken,
    is_over: bool,
}

impl Flow {
    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        if self.is_over {
            return None;
        }
        let chunk = match self.first.take() {
            Some(first) => Ok(Some(first)),
            None => tokio::select! {
                biased;
                () = self.revoked.cancelled() => {
                    self.is_over = true;
                    return Some(Err(io::Error::other("the caller's token was revoked")));
                }
                chunk = self.answer.chunk() => chunk,
            },
        };
        match chunk {
            Ok(Some(bytes)) => {
                self.metered.closing.answer_bytes += bytes.len() as u64;
                self.tap.push(&bytes, &mut self.metered);
                if self.tap.is_finished() {
                    // Whoever hangs up now has had all there was.
                    self.metered.outcome.get_or_insert(Outcome::Answered);
                }
                self.left = self.left.map(|left| left.saturating_sub(bytes.len() as u64));
                if self.left == Some(0) {
                    self.end();
                }
                Some(Ok(bytes))
            }
            Ok(None) => {
                if self.tap.lacks_its_end() {
                    self.is_over = true;
                    let message = "the vendor's stream broke off before the answer's end";
                    return self.cut(ProviderError::protocol(message), true);
                }
                self.end();
                None
            }
            Err(error) => {
                self.is_over = true;
                if self.tap.is_finished() {
                    return None;
                }
                let lacks_its_end = self.tap.lacks_its_end();
                self.cut(error, lacks_its_end)
            }
        }
    }

    /// The vendor's last byte is here.
    fn end(&mut self) {
        if !std::mem::replace(&mut self.is_over, true) {
            self.tap.end(&mut self.metered);
            self.metered.outcome.get_or_insert(Outcome::Answered);
        }
    }

    /// Ends an answer that broke off. Some clients take what they got of a stream for the whole answer, unless they are told;
    /// in the middle of an event nothing can be said.
    fn cut(&mut self, error: ProviderError, is_stream: bool) -> Option<io::Result<Bytes>> {
        self.metered.fail(error.kind, error.message.clone());
        if is_stream && self.tap.is_between_events() {
            return Some(Ok(upstream(error).frame(self.wire).into()));
        }
        Some(Err(io::Error::other(error.message)))
    }
}

pub(super) fn is_revoked() -> Refusal {
    Refusal::new(RefusalKind::Unauthenticated, "adjutant: the token was revoked")
}

/// Says in an answer's head who answers, and what that one was not told.
pub(super) fn name(headers: &mut HeaderMap, model: &str, losses: &[String]) {
    for (name, value) in [("x-adjutant-model", model), ("x-adjutant-losses", &losses.join(", "))] {
        if let Some(value) = HeaderValue::from_str(value).ok().filter(|value| !value.is_empty()) {
            headers.insert(name, value);
        }
    }
}

/// Whether a vendor refuses a request for the sake of a record of reasoning that it cannot read.
fn is_about_records(error: &ProviderError, body: &[u8]) -> bool {
    let body = String::from_utf8_lossy(body).to_ascii_lowercase();
    let words = ["signature", "encrypted_content", "encrypted content", "redacted_thinking"];
    error.kind == FailureKind::InvalidRequest && words.iter().any(|word| body.contains(word))
}

/// What the vendor did not manage to say itself.
fn upstream(error: ProviderError) -> Refusal {
    match error.kind {
        FailureKind::Timeout => Refusal::new(RefusalKind::Timeout, error.message),
        FailureKind::InvalidRequest | FailureKind::Authentication => Refusal::new(RefusalKind::Upstream, error.message),
        _ => match Refusal::from(error) {
            refusal if refusal.status(Wire::Responses) == StatusCode::BAD_REQUEST => refusal,
            refusal => Refusal { kind: RefusalKind::Upstream, ..refusal },
        },
    }
}

/// Copies all fields but these, and but those that the sender itself ties to its connection.
fn passed_headers(headers: &HeaderMap, except: &[&str]) -> HeaderMap {
    let tied =
        headers.get_all("connection").iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    let tied = tied.map(|name| name.trim().to_ascii_lowercase()).collect::<Vec<_>>();
    let kept = headers.iter().filter(|(name, _)| {
        let name = name.as_str();
        !except.contains(&name) && !tied.iter().any(|one| one == name) && !name.starts_with("x-adjutant-")
    });
    kept.map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn passed_query(uri: &Uri) -> String {
    let parts = query(uri).filter(|(name, _)| *name != "key");
    let parts = parts.map(|(name, value)| if value.is_empty() { name.to_owned() } else { format!("{name}={value}") });
    parts.collect::<Vec<_>>().join("&")
}

fn escaped(name: &str) -> String {
    let mut path = String::new();
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' => path.push(char::from(byte)),
            _ => path.push_str(&format!("%{byte:02X}")),
        }
    }
    path
}

fn request_id(headers: &HeaderMap) -> Option<String> {
    let value = ["request-id", "x-request-id"].into_iter().find_map(|name| headers.get(name))?;
    Some(value.to_str().ok()?.chars().take(200).collect())
}
