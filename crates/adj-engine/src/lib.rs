//! Sessions at work: one writer each, effects at most once, recovery of what a dead process left.
//!
//! Must not know: terminals, HTTP, or that several sessions may be one run.
//! Start at [`Engine`]; the loop of one session is in `drive`.

mod engine;

mod command;
mod confinement;
mod door;
mod drive;
mod guard;
mod hall;
mod hosted;
mod order;
mod secrets;
mod spending;
mod state;
mod toolbox;
mod toolchains;

mod answers;
mod budgets;
mod context;
mod grants;
mod live;
mod watch;

pub use adj_egress::Resolve;
pub use adj_tools::{ToolName, specs as tool_specs};
pub use answers::{Answer, AnswerError};
pub use budgets::BudgetLimit;
pub use command::{CommandDoor, CommandError, CommandSpec, ConfinedCommand, DoorNews, OpenDoor, trust_file};
pub use confinement::ConfinementError;
pub use context::gather;
pub use drive::TurnEnd;
pub use engine::{Engine, EngineError, NewSession, Parts, Upstream, default_agent};
pub use guard::GuardError;
pub use hall::Hall;
pub use hosted::{Hosted, NewProgram, Teller};
pub use live::{Interrupt, Live};
pub use spending::{caps, closes, reserve};
pub use toolchains::work_plan;
pub use watch::Watch;
