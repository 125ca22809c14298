//! Sends each request to its vendor, and repeats what may yet pass.

use crate::{
    AccountLimits, Catalogue, Delta, ModelCaller, OnDelta, RetryPolicy,
    bound::{Bound, Known, Pricing, Quote, Unboundable},
    caller::Tab,
    door::{Door, Permit},
    endpoint::Wire,
    governor::{Asked, Ended},
    passage::Passage,
    size,
    spend::{Bill, Spend},
};
use adj_domain::{Charge, Cost, FailureKind, ModelAnswer, ModelFailure, ModelRef, ModelRequest, Timestamp};
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
        let entry = self.catalogue().find(model, Timestamp::now());
        match entry.and_then(|entry| entry.price.clone().map(|price| (price, entry.to_string()))) {
            Some((price, entry)) => Pricing::Priced { price, entry },
            None if model.vendor == "scripted" || self.free.contains(&model.vendor) => Pricing::Free,
            None => Pricing::Unknown,
        }
    }

    /// The same as [`ModelCaller::quote`], for a request of which no more than a bound is known.
    pub fn quote_within(&self, model: &ModelRef, bound: Result<Bound, Unboundable>) -> Quote {
        let is_quota = self.on_quota.contains(&model.vendor);
        Quote { model: model.clone(), bound, pricing: self.pricing(model), is_quota }
    }

    /// How many tokens a prompt of a model may have, and an answer, where that is known.
    pub fn sizes(&self, model: &ModelRef) -> (Option<u64>, Option<u32>) {
        let entry = self.catalogue().find(model, Timestamp::now());
        (entry.and_then(|entry| entry.context), entry.and_then(|entry| entry.max_output))
    }

    /// Whether no request waits, and none is under way.
    pub fn is_idle(&self) -> bool {
        self.accounts.values().all(|account| account.door.is_idle())
    }

    /// Returns the names of the vendors that can be called.
    pub fn vendors(&self) -> impl Iterator<Item = &str> {
        self.accounts.keys().map(String::as_str)
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
        let (window, _) = self.sizes(&request.model);
        self.quote_within(&request.model, Bound::of(request, window, known))
    }

    fn quote_body(&self, model: &ModelRef, bytes: u64, is_text: bool, max_output: Option<u32>) -> Quote {
        let (window, longest) = self.sizes(model);
        self.quote_within(model, Bound::of_body(bytes, is_text, window, max_output.or(longest)))
    }

    async fn call_for(
        &self,
        tab: Tab,
        request: ModelRequest,
        on_delta: OnDelta,
        cancel: CancellationToken,
    ) -> Result<ModelAnswer, ModelFailure> {
        let Some(account) = self.accounts.get(&request.model.vendor) else {
            return Err(ModelFailure {
                kind: FailureKind::InvalidRequest,
                message: self.no_such_vendor(&request.model),
                status: None,
                retry_after_ms: None,
                attempts: 0,
                latency_ms: 0,
                queued_ms: 0,
                charges: vec![Charge::default()],
                refusal: None,
            });
        };
        let started = Instant::now();
        let mut passage = Passage::new(&account.door, &self.retries);
        let mut bill = Bill::new(&tab);
        let outcome = tokio::select! {
            biased;
            () = cancel.cancelled() => Err(ProviderError::cancelled()),
            outcome = self.call_with_retries(account, &request, &on_delta, &mut passage, &mut bill) => outcome,
        };
        let (charges, refusal) = bill.settle();
        let latency_ms = milliseconds(started.elapsed());
        let queued_ms = milliseconds(passage.queued());
        let attempts = passage.attempts;
        match outcome {
            Ok(answer) => {
                let cost = self.catalogue().cost(&request.model, answer.usage, Timestamp::now());
                let cost = cost.map(|cost| Cost { is_quota: tab.quote.is_quota, ..cost });
                Ok(ModelAnswer { attempts, latency_ms, queued_ms, cost, charges, ..answer })
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
            }),
        }
    }
}
