//! The one door from a sandbox to the network: which host, at which address, with which secret.
//!
//! Must not know: sandboxes, sessions, agents, or who wrote the rules.
//! Start at [`Egress`]; what it is told is in [`Settings`], what it says is a [`Decided`].

mod settings;

mod address;
mod admit;
mod authority;
mod body;
mod connection;
mod copy;
mod credential;
mod egress;
mod exchange;
mod head;
mod hello;
mod refusal;
mod resolve;
mod scrub;
mod socks;
mod target;
mod tunnel;
mod wire;

pub use address::{AddressRange, is_global};
pub use authority::{CertificateAuthority, CertificateError};
pub use credential::{Credential, Place};
pub use egress::{Egress, StartEgressError};
pub use resolve::{Resolve, SystemResolver};
pub use settings::{Decided, EgressLimits, Judge, Judged, Protocol, Settings};

/// The readers of strangers' bytes, open to the fuzzer.
#[doc(hidden)]
pub mod parsers {
    pub use crate::{
        body::{BodyDecoder, BodyError, Step},
        head::{Framing, HeadError, RequestHead, ResponseHead, head_end},
        hello::{Hello, HelloError, read_hello, second_hello, server_retries},
        scrub::{Finder, Scrubber},
        socks::{Parsed, SocksError, SocksRequest, parse_greeting, parse_request},
        target::{Authority, TargetError, absolute_form, authority, strict_path},
    };
}
