//! One more layer never allows more, and equal layers have no order.

use crate::world::{destination, now};
use adj_domain::{
    ApprovalPolicy, EventId, Grant, GrantScope, GrantSubject, HostRule, NetworkRequest, SandboxMode, ToolPermission,
    Verdict,
};
use adj_policy::{
    Context, DeniedHost, InlineRule, Layer, LayerKind, Limit, LimitValue, Policy, Said, Settings, ToolSetting,
};
use proptest::{collection::vec, option, prelude::*, sample::select};
use serde_json::json;
use std::{collections::BTreeMap, time::Duration};

const COMMANDS: [&str; 10] = [
    "ls",
    "git push",
    "git push; make",
    "git $WHAT",
    "make > log",
    "X=1 make",
    "eval $TEXT",
    "sh -c 'git push'",
    "timeout 5 make",
    "",
];
const TOOLS: [&str; 4] = ["bash", "write", "read", "fetch"];
const PLACES: [&str; 8] = [
    "a.org:443",
    "b.a.org:443",
    "a.org:80",
    "c.org:22",
    "GET a.org:443/x/y",
    "POST a.org:443/x/y",
    "GET b.a.org:443/z",
    "DELETE b.a.org:443/x",
];

fn said<T>(value: T) -> Said<T> {
    Said::from(value)
}

fn modes() -> impl Strategy<Value = SandboxMode> {
    select(vec![SandboxMode::ReadOnly, SandboxMode::WorkspaceWrite, SandboxMode::DangerFullAccess])
}

fn approvals() -> impl Strategy<Value = ApprovalPolicy> {
    select(vec![ApprovalPolicy::Untrusted, ApprovalPolicy::OnRequest, ApprovalPolicy::Never])
}

fn host_rules() -> impl Strategy<Value = HostRule> {
    let some = |items: &[&str]| {
        let items: Vec<String> = items.iter().map(|item| (*item).to_owned()).collect();
        proptest::sample::subsequence(items.clone(), 0..=items.len())
    };
    (
        select(vec!["a.org", "*.a.org", "a.org:443,22", "c.org:22", "b.a.org"]),
        some(&["GET", "POST"]),
        some(&["/x", "/x/y", "/z"]),
        any::<bool>(),
        some(&["10.0.0.0/8", "10.1.0.1", "::1"]),
    )
        .prop_map(|(host, methods, paths, open_tls, private_addresses)| {
            let rule: HostRule = host.parse().expect("the host is good");
            HostRule { methods, paths, open_tls, private_addresses, ..rule }
        })
}

fn rules() -> impl Strategy<Value = InlineRule> {
    let patterns: [&[&[&str]]; 5] =
        [&[&["git"], &["push"]], &[&["git"]], &[&["make", "ls"]], &[&["timeout"]], &[&["eval"]]];
    let pattern =
        |words: &[&[&str]]| words.iter().map(|word| word.iter().map(|text| (*text).to_owned()).collect()).collect();
    let patterns: Vec<Vec<Vec<String>>> = patterns.iter().map(|words| pattern(words)).collect();
    (select(patterns), select(vec![Verdict::Allow, Verdict::Ask, Verdict::Deny]))
        .prop_map(|(pattern, decision)| InlineRule { pattern, decision, justification: None })
}

fn settings() -> impl Strategy<Value = Settings> {
    let settings = vec![ToolSetting::AlwaysAllow, ToolSetting::Auto, ToolSetting::AlwaysAsk, ToolSetting::Deny];
    (
        (option::weighted(0.2, vec(modes(), 0..3)), option::weighted(0.2, vec(approvals(), 0..3))),
        proptest::collection::btree_map(select(TOOLS.map(str::to_owned).to_vec()), select(settings), 0..3),
        option::of(vec(host_rules(), 0..4)),
        vec(select(vec!["a.org", "*.a.org"]), 0..2),
        option::of(any::<bool>()),
        vec(rules(), 0..3),
        (option::of(0_u64..100_000), option::of(1_u64..100)),
        option::of(vec(select(vec!["one".to_owned(), "two".to_owned()]), 0..2)),
    )
        .prop_map(|((modes, approvals), tools, hosts, denied, ask, rules, (grant, limit), secrets)| Settings {
            allowed_sandbox_modes: modes.map(said),
            allowed_approval_policies: approvals.map(said),
            longest_grant: grant.map(|seconds| said(Duration::from_secs(seconds))),
            tools: tools.into_iter().map(|(name, setting)| (name, said(setting))).collect(),
            hosts: hosts.map(|hosts| said(hosts.into_iter().map(said).collect())),
            denied_hosts: denied
                .into_iter()
                .map(|host| said(DeniedHost { host: host.parse().expect("the host is good"), ports: Vec::new() }))
                .collect(),
            ask: ask.map(said),
            rules: rules.into_iter().map(said).collect(),
            limits: limit.map(|count| (Limit::Processes, said(LimitValue::Count(count)))).into_iter().collect(),
            allowed_secrets: secrets.map(said),
            ..Settings::default()
        })
}

fn layers() -> impl Strategy<Value = Layer> {
    let kinds = vec![
        LayerKind::Administrator,
        LayerKind::Organisation,
        LayerKind::Repository,
        LayerKind::Agent,
        LayerKind::Call,
    ];
    (select(kinds), settings()).prop_map(|(kind, settings)| Layer::new(kind, settings))
}

#[derive(Debug, Clone)]
struct Circumstances {
    approval: ApprovalPolicy,
    mode: SandboxMode,
    permissions: BTreeMap<String, ToolPermission>,
    network: NetworkRequest,
    grants: Vec<Grant>,
}

fn circumstances() -> impl Strategy<Value = Circumstances> {
    let permissions = vec![ToolPermission::AlwaysAllow, ToolPermission::AlwaysAsk, ToolPermission::Auto];
    let subjects = vec![
        GrantSubject::Command { prefix: vec!["git".to_owned()] },
        GrantSubject::Command { prefix: vec!["make".to_owned()] },
        GrantSubject::Tool { name: "bash".to_owned() },
        GrantSubject::Tool { name: "write".to_owned() },
        GrantSubject::Host { host: "a.org".to_owned(), port: 443 },
    ];
    let grants = (select(subjects), 1_u64..200_000).prop_map(|(subject, seconds)| Grant {
        id: EventId::derive(&["answer"]),
        subject,
        scope: GrantScope::Repository { path: "/srv/project".to_owned() },
        until: now() + Duration::from_secs(seconds),
        by: "ada".to_owned(),
    });
    (
        approvals(),
        modes(),
        proptest::collection::btree_map(select(TOOLS.map(str::to_owned).to_vec()), select(permissions), 0..3),
        (vec(host_rules(), 0..3), any::<bool>()),
        vec(grants, 0..3),
    )
        .prop_map(|(approval, mode, permissions, (hosts, ask), grants)| Circumstances {
            approval,
            mode,
            permissions,
            network: NetworkRequest { hosts, ask },
            grants,
        })
}

impl Circumstances {
    fn context(&self) -> Context<'_> {
        Context {
            approval: self.approval,
            mode: self.mode,
            permissions: &self.permissions,
            network: &self.network,
            grants: &self.grants,
            now: now(),
            session: None,
            repository: Some("/srv/project"),
        }
    }
}

fn policy(layers: &[Layer]) -> Policy {
    layers.iter().cloned().fold(Policy::built_in(), |policy, layer| policy.with(layer))
}

/// All that is asked of a policy here, each with its verdict.
fn verdicts(policy: &Policy, circumstances: &Circumstances) -> Vec<(String, Verdict)> {
    let context = circumstances.context();
    let mut all = Vec::new();
    for command in COMMANDS {
        all.push((format!("bash {command}"), policy.tool("bash", &json!({ "command": command }), &context).verdict));
    }
    for tool in TOOLS {
        all.push((tool.to_owned(), policy.tool(tool, &json!({}), &context).verdict));
    }
    for place in PLACES {
        all.push((place.to_owned(), policy.host(&destination(place), &context).ruling.verdict));
    }
    for secret in ["one", "two"] {
        all.push((secret.to_owned(), policy.secret(secret).verdict));
    }
    all.push(("mode".to_owned(), policy.mode(circumstances.mode).verdict));
    all.push(("approval".to_owned(), policy.approval(circumstances.approval).1.verdict));
    all
}

/// What spares a question by intent: rules and settings that allow, of those whose word counts.
fn without_consents(mut layer: Layer) -> Layer {
    if layer.kind.is_trusted() {
        layer.settings.rules.retain(|rule| rule.value.decision > Verdict::Allow);
        layer.settings.tools.retain(|_, setting| setting.value > ToolSetting::AlwaysAllow);
    }
    layer
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn adding_a_layer_never_allows_more(
        base in vec(layers(), 0..4),
        more in layers(),
        circumstances in circumstances(),
    ) {
        let before = policy(&base);
        let after = before.with(without_consents(more.clone()));
        let pairs = verdicts(&before, &circumstances).into_iter().zip(verdicts(&after, &circumstances));
        for ((asked, before), (_, after)) in pairs {
            prop_assert!(after >= before, "{asked}: {before} became {after}");
        }
        for place in PLACES {
            let to = destination(place);
            let rules = (before.host(&to, &circumstances.context()).rule, after.host(&to, &circumstances.context()).rule);
            let (Some(before), Some(after)) = rules else { continue };
            for method in ["GET", "POST", "DELETE"] {
                for path in ["/", "/x", "/x/y", "/z"] {
                    let is_more = after.permits_request(method, path) && !before.permits_request(method, path);
                    prop_assert!(!is_more, "{place}: {method} {path}: {before:?} became {after:?}");
                }
            }
            prop_assert!(after.private_addresses.len() <= before.private_addresses.len().max(1) * 3);
            if before.private_addresses.is_empty() {
                prop_assert!(after.private_addresses.is_empty(), "{place}: {before:?} became {after:?}");
            }
        }
        for least in before.limits() {
            let now = after.limits().into_iter().find(|limit| limit.limit == least.limit).map(|limit| limit.value);
            prop_assert!(now.is_some_and(|now| now <= least.value));
        }
        prop_assert!(after.longest_grant() <= before.longest_grant());

        // Whatever it consents to, nothing that was denied is allowed, and no rule's question is answered.
        let consenting = before.with(more);
        let pairs = verdicts(&before, &circumstances).into_iter().zip(verdicts(&consenting, &circumstances));
        for ((asked, before), (_, after)) in pairs {
            prop_assert!(before < Verdict::Deny || after == Verdict::Deny, "{asked}: {before} became {after}");
            prop_assert!(
                after >= before || circumstances.approval <= ApprovalPolicy::OnRequest,
                "{asked}: only the approval policy's question is spared"
            );
        }
    }

    #[test]
    fn equal_layers_have_no_order(layers in vec(layers(), 0..5), circumstances in circumstances()) {
        let forwards = policy(&layers);
        let backwards = policy(&layers.iter().rev().cloned().collect::<Vec<_>>());
        prop_assert_eq!(verdicts(&forwards, &circumstances), verdicts(&backwards, &circumstances));
        prop_assert_eq!(forwards.hash(), backwards.hash());
        for place in PLACES {
            let to = destination(place);
            let rules = [&forwards, &backwards].map(|policy| policy.host(&to, &circumstances.context()).rule);
            prop_assert_eq!(&rules[0], &rules[1]);
        }
    }

    #[test]
    fn the_same_fingerprint_means_the_same_decisions(
        one in vec(layers(), 0..3),
        other in vec(layers(), 0..3),
        circumstances in circumstances(),
    ) {
        let (one, other) = (policy(&one), policy(&other));
        if one.hash() == other.hash() {
            prop_assert_eq!(verdicts(&one, &circumstances), verdicts(&other, &circumstances));
        }
    }
}
