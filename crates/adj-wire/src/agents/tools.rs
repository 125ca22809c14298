//! What an agent may use: the built-in tools, those of MCP servers, and those that its client runs.

use crate::{
    abilities::Abilities,
    read::{Invalid, Node, Object},
};
use adj_domain::{ToolPermission, ToolSpec};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeSet;

/// The tools of `agent_toolset_20260401`.
pub const BUILT_IN: [&str; 8] = ["bash", "edit", "read", "write", "glob", "grep", WEB_FETCH, WEB_SEARCH];
const WEB_FETCH: &str = "web_fetch";
const WEB_SEARCH: &str = "web_search";

const MOST_ENTRIES: usize = 128;
const MOST_TOOLS: usize = 256;
const LONGEST_NAME: usize = 128;

/// An entry of an agent's `tools`, resolved: what was left out is written down.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum Tool {
    #[serde(rename = "agent_toolset_20260401")]
    BuiltIn { default_config: ToolConfig, configs: Vec<NamedConfig> },
    #[serde(rename = "mcp_toolset")]
    Mcp { mcp_server_name: String, default_config: ToolConfig, configs: Vec<NamedConfig> },
    /// The client runs it.
    #[serde(rename = "custom")]
    Custom(ToolSpec),
}

/// What holds for the tools of a set that are not named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolConfig {
    pub enabled: bool,
    pub permission_policy: PermissionPolicy,
}

/// What holds for one tool of a set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedConfig {
    pub name: String,
    #[serde(flatten)]
    pub config: ToolConfig,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PermissionPolicy {
    #[serde(rename = "type")]
    pub permission: ToolPermission,
}

impl From<ToolPermission> for PermissionPolicy {
    fn from(permission: ToolPermission) -> Self {
        Self { permission }
    }
}

impl Tool {
    pub(super) fn server(&self) -> Option<&str> {
        match self {
            Self::Mcp { mcp_server_name, .. } => Some(mcp_server_name),
            Self::BuiltIn { .. } | Self::Custom(_) => None,
        }
    }

    /// As it is kept; a built-in tool's config also bears its name as its type.
    pub(super) fn answer(&self) -> Value {
        let mut answer = serde_json::to_value(self).expect("a tool is an object with string keys");
        if let (Self::BuiltIn { .. }, Some(Value::Array(configs))) = (self, answer.get_mut("configs")) {
            for config in configs {
                config["type"] = config["name"].clone();
            }
        }
        answer
    }
}

/// The built-in tools that are enabled, and what is said of each.
pub fn enabled_built_ins(tools: &[Tool]) -> Vec<(&'static str, ToolPermission)> {
    let sets = tools.iter().filter_map(|tool| match tool {
        Tool::BuiltIn { default_config, configs } => Some((default_config, configs)),
        Tool::Mcp { .. } | Tool::Custom(_) => None,
    });
    let of_set = |(default, configs): (&ToolConfig, &Vec<NamedConfig>)| {
        let configs: Vec<(&'static str, ToolConfig)> =
            BUILT_IN.iter().map(|name| (*name, config_of(name, *default, configs))).collect();
        configs.into_iter().filter(|(_, config)| config.enabled)
    };
    sets.flat_map(of_set).map(|(name, config)| (name, config.permission_policy.permission)).collect()
}

/// The tools that the client runs.
pub fn custom(tools: &[Tool]) -> impl Iterator<Item = &ToolSpec> {
    tools.iter().filter_map(|tool| match tool {
        Tool::Custom(spec) => Some(spec),
        Tool::BuiltIn { .. } | Tool::Mcp { .. } => None,
    })
}

/// What is said of one tool of a set: by its name, or by what holds for all.
pub fn config_of(name: &str, default: ToolConfig, configs: &[NamedConfig]) -> ToolConfig {
    configs.iter().find(|config| config.name == name).map_or(default, |config| config.config)
}

#[derive(Clone, Copy)]
enum Kind {
    BuiltIn,
    Mcp,
    Custom,
}

pub(super) fn read_tools(node: &Node<'_>, can: Abilities) -> Result<Vec<Tool>, Invalid> {
    let entries = node.list_up_to(MOST_ENTRIES)?;
    let mut names = BTreeSet::new();
    let mut tools = Vec::new();
    for entry in &entries {
        let tool = read_tool(entry, can)?;
        let taken = match &tool {
            Tool::BuiltIn { .. } => BUILT_IN.iter().find(|name| !names.insert((*name).to_string())).copied(),
            Tool::Mcp { mcp_server_name, .. } => {
                // A server's name cannot be a tool's, which holds no blank.
                (!names.insert(format!("server {mcp_server_name}"))).then_some(mcp_server_name.as_str())
            }
            Tool::Custom(spec) => (!names.insert(spec.name.clone())).then_some(spec.name.as_str()),
        };
        if let Some(taken) = taken {
            return Err(entry.wrong(format!("{taken:?} is there already")));
        }
        tools.push(tool);
    }
    let count: usize = tools.iter().map(least_count).sum();
    if count > MOST_TOOLS {
        return Err(node.wrong(format!("are {count} tools together, and may be {MOST_TOOLS} at most")));
    }
    Ok(tools)
}

fn least_count(tool: &Tool) -> usize {
    match tool {
        Tool::BuiltIn { .. } => BUILT_IN.len(),
        Tool::Mcp { configs, .. } => configs.iter().filter(|config| config.config.enabled).count(),
        Tool::Custom(_) => 1,
    }
}

fn read_tool(entry: &Node<'_>, can: Abilities) -> Result<Tool, Invalid> {
    let fields = entry.object()?;
    let kinds = [("agent_toolset_20260401", Kind::BuiltIn), ("mcp_toolset", Kind::Mcp), ("custom", Kind::Custom)];
    match fields.kind(&kinds)? {
        Kind::BuiltIn => {
            let default_config = read_default(&fields, ToolPermission::AlwaysAllow)?;
            let mut configs = read_configs(&fields, default_config)?;
            for config in &configs {
                let (path, config) = config;
                if !BUILT_IN.contains(&config.name.as_str()) {
                    let why = format!("must be one of {}", BUILT_IN.join(", "));
                    return Err(Invalid::new(format!("{path}.name"), why));
                }
                if is_web(&config.name) && config.config.enabled && !can.web_tools {
                    return Err(Invalid::new(path, format!("{} is not supported by this server", config.name)));
                }
            }
            if !can.web_tools {
                // The agent does not have them, and its answer says so.
                for name in [WEB_FETCH, WEB_SEARCH] {
                    if !configs.iter().any(|(_, config)| config.name == name) {
                        let config = ToolConfig { enabled: false, ..default_config };
                        configs.push((String::new(), NamedConfig { name: name.to_owned(), config }));
                    }
                }
            }
            let configs = configs.into_iter().map(|(_, config)| config).collect();
            Ok(Tool::BuiltIn { default_config, configs })
        }
        Kind::Mcp if !can.mcp => Err(entry.unsupported("MCP servers are")),
        Kind::Mcp => {
            let mcp_server_name = fields.need("mcp_server_name")?.text_of(1..=255)?.to_owned();
            let default_config = read_default(&fields, ToolPermission::AlwaysAsk)?;
            let configs = read_configs(&fields, default_config)?.into_iter().map(|(_, config)| config).collect();
            Ok(Tool::Mcp { mcp_server_name, default_config, configs })
        }
        Kind::Custom => read_custom(&fields),
    }
}

fn is_web(name: &str) -> bool {
    [WEB_FETCH, WEB_SEARCH].contains(&name)
}

fn read_default(set: &Object<'_>, permission: ToolPermission) -> Result<ToolConfig, Invalid> {
    let usual = ToolConfig { enabled: true, permission_policy: permission.into() };
    set.get("default_config").map_or(Ok(usual), |node| read_config(&node.object()?, usual))
}

fn read_config(fields: &Object<'_>, usual: ToolConfig) -> Result<ToolConfig, Invalid> {
    let words = [ToolPermission::AlwaysAllow, ToolPermission::AlwaysAsk, ToolPermission::Auto];
    let words = words.map(|permission| (permission.as_str(), permission));
    let policy = |node: Node<'_>| node.object()?.kind(&words).map(PermissionPolicy::from);
    Ok(ToolConfig {
        enabled: fields.get("enabled").map_or(Ok(usual.enabled), |node| node.boolean())?,
        permission_policy: fields.get("permission_policy").map_or(Ok(usual.permission_policy), policy)?,
    })
}

fn read_configs(set: &Object<'_>, usual: ToolConfig) -> Result<Vec<(String, NamedConfig)>, Invalid> {
    let Some(node) = set.get("configs") else { return Ok(Vec::new()) };
    let mut configs: Vec<(String, NamedConfig)> = Vec::new();
    for entry in node.list_up_to(MOST_TOOLS)? {
        let fields = entry.object()?;
        let name = fields.need("name")?;
        let name_text = name.text_of(1..=LONGEST_NAME)?;
        if configs.iter().any(|(_, known)| known.name == name_text) {
            return Err(name.wrong(format!("{name_text:?} is there already")));
        }
        for extra in ["allowed_domains", "blocked_domains", "user_location", "max_content_tokens", "url_sources"] {
            fields.refuse(extra, "bounds of web tools are")?;
        }
        let config = read_config(&fields, usual)?;
        configs.push((entry.path, NamedConfig { name: name_text.to_owned(), config }));
    }
    Ok(configs)
}

fn read_custom(fields: &Object<'_>) -> Result<Tool, Invalid> {
    let name = fields.need("name")?;
    let name_text = name.text_of(1..=LONGEST_NAME)?;
    if !name_text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-') {
        return Err(name.wrong("may hold only A-Z a-z 0-9 _ -"));
    }
    let description = fields.need("description")?.text()?;
    let schema = fields.need("input_schema")?;
    let of_schema = schema.object()?;
    of_schema.kind(&[("object", ())])?;
    if let Some(properties) = of_schema.get("properties") {
        properties.object()?;
    }
    if let Some(required) = of_schema.get("required") {
        required.list()?.iter().try_for_each(|entry| entry.text().map(drop))?;
    }
    let input_schema: Value = schema.value.clone();
    Ok(Tool::Custom(ToolSpec { name: name_text.to_owned(), description: description.to_owned(), input_schema }))
}
