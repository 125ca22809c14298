//! Environments: where tools run, and what they may reach.

use crate::{
    abilities::Abilities,
    error::ErrorCode,
    metadata::{self, Empty, Metadata},
    query::{Limits, Paging, Query},
    read::{Change, Invalid, Node, Object},
    record::{Stamp, object},
};
use adj_domain::HostRule;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

const MOST_HOSTS: usize = 256;
const MOST_PACKAGES: usize = 256;

/// What a store keeps of an environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvironmentSpec {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    pub networking: Networking,
    #[serde(default, skip_serializing_if = "Packages::is_empty")]
    pub packages: Packages,
    #[serde(default, skip_serializing_if = "Metadata::is_empty")]
    pub metadata: Metadata,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<Scope>,
}

/// Which hosts may be reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Networking {
    Unrestricted,
    Limited { allowed_hosts: Vec<HostRule>, allow_mcp_servers: bool, allow_package_managers: bool },
}

/// Packages to install, in the words of each package manager.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Packages {
    pub apt: Vec<String>,
    pub cargo: Vec<String>,
    pub gem: Vec<String>,
    pub go: Vec<String>,
    pub npm: Vec<String>,
    pub pip: Vec<String>,
}

/// Who sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    Organization,
    Account,
}

impl Packages {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn managers(&mut self) -> [(&'static str, &mut Vec<String>); 6] {
        [
            ("apt", &mut self.apt),
            ("cargo", &mut self.cargo),
            ("gem", &mut self.gem),
            ("go", &mut self.go),
            ("npm", &mut self.npm),
            ("pip", &mut self.pip),
        ]
    }
}

impl EnvironmentSpec {
    /// The whole resource; its config is complete.
    pub fn answer(&self, stamp: &Stamp) -> Value {
        let networking = match &self.networking {
            Networking::Unrestricted => json!({"type": "unrestricted"}),
            Networking::Limited { allowed_hosts, allow_mcp_servers, allow_package_managers } => json!({
                "type": "limited",
                "allowed_hosts": allowed_hosts.iter().map(HostRule::to_string).collect::<Vec<_>>(),
                "allow_mcp_servers": allow_mcp_servers,
                "allow_package_managers": allow_package_managers,
            }),
        };
        let mut packages = json!({"type": "packages"});
        for (manager, names) in self.packages.clone().managers() {
            packages[manager] = json!(names);
        }
        let mut environment = object(json!({
            "id": stamp.id,
            "type": "environment",
            "name": self.name,
            "description": self.description,
            "config": {"type": "cloud", "networking": networking, "packages": packages},
            "metadata": self.metadata,
            "scope": self.scope,
            "state": if stamp.archived_at.is_some() { "archived" } else { "active" },
        }));
        stamp.add_times(&mut environment);
        Value::Object(environment)
    }

    fn check(&self) -> Result<(), Invalid> {
        match &self.networking {
            Networking::Limited { allow_package_managers: false, .. } if !self.packages.is_empty() => {
                let why = "need allow_package_managers, because the network is limited";
                Err(Invalid::new("config.packages", why))
            }
            Networking::Limited { .. } | Networking::Unrestricted => Ok(()),
        }
    }
}

/// Reads the body of `POST /v1/environments`.
pub fn create(body: &Value, can: Abilities) -> Result<EnvironmentSpec, Invalid> {
    let fields = Node::root(body).object()?;
    let (mut networking, mut packages) = (Networking::Unrestricted, Packages::default());
    if let Some(config) = fields.get("config") {
        let config = config.object()?;
        // Not another type of an environment that is there, but one that nobody has.
        if !config.kind(&[("cloud", true), ("self_hosted", false)])? {
            return Err(config.wrong("type", "self-hosted environments are not supported by this server"));
        }
        read_config(&config, &mut networking, &mut packages, can)?;
    }
    let spec = EnvironmentSpec {
        name: fields.need("name")?.text_of(1..=256)?.to_owned(),
        description: read_description(&fields)?.over(None),
        networking,
        packages,
        metadata: metadata::read(&fields)?,
        scope: read_scope(&fields)?,
    };
    spec.check()?;
    Ok(spec)
}

/// Reads the body of `POST /v1/environments/{id}` and answers with the environment after it.
pub fn update(body: &Value, current: &EnvironmentSpec, can: Abilities) -> Result<EnvironmentSpec, Invalid> {
    let fields = Node::root(body).object()?;
    let mut spec = current.clone();
    match fields.change("name") {
        Change::Keep => {}
        Change::Clear => return Err(fields.wrong("name", "cannot be cleared")),
        Change::Set(node) => node.text_of(1..=256)?.clone_into(&mut spec.name),
    }
    spec.description = read_description(&fields)?.over(spec.description);
    if let Some(config) = fields.get("config") {
        let config = config.object()?;
        if let Some(kind) = config.get("type")
            && !kind.word(&[("cloud", true), ("self_hosted", false)])?
        {
            return Err(kind.wrong("cannot be changed").with_code(ErrorCode::InvalidConfigTypeChange));
        }
        read_config(&config, &mut spec.networking, &mut spec.packages, can)?;
    }
    spec.metadata = metadata::read_patch(&fields, Empty::Deletes)?.apply(&current.metadata)?;
    spec.scope = read_scope(&fields)?.or(spec.scope);
    spec.check()?;
    Ok(spec)
}

fn read_description(fields: &Object<'_>) -> Result<Change<String>, Invalid> {
    Ok(match fields.change("description") {
        Change::Keep => Change::Keep,
        Change::Clear => Change::Clear,
        Change::Set(node) => match node.text_of(0..=2_048)? {
            "" => Change::Clear,
            text => Change::Set(text.to_owned()),
        },
    })
}

fn read_scope(fields: &Object<'_>) -> Result<Option<Scope>, Invalid> {
    let words = [("organization", Scope::Organization), ("account", Scope::Account)];
    fields.get("scope").map(|node| node.word(&words)).transpose()
}

/// What is left out stays as it is.
fn read_config(
    config: &Object<'_>,
    networking: &mut Networking,
    packages: &mut Packages,
    can: Abilities,
) -> Result<(), Invalid> {
    if let Some(node) = config.get("networking") {
        *networking = read_networking(&node.object()?, networking)?;
    }
    let Some(node) = config.get("packages") else { return Ok(()) };
    let fields = node.object()?;
    for (manager, names) in packages.managers() {
        let Some(node) = fields.get(manager) else { continue };
        let entries = node.list_up_to(MOST_PACKAGES)?;
        if !entries.is_empty() && !can.packages {
            return Err(node.unsupported("packages of an environment are"));
        }
        *names = entries.iter().map(read_package).collect::<Result<_, _>>()?;
    }
    Ok(())
}

fn read_networking(fields: &Object<'_>, current: &Networking) -> Result<Networking, Invalid> {
    if !fields.kind(&[("limited", true), ("unrestricted", false)])? {
        return Ok(Networking::Unrestricted);
    }
    let (hosts, mcp, managers) = match current {
        Networking::Unrestricted => (Vec::new(), false, false),
        Networking::Limited { allowed_hosts, allow_mcp_servers, allow_package_managers } => {
            (allowed_hosts.clone(), *allow_mcp_servers, *allow_package_managers)
        }
    };
    let read_host = |node: &Node<'_>| -> Result<HostRule, Invalid> {
        let text = node.text_of(1..=300)?;
        if text.contains("://") {
            return Err(node.wrong("must be a host such as example.org, not a URL"));
        }
        text.parse().map_err(|error| node.wrong(format!("is no host: {error}")))
    };
    let allowed_hosts = match fields.get("allowed_hosts") {
        Some(node) => node.list_up_to(MOST_HOSTS)?.iter().map(read_host).collect::<Result<_, _>>()?,
        None => hosts,
    };
    let flag = |name, current| fields.get(name).map_or(Ok(current), |node: Node<'_>| node.boolean());
    Ok(Networking::Limited {
        allowed_hosts,
        allow_mcp_servers: flag("allow_mcp_servers", mcp)?,
        allow_package_managers: flag("allow_package_managers", managers)?,
    })
}

/// A name that no package manager takes for an option, and no shell for more than a word.
fn read_package(node: &Node<'_>) -> Result<String, Invalid> {
    let name = node.text_of(1..=256)?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "@/._-+=~<>!,:^[]".contains(c);
    if name.starts_with('-') || !name.chars().all(is_plain) {
        return Err(node.wrong("is no package's name"));
    }
    Ok(name.to_owned())
}

/// Which environments are listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvironmentsQuery {
    pub paging: Paging,
    pub include_archived: bool,
}

impl EnvironmentsQuery {
    pub fn read(query: &Query) -> Result<Self, Invalid> {
        Ok(Self {
            paging: query.paging(Limits::USUAL)?,
            include_archived: query.boolean("include_archived")?.unwrap_or(false),
        })
    }
}
