//! From a caller's wire to whichever vendor the route says, and back.

use super::{
    Refusal, body,
    forward::name,
    inward::{Inward, Writer},
    journey::{Missed, Saying},
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
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long a stream is silent before a ping says that somebody is still there.
const SILENCE: Duration = Duration::from_secs(15);

/// A request in neutral form, on its way.
pub(super) struct Converting {
    pub(super) wire: Wire,
    pub(super) request: EventId,
    pub(super) provider: Arc<dyn Provider>,
    pub(super) inward: Inward,
    pub(super) asked_model: String,
    pub(super) streams: bool,
    pub(super) revoked: CancellationToken,
}

impl Converting {
    /// Calls the vendor until it begins to answer, or there is no use in calling again.
    pub(super) async fn ask(&self, asked: Asked<'_>, metered: &mut Metered) -> Result<Saying, Missed> {
        metered.closing.losses = self.inward.losses.list();
        // Before anything is said to the caller a failed attempt can be repeated.
        loop {
            if let Err(error) = metered.enter(asked).await {
                return Err(self.missed(error));
            }
            let outcome = match self.streams {
                true => self.begin(metered).await,
                false => self.collect(metered).await,
            };
            let error = match outcome {
                Ok(say) => return Ok(say),
                Err(error) => error,
            };
            match metered.again(&error) {
                Some(again) => again.rest().await,
                None => return Err(self.missed(error)),
            }
        }
    }

    fn missed(&self, error: ProviderError) -> Missed {
        let (wire, model, failed) = (self.wire, self.inward.request.model.to_string(), error.clone());
        let say = Box::new(move |mut metered: Metered| {
            metered.closing.status = failed.status;
            let failed = metered.retold(failed);
            metered.fail(failed.kind, failed.message.clone());
            let mut response = refusal(failed).response(wire);
            name(response.headers_mut(), &model, &metered.closing.losses);
            response
        });
        Missed { error, say }
    }

    async fn begin(&self, metered: &mut Metered) -> Result<Saying, ProviderError> {
        let events = self.provider.stream(&self.inward.request, metered.attempts());
        let mut events = self.inward.filtered(events);
        loop {
            let first = events.next().await.unwrap_or_else(|| Err(broke_off()))?;
            metered.let_in();
            match first {
                // What stands in the answer's head is not yet an answer, and what fails after it may be repeated.
                ModelEvent::Limits(readings) => metered.learn(&readings),
                first => return Ok(self.streaming(first, events)),
            }
        }
    }

    async fn collect(&self, metered: &mut Metered) -> Result<Saying, ProviderError> {
        let mut accumulator = Accumulator::new();
        let events = self.provider.stream(&self.inward.request, metered.attempts());
        let mut events = self.inward.filtered(events);
        while let Some(event) = events.next().await {
            let event = event?;
            metered.let_in();
            note(&event, metered);
            accumulator.push(event)?;
        }
        let answer = accumulator.finish()?;
        let document = Writer::whole(self.wire, &self.request, &self.asked_model, &self.inward, answer);
        let (wire, model) = (self.wire, self.inward.request.model.to_string());
        Ok(Box::new(move |mut metered| {
            let mut response = match document {
                Ok(document) => {
                    metered.outcome = Some(Outcome::Answered);
                    body::json(StatusCode::OK, &document)
                }
                Err(refusal) => {
                    metered.fail(FailureKind::Protocol, refusal.message.clone());
                    refusal.response(wire)
                }
            };
            name(response.headers_mut(), &model, &metered.closing.losses);
            response
        }))
    }

    fn streaming(&self, first: ModelEvent, events: EventStream) -> Saying {
        let writer = Writer::new(self.wire, &self.request, &self.asked_model, &self.inward);
        let content_type = HeaderValue::from_static(writer.content_type());
        let (model, revoked) = (self.inward.request.model.to_string(), self.revoked.clone());
        Box::new(move |metered| {
            let losses = metered.closing.losses.clone();
            let writing = Writing { writer, first: Some(first), events, metered, revoked, is_over: false };
            let chunks = stream::unfold(writing, |mut writing| async { Some((writing.next().await?, writing)) });
            let mut response = Response::new(body::streaming(chunks));
            let headers = response.headers_mut();
            headers.insert("content-type", content_type);
            headers.insert("cache-control", HeaderValue::from_static("no-cache"));
            name(response.headers_mut(), &model, &losses);
            response
        })
    }
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
        // Not every event is one that the caller sees.
        let silence = Instant::now() + SILENCE;
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
                    () = tokio::time::sleep_until(silence) => {
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

#[cfg(test)]
mod tests {
    use super::{super::meter::Operation, *};
    use crate::Gateway;
    use crate::endpoint::{Attribution, Closing, Meter, Opening, call::Call};
    use adj_domain::{AnswerBlock, BlobHash, SessionId};
    use adj_providers::{Playbook, Scripted};
    use async_trait::async_trait;
    use hyper::Request;
    use serde_json::json;

    #[derive(Debug)]
    struct Nobody;

    #[async_trait]
    impl Meter for Nobody {
        async fn open(&self, _opening: Opening) -> Result<(), Refusal> {
            Ok(())
        }

        fn close(&self, _closing: Closing) {}
    }

    async fn metered(wire: Wire, model: &adj_domain::ModelRef) -> Metered {
        let opening = Opening {
            request: EventId::derive(&["r"]),
            session: SessionId::derive(&["s"]),
            wire,
            operation: Operation::Generate,
            asked_model: "m".to_owned(),
            model: model.clone(),
            attribution: Attribution::default(),
            request_bytes: 0,
            body_hash: BlobHash::of(b""),
            asks: crate::endpoint::Asks::default(),
            converted: true,
        };
        let meter: Arc<dyn Meter> = Arc::new(Nobody);
        let playbook = Playbook::parse("rules: []", "test.yaml").expect("it is a playbook");
        let gateway = Gateway::default().with(&model.vendor, Arc::new(Scripted::new(playbook)));
        let gateway = Arc::new(gateway);
        let mut metered =
            Metered::open(&meter, &gateway, &gateway.failover(model), opening).await.expect("nobody refuses");
        metered.turn_to(gateway.account(&model.vendor).expect("it was just added"), model, false);
        metered
    }

    /// A call is held back until its answer's end: its caller hears nothing, although the vendor speaks all the time.
    #[tokio::test(start_paused = true)]
    async fn a_caller_that_hears_nothing_is_told_that_somebody_is_there() {
        let cases = [
            ("/v1/chat/completions", json!({"messages": [{"role": "user", "content": "x"}]}), ": ping\n\n"),
            (
                "/v1beta/models/m:streamGenerateContent?alt=sse",
                json!({"contents": [{"parts": [{"text": "x"}]}]}),
                "data: {\"modelVersion\":\"m\",\"responseId\":\"ID\",\"candidates\":[{\"content\":{\"role\":\"model\",\"parts\":[]},\"index\":0}]}\n\n",
            ),
            (
                "/v1beta/models/m:streamGenerateContent",
                json!({"contents": [{"parts": [{"text": "x"}]}]}),
                ",\n{\"modelVersion\":\"m\",\"responseId\":\"ID\",\"candidates\":[{\"content\":{\"role\":\"model\",\"parts\":[]},\"index\":0}]}",
            ),
        ];
        for (path, body, ping) in cases {
            let request = Request::post(path).body(()).expect("a test's request is one");
            let Ok(Call::Ask(ask)) = Call::of(&request.into_parts().0) else { panic!("{path} is offered") };
            let model = "vendor/m".parse().expect("it names a model");
            let inward = Inward::read(&ask, body.to_string().as_bytes(), &model, &SessionId::derive(&["s"]));
            let inward = inward.expect("it is understood");
            let piece = || ModelEvent::ToolCallDelta { index: 0, name: None, arguments: "{".to_owned() };
            let call =
                AnswerBlock::ToolCall { vendor_call_id: "c".to_owned(), name: "t".to_owned(), input: Ok(json!({})) };
            let end = [ModelEvent::Block(call), ModelEvent::Finished { stop: StopReason::ToolUse }];
            let events = std::iter::repeat_with(piece).take(40).chain(end);
            let events = stream::iter(events).then(|event| async {
                tokio::time::sleep(Duration::from_secs(1)).await;
                Ok(event)
            });
            let id = EventId::derive(&["r"]);
            let mut writing = Writing {
                writer: Writer::new(ask.wire, &id, "m", &inward),
                first: Some(ModelEvent::TextDelta { index: 0, text: "Hi".to_owned() }),
                events: events.boxed(),
                metered: metered(ask.wire, &model).await,
                revoked: CancellationToken::new(),
                is_over: false,
            };
            let mut said = Vec::new();
            while let Some(bytes) = writing.next().await {
                let text = String::from_utf8(bytes.expect("it goes on").to_vec()).expect("it is UTF-8");
                said.push(text.replace(id.as_str().trim_start_matches("sevt_"), "ID"));
            }
            // After 15 and after 30 seconds of 42.
            assert_eq!(said[1..3], [ping, ping], "{path}");
            assert_eq!(said.len(), 4, "{said:?}");
        }
    }
}
