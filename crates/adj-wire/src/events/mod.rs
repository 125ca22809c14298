//! What happens in a session: what clients send, what they are told, and how it travels.
//!
//! Start at [`send`] for what comes in, and at [`Projection`] for what goes out.

mod announcement;
mod block;
mod client;
mod list;
mod projection;
mod stop;
mod stream;

pub use announcement::{Announcement, ThreadStatus};
pub use block::{Block, LoadedFile, Source};
pub use client::{ClientEvent, MOST_INITIAL_EVENTS, queued, send};
pub use list::{DeltaKinds, EventsQuery, StreamQuery};
pub use projection::{Entry, McpTool, Projection, WireEvent};
pub use stream::{PING, delta, error_frame, frame, last_event_id, reset, start};

pub(crate) use client::read_initial_events;
