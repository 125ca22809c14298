//! Model vendors behind one neutral request and one neutral stream of events.
//!
//! Must not know: what tools mean, budgets, storage, retries.
//! Start at [`Provider`]: one attempt at one request. [`Settings`] tells which vendors there are; each wire has a pure
//! encoder and a decoder without I/O; [`Accumulator`] makes a whole answer out of a stream that came to its proper end.

pub mod accumulator;
pub mod cassette;
pub mod decoder;
pub mod error;
pub mod event;
pub mod headers;
pub mod http;
pub mod schema;
pub mod scripted;
mod scrub;
pub mod settings;
pub mod sse;
pub mod wire;

pub use accumulator::Accumulator;
pub use adj_domain::{Secret, SecretError};
pub use cassette::{CassetteError, Manner, Player, RecordError, Recorder, Replay, Timing};
pub use decoder::{Dialect, StreamDecoder};
pub use error::ProviderError;
pub use event::{EventStream, ModelEvent, Provider};
pub use headers::{Reading, Resource, Scope};
pub use http::{HttpProvider, Timeouts};
pub use scripted::{Playbook, PlaybookError, Script, ScriptError, Scripted};
pub use settings::{Account, Settings, SettingsError, VendorSettings, WireKind};
pub use wire::{anthropic, chat, gemini, openai};
