//! What a request can cost is set aside before it leaves, in one transaction with the event that says so, and settled with the
//! event of its end.

use crate::{
    engine::{Engine, EngineError},
    guard::Guard,
    live::Interrupt,
    state::state_after,
};
use adj_domain::{
    AttemptId, Budget, Cap, Charge, EventBody, EventId, Hold, LedgerOp, LogId, ModelRequest, NewEvent, Purpose,
    PurseKey, Refusal, Reservation, Scope, Session, SessionEvent, SessionId, Span, Timestamp, Unpriced,
};
use adj_gateway::endpoint::{Closing, Outcome};
use adj_gateway::{Known, Payer, Quote, Tab, Unpaid};
use adj_policy::Policy;
use adj_store::{AppendError, Batch, Expect, Fence};
use async_trait::async_trait;
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;

/// Other processes tell of what they have settled only through the store, so that is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// After so long somebody may have died with something set aside.
const SWEEP_AFTER: Duration = Duration::from_secs(1);
/// Every request has come to its end by then.
const LONGEST_WAIT: Duration = Duration::from_secs(2 * 3600);
/// How often an answer is made shorter to fit one more budget.
const CLAMPS: u32 = 8;

/// The limits that policy sets on the purses of a session's requests.
pub fn caps(policy: &Policy, session: &SessionId, run: Option<&adj_domain::RunId>) -> Vec<Cap> {
    let scope = |span| {
        Some(match span {
            Span::Request => Scope::Request(session.clone()),
            Span::Turn => Scope::Turn(session.clone()),
            Span::Session => Scope::Session(session.clone()),
            Span::Run => Scope::Run(run?.clone()),
            Span::Day => Scope::Day,
            Span::Organisation => Scope::Organisation,
        })
    };
    let budgets = policy.budgets().into_iter();
    let caps = budgets.filter_map(|least| {
        Some(Cap { scope: scope(least.span)?, unit: least.budget.unit, amount: least.budget.amount })
    });
    caps.collect()
}

/// The hold for the first attempt at a request, and how its log tells of it.
pub fn reserve(
    session: &Session,
    request: &EventId,
    quote: &Quote,
    caps: Vec<Cap>,
    max_output_tokens: Option<u32>,
) -> (Hold, Reservation) {
    let (amounts, gap) = quote.most(&session.spec.budget.unpriced);
    let reservation = Reservation::new(Timestamp::now(), amounts, max_output_tokens);
    let run = session.spec.run.as_ref().map(|(run, _)| run);
    let hold = reservation.hold(&session.id, run, session.turn, request);
    (Hold { caps, gap, ..hold }, reservation)
}

/// What a request of another program came to that ended like this.
pub(crate) fn charge_of(quote: &Quote, closing: &Closing) -> Charge {
    let most = quote.most(&Unpriced::Refuse).0;
    let answering = closing.answered_by.as_ref().map_or(quote, |model| quote.of(model));
    let told = closing.usage.map(|usage| answering.amounts(usage)).unwrap_or_default();
    let is_answered = closing.outcome == Outcome::Answered;
    // Nobody has told what the others have come to.
    let untold = closing.unsettled + u32::from(is_answered && closing.usage.is_none());
    let mut at_most = told.clone();
    for (unit, amount) in most.0 {
        let untold = amount.saturating_mul(u64::from(untold));
        let known = at_most.0.remove(&unit).unwrap_or_default();
        // What an attempt has told that came to no answer is a part of what it came to.
        let amount = if is_answered { known.saturating_add(untold) } else { known.max(untold) };
        if amount > 0 {
            at_most.0.insert(unit, amount);
        }
    }
    Charge { at_least: told, at_most }
}

/// What the ends of requests among these events settle.
pub fn closes<'e>(events: impl IntoIterator<Item = &'e SessionEvent>) -> Vec<LedgerOp> {
    let mut ops = Vec::new();
    for event in events {
        if let SessionEvent::ModelRequestEnded { model_request_start_id, charges, .. } = event {
            let mut attempt = AttemptId::first(model_request_start_id.clone());
            for charge in charges {
                ops.push(LedgerOp::Close { attempt: attempt.clone(), charge: charge.clone() });
                attempt = attempt.next();
            }
        }
    }
    ops
}

/// A request that is about to leave, with everything that is remembered together with its beginning.
pub(crate) struct Departure<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) guard: &'a Guard,
    pub(crate) fence: &'a Fence,
    pub(crate) interrupt: &'a Interrupt,
    /// Already folded with all of `events`.
    pub(crate) session: &'a Session,
    /// Where the log ends without `events`.
    pub(crate) head: u64,
    /// The last of them is the request's beginning.
    pub(crate) events: Vec<(EventId, SessionEvent)>,
    pub(crate) takes: Vec<EventId>,
}

/// What became of it.
pub(crate) enum Departed {
    /// It may be sent; everything is remembered.
    Paid(Box<Paid>),
    /// It may not. These events are not remembered yet; they begin behind this head, with these inputs to take up.
    Refused { refusal: Box<Refusal>, head: u64, events: Vec<(EventId, SessionEvent)>, takes: Vec<EventId> },
}

pub(crate) struct Paid {
    pub(crate) request: ModelRequest,
    pub(crate) tab: Tab,
    /// Why its answer may not be as long as it might have been.
    pub(crate) shortened: Option<Refusal>,
}

impl Departure<'_> {
    /// Sets aside what the request can cost, shortens its answer where that is what it takes, and waits where others under way
    /// may leave enough.
    pub(crate) async fn pay(mut self, id: &EventId, mut request: ModelRequest) -> Result<Departed, EngineError> {
        let Budget { unpriced, .. } = &self.session.spec.budget;
        let run = self.session.spec.run.as_ref().map(|(run, _)| run);
        let caps = caps(&self.guard.policy, &self.session.id, run);
        let known = (request.purpose == Purpose::Step && self.session.context_tokens > 0)
            .then_some(Known { tokens: self.session.context_tokens, bytes_since: self.session.bytes_since_count });
        let asked = request.max_output_tokens;
        let since = Instant::now();
        let (mut clamps, mut swept) = (0, false);
        let mut shortened = None;
        loop {
            let quote = self.engine.0.parts.models.quote(&request, known).assuming(unpriced);
            let clamped = (request.max_output_tokens < asked).then_some(request.max_output_tokens);
            let (hold, reservation) = reserve(self.session, id, &quote, caps.clone(), clamped);
            let is_limited = !caps.is_empty() || self.engine.is_limited(&hold.purses).await?;
            let refusal = match self.append(Some((&hold, reservation))).await? {
                Ok(()) => {
                    let payer = Arc::new(Purse { engine: self.engine.clone(), fence: self.fence.clone(), hold });
                    let tab = Tab { quote, is_limited, payer };
                    return Ok(Departed::Paid(Box::new(Paid { request, tab, shortened })));
                }
                Err(refusal) => refusal,
            };
            let refusal = match *refusal {
                Refusal::Spent { ref unit, limit, spent, .. } if clamps < CLAMPS => {
                    clamps += 1;
                    match quote.output_within(unit, limit.saturating_sub(spent), request.max_output_tokens) {
                        Some(output) => {
                            request.max_output_tokens = output;
                            shortened = Some(*refusal);
                            continue;
                        }
                        None => refusal,
                    }
                }
                Refusal::Held { .. } if since.elapsed() < LONGEST_WAIT && !self.interrupt.is_asked() => {
                    // Everything before the request has happened, however long it waits.
                    self.append_all_but_the_last().await?;
                    if !swept && since.elapsed() >= SWEEP_AFTER {
                        swept = true;
                        self.engine.sweep().await?;
                    }
                    tokio::select! {
                        () = tokio::time::sleep(LOOK_EVERY) => {}
                        () = self.interrupt.asked() => {}
                    }
                    // What is left may be more by now than when the answer was made shorter.
                    request.max_output_tokens = asked;
                    (clamps, shortened) = (0, None);
                    continue;
                }
                _ => refusal,
            };
            return Ok(Departed::Refused { refusal, head: self.head, events: self.events, takes: self.takes });
        }
    }

    async fn append_all_but_the_last(&mut self) -> Result<(), EngineError> {
        if self.events.len() > 1 {
            let last = self.events.pop();
            let appended = self.append(None).await?;
            appended.map_err(|refusal| EngineError::Append {
                log: self.fence.log().clone(),
                source: AppendError::Refused(refusal),
            })?;
            self.head += self.events.len() as u64;
            self.events = last.into_iter().collect();
            self.takes.clear();
        }
        Ok(())
    }

    async fn append(&self, opening: Option<(&Hold, Reservation)>) -> Result<Result<(), Box<Refusal>>, EngineError> {
        let mut ledger = closes(self.events.iter().map(|(_, event)| event));
        let mut events = self.events.clone();
        if let Some((opened, reservation)) = opening {
            ledger.push(LedgerOp::Open { hold: opened.clone() });
            if let Some((_, SessionEvent::ModelRequestStarted { hold, .. })) = events.last_mut() {
                *hold = Some(reservation);
            }
        }
        let state = state_after(self.session, events.iter().map(|(_, event)| event));
        let events: Vec<NewEvent> = events.into_iter().map(|(id, event)| event.into_new(id)).collect();
        let batch = Batch { events, takes: self.takes.clone(), ledger, state };
        match self.engine.append_batch(self.fence, self.head, batch).await {
            Ok(()) => Ok(Ok(())),
            Err(EngineError::Append { source: AppendError::Refused(refusal), .. }) => Ok(Err(refusal)),
            Err(error) => Err(error),
        }
    }
}

/// Opens the later holds of one request.
#[derive(Debug)]
struct Purse {
    engine: Engine,
    fence: Fence,
    hold: Hold,
}

#[async_trait]
impl Payer for Purse {
    async fn another(&self, number: u32, last: &Charge) -> Result<(), Unpaid> {
        let of = |number| AttemptId { number, ..self.hold.attempt.clone() };
        let hold = Hold { attempt: of(number), ..self.hold.clone() };
        let since = Instant::now();
        // Before it waits for others: nobody waits while something is set aside for him that is not under way.
        let settle = vec![LedgerOp::Close { attempt: of(number - 1), charge: last.clone() }];
        let mut ledger = [settle.clone(), vec![LedgerOp::Open { hold: hold.clone() }]].concat();
        loop {
            let batch = Batch { ledger: ledger.clone(), ..Batch::default() };
            match self.engine.store().append(&self.fence, Expect::Any, batch).await {
                Ok(_) => return Ok(()),
                Err(AppendError::Refused(refusal)) => {
                    if !matches!(*refusal, Refusal::Held { .. }) || since.elapsed() >= LONGEST_WAIT {
                        return Err(Unpaid::Refused(*refusal));
                    }
                    if ledger.len() > 1 {
                        ledger.remove(0);
                        let batch = Batch { ledger: settle.clone(), ..Batch::default() };
                        let settled = self.engine.store().append(&self.fence, Expect::Any, batch).await;
                        settled.map_err(|error| Unpaid::Failed(error.to_string()))?;
                        continue;
                    }
                    tokio::time::sleep(LOOK_EVERY).await;
                }
                Err(error) => return Err(Unpaid::Failed(error.to_string())),
            }
        }
    }
}

impl Engine {
    /// Whether a limit that the books keep depends on what is set aside in these purses.
    pub(crate) async fn is_limited(&self, purses: &[PurseKey]) -> Result<bool, EngineError> {
        Ok(self.store().standing(purses).await?.iter().any(|standing| !standing.limits.is_empty()))
    }

    /// What the holds of a request come to of which a dead process has left the last open: each counts as spent in full, also
    /// where the books know more of an earlier one.
    pub(crate) async fn lost(&self, log: &LogId, request: &EventId) -> Result<Vec<Charge>, EngineError> {
        let left = self.store().holds(Some(log)).await?.into_iter().map(|left| left.hold);
        let last = left.filter(|hold| hold.attempt.request == *request).max_by_key(|hold| hold.attempt.number);
        Ok(last.map_or_else(Vec::new, |hold| vec![Charge::up_to(hold.amounts); hold.attempt.number as usize]))
    }

    /// Settles what dead processes have left set aside, so that it does not lie there until somebody takes their sessions up.
    pub async fn sweep(&self) -> Result<(), EngineError> {
        let left = self.store().holds(None).await?;
        let mut logs: Vec<LogId> = left.into_iter().filter(|hold| !hold.alive).map(|hold| hold.log).collect();
        logs.dedup();
        for log in logs {
            let LogId::Session(id) = &log else { continue };
            // Whoever has it by now settles it.
            let Ok(claim) = self.claim(&log).await else { continue };
            let settled = self.settle(id, &claim.fence).await;
            self.store().release(claim.fence).await?;
            settled?;
        }
        Ok(())
    }

    async fn settle(&self, id: &SessionId, fence: &Fence) -> Result<(), EngineError> {
        let session = self.session(id).await?;
        let Some(open) = &session.request else { return Ok(()) };
        let charges = self.lost(&LogId::from(id.clone()), &open.id).await?;
        let event = SessionEvent::ModelRequestEnded {
            model_request_start_id: open.id.clone(),
            result: adj_domain::RequestResult::Abandoned,
            charges,
        };
        let ledger = closes([&event]);
        let seq = (session.head + 1).to_string();
        let events = vec![event.into_new(EventId::derive(&[id.as_str(), &seq]))];
        self.append_batch(fence, session.head, Batch { ledger, ..Batch::events(events) }).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use adj_domain::{FailureKind, SessionId, Unit, Usage};
    use adj_gateway::{Bound, Pricing};

    fn quote(model: &str, rate: &str) -> Quote {
        let rates = format!("assume:{rate}/{rate}").parse::<Unpriced>().expect("a price");
        let model = model.parse().expect("a model");
        let bound = Ok(Bound { input: 1_000_000, output: 1_000_000 });
        Quote { model, bound, pricing: Pricing::Unknown, is_quota: false, others: Vec::new() }.assuming(&rates)
    }

    fn closing(outcome: Outcome, usage: Option<u64>, unsettled: u32, by: Option<&str>) -> Closing {
        Closing {
            request: EventId::derive(&["r"]),
            session: SessionId::derive(&["s"]),
            outcome,
            status: None,
            usage: usage.map(|input_tokens| Usage { input_tokens, ..Usage::default() }),
            cost: None,
            stop: None,
            model_answered: None,
            vendor_request: None,
            latency: Duration::ZERO,
            queued: Duration::ZERO,
            first_byte: None,
            first_token: None,
            retries: 0,
            unsettled,
            answered_by: by.map(|model| model.parse().expect("a model")),
            moved: Vec::new(),
            answer_bytes: 0,
            losses: Vec::new(),
        }
    }

    #[test]
    fn attempts_of_which_nobody_has_told_count_with_all_that_they_can_come_to() {
        // The second is dearer, so what is set aside is enough for it: 2 million tokens, 8 dollars.
        let quote = Quote { others: vec![quote("b/m", "4")], ..quote("a/m", "1") };
        let failed = || Outcome::Failed { kind: FailureKind::Server, message: String::new() };
        let million = Some(1_000_000);
        let cases = [
            // at least, at most: in millions of tokens and in dollars
            (closing(Outcome::Answered, million, 0, None), (1, 1), (1, 1)),
            (closing(Outcome::Answered, million, 0, Some("b/m")), (1, 4), (1, 4)),
            (closing(Outcome::Answered, million, 2, Some("b/m")), (1, 4), (5, 20)),
            (closing(Outcome::Answered, None, 0, None), (0, 0), (2, 8)),
            (closing(failed(), None, 0, None), (0, 0), (0, 0)),
            (closing(failed(), None, 1, None), (0, 0), (2, 8)),
            (closing(failed(), million, 1, None), (1, 1), (2, 8)),
            (closing(Outcome::Abandoned, None, 3, None), (0, 0), (6, 24)),
        ];
        for (closing, at_least, at_most) in cases {
            let charge = charge_of(&quote, &closing);
            let shown = |amounts: &adj_domain::Amounts| {
                let dollars = amounts.get(&"USD".parse().expect("a unit"));
                (amounts.get(&Unit::Tokens) / 1_000_000, dollars / 1_000_000)
            };
            assert_eq!((shown(&charge.at_least), shown(&charge.at_most)), (at_least, at_most), "{closing:?}");
        }
    }
}
