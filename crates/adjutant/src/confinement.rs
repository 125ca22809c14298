//! From flags and policy to what a session or command asks for.
//!
//! Must not know: how any of it is confined.

use crate::{
    cli::{ApprovalArgs, ConfinementArgs},
    failure::{Code, Failure, Result},
    wiring,
};
use adj_domain::{ApprovalPolicy, Confinement, NetworkRequest, Ruling, SandboxMode, Verdict};
use adj_policy::{Policy, Profile};
use std::{io::IsTerminal, path::Path};

/// What is asked for, and the policy under which it is.
#[derive(Debug)]
pub struct Asked {
    /// The profile with the flags on top.
    pub profile: Profile,
    /// Whether it is a profile that somebody named or chose, rather than the built-in default.
    pub is_named: bool,
    /// Whether the secrets are a choice, rather than whatever fits.
    pub chooses_secrets: bool,
    /// All layers, and what the profile narrows.
    pub policy: Policy,
}

/// The policy for work on a folder: the machine's layers and those of the folders up to the top of its repository.
pub fn policy_at(folder: &Path) -> Result<Policy> {
    wiring::policy()?.with_folder(folder).map_err(unreadable)
}

/// The words for a policy that cannot be used.
pub fn unreadable(error: adj_policy::PolicyError) -> Failure {
    Failure { code: Code::Usage, error: error.into(), hint: Some(NOTHING_STARTS.to_owned()) }
}

const NOTHING_STARTS: &str =
    "nothing starts under a policy that cannot be read; `adjutant policy check` looks at every file";

impl Asked {
    /// Resolves the profile and puts the flags on top.
    pub fn of(policy: &Policy, args: &ConfinementArgs) -> Result<Self> {
        let is_named = args.profile.is_some() || policy.default_profile() != "workspace-write";
        let (mut profile, policy) = policy.profile(args.profile.as_deref()).map_err(|error| {
            let hint = "`adjutant policy show` lists the profiles and who permits them";
            Failure { code: Code::Usage, error: error.into(), hint: Some(hint.to_owned()) }
        })?;
        if profile.mode == SandboxMode::DangerFullAccess && args.profile.is_none() && args.sandbox.is_none() {
            return Err(Failure::usage(format!("the default profile {} is without a sandbox", profile.name))
                .hint("say so: --sandbox danger-full-access; or choose another with --profile"));
        }
        profile.mode = args.sandbox.unwrap_or(profile.mode);
        let hosts = args.allow_host.iter().flat_map(|entry| entry.0.iter().cloned());
        profile.network.hosts.extend(hosts);
        profile.network.ask |= args.ask_hosts;
        profile.limits.extend(args.limit.iter().map(|entry| (entry.limit, entry.value)));
        if !args.secret.is_empty() {
            profile.secrets = args.secret.iter().map(ToString::to_string).collect();
        }
        let chooses_secrets = !profile.secrets.is_empty();
        let asked = Self { profile, is_named, chooses_secrets, policy };
        for name in &asked.profile.secrets {
            refused(asked.policy.secret(name))?;
        }
        refused(asked.policy.mode(asked.profile.mode))?;
        Ok(asked)
    }

    pub fn has_network(&self) -> bool {
        !self.profile.network.hosts.is_empty() || self.profile.network.ask
    }

    /// Refuses secrets that are asked for by name and are not there.
    pub fn check_secrets(&self, state: &Path) -> Result<()> {
        if self.profile.secrets.is_empty() {
            return Ok(());
        }
        let vault = wiring::vault(state)?;
        match self.profile.secrets.iter().find(|name| vault.entry(name).is_none()) {
            Some(name) => Err(Failure::usage(format!("there is no secret {name}")).hint(format!(
                "`adjutant secret list` shows what there is; `adjutant secret set {name} --host HOST` stores one"
            ))),
            None => Ok(()),
        }
    }

    /// The same for a session. Without any wish it is empty, as sessions always were.
    pub fn confinement(&self) -> Confinement {
        let Profile { name, network, read, write, hidden, readonly, limits, secrets, env, .. } = &self.profile;
        Confinement {
            profile: self.is_named.then(|| name.clone()),
            network: self.has_network().then(|| NetworkRequest { hosts: network.hosts.clone(), ask: network.ask }),
            read: read.clone(),
            write: write.clone(),
            hidden: hidden.clone(),
            readonly: readonly.clone(),
            limits: limits.iter().map(|(limit, value)| (limit.to_string(), value.to_string())).collect(),
            secrets: self.chooses_secrets.then(|| secrets.clone()),
            env: env.clone(),
        }
    }
}

/// When people are asked: as the flag says, else as the place suggests. What policy does not permit at all is refused.
pub fn approval(policy: &Policy, args: &ApprovalArgs, terminal: bool) -> Result<ApprovalPolicy> {
    let default = if terminal { ApprovalPolicy::OnRequest } else { ApprovalPolicy::Never };
    let asked = args.approval.unwrap_or(default);
    let (holds, ruling) = policy.approval(asked);
    if ruling.verdict == Verdict::Deny {
        return Err(forbidden(&ruling).hint("name one that policy permits with --approval"));
    }
    Ok(holds)
}

/// Whether somebody sits there who can be asked.
pub fn has_terminal() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// Where a rule stands: its layer, file and line.
pub fn place(ruling: &Ruling) -> String {
    match (&ruling.file, ruling.line) {
        (Some(file), Some(line)) => format!("{}, {file}:{line}", ruling.layer),
        (Some(file), None) => format!("{}, {file}", ruling.layer),
        _ => ruling.layer.clone(),
    }
}

fn refused(ruling: Ruling) -> Result<()> {
    if ruling.verdict == Verdict::Deny { Err(forbidden(&ruling)) } else { Ok(()) }
}

fn forbidden(ruling: &Ruling) -> Failure {
    Failure::usage(format!("policy forbids it: {} ({})", ruling.rule, place(ruling)))
        .hint("`adjutant policy show` says what holds here and who says so")
}
