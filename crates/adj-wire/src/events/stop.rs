//! Why a session rests, and what went wrong, in the contract's words.

use adj_domain::{FailureKind, IdleReason};
use serde_json::{Value, json};

/// The stop reason, and its details where there are any.
pub(super) fn stop(reason: &IdleReason) -> (Value, Value) {
    let plain = |word: &str| (json!({"type": word}), Value::Null);
    match reason {
        // There is no word for these: the turn is over, and the client may send the next message.
        IdleReason::EndTurn
        | IdleReason::Interrupted
        | IdleReason::MaxTokens
        | IdleReason::StepLimit
        | IdleReason::OutputInvalid { .. } => plain("end_turn"),
        IdleReason::RetriesExhausted => plain("retries_exhausted"),
        IdleReason::BudgetReached { .. } => plain("budget_reached"),
        IdleReason::RequiresAction { event_ids } => {
            (json!({"type": "requires_action", "event_ids": event_ids}), Value::Null)
        }
        IdleReason::Refusal => {
            (json!({"type": "refusal"}), json!({"type": "refusal", "category": null, "explanation": null}))
        }
    }
}

/// The gateway has tried again already, so the turn is dead by the time that anybody hears of it.
pub(super) fn error(kind: FailureKind, message: &str) -> Value {
    let word = match kind {
        FailureKind::Overloaded => "model_overloaded_error",
        FailureKind::RateLimit => "model_rate_limited_error",
        FailureKind::Billing => "billing_error",
        FailureKind::Connection
        | FailureKind::Timeout
        | FailureKind::Authentication
        | FailureKind::InvalidRequest
        | FailureKind::ContextTooLong
        | FailureKind::Protocol
        | FailureKind::Server => "model_request_failed_error",
        FailureKind::Cancelled | FailureKind::Budget => "unknown_error",
    };
    json!({"type": word, "message": message, "retry_status": {"type": "exhausted"}})
}
