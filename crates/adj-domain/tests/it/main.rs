//! What is stored, to the byte; and the chain that tells whether it still is.

mod chain;
mod samples;
mod stored;
