//! Which hosts may be reached: what a call asks for, narrowed by every layer.
//!
//! Must not know: how a connection is made.

use crate::{
    Policy,
    address::AddressRange,
    context::{Context, first_strictest},
    document::shown,
    layer::Layer,
};
use adj_domain::{Destination, GrantSubject, HostPattern, HostRule, NetworkRequest, Ruling, Verdict, host_name};
use serde::Serialize;

/// What is said of a destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HostRuling {
    pub ruling: Ruling,
    /// What holds for the connection where it is allowed, now or by a person: one host, one port.
    ///
    /// Before the request is known, methods and paths are the most that it may turn out to be; ask again once it is.
    pub rule: Option<HostRule>,
}

impl Policy {
    /// Decides about a destination, before its name is looked up and again for each request that can be seen.
    pub fn host(&self, to: &Destination, context: &Context<'_>) -> HostRuling {
        let voices = self.voices_on_host(to, context);
        let mut ruling = first_strictest(&voices);
        if ruling.verdict == Verdict::Deny {
            return HostRuling { ruling, rule: None };
        }
        let Some(rule) = self.merged(to, context) else {
            let rule = format!("the layers that list {} permit no request to it in common", to.host);
            return HostRuling { ruling: Ruling::new(Verdict::Deny, "built-in", rule), rule: None };
        };
        ruling = self.settle(
            ruling,
            context,
            |subject| matches!(subject, GrantSubject::Host { host, port } if *host == to.host && *port == to.port),
        );
        let rule = (ruling.verdict < Verdict::Deny).then_some(rule);
        HostRuling { ruling, rule }
    }

    /// What everybody says, the outermost first; what a call asks for speaks as the layer `call`.
    pub(crate) fn voices_on_host(&self, to: &Destination, context: &Context<'_>) -> Vec<Ruling> {
        if host_name(&to.host).as_deref() != Ok(to.host.as_str()) || to.port == 0 {
            let rule = format!("\"{}\" is not a host name", shown(&to.host));
            return vec![Ruling::new(Verdict::Deny, "built-in", rule)];
        }
        let asked = asked_for(context.network, to);
        let is_listed = asked.verdict == Verdict::Allow;
        let layers = self.layers().iter();
        let said =
            layers.flat_map(|layer| rules_on_host(layer, to).into_iter().chain(said_of_host(layer, to, is_listed)));
        said.chain([asked]).collect()
    }

    /// The one rule that all who list the destination agree on; `None` where that leaves nothing.
    fn merged(&self, to: &Destination, context: &Context<'_>) -> Option<HostRule> {
        let lists = self.layers().iter().filter_map(|layer| layer.settings.hosts.as_ref());
        let listed = lists.map(|list| covering(list.value.iter().map(|host| &host.value), to));
        // Where a list does not name the host and a person is asked, the host gets no privileges from the others.
        let part = |covering: Vec<&HostRule>| united(&covering, to).unwrap_or_else(|| bare(to));
        let parts: Vec<HostRule> =
            [covering(context.network.hosts.iter(), to)].into_iter().chain(listed).map(part).collect();
        let mut merged = parts[0].clone();
        for part in &parts[1..] {
            merged.methods =
                common(&merged.methods, &part.methods, |one, other| (one == other).then(|| one.to_owned()))?;
            merged.paths = common(&merged.paths, &part.paths, |one, other| {
                let (short, long) = if one.len() <= other.len() { (one, other) } else { (other, one) };
                long.starts_with(short).then(|| long.to_owned())
            })?;
            merged.private_addresses = meet(&merged.private_addresses, &part.private_addresses, |one, other| {
                let one: AddressRange = one.parse().ok()?;
                Some(one.common(other.parse().ok()?)?.to_string())
            });
        }
        // Somebody consents, and nobody whose narrowing makes it necessary is left out.
        merged.open_tls = parts.iter().any(|part| part.open_tls)
            && parts.iter().all(|part| part.open_tls || !part.narrows_requests());
        Some(merged)
    }
}

fn bare(to: &Destination) -> HostRule {
    HostRule { ports: vec![to.port], ..HostRule::new(HostPattern::Exact(to.host.clone())) }
}

fn covering<'r>(rules: impl Iterator<Item = &'r HostRule>, to: &Destination) -> Vec<&'r HostRule> {
    rules.filter(|rule| rule.covers(&to.host, to.port)).collect()
}

/// Whether a rule permits what is known of the request; what is not known is looked at later.
fn permits(rule: &HostRule, to: &Destination) -> bool {
    match (&to.method, &to.path) {
        (Some(method), Some(path)) => rule.permits_request(method, path),
        (Some(method), None) => rule.methods.is_empty() || rule.methods.contains(method),
        (None, Some(path)) => rule.paths.is_empty() || rule.paths.iter().any(|start| path.starts_with(start.as_str())),
        (None, None) => true,
    }
}

/// Everything that one list permits at a destination.
fn united(covering: &[&HostRule], to: &Destination) -> Option<HostRule> {
    let permitting: Vec<&HostRule> = covering.iter().copied().filter(|rule| permits(rule, to)).collect();
    if permitting.is_empty() {
        return None;
    }
    let mut rule = bare(to);
    let all = |list: fn(&HostRule) -> &Vec<String>| {
        if permitting.iter().any(|rule| list(rule).is_empty()) {
            return Vec::new();
        }
        in_order(permitting.iter().flat_map(|rule| list(rule).iter().cloned()).collect())
    };
    rule.methods = all(|rule| &rule.methods);
    rule.paths = all(|rule| &rule.paths);
    rule.private_addresses = in_order(permitting.iter().flat_map(|rule| rule.private_addresses.clone()).collect());
    rule.open_tls = if permitting.iter().any(|rule| !rule.narrows_requests()) {
        permitting.iter().any(|rule| rule.open_tls)
    } else {
        permitting.iter().all(|rule| rule.open_tls)
    };
    Some(rule)
}

fn in_order(mut list: Vec<String>) -> Vec<String> {
    list.sort_unstable();
    list.dedup();
    list
}

/// What two lists have in common, where an empty one permits everything; `None` where nothing is left.
fn common(one: &[String], other: &[String], both: impl Fn(&str, &str) -> Option<String>) -> Option<Vec<String>> {
    match (one, other) {
        ([], rest) | (rest, []) => Some(rest.to_vec()),
        _ => Some(meet(one, other, both)).filter(|left| !left.is_empty()),
    }
}

fn meet(one: &[String], other: &[String], both: impl Fn(&str, &str) -> Option<String>) -> Vec<String> {
    in_order(one.iter().flat_map(|one| other.iter().filter_map(|other| both(one, other))).collect())
}

/// What the files of rules of a layer say. One that allows does not add a host to any list, so it says nothing.
fn rules_on_host(layer: &Layer, to: &Destination) -> Vec<Ruling> {
    let rulings = layer.rule_files.iter().filter_map(|file| {
        let (verdict, rule) = file.on_host(&to.host).filter(|(verdict, _)| *verdict > Verdict::Allow)?;
        let text = format!("network_rule: {verdict} {}", to.host);
        Some(Ruling {
            file: Some(file.path.display().to_string()),
            line: Some(rule.line),
            justification: rule.justification.as_deref().map(shown),
            ..Ruling::new(verdict, layer.kind.as_str(), text)
        })
    });
    rulings.collect()
}

/// What a layer says; `None` where it has no opinion.
fn said_of_host(layer: &Layer, to: &Destination, is_listed: bool) -> Option<Ruling> {
    let settings = &layer.settings;
    if let Some(denied) = settings.denied_hosts.iter().find(|denied| denied.value.covers(&to.host, to.port)) {
        return Some(layer.ruling(Verdict::Deny, denied.line, format!("denied_hosts: {}", denied.value)));
    }
    let Some(hosts) = &settings.hosts else {
        // It does not say which hosts there are, but may say that nobody is asked for more than a call lists.
        let ask = settings.ask.as_ref().filter(|ask| !ask.value && !is_listed)?;
        return Some(layer.ruling(
            Verdict::Deny,
            ask.line,
            "ask = false: nobody is asked for hosts that are not listed",
        ));
    };
    let covering: Vec<_> = hosts.value.iter().filter(|rule| rule.value.covers(&to.host, to.port)).collect();
    if let Some(rule) = covering.iter().find(|rule| permits(&rule.value, to)) {
        return Some(layer.ruling(Verdict::Allow, rule.line, format!("hosts: {}", rule.value)));
    }
    if let Some(rule) = covering.first() {
        let text = format!("hosts: {} does not permit {to}", rule.value);
        return Some(layer.ruling(Verdict::Deny, rule.line, shown(&text)));
    }
    let unlisted = format!("hosts: {}:{} is not listed", to.host, to.port);
    let verdict = if settings.ask.as_ref().is_some_and(|ask| ask.value) { Verdict::Ask } else { Verdict::Deny };
    Some(layer.ruling(verdict, hosts.line, unlisted))
}

fn asked_for(network: &NetworkRequest, to: &Destination) -> Ruling {
    let covering = covering(network.hosts.iter(), to);
    if let Some(rule) = covering.iter().find(|rule| permits(rule, to)) {
        return Ruling::new(Verdict::Allow, "call", format!("hosts: {rule}"));
    }
    if let Some(rule) = covering.first() {
        return Ruling::new(Verdict::Deny, "call", shown(&format!("hosts: {rule} does not permit {to}")));
    }
    if network.hosts.is_empty() && !network.ask {
        return Ruling::new(Verdict::Deny, "built-in", "the network is off unless a call asks for it");
    }
    let verdict = if network.ask { Verdict::Ask } else { Verdict::Deny };
    Ruling::new(verdict, "call", format!("hosts: {}:{} is not listed", to.host, to.port))
}
