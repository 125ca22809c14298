//! Logs without what differs from run to run: ids, times, and how often a dead process was followed by another.

use super::World;
use serde_json::Value;
use std::{collections::BTreeMap, path::Path};

/// What a run, or a session, came to; equal for two that did the same.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Normal {
    /// The run's own events, sorted: parallel steps have no order among each other.
    pub run: Vec<String>,
    /// Each session's conversation, by the name of its agent; a result stands behind its call.
    pub sessions: BTreeMap<String, Vec<String>>,
}

/// The events of an exported log, by log.
pub fn logs_of(world: &World, id: &str, folder: &Path) -> BTreeMap<String, Vec<Value>> {
    let text = world.trace(&["export", id]).exits(0).out;
    let text = text.replace(world.state().to_str().expect("a temporary path is UTF-8"), "STATE");
    let text = text.replace(folder.to_str().expect("a temporary path is UTF-8"), "FOLDER");
    let mut logs: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for line in text.lines() {
        let event: Value = serde_json::from_str(line).expect("an exported line is JSON");
        let log = event["log"].as_str().expect("an event has a log").to_owned();
        logs.entry(log).or_default().push(event);
    }
    logs
}

impl Normal {
    /// Reads a run with its sessions, or one session.
    pub fn of(world: &World, id: &str, folder: &Path) -> Self {
        let mut normal = Self::default();
        for (log, events) in logs_of(world, id, folder) {
            if log.starts_with("run_") {
                normal.run = run(&events, &log);
            } else {
                let (name, lines) = session(&events, id);
                assert!(normal.sessions.insert(name.clone(), lines).is_none(), "two sessions are called {name}");
            }
        }
        normal
    }
}

fn run(events: &[Value], id: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for event in events {
        let mut body = event["body"].clone();
        let kind = event["type"].as_str().expect("an event has a type");
        if matches!(kind, "run.resumed" | "run.interrupted" | "run.workspace_removed") {
            continue;
        }
        // Commits hold the run's id and date; their trees do not.
        forget(&mut body, &["commit", "session", "ref_name", "reference", "duration_ms", "started_at"]);
        if matches!(kind, "run.landed" | "run.landing_started") {
            forget(&mut body, &["to"]);
        }
        lines.push(body.to_string().replace(id, "RUN").replace(id.trim_start_matches("run_"), "RUN"));
    }
    lines.sort();
    lines
}

fn forget(value: &mut Value, keys: &[&str]) {
    match value {
        Value::Object(map) => {
            map.retain(|key, _| !keys.contains(&key.as_str()));
            map.values_mut().for_each(|value| forget(value, keys));
        }
        Value::Array(list) => list.iter_mut().for_each(|value| forget(value, keys)),
        _ => {}
    }
}

fn session(events: &[Value], run: &str) -> (String, Vec<String>) {
    let mut name = String::new();
    let mut lines: Vec<String> = Vec::new();
    let mut calls: BTreeMap<String, usize> = BTreeMap::new();
    let mut started: Vec<String> = Vec::new();
    for event in events {
        let mut body = event["body"].clone();
        let kind = event["type"].as_str().expect("an event has a type");
        let call = body["tool_use_id"].as_str().map(str::to_owned);
        match kind {
            // How often somebody had to begin again is what may differ.
            "session.resumed" | "span.model_request_start" | "user.interrupt" => {}
            "span.model_request_end" => {
                if body["result"]["status"] == "answered" {
                    forget(&mut body, &["model_request_start_id", "latency_ms", "first_token_ms", "queued_ms"]);
                    lines.push(body.to_string());
                }
            }
            "session.created" => {
                name = body["spec"]["agent"]["name"].as_str().expect("an agent has a name").to_owned();
                forget(&mut body, &["run", "commit"]);
                lines.push(body.to_string().replace(run, "RUN"));
            }
            "agent.tool_use" => {
                calls.insert(event["id"].as_str().expect("an event has an id").to_owned(), lines.len());
                lines.push(body.to_string());
            }
            "policy.decided" => {}
            "tool.started" => {
                let call = call.expect("a start names its call");
                assert!(!started.contains(&call), "the call {call} was started twice");
                started.push(call);
            }
            "agent.tool_result" => {
                let call = call.expect("a result names its call");
                forget(&mut body, &["tool_use_id", "duration_ms"]);
                let place = calls.remove(&call).expect("a call has one result");
                lines[place] = format!("{} → {body}", lines[place]);
            }
            _ => lines.push(body.to_string()),
        }
    }
    assert_eq!(calls, BTreeMap::new(), "a call has no result");
    (name, lines)
}
