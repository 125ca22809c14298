//! The loop of one session: first remember, then act, then wait for what comes of it.

use crate::{
    answers::{binding, expired, has_work},
    engine::{Engine, EngineError},
    live::{Interrupt, Live},
    order::{Call, Order},
};
use adj_domain::{
    BlobHash, EventId, IdleReason, LogId, ModelAnswer, ModelFailure, ModelRequest, Session, SessionId, Status,
    Timestamp, ToolOutcome, ToolRequest, Usage, event::EventBody,
};
use adj_gateway::CancellationToken;
use adj_harness::{Effect, Input, by_sandbox, decide};
use adj_store::{ClaimError, Fence};
use std::sync::Arc;
use tokio::task::JoinSet;

/// How a session came to rest.
#[derive(Debug, Clone, PartialEq)]
pub struct TurnEnd {
    /// `None`: it has never had a turn.
    pub reason: Option<IdleReason>,
    pub last_message: Option<String>,
    /// Whether a message still waits, because an interrupt was asked for before it was taken up.
    pub waits: bool,
    /// Everything the session used, in all its turns.
    pub usage: Usage,
    pub turns: u32,
    pub model_requests: u64,
    pub tool_calls: u64,
}

enum Done {
    Model { id: EventId, answer: Result<ModelAnswer, ModelFailure> },
    Tool { id: EventId, outcome: ToolOutcome, full: Option<BlobHash> },
    Bound { call: EventId, binding: BlobHash, expires_at: Timestamp },
}

pub(crate) async fn work(engine: &Engine, id: &SessionId, interrupt: &Interrupt) -> Result<TurnEnd, EngineError> {
    let log = LogId::from(id.clone());
    // Within one process claims do not hold each other off: whoever comes second waits, and mostly finds it all done.
    let door = engine.door(id).await;
    let _alone = door.lock().await;
    let mut end = None;
    loop {
        let claim = match (engine.claim(&log).await, end) {
            (Ok(claim), _) => claim,
            // Somebody else is at what came last.
            (Err(EngineError::Claim { source: ClaimError::Held { .. }, .. }), Some(end)) => return Ok(end),
            (Err(error), _) => return Err(error),
        };
        let worked = work_claimed(engine, id, &claim.fence, interrupt).await;
        let released = engine.store().release(claim.fence).await;
        let session = worked?;
        released?;
        // A message that came between our last look at the queue and the release found the session held by us: nobody
        // else will take it up.
        let pending = engine.store().pending(&log).await?;
        let rested = TurnEnd::of(&session, !pending.is_empty());
        if interrupt.is_asked() || !has_work(&session, &pending) {
            return Ok(rested);
        }
        end = Some(TurnEnd { waits: false, ..rested });
    }
}

async fn work_claimed(
    engine: &Engine,
    id: &SessionId,
    fence: &Fence,
    interrupt: &Interrupt,
) -> Result<Session, EngineError> {
    let log = LogId::from(id.clone());
    let mut session = engine.session(id).await?;
    if session.is_idle() && interrupt.is_asked() {
        return Ok(session);
    }
    let mut input = first_input(&session);
    let mut running: JoinSet<Result<Done, EngineError>> = JoinSet::new();
    let mut order = Order::default();
    let mut may_interrupt = true;
    loop {
        let pending = engine.store().pending(&log).await?;
        let head = session.head;
        let spec = session.spec.clone();
        let judge = |call: &ToolRequest| by_sandbox(&spec, call);
        let decision = decide(session, &pending, &judge, input);
        session = decision.session;
        if !decision.events.is_empty() {
            let events = decision.events.into_iter().map(|(id, event)| event.into_new(id)).collect();
            engine.append(fence, head, events, decision.takes).await?;
        }
        for effect in decision.effects {
            match effect {
                Effect::CallModel { id, request } => {
                    let (engine, session) = (engine.clone(), session.id.clone());
                    running.spawn(async move { Ok(call_model(&engine, session, id, *request).await) });
                }
                Effect::Bind { call } => {
                    let (engine, session) = (engine.clone(), session.clone());
                    running.spawn(async move { bind(&engine, &session, call).await });
                }
                Effect::RunTool { id, request, started_before } => order.push(Call { id, request, started_before }),
            }
        }
        while let Some(call) = order.next() {
            start_call(engine, &session, call, &mut running).await;
        }
        if session.is_idle() {
            let pending = engine.store().pending(&log).await?;
            if !has_work(&session, &pending) || interrupt.is_asked() {
                return Ok(session);
            }
            input = first_input(&session);
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
                Done::Tool { id, outcome, full } => {
                    order.ended();
                    Input::ToolAnswered { call: id, outcome, full_output: full }
                }
                Done::Bound { call, binding, expires_at } => Input::Bound { call, binding, expires_at },
            },
            news = engine.news(&session), if !session.approvals.is_empty() => {
                news?;
                match expired(&session, Timestamp::now()) {
                    over if over.is_empty() => Input::Answers,
                    approvals => Input::Expired { approvals },
                }
            }
        };
    }
}

/// How a session is taken up: in the middle of a turn, at rest, or while people were asked for too long.
fn first_input(session: &Session) -> Input {
    let approvals = expired(session, Timestamp::now());
    if !session.is_idle() {
        Input::Recovered
    } else if session.waits_for_people() && !approvals.is_empty() {
        Input::Expired { approvals }
    } else {
        Input::Wake
    }
}

async fn bind(engine: &Engine, session: &Session, call: EventId) -> Result<Done, EngineError> {
    let binding = binding(&engine.0, session, &call, "").await?;
    let expires_at = Timestamp::now() + std::time::Duration::from_secs(600);
    Ok(Done::Bound { call, binding, expires_at })
}

impl TurnEnd {
    fn of(session: &Session, waits: bool) -> Self {
        let reason = match &session.status {
            Status::Idle { reason } => reason.clone(),
            Status::Running => None,
        };
        Self {
            reason,
            last_message: session.last_message.clone(),
            waits,
            usage: session.usage,
            turns: session.turn,
            model_requests: session.model_requests,
            tool_calls: session.tool_calls,
        }
    }
}

async fn start_call(engine: &Engine, session: &Session, call: Call, running: &mut JoinSet<Result<Done, EngineError>>) {
    let Call { id, request, started_before } = call;
    let toolbox = engine.toolbox(session).await;
    let engine = engine.clone();
    running.spawn(async move {
        // Without its sandbox nothing may run: that is for people, not for the model.
        let mut outcome = toolbox.call(&engine.0, &id, &request, started_before).await?;
        let full = match outcome.full.take() {
            Some(full) => Some(engine.store().put_blob(full.as_bytes()).await?),
            None => None,
        };
        Ok(Done::Tool { id, outcome, full })
    });
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
