//! Agents.

use crate::samples::{outcomes, plain_spec, pretty, stamp, variants, whole_agent, whole_spec};
use adj_domain::ToolPermission;
use adj_wire::{
    Abilities,
    agents::{self, BUILT_IN, enabled_built_ins},
};
use serde_json::{Value, json};

#[test]
fn answers() {
    insta::assert_snapshot!(pretty(&whole_spec().answer(&stamp("agent_a"))));
    insta::assert_snapshot!(pretty(&plain_spec().answer(&stamp("agent_a"))));
    let members = json!({"name": "a", "model": "m/x", "multiagent": {
        "type": "multiagent_20261001",
        "subagents": {"type": "enabled", "inline_agents": {"type": "disabled"}, "predefined_agents": [{"type": "self"}]},
    }});
    let spec = agents::create(&members, Abilities::ALL).unwrap();
    insta::assert_snapshot!(pretty(&spec.answer(&stamp("agent_a"))["multiagent"]));
}

#[test]
fn what_is_kept() {
    insta::assert_snapshot!(pretty(&serde_json::to_value(whole_spec()).unwrap()));
    insta::assert_snapshot!(pretty(&serde_json::to_value(plain_spec()).unwrap()));
}

#[test]
fn what_is_refused() {
    let base = json!({"name": "a", "model": "m/x"});
    let many: Value = (0..17).map(|number| (number.to_string(), json!("v"))).collect();
    let toolset =
        |fields: Value| json!({"tools": variants(&json!({"type": "agent_toolset_20260401"}), json!([fields]))});
    let custom = |fields: Value| {
        let tool = json!({"type": "custom", "name": "t", "description": "", "input_schema": {"type": "object"}});
        json!({"tools": variants(&tool, json!([fields]))})
    };
    let bodies = variants(
        &base,
        json!([
            {},
            {"unheard_of": 1},
            {"name": null},
            {"name": ""},
            {"name": "x".repeat(257)},
            {"name": 5},
            {"model": null},
            {"model": ""},
            {"model": "a b"},
            {"model": {"effort": "high"}},
            {"model": {"id": "m/x", "effort": "huge"}},
            {"model": {"id": "m/x", "effort": {"type": "low"}}},
            {"model": {"id": "m/x", "speed": "fast"}},
            {"model": {"id": "m/x", "inference_geo": "eu"}},
            {"system": "x".repeat(100_001)},
            {"description": "x".repeat(2_049)},
            {"metadata": {"k": "x".repeat(513)}},
            {"metadata": {"k": 1}},
            {"metadata": {("x".repeat(65)): "v"}},
            {"metadata": many},
            {"skills": [{"type": "anthropic", "skill_id": "pdf"}]},
            {"execution_identity": {"type": "aws_role", "role_arn": "arn"}},
            {"tools": {}},
            {"tools": [{"type": "agent_toolset_20260401"}, {"type": "agent_toolset_20260401"}]},
            {"tools": vec![json!({}); 129]},
            {"tools": [{"type": "computer"}]},
            {"tools": [{}]},
            toolset(json!({"configs": [{"name": "web_search"}]})),
            toolset(json!({"configs": [{"name": "web_search", "enabled": false}]})),
            toolset(json!({"default_config": {"enabled": false}, "configs": [{"name": "web_fetch"}]})),
            toolset(json!({"configs": [{"name": "patch"}]})),
            toolset(json!({"configs": [{"name": "bash"}, {"name": "bash"}]})),
            toolset(json!({"configs": [{"name": "bash", "permission_policy": {"type": "never"}}]})),
            toolset(json!({"configs": [{"name": "web_fetch", "enabled": false, "allowed_domains": ["a.org"]}]})),
            toolset(json!({"default_config": {"enabled": "yes"}})),
            custom(json!({"name": "a b"})),
            custom(json!({"name": "bash"})),
            custom(json!({"description": null})),
            custom(json!({"input_schema": {"type": "array"}})),
            custom(json!({"input_schema": {"type": "object", "required": [1]}})),
            {"tools": [{"type": "mcp_toolset", "mcp_server_name": "s"}]},
            {"mcp_servers": [{"type": "url", "name": "s", "url": "https://example.org"}]},
            {"multiagent": {"type": "coordinator", "agents": ["agent_b"]}},
        ]),
    );
    insta::assert_snapshot!(outcomes(&bodies, |body| agents::create(body, Abilities::default())));
    let bodies = variants(
        &base,
        json!([
            {"tools": [{"type": "mcp_toolset", "mcp_server_name": "s"}]},
            {"mcp_servers": [{"type": "url", "name": "s", "url": "https://example.org"}]},
            {"mcp_servers": [{"type": "url", "name": "s", "url": "ftp://example.org"}]},
            {"mcp_servers": vec![json!({"type": "url", "name": "s", "url": "https://example.org"}); 2]},
            {"tools": [{"type": "agent_toolset_20260401"}, {"type": "custom", "name": "bash", "description": "", "input_schema": {"type": "object"}}]},
            {"multiagent": {"type": "coordinator", "agents": []}},
            {"multiagent": {"type": "coordinator", "agents": ["agent_b", {"type": "agent", "id": "agent_b", "version": 1}]}},
            {"multiagent": {"type": "coordinator", "agents": [{"type": "advisor", "model": "m/x"}]}},
            {"multiagent": {"type": "coordinator", "agents": [{"type": "agent", "id": "agent_b", "version": 0}]}},
            {"multiagent": {"type": "multiagent_20261001", "workflows": {"type": "enabled"}}},
            {"multiagent": {"type": "multiagent_20261001", "advisor": {"type": "enabled", "model": "m/x"}}},
            {"multiagent": {"type": "multiagent_20261001", "subagents": {"type": "enabled", "inline_agents": {"type": "enabled"}}}},
            {"multiagent": {"type": "multiagent_20261001", "subagents": {"type": "enabled"}}},
            {"multiagent": {"type": "multiagent_20261001"}},
        ]),
    );
    insta::assert_snapshot!(outcomes(&bodies, |body| agents::create(body, Abilities::ALL)));
}

#[test]
fn an_update_changes_what_it_names() {
    let current = whole_spec();
    let check = |body: Value, change: fn(&mut agents::AgentSpec)| {
        let mut expected = current.clone();
        change(&mut expected);
        let update = agents::update(&body, &current, Abilities::ALL).unwrap();
        assert_eq!(update.spec, expected, "{body}");
    };
    check(json!({}), |_| {});
    check(json!({"version": 2, "name": "Reviewer"}), |_| {});
    check(json!({"name": "Other"}), |spec| spec.name = "Other".to_owned());
    check(json!({"system": null}), |spec| spec.system = None);
    check(json!({"system": "", "description": ""}), |spec| (spec.system, spec.description) = (None, None));
    check(json!({"tools": [], "mcp_servers": null}), |spec| {
        spec.tools.clear();
        spec.mcp_servers.clear();
    });
    check(json!({"multiagent": null}), |spec| spec.multiagent = None);
    check(json!({"metadata": {"team": null, "b": "c"}}), |spec| {
        spec.metadata = [("b".to_owned(), "c".to_owned())].into()
    });
    check(json!({"metadata": {"team": ""}}), |spec| spec.metadata = [("team".to_owned(), String::new())].into());
    check(json!({"model": "m/x"}), |spec| spec.model = agents::Model { id: "m/x".to_owned(), effort: None });
    let bodies = variants(
        &json!({}),
        json!([
            {"version": 0},
            {"name": null},
            {"model": null},
            {"tools": []},
            {"mcp_servers": []},
            {"skills": [{"type": "custom", "skill_id": "s"}]},
        ]),
    );
    insta::assert_snapshot!(outcomes(&bodies, |body| agents::update(body, &current, Abilities::ALL)));
    let update = agents::update(&json!({"version": 7}), &current, Abilities::ALL).unwrap();
    assert_eq!(update.expected_version, Some(7));
}

/// A newer object of sub-agents changes only what it names.
#[test]
fn members_are_merged() {
    let create = |multiagent: Value| {
        agents::create(&json!({"name": "a", "model": "m/x", "multiagent": multiagent}), Abilities::ALL).unwrap()
    };
    let members = |subagents: Value| create(json!({"type": "multiagent_20261001", "subagents": subagents}));
    let enabled = members(json!({"type": "enabled", "predefined_agents": ["agent_b"]}));
    let disabled = members(json!({"type": "disabled"}));
    let coordinator = create(json!({"type": "coordinator", "agents": ["agent_c"]}));
    let cases = [
        (&enabled, json!({"type": "multiagent_20261001"}), &enabled),
        (&enabled, json!({"type": "multiagent_20261001", "subagents": {"type": "enabled"}}), &enabled),
        (&enabled, json!({"type": "multiagent_20261001", "subagents": {"type": "disabled"}}), &disabled),
        (&enabled, json!({"type": "multiagent_20261001", "subagents": null}), &disabled),
        (&coordinator, json!({"type": "multiagent_20261001"}), &disabled),
        (&enabled, json!({"type": "coordinator", "agents": ["agent_c"]}), &coordinator),
    ];
    for (current, multiagent, expected) in cases {
        let update = agents::update(&json!({"multiagent": multiagent}), current, Abilities::ALL).unwrap();
        assert_eq!(update.spec.multiagent, expected.multiagent, "{multiagent}");
    }
}

#[test]
fn the_tools_that_an_agent_has() {
    use ToolPermission::{AlwaysAllow, AlwaysAsk};
    let names = |tools: &[agents::Tool]| enabled_built_ins(tools);
    let all: Vec<_> = BUILT_IN[..6].iter().map(|name| (*name, AlwaysAllow)).collect();
    assert_eq!(names(&plain_spec().tools), all);
    let some = [
        ("edit", AlwaysAsk),
        ("read", AlwaysAllow),
        ("write", AlwaysAsk),
        ("glob", AlwaysAsk),
        ("grep", AlwaysAsk),
        ("web_fetch", AlwaysAsk),
        ("web_search", AlwaysAsk),
    ];
    assert_eq!(names(&whole_spec().tools), some);
    let custom: Vec<String> = agents::custom(&whole_spec().tools).map(|tool| tool.name.clone()).collect();
    assert_eq!(custom, ["weather"]);
    assert_eq!(names(&[]), []);
}

/// A client may send back what it was given.
#[test]
fn an_answer_is_a_body() {
    let spec = whole_spec();
    let answer = spec.answer(&stamp("agent_a"));
    assert_eq!(agents::update(&answer, &spec, Abilities::ALL).unwrap().spec.tools, spec.tools);
    let again = agents::create(&answer, Abilities::ALL).unwrap();
    assert_eq!((again.tools, again.model, again.mcp_servers), (spec.tools, spec.model, spec.mcp_servers));
    assert!(agents::create(&whole_agent(), Abilities::default()).is_err(), "it uses what such a server cannot do");
}
