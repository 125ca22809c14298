//! Decides whether a destination may be reached, at which addresses, and says so before anything goes there.

use crate::{
    AddressRange, CertificateAuthority, Credential, Decided, EgressLimits, Judge, Judged, Protocol, Resolve,
    address::{is_global, is_own},
    credential::Misplaced,
    refusal::Refusal,
    resolve::Names,
    target::strict_path,
    wire::Wire,
};
use adj_domain::{Destination, HostRule, Ruling, Verdict};
use rustls::{ClientConfig, crypto::CryptoProvider, pki_types::ServerName};
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;

/// What all connections of one door share.
pub(crate) struct Door {
    pub judge: Arc<dyn Judge>,
    pub credentials: Vec<Credential>,
    pub resolver: Arc<dyn Resolve>,
    pub limits: EgressLimits,
    pub on_decision: Arc<dyn Fn(Decided) -> bool + Send + Sync>,
    pub authority: CertificateAuthority,
    pub names: Names,
    pub provider: Arc<CryptoProvider>,
    pub upstream_tls: Arc<ClientConfig>,
}

/// A destination that may be reached.
pub(crate) struct Admitted {
    pub host: String,
    pub port: u16,
    pub addresses: Vec<IpAddr>,
    /// Whether TLS to it is opened here.
    pub opens_tls: bool,
    /// Whether only some requests are permitted.
    pub is_narrowed: bool,
}

impl Door {
    pub(crate) fn holds_secret_for(&self, host: &str, port: u16) -> bool {
        self.secrets_for(host, port).next().is_some()
    }

    pub(crate) fn secrets_for(&self, host: &str, port: u16) -> impl Iterator<Item = &Credential> {
        self.credentials.iter().filter(move |credential| credential.covers(host, port))
    }

    /// `to` with a checked host name. What is admitted or refused has been recorded.
    pub(crate) async fn admit(
        &self,
        to: &Destination,
        protocol: Protocol,
        used_secrets: Vec<String>,
    ) -> Result<Admitted, Refusal> {
        let Judged { ruling, rule } = self.judge.judge(to).await;
        if ruling.verdict != Verdict::Allow {
            return Err(self.refuse(to, protocol, ruling));
        }
        let holds_secret = self.holds_secret_for(&to.host, to.port);
        let opens_tls = holds_secret || rule.as_ref().is_some_and(|rule| rule.open_tls);
        if let Some(rule) = &rule
            && let Err(objection) = check_rule(rule, to, opens_tls)
        {
            return Err(self.refuse_because(to, protocol, objection));
        }
        // What a secret is bound to must not be a matter of opinion either.
        if holds_secret
            && let Some(path) = &to.path
            && self
                .secrets_for(&to.host, to.port)
                .any(|credential| credential.hosts.iter().any(HostRule::narrows_requests))
            && let Err(error) = strict_path(path, true)
        {
            return Err(self.refuse_because(to, protocol, error.to_string()));
        }

        let looked_up = self.names.resolve(&to.host, self.resolver.as_ref());
        let found = match timeout(self.limits.resolve_timeout, looked_up).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => {
                let refusal = self.refuse_because(to, protocol, format!("the name cannot be resolved: {error}"));
                return Err(Refusal { status: 502, ..refusal });
            }
            Err(_) => {
                let refusal = self.refuse_because(to, protocol, "the name was not resolved in time".to_owned());
                return Err(Refusal { status: 504, ..refusal });
            }
        };
        let listed: Vec<AddressRange> = rule
            .iter()
            .flat_map(|rule| &rule.private_addresses)
            // What cannot be read permits nothing.
            .filter_map(|range| range.parse().ok())
            .collect();
        let may_be_reached = |address: &IpAddr| {
            listed.iter().any(|range| range.contains(*address)) || (is_global(*address) && !is_own(*address))
        };
        let addresses: Vec<IpAddr> = found.iter().copied().filter(may_be_reached).collect();
        if addresses.is_empty() {
            let found: Vec<String> = found.iter().map(IpAddr::to_string).collect();
            let objection = format!("the name leads to addresses that are not public ({})", found.join(", "));
            return Err(self.refuse_because(to, protocol, objection));
        }
        let decided = Decided { to: to.clone(), protocol, ruling, addresses: addresses.clone(), used_secrets };
        if !(self.on_decision)(decided) {
            return Err(Refusal::new(503, "the decision could not be recorded, so nothing goes out"));
        }
        let is_narrowed = rule.is_some_and(|rule| rule.narrows_requests());
        Ok(Admitted { host: to.host.clone(), port: to.port, addresses, opens_tls, is_narrowed })
    }

    /// Records a refusal of our own.
    pub(crate) fn refuse_because(&self, to: &Destination, protocol: Protocol, objection: String) -> Refusal {
        self.refuse(to, protocol, Ruling::new(Verdict::Deny, "built-in", objection))
    }

    pub(crate) fn refuse_misplaced(&self, to: &Destination, protocol: Protocol, misplaced: &Misplaced) -> Refusal {
        self.refuse_because(to, protocol, misplaced.to_string())
    }

    fn refuse(&self, to: &Destination, protocol: Protocol, ruling: Ruling) -> Refusal {
        let refusal = Refusal::denied(to, &ruling);
        // Whether or not it could be recorded, nothing goes out.
        let decided = Decided { to: to.clone(), protocol, ruling, addresses: Vec::new(), used_secrets: Vec::new() };
        (self.on_decision)(decided);
        refusal
    }

    /// Connects to one of the addresses that were checked, and to no other.
    pub(crate) async fn dial(&self, to: &Admitted) -> Result<TcpStream, Refusal> {
        let mut last = String::new();
        for address in &to.addresses {
            let connecting = TcpStream::connect(SocketAddr::new(*address, to.port));
            match timeout(self.limits.connect_timeout, connecting).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = error.to_string(),
                Err(_) => last = "no answer in time".to_owned(),
            }
        }
        self.names.forget(&to.host);
        Err(Refusal::new(502, format!("cannot connect to {}:{}: {last}", to.host, to.port)))
    }

    /// Connects with TLS whose certificate is checked against the name.
    pub(crate) async fn dial_tls(&self, to: &Admitted) -> Result<Wire, Refusal> {
        let name = ServerName::try_from(to.host.clone())
            .map_err(|_| Refusal::new(502, format!("{} cannot stand in a certificate", to.host)))?;
        let stream = self.dial(to).await?;
        // A socket that is gone already says so later.
        let _ = stream.set_nodelay(true);
        let connecting = TlsConnector::from(Arc::clone(&self.upstream_tls)).connect(name, stream);
        match timeout(self.limits.head_timeout, connecting).await {
            Ok(Ok(stream)) => Ok(Wire::tls(stream)),
            Ok(Err(error)) => Err(Refusal::new(502, format!("no TLS with {}:{}: {error}", to.host, to.port))),
            Err(_) => Err(Refusal::new(504, format!("no TLS with {}:{} in time", to.host, to.port))),
        }
    }
}

/// Checks what the judge's entry says of the destination, whatever the judge made of it.
fn check_rule(rule: &HostRule, to: &Destination, opens_tls: bool) -> Result<(), String> {
    if !rule.covers(&to.host, to.port) {
        return Err(format!("the entry {rule} does not cover {}:{}", to.host, to.port));
    }
    if !rule.narrows_requests() {
        return Ok(());
    }
    match (&to.method, &to.path) {
        (Some(method), Some(path)) => {
            strict_path(path, true).map_err(|error| error.to_string())?;
            if rule.permits_request(method, path) {
                Ok(())
            } else {
                Err(format!("the entry {rule} does not permit this"))
            }
        }
        _ if to.port == 443 && !opens_tls => {
            Err(format!("the entry {rule} permits some requests only, and without `open_tls` they cannot be seen"))
        }
        _ => Ok(()),
    }
}
