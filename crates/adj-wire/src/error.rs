//! Errors as clients of every age read them: a status, a type, a sentence, sometimes a code.

use crate::read::Invalid;
use serde_json::{Map, Value, json};
use std::time::Duration;

/// What kind of error it is; it decides the status and the type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    InvalidRequest,
    Authentication,
    Billing,
    Permission,
    NotFound,
    /// The path exists, and this method of it does not.
    MethodNotAllowed,
    Conflict,
    MemoryPrecondition,
    MemoryPathConflict,
    Precondition,
    TooLarge,
    RateLimit,
    Internal,
    Timeout,
    Overloaded,
}

impl ErrorKind {
    pub const ALL: [Self; 15] = [
        Self::InvalidRequest,
        Self::Authentication,
        Self::Billing,
        Self::Permission,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::Conflict,
        Self::MemoryPrecondition,
        Self::MemoryPathConflict,
        Self::Precondition,
        Self::TooLarge,
        Self::RateLimit,
        Self::Internal,
        Self::Timeout,
        Self::Overloaded,
    ];

    pub fn status(self) -> u16 {
        match self {
            Self::InvalidRequest => 400,
            Self::Authentication => 401,
            Self::Billing => 402,
            Self::Permission => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::Conflict | Self::MemoryPrecondition | Self::MemoryPathConflict => 409,
            Self::Precondition => 412,
            Self::TooLarge => 413,
            Self::RateLimit => 429,
            Self::Internal => 500,
            Self::Timeout => 504,
            Self::Overloaded => 529,
        }
    }

    /// The word in `error.type`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest | Self::MethodNotAllowed | Self::Precondition => "invalid_request_error",
            Self::Authentication => "authentication_error",
            Self::Billing => "billing_error",
            Self::Permission => "permission_error",
            Self::NotFound => "not_found_error",
            Self::Conflict => "conflict_error",
            Self::MemoryPrecondition => "memory_precondition_failed_error",
            Self::MemoryPathConflict => "memory_path_conflict_error",
            Self::TooLarge => "request_too_large",
            Self::RateLimit => "rate_limit_error",
            Self::Internal => "api_error",
            Self::Timeout => "timeout_error",
            Self::Overloaded => "overloaded_error",
        }
    }

    /// What the client is told about trying again, where its own rule (every 409, every status from 500 on) would be wrong.
    pub fn should_retry(self) -> Option<bool> {
        match self.status() {
            // Ours are deterministic: the same request meets the same conflict.
            409 => Some(false),
            _ => None,
        }
    }
}

macro_rules! codes {
    ($($variant:ident => $word:literal),+ $(,)?) => {
        /// What `error.details.error_code` may say; libraries choose narrower classes by it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum ErrorCode {
            $($variant),+
        }

        impl ErrorCode {
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }
    };
}

codes! {
    EnvironmentArchived => "environment_archived",
    InvalidConfigTypeChange => "invalid_config_type_change",
    InvalidMetadata => "invalid_metadata",
    StorageQuotaExceeded => "storage_quota_exceeded",
    FileNotDownloadable => "file_not_downloadable",
    EnvironmentCreateDisabled => "environment_create_disabled",
    EnvironmentUpdateDisabled => "environment_update_disabled",
    SandboxEgressRestricted => "sandbox_egress_restricted",
    EnvironmentNotFound => "environment_not_found",
    FileExpired => "file_expired",
    SkillNameTaken => "skill_name_taken",
    HeartbeatPreconditionFailed => "heartbeat_precondition_failed",
    ModelNotBudgetable => "model_not_budgetable",
    BudgetCreateOnly => "budget_create_only",
    BudgetNotRaised => "budget_not_raised",
    AgentModelRequired => "agent_model_required",
}

/// An error on its way to a client.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    pub kind: ErrorKind,
    pub message: String,
    pub code: Option<ErrorCode>,
    /// What the details hold beside the code.
    pub details: Map<String, Value>,
    pub retry_after: Option<Duration>,
}

impl ApiError {
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), code: None, details: Map::new(), retry_after: None }
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidRequest, message)
    }

    /// `what` is the resource's word, such as `agent`.
    pub fn not_found(what: &str, id: &str) -> Self {
        // Who makes up ids may make up long ones.
        let id: String = id.chars().take(100).collect();
        Self::new(ErrorKind::NotFound, format!("there is no {what} {id:?}"))
    }

    /// An optimistic lock that did not hold.
    pub fn version_conflict(what: &str, expected: u64, found: u64) -> Self {
        Self::new(ErrorKind::Conflict, format!("the {what} has version {found}, not {expected}: read it again"))
    }

    #[must_use]
    pub fn with_code(mut self, code: ErrorCode) -> Self {
        self.code = Some(code);
        self
    }

    #[must_use]
    pub fn with_detail(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.details.insert(name.to_owned(), value.into());
        self
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
        let mut headers = Vec::new();
        if let Some(is_retried) = self.kind.should_retry() {
            headers.push(("x-should-retry", is_retried.to_string()));
        }
        if let Some(delay) = self.retry_after {
            headers.push(("retry-after-ms", delay.as_millis().to_string()));
            // Whole seconds, and never too early.
            headers.push(("retry-after", delay.as_millis().div_ceil(1_000).to_string()));
        }
        headers
    }

    pub fn body(&self, request_id: &str) -> Value {
        let mut error = json!({"type": self.kind.as_str(), "message": self.message});
        if self.code.is_some() || !self.details.is_empty() {
            let mut details = Map::new();
            if let Some(code) = self.code {
                details.insert("error_code".to_owned(), code.as_str().into());
            }
            details.extend(self.details.clone());
            error["details"] = Value::Object(details);
        }
        json!({"type": "error", "error": error, "request_id": request_id})
    }
}

impl From<Invalid> for ApiError {
    fn from(invalid: Invalid) -> Self {
        Self { code: invalid.code, ..Self::invalid(invalid.to_string()) }
    }
}
