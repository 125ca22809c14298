//! Secrets of a session: placeholders for inside, and what the door puts in their place.

use crate::guard::Guard;
use adj_domain::{Destination, HostPattern, HostRule, Verdict};
use adj_egress::Credential;
use adj_vault::{Entry, Place, Vault};
use std::collections::BTreeMap;

/// What one session gets of the vault.
#[derive(Debug, Default)]
pub(crate) struct Secrets {
    /// For the door.
    pub credentials: Vec<Credential>,
    /// For the inside: placeholders only.
    pub environment: BTreeMap<String, String>,
}

/// Chooses the secrets that the session asks for and policy permits, for hosts that it may reach.
pub(crate) fn choose(vault: &Vault, guard: &Guard, session: &str) -> Secrets {
    let mut chosen = Secrets::default();
    let mut helpers = Vec::new();
    for entry in self::chosen(vault, guard) {
        let name = entry.name.as_str();
        let (Some(secret), Some(placeholder)) = (vault.secret(name), vault.placeholder(session, name)) else {
            continue;
        };
        for place in entry.places() {
            chosen.credentials.push(Credential {
                name: name.to_owned(),
                placeholder: placeholder.clone(),
                secret: secret.clone(),
                hosts: entry.hosts.clone(),
                place: match place {
                    Place::Header { name } => adj_egress::Place::Header(name.as_str().to_ascii_lowercase()),
                    Place::BasicPassword => adj_egress::Place::BasicPassword,
                    Place::Body => adj_egress::Place::Body,
                },
            });
        }
        if let Some(variable) = &entry.env {
            chosen.environment.insert(variable.as_str().to_owned(), placeholder.clone());
        }
        if entry.git {
            helpers.extend(entry.hosts.iter().flat_map(|rule| git_helper(rule, &placeholder)));
        }
    }
    if !helpers.is_empty() {
        chosen.environment.insert("GIT_CONFIG_COUNT".to_owned(), helpers.len().to_string());
    }
    for (number, (key, value)) in helpers.into_iter().enumerate() {
        chosen.environment.insert(format!("GIT_CONFIG_KEY_{number}"), key);
        chosen.environment.insert(format!("GIT_CONFIG_VALUE_{number}"), value);
    }
    chosen
}

/// The entries that are asked for and permitted.
pub(crate) fn chosen<'v>(vault: &'v Vault, guard: &Guard) -> impl Iterator<Item = &'v Entry> {
    let wanted = guard.confinement.secrets.as_ref();
    vault.list().into_iter().filter(move |entry| {
        let name = entry.name.as_str();
        wanted.is_none_or(|names| names.iter().any(|wanted| wanted == name))
            && guard.policy.secret(name).verdict == Verdict::Allow
            && reaches_any(guard, entry)
    })
}

/// Whether the session may reach, or ask for, one of the secret's hosts.
fn reaches_any(guard: &Guard, entry: &Entry) -> bool {
    entry.hosts.iter().any(|rule| match &rule.host {
        // Which names there are below a suffix is known only when one is asked for.
        HostPattern::Below(_) => guard.confinement.network.is_some(),
        HostPattern::Exact(host) => rule.ports.iter().any(|port| {
            let to = Destination { host: host.clone(), port: *port, method: None, path: None };
            guard.host(&to).ruling.verdict != Verdict::Deny
        }),
    })
}

/// Makes git sign in to a host with the placeholder as its password.
fn git_helper(rule: &HostRule, placeholder: &str) -> Vec<(String, String)> {
    let HostPattern::Exact(host) = &rule.host else { return Vec::new() };
    let of_port = |port: &u16| {
        let port = if *port == 443 { String::new() } else { format!(":{port}") };
        let key = format!("credential.https://{host}{port}.helper");
        let value = format!("!f() {{ echo username=x-access-token; echo password={placeholder}; }}; f");
        (key, value)
    };
    rule.ports.iter().filter(|port| **port != 80).map(of_port).collect()
}
