//! What the fake is to answer, and how its bytes are to arrive.

use serde_json::{Value, json};
use std::time::Duration;

/// What an answer claims to have used; `input` is everything read, the cached part included, as OpenAI counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenCounts {
    pub input: u64,
    pub cached: u64,
    pub output: u64,
    pub reasoning: u64,
}

/// One answer, built up by its methods.
#[derive(Debug, Clone)]
pub struct Reply {
    pub(crate) kind: Kind,
    pub(crate) delivery: Delivery,
}

#[derive(Debug, Clone)]
pub(crate) enum Kind {
    Answer {
        blocks: Vec<Block>,
        counts: TokenCounts,
        stop: Option<Stop>,
    },
    Failure {
        status: u16,
        code: String,
        message: String,
        retry_after: Option<String>,
    },
    /// An error within a stream that began well.
    FailedStream {
        code: String,
        message: String,
    },
    Page {
        content_type: String,
        body: String,
    },
}

#[derive(Debug, Clone)]
pub(crate) enum Block {
    Text(String),
    Reasoning(String),
    /// A custom call's arguments are `{"input": TEXT}`; where a wire knows such calls, only the text is sent.
    Call {
        name: String,
        arguments: String,
        is_custom: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    MaxTokens,
    Refusal,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Delivery {
    /// Bytes a chunk; `None`: an event a chunk.
    pub(crate) chunk: Option<usize>,
    /// Before each chunk but the first.
    pub(crate) pause: Duration,
    /// Before the head of the answer.
    pub(crate) delay: Duration,
    pub(crate) cut: Option<Cut>,
    pub(crate) headers: Vec<(String, String)>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Cut {
    pub(crate) after_bytes: usize,
    /// The connection ends as if the answer were whole; otherwise it breaks.
    pub(crate) cleanly: bool,
}

impl Reply {
    fn new(kind: Kind) -> Self {
        Self { kind, delivery: Delivery::default() }
    }

    /// An answer that says nothing, yet.
    pub fn empty() -> Self {
        let counts = TokenCounts { input: 100, cached: 40, output: 20, reasoning: 0 };
        Self::new(Kind::Answer { blocks: Vec::new(), counts, stop: None })
    }

    pub fn text(text: impl Into<String>) -> Self {
        Self::empty().and_text(text)
    }

    pub fn call(name: impl Into<String>, input: Value) -> Self {
        Self::empty().and_call(name, input)
    }

    /// An HTTP error in the shape of the wire that is asked over; `code` is the vendor's word for it.
    pub fn failure(status: u16, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(Kind::Failure { status, code: code.into(), message: message.into(), retry_after: None })
    }

    /// An error event within a stream that began with status 200.
    pub fn failed_stream(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(Kind::FailedStream { code: code.into(), message: message.into() })
    }

    /// Status 200 with anything else than a stream.
    pub fn page(content_type: impl Into<String>, body: impl Into<String>) -> Self {
        Self::new(Kind::Page { content_type: content_type.into(), body: body.into() })
    }

    #[must_use]
    pub fn and_text(self, text: impl Into<String>) -> Self {
        self.and(Block::Text(text.into()))
    }

    #[must_use]
    pub fn and_reasoning(self, text: impl Into<String>) -> Self {
        self.and(Block::Reasoning(text.into()))
    }

    #[must_use]
    pub fn and_call(self, name: impl Into<String>, input: Value) -> Self {
        self.and_raw_call(name, input.to_string())
    }

    /// A call whose arguments are this text, JSON or not.
    #[must_use]
    pub fn and_raw_call(self, name: impl Into<String>, arguments: impl Into<String>) -> Self {
        self.and(Block::Call { name: name.into(), arguments: arguments.into(), is_custom: false })
    }

    /// A call of a tool that takes free text, where the wire has such tools; else of a function that takes the text as `input`.
    #[must_use]
    pub fn and_custom_call(self, name: impl Into<String>, input: &str) -> Self {
        let arguments = json!({"input": input}).to_string();
        self.and(Block::Call { name: name.into(), arguments, is_custom: true })
    }

    fn and(mut self, block: Block) -> Self {
        match &mut self.kind {
            Kind::Answer { blocks, .. } => blocks.push(block),
            Kind::Failure { .. } | Kind::FailedStream { .. } | Kind::Page { .. } => panic!("only an answer has blocks"),
        }
        self
    }

    #[must_use]
    pub fn using(mut self, used: TokenCounts) -> Self {
        if let Kind::Answer { counts, .. } = &mut self.kind {
            *counts = used;
        }
        self
    }

    /// The answer stops because it reached its bound.
    #[must_use]
    pub fn out_of_tokens(self) -> Self {
        self.stopping(Stop::MaxTokens)
    }

    #[must_use]
    pub fn refusing(self) -> Self {
        self.stopping(Stop::Refusal)
    }

    fn stopping(mut self, reason: Stop) -> Self {
        if let Kind::Answer { stop, .. } = &mut self.kind {
            *stop = Some(reason);
        }
        self
    }

    /// Sets how long a failure asks to wait: the header `retry-after`, or what the wire has in its place.
    #[must_use]
    pub fn retry_after(mut self, text: impl Into<String>) -> Self {
        if let Kind::Failure { retry_after, .. } = &mut self.kind {
            *retry_after = Some(text.into());
        }
        self
    }

    /// Adds a header to whatever the answer is.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.delivery.headers.push((name.into(), value.into()));
        self
    }

    /// Sends so many bytes at a time, wherever that cuts.
    #[must_use]
    pub fn in_chunks_of(mut self, bytes: usize) -> Self {
        self.delivery.chunk = Some(bytes.max(1));
        self
    }

    /// Waits between chunks.
    #[must_use]
    pub fn with_pauses(mut self, pause: Duration) -> Self {
        self.delivery.pause = pause;
        self
    }

    /// Waits before anything is sent.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.delivery.delay = delay;
        self
    }

    /// Breaks the connection after so many bytes of the body.
    #[must_use]
    pub fn broken_after(mut self, bytes: usize) -> Self {
        self.delivery.cut = Some(Cut { after_bytes: bytes, cleanly: false });
        self
    }

    /// Ends the body after so many bytes, as if that were all.
    #[must_use]
    pub fn ended_after(mut self, bytes: usize) -> Self {
        self.delivery.cut = Some(Cut { after_bytes: bytes, cleanly: true });
        self
    }
}
