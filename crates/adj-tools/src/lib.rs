//! What an agent can do: run commands, read, write, edit and patch files, and search them.
//!
//! Must not know: models, history, or who asked.
//! Start at [`Toolbox`]: it answers one request after another. [`specs`] is what a model is told of the tools, [`worker`] is a toolbox
//! at work inside a sandbox.

mod input;
mod name;
mod spec;

mod toolbox;
mod worker;

mod edit;
mod glob;
mod grep;
mod patch;
mod read;
mod shell;
mod write;

mod cancel;
mod clip;
mod near;
mod save;
mod text;
mod tree;

pub use cancel::Cancel;
pub use input::check_input;
pub use name::{ParseToolNameError, ToolName, is_repeatable};
pub use spec::specs;
pub use toolbox::{Caps, OpenToolboxError, Toolbox, ToolboxPlan};
pub use worker::{WorkerRequest, worker};
