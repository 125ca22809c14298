//! Reads along with an answer that passes through. It sees a copy, and whatever happens to it, the answer does not notice.

use super::{Wire, meter::Metered, usage::Facts};
use adj_domain::FailureKind;
use adj_providers::{
    Dialect, ModelEvent, ProviderError, StreamDecoder, anthropic::Messages, chat::Chat, openai::Responses,
    sse::FrameParser,
};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// How much of a failed answer is read.
const FAILURE_BYTES: usize = 64 * 1024;

/// What is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Events,
    /// One JSON document.
    Document,
    /// Anything that comes with a status of failure.
    Failure(u16),
}

pub(super) struct Tap {
    wire: Wire,
    reader: Reader,
    left: usize,
    facts: Facts,
    finished: bool,
    /// The last bytes of the answer, to tell whether an event is half sent.
    tail: [u8; 4],
}

enum Reader {
    Events(Box<dyn Decode>),
    Held { shape: Shape, bytes: Vec<u8> },
    Off,
}

trait Decode: Send {
    fn push(&mut self, bytes: &[u8]) -> Result<Vec<ModelEvent>, ProviderError>;
}

impl<D: Dialect + Send> Decode for StreamDecoder<D> {
    fn push(&mut self, bytes: &[u8]) -> Result<Vec<ModelEvent>, ProviderError> {
        StreamDecoder::push(self, bytes)
    }
}

/// Gemini's stream: the same document in pieces, each with all that is known so far.
#[derive(Default)]
struct Pieces(FrameParser);

impl Decode for Pieces {
    fn push(&mut self, bytes: &[u8]) -> Result<Vec<ModelEvent>, ProviderError> {
        let mut events = Vec::new();
        self.0.push(bytes, |frame| {
            let facts = Facts::read(Wire::Gemini, frame.data.as_bytes());
            events.extend(facts.model.map(|model| ModelEvent::Started { model }));
            events.push(ModelEvent::TextDelta { index: 0, text: String::new() });
            events.extend(facts.usage.map(ModelEvent::Usage));
            events.extend(facts.stop.map(|stop| ModelEvent::Finished { stop }));
            Ok(())
        })?;
        Ok(events)
    }
}

impl Tap {
    /// Reads so many bytes of an answer at most.
    pub(super) fn new(wire: Wire, shape: Shape, most: usize) -> Self {
        let reader = match (shape, wire) {
            (Shape::Events, Wire::Responses) => Reader::Events(Box::<StreamDecoder<Responses>>::default()),
            (Shape::Events, Wire::Messages) => Reader::Events(Box::<StreamDecoder<Messages>>::default()),
            (Shape::Events, Wire::Chat) => Reader::Events(Box::<StreamDecoder<Chat>>::default()),
            (Shape::Events, Wire::Gemini) => Reader::Events(Box::<Pieces>::default()),
            (Shape::Document | Shape::Failure(_), _) => Reader::Held { shape, bytes: Vec::new() },
        };
        Self { wire, reader, left: most, facts: Facts::default(), finished: false, tail: *b"\n\n\n\n" }
    }

    pub(super) fn push(&mut self, bytes: &[u8], metered: &mut Metered) {
        for byte in &bytes[bytes.len().saturating_sub(4)..] {
            self.tail.rotate_left(1);
            self.tail[3] = *byte;
        }
        match &mut self.reader {
            Reader::Held { shape: Shape::Failure(_), bytes: held } => {
                let room = FAILURE_BYTES - held.len();
                held.extend_from_slice(&bytes[..bytes.len().min(room)]);
            }
            _ if bytes.len() > self.left => self.reader = Reader::Off,
            Reader::Held { bytes: held, .. } => {
                metered.mark_first_token();
                held.extend_from_slice(bytes);
            }
            Reader::Events(decoder) => {
                let decoded = catch_unwind(AssertUnwindSafe(|| decoder.push(bytes)));
                match decoded {
                    Ok(Ok(events)) => events.into_iter().for_each(|event| self.note(event, metered)),
                    Ok(Err(error)) => {
                        tracing::debug!("an answer that passes through cannot be read: {error}");
                        // An error that the vendor itself reports within its stream is the answer's end.
                        if error.kind != FailureKind::Protocol {
                            self.finished = true;
                            metered.fail(error.kind, error.message);
                        }
                        self.reader = Reader::Off;
                    }
                    Err(_) => self.reader = Reader::Off,
                }
            }
            Reader::Off => {}
        }
        self.left = self.left.saturating_sub(bytes.len());
        self.tell(metered);
    }

    fn note(&mut self, event: ModelEvent, metered: &mut Metered) {
        match event {
            ModelEvent::Limits(_) => {}
            ModelEvent::Started { model } => self.facts.model = Some(model).filter(|model| !model.is_empty()),
            ModelEvent::Usage(usage) => self.facts.usage = Some(usage),
            ModelEvent::Finished { stop } => {
                self.facts.stop = Some(stop);
                self.finished = true;
            }
            ModelEvent::TextDelta { .. }
            | ModelEvent::ReasoningDelta { .. }
            | ModelEvent::ToolCallDelta { .. }
            | ModelEvent::Block(_) => metered.mark_first_token(),
        }
    }

    /// The vendor's last byte is here.
    pub(super) fn end(&mut self, metered: &mut Metered) {
        if let Reader::Held { shape, bytes } = std::mem::replace(&mut self.reader, Reader::Off) {
            match shape {
                Shape::Failure(status) => {
                    let error = ProviderError::from_status(status, &bytes, None);
                    metered.fail(error.kind, error.message);
                }
                Shape::Events | Shape::Document => self.facts = Facts::read(self.wire, &bytes),
            }
        }
        self.tell(metered);
    }

    fn tell(&mut self, metered: &mut Metered) {
        let Facts { model, stop, usage } = &self.facts;
        metered.closing.usage = *usage;
        if metered.closing.stop != *stop {
            metered.closing.stop.clone_from(stop);
        }
        if metered.closing.model_answered != *model {
            metered.closing.model_answered.clone_from(model);
        }
    }

    /// Whether the vendor's own end of the answer was seen.
    pub(super) fn is_finished(&self) -> bool {
        self.finished
    }

    /// Whether the answer is a stream of events that could be read so far, and lacks its end.
    pub(super) fn lacks_its_end(&self) -> bool {
        matches!(self.reader, Reader::Events(_)) && !self.finished
    }

    /// Whether what was sent so far ends where an event ends.
    pub(super) fn is_between_events(&self) -> bool {
        self.tail.ends_with(b"\n\n") || self.tail.ends_with(b"\r\r") || self.tail == *b"\r\n\r\n"
    }
}
