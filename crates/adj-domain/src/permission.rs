//! Words for what is allowed: verdicts with their reasons, approval policies, grants that people gave.
//!
//! Must not know: where rules are written or how they are found.

use crate::{
    Timestamp,
    id::{EventId, SessionId},
};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// What policy says. The later ones are stricter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Allow,
    /// A person decides.
    Ask,
    Deny,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "allow",
            Self::Ask => "ask",
            Self::Deny => "deny",
        })
    }
}

/// A verdict with the one rule that decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ruling {
    pub verdict: Verdict,
    /// `built-in`, `administrator`, `organisation`, `repository`, `agent`, `call`, or `grant` for what a person allowed before.
    pub layer: String,
    pub rule: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// What the rule's author gives as the reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub justification: Option<String>,
}

impl Ruling {
    pub fn new(verdict: Verdict, layer: impl Into<String>, rule: impl Into<String>) -> Self {
        Self { verdict, layer: layer.into(), rule: rule.into(), file: None, line: None, justification: None }
    }
}

/// When a person is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ApprovalPolicy {
    /// Before everything that is not known to be harmless.
    Untrusted,
    /// Where a rule says so, and for what the sandbox does not let through.
    OnRequest,
    /// Never: what would need an answer is denied.
    Never,
}

/// What an agent's definition says of one of its tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolPermission {
    /// Not asked about, unless a rule forbids the call or asks.
    AlwaysAllow,
    AlwaysAsk,
    /// As the approval policy says.
    #[default]
    Auto,
}

macro_rules! words {
    ($name:ident, $what:literal, $($variant:ident => $word:literal),+) => {
        impl $name {
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
        impl FromStr for $name {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                let all = [$(Self::$variant),+];
                let found = all.into_iter().find(|known| known.as_str() == text);
                found.ok_or_else(|| format!("\"{text}\" is not {} ({})", $what, [$($word),+].join(", ")))
            }
        }
    };
}

words!(ApprovalPolicy, "an approval policy", Untrusted => "untrusted", OnRequest => "on-request", Never => "never");
words!(ToolPermission, "a tool permission", AlwaysAllow => "always_allow", AlwaysAsk => "always_ask", Auto => "auto");

/// What a remembered permission is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum GrantSubject {
    /// Commands that begin with these words.
    Command { prefix: Vec<String> },
    /// Every call of a tool.
    Tool { name: String },
    /// A host, in the spelling of [`host_name`](crate::host_name).
    Host { host: String, port: u16 },
}

impl fmt::Display for GrantSubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command { prefix } => write!(f, "commands that begin with `{}`", prefix.join(" ")),
            Self::Tool { name } => write!(f, "the tool {name}"),
            Self::Host { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

/// How far a remembered permission reaches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum GrantScope {
    Session {
        id: SessionId,
    },
    /// Every session that works on this folder or repository.
    Repository {
        path: String,
    },
}

/// A permission that a person gave and that is remembered until it ends or is taken back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The answer that gave it.
    pub id: EventId,
    pub subject: GrantSubject,
    pub scope: GrantScope,
    pub until: Timestamp,
    /// Who gave it: an account of the machine, or a face.
    pub by: String,
}
