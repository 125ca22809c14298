//! From a caller's wire to whichever vendor the route says, and back.

use super::{
    Refusal,
    body::{self, Body},
    inward::{Inward, Writer},
    meter::{Metered, Outcome},
    wire::Wire,
};
use crate::{gateway::is_content, governor::Asked};
use adj_domain::{EventId, FailureKind, StopReason};
use adj_providers::{Accumulator, EventStream, ModelEvent, Provider, ProviderError};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use hyper::{Response, StatusCode, header::HeaderValue};
use std::{io, sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

/// How long a stream is silent before a ping says that somebody is still there.
const SILENCE: Duration = Duration::from_secs(15);

/// A request in neutral form, on its way.
pub(super) struct Converting<'a> {
    pub(super) wire: Wire,
    pub(super) request: EventId,
    pub(super) provider: Arc<dyn Provider>,
    pub(super) inward: Inward,
    pub(super) asked: Asked<'a>,
    pub(super) asked_model: String,
    pub(super) streams: bool,
    pub(super) revoked: CancellationToken,
}

impl Converting<'_> {
    /// Calls the vendor and answers in the caller's words.
    pub(super) async fn run(self, mut metered: Metered) -> Response<Body> {
        metered.closing.losses = self.inward.losses.list();
        let revoked = self.revoked.clone();
        let answered = tokio::select! {
            biased;
            () = revoked.cancelled() => None,
            answered = self.answer(metered) => Some(answered),
        };
        let gone = || Refusal::new(super::RefusalKind::Unauthenticated, "adjutant: the token was revoked");
        let mut response = answered.unwrap_or_else(|| gone().response(self.wire));
        let model = self.inward.request.model.to_string();
        let losses = self.inward.losses.list().join(", ");
        for (name, value) in [("x-adjutant-model", model), ("x-adjutant-losses", losses)] {
            if let Some(value) = HeaderValue::from_str(&value).ok().filter(|value| !value.is_empty()) {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }

    async fn answer(&self, mut metered: Metered) -> Response<Body> {
        // Before anything is said to the caller a failed attempt can be repeated.
        loop {
            if let Err(error) = metered.enter(self.asked).await {
                return self.give_up(error, &mut metered);
            }
            let outcome = match self.streams {
                true => self.begin(&mut metered).await.map(Answered::Begun),
                false => self.collect(&mut metered).await.map(Answered::Whole),
            };
            let error = match outcome {
                Ok(Answered::Begun((first, events))) => return self.stream(first, events, metered),
                Ok(Answered::Whole(response)) => return response,
                Err(error) => error,
            };
            match metered.again(&error) {
                Some(again) => again.rest().await,
                None => return self.give_up(error, &mut metered),
            }
        }
    }

    fn give_up(&self, error: ProviderError, metered: &mut Metered) -> Response<Body> {
        metered.closing.status = error.status;
        metered.fail(error.kind, error.message.clone());
        refusal(error).response(self.wire)
    }

    async fn begin(&self, metered: &mut Metered) -> Result<(ModelEvent, EventStream), ProviderError> {
        let mut events = self.provider.stream(&self.inward.request, metered.attempts());
        loop {
            let first = events.next().await.unwrap_or_else(|| Err(broke_off()))?;
            metered.let_in();
            match first {
                // What stands in the answer's head is not yet an answer, and what fails after it may be repeated.
                ModelEvent::Limits(readings) => metered.learn(&readings),
                first => return Ok((first, events)),
            }
        }
    }

    async fn collect(&self, metered: &mut Metered) -> Result<Response<Body>, ProviderError> {
        let mut accumulator = Accumulator::new();
        let mut events = self.provider.stream(&self.inward.request, metered.attempts());
        while let Some(event) = events.next().await {
            let event = event?;
            metered.let_in();
            note(&event, metered);
            accumulator.push(event)?;
        }
        let answer = accumulator.finish()?;
        let document = Writer::whole(self.wire, &self.request, &self.asked_model, &self.inward, answer);
        Ok(match document {
            Ok(document) => {
                metered.outcome = Some(Outcome::Answered);
                body::json(StatusCode::OK, &document)
            }
            Err(refusal) => {
                metered.fail(FailureKind::Protocol, refusal.message.clone());
                refusal.response(self.wire)
            }
        })
    }

    fn stream(&self, first: ModelEvent, events: EventStream, metered: Metered) -> Response<Body> {
        let writer = Writer::new(self.wire, &self.request, &self.asked_model, &self.inward);
        let content_type = HeaderValue::from_static(writer.content_type());
        let writing =
            Writing { writer, first: Some(first), events, metered, revoked: self.revoked.clone(), is_over: false };
        let chunks = stream::unfold(writing, |mut writing| async { Some((writing.next().await?, writing)) });
        let mut response = Response::new(body::streaming(chunks));
        let headers = response.headers_mut();
        headers.insert("content-type", content_type);
        headers.insert("cache-control", HeaderValue::from_static("no-cache"));
        response
    }
}

enum Answered {
    Begun((ModelEvent, EventStream)),
    Whole(Response<Body>),
}

/// An answer that is being written.
struct Writing {
    writer: Writer,
    first: Option<ModelEvent>,
    events: EventStream,
    metered: Metered,
    revoked: CancellationToken,
    is_over: bool,
}

impl Writing {
    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        let mut out = String::new();
        while out.is_empty() && !self.is_over {
            let event = match self.first.take() {
                Some(first) => Some(Ok(first)),
                None => tokio::select! {
                    biased;
                    () = self.revoked.cancelled() => {
                        self.is_over = true;
                        return Some(Err(io::Error::other("the caller's token was revoked")));
                    }
                    event = self.events.next() => event,
                    () = tokio::time::sleep(SILENCE) => {
                        self.writer.ping(&mut out);
                        continue;
                    }
                },
            };
            let event = event.unwrap_or_else(|| Err(broke_off()));
            let is_end = matches!(event, Ok(ModelEvent::Finished { .. }));
            let written = event.and_then(|event| {
                note(&event, &mut self.metered);
                self.writer.push(event, &mut out)
            });
            match written {
                Ok(()) if is_end => {
                    self.is_over = true;
                    self.metered.outcome = Some(Outcome::Answered);
                }
                Ok(()) => {}
                Err(error) => {
                    self.is_over = true;
                    self.metered.fail(error.kind, error.message.clone());
                    self.writer.fail(&refusal(error), &mut out);
                }
            }
        }
        self.metered.closing.answer_bytes += out.len() as u64;
        (!out.is_empty()).then(|| Ok(out.into()))
    }
}

/// Writes down what an event says of the answer as a whole.
fn note(event: &ModelEvent, metered: &mut Metered) {
    if is_content(event) {
        metered.mark_first_token();
    }
    match event {
        ModelEvent::Started { model } => metered.closing.model_answered = Some(model.clone()),
        ModelEvent::Usage(usage) => metered.closing.usage = Some(*usage),
        ModelEvent::Finished { stop } => {
            metered.closing.stop = Some(stop.clone());
            if let StopReason::Other(word) = stop {
                metered.closing.losses.push(format!("the stop reason {word}"));
            }
        }
        ModelEvent::Limits(readings) => metered.learn(readings),
        ModelEvent::TextDelta { .. }
        | ModelEvent::ReasoningDelta { .. }
        | ModelEvent::ToolCallDelta { .. }
        | ModelEvent::Block(_) => {}
    }
}

fn broke_off() -> ProviderError {
    ProviderError::protocol("the vendor's stream broke off before the answer's end")
}

/// Claude Code makes its conversation shorter when it reads these words, and only then.
fn refusal(error: ProviderError) -> Refusal {
    const TOO_LONG: &str = "prompt is too long";
    let mut refusal = Refusal::from(error);
    if refusal.kind == super::RefusalKind::ContextTooLong && !refusal.message.contains(TOO_LONG) {
        refusal.message = format!("{TOO_LONG}: {}", refusal.message);
    }
    refusal
}
