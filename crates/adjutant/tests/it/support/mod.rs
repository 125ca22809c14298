//! A hermetic place to run the binary in, and ways to look at what it left behind.

mod helpers;
pub mod normal;
mod world;

pub use helpers::{commands_of, helpers_of, kill, kill_helpers, wait_for, wait_until_no_helper};
pub use normal::Normal;
pub use world::{Done, World, files_of};
