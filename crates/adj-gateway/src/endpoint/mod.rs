//! The local door for other people's agents: an HTTP server that speaks the vendors' own wires inwards.
//!
//! Start at [`Endpoint`]. A caller shows a token ([`Tokens`]), the [`Route`] says which vendor answers, the [`Meter`] is told
//! before anything leaves and once more when it is over. Where the vendor speaks the caller's wire, everything passes through
//! as it is (`forward`); where it does not, the request becomes neutral and the answer is written anew (`inward`).

mod attribution;
mod body;
mod call;
mod convert;
mod facts;
mod forward;
mod home;
mod inward;
mod journey;
mod meter;
mod models;
mod records;
mod refusal;
mod route;
mod serve;
mod splice;
mod tap;
mod token;
mod usage;
mod wire;
pub use attribution::Attribution;
pub use facts::{Asks, Facts};
pub use home::HomeRoute;
pub use inward::understand;
pub use meter::{Closing, Meter, Opening, Operation, Outcome};
pub use refusal::{Refusal, RefusalKind};
pub use route::{Question, Route};
pub use serve::{Bounds, Endpoint, ServeError};
pub use token::Tokens;
pub use wire::Wire;
