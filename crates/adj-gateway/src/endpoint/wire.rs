//! The protocols that callers speak.

use adj_providers::WireKind;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// OpenAI's Responses API.
    Responses,
    /// Anthropic's Messages API.
    Messages,
    /// The chat completions API.
    Chat,
    /// Google's generateContent API.
    Gemini,
}

impl Wire {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Responses => "responses",
            Self::Messages => "messages",
            Self::Chat => "chat",
            Self::Gemini => "gemini",
        }
    }
}

impl From<WireKind> for Wire {
    fn from(kind: WireKind) -> Self {
        match kind {
            WireKind::OpenAi => Self::Responses,
            WireKind::Anthropic => Self::Messages,
            WireKind::Chat => Self::Chat,
            WireKind::Gemini => Self::Gemini,
        }
    }
}
