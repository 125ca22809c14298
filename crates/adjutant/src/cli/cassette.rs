//! `--record` and `--replay`.

use clap::Args;
use std::path::PathBuf;

#[derive(Debug, Clone, Default, Args)]
pub struct CassetteArgs {
    /// Write every model request and its answer into this new file
    #[arg(long, value_name = "FILE", conflicts_with = "replay")]
    pub record: Option<PathBuf>,

    /// Answer model requests out of a recorded file: no vendor is asked, and a request that differs is an error
    #[arg(long, value_name = "FILE")]
    pub replay: Option<PathBuf>,

    /// Let requests differ: each agent gets its next recorded answer
    #[arg(long, requires = "replay")]
    pub replay_loosely: bool,
}
