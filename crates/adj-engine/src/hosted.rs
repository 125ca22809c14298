//! A session whose agent is another program: what the program asks of models comes through the endpoint, and is written down
//! here, by the one writer that the session has.

use crate::{
    engine::{Engine, EngineError},
    guard::GuardError,
    spending::{caps, charge_of, closes, reserve},
    state::state_after,
};
use adj_domain::{
    Budget, Cap, Charge, EventId, IdleReason, LedgerOp, LogId, ModelRef, NewEvent, Origin, PromptRecord, Purpose,
    RequestResult, SandboxMode, Session, SessionEvent, SessionId, SessionSpec, Status, StopReason, WorkspaceSpec,
    event::EventBody,
};
use adj_gateway::endpoint::{Closing, Facts, Meter, Opening, Operation, Outcome, Refusal, RefusalKind};
use adj_gateway::{Bound, Pricing, Quote};
use adj_store::{AppendError, Batch, Fence, LogState};
use async_trait::async_trait;
use std::{collections::BTreeMap, path::Path, time::Duration};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::Instant,
};

/// How many events are committed at once.
const MAX_BATCH: usize = 64;
/// Programs have deadlines of their own: no longer than this does a request wait for others to leave it something to spend.
const LONGEST_WAIT: Duration = Duration::from_secs(50);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// So long does the end of a request wait for the next to begin: programs ask again at once, and both are then one commit.
const GATHER: Duration = Duration::from_millis(20);
/// Bodies up to this size are read more quickly than the books.
const LOOKED_AT_BYTES: u64 = 64 << 10;

/// The program that is to be a session's agent.
#[derive(Debug, Clone)]
pub struct NewProgram {
    pub name: String,
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// The model that answers where the program's own choice is not to be had.
    pub model: ModelRef,
    /// Where it works.
    pub folder: String,
    pub title: Option<String>,
    /// What it may spend.
    pub budget: Budget,
}

/// A session that a program is at work in.
#[derive(Debug)]
pub struct Hosted {
    teller: Teller,
    writing: JoinHandle<Result<Session, EngineError>>,
}

/// Tells the session's writer of requests.
#[derive(Debug, Clone)]
pub struct Teller {
    session: SessionId,
    news: mpsc::UnboundedSender<News>,
}

#[derive(Debug)]
enum News {
    Opened(Asking),
    Closed(Box<Closing>),
    Ended { exit_code: i32 },
}

/// A request that wants to leave.
#[derive(Debug)]
struct Asking {
    opening: Box<Opening>,
    since: Instant,
    written: oneshot::Sender<Result<(), Refusal>>,
}

impl Engine {
    /// Makes a session for a program, with an id of the caller's choice.
    pub async fn create_hosted(&self, id: &SessionId, new: NewProgram) -> Result<(), EngineError> {
        let agent = adj_domain::AgentDefinition {
            name: new.name.clone(),
            role: "program".to_owned(),
            ..crate::engine::default_agent(&new.model)
        };
        let spec = SessionSpec {
            agent,
            system: Vec::new(),
            workspace: WorkspaceSpec::Direct { path: new.folder },
            sandbox: SandboxMode::DangerFullAccess,
            confinement: adj_domain::Confinement::default(),
            approval: adj_domain::ApprovalPolicy::Never,
            budget: new.budget,
            run: None,
            title: new.title,
            program: Some(new.argv),
        };
        self.create_as(id, spec).await
    }

    /// Takes a program's session for a new turn, until it is [ended](Hosted::end).
    pub async fn host(&self, id: &SessionId) -> Result<Hosted, EngineError> {
        let log = LogId::from(id.clone());
        let claim = self.claim(&log).await?;
        let begun = async {
            let session = self.session(id).await?;
            if session.spec.program.is_none() {
                return Err(EngineError::NotHosted(id.clone()));
            }
            let policy = self.0.parts.policy.clone();
            let policy = match &session.spec.workspace {
                WorkspaceSpec::Direct { path } => policy.with_folder(Path::new(path)).map_err(GuardError::from)?,
                WorkspaceSpec::Private { .. } => policy,
            };
            let caps = caps(&policy, id, None);
            let left = self.store().holds(Some(&log)).await?.into_iter().map(|left| left.hold);
            let lost = left.map(|hold| (hold.attempt.request, Charge::up_to(hold.amounts))).collect();
            let mut writer = Writer {
                engine: self.clone(),
                session,
                events: Vec::new(),
                ledger: Vec::new(),
                state: None,
                quotes: BTreeMap::new(),
                caps,
                lost,
            };
            writer.begin_turn()?;
            writer.write(&claim.fence).await?;
            Ok(writer)
        };
        let writer = match begun.await {
            Ok(writer) => writer,
            Err(error) => {
                self.store().release(claim.fence).await?;
                return Err(error);
            }
        };
        let (news, told) = mpsc::unbounded_channel();
        let writing = tokio::spawn(writer.run(claim.fence, told));
        Ok(Hosted { teller: Teller { session: id.clone(), news }, writing })
    }
}

impl Hosted {
    /// Where the endpoint reports to.
    pub fn teller(&self) -> Teller {
        self.teller.clone()
    }

    /// Ends the turn. Requests that are still open count as given up.
    pub async fn end(self, exit_code: i32) -> Result<Session, EngineError> {
        // A writer that is gone has said why.
        let _ = self.teller.news.send(News::Ended { exit_code });
        self.writing.await.expect("writing a session down does not panic")
    }
}

#[async_trait]
impl Meter for Teller {
    async fn open(&self, opening: Opening) -> Result<(), Refusal> {
        let lost = || Refusal::new(RefusalKind::Server, format!("adjutant: the session {} has ended", self.session));
        let (written, is_written) = oneshot::channel();
        let asking = Asking { opening: Box::new(opening), since: Instant::now(), written };
        self.news.send(News::Opened(asking)).map_err(|_| lost())?;
        is_written.await.map_err(|_| lost())?
    }

    fn close(&self, closing: Closing) {
        // After the end nobody writes any more: what was open then is written down as given up.
        let _ = self.news.send(News::Closed(Box::new(closing)));
    }
}

/// Folds and appends what happens.
struct Writer {
    engine: Engine,
    session: Session,
    events: Vec<NewEvent>,
    /// What these events change in the books.
    ledger: Vec<LedgerOp>,
    /// What the log says of itself after them, if that is news.
    state: Option<LogState>,
    /// Of the requests under way.
    quotes: BTreeMap<EventId, Quote>,
    caps: Vec<Cap>,
    /// What the requests come to that a dead process has left open.
    lost: BTreeMap<EventId, Charge>,
}

impl Writer {
    async fn run(mut self, fence: Fence, mut told: mpsc::UnboundedReceiver<News>) -> Result<Session, EngineError> {
        let worked = self.work(&fence, &mut told).await;
        let released = self.engine.store().release(fence).await;
        worked?;
        released?;
        Ok(self.session)
    }

    async fn work(&mut self, fence: &Fence, told: &mut mpsc::UnboundedReceiver<News>) -> Result<(), EngineError> {
        let mut news = Vec::new();
        // Requests for which others have to leave something to spend.
        let mut waiting: Vec<Asking> = Vec::new();
        // When what has ended is written, at the latest.
        let mut due: Option<Instant> = None;
        loop {
            tokio::select! {
                count = told.recv_many(&mut news, MAX_BATCH) => if count == 0 { return self.write(fence).await },
                () = tokio::time::sleep(LOOK_EVERY), if !waiting.is_empty() => {}
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            }
            for one in news.drain(..) {
                match one {
                    News::Opened(asking) => waiting.push(asking),
                    News::Closed(closing) => self.closed(*closing)?,
                    News::Ended { exit_code } => {
                        self.end_turn(exit_code)?;
                        return self.write(fence).await;
                    }
                }
            }
            // What has ended is written together with the first that leaves, which may need what it left.
            for asking in std::mem::take(&mut waiting) {
                waiting.extend(self.open(asking, fence).await?);
            }
            if self.events.is_empty() {
                due = None;
            } else if *due.get_or_insert_with(|| Instant::now() + GATHER) <= Instant::now() {
                self.write(fence).await?;
                due = None;
            }
        }
    }

    /// Lets a request leave, or refuses it, or hands it back because it has to wait.
    async fn open(&mut self, asking: Asking, fence: &Fence) -> Result<Option<Asking>, EngineError> {
        let id = asking.opening.request.clone();
        let unpriced = self.session.spec.budget.unpriced.clone();
        let models = &self.engine.0.parts.models;
        let Opening { model, request_bytes, asks, operation, .. } = &*asking.opening;
        let counts_only = *operation == Operation::CountTokens;
        let quote_of = |facts: Facts| match models.quote_body(model, *request_bytes, facts.is_text, facts.max_output) {
            quote if counts_only => Quote { bound: Ok(Bound { input: 0, output: 0 }), pricing: Pricing::Free, ..quote },
            quote => quote.assuming(&unpriced),
        };
        let mut quote = quote_of(Facts { is_text: false, max_output: None });
        let (mut hold, mut reservation) = reserve(&self.session, &id, &quote, self.caps.clone(), None);
        // A long body is looked at only where something depends on it: that takes longer than to find out.
        let is_short = *request_bytes < LOOKED_AT_BYTES;
        if is_short || !self.caps.is_empty() || self.engine.is_limited(&hold.purses).await? {
            quote = quote_of(asks.facts());
            (hold, reservation) = reserve(&self.session, &id, &quote, self.caps.clone(), None);
        }
        let mut started = self.started(&asking.opening);
        if let SessionEvent::ModelRequestStarted { hold, .. } = &mut started {
            *hold = Some(reservation);
        }
        let mut events = self.events.clone();
        let head = self.session.head - events.len() as u64;
        events.push(started.clone().into_new(id.clone()));
        let mut ledger = self.ledger.clone();
        ledger.push(LedgerOp::Open { hold });
        let batch = Batch { ledger, state: self.state.clone(), ..Batch::events(events) };
        let said = match self.engine.append_batch(fence, head, batch).await {
            Ok(()) => {
                self.events.clear();
                self.ledger.clear();
                self.state = None;
                self.session.apply(&id, &started)?;
                self.quotes.insert(id, quote);
                Ok(())
            }
            Err(EngineError::Append { source: AppendError::Refused(refusal), .. }) => {
                // What has ended happened, whatever becomes of this one.
                self.write(fence).await?;
                let may_wait = matches!(*refusal, adj_domain::Refusal::Held { .. });
                if may_wait && asking.since.elapsed() < LONGEST_WAIT && !asking.written.is_closed() {
                    return Ok(Some(asking));
                }
                let message = format!("adjutant: budget_reached: {refusal}");
                self.emit(Some(id.clone()), self.started(&asking.opening))?;
                self.ended(id, RequestResult::Refused { refusal: (*refusal).clone() }, Vec::new())?;
                self.emit(None, SessionEvent::BudgetReached { refusal: *refusal })?;
                self.write(fence).await?;
                Err(Refusal::new(RefusalKind::BudgetReached, message))
            }
            Err(error) => return Err(error),
        };
        // Whoever hung up is closed in its turn.
        let _ = asking.written.send(said);
        Ok(None)
    }

    /// Begins the next turn; one that was left open by a process that died is ended first.
    fn begin_turn(&mut self) -> Result<(), EngineError> {
        if self.session.status == Status::Running {
            self.emit(None, SessionEvent::Resumed)?;
            self.give_up_open()?;
            self.rest(IdleReason::Interrupted)?;
        }
        self.emit(None, SessionEvent::StatusRunning { turn: self.session.turn + 1 })
    }

    fn end_turn(&mut self, exit_code: i32) -> Result<(), EngineError> {
        self.give_up_open()?;
        self.emit(None, SessionEvent::ProgramEnded { code: exit_code })?;
        self.rest(IdleReason::EndTurn)
    }

    fn give_up_open(&mut self) -> Result<(), EngineError> {
        for open in self.session.program_requests.clone() {
            // What nobody has told of counts with all that was set aside.
            let charges = match self.quotes.remove(&open) {
                Some(quote) => vec![Charge::up_to(quote.most(&self.session.spec.budget.unpriced).0)],
                None => self.lost.remove(&open).into_iter().collect(),
            };
            self.ended(open, RequestResult::Abandoned, charges)?;
        }
        Ok(())
    }

    fn rest(&mut self, stop_reason: IdleReason) -> Result<(), EngineError> {
        self.emit(None, SessionEvent::UsageReported { usage: self.session.usage })?;
        self.emit(None, SessionEvent::StatusIdle { stop_reason })
    }

    fn started(&self, opening: &Opening) -> SessionEvent {
        SessionEvent::ModelRequestStarted {
            turn: self.session.turn,
            step: self.session.step,
            purpose: Purpose::Step,
            model: opening.model.clone(),
            prompt: PromptRecord {
                hash: opening.body_hash.clone(),
                items: 0,
                estimated_tokens: opening.request_bytes / 4,
            },
            origin: Some(Box::new(origin(opening.clone()))),
            hold: None,
        }
    }

    fn closed(&mut self, closing: Closing) -> Result<(), EngineError> {
        // One that came after the end of the turn before was given up with it.
        if !self.session.program_requests.contains(&closing.request) {
            return Ok(());
        }
        let id = closing.request.clone();
        let charges = self.quotes.remove(&id).map(|quote| charge_of(&quote, &closing)).into_iter().collect();
        self.ended(id, result(closing), charges)
    }

    fn ended(&mut self, request: EventId, result: RequestResult, charges: Vec<Charge>) -> Result<(), EngineError> {
        let event = SessionEvent::ModelRequestEnded { model_request_start_id: request, result, charges };
        self.ledger.extend(closes([&event]));
        self.emit(None, event)
    }

    fn emit(&mut self, id: Option<EventId>, event: SessionEvent) -> Result<(), EngineError> {
        let place = (self.session.head + 1).to_string();
        let id = id.unwrap_or_else(|| EventId::derive(&[self.session.id.as_str(), &place]));
        self.session.apply(&id, &event)?;
        self.state = state_after(&self.session, [&event]).or(self.state.take());
        self.events.push(event.into_new(id));
        Ok(())
    }

    async fn write(&mut self, fence: &Fence) -> Result<(), EngineError> {
        let events = std::mem::take(&mut self.events);
        if events.is_empty() {
            return Ok(());
        }
        let head = self.session.head - events.len() as u64;
        let (ledger, state) = (std::mem::take(&mut self.ledger), self.state.take());
        self.engine.append_batch(fence, head, Batch { ledger, state, ..Batch::events(events) }).await
    }
}

fn origin(opening: Opening) -> Origin {
    let said = opening.attribution;
    Origin {
        wire: opening.wire.as_str().to_owned(),
        asked_model: opening.asked_model,
        request_bytes: opening.request_bytes,
        converted: opening.converted,
        counts_only: opening.operation == Operation::CountTokens,
        session: said.session,
        thread: said.thread,
        parent_thread: said.parent_thread,
        subagent: said.subagent,
        agent: said.agent,
        turn: said.turn,
        request_kind: said.request_kind,
        retries: said.retries,
    }
}

fn result(closing: Closing) -> RequestResult {
    let attempts = closing.retries + 1;
    let (latency_ms, queued_ms) = (milliseconds(closing.latency), milliseconds(closing.queued));
    match closing.outcome {
        Outcome::Answered => RequestResult::Answered {
            model: closing.model_answered.unwrap_or_default(),
            stop: closing.stop.unwrap_or_else(|| StopReason::Other("unknown".to_owned())),
            model_usage: closing.usage.unwrap_or_default(),
            cost: closing.cost,
            attempts,
            latency_ms,
            first_token_ms: closing.first_token.map(milliseconds),
            queued_ms,
            losses: closing.losses,
            answered_by: closing.answered_by,
            moved: closing.moved,
        },
        Outcome::Failed { kind, message } => RequestResult::Failed {
            kind,
            message,
            http_status: closing.status,
            attempts,
            latency_ms,
            queued_ms,
            moved: closing.moved,
        },
        Outcome::Abandoned => RequestResult::Abandoned,
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
