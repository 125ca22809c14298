//! `adjutant trace`: what happened, as a list, a timeline, JSON lines, or a verdict.

use super::{print, when};
use crate::{
    cli::TraceCommand,
    failure::{Code, Failure, Result},
    redact, timeline,
    verify::{self, Finding},
    wiring,
    words::{count, one_line},
};
use adj_domain::{Event, LogId, Session, SessionEvent};
use adj_store::{LogFilter, LogKind, SqliteStore, Store};
use serde_json::json;
use std::{process::ExitCode, sync::Arc};

pub async fn trace(command: TraceCommand) -> Result<ExitCode> {
    if let TraceCommand::Verify { file: Some(file), json, .. } = &command {
        return report(&verify::file(file)?, *json);
    }
    let store = wiring::open_store_read_only(&wiring::state_dir()?)?;
    match command {
        TraceCommand::List { runs, limit, json } => list(&store, runs, limit, json).await,
        TraceCommand::Show { id, full, no_text, prompts } => {
            let text = match (full || prompts, no_text) {
                (_, true) => timeline::Text::Hidden,
                (true, false) => timeline::Text::Full,
                (false, false) => timeline::Text::Short,
            };
            show(&store, &id, text, prompts).await
        }
        TraceCommand::Export { id, no_text } => export(&store, &id, no_text).await,
        TraceCommand::Verify { ids, json, .. } => {
            let logs = if ids.is_empty() { all(&store, None).await? } else { with_sessions(&store, &ids).await? };
            let mut findings = Vec::new();
            for log in logs {
                findings.push(verify::log(store.as_ref(), &log).await?);
            }
            report(&findings, json)
        }
    }
}

async fn list(store: &Arc<SqliteStore>, runs: bool, limit: u32, as_json: bool) -> Result<ExitCode> {
    // Some more, because the logs of grants and of budgets are nobody's work: `trace show grants` has the one.
    let filter =
        LogFilter { kind: runs.then_some(LogKind::Run), limit: limit.saturating_add(2), ..LogFilter::default() };
    let mut logs = store.logs(&filter).await?;
    logs.retain(|log| !matches!(log.log, LogId::Grants | LogId::Budgets));
    logs.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    let mut text = String::new();
    for log in &logs {
        let holder = log.holder.as_ref();
        if as_json {
            let line = json!({
                "id": log.log,
                "title": log.meta.title,
                "parent": log.meta.parent,
                "events": log.head,
                "head_hash": log.head_hash,
                "created_at": log.created_at,
                "updated_at": log.updated_at,
                "process": holder.map(|holder| json!({"pid": holder.pid, "alive": holder.alive})),
            });
            text.push_str(&format!("{line}\n"));
            continue;
        }
        let state = match holder {
            Some(holder) if holder.alive => format!("process {}", holder.pid),
            Some(_) => "process died".to_owned(),
            None => String::new(),
        };
        text.push_str(&format!(
            "{:<26} {:<17} {:>14}  {:<15} {}\n",
            log.log.as_str(),
            when(log.updated_at),
            count(usize::try_from(log.head).unwrap_or(usize::MAX), "event"),
            state,
            one_line(&log.meta.title, 60)
        ));
    }
    if logs.is_empty() && !as_json {
        text.push_str("Nothing was run yet\n");
    }
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// All logs, or all of one parent; every page of them.
async fn all(store: &Arc<SqliteStore>, parent: Option<LogId>) -> Result<Vec<LogId>> {
    let mut logs: Vec<LogId> = Vec::new();
    loop {
        let filter = LogFilter { parent: parent.clone(), before: logs.last().cloned(), ..LogFilter::default() };
        let page = store.logs(&filter).await?;
        if page.is_empty() {
            return Ok(logs);
        }
        logs.extend(page.into_iter().map(|summary| summary.log));
    }
}

/// Each log, and after a run its sessions.
async fn with_sessions(store: &Arc<SqliteStore>, ids: &[LogId]) -> Result<Vec<LogId>> {
    let mut logs = Vec::new();
    for id in ids {
        if store.log(id).await?.is_none() {
            return Err(Failure::usage(format!("there is no run or session {id}"))
                .hint("`adjutant trace list` shows what there is"));
        }
        logs.push(id.clone());
        if LogKind::of(id) == LogKind::Run {
            let mut sessions = all(store, Some(id.clone())).await?;
            sessions.reverse();
            logs.extend(sessions);
        }
    }
    Ok(logs)
}

async fn events_of(store: &Arc<SqliteStore>, id: &LogId) -> Result<Vec<Event>> {
    let mut events = Vec::new();
    for log in with_sessions(store, std::slice::from_ref(id)).await? {
        events.extend(wiring::read_events(store.as_ref(), &log).await?);
    }
    Ok(events)
}

async fn show(store: &Arc<SqliteStore>, id: &LogId, text: timeline::Text, prompts: bool) -> Result<ExitCode> {
    let mut events = events_of(store, id).await?;
    // One picture of several logs: by time, and within a log by number.
    events.sort_by(|a, b| (a.at, &a.log, a.seq).cmp(&(b.at, &b.log, b.seq)));
    let mut timeline = timeline::Timeline::new(text);
    let mut sessions = std::collections::BTreeMap::new();
    for event in &events {
        print(&timeline.render(event).map_err(anyhow::Error::new)?)?;
        if prompts && let LogId::Session(_) = &event.log {
            print_prompt(&mut sessions, event)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Rebuilds the request that an event announces, and prints it.
fn print_prompt(sessions: &mut std::collections::BTreeMap<LogId, Session>, event: &Event) -> Result<()> {
    let LogId::Session(id) = &event.log else { return Ok(()) };
    let body = event.session_event().map_err(anyhow::Error::new)?;
    let session = sessions.get(&event.log);
    if let (SessionEvent::ModelRequestStarted { purpose, origin: None, .. }, Some(session)) = (&body, session) {
        let request = adj_harness::build_request(session, *purpose);
        let json = serde_json::to_string_pretty(&request).expect("a request is plain data");
        for line in json.lines() {
            print(&format!("{:>10}  │ {line}\n", ""))?;
        }
    }
    match (body, sessions.get_mut(&event.log)) {
        (SessionEvent::Created { spec }, _) => {
            sessions.insert(event.log.clone(), Session::created(id.clone(), *spec));
        }
        (body, Some(session)) => session.apply(&event.id, &body).map_err(anyhow::Error::new)?,
        (_, None) => {}
    }
    Ok(())
}

async fn export(store: &Arc<SqliteStore>, id: &LogId, no_text: bool) -> Result<ExitCode> {
    for event in events_of(store, id).await? {
        let line = serde_json::to_string(&event).expect("an event is plain data");
        let line = if no_text { redact::line(&line) } else { line };
        print(&format!("{line}\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn report(findings: &[Finding], as_json: bool) -> Result<ExitCode> {
    let broken = findings.iter().filter(|finding| !finding.problems.is_empty()).count();
    if as_json {
        print(&format!("{}\n", json!({"logs": findings, "broken": broken})))?;
    } else {
        let mut text = String::new();
        for finding in findings {
            let verdict = if finding.problems.is_empty() { "whole" } else { "BROKEN" };
            text.push_str(&format!(
                "{:<26} {verdict}: {}, {}, {}\n",
                finding.log,
                count(finding.events as usize, "event"),
                count(finding.prompts as usize, "prompt"),
                count(finding.blobs as usize, "blob")
            ));
            for problem in &finding.problems {
                text.push_str(&format!("  {}\n", one_line(problem, 300)));
            }
        }
        print(&text)?;
    }
    if broken == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    Err(Failure::new(
        Code::TraceBroken,
        format!(
            "{broken} of {} not what was written",
            if findings.len() == 1 { "1 log is".to_owned() } else { format!("{} logs are", findings.len()) }
        ),
    )
    .hint("keep the state folder as it is; a backup of journal.db tells which event was changed"))
}
