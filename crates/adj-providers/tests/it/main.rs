//! The room as its neighbours see it: requests out, streams in, and a playbook in place of a vendor.

mod cassettes;
mod decoders;
mod encoders;
mod errors;
mod fixtures;
mod http;
mod scripted;
mod settings;
