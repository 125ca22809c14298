//! Sessions and threads.

use crate::samples::{moment, outcomes, plain_spec, pretty, stamp, variants, whole_spec};
use adj_domain::{Costs, IdleReason, SessionId, Usage, session::Status};
use adj_wire::{
    Abilities, Stamp,
    sessions::{
        self, AgentSnapshot, Checkout, Moment, Resource, ResourceSource, SessionRecord, SessionStatus, Thread,
        primary_thread_id,
    },
    usage::{Cents, Tally},
};
use serde_json::{Value, json};

fn usd(amount: u64) -> Cents {
    Cents { amount, currency: "USD".parse().unwrap() }
}

fn snapshot(id: &str) -> AgentSnapshot {
    AgentSnapshot { id: id.to_owned(), version: 1, spec: plain_spec() }
}

fn resource(source: ResourceSource, mount_path: &str) -> Resource {
    Resource {
        id: "sesrsc_1".to_owned(),
        source,
        mount_path: mount_path.to_owned(),
        created_at: moment(0),
        updated_at: moment(0),
    }
}

fn plain_record() -> SessionRecord {
    SessionRecord {
        agent: snapshot("agent_a"),
        roster: Vec::new(),
        environment_id: "env_1".to_owned(),
        title: None,
        metadata: [].into(),
        resources: Vec::new(),
        budget: None,
    }
}

fn whole_record() -> SessionRecord {
    let repository = ResourceSource::Repository {
        url: "https://github.com/owner/tool".to_owned(),
        checkout: Some(Checkout::Branch { name: "main".to_owned() }),
    };
    let bare = ResourceSource::Repository { url: "https://github.com/owner/tool".to_owned(), checkout: None };
    let file = ResourceSource::File { file_id: "file_1".to_owned() };
    SessionRecord {
        agent: AgentSnapshot { id: "agent_a".to_owned(), version: 4, spec: whole_spec() },
        roster: vec![snapshot("agent_b"), snapshot("agent_c")],
        title: Some("Title".to_owned()),
        metadata: [("team".to_owned(), "a".to_owned())].into(),
        resources: vec![
            resource(repository, "/workspace/tool"),
            resource(bare, "/workspace/other"),
            resource(file, "/mnt/session/uploads/file_1"),
        ],
        budget: Some(usd(500)),
        ..plain_record()
    }
}

fn tally() -> Tally {
    let usage = Usage {
        input_tokens: 1,
        output_tokens: 2,
        cache_read_tokens: 3,
        cache_write_tokens: 4,
        cache_write_1h_tokens: 5,
        reasoning_tokens: 0,
    };
    let costs: Costs = serde_json::from_value(json!({"amounts": [{"currency": "USD", "micros": 10_001}]})).unwrap();
    Tally { usage, costs, active_ms: 1_500, running_since: Some(moment(100)) }
}

#[test]
fn answers() {
    let tally = tally();
    let running = Moment { status: SessionStatus::Running, tally: &tally, now: moment(110) };
    insta::assert_snapshot!(pretty(&whole_record().answer(&stamp("sesn_1"), &running)));
    let nothing = Tally::default();
    let archived = Stamp { archived_at: Some(moment(90)), ..stamp("sesn_1") };
    let ended = Moment { status: SessionStatus::of(&Status::Running, true), tally: &nothing, now: moment(999) };
    insta::assert_snapshot!(pretty(&plain_record().answer(&archived, &ended)));
    insta::assert_snapshot!(pretty(&serde_json::to_value(whole_record()).unwrap()));
    let text = serde_json::to_string(&whole_record()).unwrap();
    assert_eq!(serde_json::from_str::<SessionRecord>(&text).unwrap(), whole_record());
    let text = serde_json::to_string(&tally).unwrap();
    assert_eq!(serde_json::from_str::<Tally>(&text).unwrap(), tally);
    assert_eq!(Resource::deleted("sesrsc_1"), json!({"id": "sesrsc_1", "type": "session_resource_deleted"}));
}

#[test]
fn threads() {
    let session: SessionId = "sesn_1".parse().unwrap();
    let id = primary_thread_id(&session);
    let (agent, tally) = (snapshot("agent_a"), tally());
    let idle = SessionStatus::of(&Status::Idle { reason: Some(IdleReason::EndTurn) }, false);
    let at = Moment { status: idle, tally: &tally, now: moment(110) };
    let primary = Thread { session: &session, parent: None, agent: &agent, has_started: true };
    insta::assert_snapshot!(pretty(&primary.answer(&stamp(&id), &at)));
    let child = Thread { parent: Some(&id), has_started: false, ..primary };
    insta::assert_snapshot!(pretty(&child.answer(&stamp("sthr_2"), &at)));
}

#[test]
fn what_can_be_asked_for() {
    let base = json!({"agent": "agent_a", "environment_id": "env_1"});
    let resources = |resource: Value| json!({"resources": [resource]});
    let repository = |fields: Value| {
        let base = json!({"type": "github_repository", "url": "https://github.com/owner/tool"});
        resources(variants(&base, json!([fields])).remove(0))
    };
    let budget =
        |amount: Value| json!({"budget": {"type": "limit", "max_list_cost": {"amount": amount, "currency": "USD"}}});
    let message = json!({"type": "user.message", "content": [{"type": "text", "text": "go"}]});
    let bodies = variants(
        &base,
        json!([
            {},
            {"agent": null},
            {"agent": {"type": "agent", "id": "agent_a", "version": 3}},
            {"agent": {"type": "agent", "id": "agent_a", "version": "3"}},
            {"agent": {"type": "agent_with_overrides", "id": "agent_a", "model": null}},
            {"agent": {"type": "agent_with_overrides", "id": "agent_a", "skills": []}},
            {"agent": {"type": "agent_with_overrides", "id": "agent_a", "skills": [{"type": "custom", "skill_id": "s"}]}},
            {"agent": {"type": "agent_with_overrides", "id": "agent_a", "tools": [{"type": "custom"}]}},
            {"environment_id": ""},
            {"title": 1},
            {"vault_ids": []},
            {"vault_ids": ["vlt_1"]},
            {"initial_events": [message]},
            {"initial_events": vec![message.clone(); 51]},
            {"initial_events": [{"type": "user.interrupt"}]},
            {"initial_events": [message, {"type": "user.define_outcome", "description": "d", "rubric": {}}]},
            budget(json!("500")),
            budget(json!("0")),
            budget(json!("1.5")),
            budget(json!(500)),
            {"budget": {"type": "limit", "max_list_cost": {"amount": "5", "currency": "EUR"}}},
            resources(json!({"type": "memory_store", "memory_store_id": "memstore_1"})),
            resources(json!({"type": "file", "file_id": "file_1"})),
            resources(json!({"type": "file", "file_id": "file_1", "mount_path": "/a/../b"})),
            resources(json!({"type": "file", "file_id": "file_1", "mount_path": "b"})),
            {"resources": vec![json!({"type": "file", "file_id": "file_1"}); 2]},
            repository(json!({})),
            repository(json!({"url": "https://token@github.com/owner/tool"})),
            repository(json!({"url": "git@github.com:owner/tool"})),
            repository(json!({"url": "https://github.com/owner/.."})),
            repository(json!({"checkout": {"type": "commit", "sha": "0123abc"}})),
            repository(json!({"checkout": {"type": "commit", "sha": "main"}})),
            repository(json!({"checkout": {"type": "branch", "name": "--upload-pack=x"}})),
            repository(json!({"authorization_token": "a b"})),
        ]),
    );
    insta::assert_snapshot!(outcomes(&bodies, |body| sessions::create(body, Abilities::ALL)));
    let bodies = variants(&base, json!([resources(json!({"type": "file", "file_id": "f"})), repository(json!({}))]));
    insta::assert_snapshot!(outcomes(&bodies, |body| sessions::create(body, Abilities::default())));
    let bodies = [
        json!({"type": "file", "file_id": "file_1"}),
        json!({"type": "github_repository", "url": "https://github.com/owner/tool"}),
    ];
    insta::assert_snapshot!(outcomes(&bodies, |body| sessions::add_resource(body, Abilities::ALL)));
}

#[test]
fn a_session_changes_its_agent_for_itself() {
    let body = json!({"environment_id": "env_1", "agent": {
        "type": "agent_with_overrides",
        "id": "agent_a",
        "model": "m/x",
        "system": null,
        "tools": [],
        "mcp_servers": [],
    }});
    let agent = sessions::create(&body, Abilities::ALL).unwrap().agent;
    let found = agent.apply(&whole_spec()).unwrap();
    assert_eq!((found.model.effort, found.system, found.tools.len()), (None, None, 0));
    assert_eq!(found.name, whole_spec().name);
    let body = json!({"environment_id": "env_1", "agent": {"type": "agent_with_overrides", "id": "a", "tools": []}});
    let agent = sessions::create(&body, Abilities::ALL).unwrap().agent;
    let refused = agent.apply(&whole_spec()).unwrap_err().to_string();
    assert_eq!(refused, "agent.mcp_servers[0]: no mcp_toolset uses the server \"tickets\"");
}

/// Tokens are read, and shown nowhere.
#[test]
fn tokens_stay_out_of_sight() {
    let body = json!({"agent": "a", "environment_id": "e", "resources": [
        {"type": "github_repository", "url": "https://github.com/owner/tool.git", "authorization_token": "ghp_secret"},
    ]});
    let session = sessions::create(&body, Abilities::ALL).unwrap();
    let resource = &session.resources[0];
    assert_eq!(resource.token.as_ref().unwrap().expose(), "ghp_secret");
    assert_eq!(resource.mount_path, "/workspace/tool");
    assert!(!format!("{session:?}").contains("ghp_secret"));
    let token = sessions::rotate_token(&json!({"authorization_token": "ghp_new"}), Abilities::ALL).unwrap();
    assert_eq!(token.expose(), "ghp_new");
}

#[test]
fn updates() {
    let apply = |body: &Value, record: &SessionRecord| {
        sessions::update(body, Abilities::ALL).and_then(|update| update.apply(record, Some(&usd(100))))
    };
    let budget =
        |amount: &str| json!({"budget": {"type": "limit", "max_list_cost": {"amount": amount, "currency": "USD"}}});
    let bodies = variants(
        &json!({}),
        json!([
            {"vault_ids": []},
            {"agent": {"model": "m/x"}},
            {"agent": {"tools": []}},
            {"title": "x".repeat(1_025)},
            budget("100"),
            budget("101"),
        ]),
    );
    insta::assert_snapshot!(outcomes(&bodies, |body| apply(body, &whole_record())));
    insta::assert_snapshot!(outcomes(&[budget("900")], |body| apply(body, &plain_record())));

    let told = |body: Value| {
        let changed = apply(&body, &whole_record()).unwrap().changed_since(&whole_record());
        changed.map(|changed| changed.keys().cloned().collect::<Vec<_>>())
    };
    assert_eq!(told(json!({})), None);
    assert_eq!(told(json!({"title": "Title", "metadata": {"team": "a"}})), None);
    assert_eq!(told(json!({"title": null, "budget": null})).unwrap(), ["title", "budget"]);
    assert_eq!(told(json!({"metadata": {"b": "c"}})).unwrap(), ["metadata"]);
    let servers = json!({"agent": {"tools": [], "mcp_servers": []}});
    assert_eq!(told(servers).unwrap(), ["agent"]);
}

#[test]
fn costs_are_told_where_they_are_known() {
    let listed = |costs: Value| adj_wire::usage::list_cost(&serde_json::from_value(costs).unwrap());
    let usd_of = |micros: u64| json!({"currency": "USD", "micros": micros});
    let cases = [
        (json!({}), None),
        (json!({"amounts": [usd_of(10_000)]}), Some(1)),
        (json!({"amounts": [usd_of(10_001)]}), Some(2)),
        (json!({"amounts": [usd_of(10_000)], "quota": [usd_of(20_000)]}), Some(3)),
        (json!({"amounts": [usd_of(10_000)], "unpriced": 1}), None),
        (json!({"amounts": [{"currency": "EUR", "micros": 1}, usd_of(1)]}), None),
    ];
    for (costs, expected) in cases {
        assert_eq!(listed(costs.clone()).map(|cents| cents.amount), expected, "{costs}");
    }
    insta::assert_snapshot!(serde_json::to_string(&usd(5).limits()).unwrap());
}
