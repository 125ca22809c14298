//! A vendor without a model: a playbook says what is answered to what. See `docs/playbooks.md`.

mod play;
mod playbook;
mod script;
mod template;

pub use play::Scripted;
pub use playbook::{Playbook, PlaybookError};
pub use script::{Script, ScriptError};
