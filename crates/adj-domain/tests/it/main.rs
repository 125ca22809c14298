//! What is stored, to the byte; the chain that tells whether it still is; and money.

mod chain;
mod money;
mod samples;
mod stored;
