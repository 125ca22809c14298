//! Profiles: what a name stands for, and who may use it.

use crate::world::{Call, policy};
use adj_domain::{
    ApprovalPolicy::OnRequest,
    SandboxMode,
    Verdict::{Allow, Deny},
};
use adj_policy::{
    LayerKind::{Administrator, Organisation, Repository},
    Limit, Policy,
};

const ORGANISATION: &str = r#"
    default_profile = "web"
    [limits]
    memory = "4GiB"
    wall = "5m"
    [profiles.base]
    mode = "workspace-write"
    read = ["/opt/tools"]
    limits = { wall = "30m", processes = 100 }
    env = { STAGE = "base", REGION = "north" }
    [profiles.web]
    extends = "base"
    write = ["~/.cache/web"]
    hidden = ["**/.env"]
    secrets = ["registry"]
    network = { hosts = ["@packages", "example.org:8443"], ask = true }
    env = { STAGE = "web" }
"#;

#[test]
fn a_profile_is_what_it_says_on_top_of_what_it_extends() {
    let (mut profile, _) = policy(&[(Organisation, ORGANISATION)]).profile(None).expect("the profile is good");
    // The group has a test of its own.
    profile.network.hosts.retain(|rule| rule.ports == [8443]);
    insta::assert_snapshot!(serde_json::to_string_pretty(&profile).expect("a profile is plain data"));
    let (plain, _) = Policy::built_in().profile(None).expect("there is always one");
    assert_eq!((plain.name.as_str(), plain.mode), ("workspace-write", SandboxMode::WorkspaceWrite));
    assert!(plain.network.hosts.is_empty() && !plain.network.ask);
}

#[test]
fn a_repositorys_profile_only_narrows() {
    let repository = r#"
        [profiles.careful]
        extends = "web"
        mode = "danger-full-access"
        hidden = ["secrets/**"]
        limits = { processes = 1000, wall = "1m" }
        secrets = []
        network = { hosts = ["pypi.org", "evil.org"], ask = true }
        [profiles.looking]
        mode = "read-only"
    "#;
    let layers = policy(&[(Organisation, ORGANISATION), (Repository, repository)]);
    let (profile, narrowed) = layers.profile(Some("careful")).expect("the profile is good");
    assert_eq!(profile.mode, SandboxMode::WorkspaceWrite);
    let limit = |limit: Limit| profile.limits.get(&limit).map(ToString::to_string);
    assert_eq!(limit(Limit::Processes).as_deref(), Some("100"));
    assert_eq!(limit(Limit::Wall).as_deref(), Some("1m"));
    assert!(narrowed.hidden().iter().any(|rule| rule.pattern == "secrets/**" && rule.layer == Repository));
    assert_eq!(narrowed.secret("registry").verdict, Deny);
    assert_eq!(layers.secret("registry").verdict, Allow);
    assert_ne!(narrowed.hash(), layers.hash());

    // Whatever it begins with, it does not take the sandbox away.
    let repository = "[profiles.tests]\nextends = \"danger-full-access\"\n";
    let free = policy(&[(Repository, repository)]).profile(Some("tests")).expect("the profile is good").0;
    assert_eq!(free.mode, SandboxMode::WorkspaceWrite);
    // Nor is a listed name a way to one that is not listed.
    let organisation = "allowed_profiles = [\"tests\"]\n[profiles.web]\nnetwork = { hosts = [\"pypi.org\"] }\n";
    let through = policy(&[(Organisation, organisation), (Repository, "[profiles.tests]\nextends = \"web\"\n")]);
    assert!(through.profile(Some("tests")).is_err());

    let call = Call { network: profile.network, ..Call::new(OnRequest) };
    assert_eq!(call.host(&narrowed, "pypi.org:443").ruling.verdict, Allow);
    assert_eq!(call.host(&narrowed, "example.org:8443").ruling.verdict, adj_domain::Verdict::Ask);
    assert_ne!(call.host(&narrowed, "evil.org:443").ruling.verdict, Allow, "the organisation does not list it");
    let (looking, _) = layers.profile(Some("looking")).expect("the profile is good");
    assert_eq!(looking.mode, SandboxMode::ReadOnly);
}

#[test]
fn profiles_that_make_no_sense_are_told_apart() {
    let cases = [
        (vec![], "wbe"),
        (vec![(Organisation, ORGANISATION)], "wbe"),
        (vec![(Organisation, "[profiles.a]\nextends = \"b\"\n[profiles.b]\nextends = \"a\"")], "a"),
        (vec![(Organisation, "[profiles.a]\nextends = \"gone\"")], "a"),
        (vec![(Organisation, ORGANISATION), (Repository, "[profiles.web]\nmode = \"read-only\"")], "web"),
        (vec![(Organisation, "[profiles.read-only]\nmode = \"danger-full-access\"")], "read-only"),
        (vec![(Administrator, "\nallowed_profiles = [\"read-only\", \"packages\"]")], "workspace-write"),
    ];
    let told = cases.iter().map(|(layers, name)| {
        policy(layers).profile(Some(name)).map(|(profile, _)| profile.name).expect_err("it makes no sense").to_string()
    });
    insta::assert_snapshot!(told.collect::<Vec<_>>().join("\n"));
    let mut long = String::from("[profiles.p0]\n");
    for number in 1..=17 {
        long.push_str(&format!("[profiles.p{number}]\nextends = \"p{}\"\n", number - 1));
    }
    let layers = policy(&[(Organisation, &long)]);
    assert!(layers.profile(Some("p14")).is_ok());
    assert!(layers.profile(Some("p17")).is_err());
}
