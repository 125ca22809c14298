//! The contract: what is refused and how, what is kept, what is answered.

mod agents;
mod environments;
mod errors;
mod events;
mod pages;
mod properties;
mod samples;
mod sessions;
