//! Fakes that speak real protocols, and hermetic homes: for tests only.
//!
//! Must not know: any other room. What it plays is the world outside of the process.
//! Start at [`FakeVendor`], a model vendor that checks what it is asked; [`Home`] runs the binary apart from everything.

mod git;
mod home;
pub mod vendor;

pub use git::{GitRepository, git_repository};
pub use home::Home;
pub use vendor::{Asked, FakeVendor, Reply, TokenCounts, Wire, gemini_signature};
