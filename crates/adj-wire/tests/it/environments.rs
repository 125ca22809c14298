//! Environments.

use crate::samples::{outcomes, pretty, stamp, variants};
use adj_wire::{
    Abilities, Stamp,
    environments::{self, EnvironmentSpec},
};
use serde_json::{Value, json};

fn whole() -> Value {
    json!({
        "name": "ci",
        "description": "Builds.",
        "config": {
            "type": "cloud",
            "networking": {"type": "limited", "allowed_hosts": ["example.org", "*.example.com:8443"], "allow_package_managers": true},
            "packages": {"type": "packages", "pip": ["ruff==0.6.1"], "npm": ["@types/node"]},
        },
        "metadata": {"team": "a"},
        "scope": "organization",
    })
}

fn whole_spec() -> EnvironmentSpec {
    environments::create(&whole(), Abilities::ALL).unwrap()
}

#[test]
fn answers() {
    let archived = Stamp { archived_at: Some(crate::samples::moment(90)), ..stamp("env_1") };
    insta::assert_snapshot!(pretty(&whole_spec().answer(&stamp("env_1"))));
    let plain = environments::create(&json!({"name": "p"}), Abilities::default()).unwrap();
    insta::assert_snapshot!(pretty(&plain.answer(&archived)));
    insta::assert_snapshot!(pretty(&serde_json::to_value(whole_spec()).unwrap()));
    assert_eq!(environments::create(&whole_spec().answer(&archived), Abilities::ALL).unwrap(), whole_spec());
}

#[test]
fn what_is_refused() {
    let config = |config: Value| json!({"config": config});
    let limited =
        |hosts: Value| config(json!({"type": "cloud", "networking": {"type": "limited", "allowed_hosts": hosts}}));
    let bodies = variants(
        &json!({"name": "e"}),
        json!([
            {},
            {"name": ""},
            {"scope": "everybody"},
            {"metadata": []},
            config(json!({})),
            config(json!({"type": "self_hosted"})),
            config(json!({"type": "cloud", "networking": {"type": "off"}})),
            limited(json!(["https://example.org"])),
            limited(json!(["10.0.0.1"])),
            limited(json!(["example.org:443"])),
            config(json!({"type": "cloud", "packages": {"pip": ["--index-url"]}})),
            config(json!({"type": "cloud", "packages": {"pip": ["a; rm"]}})),
            config(json!({"type": "cloud", "packages": {"pip": ["a"]}, "networking": {"type": "limited"}})),
        ]),
    );
    insta::assert_snapshot!(outcomes(&bodies, |body| environments::create(body, Abilities::ALL)));
    let bodies = variants(
        &json!({}),
        json!([
            {"name": null},
            config(json!({"type": "self_hosted"})),
            config(json!({"networking": {"allowed_hosts": []}})),
            config(json!({"networking": {"type": "limited", "allow_package_managers": false}})),
        ]),
    );
    insta::assert_snapshot!(outcomes(&bodies, |body| environments::update(body, &whole_spec(), Abilities::ALL)));
    let packages = config(json!({"type": "cloud", "packages": {"pip": ["a"], "apt": []}}));
    let bodies = variants(&json!({"name": "e"}), json!([packages]));
    insta::assert_snapshot!(outcomes(&bodies, |body| environments::create(body, Abilities::default())));
}

#[test]
fn an_update_keeps_what_it_does_not_name() {
    let updated = |body: Value| environments::update(&body, &whole_spec(), Abilities::ALL).unwrap();
    assert_eq!(updated(json!({})), whole_spec());
    assert_eq!(updated(json!({"metadata": {"team": ""}})).metadata, [].into());
    assert_eq!(updated(json!({"description": null})).description, None);
    let hosts = json!({"networking": {"type": "limited", "allowed_hosts": ["a.org"]}, "packages": {"pip": null, "apt": ["jq"]}});
    let found = updated(json!({"config": hosts}));
    insta::assert_snapshot!(pretty(&found.answer(&stamp("env_1"))["config"]));
    let open = updated(json!({"config": {"type": "cloud", "networking": {"type": "unrestricted"}}}));
    assert_eq!(open.networking, environments::Networking::Unrestricted);
}
