//! What one layer says, as data. Whatever it leaves out, it has no opinion on.
//!
//! Must not know: files, or what the other layers say.

use crate::{
    address::AddressRange,
    limits::{Limit, LimitValue},
};
use adj_domain::{ApprovalPolicy, HostPattern, HostRule, Limit as Budget, SandboxMode, Span, ToolPermission, Verdict};
use serde::{Serialize, Serializer};
use std::{collections::BTreeMap, fmt, str::FromStr, time::Duration};

/// A value and the line that says it, where a file does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said<T> {
    pub value: T,
    pub line: Option<u32>,
}

impl<T> From<T> for Said<T> {
    fn from(value: T) -> Self {
        Self { value, line: None }
    }
}

/// Where something is said does not count when two policies are compared.
impl<T: Serialize> Serialize for Said<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(serializer)
    }
}

/// Everything that a layer can say.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Settings {
    pub allowed_sandbox_modes: Option<Said<Vec<SandboxMode>>>,
    pub allowed_approval_policies: Option<Said<Vec<ApprovalPolicy>>>,
    pub allowed_profiles: Option<Said<Vec<String>>>,
    pub default_profile: Option<Said<String>>,
    pub expire_approvals_after: Option<Said<Duration>>,
    /// Zero: no grant is remembered at all.
    pub longest_grant: Option<Said<Duration>>,
    pub tools: BTreeMap<String, Said<ToolSetting>>,
    /// The only hosts there are for this layer.
    pub hosts: Option<Said<Vec<Said<HostRule>>>>,
    pub denied_hosts: Vec<Said<DeniedHost>>,
    /// Whether a person may be asked for hosts that are not listed.
    pub ask: Option<Said<bool>>,
    pub hidden: Vec<Said<String>>,
    pub readonly: Vec<Said<String>>,
    pub limits: BTreeMap<Limit, Said<LimitValue>>,
    /// What may be spent. It changes while sessions rest, and no answer of a person depends on it.
    #[serde(skip)]
    pub budget: BTreeMap<Span, Said<Vec<Budget>>>,
    pub allowed_secrets: Option<Said<Vec<String>>>,
    pub rules: Vec<Said<InlineRule>>,
    pub profiles: BTreeMap<String, Said<ProfileSettings>>,
}

/// What a layer says of a tool. The later ones are stricter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolSetting {
    AlwaysAllow,
    Auto,
    AlwaysAsk,
    Deny,
}

impl ToolSetting {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AlwaysAllow => "always_allow",
            Self::Auto => "auto",
            Self::AlwaysAsk => "always_ask",
            Self::Deny => "deny",
        }
    }
}

impl From<ToolPermission> for ToolSetting {
    fn from(permission: ToolPermission) -> Self {
        match permission {
            ToolPermission::AlwaysAllow => Self::AlwaysAllow,
            ToolPermission::Auto => Self::Auto,
            ToolPermission::AlwaysAsk => Self::AlwaysAsk,
        }
    }
}

impl fmt::Display for ToolSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ToolSetting {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let all = [Self::AlwaysAllow, Self::AlwaysAsk, Self::Auto, Self::Deny];
        let found = all.into_iter().find(|known| known.as_str() == text);
        found.ok_or_else(|| {
            format!("\"{}\" is not one of always_allow, always_ask, auto, deny", crate::document::shown(text))
        })
    }
}

/// A host that is never reached, whatever else lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeniedHost {
    pub host: HostPattern,
    /// Empty means every port.
    pub ports: Vec<u16>,
}

impl DeniedHost {
    pub fn covers(&self, host: &str, port: u16) -> bool {
        self.host.matches(host) && (self.ports.is_empty() || self.ports.contains(&port))
    }
}

impl fmt::Display for DeniedHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.host)?;
        if !self.ports.is_empty() {
            let ports: Vec<String> = self.ports.iter().map(u16::to_string).collect();
            write!(f, ":{}", ports.join(","))?;
        }
        Ok(())
    }
}

/// A rule on the beginning of a command, written in the policy file itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InlineRule {
    /// Each word of the beginning, and what else may stand in its place.
    pub pattern: Vec<Vec<String>>,
    pub decision: Verdict,
    #[serde(skip)]
    pub justification: Option<String>,
}

/// What a profile says; what it leaves out comes from the one that it extends.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct ProfileSettings {
    pub extends: Option<Said<String>>,
    pub mode: Option<SandboxMode>,
    pub read: Vec<String>,
    pub write: Vec<String>,
    pub hidden: Vec<String>,
    pub readonly: Vec<String>,
    pub hosts: Option<Vec<HostRule>>,
    pub ask: Option<bool>,
    pub limits: BTreeMap<Limit, LimitValue>,
    pub secrets: Option<Vec<String>>,
    pub env: BTreeMap<String, String>,
}

/// Checks what the type of a host rule leaves open; returns what is wrong with it.
pub(crate) fn check_host(rule: &HostRule) -> Result<(), String> {
    let shown = crate::document::shown;
    if rule.ports.is_empty() || rule.ports.contains(&0) {
        return Err("ports are numbers from 1 to 65535, at least one".to_owned());
    }
    if let Some(bad) = rule.methods.iter().find(|name| name.is_empty() || !name.bytes().all(|b| b.is_ascii_uppercase()))
    {
        return Err(format!("\"{}\" is not a method in upper-case letters, such as GET", shown(bad)));
    }
    let is_path = |path: &String| path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic());
    if let Some(bad) = rule.paths.iter().find(|path| !is_path(path)) {
        return Err(format!("\"{}\" is not the beginning of a path, such as /repos/", shown(bad)));
    }
    let bad = rule.private_addresses.iter().find(|text| text.parse::<AddressRange>().is_err());
    bad.map_or(Ok(()), |bad| Err(format!("\"{}\" is not an address or a range, such as 10.1.2.0/24", shown(bad))))
}
