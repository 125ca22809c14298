//! The loop of one session: first remember, then act, then wait for what comes of it.

use crate::{
    answers::{binding, expired, has_work},
    door::{Door, News, Place, Reply, protocol},
    engine::{Engine, EngineError},
    guard::Guard,
    live::{Interrupt, Live},
    order::{Call, Order},
    spending::{Departed, Departure, Paid, closes},
    state::state_after,
    toolbox::{Earlier, Toolbox},
};
use adj_domain::{
    Approval, ApprovalResult, ApprovalSubject, BlobHash, Costs, EventId, IdleReason, LogId, ModelAnswer, ModelFailure,
    Refusal, Ruling, Session, SessionEvent, SessionId, Status, Timestamp, ToolOutcome, ToolRequest, Usage, Verdict,
    event::EventBody,
};
use adj_egress::Decided;
use adj_gateway::CancellationToken;
use adj_harness::{Decision, Effect, Input, decide};
use adj_store::{Batch, ClaimError, Fence};
use std::{collections::HashMap, sync::Arc};
use tokio::{sync::mpsc, task::JoinSet};

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
    pub costs: Costs,
    pub turns: u32,
    pub model_requests: u64,
    pub tool_calls: u64,
}

enum Done {
    Model { id: EventId, answer: Box<Result<ModelAnswer, ModelFailure>>, shortened: Option<Refusal> },
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
    if session.spec.program.is_some() {
        return Err(EngineError::IsHosted(id.clone()));
    }
    if session.is_idle() && interrupt.is_asked() {
        return Ok(session);
    }
    let toolbox = engine.toolbox(&session).await;
    let guard = engine.guard(&session).await?;
    let mut news = toolbox.door.news.lock().await;
    let open = Opening::new(&toolbox.door, engine, &guard, &session);
    // Questions about hosts, and who waits for the answers.
    let mut asked = Asked::default();
    let mut input = first_input(engine, &session).await?;
    let mut running: JoinSet<Result<Done, EngineError>> = JoinSet::new();
    let mut order = Order::default();
    let mut may_interrupt = true;
    // Cut off when somebody does not want to hear the rest.
    let mut speaking = CancellationToken::new();
    loop {
        let rung = engine.0.bells.of(id).notified();
        let pending = engine.store().pending(&log).await?;
        let mut head = session.head;
        guard.refresh(engine).await?;
        let judge = |call: &ToolRequest| guard.tool(call);
        let Decision { session: decided, mut events, mut takes, effects } = decide(session, &pending, &judge, input);
        session = decided;
        let mut others = Vec::new();
        let told = Asked::answers(&events);
        for effect in effects {
            let Effect::CallModel { id, request } = effect else {
                others.push(effect);
                continue;
            };
            let (events_so_far, takes_so_far) = (std::mem::take(&mut events), std::mem::take(&mut takes));
            let departure = Departure {
                engine,
                guard: &guard,
                fence,
                interrupt,
                session: &session,
                head,
                events: events_so_far,
                takes: takes_so_far,
            };
            match departure.pay(&id, *request).await? {
                Departed::Paid(paid) => {
                    let (engine, session) = (engine.clone(), session.id.clone());
                    speaking = CancellationToken::new();
                    let cut = speaking.clone();
                    running.spawn(async move { Ok(call_model(&engine, session, id, *paid, cut).await) });
                }
                Departed::Refused { refusal, head: at, events: unwritten, takes: untaken } => {
                    (head, events, takes) = (at, unwritten, untaken);
                    let mut inputs = vec![Input::Refused { request: id, refusal: *refusal }];
                    if may_interrupt && interrupt.is_asked() {
                        may_interrupt = false;
                        inputs.insert(0, Input::Interrupt);
                    }
                    for input in inputs {
                        let decision = decide(session, &[], &judge, input);
                        session = decision.session;
                        events.extend(decision.events);
                    }
                }
            }
        }
        let is_cut =
            events.iter().any(|(id, event)| matches!(event, SessionEvent::UserInterrupt) && takes.contains(id));
        if !events.is_empty() {
            let ledger = closes(events.iter().map(|(_, event)| event));
            let state = state_after(&session, events.iter().map(|(_, event)| event));
            let events = events.into_iter().map(|(id, event)| event.into_new(id)).collect();
            engine.append_batch(fence, head, Batch { events, takes, ledger, state }).await?;
        }
        if is_cut {
            speaking.cancel();
        }
        // Who waits goes on when it is remembered, and not before.
        asked.tell(&toolbox.door, &session, &told);
        for effect in others {
            match effect {
                Effect::CallModel { .. } => unreachable!("a request has left or was refused"),
                Effect::Bind { call } => {
                    let (engine, guard, session) = (engine.clone(), Arc::clone(&guard), session.clone());
                    running.spawn(async move { bind(&engine, &guard, &session, call).await });
                }
                Effect::RunTool { id, request, started_before } => order.push(Call { id, request, started_before }),
            }
        }
        while let Some(call) = order.next() {
            start_call(engine, &toolbox, &guard, &session, call, &mut running);
        }
        if session.is_idle() {
            let pending = engine.store().pending(&log).await?;
            if !has_work(&session, &pending) || interrupt.is_asked() {
                drop(open);
                return write_down(engine, fence, session, &mut news).await;
            }
            input = first_input(engine, &session).await?;
            continue;
        }
        input = tokio::select! {
            () = interrupt.asked(), if may_interrupt => {
                may_interrupt = false;
                Input::Interrupt
            }
            Some(done) = running.join_next() => match done.expect("an effect does not panic")? {
                Done::Model { id, answer, shortened } => match *answer {
                    Ok(answer) => Input::Answered { request: id, answer, shortened },
                    Err(failure) => Input::Failed { request: id, failure },
                },
                Done::Tool { id, outcome, full } => {
                    order.ended();
                    Input::ToolAnswered { call: id, outcome, full_output: full }
                }
                Done::Bound { call, binding, expires_at } => Input::Bound { call, binding, expires_at },
            },
            Some(news) = news.recv() => asked.input(&session, news),
            answers = engine.news(&session, rung) => {
                answers?;
                match expired(&session, Timestamp::now()) {
                    over if over.is_empty() => Input::Answers,
                    approvals => Input::Expired { approvals },
                }
            }
        };
    }
}

/// How a session is taken up: in the middle of a turn, at rest, or while people were asked for too long.
async fn first_input(engine: &Engine, session: &Session) -> Result<Input, EngineError> {
    let approvals = expired(session, Timestamp::now());
    Ok(if !session.is_idle() {
        let lost = match &session.request {
            Some(open) => engine.lost(&LogId::from(session.id.clone()), &open.id).await?,
            None => Vec::new(),
        };
        Input::Recovered { lost }
    } else if session.waits_for_people() && !approvals.is_empty() {
        Input::Expired { approvals }
    } else {
        Input::Wake
    })
}

async fn bind(engine: &Engine, guard: &Guard, session: &Session, call: EventId) -> Result<Done, EngineError> {
    let binding = binding(&engine.0, session, &call, &guard.hash).await?;
    Ok(Done::Bound { call, binding, expires_at: guard.expiry() })
}

/// Writes down what the closed door has still told: nothing that went out shall be missing from the log.
async fn write_down(
    engine: &Engine,
    fence: &Fence,
    mut session: Session,
    news: &mut mpsc::Receiver<News>,
) -> Result<Session, EngineError> {
    let head = session.head;
    let mut events = Vec::new();
    let judge = |_: &ToolRequest| Ruling::new(Verdict::Deny, "session", "no call is judged at rest");
    while let Ok(news) = news.try_recv() {
        // Whoever asks now finds the door closed.
        let News::Decided(decided) = news else { continue };
        let decision = decide(session, &[], &judge, decided_input(decided));
        session = decision.session;
        events.extend(decision.events.into_iter().map(|(id, event)| event.into_new(id)));
    }
    if !events.is_empty() {
        engine.append(fence, head, events, Vec::new()).await?;
    }
    Ok(session)
}

fn decided_input(decided: Decided) -> Input {
    Input::Network {
        to: decided.to,
        protocol: protocol(decided.protocol).to_owned(),
        ruling: decided.ruling,
        address: decided.addresses.first().map(ToString::to_string),
        secrets: decided.used_secrets,
    }
}

/// Lets a session reach the network while its turn is at work.
struct Opening<'a>(&'a Door);

impl<'a> Opening<'a> {
    fn new(door: &'a Door, engine: &Engine, guard: &Arc<Guard>, session: &Session) -> Self {
        door.open(Some(engine), guard);
        // Where policy lets nothing be remembered, an answer holds for its turn.
        if !guard.policy.longest_grant().is_zero() {
            door.allow(allowed_places(session));
        }
        Self(door)
    }
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

fn allowed_places(session: &Session) -> impl Iterator<Item = Place> {
    session.allowed_hosts.iter().map(|to| (to.host.clone(), to.port))
}

/// Questions about hosts that commands wait for.
#[derive(Default)]
struct Asked(HashMap<EventId, (Place, Reply)>);

impl Asked {
    fn input(&mut self, session: &Session, news: News) -> Input {
        match news {
            News::Decided(decided) => decided_input(decided),
            News::Asked { to, expires_at, reply } => {
                let place = (to.host.clone(), to.port);
                let same = |approval: &&Approval| match &approval.subject {
                    ApprovalSubject::Host { to } => (&to.host, to.port) == (&place.0, place.1),
                    ApprovalSubject::Tool { .. } => false,
                };
                // A process that died has asked already: that question stands, and its answer counts.
                if let Some(open) = session.approvals.iter().find(same) {
                    self.0.insert(open.id.clone(), (place, reply));
                    return Input::Answers;
                }
                let parts = [session.id.as_str(), "host", &to.to_string(), &session.head.to_string()];
                let asked = EventId::derive(&parts);
                self.0.insert(asked.clone(), (place, reply));
                Input::HostAsked { asked, to, expires_at }
            }
        }
    }

    /// The answers among these events.
    fn answers(events: &[(EventId, SessionEvent)]) -> Vec<(EventId, bool)> {
        let answers = events.iter().filter_map(|(_, event)| match event {
            SessionEvent::HostConfirmed { approval_id, result, .. } => {
                Some((approval_id.clone(), *result == ApprovalResult::Allow))
            }
            SessionEvent::ApprovalExpired { approval_id } => Some((approval_id.clone(), false)),
            _ => None,
        });
        answers.collect()
    }

    /// Lets those go on whose question is answered.
    fn tell(&mut self, door: &Door, session: &Session, answers: &[(EventId, bool)]) {
        for (id, is_allowed) in answers {
            if *is_allowed {
                // Whoever asked may be gone: what was allowed is allowed.
                door.allow(allowed_places(session));
            }
            if let Some((place, reply)) = self.0.remove(id) {
                door.answered(&place, *is_allowed);
                // A command that waits no longer is fine.
                let _ = reply.send(Some(*is_allowed));
            }
        }
    }
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
            costs: session.costs.clone(),
            turns: session.turn,
            model_requests: session.model_requests,
            tool_calls: session.tool_calls,
        }
    }
}

fn start_call(
    engine: &Engine,
    toolbox: &Arc<Toolbox>,
    guard: &Arc<Guard>,
    session: &Session,
    call: Call,
    running: &mut JoinSet<Result<Done, EngineError>>,
) {
    let Call { id, request, started_before } = call;
    let (engine, toolbox, guard, session) = (engine.clone(), Arc::clone(toolbox), Arc::clone(guard), session.clone());
    running.spawn(async move {
        let earlier = match started_before {
            true => Earlier::Started { objection: objection(&engine, &guard, &session, &id, &request).await? },
            false => Earlier::Never,
        };
        // Without its sandbox nothing may run: that is for people, not for the model.
        let mut outcome = toolbox.call(&engine.0, &guard, &id, &request, earlier).await?;
        let full = match outcome.full.take() {
            Some(full) => Some(engine.store().put_blob(full.as_bytes()).await?),
            None => None,
        };
        Ok(Done::Tool { id, outcome, full })
    });
}

/// Why a call that another process has not come to begin may not begin now: it was allowed then, and the world has gone on.
async fn objection(
    engine: &Engine,
    guard: &Guard,
    session: &Session,
    id: &EventId,
    request: &ToolRequest,
) -> Result<Option<String>, EngineError> {
    let mut allowed = None;
    for event in engine.events(&LogId::from(session.id.clone())).await? {
        if let SessionEvent::ApprovalRequested { subject: ApprovalSubject::Tool { tool_use_id, binding }, .. } =
            event.session_event()?
            && tool_use_id == *id
        {
            allowed = Some(binding);
        }
    }
    let ruling = guard.tool(request);
    Ok(match (ruling.verdict, allowed) {
        (Verdict::Deny, _) => Some(format!("the call was not run, and is not allowed any more: {}", ruling.rule)),
        (Verdict::Ask, None) => {
            Some(format!("the call was not run, and would have to be asked about: {}", ruling.rule))
        }
        (_, Some(allowed)) if binding(&engine.0, session, id, &guard.hash).await? != allowed => {
            Some("the call was not run: the workspace or the policy has changed since somebody allowed it".to_owned())
        }
        _ => None,
    })
}

async fn call_model(engine: &Engine, session: SessionId, id: EventId, paid: Paid, cut: CancellationToken) -> Done {
    let watched = engine.clone();
    let on_delta = move |delta| watched.tell(Live::Delta { session: session.clone(), delta });
    // Dropping the task, as when the loop ends early, cancels the call.
    let Paid { request, tab, shortened } = paid;
    let answer = engine.0.parts.models.call_for(tab, request, Arc::new(on_delta), cut).await;
    Done::Model { id, answer: Box::new(answer), shortened }
}
