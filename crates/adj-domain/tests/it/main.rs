//! What is stored, to the byte; the chain that tells whether it still is; money, and who may spend it.

mod chain;
mod ledger;
mod money;
mod samples;
mod stored;
