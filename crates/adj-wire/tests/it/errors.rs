//! Errors, and what this server does not have.

use adj_wire::{ApiError, ErrorCode, ErrorKind, Invalid, unsupported::unsupported};
use std::time::Duration;

#[test]
fn every_error() {
    let lines = ErrorKind::ALL.map(|kind| {
        let error = ApiError::new(kind, "why");
        format!("{} {:?} {}\n", error.status(), error.headers(), error.body("req_1"))
    });
    insta::assert_snapshot!(lines.concat());
}

#[test]
fn details_and_delays() {
    let lost = ApiError::new(ErrorKind::Precondition, "the lease is another's")
        .with_code(ErrorCode::HeartbeatPreconditionFailed)
        .with_detail("current_state", "stopped");
    let slow = ApiError::new(ErrorKind::RateLimit, "slow down").with_retry_after(Duration::from_millis(1_200));
    let invalid =
        Invalid { path: "a[1].b".to_owned(), why: "is odd".to_owned(), code: Some(ErrorCode::InvalidMetadata) };
    let errors =
        [lost, slow, invalid.into(), ApiError::not_found("agent", "x"), ApiError::version_conflict("agent", 1, 2)];
    let lines = errors.map(|error| format!("{} {:?} {}\n", error.status(), error.headers(), error.body("req_1")));
    insta::assert_snapshot!(lines.concat());
    let words: Vec<&str> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
    insta::assert_snapshot!(words.join("\n"));
}

#[test]
fn what_is_not_there_is_named() {
    let cases = [
        ("/v1/vaults", Some("vaults")),
        ("/v1/vaults/", Some("vaults")),
        ("/v1/vaults/vlt_1/credentials/vcrd_1/archive", Some("vaults")),
        ("/v1/memory_stores/m/memories", Some("memory stores")),
        (concat!("/v1/environments/env_1/work", "/poll"), Some("self-hosted environments")),
        ("/v1/environments//work", None),
        ("/v1/environments/env_1", None),
        ("/v1/deployment_runs", Some("deployments")),
        ("/v1/skills/skill_1/versions/latest/content", Some("skills")),
        ("/v1/vaultsx", None),
        ("/v1/agents", None),
        ("", None),
    ];
    for (path, expected) in cases {
        let found = unsupported(path);
        assert_eq!(found.is_some(), expected.is_some(), "{path}");
        if let (Some(error), Some(word)) = (found, expected) {
            assert_eq!((error.status(), error.message.starts_with(word)), (404, true), "{path}: {error}");
        }
    }
}
