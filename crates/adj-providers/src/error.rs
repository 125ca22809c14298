//! What can go wrong with one attempt, in the vendor's own words where there are any.

use crate::headers::{Reading, Scope};
use adj_domain::FailureKind;
use std::{fmt::Write, time::Duration};

/// The longest message that is kept.
const MAX_MESSAGE_CHARS: usize = 2000;

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct ProviderError {
    pub kind: FailureKind,
    pub message: String,
    /// The HTTP status, where the vendor answered with one.
    pub status: Option<u16>,
    /// How long the vendor asks to wait.
    pub retry_after: Option<Duration>,
    /// Whom a limit concerns.
    pub scope: Scope,
    /// What the refusal said of the limits themselves.
    pub readings: Vec<Reading>,
    /// There was no connection, so nothing was sent.
    pub is_unsent: bool,
}

impl ProviderError {
    pub fn new(kind: FailureKind, message: impl AsRef<str>) -> Self {
        Self {
            kind,
            message: printable(message.as_ref()),
            status: None,
            retry_after: None,
            scope: Scope::default(),
            readings: Vec::new(),
            is_unsent: false,
        }
    }

    /// The vendor's bytes are not what its protocol says, or they were cut.
    pub fn protocol(message: impl AsRef<str>) -> Self {
        Self::new(FailureKind::Protocol, message)
    }

    pub fn cancelled() -> Self {
        Self::new(FailureKind::Cancelled, "the call was cancelled")
    }

    /// Makes sense of an HTTP answer that is not a stream.
    pub fn from_status(status: u16, body: &[u8], retry_after: Option<Duration>) -> Self {
        let words = VendorWords::find(body);
        let kind = words.kind().unwrap_or_else(|| kind_of_status(status));
        let message = match words.message() {
            Some(message) => format!("{message} (HTTP status {status})"),
            None => format!("the vendor answered with HTTP status {status}"),
        };
        Self { status: Some(status), retry_after: retry_after.or(words.wait), ..Self::new(kind, message) }
    }

    /// Makes sense of an error that the vendor reports within a stream; `code` is its machine-readable word.
    pub fn from_words(code: &str, message: &str) -> Self {
        let words =
            VendorWords { codes: vec![code.to_owned()], message: Some(message.to_owned()), ..VendorWords::default() };
        let otherwise = if code.starts_with("invalid_") { FailureKind::InvalidRequest } else { FailureKind::Server };
        let kind = words.kind().unwrap_or(otherwise);
        Self::new(kind, words.message().unwrap_or_else(|| "the vendor reported an error without a word".to_owned()))
    }

    /// Returns the error in a JSON document of the form `{"error": …}`, alone or in a list of one, if it is one.
    pub fn in_document(body: &[u8]) -> Option<Self> {
        let document: serde_json::Value = serde_json::from_slice(body).ok()?;
        let document = document.get(0).unwrap_or(&document);
        document.get("error").filter(|error| !error.is_null())?;
        let words = VendorWords::find(body);
        let kind = words.kind().unwrap_or(FailureKind::Server);
        let message = words.message().unwrap_or_else(|| "the vendor reported an error".to_owned());
        Some(Self { retry_after: words.wait, ..Self::new(kind, message) })
    }
}

fn kind_of_status(status: u16) -> FailureKind {
    match status {
        401 | 403 => FailureKind::Authentication,
        402 => FailureKind::Billing,
        408 | 504 => FailureKind::Timeout,
        413 => FailureKind::ContextTooLong,
        429 => FailureKind::RateLimit,
        503 | 529 => FailureKind::Overloaded,
        // A conflict or "too early" passes when it is repeated.
        409 | 425 => FailureKind::Server,
        500.. => FailureKind::Server,
        _ => FailureKind::InvalidRequest,
    }
}

/// The codes and the sentence that a vendor put into its error.
#[derive(Debug, Default)]
struct VendorWords {
    codes: Vec<String>,
    message: Option<String>,
    /// More exact codes, which only Google has.
    reasons: Vec<String>,
    /// The limits that were hit, where they are named.
    quotas: Vec<Quota>,
    /// How long the error's body asks to wait.
    wait: Option<Duration>,
}

#[derive(Debug, Default)]
struct Quota {
    id: String,
    value: String,
}

const MAX_DETAILS: usize = 16;

impl VendorWords {
    /// Looks through the shapes in use: `{"error": {type, code, message}}`, `{"error": "…"}`, `{"message"}`, `{"detail"}`,
    /// and pages that are no JSON at all.
    fn find(body: &[u8]) -> Self {
        let Ok(document) = serde_json::from_slice::<serde_json::Value>(body) else {
            let text = String::from_utf8_lossy(&body[..body.len().min(4 * MAX_MESSAGE_CHARS)]);
            let text = text.trim();
            return Self { message: (!text.is_empty()).then(|| excerpt(text, 300)), ..Self::default() };
        };
        // Some gateways wrap the document in a list of one.
        let document = document.get(0).unwrap_or(&document);
        let error = document.get("error").filter(|error| !error.is_null()).unwrap_or(document);
        let text_of = |key: &str| match error.get(key) {
            Some(serde_json::Value::String(text)) if !text.is_empty() => Some(text.clone()),
            Some(serde_json::Value::Number(number)) => Some(number.to_string()),
            _ => None,
        };
        let codes = ["code", "type", "status"].into_iter().filter_map(text_of).collect();
        let message = match error {
            serde_json::Value::String(text) => Some(text.clone()),
            _ => text_of("message").or_else(|| text_of("detail")).or_else(|| Some(excerpt(&error.to_string(), 300))),
        };
        let mut words = Self { codes, message, ..Self::default() };
        let details = error.get("details").and_then(serde_json::Value::as_array);
        for detail in details.into_iter().flatten().take(MAX_DETAILS) {
            words.take_detail(detail);
        }
        words
    }

    /// Takes in one of the typed details that Google's errors carry.
    fn take_detail(&mut self, detail: &serde_json::Value) {
        let text = |value: &serde_json::Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
        match text(detail, "@type").rsplit('.').next().unwrap_or_default() {
            "RetryInfo" => {
                let delay = text(detail, "retryDelay");
                let seconds = delay.strip_suffix('s').and_then(|seconds| seconds.parse().ok());
                self.wait = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
            }
            "QuotaFailure" => {
                let violations = detail["violations"].as_array().into_iter().flatten().take(MAX_DETAILS);
                let quotas = violations.map(|one| Quota { id: text(one, "quotaId"), value: text(one, "quotaValue") });
                self.quotas.extend(quotas.filter(|quota| !quota.id.is_empty()));
            }
            "ErrorInfo" => self.reasons.push(text(detail, "reason")),
            _ => {}
        }
    }

    fn kind(&self) -> Option<FailureKind> {
        let sentence = self.message.as_deref().unwrap_or_default().to_lowercase();
        let says = |parts: &[&str]| parts.iter().any(|part| sentence.contains(part));
        // What the sentence says is more exact than "invalid_request_error".
        if says(&[
            "prompt is too long",
            "maximum context length",
            "context window",
            "exceeds the context",
            "exceed context limit",
            "context length exceeded",
            "exceeds the available context size",
            "exceeds the maximum number of tokens",
            "request payload size exceeds the limit",
        ]) {
            return Some(FailureKind::ContextTooLong);
        }
        if !self.quotas.is_empty() {
            // The sentence speaks of plan and billing even where the limit is one of the minute.
            let no_wait_helps =
                |quota: &Quota| quota.id.contains("PerDay") || quota.id.contains("Daily") || quota.value == "0";
            return Some(if self.quotas.iter().any(no_wait_helps) || says(&["limit: 0,"]) {
                FailureKind::Billing
            } else {
                FailureKind::RateLimit
            });
        }
        if says(&["credit balance is too low", "exceeded your current quota", "insufficient balance", "enable billing"])
        {
            return Some(FailureKind::Billing);
        }
        if says(&["api key not valid", "api key expired"]) {
            return Some(FailureKind::Authentication);
        }
        self.reasons.iter().chain(&self.codes).find_map(|code| kind_of_code(code))
    }

    fn message(&self) -> Option<String> {
        let code = self.codes.iter().find(|code| !code.is_empty() && code.parse::<u16>().is_err());
        let mut message = match (&self.message, code) {
            (Some(message), Some(code)) if !message.is_empty() && !message.contains(code) => {
                format!("{code}: {message}")
            }
            (Some(message), _) if !message.is_empty() => message.clone(),
            (_, Some(code)) => code.clone(),
            _ => return None,
        };
        let unsaid = self.quotas.iter().filter(|quota| !message.contains(&quota.id));
        let unsaid = unsaid.map(|quota| match quota.value.as_str() {
            "" => quota.id.clone(),
            value => format!("{}: {value}", quota.id),
        });
        let unsaid = unsaid.collect::<Vec<_>>();
        if !unsaid.is_empty() {
            let _ = write!(message, " ({})", unsaid.join(", "));
        }
        Some(message)
    }
}

fn kind_of_code(code: &str) -> Option<FailureKind> {
    Some(match code {
        "authentication_error"
        | "permission_error"
        | "invalid_api_key"
        | "invalid_authentication"
        | "UNAUTHENTICATED"
        | "PERMISSION_DENIED"
        | "API_KEY_INVALID" => FailureKind::Authentication,
        "billing_error" | "insufficient_quota" | "billing_hard_limit_reached" | "usage_not_included" => {
            FailureKind::Billing
        }
        "rate_limit_error" | "rate_limit_exceeded" | "rate_limit_reached" | "RESOURCE_EXHAUSTED" => {
            FailureKind::RateLimit
        }
        "overloaded_error"
        | "server_is_overloaded"
        | "slow_down"
        | "service_unavailable_error"
        | "UNAVAILABLE"
        | "MODEL_CAPACITY_EXHAUSTED" => FailureKind::Overloaded,
        "timeout_error" | "vector_store_timeout" | "DEADLINE_EXCEEDED" => FailureKind::Timeout,
        "context_length_exceeded" | "request_too_large" | "exceed_context_size_error" => FailureKind::ContextTooLong,
        "api_error" | "server_error" | "internal_server_error" | "INTERNAL" => FailureKind::Server,
        "INVALID_ARGUMENT"
        | "FAILED_PRECONDITION"
        | "NOT_FOUND"
        | "invalid_prompt"
        | "model_not_found"
        | "not_found_error"
        | "unsupported_parameter"
        | "cyber_policy" => FailureKind::InvalidRequest,
        // "invalid_request_error" says nothing that the status does not; it is also what 401 and 429 answers carry.
        _ => return None,
    })
}

/// Cuts a text, and takes out what could confuse a terminal or a log.
fn printable(text: &str) -> String {
    let mut kept = String::new();
    for (count, character) in text.trim().chars().enumerate() {
        if count >= MAX_MESSAGE_CHARS {
            kept.push('…');
            break;
        }
        match character {
            '\n' | '\t' => kept.push(character),
            _ if character.is_control() => {
                let _ = write!(kept, "{}", character.escape_unicode());
            }
            _ => kept.push(character),
        }
    }
    kept
}

/// Returns the start of a text, on one line.
pub(crate) fn excerpt(text: &str, chars: usize) -> String {
    let mut words = String::new();
    let mut left = chars;
    for word in text.split_whitespace() {
        if !words.is_empty() {
            words.push(' ');
            left = left.saturating_sub(1);
        }
        for character in word.chars() {
            if left == 0 {
                words.push('…');
                return words;
            }
            words.push(character);
            left -= 1;
        }
    }
    words
}
