//! Events as they are stored: a name or a field never changes by accident, and readers of all ages get along.

use crate::samples::{run_events, session_events, step};
use adj_domain::{EventBody, RequestResult, RunEvent, SessionEvent, StepKind, event::Input};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use std::{collections::BTreeSet, fmt::Debug};

fn lines<E: Serialize>(events: &[E]) -> String {
    events.iter().map(|event| serde_json::to_string(event).unwrap() + "\n").collect()
}

#[test]
fn the_bytes_of_every_session_event() {
    let events = session_events();
    insta::assert_snapshot!(lines(&events));
    check_names(&events, SessionEvent::name, 29);
}

#[test]
fn the_bytes_of_every_run_event() {
    let events = run_events();
    insta::assert_snapshot!(lines(&events));
    check_names(&events, RunEvent::name, 21);
}

/// There is a sample of each kind, under the name that the code gives it.
fn check_names<E: EventBody + Clone>(events: &[E], name: fn(&E) -> &'static str, kinds: usize) {
    let mut seen = BTreeSet::new();
    for event in events {
        let stored = event.clone().into_new("sevt_1".parse().unwrap());
        assert_eq!(stored.kind, name(event));
        seen.insert(stored.kind);
    }
    assert_eq!(seen.len(), kinds, "{seen:?}");
}

#[test]
fn what_is_stored_is_read_back() {
    check_round_trip(&session_events());
    check_round_trip(&run_events());
}

fn check_round_trip<E: Serialize + DeserializeOwned + PartialEq + Debug>(events: &[E]) {
    for event in events {
        let text = serde_json::to_string(event).unwrap();
        assert_eq!(&serde_json::from_str::<E>(&text).unwrap(), event, "{text}");
    }
}

/// A newer build may add a field to any object of ours.
#[test]
fn fields_of_a_newer_build_are_passed_over() {
    check_unknown_fields(&session_events());
    check_unknown_fields(&run_events());
}

fn check_unknown_fields<E: Serialize + DeserializeOwned + PartialEq + Debug>(events: &[E]) {
    for event in events {
        let mut value = serde_json::to_value(event).unwrap();
        let before = value.clone();
        add_field(&mut value);
        assert_ne!(value, before);
        let read = serde_json::from_value::<E>(value.clone());
        assert_eq!(&read.unwrap_or_else(|error| panic!("{error}: {value}")), event);
    }
}

fn add_field(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (name, inner) in map.iter_mut() {
                // Schemas, inputs and payloads belong to others; some maps have names as keys; a variant's value is named by its only key.
                if ![
                    "input_schema",
                    "output_schema",
                    "schema",
                    "input",
                    "payload",
                    "kind",
                    "stop",
                    "limits",
                    "env",
                    "permissions",
                    // Amounts, by unit.
                    "amounts",
                    "at_least",
                    "at_most",
                    "request",
                    "turn",
                    "session",
                    "run",
                ]
                .contains(&name.as_str())
                {
                    add_field(inner);
                }
            }
            map.insert("from_the_future".to_owned(), json!({"x": [1]}));
        }
        Value::Array(list) => list.iter_mut().for_each(add_field),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// An older build did not write these fields yet.
#[test]
fn fields_that_came_later_have_defaults() {
    fn without(event: &impl Serialize, fields: &[&str]) -> Value {
        fn remove(value: &mut Value, field: &str) {
            match value {
                Value::Object(map) => {
                    map.shift_remove(field);
                    map.values_mut().for_each(|inner| remove(inner, field));
                }
                Value::Array(list) => list.iter_mut().for_each(|inner| remove(inner, field)),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
            }
        }
        let mut value = serde_json::to_value(event).unwrap();
        fields.iter().for_each(|field| remove(&mut value, field));
        value
    }
    let session = ["effort", "run", "title", "output_schema", "raw_input", "exit_code", "duration_ms", "full_output"];
    let more =
        ["changed", "first_token_ms", "http_status", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens"];
    for event in session_events() {
        let value = without(&event, &[&session[..], &more[..]].concat());
        let read = serde_json::from_value::<SessionEvent>(value.clone());
        assert_eq!(read.unwrap_or_else(|error| panic!("{error}: {value}")).name(), event.name());
    }
    let run = ["dirty_snapshot", "effort", "follow_up_prompt", "schema", "depends_on", "check", "more_changed"];
    for event in run_events().into_iter().filter(|event| event.name() != "run.created") {
        let value = without(&event, &run);
        let read = serde_json::from_value::<RunEvent>(value.clone());
        assert_eq!(read.unwrap_or_else(|error| panic!("{error}: {value}")).name(), event.name());
    }
    let created = without(&run_events()[0], &[&run[..], &["model"]].concat());
    assert!(serde_json::from_value::<RunEvent>(created).is_err(), "a run has had its model from the start");
    let created = without(&run_events()[1], &run);
    assert!(serde_json::from_value::<RunEvent>(created).is_ok());
}

#[test]
fn what_waits_in_a_queue() {
    let input: Input = serde_json::from_value(json!({"type": "user.message", "content": [], "later": 1})).unwrap();
    assert_eq!(serde_json::to_string(&input).unwrap(), r#"{"type":"user.message","content":[]}"#);
}

/// The ids of messages are made from these words, so an old run could otherwise not be taken up.
#[test]
fn turns_keep_their_words() {
    let kinds = [StepKind::Plan, StepKind::FollowUp, StepKind::Repair, StepKind::Build(1), StepKind::Build(2)];
    let words: Vec<String> = kinds.iter().map(StepKind::to_string).collect();
    assert_eq!(words, ["plan", "follow-up", "repair", "build", "build (attempt 2)"]);
    assert_eq!(step("a").to_string(), "a");
}

/// The ids of events and sessions are made from others' ids, so an old log could otherwise not be taken up.
#[test]
fn derived_ids_stay_what_they_are() {
    let ids = format!(
        "{} {} {}",
        adj_domain::EventId::derive(&["run_1", "2"]),
        adj_domain::SessionId::derive(&["run_1", "planner"]),
        adj_domain::RunId::from_random([7; 20]),
    );
    insta::assert_snapshot!(ids);
}

#[test]
fn time_in_the_queue_is_stored_where_there_was_any() {
    let of = |queued: &str| {
        let json =
            format!(r#"{{"status":"failed","kind":"rate_limit","message":"m","attempts":1,"latency_ms":9{queued}}}"#);
        let result: RequestResult = serde_json::from_str(&json).unwrap();
        assert_eq!(serde_json::to_string(&result).unwrap(), json);
        match result {
            RequestResult::Failed { queued_ms, .. } => queued_ms,
            RequestResult::Answered { .. } | RequestResult::Abandoned | RequestResult::Refused { .. } => {
                unreachable!("the status says failed")
            }
        }
    };
    assert_eq!((of(""), of(r#","queued_ms":5"#)), (0, 5));
}
