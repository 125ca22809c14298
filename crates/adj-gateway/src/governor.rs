//! Who may be sent to one account, and when: its breakers, its buckets, its cap on what is under way, its fair queues.
//!
//! Decides only: times come in as milliseconds of one steady clock, and what is decided goes out. Nobody who waits holds
//! anything. Each model has a queue of its own, so that one model's limit holds up no request for another.

use crate::{
    breaker::{Breaker, Gate, Pace},
    bucket::Bucket,
    cap::Cap,
    fair::{Fair, Waiting},
};
use adj_domain::{FailureKind, Usage};
use adj_providers::{ProviderError, Reading, Resource, Scope};
use std::collections::BTreeMap;

/// What a user lays down for an account; the vendor's own limits are learned, and count besides.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AccountLimits {
    /// Requests under way at a time; without it there is a cap only after the vendor complained.
    pub concurrency: Option<u32>,
    pub requests_per_minute: Option<u64>,
    /// Input and output together.
    pub tokens_per_minute: Option<u64>,
}

/// How patient waiting is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    pub pace: Pace,
    /// A vendor that asks for a longer wait is not waited for.
    pub longest_ms: u64,
    /// Nor is one that refuses for so long in all.
    pub in_all_ms: u64,
}

/// Who wants to send what, as far as limits are concerned.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    pub flow: &'a str,
    pub model: &'a str,
    /// Estimated, before any cache.
    pub input_tokens: u64,
    pub max_output_tokens: u64,
}

/// What a request waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitsFor {
    /// The vendor said that a limit is reached.
    Limit,
    /// Too many requests are under way.
    Concurrency,
    /// Requests or tokens of the minute.
    Rate,
    /// Those before it.
    Turn,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Entered {
    /// To be sent, under this number.
    Attempt(u64),
    Waits {
        ticket: u64,
        because: WaitsFor,
    },
    /// More wait than there is room for.
    QueueIsFull,
}

/// For one who waited: the attempt's number, or the words of the vendor that is not waited for.
pub type Decided = (u64, Result<u64, ProviderError>);

/// How an attempt ended.
#[derive(Debug, Clone, Copy)]
pub enum Ended<'a> {
    Answered(&'a Usage),
    Failed(&'a ProviderError),
    /// Nobody wants to know any more.
    Dropped,
}

pub const MAX_WAITING: usize = 1000;
const MAX_IDLE_POOLS: usize = 64;
const OVERDUE_AFTER_MS: u64 = 60_000;
/// A probe answers within the time to connect and that to the first byte; some seconds more do no harm.
const PROBE_MS: u64 = 140_000;
const LONGEST_SPREAD_MS: u64 = 30_000;
const SLOT_MS: u64 = 250;
const LARGEST_COST: u64 = 1_000_000;

#[derive(Debug)]
pub struct Governor {
    limits: AccountLimits,
    patience: Patience,
    pools: BTreeMap<String, Pool>,
    /// For limits that concern the whole account.
    door: Door,
    cap: Cap,
    requests: Option<Bucket>,
    tokens: Option<Bucket>,
    attempts: BTreeMap<u64, Attempt>,
    waiting: BTreeMap<u64, Request>,
    last_number: u64,
}

/// The requests for one model.
#[derive(Debug)]
struct Pool {
    queue: Fair,
    door: Door,
    learned: BTreeMap<Resource, Bucket>,
    /// The newest attempt whose readings were taken in.
    newest_reading: u64,
    last_served: u64,
    habit: Habit,
}

#[derive(Debug, Default)]
struct Door {
    breaker: Breaker,
    /// The vendor's words when it shut the door.
    words: Option<ProviderError>,
}

/// What requests come to as a rule: estimates are only for being polite.
#[derive(Debug)]
struct Habit {
    output: u64,
    /// How much of the input is not read from a cache, in thousandths of the estimate.
    fresh_permille: u64,
}

#[derive(Debug)]
struct Request {
    pool: String,
    input: u64,
    max_output: u64,
}

#[derive(Debug)]
struct Attempt {
    pool: String,
    input: u64,
    /// What was taken from the buckets.
    taken: Needs,
    was_let_in: bool,
}

#[derive(Debug, Clone, Copy)]
struct Needs {
    total: u64,
    input: u64,
    output: u64,
}

impl Needs {
    fn of(self, resource: Resource) -> u64 {
        match resource {
            Resource::Requests => 1,
            Resource::Tokens => self.total,
            Resource::InputTokens => self.input,
            Resource::OutputTokens => self.output,
        }
    }
}

impl Governor {
    pub fn new(limits: AccountLimits, patience: Patience) -> Self {
        Self {
            limits,
            patience,
            pools: BTreeMap::new(),
            door: Door::default(),
            cap: Cap::default(),
            requests: limits.requests_per_minute.map(|number| Bucket::full(number, 0)),
            tokens: limits.tokens_per_minute.map(|number| Bucket::full(number, 0)),
            attempts: BTreeMap::new(),
            waiting: BTreeMap::new(),
            last_number: 0,
        }
    }

    /// Takes a request in. After this, and whenever something ended, [`Governor::decide`] says who may go.
    pub fn enter(&mut self, asked: Asked<'_>, now: u64) -> Entered {
        self.forget_idle_pools();
        let pool = self.pools.entry(asked.model.to_owned()).or_insert_with(Pool::new);
        let request =
            Request { pool: asked.model.to_owned(), input: asked.input_tokens, max_output: asked.max_output_tokens };
        if self.waiting.is_empty() {
            let needs = pool.habit.needs(&request);
            if self.why_not(asked.model, needs, now).is_none() {
                return Entered::Attempt(self.send(request, now));
            }
        }
        if self.waiting.len() >= MAX_WAITING {
            return Entered::QueueIsFull;
        }
        let ticket = self.next_number();
        let pool = self.pools.get_mut(asked.model).expect("the pool was made above");
        let cost = pool.habit.needs(&request).total.clamp(1, LARGEST_COST);
        pool.queue.arrive(asked.flow, Waiting { ticket, cost, weight: 1 }, now);
        let needs = pool.habit.needs(&request);
        self.waiting.insert(ticket, request);
        Entered::Waits { ticket, because: self.why_not(asked.model, needs, now).unwrap_or(WaitsFor::Turn) }
    }

    /// Decides on everybody who waits and need not wait longer.
    pub fn decide(&mut self, now: u64) -> Vec<Decided> {
        let mut decided = Vec::new();
        if self.waiting.is_empty() {
            return decided;
        }
        self.turn_away(now, &mut decided);
        while let Some((ticket, request)) = self.next_to_go(now) {
            decided.push((ticket, Ok(self.send(request, now))));
        }
        decided
    }

    /// Returns when to decide again, if nothing ends before.
    pub fn decides_again_at(&self, now: u64) -> Option<u64> {
        let pace = &self.patience.pace;
        let pools = self.pools.iter().filter(|(_, pool)| !pool.queue.is_empty());
        let times = pools.filter_map(|(model, pool)| {
            let mut at = None;
            for gate in [self.door.breaker.gate(now, pace), pool.door.breaker.gate(now, pace)] {
                if let Gate::At(time) = gate {
                    at = at.max(Some(time));
                }
            }
            if at.is_some() {
                return at;
            }
            let pick = pool.queue.pick(now)?;
            let needs = pool.habit.needs(self.waiting.get(&pick.ticket)?);
            Some(self.ready_at(model, needs, now)).filter(|at| *at > now)
        });
        times.min().map(|at| at.max(now + 1))
    }

    /// Returns when requests for a model may pass again, as far as the vendor's refusals are concerned.
    pub fn opens_at(&self, model: &str, now: u64) -> u64 {
        let pace = &self.patience.pace;
        let doors = [Some(&self.door), self.pools.get(model).map(|pool| &pool.door)];
        let gates = doors.into_iter().flatten().map(|door| door.breaker.gate(now, pace));
        gates.map(|gate| if let Gate::At(time) = gate { time } else { now }).max().unwrap_or(now)
    }

    /// Takes out somebody who no longer wants to wait; `false` if the decision was made already.
    pub fn leave(&mut self, ticket: u64, now: u64) -> bool {
        let Some(request) = self.waiting.remove(&ticket) else { return false };
        self.pools.get_mut(&request.pool).is_some_and(|pool| pool.queue.leave(ticket, now))
    }

    /// The vendor let the attempt in: its answer begins.
    pub fn let_in(&mut self, number: u64, now: u64) {
        let Some(attempt) = self.attempts.get_mut(&number) else { return };
        if std::mem::replace(&mut attempt.was_let_in, true) {
            return;
        }
        let Some(pool) = self.pools.get_mut(&attempt.pool) else { return };
        let per_minute = pool.learned.get(&Resource::Requests).or(self.requests.as_ref()).map(Bucket::per_minute);
        let spread = |waiting: u64| {
            let by_rate = per_minute.map_or(0, |rate| waiting * 60_000 / rate);
            by_rate.max(waiting * SLOT_MS).min(LONGEST_SPREAD_MS)
        };
        let (here, everywhere) = (pool.queue.len() as u64, self.waiting.len() as u64);
        pool.door.breaker.answered(number, here, spread(here), now);
        self.door.breaker.answered(number, everywhere, spread(everywhere), now);
    }

    /// Takes in what the vendor said of its limits in the head of an attempt's answer.
    pub fn learn(&mut self, number: u64, readings: &[Reading], now: u64) {
        let Some(attempt) = self.attempts.get(&number) else { return };
        let Some(pool) = self.pools.get_mut(&attempt.pool) else { return };
        if readings.is_empty() || number < pool.newest_reading {
            return;
        }
        pool.newest_reading = number;
        for reading in readings {
            let later = self.attempts.range(number + 1..).filter(|(_, later)| later.pool == attempt.pool);
            let unseen = later.map(|(_, later)| later.taken.of(reading.resource)).sum();
            if let Some(bucket) = pool.learned.get_mut(&reading.resource) {
                bucket.learn(reading, unseen, now);
            } else if let Some(limit) = reading.limit {
                let mut bucket = Bucket::full(limit, now);
                bucket.learn(reading, unseen, now);
                pool.learned.insert(reading.resource, bucket);
            }
        }
    }

    /// An attempt is over.
    pub fn ended(&mut self, number: u64, how: Ended<'_>, now: u64) {
        match how {
            Ended::Answered(_) => self.let_in(number, now),
            Ended::Failed(error) => self.learn(number, &error.readings, now),
            Ended::Dropped => {}
        }
        let under_way = self.attempts.len();
        let Some(attempt) = self.attempts.remove(&number) else { return };
        self.settle(&attempt, how, now);
        let Some(pool) = self.pools.get_mut(&attempt.pool) else { return };
        match how {
            Ended::Answered(_) => self.cap.went_well(now),
            Ended::Failed(error) => {
                let asked = error.retry_after.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
                let overloaded = error.kind == FailureKind::Overloaded;
                if overloaded || (error.kind == FailureKind::RateLimit && asked.is_none()) {
                    self.cap.lower(under_way, now);
                }
                if is_limit(error) {
                    let door = match error.scope {
                        Scope::Model => &mut pool.door,
                        Scope::Account => &mut self.door,
                    };
                    door.breaker.refused(number, asked, now, &self.patience.pace);
                    door.words = Some(error.clone());
                } else if says_nothing_of_limits(error.kind) {
                    // The door is open, whatever else is wrong.
                    let (here, everywhere) = (pool.queue.len() as u64, self.waiting.len() as u64);
                    pool.door.breaker.answered(number, here, here * SLOT_MS, now);
                    self.door.breaker.answered(number, everywhere, everywhere * SLOT_MS, now);
                }
            }
            Ended::Dropped => {}
        }
        pool.door.breaker.lost(number, now);
        self.door.breaker.lost(number, now);
    }

    pub fn is_idle(&self) -> bool {
        self.attempts.is_empty() && self.waiting.is_empty()
    }

    fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    fn send(&mut self, request: Request, now: u64) -> u64 {
        let number = self.next_number();
        let pool = self.pools.get_mut(&request.pool).expect("whoever is sent has a pool");
        let taken = pool.habit.needs(&request);
        let deadline = now + PROBE_MS;
        self.door.breaker.sent(number, now, deadline);
        pool.door.breaker.sent(number, now, deadline);
        for (resource, bucket) in &mut pool.learned {
            bucket.take(taken.of(*resource), now);
        }
        for (bucket, need) in [(&mut self.requests, 1), (&mut self.tokens, taken.total)] {
            bucket.iter_mut().for_each(|bucket| bucket.take(need, now));
        }
        pool.last_served = number;
        let Request { pool, input, .. } = request;
        self.attempts.insert(number, Attempt { pool, input, taken, was_let_in: false });
        number
    }

    /// Returns what stands between a request and the vendor, its turn aside.
    fn why_not(&self, model: &str, needs: Needs, now: u64) -> Option<WaitsFor> {
        if self.is_shut(self.pools.get(model)?, now) {
            return Some(WaitsFor::Limit);
        }
        if self.cap.is_reached(self.attempts.len(), self.limits.concurrency, now) {
            return Some(WaitsFor::Concurrency);
        }
        (self.ready_at(model, needs, now) > now).then_some(WaitsFor::Rate)
    }

    fn is_shut(&self, pool: &Pool, now: u64) -> bool {
        let pace = &self.patience.pace;
        [&self.door, &pool.door].iter().any(|door| matches!(door.breaker.gate(now, pace), Gate::At(_)))
    }

    /// Returns when every bucket holds enough.
    fn ready_at(&self, model: &str, needs: Needs, now: u64) -> u64 {
        let learned = self.pools.get(model).map(|pool| pool.ready_at(needs, now, self.patience.longest_ms));
        let requests = self.requests.iter().map(|bucket| bucket.ready_at(1, now));
        let tokens = self.tokens.iter().map(|bucket| bucket.ready_at(needs.total, now));
        learned.into_iter().chain(requests).chain(tokens).max().unwrap_or(now)
    }

    /// Turns away whoever waits at a door that stays shut for too long.
    fn turn_away(&mut self, now: u64, decided: &mut Vec<Decided>) {
        let Patience { longest_ms, in_all_ms, .. } = self.patience;
        let too_long = |door: &Door| door.breaker.is_shut_too_long(now, longest_ms, in_all_ms);
        let everywhere = too_long(&self.door);
        for pool in self.pools.values_mut() {
            let (until, words) = match (everywhere, too_long(&pool.door)) {
                (Some(until), _) => (until, &self.door.words),
                (None, Some(until)) => (until, &pool.door.words),
                (None, None) => continue,
            };
            let Some(words) = words else { continue };
            let left = std::time::Duration::from_millis(until.saturating_sub(now));
            let error = ProviderError { retry_after: Some(left), ..words.clone() };
            for ticket in pool.queue.clear() {
                self.waiting.remove(&ticket);
                decided.push((ticket, Err(error.clone())));
            }
        }
    }

    /// Takes the next one out of the queues, if it may go: of the models whose door is open, the one served longest ago.
    fn next_to_go(&mut self, now: u64) -> Option<(u64, Request)> {
        let waits = |pool: &&Pool| !pool.queue.is_empty();
        let mut order = self.pools.iter().filter(|(_, pool)| waits(pool)).collect::<Vec<_>>();
        order.sort_by_key(|(_, pool)| pool.last_served);
        for (model, pool) in order {
            let pick = pool.queue.pick(now)?;
            let needs = pool.habit.needs(self.waiting.get(&pick.ticket)?);
            // A pick that does not fit keeps its turn, in its queue and in the account: nobody smaller passes it by.
            if self.is_shut(pool, now) || pool.ready_at(needs, now, self.patience.longest_ms) > now {
                continue;
            }
            if self.why_not(model, needs, now).is_some() {
                return None;
            }
            let model = model.clone();
            self.pools.get_mut(&model)?.queue.take(&pick, now)?;
            return Some((pick.ticket, self.waiting.remove(&pick.ticket)?));
        }
        None
    }

    /// Puts what an attempt came to in place of what was taken for it.
    fn settle(&mut self, attempt: &Attempt, how: Ended<'_>, now: u64) {
        let Some(pool) = self.pools.get_mut(&attempt.pool) else { return };
        let actual = match how {
            Ended::Answered(usage) => {
                pool.habit.learn(attempt.input, usage);
                let input = usage.uncached_tokens();
                Needs { total: usage.total_tokens(), input, output: usage.output_tokens }
            }
            Ended::Failed(error) if error.is_unsent || error.status.is_some() => {
                Needs { total: 0, input: 0, output: 0 }
            }
            // It may have been counted.
            Ended::Failed(_) | Ended::Dropped => return,
        };
        for (resource, bucket) in &mut pool.learned {
            if *resource != Resource::Requests {
                bucket.correct(attempt.taken.of(*resource), actual.of(*resource), now);
            }
        }
        if let Some(bucket) = &mut self.tokens {
            bucket.correct(attempt.taken.total, actual.total, now);
        }
    }

    fn forget_idle_pools(&mut self) {
        if self.pools.len() <= MAX_IDLE_POOLS {
            return;
        }
        let attempts = &self.attempts;
        self.pools.retain(|model, pool| {
            let is_in_use = attempts.values().any(|attempt| attempt.pool == *model);
            is_in_use || !pool.queue.is_empty() || pool.door.breaker != Breaker::Closed
        });
    }
}

impl Pool {
    fn new() -> Self {
        Self {
            queue: Fair::new(OVERDUE_AFTER_MS),
            door: Door::default(),
            learned: BTreeMap::new(),
            newest_reading: 0,
            last_served: 0,
            habit: Habit { output: 1000, fresh_permille: 1000 },
        }
    }

    /// Returns when the learned buckets hold enough. What they say is a guess: rather than wait for long on its account,
    /// the vendor is asked, and its own words count.
    fn ready_at(&self, needs: Needs, now: u64, longest: u64) -> u64 {
        let buckets = self.learned.iter().map(|(resource, bucket)| bucket.ready_at(needs.of(*resource), now));
        buckets.filter(|at| at.saturating_sub(now) <= longest).max().unwrap_or(now)
    }
}

impl Habit {
    fn needs(&self, request: &Request) -> Needs {
        let output = request.max_output.min(self.output.saturating_mul(2));
        Needs {
            total: request.input.saturating_add(output),
            input: (request.input.saturating_mul(self.fresh_permille) / 1000).max(1),
            output,
        }
    }

    fn learn(&mut self, estimated: u64, usage: &Usage) {
        let fresh = usage.uncached_tokens();
        let permille = (fresh.saturating_mul(1000) / estimated.max(1)).clamp(20, 2000);
        self.fresh_permille = (3 * self.fresh_permille + permille) / 4;
        self.output = (self.output.saturating_mul(3).saturating_add(usage.output_tokens)) / 4;
    }
}

/// Whether a failure is a limit that passes with time.
pub fn is_limit(error: &ProviderError) -> bool {
    error.kind == FailureKind::RateLimit || (error.kind == FailureKind::Billing && error.retry_after.is_some())
}

fn says_nothing_of_limits(kind: FailureKind) -> bool {
    match kind {
        FailureKind::Authentication
        | FailureKind::InvalidRequest
        | FailureKind::ContextTooLong
        | FailureKind::Protocol
        | FailureKind::Server => true,
        FailureKind::Billing
        | FailureKind::Connection
        | FailureKind::Timeout
        | FailureKind::RateLimit
        | FailureKind::Overloaded
        | FailureKind::Cancelled
        | FailureKind::Budget => false,
    }
}
