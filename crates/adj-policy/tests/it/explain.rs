//! The policy told: every key with its lines, and a fingerprint that changes when a decision could.

use crate::world::policy;
use adj_policy::LayerKind::{Administrator, Organisation, Repository};

const ADMINISTRATOR: &str = r#"
allowed_sandbox_modes = ["read-only", "workspace-write"]
allowed_approval_policies = ["untrusted", "on-request"]
longest_grant = "8h"

[network]
hosts = ["*.example.org", "pypi.org"]
denied_hosts = ["paste.example.org"]

[limits]
wall = "30m"
memory = "8GiB"

[[rules]]
pattern = ["git", ["push", "fetch"]]
decision = "prompt"
"#;

const ORGANISATION: &str = r#"
default_profile = "packages"
expire_approvals_after = "10m"
limits = { memory = "4GiB" }
secrets = { allowed = ["registry", "forge"] }

[tools]
write = "always_ask"

[network]
hosts = ["api.example.org"]
ask = true
"#;

const REPOSITORY: &str = r#"
secrets = { allowed = ["registry"] }
filesystem = { hidden = ["**/.env"], readonly = ["fixtures"] }
rules = [{ pattern = ["make"] }]
tools = { write = "always_allow" }
"#;

#[test]
fn every_key_is_told_with_its_lines() {
    let policy = policy(&[(Administrator, ADMINISTRATOR), (Organisation, ORGANISATION), (Repository, REPOSITORY)]);
    insta::assert_snapshot!(serde_json::to_string_pretty(&policy.explain()).expect("an explanation is plain data"));
}

#[test]
fn the_fingerprint_changes_exactly_when_a_decision_could() {
    let hash = |texts: &[&str]| policy(&texts.iter().map(|text| (Organisation, *text)).collect::<Vec<_>>()).hash();
    let plain = hash(&[ORGANISATION]);
    let same = [
        ORGANISATION.replace("ask = true", "ask = true # people may be asked\n\n"),
        ORGANISATION.replace("[\"registry\", \"forge\"]", "[\"forge\", \"registry\"]"),
        ORGANISATION.replace("expire_approvals_after = \"10m\"", "expire_approvals_after = '600s'"),
    ];
    for text in same {
        assert_eq!(hash(&[&text]), plain, "{text}");
    }
    let others = [
        ORGANISATION.replace("ask = true", "ask = false"),
        ORGANISATION.replace("ask = true", ""),
        ORGANISATION.replace("4GiB", "5GiB"),
        ORGANISATION.replace("\"forge\"", "\"forge\", \"third\""),
        ORGANISATION.replace("api.example.org", "*.example.org"),
        ORGANISATION.replace("always_ask", "deny"),
        format!("{ORGANISATION}denied_hosts = [\"a.org\"]"),
        format!("{ORGANISATION}[[rules]]\npattern = [\"make\"]\ndecision = \"prompt\""),
        format!("{ORGANISATION}[[rules]]\npattern = [\"make\"]\ndecision = \"forbidden\""),
        format!("{ORGANISATION}[[rules]]\npattern = [\"make\", \"all\"]\ndecision = \"prompt\""),
    ];
    let mut all: Vec<String> = others.iter().map(|text| hash(&[text])).collect();
    all.push(plain);
    all.push(hash(&[]));
    let count = all.len();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), count, "each of them decides differently");
    assert_eq!(
        hash(&[ORGANISATION, ADMINISTRATOR]),
        hash(&[ADMINISTRATOR, ORGANISATION]),
        "equal layers have no order"
    );
    assert_eq!(hash(&[""]), hash(&[]), "a layer that says nothing is none");
}
