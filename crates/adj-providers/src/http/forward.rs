//! A request that somebody else wrote in the vendor's own words: it goes out as it is, and the answer comes back as it is.

use super::{
    Credentials, Deadlines, HttpProvider, MAX_ERROR_BODY_BYTES, chunk, connection_error, join, of_limits, refused,
    sensitive,
};
use crate::{
    ProviderError, Timeouts, WireKind,
    cassette::{PassedTake, Played, Player, Recorder},
    headers::{self, Reading},
    scrub::{SHORTEST_KEY, Scrub},
};
use adj_domain::{FailureKind, Timestamp};
use bytes::{Bytes, BytesMut};
use reqwest::{
    Response, StatusCode, Url,
    header::{self, HeaderMap, HeaderName},
};
use tokio::time::timeout_at;

/// A request without its address and without credentials.
#[derive(Debug, Clone)]
pub struct Raw {
    /// The path below the vendor's base URL, as this room's own encoders write it.
    pub path: String,
    pub query: Option<String>,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// An answer whose head is there; dropping it ends the vendor's stream.
#[derive(Debug)]
pub struct RawAnswer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    rest: Rest,
    take: Option<PassedTake>,
}

/// What is still to come.
#[derive(Debug)]
enum Rest {
    Vendor(Box<Arriving>),
    Recorded(Played),
    Nothing,
}

#[derive(Debug)]
struct Arriving {
    response: Response,
    scrub: Scrub,
    deadlines: Deadlines,
    timeouts: Timeouts,
}

/// Where what is asked and answered is written down, or read from.
#[derive(Debug, Clone)]
pub(super) enum Tape {
    Recorder(Recorder),
    Player(Player),
}

impl HttpProvider {
    pub fn wire(&self) -> WireKind {
        self.wire
    }

    /// The same vendor, recorded: in neutral form, and in its own words.
    #[must_use]
    pub fn recorded_by(self, recorder: Recorder) -> Self {
        Self { tape: Some(Tape::Recorder(recorder)), ..self }
    }

    /// A vendor that is never asked: what it once answered over this wire is read from a cassette.
    pub fn played_by(wire: WireKind, player: Player) -> Self {
        let nowhere = Url::parse("http://cassette.invalid").expect("an address");
        let provider = Self::new(wire, nowhere, Credentials::None, Timeouts::default());
        Self { tape: Some(Tape::Player(player)), ..provider }
    }

    /// Sends a request with this vendor's credentials; whatever the status, the answer is the caller's to judge.
    pub async fn forward(&self, raw: Raw) -> Result<RawAnswer, ProviderError> {
        let mut take = match &self.tape {
            Some(Tape::Player(player)) => {
                let played = player.forward(self.wire, &raw)?;
                let (status, headers) = (played.status, played.headers.clone());
                return Ok(RawAnswer { status, headers, rest: Rest::Recorded(played), take: None });
            }
            Some(Tape::Recorder(recorder)) => Some(recorder.tap_passing(self.wire, &raw)),
            None => None,
        };
        let sent = self.send_raw(raw).await.map_err(|error| self.without_key(error));
        match (sent, &mut take) {
            (Ok(answer), Some(kept)) => {
                kept.head(answer.status, &answer.headers);
                Ok(RawAnswer { take, ..answer })
            }
            (Err(error), Some(kept)) => {
                kept.end(Err(&error));
                Err(error)
            }
            (sent, None) => sent,
        }
    }

    async fn send_raw(&self, raw: Raw) -> Result<RawAnswer, ProviderError> {
        let deadlines = Deadlines::from_now(self.timeouts);
        let mut url = join(self.wire, &self.base_url, &raw.path);
        add_query(&mut url, raw.query.as_deref());
        let mut headers = raw.headers;
        for name in [header::AUTHORIZATION, header::HOST, header::CONTENT_LENGTH] {
            headers.remove(name);
        }
        match &self.credentials {
            Credentials::None => {}
            Credentials::Bearer(key) => {
                headers.insert(header::AUTHORIZATION, sensitive(&format!("Bearer {}", key.expose()))?);
            }
            Credentials::ApiKey(key) => {
                headers.insert(HeaderName::from_static(self.key_header()), sensitive(key.expose())?);
            }
        }
        let sending = self.client()?.post(url).headers(headers).body(raw.body).send();
        let mut response = match timeout_at(deadlines.next().0, sending).await {
            Ok(sent) => sent.map_err(|error| connection_error(&error))?,
            Err(_) => return Err(self.no_first_byte()),
        };
        if response.status().is_redirection() {
            let message = format!(
                "{} redirects (HTTP status {}); keys are not sent on",
                self.base_url,
                response.status().as_u16()
            );
            return Err(ProviderError::new(FailureKind::Protocol, message));
        }
        let mut headers = std::mem::take(response.headers_mut());
        let key = match &self.credentials {
            Credentials::Bearer(key) | Credentials::ApiKey(key) => Some(key.expose()),
            Credentials::None => None,
        };
        let key = key.filter(|key| key.len() >= SHORTEST_KEY).unwrap_or_default();
        if !key.is_empty() {
            let told =
                headers.iter().filter(|(_, value)| memchr::memmem::find(value.as_bytes(), key.as_bytes()).is_some());
            for name in told.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
                headers.remove(name);
            }
        }
        Ok(RawAnswer {
            status: response.status(),
            headers,
            rest: Rest::Vendor(Box::new(Arriving {
                response,
                scrub: Scrub::new(key),
                deadlines,
                timeouts: self.timeouts,
            })),
            take: None,
        })
    }
}

impl RawAnswer {
    /// Returns what the answer's head says of limits.
    pub fn readings(&self) -> Vec<Reading> {
        headers::readings(&of_limits(&self.headers), Timestamp::now())
    }

    /// Reads how a refusal begins, and says what it means; the rest is still to come.
    pub async fn refusal(&mut self) -> Result<(Bytes, ProviderError), ProviderError> {
        let mut body = BytesMut::new();
        while body.len() < MAX_ERROR_BODY_BYTES
            && let Some(bytes) = self.chunk().await?
        {
            body.extend_from_slice(&bytes);
        }
        let body = body.freeze();
        let error = refused(self.status, &self.headers, &body);
        Ok((body, error))
    }

    /// Returns the next bytes as they arrived, the vendor's own key blotted out; `None` at the end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, ProviderError> {
        let chunk = match &mut self.rest {
            Rest::Vendor(arriving) => arriving.chunk().await,
            Rest::Recorded(played) => played.chunk().await,
            Rest::Nothing => Ok(None),
        };
        if !matches!(chunk, Ok(Some(_))) {
            self.rest = Rest::Nothing;
        }
        if let Some(take) = &mut self.take {
            match &chunk {
                Ok(Some(bytes)) => take.chunk(bytes),
                Ok(None) => take.end(Ok(())),
                Err(error) => take.end(Err(error)),
            }
        }
        chunk
    }
}

impl Arriving {
    async fn chunk(&mut self) -> Result<Option<Bytes>, ProviderError> {
        while let Some(bytes) = chunk(&mut self.response, self.deadlines).await? {
            // What the bytes say is not looked at here: any are progress.
            self.deadlines.came(true, self.timeouts);
            let bytes = self.scrub.push(bytes);
            if !bytes.is_empty() {
                return Ok(Some(bytes));
            }
        }
        let rest = self.scrub.finish();
        Ok((!rest.is_empty()).then_some(rest))
    }
}

fn add_query(url: &mut Url, query: Option<&str>) {
    let Some(query) = query.filter(|query| !query.is_empty()) else { return };
    let whole = match url.query() {
        Some(held) if !held.is_empty() => format!("{held}&{query}"),
        _ => query.to_owned(),
    };
    url.set_query(Some(&whole));
}
