//! Sends each request to its vendor, and repeats what may yet pass.

use crate::{Catalogue, Delta, ModelCaller, OnDelta, RetryPolicy, retry::Jitter};
use adj_domain::{FailureKind, ModelAnswer, ModelFailure, ModelRequest, Timestamp};
use adj_providers::{Accumulator, ModelEvent, Provider, ProviderError};
use async_trait::async_trait;
use futures_util::StreamExt;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The vendors by name, and how often each request is tried.
#[derive(Debug, Default)]
pub struct Gateway {
    providers: BTreeMap<String, Arc<dyn Provider>>,
    retries: RetryPolicy,
    catalogue: Catalogue,
}

impl Gateway {
    pub fn new(retries: RetryPolicy) -> Self {
        Self { providers: BTreeMap::new(), retries, catalogue: Catalogue::builtin() }
    }

    /// Knows of models what this catalogue says.
    #[must_use]
    pub fn knowing(mut self, catalogue: Catalogue) -> Self {
        self.catalogue = catalogue;
        self
    }

    pub fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// Adds a vendor, or replaces the one of that name.
    #[must_use]
    pub fn with(mut self, vendor: impl Into<String>, provider: Arc<dyn Provider>) -> Self {
        self.providers.insert(vendor.into(), provider);
        self
    }

    /// Adds all of these vendors.
    #[must_use]
    pub fn with_all(mut self, vendors: impl IntoIterator<Item = (String, Arc<dyn Provider>)>) -> Self {
        self.providers.extend(vendors);
        self
    }

    /// Returns the names of the vendors that can be called.
    pub fn vendors(&self) -> impl Iterator<Item = &str> {
        self.providers.keys().map(String::as_str)
    }

    fn no_such_vendor(&self, request: &ModelRequest) -> ModelFailure {
        let known = self.vendors().collect::<Vec<_>>().join(", ");
        let known = if known.is_empty() { "none".to_owned() } else { known };
        ModelFailure {
            kind: FailureKind::InvalidRequest,
            message: format!(
                "no vendor named \"{}\" is set up for the model {} (set up: {known}); either name a model of a vendor that \
                 is set up, or put the vendor's key or base URL into the environment (OPENAI_API_KEY, ANTHROPIC_API_KEY, \
                 GEMINI_API_KEY, OPENAI_COMPATIBLE_BASE_URL), or use the scripted vendor with a playbook",
                request.model.vendor, request.model
            ),
            status: None,
            retry_after_ms: None,
            attempts: 0,
            latency_ms: 0,
            queued_ms: 0,
        }
    }

    async fn call_with_retries(
        &self,
        provider: &dyn Provider,
        request: &ModelRequest,
        on_delta: &OnDelta,
        attempts: &mut u32,
    ) -> Result<ModelAnswer, ProviderError> {
        let mut jitter = Jitter::new(self.retries.seed);
        loop {
            *attempts += 1;
            let error = match attempt(provider, request, *attempts, on_delta).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let wait = self.retries.wait_after(*attempts, error.kind, error.retry_after, &mut jitter);
            tracing::debug!(model = %request.model, attempt = *attempts, ?wait, kind = ?error.kind, "a model call failed: {error}");
            let Some(wait) = wait else { return Err(error) };
            on_delta(Delta::Retrying { next_attempt: *attempts + 1, wait, kind: error.kind, message: error.message });
            tokio::time::sleep(wait).await;
        }
    }
}

/// Makes one attempt; nothing of it survives unless the vendor's stream comes to its proper end.
async fn attempt(
    provider: &dyn Provider,
    request: &ModelRequest,
    number: u32,
    on_delta: &OnDelta,
) -> Result<ModelAnswer, ProviderError> {
    let started = Instant::now();
    let mut first_token = None;
    let mut accumulator = Accumulator::new();
    let mut events = provider.stream(request, number);
    while let Some(event) = events.next().await {
        let event = event?;
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
            ModelEvent::Limits(_)
            | ModelEvent::Started { .. }
            | ModelEvent::Block(_)
            | ModelEvent::Usage(_)
            | ModelEvent::Finished { .. } => {}
        }
        accumulator.push(event)?;
    }
    let mut answer = accumulator.finish()?;
    answer.first_token_ms = first_token.map(milliseconds);
    Ok(answer)
}

fn is_content(event: &ModelEvent) -> bool {
    match event {
        ModelEvent::TextDelta { .. }
        | ModelEvent::ReasoningDelta { .. }
        | ModelEvent::ToolCallDelta { .. }
        | ModelEvent::Block(_) => true,
        ModelEvent::Limits(_) | ModelEvent::Started { .. } | ModelEvent::Usage(_) | ModelEvent::Finished { .. } => false,
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[async_trait]
impl ModelCaller for Gateway {
    async fn call(
        &self,
        request: ModelRequest,
        on_delta: OnDelta,
        cancel: CancellationToken,
    ) -> Result<ModelAnswer, ModelFailure> {
        let Some(provider) = self.providers.get(&request.model.vendor) else {
            return Err(self.no_such_vendor(&request));
        };
        let started = Instant::now();
        let mut attempts = 0;
        let outcome = tokio::select! {
            biased;
            () = cancel.cancelled() => Err(ProviderError::cancelled()),
            outcome = self.call_with_retries(provider.as_ref(), &request, &on_delta, &mut attempts) => outcome,
        };
        let latency_ms = milliseconds(started.elapsed());
        match outcome {
            Ok(answer) => {
                let cost = self.catalogue.cost(&request.model, answer.usage, Timestamp::now());
                Ok(ModelAnswer { attempts, latency_ms, cost, ..answer })
            }
            Err(error) => Err(ModelFailure {
                kind: error.kind,
                message: error.message,
                status: error.status,
                retry_after_ms: error.retry_after.map(milliseconds),
                attempts,
                latency_ms,
                queued_ms: 0,
            }),
        }
    }
}
