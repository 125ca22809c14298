//! What a door is told when it opens, and the words in which it reports.

use crate::{CertificateAuthority, Credential, Resolve};
use adj_domain::{Destination, HostRule, Ruling};
use async_trait::async_trait;
use std::{fmt, net::IpAddr, sync::Arc, time::Duration};

/// Decides who may be reached. May take long (a person is asked); the connection waits meanwhile.
#[async_trait]
pub trait Judge: Send + Sync {
    async fn judge(&self, to: &Destination) -> Judged;
}

/// What a judge says. Everything but `allow` is refused.
#[derive(Debug, Clone)]
pub struct Judged {
    pub ruling: Ruling,
    /// The entry that covers the destination; without one only the host and port that were judged are meant.
    pub rule: Option<HostRule>,
}

pub struct Settings {
    pub judge: Arc<dyn Judge>,
    pub credentials: Vec<Credential>,
    pub resolver: Arc<dyn Resolve>,
    pub limits: EgressLimits,
    /// Told of every decision before a byte goes to the destination; `false` means that it could not be recorded, which refuses.
    pub on_decision: Arc<dyn Fn(Decided) -> bool + Send + Sync>,
    pub authority: CertificateAuthority,
    /// Certificates in PEM that are trusted upstream beside the public ones: a company's own authority.
    pub extra_roots: String,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("credentials", &self.credentials)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EgressLimits {
    /// Connections from inside at the same time; more wait in the kernel's queue.
    pub connections: usize,
    /// From the first to the last byte of a head, a greeting or a TLS hello.
    pub head_timeout: Duration,
    pub resolve_timeout: Duration,
    /// For each address of a name.
    pub connect_timeout: Duration,
    /// Without a byte in either direction.
    pub idle_timeout: Duration,
    /// A request's body that has to be read whole, because a secret belongs into it.
    pub body_bytes: usize,
    /// Names that are remembered with their addresses.
    pub names: usize,
}

impl Default for EgressLimits {
    fn default() -> Self {
        Self {
            connections: 256,
            head_timeout: Duration::from_secs(30),
            resolve_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(600),
            body_bytes: 1024 * 1024,
            names: 4096,
        }
    }
}

/// How somebody inside asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    HttpConnect,
    /// A request in the clear.
    Http,
    Socks5,
    /// A request within TLS that was opened.
    Tls,
}

/// One decision: about a connection, or about a request where requests are seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided {
    /// The path is without its query, which may hold what nobody should record.
    pub to: Destination,
    pub protocol: Protocol,
    /// The judge's, or `deny` by the layer `built-in` where the door itself refuses.
    pub ruling: Ruling,
    /// The addresses that were checked and are tried in this order; empty when refused.
    pub addresses: Vec<IpAddr>,
    /// The names of the credentials that are put in.
    pub used_secrets: Vec<String>,
}
