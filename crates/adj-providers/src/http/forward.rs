//! A request that somebody else wrote in the vendor's own words: it goes out as it is, and the answer comes back as it is.

use super::{
    Credentials, Deadlines, HttpProvider, MAX_ERROR_BODY_BYTES, SHORTEST_KEY, chunk, connection_error, join, of_limits,
    refused, sensitive,
};
use crate::{
    ProviderError, Timeouts, WireKind,
    headers::{self, Reading},
    scrub::Scrub,
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
    response: Option<Response>,
    scrub: Scrub,
    deadlines: Deadlines,
    timeouts: Timeouts,
}

impl HttpProvider {
    pub fn wire(&self) -> WireKind {
        self.wire
    }

    /// Sends a request with this vendor's credentials; whatever the status, the answer is the caller's to judge.
    pub async fn forward(&self, raw: Raw) -> Result<RawAnswer, ProviderError> {
        self.send_raw(raw).await.map_err(|error| self.without_key(error))
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
            response: Some(response),
            scrub: Scrub::new(key),
            deadlines,
            timeouts: self.timeouts,
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
        while let Some(response) = &mut self.response {
            match chunk(response, self.deadlines).await {
                Ok(Some(bytes)) => {
                    // What the bytes say is not looked at here: any are progress.
                    self.deadlines.came(true, self.timeouts);
                    let bytes = self.scrub.push(bytes);
                    if !bytes.is_empty() {
                        return Ok(Some(bytes));
                    }
                }
                Ok(None) => {
                    self.response = None;
                    let rest = self.scrub.finish();
                    return Ok((!rest.is_empty()).then_some(rest));
                }
                Err(error) => {
                    self.response = None;
                    return Err(error);
                }
            }
        }
        Ok(None)
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
