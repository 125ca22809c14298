//! Profiles: named answers to "what does this call ask for", which the layers then narrow.
//!
//! Must not know: how any of it is confined.

use crate::{
    Policy,
    document::with_suggestion,
    layer::{Layer, LayerKind},
    limits::{Limit, LimitValue},
    packages::{PACKAGES, group},
    settings::{ProfileSettings, Said, Settings},
};
use adj_domain::{NetworkRequest, Ruling, SandboxMode};
use serde::Serialize;
use std::collections::BTreeMap;

/// The profiles that are always there.
pub const BUILT_IN_PROFILES: [&str; 4] = ["read-only", "workspace-write", "danger-full-access", "packages"];

const DEFAULT: &str = "workspace-write";
/// Longest chain of profiles that extend one another.
const DEEPEST: usize = 16;

/// What a call asks for, as plain data. Whether it gets it, the policy says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Profile {
    pub name: String,
    pub mode: SandboxMode,
    /// Folders and files of the host to show, absolute or beginning with `~/`.
    pub read: Vec<String>,
    pub write: Vec<String>,
    pub hidden: Vec<String>,
    pub readonly: Vec<String>,
    pub network: NetworkRequest,
    /// Instead of the sandbox's own defaults, and never more than the policy's limits.
    pub limits: BTreeMap<Limit, LimitValue>,
    pub secrets: Vec<String>,
    pub env: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    #[error("{0}")]
    Unknown(String),
    #[error("{} ({})", ruling.rule, place(ruling))]
    NotAllowed { ruling: Box<Ruling> },
    #[error("the profile {name} is defined twice: by {first}, and by {second}")]
    Twice { name: String, first: String, second: String },
    #[error("profiles extend one another in a circle: {}", names.join(" → "))]
    Circle { names: Vec<String> },
    #[error("more than {DEEPEST} profiles extend one another: {}", names.join(" → "))]
    Deep { names: Vec<String> },
}

fn place(ruling: &Ruling) -> String {
    match (&ruling.file, ruling.line) {
        (Some(file), Some(line)) => format!("{}, {file}:{line}", ruling.layer),
        _ => ruling.layer.clone(),
    }
}

impl Policy {
    /// Resolves a profile, or the default one; returns the policy for its calls too, which is narrower where a repository defines it.
    pub fn profile(&self, name: Option<&str>) -> Result<(Profile, Policy), ProfileError> {
        let name = match name {
            Some(name) => name.to_owned(),
            None => self.default_profile().to_owned(),
        };
        let mut chain = Vec::new();
        let resolved = self.resolve(&name, &mut chain)?;
        // A repository may give a listed name to what begins with an unlisted one.
        let is_foreign = |name: &str| {
            self.definition(name).is_ok_and(|found| found.is_some_and(|(layer, _)| !layer.kind.is_trusted()))
        };
        let through =
            chain.iter().skip(1).zip(&chain).filter(|(_, above)| is_foreign(above)).map(|(name, _)| name.clone());
        for name in std::iter::once(name).chain(through) {
            if let Some(ruling) = self.refusal("allowed_profiles", name, |settings| settings.allowed_profiles.as_ref())
            {
                return Err(ProfileError::NotAllowed { ruling: Box::new(ruling) });
            }
        }
        let (mut profile, narrowings) = resolved;
        let policy = narrowings.into_iter().fold(self.clone(), |policy, layer| policy.with(layer));
        for least in policy.limits() {
            if let Some(value) = profile.limits.get_mut(&least.limit) {
                *value = least.value.min(*value);
            }
        }
        Ok((profile, policy))
    }

    /// The name of the profile that holds where none is named: the organisation's choice, else the administrator's.
    pub fn default_profile(&self) -> &str {
        let named = self.layers().iter().rev().filter(|layer| layer.kind.is_trusted());
        named
            .filter_map(|layer| layer.settings.default_profile.as_ref())
            .map(|said| said.value.as_str())
            .next()
            .unwrap_or(DEFAULT)
    }

    /// The names of all profiles, each with the layer that defines it.
    pub fn profiles(&self) -> Vec<(String, LayerKind)> {
        let built_in = BUILT_IN_PROFILES.iter().map(|name| ((*name).to_owned(), LayerKind::BuiltIn));
        let defined = self
            .layers()
            .iter()
            .flat_map(|layer| layer.settings.profiles.keys().map(|name| (name.clone(), layer.kind)));
        built_in.chain(defined).collect()
    }

    fn resolve(&self, name: &str, chain: &mut Vec<String>) -> Result<(Profile, Vec<Layer>), ProfileError> {
        let is_circle = chain.iter().any(|known| known == name);
        chain.push(name.to_owned());
        if is_circle {
            return Err(ProfileError::Circle { names: chain.clone() });
        }
        if chain.len() > DEEPEST {
            return Err(ProfileError::Deep { names: chain.clone() });
        }
        let Some((layer, said)) = self.definition(name)? else {
            return built_in(name).map(|profile| (profile, Vec::new())).ok_or_else(|| self.unknown(name));
        };
        let base = said.value.extends.as_ref().map_or(DEFAULT, |base| base.value.as_str());
        let (mut profile, mut narrowings) = self.resolve(base, chain)?;
        profile.name = name.to_owned();
        if layer.kind.is_trusted() {
            extend(&mut profile, &said.value);
        } else {
            // What a repository calls a profile never takes the sandbox away, whatever it begins with.
            let mode = narrower(profile.mode, SandboxMode::WorkspaceWrite);
            profile.mode = said.value.mode.map_or(mode, |said| narrower(mode, said));
            narrowings.push(narrowing(layer, said));
        }
        Ok((profile, narrowings))
    }

    fn definition(&self, name: &str) -> Result<Option<(&Layer, &Said<ProfileSettings>)>, ProfileError> {
        let mut found: Option<(&Layer, &Said<ProfileSettings>)> = None;
        for layer in self.layers() {
            let Some(said) = layer.settings.profiles.get(name) else { continue };
            let first = match found {
                Some((layer, said)) => Some(where_said(layer, said)),
                None => BUILT_IN_PROFILES.contains(&name).then(|| LayerKind::BuiltIn.to_string()),
            };
            if let Some(first) = first {
                return Err(ProfileError::Twice { name: name.to_owned(), first, second: where_said(layer, said) });
            }
            found = Some((layer, said));
        }
        Ok(found)
    }

    fn unknown(&self, name: &str) -> ProfileError {
        let known = self.profiles();
        let known: Vec<&str> = known.iter().map(|(name, _)| name.as_str()).collect();
        let name = crate::document::shown(name);
        ProfileError::Unknown(with_suggestion(&format!("there is no profile \"{name}\""), &name, &known))
    }
}

fn where_said(layer: &Layer, said: &Said<ProfileSettings>) -> String {
    match (&layer.file, said.line) {
        (Some(file), Some(line)) => format!("{} ({}:{line})", layer.kind, file.display()),
        _ => layer.kind.to_string(),
    }
}

fn built_in(name: &str) -> Option<Profile> {
    let (mode, hosts) = match name {
        "read-only" => (SandboxMode::ReadOnly, Vec::new()),
        "workspace-write" => (SandboxMode::WorkspaceWrite, Vec::new()),
        "danger-full-access" => (SandboxMode::DangerFullAccess, Vec::new()),
        "packages" => (SandboxMode::WorkspaceWrite, group(PACKAGES)?),
        _ => return None,
    };
    Some(Profile {
        name: name.to_owned(),
        mode,
        read: Vec::new(),
        write: Vec::new(),
        hidden: Vec::new(),
        readonly: Vec::new(),
        network: NetworkRequest { hosts, ask: false },
        limits: BTreeMap::new(),
        secrets: Vec::new(),
        env: BTreeMap::new(),
    })
}

/// What an administrator's or organisation's profile says comes on top of the one that it extends.
fn extend(profile: &mut Profile, said: &ProfileSettings) {
    profile.mode = said.mode.unwrap_or(profile.mode);
    for (list, more) in [
        (&mut profile.read, &said.read),
        (&mut profile.write, &said.write),
        (&mut profile.hidden, &said.hidden),
        (&mut profile.readonly, &said.readonly),
        (&mut profile.secrets, said.secrets.as_ref().unwrap_or(&Vec::new())),
    ] {
        for item in more {
            if !list.contains(item) {
                list.push(item.clone());
            }
        }
    }
    profile.network.hosts.extend(said.hosts.iter().flatten().cloned());
    profile.network.ask = said.ask.unwrap_or(profile.network.ask);
    profile.limits.extend(&said.limits);
    profile.env.extend(said.env.clone());
}

/// What anybody else's profile says is one more layer.
fn narrowing(layer: &Layer, said: &Said<ProfileSettings>) -> Layer {
    let profile = &said.value;
    let place = |value: &String| Said { value: value.clone(), line: said.line };
    let hosts = profile.hosts.as_ref().map(|hosts| Said {
        value: hosts.iter().map(|host| Said { value: host.clone(), line: said.line }).collect(),
        line: said.line,
    });
    let settings = Settings {
        hosts,
        ask: profile.ask.map(|value| Said { value, line: said.line }),
        hidden: profile.hidden.iter().map(place).collect(),
        readonly: profile.readonly.iter().map(place).collect(),
        limits: profile.limits.iter().map(|(limit, value)| (*limit, Said { value: *value, line: said.line })).collect(),
        allowed_secrets: profile.secrets.as_ref().map(|value| Said { value: value.clone(), line: said.line }),
        ..Settings::default()
    };
    Layer { file: layer.file.clone(), ..Layer::new(layer.kind, settings) }
}

fn narrower(one: SandboxMode, other: SandboxMode) -> SandboxMode {
    let rank = |mode: &SandboxMode| match mode {
        SandboxMode::ReadOnly => 0,
        SandboxMode::WorkspaceWrite => 1,
        SandboxMode::DangerFullAccess => 2,
    };
    [one, other].into_iter().min_by_key(rank).unwrap_or(SandboxMode::ReadOnly)
}
