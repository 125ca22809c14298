//! Running commands that must not escape: namespaces, Landlock, seccomp, limits, reaping.
//!
//! Must not know: agents, models, or git beyond the names of the folders it protects.
//! Start at [`Launcher`]: [`Launcher::run`] for one command ([`Here`] for one whose caller is a person or a script that waits),
//! [`Launcher::open`] for a supervisor that outlives its caller.
//! Everything below `helper` runs in processes of our own binary that were started again as `… __sandbox`.

mod limits;
mod network;
mod pattern;
mod plan;

mod error;
mod wire;

mod here;
mod launch;
mod output;
mod probe;
mod seatbelt;
mod supervisor;
mod survey;
mod terminal;

mod channel;
mod frame;
mod spool;

mod helper;
mod sys;

pub use channel::{Frame, WorkerChannel};
pub use error::{ACCEPTS_RISK, Layer, SetupError};
pub use helper::{dispatch_helper, limit_mechanism};
pub use here::{Here, Streams};
pub use launch::{Command, Exit, Finished, Launcher, RunError};
pub use limits::{LimitMechanism, Limits, Reached};
pub use network::{NetworkPlan, PROXY_PORT, proxy_environment};
pub use pattern::{PathPattern, PatternError};
pub use plan::{Bind, GUARDED, HOME, Mode, Mount, PROTECTED, ParseModeError, Plan, PlanError, base_environment};
pub use probe::{Capabilities, landlock_abi};
pub use seatbelt::{SeatbeltError, seatbelt_profile};
pub use spool::{Failure, Finding, find};
pub use supervisor::{CallError, ListenerError, Listeners, OpenError, StopError, Supervisor, stop};
pub use survey::{Survey, SurveyRow};
pub use terminal::{Question, Questions, Terminal};
