//! The errors of the API, as every client of its contract reads them.

use serde_json::{Value, json};
use std::time::Duration;

/// What kind of error it is; it decides the status and the type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    InvalidRequest,
    Authentication,
    Permission,
    NotFound,
    /// The path exists, and this method of it does not.
    MethodNotAllowed,
    TooLarge,
    Internal,
    Overloaded,
}

impl ErrorKind {
    fn status(self) -> u16 {
        match self {
            Self::InvalidRequest => 400,
            Self::Authentication => 401,
            Self::Permission => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::TooLarge => 413,
            Self::Internal => 500,
            Self::Overloaded => 529,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest | Self::MethodNotAllowed => "invalid_request_error",
            Self::Authentication => "authentication_error",
            Self::Permission => "permission_error",
            Self::NotFound => "not_found_error",
            Self::TooLarge => "request_too_large",
            Self::Internal => "api_error",
            Self::Overloaded => "overloaded_error",
        }
    }
}

/// An error on its way to a client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    pub kind: ErrorKind,
    pub message: String,
    pub retry_after: Option<Duration>,
}

impl ApiError {
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), retry_after: None }
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidRequest, message)
    }

    #[must_use]
    pub fn with_retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }

    pub fn status(&self) -> u16 {
        self.kind.status()
    }

    /// The headers beside the content type.
    pub fn headers(&self) -> Vec<(&'static str, String)> {
        // Whole seconds, and never too early.
        let seconds = self.retry_after.map(|delay| delay.as_millis().div_ceil(1_000).to_string());
        seconds.map(|seconds| ("retry-after", seconds)).into_iter().collect()
    }

    pub fn body(&self, request_id: &str) -> Value {
        let error = json!({"type": self.kind.as_str(), "message": self.message});
        json!({"type": "error", "error": error, "request_id": request_id})
    }
}
