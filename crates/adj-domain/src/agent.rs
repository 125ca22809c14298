//! Who works, with what, and where: the definition a session starts from.

use crate::{
    budget::Budget,
    id::{RunId, StepId},
    model::{ModelRef, ToolSpec},
    network::HostRule,
    permission::{ApprovalPolicy, ToolPermission},
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt, str::FromStr};

/// How far an agent's commands may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SandboxMode {
    ReadOnly,
    WorkspaceWrite,
    DangerFullAccess,
}

impl SandboxMode {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ReadOnly => "read-only",
            Self::WorkspaceWrite => "workspace-write",
            Self::DangerFullAccess => "danger-full-access",
        }
    }
}

impl fmt::Display for SandboxMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for SandboxMode {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        [Self::ReadOnly, Self::WorkspaceWrite, Self::DangerFullAccess]
            .into_iter()
            .find(|mode| mode.as_str() == text)
            .ok_or_else(|| format!("\"{text}\" is not a sandbox mode (read-only, workspace-write, danger-full-access)"))
    }
}

/// One versioned part of a system prompt. The prompt is the parts in order, and never changes during a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromptPart {
    /// `agent`, `environment`, `instructions:AGENTS.md`, `skill:NAME`.
    pub name: String,
    pub version: String,
    pub text: String,
}

/// What an agent is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AgentDefinition {
    pub name: String,
    /// `planner`, `researcher`, `builder`, `specialist`, `agent`.
    pub role: String,
    pub model: ModelRef,
    #[serde(default)]
    pub effort: Option<String>,
    pub tools: Vec<ToolSpec>,
    /// Tools that whoever uses the session runs: a call of one waits for its result.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub custom_tools: Vec<ToolSpec>,
    pub max_output_tokens: u32,
    /// Model requests in one turn before it is ended.
    pub max_steps: u32,
    pub context_window_tokens: u64,
    /// What is said of tools by name; the others are `auto`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub permissions: BTreeMap<String, ToolPermission>,
}

/// Where a session works.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum WorkspaceSpec {
    /// The user's own folder.
    Direct { path: String },
    /// A private tree that starts at a commit of a repository.
    Private { repository: String, commit: String, name: String },
}

/// Which hosts a session asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkRequest {
    #[serde(default)]
    pub hosts: Vec<HostRule>,
    /// Whether a person may be asked about other hosts while a command waits.
    #[serde(default)]
    pub ask: bool,
}

/// What a session asks for beside its mode. Policy narrows it when the sandbox is opened.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Confinement {
    /// The profile that the rest came from, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// `None`: the network is off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkRequest>,
    /// More of the host's files to show, read-only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub read: Vec<String>,
    /// More of the host's files to show and let change.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub write: Vec<String>,
    /// Paths and globs that cannot be seen into.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hidden: Vec<String>,
    /// Paths and globs that cannot be changed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub readonly: Vec<String>,
    /// Limits by name, as text: `memory` → `2GiB`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<String, String>,
    /// Names of secrets whose placeholders are given in; `None`: all whose hosts are permitted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secrets: Option<Vec<String>>,
    /// More variables of the environment.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
}

/// Everything a session starts from; never changes afterwards.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SessionSpec {
    pub agent: AgentDefinition,
    pub system: Vec<PromptPart>,
    pub workspace: WorkspaceSpec,
    pub sandbox: SandboxMode,
    #[serde(default, skip_serializing_if = "is_plain")]
    pub confinement: Confinement,
    /// When people are asked; sessions of an older build never asked.
    #[serde(default = "never")]
    pub approval: ApprovalPolicy,
    /// What it may spend.
    #[serde(default, skip_serializing_if = "Budget::is_empty")]
    pub budget: Budget,
    /// The run and step that this session is part of.
    #[serde(default)]
    pub run: Option<(RunId, StepId)>,
    #[serde(default)]
    pub title: Option<String>,
    /// The program and its arguments, where the agent is not our own loop but another program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<Vec<String>>,
}

pub(crate) fn is_plain(confinement: &Confinement) -> bool {
    *confinement == Confinement::default()
}

pub(crate) fn never() -> ApprovalPolicy {
    ApprovalPolicy::Never
}

impl SessionSpec {
    /// Returns the whole system prompt.
    pub fn system_prompt(&self) -> String {
        self.system.iter().map(|part| part.text.trim_end()).collect::<Vec<_>>().join("\n\n")
    }
}
