//! One attempt over HTTP: connect, send, read the stream, with a bound on every wait.

mod forward;

pub use forward::{Raw, RawAnswer};

use forward::Tape;

use crate::{
    Dialect, EventStream, ModelEvent, Provider, ProviderError, Secret, StreamDecoder, WireKind,
    error::excerpt,
    headers::{self, Pause},
    scrub::SHORTEST_KEY,
    wire::{Encoded, anthropic, chat, gemini, openai},
};
use adj_domain::{FailureKind, ModelRequest, Timestamp};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use reqwest::{Client, Response, StatusCode, Url, header};
use std::{
    collections::VecDeque,
    error::Error,
    net::IpAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio::time::{Instant, timeout_at};

/// How long to wait for a vendor, at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    pub connect: Duration,
    /// From sending the request to the first byte of the answer.
    pub first_byte: Duration,
    pub between_chunks: Duration,
    /// Between events that say something; pings and comments do not.
    pub progress: Duration,
    /// From sending the request to the answer's end.
    pub whole: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            first_byte: Duration::from_secs(120),
            between_chunks: Duration::from_secs(120),
            progress: Duration::from_secs(600),
            whole: Duration::from_secs(3600),
        }
    }
}

/// How the key is shown to the vendor.
#[derive(Debug, Clone)]
pub enum Credentials {
    None,
    /// `Authorization: Bearer …`
    Bearer(Secret),
    /// `x-api-key: …`, or whatever the wire calls its header.
    ApiKey(Secret),
}

const MAX_ERROR_BODY_BYTES: usize = 64 * 1024;
const MAX_LIMIT_HEADERS: usize = 64;
/// After the answer's end, how long to wait for the connection's end, so that the connection can be used again.
const DRAIN: Duration = Duration::from_millis(10);

/// A vendor that is reached over HTTP.
#[derive(Debug, Clone)]
pub struct HttpProvider {
    wire: WireKind,
    base_url: Url,
    credentials: Credentials,
    timeouts: Timeouts,
    // Made at the first call: start-up need not pay for it, and a command that calls no model never does.
    client: Arc<OnceLock<Result<Client, String>>>,
    tape: Option<Tape>,
}

impl HttpProvider {
    pub fn new(wire: WireKind, base_url: Url, credentials: Credentials, timeouts: Timeouts) -> Self {
        Self { wire, base_url, credentials, timeouts, client: Arc::default(), tape: None }
    }

    fn client(&self) -> Result<Client, ProviderError> {
        let made =
            self.client.get_or_init(|| make_client(&self.base_url, self.timeouts).map_err(|error| with_causes(&error)));
        made.clone()
            .map_err(|error| ProviderError::new(FailureKind::Connection, format!("cannot set up HTTP: {error}")))
    }

    fn encode(&self, request: &ModelRequest) -> Result<Encoded, ProviderError> {
        match self.wire {
            WireKind::OpenAi => openai::encode(request),
            WireKind::Anthropic => anthropic::encode(request),
            WireKind::Gemini => gemini::encode(request),
            WireKind::Chat if self.base_url.host_str() == Some("api.openai.com") => {
                chat::encode(request, chat::Variant::OpenAi)
            }
            WireKind::Chat => chat::encode(request, chat::Variant::Compatible),
        }
    }

    /// Sends the request and returns the answer once its head is there, if it is a stream.
    async fn send(&self, encoded: Encoded, deadline: Instant) -> Result<Response, ProviderError> {
        let url = join(self.wire, &self.base_url, &encoded.path);
        let mut builder = self.client()?.post(url).body(encoded.body);
        for (name, value) in encoded.headers {
            builder = builder.header(name, value);
        }
        builder = match &self.credentials {
            Credentials::None => builder,
            Credentials::Bearer(key) => {
                builder.header(header::AUTHORIZATION, sensitive(&format!("Bearer {}", key.expose()))?)
            }
            Credentials::ApiKey(key) => builder.header(self.key_header(), sensitive(key.expose())?),
        };
        let response = match timeout_at(deadline, builder.send()).await {
            Ok(sent) => sent.map_err(|error| connection_error(&error))?,
            Err(_) => return Err(self.no_first_byte()),
        };
        self.check(response, deadline).await
    }

    async fn check(&self, response: Response, deadline: Instant) -> Result<Response, ProviderError> {
        let status = response.status();
        let media_type = response
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_ascii_lowercase();
        // An answer without a type is given a chance; the decoder takes nothing but a proper stream.
        if status.is_success() && (media_type.is_empty() || media_type.starts_with("text/event-stream")) {
            return Ok(response);
        }
        let head = response.headers().clone();
        let body = read_bounded(response, deadline).await;
        if status.is_success() {
            return Err(ProviderError::in_document(&body).unwrap_or_else(|| {
                let start = excerpt(&String::from_utf8_lossy(&body), 200);
                ProviderError::protocol(format!(
                    "the vendor at {} answered with {media_type} and not with a stream of events: {start}",
                    self.base_url
                ))
            }));
        }
        let mut error = refused(status, &head, &body);
        if status.is_redirection() {
            error.message =
                format!("{} redirects (HTTP status {}); keys are not sent on", self.base_url, status.as_u16());
        }
        Err(error)
    }

    /// The header for a key that is no bearer token.
    fn key_header(&self) -> &'static str {
        if self.wire == WireKind::Gemini { "x-goog-api-key" } else { "x-api-key" }
    }

    /// Vendors, and what stands between them and us, repeat keys in what they say; it goes into logs and before people.
    fn without_key(&self, mut error: ProviderError) -> ProviderError {
        if let Credentials::Bearer(key) | Credentials::ApiKey(key) = &self.credentials
            && key.expose().len() >= SHORTEST_KEY
        {
            error.message = error.message.replace(key.expose(), &key.to_string());
        }
        error
    }

    fn no_first_byte(&self) -> ProviderError {
        let waited = self.timeouts.first_byte.as_secs_f64();
        ProviderError::new(FailureKind::Timeout, format!("the vendor at {} sent nothing for {waited} s", self.base_url))
    }

    fn run<D: Dialect + Send + 'static>(&self, encoded: Encoded) -> EventStream {
        let reading = Reading::<D> {
            provider: self.clone(),
            decoder: StreamDecoder::new(),
            ready: VecDeque::new(),
            state: State::Unsent(encoded),
        };
        stream::unfold(reading, |mut reading| async {
            let event = reading.next().await?;
            Some((event, reading))
        })
        .boxed()
    }
}

impl Provider for HttpProvider {
    fn stream(&self, request: &ModelRequest, attempt: u32) -> EventStream {
        match &self.tape {
            Some(Tape::Player(player)) => player.stream(request, attempt),
            Some(Tape::Recorder(recorder)) => recorder.tap(request, attempt, self.ask(request)),
            None => self.ask(request),
        }
    }

    fn http(&self) -> Option<&HttpProvider> {
        Some(self)
    }
}

impl HttpProvider {
    fn ask(&self, request: &ModelRequest) -> EventStream {
        let encoded = match self.encode(request) {
            Ok(encoded) => encoded,
            Err(error) => return stream::once(async { Err(error) }).boxed(),
        };
        match self.wire {
            WireKind::OpenAi => self.run::<openai::Responses>(encoded),
            WireKind::Anthropic => self.run::<anthropic::Messages>(encoded),
            WireKind::Gemini => self.run::<gemini::GenerateContent>(encoded),
            WireKind::Chat => self.run::<chat::Chat>(encoded),
        }
    }
}

struct Reading<D> {
    provider: HttpProvider,
    decoder: StreamDecoder<D>,
    ready: VecDeque<ModelEvent>,
    state: State,
}

enum State {
    Unsent(Encoded),
    Open { response: Response, deadlines: Deadlines },
    Closed,
}

impl<D: Dialect> Reading<D> {
    async fn next(&mut self) -> Option<Result<ModelEvent, ProviderError>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(Ok(event));
            }
            match self.advance().await {
                Ok(true) => {}
                Ok(false) => return None,
                Err(mut error) => {
                    self.state = State::Closed;
                    if error.kind == FailureKind::RateLimit && error.retry_after.is_none() {
                        error.retry_after = headers::asked_in_words(&error.message);
                    }
                    return Some(Err(self.provider.without_key(error)));
                }
            }
        }
    }

    /// Takes one step towards more events; `false` says that there will be none.
    async fn advance(&mut self) -> Result<bool, ProviderError> {
        match std::mem::replace(&mut self.state, State::Closed) {
            State::Unsent(encoded) => {
                let deadlines = Deadlines::from_now(self.provider.timeouts);
                let response = self.provider.send(encoded, deadlines.next().0).await?;
                let readings = headers::readings(&of_limits(response.headers()), Timestamp::now());
                if !readings.is_empty() {
                    self.ready.push_back(ModelEvent::Limits(readings));
                }
                self.state = State::Open { response, deadlines };
                Ok(true)
            }
            State::Open { mut response, .. } if self.decoder.is_finished() => {
                drain(&mut response).await;
                Ok(false)
            }
            State::Open { mut response, mut deadlines } => match chunk(&mut response, deadlines).await? {
                Some(bytes) => {
                    self.ready.extend(self.decoder.push(&bytes)?);
                    deadlines.came(!self.ready.is_empty(), self.provider.timeouts);
                    self.state = State::Open { response, deadlines };
                    Ok(true)
                }
                None => {
                    self.ready.extend(std::mem::take(&mut self.decoder).finish()?);
                    Ok(true)
                }
            },
            State::Closed => Ok(false),
        }
    }
}

/// When to give an attempt up.
#[derive(Debug, Clone, Copy)]
struct Deadlines {
    chunk: Instant,
    progress: Instant,
    whole: Instant,
}

impl Deadlines {
    fn from_now(timeouts: Timeouts) -> Self {
        let now = Instant::now();
        Self { chunk: now + timeouts.first_byte, progress: now + timeouts.progress, whole: now + timeouts.whole }
    }

    /// Something came, and it said something or it did not.
    fn came(&mut self, is_progress: bool, timeouts: Timeouts) {
        let now = Instant::now();
        self.chunk = now + timeouts.between_chunks;
        if is_progress {
            self.progress = now + timeouts.progress;
        }
    }

    /// Returns the first of them, and what is wrong when it has passed.
    fn next(self) -> (Instant, &'static str) {
        let all = [
            (self.chunk, "stood still for too long"),
            (self.progress, "said nothing for too long, though it was kept open"),
            (self.whole, "took too long as a whole"),
        ];
        all.into_iter().min_by_key(|(at, _)| *at).expect("there are three")
    }
}

async fn chunk(response: &mut Response, deadlines: Deadlines) -> Result<Option<Bytes>, ProviderError> {
    let (deadline, problem) = deadlines.next();
    match timeout_at(deadline, response.chunk()).await {
        Ok(chunk) => chunk.map_err(|error| {
            let cause = with_causes(&error);
            ProviderError::new(FailureKind::Connection, format!("the vendor's stream broke off: {cause}"))
        }),
        Err(_) => {
            let host = response.url().host_str().unwrap_or_default();
            Err(ProviderError::new(FailureKind::Timeout, format!("the stream of {host} {problem}")))
        }
    }
}

async fn drain(response: &mut Response) {
    let deadline = Instant::now() + DRAIN;
    let mut left = MAX_ERROR_BODY_BYTES;
    while let Ok(Ok(Some(bytes))) = timeout_at(deadline, response.chunk()).await {
        match left.checked_sub(bytes.len()) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

/// Reads an error's body as far as it is useful; whatever goes wrong, the status says more than this would.
async fn read_bounded(mut response: Response, deadline: Instant) -> Vec<u8> {
    let mut body = Vec::new();
    while let Ok(Ok(Some(bytes))) = timeout_at(deadline, response.chunk()).await {
        let room = MAX_ERROR_BODY_BYTES - body.len();
        body.extend_from_slice(&bytes[..bytes.len().min(room)]);
        if body.len() >= MAX_ERROR_BODY_BYTES {
            break;
        }
    }
    body
}

fn make_client(base_url: &Url, timeouts: Timeouts) -> Result<Client, reqwest::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    if base_url.scheme() == "https" {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring supports the default protocol versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let builder = Client::builder()
        .tls_backend_preconfigured(tls)
        .user_agent(concat!("adjutant/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(timeouts.connect)
        // A redirect would carry the key and the conversation to somewhere else.
        .redirect(reqwest::redirect::Policy::none())
        // Retries are the gateway's, where they are counted.
        .retry(reqwest::retry::never());
    // A server on this machine is not behind the proxy that leads out of it.
    let is_local = base_url.host_str().is_some_and(|host| {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
    });
    if is_local { builder.no_proxy().build() } else { builder.build() }
}

/// Adds a path to a base URL, and keeps both their queries. By custom OpenAI's base URL ends in `/v1`, those of Anthropic
/// and Gemini end before the version; whoever mixes that up is understood.
fn join(wire: WireKind, base: &Url, path: &str) -> Url {
    let root = base.path().trim_end_matches('/');
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let path = match wire {
        WireKind::Anthropic => format!("{}{path}", root.strip_suffix("/v1").unwrap_or(root)),
        WireKind::Gemini => {
            let root = root.strip_suffix("/v1beta").or_else(|| root.strip_suffix("/v1")).unwrap_or(root);
            format!("{root}{path}")
        }
        WireKind::OpenAi | WireKind::Chat if root.is_empty() => format!("/v1{path}"),
        WireKind::OpenAi | WireKind::Chat => format!("{root}{path}"),
    };
    let mut url = base.clone();
    url.set_path(&path);
    match (base.query().unwrap_or_default(), query) {
        (_, "") => {}
        ("", query) => url.set_query(Some(query)),
        (held, query) => url.set_query(Some(&format!("{held}&{query}"))),
    }
    url
}

fn sensitive(text: &str) -> Result<header::HeaderValue, ProviderError> {
    let mut value = header::HeaderValue::from_str(text)
        .map_err(|_| ProviderError::new(FailureKind::Authentication, "the vendor's key does not fit into a header"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn connection_error(error: &reqwest::Error) -> ProviderError {
    let kind = match error {
        error if error.is_timeout() => FailureKind::Timeout,
        error if error.is_builder() => FailureKind::InvalidRequest,
        _ => FailureKind::Connection,
    };
    let is_unsent = error.is_connect();
    ProviderError { is_unsent, ..ProviderError::new(kind, with_causes(error)) }
}

/// The HTTP client's own sentence says only that sending failed; why is in its sources.
fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// What a refusal says: in its status, in what it says of limits, in the vendor's words.
fn refused(status: StatusCode, head: &header::HeaderMap, body: &[u8]) -> ProviderError {
    let said = of_limits(head);
    let Pause { wait, scope } = headers::pause(&said, body, Timestamp::now());
    let mut error = ProviderError::from_status(status.as_u16(), body, wait);
    error.scope = scope;
    error.readings = headers::readings(&said, Timestamp::now());
    if error.kind == FailureKind::RateLimit && error.retry_after.is_none() {
        error.retry_after = headers::asked_in_words(&error.message);
    }
    error
}

/// Picks out the headers that speak of limits; as many as any vendor sends.
fn of_limits(headers: &header::HeaderMap) -> Vec<(&str, &str)> {
    let named = headers.iter().filter(|(name, _)| headers::is_of_interest(name.as_str()));
    named.filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?))).take(MAX_LIMIT_HEADERS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_urls_are_joined_as_people_write_them() {
        use WireKind::*;
        let cases = [
            (OpenAi, "https://api.openai.com/v1", "/responses", "https://api.openai.com/v1/responses"),
            (OpenAi, "http://localhost:1/v1/", "/responses", "http://localhost:1/v1/responses"),
            (OpenAi, "http://localhost:1", "/responses", "http://localhost:1/v1/responses"),
            (OpenAi, "http://h/openai/v1?api-version=1", "/responses", "http://h/openai/v1/responses?api-version=1"),
            (Anthropic, "https://api.anthropic.com", "/v1/messages", "https://api.anthropic.com/v1/messages"),
            (Anthropic, "https://api.anthropic.com/v1/", "/v1/messages", "https://api.anthropic.com/v1/messages"),
            (Anthropic, "http://h/anthropic/", "/v1/messages", "http://h/anthropic/v1/messages"),
            (Gemini, "https://g.com", "/v1beta/models/m:x?alt=sse", "https://g.com/v1beta/models/m:x?alt=sse"),
            (Gemini, "https://g.com/v1beta/", "/v1beta/models/m:x?alt=sse", "https://g.com/v1beta/models/m:x?alt=sse"),
            (
                Gemini,
                "http://h/g?k=1",
                "/v1beta/models/m%2Fn:x?alt=sse",
                "http://h/g/v1beta/models/m%2Fn:x?k=1&alt=sse",
            ),
            (Gemini, "https://g.com/v1", "/v1beta/models/m:x?alt=sse", "https://g.com/v1beta/models/m:x?alt=sse"),
            (Chat, "http://h:8000/v1", "/chat/completions", "http://h:8000/v1/chat/completions"),
            (Chat, "http://h:8000/api/v3", "/chat/completions", "http://h:8000/api/v3/chat/completions"),
        ];
        for (wire, base, path, expected) in cases {
            let base_url: Url = base.parse().unwrap();
            assert_eq!(join(wire, &base_url, path).as_str(), expected, "{base}");
        }
    }
}
