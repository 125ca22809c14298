//! The contract: what is refused and how, what is kept, what is answered.

mod agents;
mod environments;
mod errors;
mod samples;
