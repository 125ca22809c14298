//! Reads a policy file into what its layer says.
//!
//! Must not know: how layers are brought together.

use crate::{
    PolicyError,
    document::{Document, Node, Table, with_suggestion},
    layer::LayerKind,
    limits::{Limit, LimitError, LimitValue, duration},
    packages::{GROUPS, group},
    settings::{DeniedHost, InlineRule, ProfileSettings, Said, Settings, check_host},
};
use adj_domain::{HostPattern, HostRule, Limit as Budget, Span, Verdict};
use std::{collections::BTreeMap, path::Path, str::FromStr, time::Duration};

const TOP: [&str; 14] = [
    "allowed_sandbox_modes",
    "allowed_approval_policies",
    "allowed_profiles",
    "default_profile",
    "expire_approvals_after",
    "longest_grant",
    "tools",
    "network",
    "filesystem",
    "limits",
    "budget",
    "secrets",
    "rules",
    "profiles",
];
const NETWORK: [&str; 3] = ["hosts", "denied_hosts", "ask"];
const HOST: [&str; 6] = ["host", "ports", "methods", "paths", "open_tls", "private_addresses"];
const FILESYSTEM: [&str; 2] = ["hidden", "readonly"];
const SECRETS: [&str; 1] = ["allowed"];
const RULE: [&str; 3] = ["pattern", "decision", "justification"];
const PROFILE: [&str; 10] =
    ["extends", "mode", "read", "write", "hidden", "readonly", "network", "limits", "secrets", "env"];
const PROFILE_NETWORK: [&str; 2] = ["hosts", "ask"];

type Read<T> = Result<T, PolicyError>;

/// Reads the text of a policy file; `file` is for complaints, `kind` for what such a file may say.
pub fn parse(kind: LayerKind, file: &Path, text: &str) -> Read<Settings> {
    let document = Document::new(file, text);
    let root = document.parse()?;
    let top = Table::root(&document, root.get_ref(), &TOP)?;
    let is_trusted = kind.is_trusted();
    let mut settings = Settings {
        allowed_sandbox_modes: top.read("allowed_sandbox_modes", |node| said(node, |node| node.each(Node::parse)))?,
        allowed_approval_policies: top
            .read("allowed_approval_policies", |node| said(node, |node| node.each(Node::parse)))?,
        allowed_profiles: top.read("allowed_profiles", |node| said(node, |node| node.each(name)))?,
        default_profile: top
            .read("default_profile", |node| if is_trusted { said(node, name) } else { Err(node.problem(NOT_HERE)) })?,
        expire_approvals_after: top.read("expire_approvals_after", |node| said(node, some_time))?,
        longest_grant: top.read("longest_grant", |node| said(node, time))?,
        ..Settings::default()
    };
    if let Some(node) = top.get("tools") {
        for (tool, node) in node.named()? {
            settings.tools.insert(tool.to_owned(), said(&node, Node::parse)?);
        }
    }
    if let Some(node) = top.get("network") {
        let network = node.table(&NETWORK)?;
        settings.hosts = network.read("hosts", |node| said(node, hosts))?;
        settings.denied_hosts = network.read("denied_hosts", denied_hosts)?.unwrap_or_default();
        settings.ask = network.read("ask", |node| said(node, Node::flag))?;
    }
    if let Some(node) = top.get("filesystem") {
        let filesystem = node.table(&FILESYSTEM)?;
        let patterns = |key: &str| filesystem.read(key, |node| node.each(|item| said(item, |item| glob(item, kind))));
        settings.hidden = patterns("hidden")?.unwrap_or_default();
        settings.readonly = patterns("readonly")?.unwrap_or_default();
    }
    if let Some(node) = top.get("limits") {
        settings.limits = limits(node, |node, limit| said(node, |node| limit_value(node, limit)))?;
    }
    if let Some(node) = top.get("budget") {
        let budget = node.table(&Span::ALL.map(Span::as_str))?;
        for span in Span::ALL {
            if let Some(limits) = budget.read(span.as_str(), |node| said(node, budgets))? {
                settings.budget.insert(span, limits);
            }
        }
    }
    if let Some(node) = top.get("secrets") {
        settings.allowed_secrets = node.table(&SECRETS)?.read("allowed", |node| said(node, |node| node.each(name)))?;
    }
    settings.rules = top.read("rules", |node| node.each(|item| said(item, rule)))?.unwrap_or_default();
    if let Some(node) = top.get("profiles") {
        for (label, node) in node.named()? {
            check_name(&node, label)?;
            settings.profiles.insert(label.to_owned(), said(&node, |node| profile(node, kind))?);
        }
    }
    Ok(settings)
}

const NOT_HERE: &str = "only an administrator's or an organisation's policy can say this, not a repository's";

fn said<'d, 't, T>(node: &Node<'d, 't>, read: impl FnOnce(&Node<'d, 't>) -> Read<T>) -> Read<Said<T>> {
    Ok(Said { value: read(node)?, line: Some(node.line()) })
}

fn time(node: &Node<'_, '_>) -> Read<Duration> {
    duration(node.text()?).map_err(|error| node.problem(error))
}

fn some_time(node: &Node<'_, '_>) -> Read<Duration> {
    match time(node)? {
        Duration::ZERO => Err(node.problem("a time of zero leaves nobody the time to answer")),
        time => Ok(time),
    }
}

/// One amount, or one for each unit.
fn budgets(node: &Node<'_, '_>) -> Read<Vec<Budget>> {
    if node.is_text() { Ok(vec![node.parse()?]) } else { node.each(Node::parse) }
}

/// The name of a profile or a secret.
fn name(node: &Node<'_, '_>) -> Read<String> {
    let text = node.text()?;
    check_name(node, text)?;
    Ok(text.to_owned())
}

fn check_name(node: &Node<'_, '_>, text: &str) -> Read<()> {
    let is_name = (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    if is_name { Ok(()) } else { Err(node.problem("a name is 1 to 64 letters, digits, `-` and `_`")) }
}

fn hosts(node: &Node<'_, '_>) -> Read<Vec<Said<HostRule>>> {
    let mut hosts = Vec::new();
    for item in node.list()? {
        let line = Some(item.line());
        hosts.extend(host(&item)?.into_iter().map(|value| Said { value, line }));
    }
    Ok(hosts)
}

/// One item of a list of hosts: a text, a group, or a table.
fn host(node: &Node<'_, '_>) -> Read<Vec<HostRule>> {
    if node.is_text() {
        let text = node.text()?;
        if text.starts_with('@') {
            let complaint = || with_suggestion("there is no such group of hosts", text, &GROUPS);
            return group(text).ok_or_else(|| node.problem(complaint()));
        }
        return Ok(vec![node.parse()?]);
    }
    let table = node.table(&HOST)?;
    let Some(pattern) = table.read("host", Node::parse::<HostPattern>)? else {
        return Err(node.problem("`host` is missing"));
    };
    let mut rule = HostRule::new(pattern);
    let port = |node: &Node<'_, '_>| {
        u16::try_from(node.whole_number()?).map_err(|_| node.problem("ports are numbers from 1 to 65535"))
    };
    if let Some(ports) = table.read("ports", |node| node.each(port))? {
        rule.ports = ports;
    }
    let texts = |key: &str| table.read(key, |node| node.each(|item| item.text().map(str::to_owned)));
    rule.methods = texts("methods")?.unwrap_or_default();
    rule.paths = texts("paths")?.unwrap_or_default();
    rule.private_addresses = texts("private_addresses")?.unwrap_or_default();
    rule.open_tls = table.read("open_tls", Node::flag)?.unwrap_or_default();
    check_host(&rule).map_err(|problem| node.problem(problem))?;
    Ok(vec![rule])
}

fn denied_hosts(node: &Node<'_, '_>) -> Read<Vec<Said<DeniedHost>>> {
    let mut denied = Vec::new();
    for item in node.list()? {
        let line = Some(item.line());
        let text = item.text()?;
        if text.starts_with('@') {
            let of = |rule: HostRule| Said { value: DeniedHost { host: rule.host, ports: Vec::new() }, line };
            denied.extend(host(&item)?.into_iter().map(of));
            continue;
        }
        // Without a port every port is meant, and not only those of the web.
        let rule: HostRule = item.parse()?;
        let ports = if text.contains(':') { rule.ports } else { Vec::new() };
        denied.push(Said { value: DeniedHost { host: rule.host, ports }, line });
    }
    Ok(denied)
}

/// A path or glob that a sandbox can mask; a repository speaks of what lies in it and of nothing else.
fn glob(node: &Node<'_, '_>, kind: LayerKind) -> Read<String> {
    let text = node.text()?;
    if text.is_empty() || text.len() > 4096 || text.contains('\0') {
        return Err(node.problem("expected a path or a glob, such as **/.env"));
    }
    if text.split('/').any(|part| part == "..") {
        return Err(node.problem("a pattern cannot lead upwards (`..`)"));
    }
    if !kind.is_trusted() && (text.starts_with('/') || text.starts_with('~')) {
        return Err(node.problem("a repository's patterns are relative to it"));
    }
    globset::Glob::new(text).map_err(|error| node.problem(error.kind()))?;
    Ok(text.to_owned())
}

/// A folder or file of the host: absolute, or in the home directory.
fn host_path(node: &Node<'_, '_>) -> Read<String> {
    let text = node.text()?;
    let is_plain = (text.starts_with('/') || text.starts_with("~/"))
        && !text.contains('\0')
        && text.len() <= 4096
        && text.split('/').skip(1).all(|part| part != "." && part != "..");
    if is_plain {
        Ok(text.to_owned())
    } else {
        Err(node.problem("expected an absolute path, or one that starts with ~/"))
    }
}

fn limits<'d, 't, T>(node: &Node<'d, 't>, read: impl Fn(&Node<'d, 't>, Limit) -> Read<T>) -> Read<BTreeMap<Limit, T>> {
    let mut limits = BTreeMap::new();
    for (name, node) in node.named()? {
        let limit = Limit::from_str(name).map_err(|error: LimitError| node.problem(error))?;
        limits.insert(limit, read(&node, limit)?);
    }
    Ok(limits)
}

fn limit_value(node: &Node<'_, '_>, limit: Limit) -> Read<LimitValue> {
    limit.value(&node.text_or_number()?).map_err(|error| node.problem(error))
}

fn rule(node: &Node<'_, '_>) -> Read<InlineRule> {
    let table = node.table(&RULE)?;
    let Some(pattern) = table.read("pattern", |node| node.each(alternatives))? else {
        return Err(node.problem("`pattern` is missing"));
    };
    if pattern.is_empty() {
        return Err(node.problem("`pattern` is empty"));
    }
    let decision = |node: &Node<'_, '_>| match node.text()? {
        "allow" => Ok(Verdict::Allow),
        "prompt" => Ok(Verdict::Ask),
        "forbidden" => Ok(Verdict::Deny),
        _ => Err(node.problem("a decision is one of allow, prompt, forbidden")),
    };
    Ok(InlineRule {
        pattern,
        decision: table.read("decision", decision)?.unwrap_or(Verdict::Allow),
        justification: table.read("justification", |node| node.text().map(str::to_owned))?,
    })
}

fn alternatives(node: &Node<'_, '_>) -> Read<Vec<String>> {
    let word = |node: &Node<'_, '_>| match node.text()? {
        "" => Err(node.problem("a word of a pattern cannot be empty")),
        word => Ok(word.to_owned()),
    };
    if !node.is_list() {
        return Ok(vec![word(node)?]);
    }
    let words = node.each(word)?;
    if words.is_empty() { Err(node.problem("no word can ever match")) } else { Ok(words) }
}

fn profile(node: &Node<'_, '_>, kind: LayerKind) -> Read<ProfileSettings> {
    let table = node.table(&PROFILE)?;
    if !kind.is_trusted()
        && let Some(node) = ["read", "write", "env"].iter().find_map(|key| table.get(key))
    {
        return Err(node.problem(NOT_HERE));
    }
    let mut profile = ProfileSettings {
        extends: table.read("extends", |node| said(node, name))?,
        mode: table.read("mode", Node::parse)?,
        read: table.read("read", |node| node.each(host_path))?.unwrap_or_default(),
        write: table.read("write", |node| node.each(host_path))?.unwrap_or_default(),
        hidden: table.read("hidden", |node| node.each(|item| glob(item, kind)))?.unwrap_or_default(),
        readonly: table.read("readonly", |node| node.each(|item| glob(item, kind)))?.unwrap_or_default(),
        limits: table.read("limits", |node| limits(node, limit_value))?.unwrap_or_default(),
        secrets: table.read("secrets", |node| node.each(name))?,
        ..ProfileSettings::default()
    };
    if let Some(node) = table.get("network") {
        let network = node.table(&PROFILE_NETWORK)?;
        profile.hosts = network.read("hosts", |node| Ok(hosts(node)?.into_iter().map(|host| host.value).collect()))?;
        profile.ask = network.read("ask", Node::flag)?;
    }
    if let Some(node) = table.get("env") {
        for (variable, node) in node.named()? {
            let is_name = !variable.is_empty()
                && !variable.starts_with(|first: char| first.is_ascii_digit())
                && variable.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            let value = node.text()?;
            if !is_name || value.contains('\0') {
                return Err(node.problem("this cannot be a variable of the environment"));
            }
            profile.env.insert(variable.to_owned(), value.to_owned());
        }
    }
    Ok(profile)
}
