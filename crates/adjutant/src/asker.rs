//! Somebody at the terminal answers what agents ask, while they are at work.
//!
//! One question at a time; one that is answered elsewhere, or is over, goes away by itself.

use crate::{
    account,
    interview::{self, Said},
    questions::{self, Question},
    screen::Holding,
    words::one_line,
};
use adj_domain::{ApprovalResult, ApprovalSubject, EventId, GrantScope, LogId, SessionEvent, SessionId};
use adj_engine::{Answer, Engine, Interrupt, Live};
use std::{
    collections::{BTreeSet, VecDeque},
    io::{BufRead, Write},
    time::Duration,
};
use tokio::sync::{
    broadcast::{Receiver, error::RecvError},
    mpsc,
};
use tokio_util::sync::CancellationToken;

/// How often a question is looked at again, for an answer from elsewhere.
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// Puts questions to whoever sits at the terminal, until told to stop.
pub async fn ask(
    engine: Engine,
    mut live: Receiver<Live>,
    first: Vec<Question>,
    screen: Holding,
    interrupt: Interrupt,
    stop: CancellationToken,
) {
    let mut sessions: BTreeSet<SessionId> = first.iter().map(|question| question.session.clone()).collect();
    let mut waiting: VecDeque<(SessionId, EventId)> =
        first.into_iter().map(|question| (question.session, question.id)).collect();
    let mut lines = None;
    loop {
        if let Some((session, id)) = waiting.pop_front() {
            let lines = lines.get_or_insert_with(read_lines);
            tokio::select! {
                () = put(&engine, &session, &id, &screen, &interrupt, lines) => {}
                () = stop.cancelled() => return,
            }
            continue;
        }
        tokio::select! {
            received = live.recv() => match received {
                Ok(Live::Committed(event)) => {
                    let LogId::Session(session) = &event.log else { continue };
                    sessions.insert(session.clone());
                    match event.session_event() {
                        Ok(SessionEvent::ApprovalRequested { subject, .. }) => {
                            waiting.push_back((session.clone(), asked(subject, &event.id)));
                        }
                        _ => continue,
                    }
                }
                Ok(Live::Delta { .. }) => {}
                // Some may have been among what we missed.
                Err(RecvError::Lagged(_)) => for session in &sessions {
                    let open = questions::of_session(engine.store().as_ref(), session, None).await.unwrap_or_default();
                    waiting.extend(open.into_iter().map(|question| (question.session, question.id)));
                },
                Err(RecvError::Closed) => return,
            },
            () = stop.cancelled() => return,
        }
    }
}

fn asked(subject: ApprovalSubject, event: &EventId) -> EventId {
    match subject {
        ApprovalSubject::Tool { tool_use_id, .. } => tool_use_id,
        ApprovalSubject::Host { .. } => event.clone(),
    }
}

/// Lines that are typed. The thread ends with the process: a read cannot be taken back.
fn read_lines() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(16);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            if line.map_or(true, |line| sender.blocking_send(line).is_err()) {
                break;
            }
        }
    });
    receiver
}

async fn look(engine: &Engine, session: &SessionId, id: &EventId) -> Option<Question> {
    let open = questions::of_session(engine.store().as_ref(), session, None).await.ok()?;
    let now = adj_domain::Timestamp::now();
    open.into_iter().find(|question| question.id == *id && question.answered_by.is_none() && question.expires_at > now)
}

/// Asks one question until it is answered, here or elsewhere.
async fn put(
    engine: &Engine,
    session: &SessionId,
    id: &EventId,
    screen: &Holding,
    interrupt: &Interrupt,
    lines: &mut mpsc::Receiver<String>,
) {
    let Some(question) = look(engine, session, id).await else { return };
    let _held = screen.hold().await;
    say(&format!("\n{}\n{}", interview::described(&question), interview::offered(&question)));
    // What was typed before the question was there answers nothing.
    while lines.try_recv().is_ok() {}
    loop {
        say("Allow it? ");
        let line = loop {
            tokio::select! {
                line = lines.recv() => break line,
                () = tokio::time::sleep(LOOK_EVERY) => if look(engine, session, id).await.is_none() {
                    say("\nThe question is over: it was answered elsewhere, or its time was up\n");
                    return;
                },
                () = interrupt.asked() => {
                    say("\n");
                    return;
                }
            }
        };
        let Some(line) = line else {
            say("\nNobody can answer here any more; the question stays\n");
            interrupt.ask();
            return;
        };
        let Some(said) = interview::understood(&question, &line) else {
            say(&interview::offered(&question));
            continue;
        };
        match carry_out(engine, &question, said, interrupt).await {
            Ok(()) => return,
            Err(why) => say(&format!("That did not work: {}\n", one_line(&why, 400))),
        }
        if look(engine, session, id).await.is_none() {
            return;
        }
    }
}

async fn carry_out(engine: &Engine, question: &Question, said: Said, interrupt: &Interrupt) -> Result<(), String> {
    let by = account::name();
    let scope = match &said {
        Said::Leave => {
            interrupt.ask();
            return Ok(());
        }
        Said::Session => Some(GrantScope::Session { id: question.session.clone() }),
        Said::Repository => Some(GrantScope::Repository { path: question.repository.clone() }),
        Said::Once | Said::Deny { .. } => None,
    };
    let mut given = Vec::new();
    if let Some(scope) = scope {
        let grants = interview::grants(question, &scope, None, &by).map_err(|failure| failure.error.to_string())?;
        for grant in grants {
            given.push(grant.id.clone());
            engine.give(grant).await.map_err(|error| error.to_string())?;
        }
    }
    let (result, message) = match said {
        Said::Deny { message } => (ApprovalResult::Deny, message),
        _ => (ApprovalResult::Allow, None),
    };
    let answer = Answer { result, message, by: by.clone() };
    let answered = engine.answer(&question.session, &question.id, answer).await;
    if answered.is_err() {
        // An answer that does not count leaves nothing behind.
        for id in given {
            engine.revoke(&id, &by).await.map_err(|error| error.to_string())?;
        }
    }
    answered.map_err(|error| error.to_string())
}

fn say(text: &str) {
    // A terminal that went away cannot be told.
    let mut out = anstream::stderr();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}
