//! Recordings of what vendors were asked and answered: one file of JSON lines. See `docs/cassettes.md`.
//!
//! They are here because both ends are vendors: a [`Recorder`] stands around one, a [`Player`] is one, as the scripted vendor
//! is, and a request that passes through in the vendor's own words is seen nowhere else.

mod blot;
mod compare;
mod format;
mod player;
mod reader;
mod recorder;

pub use format::{Heading, Places, is_cassette};
pub use player::{Manner, Player, Replay, Timing};
pub use reader::CassetteError;
pub use recorder::{RecordError, Recorder};

pub(crate) use player::Played;
pub(crate) use recorder::PassedTake;
