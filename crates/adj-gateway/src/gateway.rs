//! Sends each request to its vendor, and repeats what may yet pass.

use crate::{
    AccountLimits, Catalogue, Delta, Entry, ModelCaller, OnDelta, RetryPolicy,
    bound::{Bound, Known, Pricing, Quote, Unboundable},
    caller::Tab,
    door::{Door, Permit},
    endpoint::Wire,
    failover::{Failover, losses},
    governor::{Asked, Ended},
    passage::Passage,
    size,
    spend::{Bill, Spend},
    way::{Stays, Way, Whereabouts},
};
use adj_domain::{Cost, FailureKind, ModelAnswer, ModelFailure, ModelRef, ModelRequest, Moved, Timestamp, Usage};
use adj_providers::{Accumulator, ModelEvent, Provider, ProviderError};
use async_trait::async_trait;
use futures_util::StreamExt;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, LazyLock},
    time::Duration,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The vendors by name, and how often each request is tried. Each vendor's key is one account, with limits of its own.
#[derive(Debug, Default)]
pub struct Gateway {
    accounts: BTreeMap<String, Account>,
    retries: RetryPolicy,
    /// `None`: the built-in one, which is read when it is first needed.
    catalogue: Option<Catalogue>,
    /// Vendors who send no bill for models without a price.
    free: BTreeSet<String>,
    /// Vendors who are paid by a subscription.
    on_quota: BTreeSet<String>,
    /// By the model that is asked for.
    failovers: BTreeMap<String, Arc<Failover>>,
    /// Accounts by another name than their vendor's, and whose prices theirs are.
    vendors_of: BTreeMap<String, String>,
    whereabouts: Whereabouts,
}

#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) provider: Arc<dyn Provider>,
    pub(crate) door: Arc<Door>,
}

impl Gateway {
    pub fn new(retries: RetryPolicy) -> Self {
        Self { retries, ..Self::default() }
    }

    /// Knows of models what this catalogue says.
    #[must_use]
    pub fn knowing(mut self, catalogue: Catalogue) -> Self {
        self.catalogue = Some(catalogue);
        self
    }

    /// What is known of models.
    pub fn catalogue(&self) -> &Catalogue {
        static BUILTIN: LazyLock<Catalogue> = LazyLock::new(Catalogue::builtin);
        self.catalogue.as_ref().unwrap_or(&BUILTIN)
    }

    /// Adds a vendor, or replaces the one of that name.
    #[must_use]
    pub fn with(self, vendor: impl Into<String>, provider: Arc<dyn Provider>) -> Self {
        self.with_limits(vendor, provider, AccountLimits::default())
    }

    /// Adds a vendor that is asked no more than these limits allow, whatever it would bear.
    #[must_use]
    pub fn with_limits(
        mut self,
        vendor: impl Into<String>,
        provider: Arc<dyn Provider>,
        limits: AccountLimits,
    ) -> Self {
        let vendor = vendor.into();
        let door = Arc::new(Door::new(vendor.clone(), limits, self.retries.patience()));
        self.accounts.insert(vendor, Account { provider, door });
        self
    }

    /// Adds all of these vendors.
    #[must_use]
    pub fn with_all(self, vendors: impl IntoIterator<Item = (String, Arc<dyn Provider>)>) -> Self {
        vendors.into_iter().fold(self, |gateway, (vendor, provider)| gateway.with(vendor, provider))
    }

    /// Takes it that a vendor sends no bill for a model without a price: it is ours.
    #[must_use]
    pub fn free(mut self, vendor: impl Into<String>) -> Self {
        self.free.insert(vendor.into());
        self
    }

    /// Takes it that a vendor is paid by a subscription: what its models cost is counted, and is no money.
    #[must_use]
    pub fn on_quota(mut self, vendor: impl Into<String>) -> Self {
        self.on_quota.insert(vendor.into());
        self
    }

    /// What is known of a model's price.
    fn pricing(&self, model: &ModelRef) -> Pricing {
        let entry = self.catalogue().find(&self.known_as(model), Timestamp::now());
        match entry.and_then(|entry| entry.price.clone().map(|price| (price, entry.to_string()))) {
            Some((price, entry)) => Pricing::Priced { price, entry },
            None if model.vendor == "scripted" || self.free.contains(&model.vendor) => Pricing::Free,
            None => Pricing::Unknown,
        }
    }

    /// What one of these models comes to at most, for a request of which no more than a bound is known.
    fn quote_within(&self, model: &ModelRef, bound: Result<Bound, Unboundable>) -> Quote {
        let is_quota = self.on_quota.contains(&model.vendor);
        Quote { model: model.clone(), bound, pricing: self.pricing(model), is_quota, others: Vec::new() }
    }

    /// How many tokens a prompt of a model may have, and an answer, where that is known.
    pub fn sizes(&self, model: &ModelRef) -> (Option<u64>, Option<u32>) {
        let entry = self.catalogue().find(&self.known_as(model), Timestamp::now());
        (entry.and_then(|entry| entry.context), entry.and_then(|entry| entry.max_output))
    }

    /// Lets requests for a model (or for `route/NAME`, which is none) go to the models of this list.
    #[must_use]
    pub fn with_failover(mut self, model: &ModelRef, failover: Failover) -> Self {
        self.failovers.insert(model.to_string(), Arc::new(failover));
        self
    }

    /// Prices what an account answers as if its vendor had.
    #[must_use]
    pub fn priced_as(mut self, account: impl Into<String>, vendor: impl Into<String>) -> Self {
        self.vendors_of.insert(account.into(), vendor.into());
        self
    }

    /// Returns what an answer of a model cost, if that is known.
    pub fn cost(&self, model: &ModelRef, usage: Usage) -> Option<Cost> {
        self.catalogue().cost(&self.known_as(model), usage, Timestamp::now())
    }

    /// The model by its vendor's own name, where an account has another.
    fn known_as(&self, model: &ModelRef) -> ModelRef {
        let vendor = self.vendors_of.get(&model.vendor).unwrap_or(&model.vendor);
        ModelRef { vendor: vendor.clone(), name: model.name.clone() }
    }

    /// Whether no request waits, and none is under way.
    pub fn is_idle(&self) -> bool {
        self.accounts.values().all(|account| account.door.is_idle())
    }

    /// Returns the names of the vendors that can be called.
    pub fn vendors(&self) -> impl Iterator<Item = &str> {
        self.accounts.keys().map(String::as_str)
    }

    /// The models that are known by name and can be called, with what is known of each. An account has the models of the vendor that
    /// it is priced as.
    pub fn models(&self, at: Timestamp) -> Vec<(ModelRef, &Entry)> {
        let known = |vendor: &String| {
            let prefix = format!("{}/", self.vendors_of.get(vendor).unwrap_or(vendor));
            let names = self.catalogue().entries().filter_map(move |entry| entry.name.strip_prefix(&prefix));
            // One name has an entry for each of its prices; `*` stands for names that nobody has said.
            let mut names: Vec<&str> = names.filter(|name| !name.ends_with('*')).collect();
            names.dedup();
            let models = names.into_iter().map(|name| ModelRef { vendor: vendor.clone(), name: name.to_owned() });
            models.collect::<Vec<_>>()
        };
        let models = self.accounts.keys().flat_map(known);
        models.filter_map(|model| self.about(&model, at).map(|entry| (model, entry))).collect()
    }

    /// What is known of a model, by whatever name its account has.
    pub fn about(&self, model: &ModelRef, at: Timestamp) -> Option<&Entry> {
        self.catalogue().find(&self.known_as(model), at)
    }

    /// Returns the protocol that a vendor speaks, if it speaks one.
    pub fn wire(&self, vendor: &str) -> Option<Wire> {
        Some(Wire::from(self.account(vendor)?.provider.http()?.wire()))
    }

    pub(crate) fn account(&self, vendor: &str) -> Option<&Account> {
        self.accounts.get(vendor)
    }

    /// How patient requests of other people's agents are served: they have deadlines of their own.
    pub(crate) fn retries_for_callers(&self) -> RetryPolicy {
        let patience = Duration::from_secs(50);
        RetryPolicy {
            attempts: self.retries.attempts.min(3),
            longest_retry_after: self.retries.longest_retry_after.min(patience),
            longest_queue: self.retries.longest_queue.min(patience),
            ..self.retries.clone()
        }
    }

    /// Why a model cannot be called, and what would help.
    pub(crate) fn no_such_vendor(&self, model: &ModelRef) -> String {
        let known = self.vendors().collect::<Vec<_>>().join(", ");
        let known = if known.is_empty() { "none".to_owned() } else { known };
        format!(
            "no vendor named \"{}\" is set up for the model {model} (set up: {known}); either name a model of a vendor that \
             is set up, or put the vendor's key or base URL into the environment (OPENAI_API_KEY, ANTHROPIC_API_KEY, \
             GEMINI_API_KEY, OPENAI_COMPATIBLE_BASE_URL), or use the scripted vendor with a playbook",
            model.vendor
        )
    }

    /// The models that answer requests for this one, one after the other.
    pub(crate) fn failover(&self, model: &ModelRef) -> Arc<Failover> {
        let known = self.failovers.get(&model.to_string()).map(Arc::clone);
        known.unwrap_or_else(|| Arc::new(Failover::to(vec![model.clone()])))
    }

    pub(crate) fn whereabouts(&self) -> &Whereabouts {
        &self.whereabouts
    }

    /// Asks one model after the other, until one answers or there is no reason to go on.
    async fn call_along(
        &self,
        request: &ModelRequest,
        on_delta: &OnDelta,
        failover: &Failover,
        way: &mut Way,
        bill: &mut Bill<'_>,
    ) -> Result<(ModelRef, ModelAnswer), ProviderError> {
        let (asked_for, who, turn) = (&request.model, request.caller.session.as_str(), request.caller.turn);
        let first = self.whereabouts.place_of(who, Some(turn), asked_for).min(failover.targets.len().saturating_sub(1));
        let mut order = failover.order(first).peekable();
        while let Some((place, target)) = order.next() {
            let next = order.peek().map(|(_, next)| *next);
            let Some(account) = self.account(&target.vendor) else {
                return Err(ProviderError::new(FailureKind::InvalidRequest, self.no_such_vendor(target)));
            };
            let request = ModelRequest { model: target.clone(), ..request.clone() };
            bill.turn_to(target);
            let passage = way.turn_to(&account.door, next.is_some());
            let error = match self.call_with_retries(account, &request, on_delta, passage, bill).await {
                Ok(answer) => {
                    self.whereabouts.remember(who, asked_for, place, Stays::Turn(turn));
                    return Ok((target.clone(), answer));
                }
                Err(error) => error,
            };
            let Some(next) = next.filter(|_| way.goes_on(&error)) else { return Err(way.retold(error)) };
            let lost = losses(&request, target);
            way.moved.push(Moved { from: target.clone(), to: next.clone(), why: error.kind, lost });
            let message = format!("going on to {next}: {}", error.message);
            let next_attempt = way.attempts() + 1;
            on_delta(Delta::Retrying { next_attempt, wait: Duration::ZERO, kind: error.kind, message });
        }
        Err(ProviderError::new(FailureKind::InvalidRequest, format!("{asked_for} leads nowhere")))
    }

    async fn call_with_retries(
        &self,
        account: &Account,
        request: &ModelRequest,
        on_delta: &OnDelta,
        passage: &mut Passage,
        bill: &mut Bill<'_>,
    ) -> Result<ModelAnswer, ProviderError> {
        let caller = &request.caller;
        let asked = Asked {
            flow: caller.run.as_ref().map_or(caller.session.as_str(), |run| run.as_str()),
            model: &request.model.name,
            input_tokens: size::tokens(request),
            max_output_tokens: u64::from(request.max_output_tokens),
        };
        loop {
            if let Some(error) = passage.passes_by(asked.model) {
                return Err(error);
            }
            bill.set_aside().await?;
            let on_wait = |because, wait| on_delta(Delta::Waiting { because, wait });
            let permit = passage.enter(asked, on_wait).await?;
            let number = passage.attempts;
            let attempted = attempt(account.provider.as_ref(), request, number, on_delta, &permit, bill.begin()).await;
            let error = match attempted {
                Ok(answer) => {
                    bill.answered(answer.usage);
                    permit.ended(Ended::Answered(&answer.usage));
                    return Ok(answer);
                }
                Err(error) => error,
            };
            permit.ended(Ended::Failed(&error));
            bill.ended(Some(&error));
            let Some(again) = passage.again(asked.model, &error) else { return Err(error) };
            let next_attempt = passage.attempts + 1;
            on_delta(Delta::Retrying { next_attempt, wait: again.wait, kind: error.kind, message: error.message });
            again.rest().await;
        }
    }
}

/// Makes one attempt; nothing of it survives unless the vendor's stream comes to its proper end.
async fn attempt(
    provider: &dyn Provider,
    request: &ModelRequest,
    number: u32,
    on_delta: &OnDelta,
    permit: &Permit,
    spend: &mut Spend,
) -> Result<ModelAnswer, ProviderError> {
    let started = Instant::now();
    let mut first_token = None;
    let mut was_let_in = false;
    let mut accumulator = Accumulator::new();
    let mut events = provider.stream(request, number);
    while let Some(event) = events.next().await {
        let event = event?;
        spend.see(&event)?;
        if !std::mem::replace(&mut was_let_in, true) {
            permit.let_in();
        }
        if first_token.is_none() && is_content(&event) {
            first_token = Some(started.elapsed());
        }
        match &event {
            ModelEvent::TextDelta { index, text } => on_delta(Delta::Text { index: *index, text: text.clone() }),
            ModelEvent::ReasoningDelta { index, text } => {
                on_delta(Delta::Reasoning { index: *index, text: text.clone() });
            }
            ModelEvent::ToolCallDelta { index, name, arguments } => {
                on_delta(Delta::ToolCall { index: *index, name: name.clone(), arguments: arguments.clone() })
            }
            ModelEvent::Limits(readings) => permit.learn(readings),
            ModelEvent::Started { .. } | ModelEvent::Block(_) | ModelEvent::Usage(_) | ModelEvent::Finished { .. } => {}
        }
        accumulator.push(event)?;
    }
    let mut answer = accumulator.finish()?;
    answer.first_token_ms = first_token.map(milliseconds);
    Ok(answer)
}

pub(crate) fn is_content(event: &ModelEvent) -> bool {
    match event {
        ModelEvent::TextDelta { .. }
        | ModelEvent::ReasoningDelta { .. }
        | ModelEvent::ToolCallDelta { .. }
        | ModelEvent::Block(_) => true,
        ModelEvent::Limits(_) | ModelEvent::Started { .. } | ModelEvent::Usage(_) | ModelEvent::Finished { .. } => {
            false
        }
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[async_trait]
impl ModelCaller for Gateway {
    fn quote(&self, request: &ModelRequest, known: Option<Known>) -> Quote {
        let targets = &self.failover(&request.model).targets;
        // Another vendor has counted in tokens of its own.
        let known = known.filter(|_| targets.len() == 1);
        let quotes = targets.iter().map(|target| {
            let (window, _) = self.sizes(target);
            let model = self.known_as(target);
            let bound = match model == request.model {
                true => Bound::of(request, window, known),
                false => Bound::of(&ModelRequest { model, ..request.clone() }, window, known),
            };
            self.quote_within(target, bound)
        });
        Quote::for_all(quotes)
    }

    fn quote_body(&self, model: &ModelRef, bytes: u64, is_text: bool, max_output: Option<u32>) -> Quote {
        let failover = self.failover(model);
        let quotes = failover.targets.iter().map(|target| {
            let (window, longest) = self.sizes(target);
            self.quote_within(target, Bound::of_body(bytes, is_text, window, max_output.or(longest)))
        });
        Quote::for_all(quotes)
    }

    async fn call_for(
        &self,
        tab: Tab,
        request: ModelRequest,
        on_delta: OnDelta,
        cancel: CancellationToken,
    ) -> Result<ModelAnswer, ModelFailure> {
        let failover = self.failover(&request.model);
        let mut way = Way::new(Arc::clone(&failover), self.retries.clone());
        let mut bill = Bill::new(&tab);
        let outcome = tokio::select! {
            biased;
            () = cancel.cancelled() => Err(ProviderError::cancelled()),
            outcome = self.call_along(&request, &on_delta, &failover, &mut way, &mut bill) => outcome,
        };
        let (charges, refusal) = bill.settle();
        let latency_ms = milliseconds(way.elapsed());
        let queued_ms = milliseconds(way.queued());
        let (attempts, moved) = (way.attempts(), way.moved);
        match outcome {
            Ok((target, answer)) => {
                let cost = self.cost(&target, answer.usage);
                let cost = cost.map(|cost| Cost { is_quota: tab.quote.of(&target).is_quota, ..cost });
                let answered_by = Some(target).filter(|target| *target != request.model);
                Ok(ModelAnswer { attempts, latency_ms, queued_ms, cost, charges, answered_by, moved, ..answer })
            }
            Err(error) => Err(ModelFailure {
                kind: error.kind,
                message: error.message,
                status: error.status,
                retry_after_ms: error.retry_after.map(milliseconds),
                attempts,
                latency_ms,
                queued_ms,
                charges,
                refusal,
                moved,
            }),
        }
    }
}
