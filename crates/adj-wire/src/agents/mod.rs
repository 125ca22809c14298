//! Agents: what is asked for, what is kept, what is answered.
//!
//! Start at [`create`] and [`AgentSpec`].

mod model;
mod patch;
mod roster;
mod spec;
mod tools;

pub use model::{Effort, Model};
pub use patch::{AgentPatch, AgentUpdate, AgentsQuery, create, update};
pub use roster::{Multiagent, RosterAgent, Subagents};
pub use spec::{AgentSpec, McpServer};
pub use tools::{BUILT_IN, NamedConfig, PermissionPolicy, Tool, ToolConfig, config_of, custom, enabled_built_ins};

pub(crate) use patch::{read_overrides, read_tools_patch};
