//! Events, both ways.

use crate::samples::{moment, outcomes};
use adj_domain::{
    Content, EventId, FailureKind, IdleReason, PendingInput, RequestResult, Ruling, SessionEvent, Verdict, event::Input,
};
use adj_wire::{
    Abilities, ApiError, Invalid,
    events::{self, Announcement, ClientEvent, Entry, LoadedFile, McpTool, Projection, ThreadStatus, WireEvent},
    usage::{Cents, Tally},
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

fn id(number: usize) -> EventId {
    format!("sevt_{number}").parse().unwrap()
}

fn log(bodies: Vec<Value>) -> Vec<Entry> {
    let entry = |(index, body): (usize, Value)| Entry {
        seq: index as u64 + 1,
        id: id(index + 1),
        at: moment(index as i64),
        event: serde_json::from_value(body.clone()).unwrap_or_else(|error| panic!("{error}: {body}")),
    };
    bodies.into_iter().enumerate().map(entry).collect()
}

fn lines(events: &[WireEvent]) -> String {
    events.iter().map(|event| format!("{} {}\n", event.seq, event.json)).collect()
}

fn answered() -> Value {
    json!({
        "type": "span.model_request_end",
        "model_request_start_id": "sevt_4",
        "result": {
            "status": "answered",
            "model": "m",
            "stop": "tool_use",
            "model_usage": {"input_tokens": 1, "output_tokens": 2, "cache_read_tokens": 3, "cache_write_tokens": 4, "cache_write_1h_tokens": 5},
            "cost": {"micros": 25_000, "currency": "USD", "price": "p"},
            "attempts": 1,
            "latency_ms": 1,
        },
    })
}

fn ended(result: Value) -> Value {
    json!({"type": "span.model_request_end", "model_request_start_id": "sevt_4", "result": result})
}

fn tool_use(name: &str, input: Value) -> Value {
    json!({"type": "agent.tool_use", "name": name, "input": input, "vendor_call_id": "toolu_1"})
}

fn decided(call: usize, verdict: &str) -> Value {
    json!({"type": "policy.decided", "tool_use_id": id(call), "verdict": verdict, "layer": "agent", "rule": "all"})
}

fn result_of(call: usize) -> Value {
    let content = json!([{"type": "text", "text": "done"}]);
    json!({"type": "agent.tool_result", "tool_use_id": id(call), "content": content, "is_error": false})
}

/// A turn with every kind of call, and a second one that waits for a person.
fn whole_log() -> Vec<Entry> {
    let hash = "0".repeat(64);
    let spec = json!({
        "agent": {"name": "a", "role": "agent", "model": "v/m", "tools": [], "max_output_tokens": 1, "max_steps": 1, "context_window_tokens": 1},
        "system": [],
        "workspace": {"type": "direct", "path": "/p"},
        "sandbox": "workspace-write",
    });
    let mut raw = tool_use("bash", Value::Null);
    raw["raw_input"] = json!("{");
    log(vec![
        json!({"type": "session.created", "spec": spec}),
        json!({"type": "session.status_running", "turn": 1}),
        json!({"type": "user.message", "content": [
            {"type": "text", "text": "look\nhere"},
            {"type": "image", "media_type": "image/png", "data": "AA=="},
            {"type": "image_url", "url": "https://example.org/a.png"},
            {"type": "document", "media_type": "application/pdf", "data": "AA==", "name": "a.pdf"},
            {"type": "document", "media_type": "text/plain", "data": "aGk="},
        ]}),
        json!({"type": "span.model_request_start", "turn": 1, "step": 0, "purpose": "step", "model": "v/m",
            "prompt": {"hash": hash, "items": 1, "estimated_tokens": 1}}),
        json!({"type": "agent.thinking", "vendor": "v", "model": "m", "payload": {"secret": "thought"}}),
        json!({"type": "agent.message", "content": [{"type": "text", "text": "I look."}]}),
        tool_use("bash", json!({"command": "ls"})),
        json!({"type": "agent.custom_tool_use", "name": "weather", "input": {"place": "Rome"}, "vendor_call_id": "toolu_2"}),
        tool_use("tickets_find", json!({})),
        raw,
        tool_use("write", json!("text")),
        answered(),
        decided(7, "allow"),
        decided(9, "allow"),
        decided(11, "ask"),
        json!({"type": "tool.started", "tool_use_id": id(7)}),
        result_of(7),
        result_of(9),
        json!({"type": "approval.requested", "subject": {"type": "tool", "tool_use_id": id(11), "binding": hash}, "expires_at": "2026-01-02T03:04:05Z"}),
        json!({"type": "session.usage", "usage": {"input_tokens": 1, "output_tokens": 2}}),
        json!({"type": "session.status_idle", "stop_reason": {"type": "requires_action", "event_ids": [id(11)]}}),
        json!({"type": "session.status_running", "turn": 1}),
        json!({"type": "user.tool_confirmation", "tool_use_id": id(11), "result": "deny", "deny_message": "no", "by": "me"}),
        decided(11, "deny"),
        result_of(11),
        json!({"type": "user.custom_tool_result", "custom_tool_use_id": id(8), "content": [{"type": "text", "text": "sun"}], "is_error": false}),
        json!({"type": "custom_tool.result_refused", "custom_tool_use_id": id(8), "why": "it came twice"}),
        json!({"type": "user.interrupt"}),
        ended(json!({"status": "failed", "kind": "overloaded", "message": "busy", "attempts": 3, "latency_ms": 1})),
        ended(json!({"status": "abandoned"})),
        json!({"type": "agent.thread_context_compacted", "summary": "s", "tokens_before": 1, "items_dropped": 1}),
        json!({"type": "session.error", "kind": "overloaded", "message": "busy"}),
        json!({"type": "session.usage", "usage": {"input_tokens": 1, "output_tokens": 2}}),
        json!({"type": "session.status_idle", "stop_reason": {"type": "retries_exhausted"}}),
    ])
}

fn tools() -> BTreeMap<String, McpTool> {
    [("tickets_find".to_owned(), McpTool { server: "tickets".to_owned(), name: "find".to_owned() })].into()
}

#[test]
fn a_log_as_clients_see_it() {
    let budget = Cents { amount: 500, currency: "USD".parse().unwrap() };
    let mut projection = Projection::new(tools(), Some(budget), Some(Tally::default()));
    let events = projection.feed(&whole_log());
    insta::assert_snapshot!(lines(&events));
    assert_eq!(projection.tally().unwrap().active_ms, 19_000 + 12_000);
    for event in &events {
        assert_eq!(event.json["type"], event.kind);
        assert!(!event.json.to_string().contains("secret"));
    }
}

/// What it was fed in pieces is what it was fed at once, where each piece holds whole decisions.
#[test]
fn pieces_make_the_whole() {
    let log = whole_log();
    let mut whole = Projection::new(tools(), None, Some(Tally::default()));
    let mut pieces = whole.clone();
    let at_once = whole.feed(&log);
    let mut in_pieces = pieces.feed(&log[..19]);
    log[19..].iter().for_each(|entry| in_pieces.extend(pieces.feed(std::slice::from_ref(entry))));
    assert_eq!(at_once, in_pieces);
    let mut late = Projection::new(tools(), None, None);
    insta::assert_snapshot!(lines(&late.feed(&log[32..])));
}

#[test]
fn every_reason_to_rest() {
    let reasons = [
        IdleReason::EndTurn,
        IdleReason::Interrupted,
        IdleReason::RetriesExhausted,
        IdleReason::Refusal,
        IdleReason::MaxTokens,
        IdleReason::StepLimit,
        IdleReason::RequiresAction { event_ids: vec![id(1)] },
        IdleReason::BudgetReached { purse: "session:sesn_1".parse().unwrap() },
        IdleReason::OutputInvalid { errors: Vec::new() },
    ];
    let line = |reason: IdleReason| {
        let told = Announcement::Thread {
            thread: "sthr_1".to_owned(),
            agent_name: "a".to_owned(),
            status: ThreadStatus::Idle { reason: reason.clone() },
        };
        let told = told.answer(&id(1), moment(0));
        let entry = Entry { seq: 1, id: id(1), at: moment(0), event: SessionEvent::StatusIdle { stop_reason: reason } };
        let event = &Projection::new(tools(), None, None).feed(&[entry])[0].json;
        assert_eq!((&told["stop_reason"], &told["stop_details"]), (&event["stop_reason"], &event["stop_details"]));
        format!("{} {}\n", event["stop_reason"], event["stop_details"])
    };
    insta::assert_snapshot!(reasons.map(line).concat());
}

#[test]
fn every_failure() {
    use FailureKind::*;
    let kinds = [
        Connection,
        Timeout,
        Authentication,
        Billing,
        RateLimit,
        Overloaded,
        InvalidRequest,
        ContextTooLong,
        Protocol,
        Server,
        Cancelled,
        Budget,
    ];
    let line = |kind: FailureKind| {
        let event = SessionEvent::Error { kind, message: "m".to_owned() };
        let entry = Entry { seq: 1, id: id(1), at: moment(0), event };
        format!("{kind:?} {}\n", Projection::new(tools(), None, None).feed(&[entry])[0].json["error"])
    };
    insta::assert_snapshot!(kinds.map(line).concat());
}

#[test]
fn what_the_server_announces() {
    let thread = |status| Announcement::Thread { thread: "sthr_2".to_owned(), agent_name: "b".to_owned(), status };
    let content = || vec![Content::text("do it")];
    let all = [
        Announcement::Updated { changed: [("title".to_owned(), json!("T"))].into_iter().collect() },
        Announcement::Rescheduled,
        Announcement::Terminated,
        Announcement::Deleted,
        Announcement::ThreadCreated { thread: "sthr_2".to_owned(), agent_name: "b".to_owned() },
        thread(ThreadStatus::Running),
        thread(ThreadStatus::Idle { reason: IdleReason::EndTurn }),
        thread(ThreadStatus::Rescheduled),
        thread(ThreadStatus::Terminated),
        Announcement::MessageSent { to: "sthr_2".to_owned(), to_agent_name: Some("b".to_owned()), content: content() },
        Announcement::MessageReceived { from: "sthr_1".to_owned(), from_agent_name: None, content: content() },
    ];
    insta::assert_snapshot!(all.map(|told| format!("{}\n", told.answer(&id(1), moment(0)))).concat());
}

#[test]
fn frames() {
    let event = json!({"type": "agent.message", "content": [{"type": "text", "text": "two\nlines\r\u{2028}"}]});
    let frames = [
        events::frame(&event, None),
        events::frame(&event, Some(7)),
        events::start("agent.message", &id(1)),
        events::delta(&id(1), 0, "two\n"),
        events::reset("the events before 7 are gone"),
        events::error_frame(&ApiError::not_found("session", "sesn_1"), "req_1"),
        events::PING.to_owned(),
    ];
    for frame in &frames {
        assert!(frame.ends_with("\n\n") && !frame.trim_end().contains("\n\n"), "{frame:?}");
    }
    insta::assert_snapshot!(frames.concat());
    let cases =
        [("7", Some(7)), (" 7 ", Some(7)), ("+7", None), ("", None), ("x", None), ("99999999999999999999", None)];
    for (header, expected) in cases {
        assert_eq!(events::last_event_id(header), expected, "{header:?}");
    }
}

#[test]
fn what_can_be_sent() {
    let text = json!([{"type": "text", "text": "hi"}]);
    let message = |content: Value| json!({"events": [{"type": "user.message", "content": content}]});
    let image = |source: Value| message(json!([{"type": "image", "source": source}]));
    let document = |source: Value| message(json!([{"type": "document", "source": source}]));
    let one = |event: Value| json!({"events": [event]});
    let confirm = |result: &str| json!({"type": "user.tool_confirmation", "tool_use_id": "sevt_1", "result": result});
    let custom = json!({"type": "user.custom_tool_result", "custom_tool_use_id": "sevt_1", "content": text});
    let system = json!({"type": "system.message", "content": text});
    let user = json!({"type": "user.message", "content": text});
    let found = json!({"type": "search_result", "source": "https://a.org", "title": "t", "content": text, "citations": {"enabled": true}});
    let mut told_why = confirm("allow");
    told_why["deny_message"] = json!("why");
    let bodies = [
        json!({}),
        json!([]),
        json!({"events": []}),
        one(json!({"type": "user.shout"})),
        one(json!({"type": "agent.message", "content": text})),
        message(text.clone()),
        message(json!("hi")),
        message(json!([])),
        message(json!([{"type": "text", "text": ""}])),
        message(json!([{"type": "redacted"}])),
        message(json!([found])),
        image(json!({"type": "base64", "media_type": "image/png", "data": "AA=="})),
        image(json!({"type": "base64", "media_type": "image/bmp", "data": "AA=="})),
        image(json!({"type": "base64", "media_type": "image/png", "data": "?"})),
        image(json!({"type": "text", "media_type": "text/plain", "data": "x"})),
        image(json!({"type": "url", "url": "file:///etc/passwd"})),
        image(json!({"type": "file", "file_id": "file_1"})),
        document(json!({"type": "text", "media_type": "text/plain", "data": "x"})),
        document(json!({"type": "url", "url": "https://a.org/a.pdf"})),
        message(json!([{"type": "document", "context": "c", "source": {"type": "file", "file_id": "f"}}])),
        one(json!({"type": "user.interrupt"})),
        one(json!({"type": "user.interrupt", "session_thread_id": "sthr_1"})),
        one(confirm("allow")),
        one(confirm("perhaps")),
        one(told_why),
        one(json!({"type": "user.tool_confirmation", "tool_use_id": "toolu_1", "result": "allow"})),
        one(custom.clone()),
        one(json!({"type": "user.custom_tool_result", "custom_tool_use_id": "sevt_1", "content": [found]})),
        json!({"events": [custom, custom]}),
        one(json!({"type": "user.tool_result", "tool_use_id": "sevt_1"})),
        one(json!({"type": "user.define_outcome", "description": "d"})),
        one(system.clone()),
        json!({"events": [user, system]}),
        json!({"events": [user, system, user]}),
        json!({"events": [user, user, {"type": "user.shout"}]}),
    ];
    insta::assert_snapshot!(outcomes(&bodies, |body| events::send(body, Abilities::ALL)));
    let bodies = [image(json!({"type": "file", "file_id": "file_1"})), json!({"events": [user, system]})];
    insta::assert_snapshot!(outcomes(&bodies, |body| events::send(body, Abilities::default())));
}

#[test]
fn what_was_sent_is_echoed() {
    let body = json!({"events": [
        {"type": "user.message", "content": [
            {"type": "text", "text": "hi"},
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "d"}, "title": "t"},
            {"type": "image", "source": {"type": "file", "file_id": "file_1"}},
        ]},
        {"type": "user.interrupt"},
        {"type": "user.tool_confirmation", "tool_use_id": "sevt_8", "result": "deny", "deny_message": "no"},
        {"type": "user.custom_tool_result", "custom_tool_use_id": "sevt_9", "content": [
            {"type": "search_result", "source": "s", "title": "t", "content": [{"type": "text", "text": "x"}], "citations": {"enabled": false}},
        ]},
    ]});
    let sent = events::send(&body, Abilities::ALL).unwrap();
    let echo = |(index, event): (usize, &ClientEvent)| {
        let at = matches!(event, ClientEvent::CustomToolResult { .. }).then(|| moment(0));
        format!("{}\n", event.answer(&id(index), at))
    };
    insta::assert_snapshot!(sent.iter().enumerate().map(echo).collect::<String>());

    let load = |media_type: &str| {
        let file = LoadedFile { name: "a.png".to_owned(), media_type: media_type.to_owned(), bytes: vec![0] };
        move |id: &str| (id == "file_1").then(|| file.clone())
    };
    let waiting = |(index, event): (usize, &ClientEvent)| {
        let input = event.input("me", load("image/png")).unwrap();
        format!(
            "{}\n{}\n",
            serde_json::to_string(&input).unwrap(),
            events::queued(&PendingInput { id: id(index), input })
        )
    };
    insta::assert_snapshot!(sent.iter().enumerate().map(waiting).collect::<String>());
    let refused = |file: Result<Input, Invalid>| file.unwrap_err().to_string();
    assert_eq!(refused(sent[0].input("me", load("text/plain"))), "file_id: file_1 is no image");
    assert_eq!(refused(sent[0].input("me", |_| None)), "file_id: there is no file \"file_1\"");
}

/// A request that was refused by a budget was never sent, and still ends what began.
#[test]
fn calls_that_never_left_end_too() {
    let ruling = Ruling::new(Verdict::Deny, "agent", "none");
    let entries = [
        (1, serde_json::from_value(tool_use("bash", json!({}))).unwrap()),
        (2, SessionEvent::PolicyDecided { tool_use_id: id(1), ruling }),
        (
            3,
            SessionEvent::ModelRequestEnded {
                model_request_start_id: id(9),
                result: RequestResult::Abandoned,
                charges: Vec::new(),
            },
        ),
    ];
    let entries = entries.map(|(seq, event)| Entry { seq, id: id(seq as usize), at: moment(0), event });
    let events = Projection::new(tools(), None, None).feed(&entries);
    assert_eq!(events.len(), 2);
    assert_eq!(events[0].json["evaluated_permission"], "deny");
    assert_eq!(events[1].json["model_usage"]["cache_creation_input_tokens"], 0);
}
