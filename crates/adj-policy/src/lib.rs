//! What is allowed: layers that only narrow, rules for command lines, and the reason for every decision.
//!
//! Must not know: how anything is confined, asked for, or carried out.
//! Start at [`Policy`]: [`Policy::load`] brings the layers together, [`Policy::tool`] and [`Policy::host`] decide.

mod command;
mod rules;

mod document;
mod error;
mod limits;
mod packages;
mod settings;

mod files;
mod layer;
mod rule_file;
mod schema;

mod context;
mod policy;

mod address;
mod hosts;
mod judge;
mod profile;

mod explain;

pub use command::{MAX_COMMANDS, MAX_SCRIPT_BYTES, Parsed, SimpleCommand, Word, is_known_safe, parse, parse_argv};
pub use context::Context;
pub use error::PolicyError;
pub use explain::{Explanation, KeyExplanation, LayerExplanation, RuleFileExplanation, Saying};
pub use files::{LARGEST_FILE, MOST_RULE_FILES};
pub use hosts::HostRuling;
pub use layer::{Layer, LayerKind};
pub use limits::{Limit, LimitError, LimitValue};
pub use packages::{PACKAGES, group};
pub use policy::{EffectiveBudget, EffectiveLimit, PathRule, Policy, Sources};
pub use profile::{BUILT_IN_PROFILES, Profile, ProfileError};
pub use rule_file::RuleFile;
pub use rules::{
    CheckOutput, Decision, MAX_RULES, MAX_RULES_BYTES, MatchedRule, NetworkRule, Rule, RuleError, RuleMatch, RuleSet,
};
pub use settings::{DeniedHost, InlineRule, ProfileSettings, Said, Settings, ToolSetting};
