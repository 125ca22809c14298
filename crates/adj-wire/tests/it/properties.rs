//! Whatever is sent, somebody gets an answer; whatever is kept, is read back.

use crate::samples::{plain_spec, stamp, whole_agent, whole_spec};
use adj_wire::{
    Abilities, Cursor, Query,
    agents::{self, AgentSpec, AgentsQuery},
    environments::{self, EnvironmentSpec, EnvironmentsQuery},
    events::{self, EventsQuery, StreamQuery},
    files::{self, FilesQuery},
    models::ModelsQuery,
    query::Order,
    sessions::{self, SessionsQuery, ThreadsQuery},
    unsupported::unsupported,
};
use proptest::{collection::vec, prelude::*, sample::select, string::string_regex};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};
use std::fmt::Debug;

/// The contract's words, so that what is made up gets past the first field.
const NAMES: [&str; 40] = [
    "type",
    "name",
    "model",
    "id",
    "effort",
    "speed",
    "system",
    "tools",
    "configs",
    "default_config",
    "enabled",
    "permission_policy",
    "mcp_servers",
    "mcp_server_name",
    "url",
    "multiagent",
    "agents",
    "subagents",
    "predefined_agents",
    "metadata",
    "config",
    "networking",
    "allowed_hosts",
    "packages",
    "pip",
    "agent",
    "environment_id",
    "resources",
    "file_id",
    "mount_path",
    "checkout",
    "initial_events",
    "events",
    "content",
    "text",
    "source",
    "data",
    "media_type",
    "budget",
    "version",
];
const WORDS: [&str; 28] = [
    "agent",
    "custom",
    "agent_toolset_20260401",
    "mcp_toolset",
    "always_ask",
    "coordinator",
    "multiagent_20261001",
    "enabled",
    "self",
    "cloud",
    "limited",
    "unrestricted",
    "agent_with_overrides",
    "file",
    "github_repository",
    "user.message",
    "user.custom_tool_result",
    "system.message",
    "text",
    "image",
    "document",
    "base64",
    "url",
    "limit",
    "https://github.com/a/b",
    "bash",
    "",
    "/a/b",
];

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        select(&WORDS[..]).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 60, 8, |inner| {
        let name = prop_oneof![9 => select(&NAMES[..]).prop_map(str::to_owned), 1 => any::<String>()];
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::Array),
            vec((name, inner), 0..8).prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

/// A good body with one value of it, somewhere, replaced.
fn nearly(body: Value) -> impl Strategy<Value = Value> {
    fn put(value: &mut Value, place: &mut usize, new: &Value) {
        if *place == 0 {
            *value = new.clone();
        }
        *place = place.wrapping_sub(1);
        match value {
            Value::Array(list) => list.iter_mut().for_each(|inner| put(inner, place, new)),
            Value::Object(map) => map.values_mut().for_each(|inner| put(inner, place, new)),
            _ => {}
        }
    }
    (json_value(), 0usize..60).prop_map(move |(new, mut place)| {
        let mut body = body.clone();
        put(&mut body, &mut place, &new);
        body
    })
}

fn read_everything(body: &Value) {
    for can in [Abilities::default(), Abilities::ALL] {
        if let Ok(spec) = agents::create(body, can) {
            check_stored(&spec);
            spec.answer(&stamp("agent_a"));
        }
        for current in [plain_spec(), whole_spec()] {
            let _ = agents::update(body, &current, can);
        }
        if let Ok(spec) = environments::create(body, can) {
            check_stored(&spec);
            let answer = spec.answer(&stamp("env_1"));
            assert_eq!(environments::create(&answer, Abilities::ALL).as_ref(), Ok(&spec), "{answer}");
            let _ = environments::update(body, &spec, can);
        }
        let _ = sessions::create(body, can);
        let _ = sessions::update(body, can);
        let _ = sessions::add_resource(body, can);
        let _ = sessions::rotate_token(body, can);
        if let Ok(sent) = events::send(body, can) {
            for event in sent {
                event.answer(&"sevt_1".parse().unwrap(), None);
            }
        }
    }
}

fn check_stored<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) {
    let text = serde_json::to_string(value).unwrap();
    assert_eq!(&serde_json::from_str::<T>(&text).unwrap(), value, "{text}");
}

fn read_every_query(raw: &str) {
    let Ok(query) = Query::parse(raw) else { return };
    let _ = AgentsQuery::read(&query);
    let _ = EnvironmentsQuery::read(&query);
    let _ = SessionsQuery::read(&query);
    let _ = ThreadsQuery::read(&query);
    let _ = EventsQuery::read(&query);
    let _ = StreamQuery::read(&query);
    let _ = FilesQuery::read(&query);
    let _ = ModelsQuery::read(&query);
}

fn environment() -> Value {
    let networking = json!({"type": "limited", "allowed_hosts": ["a.org"], "allow_package_managers": true});
    json!({"name": "e", "config": {"type": "cloud", "networking": networking, "packages": {"pip": ["a"]}}})
}

fn batch() -> Value {
    let text = json!([{"type": "text", "text": "hi"}]);
    json!({"events": [
        {"type": "user.message", "content": text},
        {"type": "user.custom_tool_result", "custom_tool_use_id": "sevt_1", "content": text},
        {"type": "system.message", "content": text},
    ]})
}

proptest! {
    #[test]
    fn no_body_is_too_odd(body in json_value()) {
        read_everything(&body);
    }

    #[test]
    fn no_agent_is_too_odd(body in nearly(whole_agent())) {
        read_everything(&body);
    }

    #[test]
    fn no_environment_is_too_odd(body in nearly(environment())) {
        read_everything(&body);
    }

    #[test]
    fn no_batch_is_too_odd(body in nearly(batch())) {
        read_everything(&body);
    }

    #[test]
    fn no_text_is_too_odd(text in prop_oneof![any::<String>(), string_regex("[a-z_%&=\\[\\]0-9+.:-]{0,60}").unwrap()]) {
        read_every_query(&text);
        let _ = Cursor::decode(&text, "agents", Order::Ascending);
        let _ = Cursor::decode(&format!("page_{text}"), "agents", Order::Ascending);
        let _ = unsupported(&text);
        let _ = files::file_name(&text);
        let _ = files::expires_in(&text);
        events::last_event_id(&text);
        prop_assert!(files::media_type(Some(&text)).contains('/'));
    }

    #[test]
    fn cursors_lead_back(list in any::<String>(), position in any::<String>(), back in any::<bool>()) {
        prop_assume!(list.len() + position.len() < 500);
        let order = if back { Order::Ascending } else { Order::Descending };
        let cursor = match back {
            true => Cursor::backwards(list.as_str(), order, position),
            false => Cursor::forwards(list.as_str(), order, position),
        };
        let text = cursor.encode();
        prop_assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte)), "{}", text);
        prop_assert_eq!(Cursor::decode(&text, &list, order), Ok(cursor));
    }

    /// What is kept of agents of every make is read back, and changing it back changes it back.
    #[test]
    fn agents_are_read_back(name in "[a-z]{1,9}", system in any::<Option<String>>(), pairs in vec(("[a-z]{1,4}", ".{0,9}"), 0..9)) {
        let metadata: Map<String, Value> = pairs.into_iter().map(|(key, value)| (key, value.into())).collect();
        let mut body = whole_agent();
        body["name"] = json!(name);
        body["system"] = json!(system);
        body["metadata"] = Value::Object(metadata);
        let spec: AgentSpec = agents::create(&body, Abilities::ALL).unwrap();
        check_stored(&spec);
        let other = agents::update(&body, &plain_spec(), Abilities::ALL).unwrap().spec;
        prop_assert_eq!((&other.name, &other.system, &other.tools), (&spec.name, &spec.system, &spec.tools));
        let again = agents::update(&body, &spec, Abilities::ALL).unwrap().spec;
        prop_assert_eq!(again, spec);
    }
}

#[test]
fn environments_are_read_back() {
    let spec: EnvironmentSpec = environments::create(&environment(), Abilities::ALL).unwrap();
    check_stored(&spec);
}
