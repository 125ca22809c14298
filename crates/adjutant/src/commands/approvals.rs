//! `adjutant approvals`: what waits for people, their answers, and what they allowed to be remembered.

use super::{print, when};
use crate::{
    account,
    cli::{AllowArgs, ApprovalsCommand, Remember},
    confinement::place,
    failure::{Failure, Result},
    interview,
    questions::{self, Question},
    wiring,
    words::one_line,
};
use adj_domain::{
    ApprovalResult, EventId, Grant, GrantScope, LogId, SandboxMode, SessionEvent, Timestamp, event::Input,
};
use adj_engine::{Answer, Engine};
use adj_gateway::{Gateway, RetryPolicy};
use adj_store::{LogFilter, LogKind, Store};
use serde_json::json;
use std::process::ExitCode;

pub async fn approvals(command: ApprovalsCommand) -> Result<ExitCode> {
    match command {
        ApprovalsCommand::List { json } => list(json).await?,
        ApprovalsCommand::Show { id, json } => {
            let store = wiring::open_store_read_only(&wiring::state_dir()?)?;
            let question = find(store.as_ref(), &id).await?;
            print(&if json { format!("{}\n", question.json()) } else { shown(&question) })?;
        }
        ApprovalsCommand::Allow(args) => allow(args).await?,
        ApprovalsCommand::Deny { id, message } => {
            let engine = engine()?;
            let question = find(engine.store().as_ref(), &id).await?;
            answer(&engine, &question, ApprovalResult::Deny, message).await?;
            print(&format!("Denied: {}\n{}", question.about.short(), goes_on(&question)))?;
        }
        ApprovalsCommand::Grants { json } => grants(json).await?,
        ApprovalsCommand::Revoke { grant } => {
            let engine = engine()?;
            let standing = engine.grants().await?.standing;
            let known = questions::by_prefix(&standing, &grant, |grant| grant.id.to_string(), "grant")?;
            let Some(known) = known else { return Err(no_grant(&grant)) };
            if !engine.revoke(&known.id, &account::name()).await? {
                return Err(no_grant(&grant));
            }
            print(&format!("Taken back: {}\n", one_line(&known.subject.to_string(), 200)))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn no_grant(id: &str) -> Failure {
    Failure::usage(format!("no permission {id} is remembered")).hint("`adjutant approvals grants` lists those that are")
}

/// An engine that answers and calls no model.
fn engine() -> Result<Engine> {
    let state = wiring::state_dir()?;
    // A folder without a journal has nothing to be answered; none is made for that.
    drop(wiring::open_store_read_only(&state)?);
    wiring::engine(&state, Gateway::new(RetryPolicy::default()), SandboxMode::WorkspaceWrite)
}

async fn list(as_json: bool) -> Result<()> {
    let store = wiring::open_store_read_only(&wiring::state_dir()?)?;
    let open = questions::open(store.as_ref()).await?;
    if as_json {
        return print(&open.iter().map(|question| format!("{}\n", question.json())).collect::<String>());
    }
    if open.is_empty() {
        return print("Nobody waits for an answer\n");
    }
    let now = Timestamp::now();
    let mut text = String::new();
    for question in &open {
        let state = match &question.answered_by {
            Some(by) => format!("answered by {}; the session has not gone on yet", one_line(by, 60)),
            None if question.expires_at <= now => format!("expired {}", when(question.expires_at)),
            None => format!("expires {}", when(question.expires_at)),
        };
        text.push_str(&format!("{}  {}: {}\n", question.id, one_line(&question.agent, 20), question.about.short()));
        if let Some(why) = &question.why {
            text.push_str(&format!("    why      {} ({})\n", one_line(&why.rule, 200), one_line(&place(why), 200)));
        }
        text.push_str(&format!("    session  {} on {}\n", question.session, one_line(&question.repository, 200)));
        text.push_str(&format!("    asked    {}, {state}\n", when(question.asked_at)));
    }
    print(&text)
}

fn shown(question: &Question) -> String {
    let mut text = interview::described(question);
    text.push_str(&format!("  session  {} on {}\n", question.session, one_line(&question.repository, 200)));
    text.push_str(&format!("  asked    {}\n", when(question.asked_at)));
    let lines = match interview::subjects(&question.about) {
        subjects if subjects.is_empty() => {
            "  remember: nothing, because the call is more than single, plain commands\n".to_owned()
        }
        subjects => {
            subjects.iter().map(|subject| format!("  remember: {}\n", one_line(&subject.to_string(), 300))).collect()
        }
    };
    text + &lines
}

async fn find(store: &dyn Store, id: &str) -> Result<Question> {
    let open = questions::open(store).await?;
    if let Some(question) = questions::by_prefix(&open, id, |question| question.id.to_string(), "question")? {
        return Ok(question.clone());
    }
    let said = earlier(store, id).await?;
    let error = match said {
        Some(said) => format!("{id} {said}"),
        None => format!("nobody asks anything under {id}"),
    };
    Err(Failure::usage(error).hint("`adjutant approvals list` shows what waits for an answer"))
}

/// Sessions that are searched for an old question.
const LOOK_BACK: u32 = 200;

/// What became of a question that is no longer open.
async fn earlier(store: &dyn Store, id: &str) -> Result<Option<String>> {
    let filter = LogFilter { kind: Some(LogKind::Session), limit: LOOK_BACK, ..LogFilter::default() };
    let is_meant = |known: &EventId| known.as_str() == id || known.as_str().strip_prefix("sevt_") == Some(id);
    for log in store.logs(&filter).await? {
        for event in wiring::read_events(store, &log.log).await? {
            let said = match event.session_event() {
                Ok(SessionEvent::ToolConfirmed { tool_use_id: known, result, by, .. })
                | Ok(SessionEvent::HostConfirmed { approval_id: known, result, by })
                    if is_meant(&known) =>
                {
                    let result = if result == ApprovalResult::Allow { "allowed" } else { "denied" };
                    format!("was {result} by {} already, at {}", one_line(&by, 60), when(event.at))
                }
                Ok(SessionEvent::ApprovalExpired { approval_id }) if is_meant(&approval_id) => {
                    format!("expired at {}, which is a denial", when(event.at))
                }
                _ => continue,
            };
            return Ok(Some(said));
        }
    }
    Ok(None)
}

async fn allow(args: AllowArgs) -> Result<()> {
    let engine = engine()?;
    let question = find(engine.store().as_ref(), &args.id).await?;
    let (mut remembered, mut given) = (String::new(), Vec::new());
    if let Some(scope) = args.remember {
        let scope = match scope {
            Remember::Session => GrantScope::Session { id: question.session.clone() },
            Remember::Repository => GrantScope::Repository { path: question.repository.clone() },
        };
        let lasts = args.lasts.map(|lasts| lasts.0);
        for grant in interview::grants(&question, &scope, lasts, &account::name())? {
            remembered.push_str(&format!(
                "Remembered until {}: {} (take it back with `adjutant approvals revoke {}`)\n",
                when(grant.until),
                one_line(&grant.subject.to_string(), 200),
                grant.id
            ));
            given.push(grant.id.clone());
            // What is remembered is there before the call runs: the next one is judged by it.
            engine.give(grant).await?;
        }
    }
    if let Err(failure) = answer(&engine, &question, ApprovalResult::Allow, None).await {
        // An answer that does not count leaves nothing behind.
        for id in &given {
            engine.revoke(id, &account::name()).await?;
        }
        return Err(failure);
    }
    print(&format!("Allowed: {}\n{remembered}{}", question.about.short(), goes_on(&question)))
}

async fn answer(engine: &Engine, question: &Question, result: ApprovalResult, message: Option<String>) -> Result<()> {
    let answer = Answer { result, message, by: account::name() };
    match engine.answer(&question.session, &question.id, answer).await {
        Err(adj_engine::EngineError::Answer(error @ adj_engine::AnswerError::AlreadyAnswered { .. })) => {
            let log = LogId::from(question.session.clone());
            let first = engine.store().pending(&log).await?.into_iter().find_map(|input| match input.input {
                Input::Confirmation(first) if first.approval_id == question.id => Some(first.by),
                _ => None,
            });
            let by = first.map(|by| format!(", that of {}", one_line(&by, 60))).unwrap_or_default();
            Err(Failure::usage(format!("{error}{by}")).hint(goes_on(question).trim_end().to_owned()))
        }
        answered => Ok(answered?),
    }
}

fn goes_on(question: &Question) -> String {
    match question.process {
        Some(process) => format!("The session goes on in process {process}\n"),
        None => format!("`adjutant exec --resume {}` goes on\n", question.session),
    }
}

async fn grants(as_json: bool) -> Result<()> {
    let store = wiring::open_store_read_only(&wiring::state_dir()?)?;
    let mut grants = adj_domain::Grants::default();
    if store.log(&LogId::Grants).await?.is_some() {
        for event in wiring::read_events(store.as_ref(), &LogId::Grants).await? {
            grants.apply(&event.grant_event().map_err(anyhow::Error::new)?);
        }
    }
    let now = Timestamp::now();
    let standing: Vec<Grant> = grants.standing.into_iter().filter(|grant| grant.until > now).collect();
    if as_json {
        return print(&standing.iter().map(|grant| format!("{}\n", json!(grant))).collect::<String>());
    }
    if standing.is_empty() {
        return print("Nothing is remembered\n");
    }
    let mut text = String::new();
    for grant in standing {
        let scope = match &grant.scope {
            GrantScope::Session { id } => format!("in session {id}"),
            GrantScope::Repository { path } => format!("on {path}"),
        };
        text.push_str(&format!("{}  {}\n", grant.id, one_line(&grant.subject.to_string(), 200)));
        text.push_str(&format!(
            "    {}, until {}, by {}\n",
            one_line(&scope, 200),
            when(grant.until),
            one_line(&grant.by, 60)
        ));
    }
    print(&text)
}
