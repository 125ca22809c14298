//! What this server can do of what the contract names. The rest is refused, never accepted and forgotten.

/// Each is off until somebody carries it out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Abilities {
    /// The tools `web_fetch` and `web_search`.
    pub web_tools: bool,
    /// MCP servers of an agent.
    pub mcp: bool,
    /// Rosters: agents that other agents may start.
    pub multiagent: bool,
    /// Packages that are installed into an environment.
    pub packages: bool,
    /// Files as resources of a session, and in messages.
    pub files: bool,
    /// Repositories as resources of a session.
    pub repositories: bool,
    /// `system.message`.
    pub system_messages: bool,
}

impl Abilities {
    pub const ALL: Self = Self {
        web_tools: true,
        mcp: true,
        multiagent: true,
        packages: true,
        files: true,
        repositories: true,
        system_messages: true,
    };
}
