//! What is made of the words that vendors fail with, before and within a stream.

use adj_domain::FailureKind;
use adj_providers::ProviderError;
use serde_json::{Value, json};
use std::time::Duration;

fn google(status: &str, message: &str, details: Value) -> Value {
    json!({"error": {"code": 0, "message": message, "status": status, "details": details}})
}

#[test]
fn googles_details_tell_a_full_minute_from_an_empty_account() {
    use FailureKind::*;
    let quota = |id: &str, value: &str| {
        json!({"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [
            {"quotaMetric": "requests", "quotaId": id, "quotaDimensions": {"model": "m"}, "quotaValue": value}]})
    };
    let retry = |delay: &str| json!({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay});
    let reason = |word: &str| json!({"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": word});
    let exceeded = "You exceeded your current quota, please check your plan and billing details.";
    let cases = [
        (
            429,
            google("RESOURCE_EXHAUSTED", "Resource has been exhausted (e.g. check quota).", json!([])),
            RateLimit,
            "check quota",
            None,
        ),
        (
            429,
            google("RESOURCE_EXHAUSTED", exceeded, json!([quota("TokensPerMinute", "250000"), retry("26.074824224s")])),
            RateLimit,
            "billing details. (TokensPerMinute: 250000) (HTTP status 429)",
            Some(26_074),
        ),
        (
            429,
            google("RESOURCE_EXHAUSTED", exceeded, json!([quota("RequestsPerDay-FreeTier", "20"), retry("9s")])),
            Billing,
            "RequestsPerDay-FreeTier: 20",
            Some(9000),
        ),
        (429, google("RESOURCE_EXHAUSTED", exceeded, json!([quota("PerMinute", "0")])), Billing, "PerMinute: 0", None),
        (429, google("RESOURCE_EXHAUSTED", exceeded, json!([{"@type": "Help"}, 7, null])), Billing, exceeded, None),
        (429, google("RESOURCE_EXHAUSTED", "x", json!([retry("soon"), retry("-1s")])), RateLimit, "x", None),
        (429, google("RESOURCE_EXHAUSTED", "x", json!("no list")), RateLimit, "x", None),
        (
            400,
            google(
                "INVALID_ARGUMENT",
                "API key not valid. Please pass a valid API key.",
                json!([reason("API_KEY_INVALID")]),
            ),
            Authentication,
            "INVALID_ARGUMENT: API key not valid",
            None,
        ),
        (400, google("INVALID_ARGUMENT", "No.", json!([reason("API_KEY_INVALID")])), Authentication, "No.", None),
        (400, google("INVALID_ARGUMENT", "Unknown name \"x\"", json!([])), InvalidRequest, "Unknown name", None),
        (
            400,
            google(
                "INVALID_ARGUMENT",
                "The input token count (9) exceeds the maximum number of tokens allowed (8).",
                json!([]),
            ),
            ContextTooLong,
            "maximum number of tokens",
            None,
        ),
        (
            400,
            google("INVALID_ARGUMENT", "Request payload size exceeds the limit: 20971520 bytes.", json!([])),
            ContextTooLong,
            "20971520",
            None,
        ),
        (
            400,
            google("FAILED_PRECONDITION", "Not in your country. Please enable billing.", json!([])),
            Billing,
            "country",
            None,
        ),
        (
            403,
            google("PERMISSION_DENIED", "not yours", json!([])),
            Authentication,
            "PERMISSION_DENIED: not yours",
            None,
        ),
        (404, google("NOT_FOUND", "models/x is not found", json!([])), InvalidRequest, "models/x", None),
        (500, google("INTERNAL", "oops", json!([])), Server, "oops", None),
        (503, google("UNAVAILABLE", "The model is overloaded.", json!([])), Overloaded, "overloaded", None),
        (
            429,
            google("RESOURCE_EXHAUSTED", "no room", json!([reason("MODEL_CAPACITY_EXHAUSTED")])),
            Overloaded,
            "no room",
            None,
        ),
        (504, google("DEADLINE_EXCEEDED", "late", json!([])), Timeout, "late", None),
    ];
    for (status, body, kind, words, wait) in cases {
        for body in [body.to_string(), json!([body]).to_string()] {
            let error = ProviderError::from_status(status, body.as_bytes(), None);
            assert_eq!((error.kind, error.status), (kind, Some(status)), "{error}");
            assert!(error.message.contains(words), "{error} does not say {words:?}");
            assert_eq!(error.retry_after.map(|wait| wait.as_millis()), wait, "{error}");
            let within = ProviderError::in_document(body.as_bytes()).expect("it is an error");
            assert_eq!((within.kind, within.status), (kind, None), "{within}");
        }
        let header = Some(Duration::from_secs(3));
        let error = ProviderError::from_status(status, body.to_string().as_bytes(), header);
        assert_eq!(error.retry_after, header, "the header counts");
    }
}
