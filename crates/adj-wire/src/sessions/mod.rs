//! Sessions: what is asked for, what is kept, what is answered.
//!
//! Start at [`create`] and [`SessionRecord`].

mod create;
mod list;
mod record;
mod resources;
mod threads;
mod update;

pub use create::{AgentChoice, NewSession, create};
pub use list::{ResourcesQuery, SessionStatus, SessionsQuery, ThreadsQuery};
pub use record::{AgentSnapshot, Moment, SessionRecord};
pub use resources::{Checkout, NewResource, Resource, ResourceSource, add_resource, rotate_token};
pub use threads::{Thread, primary_thread_id};
pub use update::{SessionUpdate, update};
