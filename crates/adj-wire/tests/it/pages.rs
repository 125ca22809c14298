//! Queries, pages and cursors.

use crate::samples::{moment, stamp};
use adj_domain::BlobHash;
use adj_wire::{
    Cursor, Invalid, Query,
    agents::AgentsQuery,
    environments::EnvironmentsQuery,
    events::{EventsQuery, StreamQuery},
    files::{FileSpec, FilesQuery, expires_in, file_name, media_type},
    models::{ModelInfo, ModelsQuery},
    page,
    query::Order,
    sessions::{ResourcesQuery, SessionsQuery, ThreadsQuery},
};
use serde_json::json;
use std::fmt::Debug;

fn shown<T: Debug>(raw: &str, read: impl Fn(&Query) -> Result<T, Invalid>) -> String {
    match Query::parse(raw).and_then(|query| read(&query)) {
        Ok(read) => format!("?{raw}\n    {read:?}\n"),
        Err(invalid) => format!("?{raw}\n    {invalid}\n"),
    }
}

#[test]
fn queries_of_every_list() {
    let text = [
        shown("", AgentsQuery::read),
        shown("limit=100&page=page_x&include_archived=true&beta=true", AgentsQuery::read),
        shown("created_at%5Bgte%5D=2026-01-01T00%3A00%3A00%2B01%3A00&created_at[lte]=2026-01-02", AgentsQuery::read),
        shown("created_at[gte]=2026-01-01T00:00:00+01:00", AgentsQuery::read),
        shown("created_at[gte]=yesterday", AgentsQuery::read),
        shown("limit=0", AgentsQuery::read),
        shown("limit=101", AgentsQuery::read),
        shown("limit=5&limit=6", AgentsQuery::read),
        shown("include_archived=yes", EnvironmentsQuery::read),
        shown("statuses[]=idle&statuses%5B%5D=running&statuses=terminated", SessionsQuery::read),
        shown("order=asc&agent_id=agent_1&agent_version=2&created_at[gt]=2026-01-02T03:04:05Z", SessionsQuery::read),
        shown("statuses[]=asleep", SessionsQuery::read),
        shown("order=down", SessionsQuery::read),
        shown("deployment_id=depl_1", SessionsQuery::read),
        shown("", ThreadsQuery::read),
        shown("limit=1001", ResourcesQuery::read),
        shown("types%5B%5D=agent.message&types%5B%5D=user.message&limit=1000", EventsQuery::read),
        shown("event_deltas[]=agent.message&event_deltas[]=agent.thinking", StreamQuery::read),
        shown("event_deltas[]=agent.tool_use", StreamQuery::read),
        shown(&"event_deltas[]=agent.message&".repeat(101), StreamQuery::read)
            .replace("event_deltas[]=agent.message&", ""),
        shown("scope_id=sesn_1&limit=1000", FilesQuery::read),
        shown("scope_id=other", FilesQuery::read),
        shown("ids[]=file_1&ids[]=file_2", FilesQuery::read),
        shown("ids[]=file_1&limit=2", FilesQuery::read),
        shown("after_id=a&limit=2&lifecycle[]=active", ModelsQuery::read),
        shown("after_id=a&before_id=b", ModelsQuery::read),
        shown("limit=%ff", AgentsQuery::read),
        shown("limit=5%", AgentsQuery::read),
    ];
    insta::assert_snapshot!(text.concat());
}

#[test]
fn events_are_filtered_by_type_and_time() {
    let query = |raw: &str| EventsQuery::read(&Query::parse(raw).unwrap()).unwrap();
    let at = |seconds| Some(moment(seconds));
    let cases = [
        ("", "agent.message", at(0), true),
        ("", "user.message", None, true),
        ("types[]=agent.message", "agent.message", at(0), true),
        ("types[]=agent.message", "agent.thinking", at(0), false),
        ("created_at[gt]=2026-01-02T03:04:05.678Z", "agent.message", at(0), false),
        ("created_at[gte]=2026-01-02T03:04:05.678Z", "agent.message", at(0), true),
        ("created_at[lt]=2026-01-02T03:04:05.678Z", "agent.message", at(0), false),
        ("created_at[lte]=2026-01-02T03:04:05.678Z", "agent.message", at(0), true),
        ("created_at[lte]=2026-01-02T03:04:05.678Z", "agent.message", at(1), false),
        ("created_at[lte]=2026-01-02T03:04:05.678Z", "user.message", None, false),
    ];
    for (raw, kind, at, expected) in cases {
        assert_eq!(query(raw).includes(kind, at), expected, "{raw} {kind} {at:?}");
    }
}

#[test]
fn cursors_are_good_for_their_list_and_order() {
    let cursor = Cursor::forwards("sessions", Order::Descending, "2026|sesn_1");
    let text = cursor.encode();
    let back = Cursor::backwards("sessions", Order::Descending, "2026|sesn_1").encode();
    let garbled = format!("{}x", &text[..text.len() - 2]);
    let long = format!("page_{}", "A".repeat(10_000));
    let cases = [
        (text.as_str(), "sessions", Order::Descending, "is read"),
        (back.as_str(), "sessions", Order::Descending, "is read"),
        (text.as_str(), "sessions", Order::Ascending, "page: is the cursor of a list in another order"),
        (text.as_str(), "agents", Order::Descending, "page: is the cursor of another list"),
        (garbled.as_str(), "sessions", Order::Descending, "page: is not a cursor of this API"),
        (&text[5..], "sessions", Order::Descending, "page: is not a cursor of this API"),
        (long.as_str(), "sessions", Order::Descending, "page: is not a cursor of this API"),
        ("", "sessions", Order::Descending, "page: is not a cursor of this API"),
    ];
    for (text, list, order, expected) in cases {
        let found = match Cursor::decode(text, list, order) {
            Ok(_) => "is read".to_owned(),
            Err(invalid) => invalid.to_string(),
        };
        assert_eq!(found, expected, "{text} {list} {order:?}");
    }
}

#[test]
fn pages_of_every_age() {
    let next = Cursor::forwards("sessions", Order::Descending, "1");
    let data = || vec![json!({"id": "a"}), json!({"id": "b"})];
    let pages = [
        page::page(data(), Some(&next)),
        page::page(Vec::new(), None),
        page::page_with_previous(data(), None, Some(&next)),
        page::old_page(data(), true),
        page::old_page(Vec::new(), false),
        page::page_of_both_ages(data(), Some(&next)),
        page::deleted("file_deleted", "file_1"),
    ];
    insta::assert_snapshot!(pages.map(|page| format!("{page}\n")).concat());
}

#[test]
fn models_are_paged_by_their_names() {
    let model = |id: &str| ModelInfo {
        id: id.to_owned(),
        display_name: id.to_owned(),
        created_at: None,
        max_input_tokens: Some(200_000),
        max_output_tokens: None,
    };
    let models = ["a", "b", "c", "d", "e"].map(model);
    let cases = [
        ("limit=2", "ab", true),
        ("limit=2&after_id=b", "cd", true),
        ("limit=2&after_id=d", "e", false),
        ("limit=2&before_id=d", "bc", true),
        ("limit=2&before_id=b", "a", false),
        ("lifecycle[]=retired", "", false),
        ("lifecycle[]=retired&lifecycle[]=active", "abcde", false),
    ];
    for (raw, expected, more) in cases {
        let query = ModelsQuery::read(&Query::parse(raw).unwrap()).unwrap();
        let (page, has_more) = query.select(&models).unwrap();
        let ids: String = page.iter().map(|model| model.id.as_str()).collect();
        assert_eq!((ids.as_str(), has_more), (expected, more), "{raw}");
    }
    for raw in ["after_id=z", "before_id=z"] {
        let query = ModelsQuery::read(&Query::parse(raw).unwrap()).unwrap();
        let refusal = query.select(&models).unwrap_err().to_string();
        assert!(refusal.contains("names no model of this list"), "{raw}: {refusal}");
    }
    insta::assert_snapshot!(models[0].answer());
}

#[test]
fn files() {
    let plain = FileSpec {
        filename: "a.txt".to_owned(),
        mime_type: "text/plain".to_owned(),
        size_bytes: 2,
        blob: BlobHash::of(b"hi"),
        expires_at: None,
        session: None,
    };
    let made = FileSpec { expires_at: Some(moment(90)), session: Some("sesn_1".parse().unwrap()), ..plain.clone() };
    let answers = [&plain, &made].map(|file| format!("{}\n", file.answer(&stamp("file_1"))));
    insta::assert_snapshot!(answers.concat());
    for file in [plain, made] {
        let text = serde_json::to_string(&file).unwrap();
        assert_eq!(serde_json::from_str::<FileSpec>(&text).unwrap(), file, "{text}");
    }
    let names = [
        ("a.txt", true),
        ("a b.txt", true),
        ("", false),
        ("..", false),
        ("a/b", false),
        ("a\\b", false),
        ("a\n", false),
    ];
    for (name, good) in names {
        assert_eq!(file_name(name).is_ok(), good, "{name:?}");
    }
    assert!(file_name(&"x".repeat(256)).is_err());
    let types = [
        (Some("text/plain; charset=utf-8"), "text/plain; charset=utf-8"),
        (Some("odd\r\nheader: x/y"), "application/octet-stream"),
        (Some("odd"), "application/octet-stream"),
        (None, "application/octet-stream"),
    ];
    for (text, expected) in types {
        assert_eq!(media_type(text), expected, "{text:?}");
    }
    for (text, expected) in
        [("3600", Some(3_600)), ("3599", None), ("7776000", Some(7_776_000)), ("7776001", None), ("", None)]
    {
        assert_eq!(expires_in(text).ok().map(|after| after.as_secs()), expected, "{text:?}");
    }
}
