//! Decoding without I/O: bytes in, neutral events out, whatever the wire.

use crate::{
    ModelEvent, ProviderError,
    accumulator::{MAX_ANSWER_BYTES, MAX_BLOCKS},
    sse::{Frame, FrameParser},
};
use adj_domain::AnswerBlock;
use serde_json::Value;

/// No answer is this long on the wire, however wordy the vendor's events; a stream that never ends is cut here.
pub const MAX_STREAM_BYTES: u64 = 256 * 1024 * 1024;

/// What one vendor's events mean.
pub trait Dialect: Default {
    /// Takes one frame in and adds what it means to `events`.
    fn frame(&mut self, frame: &Frame, events: &mut Vec<ModelEvent>) -> Result<(), ProviderError>;

    /// Takes in that no more frames come. Most wires have an event for the end, so that nothing but it ends an answer.
    fn end(&mut self, _events: &mut Vec<ModelEvent>) -> Result<(), ProviderError> {
        Err(broke_off())
    }
}

pub(crate) fn broke_off() -> ProviderError {
    ProviderError::protocol("the vendor's stream broke off before the answer's end")
}

/// Turns the bytes of one answer into events; holds one frame, and the blocks that are not whole yet.
#[derive(Debug, Default)]
pub struct StreamDecoder<D> {
    frames: FrameParser,
    dialect: D,
    taken: u64,
    finished: bool,
    failed: bool,
}

impl<D: Dialect> StreamDecoder<D> {
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes bytes in, cut anywhere. After an error, and after the end, the decoder is of no more use.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<ModelEvent>, ProviderError> {
        if self.failed {
            return Err(ProviderError::protocol("the vendor's stream is broken already"));
        }
        let mut events = Vec::new();
        if self.finished {
            return Ok(events);
        }
        let outcome = self.take(bytes, &mut events);
        self.failed = outcome.is_err();
        outcome.map(|()| events)
    }

    fn take(&mut self, bytes: &[u8], events: &mut Vec<ModelEvent>) -> Result<(), ProviderError> {
        self.taken += bytes.len() as u64;
        if self.taken > MAX_STREAM_BYTES {
            return Err(ProviderError::protocol(format!(
                "the vendor's stream is longer than {MAX_STREAM_BYTES} bytes"
            )));
        }
        let Self { frames, dialect, finished, .. } = self;
        let taken = frames.push(bytes, |frame| {
            // Some vendors send more after the end; it belongs to nothing.
            if !*finished {
                dialect.frame(&frame, events)?;
                *finished = matches!(events.last(), Some(ModelEvent::Finished { .. }));
            }
            Ok(())
        });
        // What comes after the end cannot spoil the answer, in whichever piece it arrives.
        if *finished { Ok(()) } else { taken }
    }

    /// Returns whether the vendor's own end of the answer has come.
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// Says that no more bytes come, and returns the events that only this makes certain; an error unless the answer is
    /// whole.
    pub fn finish(mut self) -> Result<Vec<ModelEvent>, ProviderError> {
        let mut events = Vec::new();
        if self.finished {
            return Ok(events);
        }
        if let Some(error) = ProviderError::in_document(&self.frames.stray()) {
            return Err(error);
        }
        if self.failed || !self.frames.is_between_events() {
            return Err(broke_off());
        }
        self.dialect.end(&mut events)?;
        Ok(events)
    }
}

/// A text that grows while it arrives, within the bounds of an answer.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    bytes: usize,
    blocks: usize,
}

impl Budget {
    pub(crate) fn grow(&mut self, text: &mut String, piece: &str) -> Result<(), ProviderError> {
        self.spend(piece.len())?;
        text.push_str(piece);
        Ok(())
    }

    pub(crate) fn spend(&mut self, bytes: usize) -> Result<(), ProviderError> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > MAX_ANSWER_BYTES {
            return Err(ProviderError::protocol(format!("the answer is larger than {MAX_ANSWER_BYTES} bytes")));
        }
        Ok(())
    }

    pub(crate) fn open_block(&mut self) -> Result<(), ProviderError> {
        self.blocks += 1;
        if self.blocks > MAX_BLOCKS {
            return Err(ProviderError::protocol(format!("the answer has more than {MAX_BLOCKS} blocks")));
        }
        Ok(())
    }
}

/// The longest arguments that are read as JSON: a value in memory is many times the size of its text.
const MAX_ARGUMENTS_BYTES: usize = 4 * 1024 * 1024;

/// Makes a block of a tool call whose arguments arrived as text.
pub(crate) fn tool_call(vendor_call_id: String, name: String, arguments: String) -> AnswerBlock {
    let input = if arguments.trim().is_empty() {
        // A tool without parameters is called with nothing at all by some vendors.
        Ok(Value::Object(serde_json::Map::new()))
    } else if arguments.len() > MAX_ARGUMENTS_BYTES {
        Err(arguments)
    } else {
        serde_json::from_str(&arguments).map_err(|_| arguments)
    };
    AnswerBlock::ToolCall { vendor_call_id, name, input }
}

/// Reads the JSON of one frame.
pub(crate) fn parse<'a, T: serde::Deserialize<'a>>(frame: &'a Frame) -> Result<T, ProviderError> {
    serde_json::from_str(&frame.data).map_err(|error| {
        let name = if frame.event.is_empty() { "unnamed" } else { &frame.event };
        ProviderError::protocol(format!(
            "an event ({name}) of the vendor's stream cannot be read: {error}: {}",
            crate::error::excerpt(&frame.data[..frame.data.floor_char_boundary(2000)], 200)
        ))
    })
}
