//! The Managed Agents HTTP/SSE contract: conversions to and from the domain live only here.
//!
//! Must not know: how requests are served, or storage.
//! Start at [`agents`] for a resource, and at [`events`] for what happens in a session. Requests are read by hand, so that each
//! error names the place; what is kept is serde's; every `answer` has every field of the contract.

mod read;
mod record;

pub mod error;
pub mod page;
pub mod query;

mod abilities;
mod metadata;

pub mod agents;
pub mod environments;
pub mod events;
pub mod files;
pub mod models;
pub mod sessions;
pub mod unsupported;
pub mod usage;

pub use abilities::Abilities;
pub use error::{ApiError, ErrorCode, ErrorKind};
pub use metadata::{Metadata, MetadataPatch};
pub use page::Cursor;
pub use query::Query;
pub use read::{Change, Invalid};
pub use record::Stamp;
