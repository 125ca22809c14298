//! What the contract names and this server does not have: each is told by its name.

use crate::error::{ApiError, ErrorKind};

/// Paths, a star for each part that is an id, and what they are for. Each stands for all below it, too.
const FAMILIES: [(&str, &str); 10] = [
    ("/v1/vaults", "vaults are"),
    ("/v1/memory_stores", "memory stores are"),
    ("/v1/skills", "skills are"),
    ("/v1/deployments", "deployments are"),
    ("/v1/deployment_runs", "deployments are"),
    ("/v1/dreams", "dreams are"),
    ("/v1/tunnels", "tunnels are"),
    ("/v1/user_profiles", "user profiles are"),
    ("/v1/webhooks", "webhooks are"),
    ("/v1/environments/*/work", "self-hosted environments are"),
];

/// The error for a path of the contract that this server does not have. `path` is without its query.
pub fn unsupported(path: &str) -> Option<ApiError> {
    let matches = |pattern: &str| {
        let mut parts = path.trim_end_matches('/').split('/');
        pattern.split('/').all(|wanted| match (wanted, parts.next()) {
            ("*", Some(found)) => !found.is_empty(),
            (wanted, Some(found)) => wanted == found,
            (_, None) => false,
        })
    };
    let (_, what) = FAMILIES.iter().find(|(pattern, _)| matches(pattern))?;
    Some(ApiError::new(ErrorKind::NotFound, format!("{what} not supported by this server")))
}
