//! Policies out of texts, and calls to be judged by them.

use adj_domain::{
    ApprovalPolicy, Destination, Grant, HostRule, NetworkRequest, Ruling, SandboxMode, Timestamp, ToolPermission,
};
use adj_policy::{Context, HostRuling, Layer, LayerKind, Policy};
use serde_json::json;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// The policy of these files, each with its layer.
pub fn policy(layers: &[(LayerKind, &str)]) -> Policy {
    layers.iter().fold(Policy::built_in(), |policy, (kind, text)| policy.with(layer(*kind, text)))
}

pub fn layer(kind: LayerKind, text: &str) -> Layer {
    let file = PathBuf::from(format!("/{kind}.toml"));
    Layer::parse(kind, &file, text).unwrap_or_else(|error| panic!("{error}"))
}

/// What is wrong with a policy file.
pub fn complaint(kind: LayerKind, text: &str) -> String {
    match Layer::parse(kind, Path::new("policy.toml"), text) {
        Ok(layer) => panic!("it is taken for good: {layer:?}"),
        Err(error) => error.to_string(),
    }
}

/// A call with all its circumstances.
#[derive(Debug, Clone)]
pub struct Call {
    pub approval: ApprovalPolicy,
    pub mode: SandboxMode,
    pub permissions: BTreeMap<String, ToolPermission>,
    pub network: NetworkRequest,
    pub grants: Vec<Grant>,
    pub now: Timestamp,
}

pub fn now() -> Timestamp {
    "2026-06-01T12:00:00Z".parse().expect("the time is one")
}

impl Call {
    pub fn new(approval: ApprovalPolicy) -> Self {
        Self {
            approval,
            mode: SandboxMode::WorkspaceWrite,
            permissions: BTreeMap::new(),
            network: NetworkRequest::default(),
            grants: Vec::new(),
            now: now(),
        }
    }

    pub fn with_hosts(mut self, hosts: &[&str], ask: bool) -> Self {
        let rule = |text: &&str| text.parse::<HostRule>().expect("the host is good");
        self.network = NetworkRequest { hosts: hosts.iter().map(rule).collect(), ask };
        self
    }

    pub fn context(&self) -> Context<'_> {
        Context {
            approval: self.approval,
            mode: self.mode,
            permissions: &self.permissions,
            network: &self.network,
            grants: &self.grants,
            now: self.now,
            session: None,
            repository: Some("/srv/project"),
        }
    }

    pub fn bash(&self, policy: &Policy, command: &str) -> Ruling {
        policy.tool("bash", &json!({ "command": command }), &self.context())
    }

    pub fn tool(&self, policy: &Policy, tool: &str) -> Ruling {
        policy.tool(tool, &json!({}), &self.context())
    }

    pub fn host(&self, policy: &Policy, to: &str) -> HostRuling {
        policy.host(&destination(to), &self.context())
    }
}

/// `host:port`, or `METHOD host:port/path`.
pub fn destination(text: &str) -> Destination {
    let (method, rest) = match text.split_once(' ') {
        Some((method, rest)) => (Some(method.to_owned()), rest),
        None => (None, text),
    };
    let (place, path) = match rest.find('/') {
        Some(at) => (&rest[..at], Some(rest[at..].to_owned())),
        None => (rest, None),
    };
    let (host, port) = place.rsplit_once(':').expect("a destination has a port");
    Destination { host: host.to_owned(), port: port.parse().expect("the port is one"), method, path }
}
