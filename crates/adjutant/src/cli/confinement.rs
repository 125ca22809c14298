//! The flags that say how far commands may reach, the same for every command that runs some.

use adj_domain::{ApprovalPolicy, HostRule, SandboxMode};
use adj_policy::{Limit, LimitValue, group};
use adj_vault::SecretName;
use clap::Args;
use std::str::FromStr;

/// What a call asks for; policy narrows it.
#[derive(Debug, Clone, Default, Args)]
pub struct ConfinementArgs {
    /// A profile to start from: read-only, workspace-write, packages, danger-full-access, or one that a policy file
    /// defines (default: the policy's, which is workspace-write unless a file says otherwise)
    #[arg(long, value_name = "PROFILE")]
    pub profile: Option<String>,

    /// How far commands may reach: read-only, workspace-write, or danger-full-access, which is without a sandbox
    /// (default: the profile's)
    #[arg(long, short = 's', value_name = "MODE")]
    pub sandbox: Option<SandboxMode>,

    /// A host that may be reached: example.org, example.org:8443, *.example.org, or @packages for the package registries
    #[arg(long, value_name = "HOST[:PORT]")]
    pub allow_host: Vec<HostEntry>,

    /// Ask about hosts that are not listed, while the command waits
    #[arg(long)]
    pub ask_hosts: bool,

    /// A secret of the vault to give in as a placeholder (default: the profile's, or each whose hosts may be reached)
    #[arg(long, value_name = "NAME")]
    pub secret: Vec<SecretName>,

    /// A limit: wall, cpu, memory, processes, open-files, file-size, disk, output or tmp, as in memory=2GiB or wall=10m
    #[arg(long, value_name = "NAME=VALUE")]
    pub limit: Vec<LimitEntry>,
}

/// The names of these arguments, for commands that go on with what was said before.
pub const CONFINEMENT: [&str; 6] = ["profile", "sandbox", "allow_host", "ask_hosts", "secret", "limit"];

/// When people are asked.
#[derive(Debug, Clone, Default, Args)]
pub struct ApprovalArgs {
    /// When you are asked: untrusted (before all that is not known to be harmless), on-request (where a rule says so), or
    /// never, which denies what would need an answer (default: on-request on a terminal, else never)
    #[arg(long, value_name = "POLICY")]
    pub approval: Option<ApprovalPolicy>,
}

/// One `--allow-host`: a rule, or a group of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostEntry(pub Vec<HostRule>);

impl FromStr for HostEntry {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with('@') {
            let hosts =
                group(text).ok_or_else(|| format!("there is no group {text}; the one there is is @packages"))?;
            return Ok(Self(hosts));
        }
        text.parse().map(|rule| Self(vec![rule])).map_err(|error: adj_domain::HostError| error.to_string())
    }
}

/// One `--limit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitEntry {
    pub limit: Limit,
    pub value: LimitValue,
}

impl FromStr for LimitEntry {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once('=').ok_or("a limit is written NAME=VALUE, as in memory=2GiB")?;
        let limit: Limit = name.parse().map_err(|error: adj_policy::LimitError| error.to_string())?;
        let value = limit.value(value).map_err(|error| error.to_string())?;
        Ok(Self { limit, value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_limits_are_read_or_explained() {
        let hosts = |text: &str| text.parse::<HostEntry>().map(|entry| entry.0.len());
        assert_eq!(hosts("example.org:8443"), Ok(1));
        assert!(hosts("@packages").is_ok_and(|count| count > 10));
        for (text, words) in [("@nothing", "@packages"), ("127.0.0.1", "address"), ("example.org:0", "port")] {
            let error = hosts(text).expect_err("it is no host");
            assert!(error.contains(words), "{text}: {error}");
        }
        let limit = |text: &str| text.parse::<LimitEntry>().map(|entry| format!("{}={}", entry.limit, entry.value));
        assert_eq!(limit("memory=2048MiB"), Ok("memory=2GiB".to_owned()));
        for (text, words) in
            [("memory", "NAME=VALUE"), ("memroy=1GiB", "did you mean"), ("wall=5", "90s"), ("cpu=0", "zero")]
        {
            let error = limit(text).expect_err("it is no limit");
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
