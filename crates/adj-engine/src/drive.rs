//! The loop of one session: first remember, then act, then wait for what comes of it.

use crate::{
    engine::{Engine, EngineError},
    live::{Interrupt, Live},
};
use adj_domain::{
    BlobHash, EventId, IdleReason, LogId, ModelAnswer, ModelFailure, ModelRequest, Session, SessionId, Status,
    ToolOutcome, Usage, event::EventBody,
};
use adj_gateway::CancellationToken;
use adj_harness::{Effect, Input, decide};
use std::sync::Arc;
use tokio::task::JoinSet;

/// How a session came to rest.
#[derive(Debug, Clone, PartialEq)]
pub struct TurnEnd {
    /// `None`: it has never had a turn.
    pub reason: Option<IdleReason>,
    pub last_message: Option<String>,
    /// Everything the session used, in all its turns.
    pub usage: Usage,
    pub turns: u32,
    pub model_requests: u64,
    pub tool_calls: u64,
}

enum Done {
    Model { id: EventId, answer: Result<ModelAnswer, ModelFailure> },
    Tool { id: EventId, outcome: ToolOutcome, full: Option<BlobHash> },
}

pub(crate) async fn work(engine: &Engine, id: &SessionId, interrupt: &Interrupt) -> Result<TurnEnd, EngineError> {
    let log = LogId::from(id.clone());
    let claim = engine.claim(&log).await?;
    let mut session = engine.session(id).await?;
    let mut input = if session.is_idle() { Input::Wake } else { Input::Recovered };
    let mut running: JoinSet<Result<Done, EngineError>> = JoinSet::new();
    let mut may_interrupt = true;
    loop {
        let pending = engine.store().pending(&log).await?;
        let head = session.head;
        let decision = decide(session, &pending, input);
        session = decision.session;
        if !decision.events.is_empty() {
            let events = decision.events.into_iter().map(|(id, event)| event.into_new(id)).collect();
            engine.append(&claim.fence, head, events, decision.takes).await?;
        }
        for effect in decision.effects {
            start(engine, &session, effect, &mut running).await;
        }
        if session.is_idle() {
            let waiting = !engine.store().pending(&log).await?.is_empty();
            if !waiting || interrupt.is_asked() {
                break;
            }
            input = Input::Wake;
            continue;
        }
        input = tokio::select! {
            () = interrupt.asked(), if may_interrupt => {
                may_interrupt = false;
                Input::Interrupt
            }
            Some(done) = running.join_next() => match done.expect("an effect does not panic")? {
                Done::Model { id, answer: Ok(answer) } => Input::Answered { request: id, answer },
                Done::Model { id, answer: Err(failure) } => Input::Failed { request: id, failure },
                Done::Tool { id, outcome, full } => Input::ToolAnswered { call: id, outcome, full_output: full },
            },
        };
    }
    engine.store().release(claim.fence).await?;
    Ok(TurnEnd::of(&session))
}

impl TurnEnd {
    fn of(session: &Session) -> Self {
        let reason = match &session.status {
            Status::Idle { reason } => reason.clone(),
            Status::Running => None,
        };
        Self {
            reason,
            last_message: session.last_message.clone(),
            usage: session.usage,
            turns: session.turn,
            model_requests: session.model_requests,
            tool_calls: session.tool_calls,
        }
    }
}

async fn start(engine: &Engine, session: &Session, effect: Effect, running: &mut JoinSet<Result<Done, EngineError>>) {
    match effect {
        Effect::CallModel { id, request } => {
            let (engine, session) = (engine.clone(), session.id.clone());
            running.spawn(async move { Ok(call_model(&engine, session, id, *request).await) });
        }
        Effect::RunTool { id, request, started_before } => {
            let toolbox = engine.toolbox(session).await;
            let store = Arc::clone(engine.store());
            running.spawn(async move {
                let called = if started_before {
                    toolbox.recover(&id, &request).await
                } else {
                    toolbox.call(&id, &request).await
                };
                // Without its sandbox nothing may run: that is for people, not for the model.
                let mut outcome = called?;
                let full = match outcome.full.take() {
                    Some(full) => Some(store.put_blob(full.as_bytes()).await?),
                    None => None,
                };
                Ok(Done::Tool { id, outcome, full })
            });
        }
    }
}

async fn call_model(engine: &Engine, session: SessionId, id: EventId, request: ModelRequest) -> Done {
    let live = engine.0.live.clone();
    let on_delta = move |delta| {
        // Nobody watching is fine.
        let _ = live.send(Live::Delta { session: session.clone(), delta });
    };
    // Dropping the task, as when the loop ends early, cancels the call.
    let answer = engine.0.parts.models.call(request, Arc::new(on_delta), CancellationToken::new()).await;
    Done::Model { id, answer }
}
