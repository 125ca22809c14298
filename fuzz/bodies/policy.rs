//! Reads a policy file: what is wrong with it has a place, and what is right with it never allows more than was allowed without.

use adj_domain::{ApprovalPolicy, Destination, NetworkRequest, SandboxMode, Timestamp, Verdict};
use adj_policy::{Context, Layer, LayerKind, Policy, PolicyError};
use serde_json::json;
use std::{collections::BTreeMap, path::Path};

const COMMANDS: [&str; 5] = ["ls", "git push", "make > log", "eval $TEXT", "git $WHAT"];
const PLACES: [(&str, u16); 3] = [("pypi.org", 443), ("a.example.org", 443), ("example.org", 22)];

pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for kind in [LayerKind::Administrator, LayerKind::Organisation, LayerKind::Repository] {
        match Layer::parse(kind, Path::new("policy.toml"), text) {
            Ok(layer) => check(layer),
            Err(PolicyError::Invalid { line, column, message, .. }) => {
                let lines = u32::try_from(text.lines().count()).expect("inputs are short") + 1;
                assert!((1..=lines).contains(&line) && column >= 1, "{line}:{column}: {message}");
                assert!(!message.contains(char::is_control), "{message:?}");
            }
            Err(error) => panic!("a text can only be wrong: {error}"),
        }
    }
}

fn check(layer: Layer) {
    let before = Policy::built_in();
    let after = before.with(layer.clone());
    assert_eq!(after.hash(), before.with(layer.clone()).hash());
    serde_json::to_string(&after.explain()).expect("an explanation is plain data");
    for (name, _) in after.profiles() {
        if let Ok((profile, narrowed)) = after.profile(Some(&name)) {
            assert!(layer.kind.is_trusted() || profile.read.is_empty() && profile.write.is_empty());
            assert!(narrowed.layers().len() >= after.layers().len());
        }
    }
    // On request nobody is asked without a rule, so there is no question that a trusted layer could spare.
    let network = NetworkRequest {
        hosts: PLACES.iter().filter_map(|(host, port)| format!("{host}:{port}").parse().ok()).collect(),
        ask: true,
    };
    let permissions = BTreeMap::new();
    let context = Context {
        approval: ApprovalPolicy::OnRequest,
        mode: SandboxMode::WorkspaceWrite,
        permissions: &permissions,
        network: &network,
        grants: &[],
        now: Timestamp::UNIX_EPOCH,
        session: None,
        repository: None,
    };
    let verdicts = |policy: &Policy| -> Vec<Verdict> {
        let commands = COMMANDS.map(|command| policy.tool("bash", &json!({ "command": command }), &context).verdict);
        let places = PLACES.map(|(host, port)| {
            let to = Destination { host: host.to_owned(), port, method: None, path: None };
            policy.host(&to, &context).ruling.verdict
        });
        commands.into_iter().chain(places).collect()
    };
    for (before, after) in verdicts(&before).into_iter().zip(verdicts(&after)) {
        assert!(after >= before, "{before} became {after}");
    }
    assert!(after.longest_grant() <= before.longest_grant());
}
