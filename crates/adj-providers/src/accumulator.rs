//! A whole answer, made from a stream that came to its proper end, and from no other.

use crate::{ModelEvent, ProviderError, error::excerpt};
use adj_domain::{AnswerBlock, ModelAnswer, StopReason, Usage};

/// More than any model can say in one answer.
pub const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;
pub const MAX_BLOCKS: usize = 1024;
const MAX_MODEL_CHARS: usize = 200;

/// Collects one attempt's events; a new attempt needs a new one, so that nothing of a cut stream survives.
#[derive(Debug, Default)]
pub struct Accumulator {
    model: String,
    blocks: Vec<AnswerBlock>,
    bytes: usize,
    usage: Usage,
    stop: Option<StopReason>,
}

impl Accumulator {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn push(&mut self, event: ModelEvent) -> Result<(), ProviderError> {
        if self.stop.is_some() {
            return Err(ProviderError::protocol("the stream went on after its end"));
        }
        match event {
            ModelEvent::Started { model } => self.model = excerpt(&model, MAX_MODEL_CHARS),
            ModelEvent::Block(block) => {
                self.bytes = self.bytes.saturating_add(size_of_block(&block));
                if self.bytes > MAX_ANSWER_BYTES || self.blocks.len() >= MAX_BLOCKS {
                    return Err(ProviderError::protocol(format!(
                        "the answer is larger than {MAX_ANSWER_BYTES} bytes or {MAX_BLOCKS} blocks"
                    )));
                }
                self.blocks.push(block);
            }
            ModelEvent::Usage(usage) => self.usage = usage,
            ModelEvent::Finished { stop } => self.stop = Some(stop),
            ModelEvent::Limits(_)
            | ModelEvent::TextDelta { .. }
            | ModelEvent::ReasoningDelta { .. }
            | ModelEvent::ToolCallDelta { .. } => {}
        }
        Ok(())
    }

    /// Returns the answer, if the vendor ended it; attempts and times are the caller's to fill in.
    pub fn finish(self) -> Result<ModelAnswer, ProviderError> {
        let Some(stop) = self.stop else {
            return Err(ProviderError::protocol("the stream broke off before the answer's end"));
        };
        Ok(ModelAnswer {
            model: self.model,
            blocks: self.blocks,
            stop,
            usage: self.usage,
            cost: None,
            attempts: 1,
            first_token_ms: None,
            latency_ms: 0,
            queued_ms: 0,
            charges: Vec::new(),
            answered_by: None,
            moved: Vec::new(),
        })
    }
}

fn size_of_block(block: &AnswerBlock) -> usize {
    match block {
        AnswerBlock::Text { text } => text.len(),
        AnswerBlock::Reasoning { payload } => payload.to_string().len(),
        AnswerBlock::ToolCall { name, input, .. } => {
            name.len() + input.as_ref().map_or_else(String::len, |value| value.to_string().len())
        }
    }
}
