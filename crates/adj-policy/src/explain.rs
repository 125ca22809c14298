//! The policy in words: every key that somebody speaks of, what holds, and who said what in which line.

use crate::{
    Policy,
    document::shown,
    layer::{Layer, LayerKind},
    packages::grouped,
    policy::written,
    settings::Said,
};
use adj_domain::{ApprovalPolicy, HostRule, Ruling, SandboxMode, Span, Verdict};
use serde::Serialize;
use std::{collections::BTreeMap, fmt::Display};

/// Everything that a policy says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    pub hash: String,
    pub layers: Vec<LayerExplanation>,
    pub keys: Vec<KeyExplanation>,
    pub profiles: Vec<(String, LayerKind)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LayerExplanation {
    pub layer: LayerKind,
    pub file: Option<String>,
    pub rule_files: Vec<RuleFileExplanation>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RuleFileExplanation {
    pub file: String,
    pub rules: usize,
    /// Rules that allow, where those of this layer have no effect.
    pub without_effect: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeyExplanation {
    /// As in a policy file, `limits.wall` for instance.
    pub key: String,
    /// What holds, all layers taken together.
    pub effective: String,
    pub said: Vec<Saying>,
}

/// What one layer says of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Saying {
    pub layer: LayerKind,
    pub file: Option<String>,
    pub line: Option<u32>,
    pub value: String,
}

impl Policy {
    pub fn explain(&self) -> Explanation {
        let layers = self.layers().iter().map(|layer| LayerExplanation {
            layer: layer.kind,
            file: layer.file.as_ref().map(|file| file.display().to_string()),
            rule_files: layer
                .rule_files
                .iter()
                .map(|file| RuleFileExplanation {
                    file: file.path.display().to_string(),
                    rules: file.rules().len(),
                    without_effect: file.allows() && !layer.kind.is_trusted(),
                })
                .collect(),
        });
        let known: Vec<(String, LayerKind)> = self.profiles();
        Explanation { hash: self.hash(), layers: layers.collect(), keys: self.keys(), profiles: known }
    }

    fn keys(&self) -> Vec<KeyExplanation> {
        let mut keys = Vec::new();
        let mut key = |key: &str, effective: String, said: Vec<Saying>| {
            if !said.is_empty() {
                keys.push(KeyExplanation { key: key.to_owned(), effective, said });
            }
        };
        let modes = [SandboxMode::ReadOnly, SandboxMode::WorkspaceWrite, SandboxMode::DangerFullAccess];
        let modes = modes.iter().filter(|mode| self.mode(**mode).verdict == Verdict::Allow);
        key(
            "allowed_sandbox_modes",
            list(modes),
            self.said(|layer| one(layer, layer.settings.allowed_sandbox_modes.as_ref(), |items| list(items))),
        );
        let policies = [ApprovalPolicy::Untrusted, ApprovalPolicy::OnRequest, ApprovalPolicy::Never];
        let policies = policies.iter().filter(|asked| {
            self.refusal("", **asked, |settings| settings.allowed_approval_policies.as_ref()).is_none()
        });
        key(
            "allowed_approval_policies",
            list(policies),
            self.said(|layer| one(layer, layer.settings.allowed_approval_policies.as_ref(), |items| list(items))),
        );
        let profiles = self.profiles();
        let profiles = profiles
            .iter()
            .map(|(name, _)| name)
            .filter(|name| self.refusal("", (*name).clone(), |settings| settings.allowed_profiles.as_ref()).is_none());
        key(
            "allowed_profiles",
            list(profiles),
            self.said(|layer| one(layer, layer.settings.allowed_profiles.as_ref(), |items| list(items))),
        );
        key(
            "default_profile",
            self.default_profile().to_owned(),
            self.said(|layer| one(layer, layer.settings.default_profile.as_ref(), String::clone)),
        );
        key(
            "expire_approvals_after",
            written(self.expire_approvals_after()),
            self.said(|layer| one(layer, layer.settings.expire_approvals_after.as_ref(), |time| written(*time))),
        );
        key(
            "longest_grant",
            written(self.longest_grant()),
            self.said(|layer| one(layer, layer.settings.longest_grant.as_ref(), |time| written(*time))),
        );
        let mut tools: BTreeMap<&str, String> = BTreeMap::new();
        for name in self.layers().iter().flat_map(|layer| layer.settings.tools.keys()) {
            tools
                .entry(name)
                .or_insert_with(|| self.tool_setting(name).map_or("auto", |setting| setting.as_str()).to_owned());
        }
        for (name, effective) in tools {
            let said = self.said(|layer| one(layer, layer.settings.tools.get(name), ToString::to_string));
            key(&format!("tools.{}", shown(name)), effective, said);
        }
        let hosts = self.said(|layer| {
            let hosts = layer.settings.hosts.as_ref()?;
            let rules: Vec<HostRule> = hosts.value.iter().map(|host| host.value.clone()).collect();
            Some(vec![saying(layer, hosts.line, bounded(grouped(&rules)))])
        });
        let effective = if hosts.len() == 1 { hosts[0].value.clone() } else { "what every list names".to_owned() };
        key("network.hosts", effective, hosts);
        let denied = self.said(|layer| each(layer, &layer.settings.denied_hosts));
        key("network.denied_hosts", values(&denied), denied);
        let ask = self.said(|layer| one(layer, layer.settings.ask.as_ref(), bool::to_string));
        // Who lists hosts and says nothing of questions wants none.
        let may_ask = self.layers().iter().all(|layer| match (&layer.settings.ask, &layer.settings.hosts) {
            (Some(ask), _) => ask.value,
            (None, hosts) => hosts.is_none(),
        });
        key("network.ask", may_ask.to_string(), ask);
        let hidden = self.said(|layer| each(layer, &layer.settings.hidden));
        key("filesystem.hidden", values(&hidden), hidden);
        let readonly = self.said(|layer| each(layer, &layer.settings.readonly));
        key("filesystem.readonly", values(&readonly), readonly);
        for least in self.limits() {
            let said = self.said(|layer| one(layer, layer.settings.limits.get(&least.limit), ToString::to_string));
            key(&format!("limits.{}", least.limit), least.value.to_string(), said);
        }
        for span in Span::ALL {
            let budgets = self.budgets();
            let least: Vec<_> = budgets.iter().filter(|least| least.span == span).map(|least| &least.budget).collect();
            if !least.is_empty() {
                let said =
                    self.said(|layer| one(layer, layer.settings.budget.get(&span), |budgets| list(budgets.iter())));
                key(&format!("budget.{span}"), list(least), said);
            }
        }
        let lists: Vec<_> = self.layers().iter().filter_map(|layer| layer.settings.allowed_secrets.as_ref()).collect();
        if let Some((first, rest)) = lists.split_first() {
            let in_all = first.value.iter().filter(|name| rest.iter().all(|list| list.value.contains(*name)));
            key(
                "secrets.allowed",
                list(in_all),
                self.said(|layer| one(layer, layer.settings.allowed_secrets.as_ref(), |items| list(items))),
            );
        }
        let rules = self.said(|layer| {
            let rules = layer.settings.rules.iter();
            Some(
                rules
                    .map(|rule| {
                        let effect = if rule.value.decision == Verdict::Allow && !layer.kind.is_trusted() {
                            " (no effect)"
                        } else {
                            ""
                        };
                        saying(layer, rule.line, format!("{}{effect}", crate::rule_file::described(&rule.value)))
                    })
                    .collect(),
            )
        });
        key("rules", "the strictest that matches".to_owned(), rules);
        keys
    }

    fn said(&self, of: impl Fn(&Layer) -> Option<Vec<Saying>>) -> Vec<Saying> {
        self.layers().iter().filter_map(of).flatten().collect()
    }
}

fn saying(layer: &Layer, line: Option<u32>, value: String) -> Saying {
    let Ruling { file, line, .. } = layer.ruling(Verdict::Allow, line, "");
    Saying { layer: layer.kind, file, line, value: shown_long(&value) }
}

fn one<T>(layer: &Layer, said: Option<&Said<T>>, text: impl FnOnce(&T) -> String) -> Option<Vec<Saying>> {
    said.map(|said| vec![saying(layer, said.line, text(&said.value))])
}

fn each<T: Display>(layer: &Layer, said: &[Said<T>]) -> Option<Vec<Saying>> {
    Some(said.iter().map(|said| saying(layer, said.line, said.value.to_string())).collect())
}

fn list<'t, T: Display + 't>(items: impl IntoIterator<Item = &'t T>) -> String {
    bounded(items.into_iter().map(T::to_string).collect())
}

fn values(said: &[Saying]) -> String {
    bounded(said.iter().map(|said| said.value.clone()).collect())
}

fn bounded(mut texts: Vec<String>) -> String {
    const MOST: usize = 100;
    let left_out = texts.len().saturating_sub(MOST);
    texts.truncate(MOST);
    if left_out > 0 {
        texts.push(format!("and {left_out} more"));
    }
    texts.join(", ")
}

fn shown_long(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect()
}
