//! Many sessions as one run: who works when, what is checked, what is merged, where it lands.
//!
//! Must not know: terminals, HTTP, or how one agent works.
//! Start at [`due`]: what a run needs next, from nothing but its fold. [`Squad`] does it.

mod defaults;
mod due;
mod prompts;

mod bounds;
mod gate;
mod runner;

pub use defaults::core_agents;
pub use due::{Action, Due, due, intents};
pub use runner::{RunEnd, Squad, SquadError};
