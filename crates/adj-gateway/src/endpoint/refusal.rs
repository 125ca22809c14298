//! What a caller is told when there is no answer, in the shape that its own wire gives to errors.

use super::{Wire, body::Body};
use adj_domain::FailureKind;
use adj_providers::ProviderError;
use hyper::{HeaderMap, Response, StatusCode, header::HeaderValue};
use serde_json::{Value, json};
use std::time::Duration;

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalKind {
    Invalid,
    Unauthenticated,
    Forbidden,
    NotFound,
    WrongMethod,
    TooSlow,
    TooLarge,
    HeadTooLarge,
    ContextTooLong,
    RateLimited,
    /// Nothing more may be spent; repeating the request is of no use.
    BudgetReached,
    /// The vendor's own account is out of money.
    Billing,
    Overloaded,
    /// The vendor cannot be reached, or what it sends is not what its protocol says.
    Upstream,
    Timeout,
    Server,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    pub kind: RefusalKind,
    pub message: String,
    pub retry_after: Option<Duration>,
}

impl Refusal {
    pub fn new(kind: RefusalKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), retry_after: None }
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(RefusalKind::Invalid, message)
    }

    pub(super) fn status(&self, wire: Wire) -> StatusCode {
        let code = match self.kind {
            RefusalKind::Invalid | RefusalKind::ContextTooLong => 400,
            RefusalKind::Unauthenticated => 401,
            RefusalKind::Forbidden => 403,
            RefusalKind::NotFound => 404,
            RefusalKind::WrongMethod => 405,
            RefusalKind::TooSlow => 408,
            RefusalKind::TooLarge => 413,
            RefusalKind::HeadTooLarge => 431,
            RefusalKind::RateLimited => 429,
            // Where 429 would make a client wait and try again, or hide our words behind its own, it is 400.
            RefusalKind::BudgetReached if matches!(wire, Wire::Responses | Wire::Gemini) => 400,
            RefusalKind::BudgetReached => 429,
            RefusalKind::Billing if wire == Wire::Messages => 402,
            RefusalKind::Billing => 429,
            RefusalKind::Overloaded if wire == Wire::Messages => 529,
            RefusalKind::Overloaded => 503,
            RefusalKind::Upstream => 502,
            RefusalKind::Timeout => 504,
            RefusalKind::Server => 500,
        };
        StatusCode::from_u16(code).expect("every code above is a status of HTTP")
    }

    /// Returns the error's document in the caller's wire.
    pub(super) fn document(&self, wire: Wire) -> Value {
        use RefusalKind::*;
        let message = &self.message;
        match wire {
            Wire::Messages => {
                let kind = match self.kind {
                    Invalid | ContextTooLong | WrongMethod | HeadTooLarge => "invalid_request_error",
                    Unauthenticated => "authentication_error",
                    Forbidden => "permission_error",
                    NotFound => "not_found_error",
                    TooLarge => "request_too_large",
                    RateLimited | BudgetReached => "rate_limit_error",
                    Billing => "billing_error",
                    Overloaded => "overloaded_error",
                    Timeout | TooSlow => "timeout_error",
                    Upstream | Server => "api_error",
                };
                json!({"type": "error", "error": {"type": kind, "message": message}})
            }
            Wire::Responses | Wire::Chat => {
                let (kind, code) = match self.kind {
                    Invalid | WrongMethod | TooSlow | HeadTooLarge => ("invalid_request_error", None),
                    ContextTooLong => ("invalid_request_error", Some("context_length_exceeded")),
                    Unauthenticated => ("authentication_error", Some("invalid_api_key")),
                    Forbidden => ("permission_error", None),
                    NotFound => ("invalid_request_error", Some("not_found")),
                    TooLarge => ("invalid_request_error", Some("request_too_large")),
                    RateLimited => ("requests", Some("rate_limit_exceeded")),
                    BudgetReached if wire == Wire::Responses => ("invalid_request_error", Some("budget_reached")),
                    BudgetReached => ("insufficient_quota", Some("budget_reached")),
                    Billing => ("insufficient_quota", Some("insufficient_quota")),
                    Overloaded => ("server_error", Some("server_is_overloaded")),
                    Upstream => ("server_error", Some("bad_gateway")),
                    Timeout => ("server_error", Some("timeout")),
                    Server => ("server_error", Some("server_error")),
                };
                json!({"error": {"message": message, "type": kind, "param": null, "code": code}})
            }
            Wire::Gemini => {
                let word = match self.kind {
                    Invalid | ContextTooLong | WrongMethod | TooLarge | HeadTooLarge => "INVALID_ARGUMENT",
                    BudgetReached => "FAILED_PRECONDITION",
                    Unauthenticated => "UNAUTHENTICATED",
                    Forbidden => "PERMISSION_DENIED",
                    NotFound => "NOT_FOUND",
                    RateLimited | Billing => "RESOURCE_EXHAUSTED",
                    Overloaded | Upstream => "UNAVAILABLE",
                    Timeout | TooSlow => "DEADLINE_EXCEEDED",
                    Server => "INTERNAL",
                };
                json!({"error": {"code": self.status(wire).as_u16(), "message": message, "status": word}})
            }
        }
    }

    pub(super) fn response(&self, wire: Wire) -> Response<Body> {
        let mut response = super::body::json(self.status(wire), &self.document(wire));
        self.add_headers(response.headers_mut());
        response
    }

    fn add_headers(&self, headers: &mut HeaderMap) {
        if let Some(wait) = self.retry_after {
            headers.insert("retry-after", HeaderValue::from(wait.as_secs_f64().ceil() as u64));
        }
        if self.kind == RefusalKind::BudgetReached {
            headers.insert("x-should-retry", HeaderValue::from_static("false"));
        }
    }

    /// Returns the error as the last event of a stream that began well, as clients of the wire understand it.
    pub(super) fn frame(&self, wire: Wire) -> String {
        let document = self.document(wire);
        match wire {
            Wire::Messages => format!("event: error\ndata: {document}\n\n"),
            Wire::Chat | Wire::Gemini => format!("data: {document}\n\n"),
            Wire::Responses => {
                // Codex takes no notice of an `error` event, and of this one it does.
                let error = json!({"code": document["error"]["code"].as_str().unwrap_or("server_error"), "message": self.message});
                let response = json!({"id": "resp_failed", "object": "response", "status": "failed", "output": [], "error": error});
                format!(
                    "event: response.failed\ndata: {}\n\n",
                    json!({"type": "response.failed", "response": response})
                )
            }
        }
    }
}

impl From<ProviderError> for Refusal {
    fn from(error: ProviderError) -> Self {
        let kind = match error.kind {
            FailureKind::Connection | FailureKind::Protocol => RefusalKind::Upstream,
            FailureKind::Timeout => RefusalKind::Timeout,
            FailureKind::Authentication if error.status == Some(403) => RefusalKind::Forbidden,
            FailureKind::Authentication => RefusalKind::Unauthenticated,
            FailureKind::Billing => RefusalKind::Billing,
            FailureKind::RateLimit => RefusalKind::RateLimited,
            FailureKind::Overloaded | FailureKind::Cancelled => RefusalKind::Overloaded,
            FailureKind::InvalidRequest if error.status == Some(404) => RefusalKind::NotFound,
            FailureKind::InvalidRequest | FailureKind::Budget => RefusalKind::Invalid,
            FailureKind::ContextTooLong => RefusalKind::ContextTooLong,
            FailureKind::Server => RefusalKind::Server,
        };
        Self { kind, message: error.message, retry_after: error.retry_after }
    }
}
