//! `adjutant approvals …`

use adj_policy::{Limit, LimitValue};
use clap::{Args, Subcommand, ValueEnum};
use std::{str::FromStr, time::Duration};

/// Answer what agents ask before they go on
///
/// A question is bound to the call, its arguments, the files of the workspace and the policy: an answer holds for these
/// only, once. One that is not answered in time is denied.
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:\n  adjutant approvals list\n  \
                        adjutant approvals allow sevt_0123 --remember session\n  \
                        adjutant approvals deny sevt_0123 -m \"use the staging server\"\n  \
                        adjutant approvals revoke sevt_4567")]
pub enum ApprovalsCommand {
    /// List the questions that wait, oldest first
    List {
        /// Print one JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Show one question: the whole call, and why it is asked
    Show {
        /// Its id (sevt_…), or an unambiguous beginning of it
        id: String,
        /// Print it as one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Allow what is asked, once
    Allow(AllowArgs),
    /// Deny what is asked; the agent is told so and goes on
    Deny {
        /// Its id (sevt_…), or an unambiguous beginning of it
        id: String,
        /// What the agent is told
        #[arg(long, short = 'm', value_name = "TEXT")]
        message: Option<String>,
    },
    /// List the permissions that are remembered
    Grants {
        /// Print one JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Take a remembered permission back
    Revoke {
        /// Its id (sevt_…), or an unambiguous beginning of it
        grant: String,
    },
}

#[derive(Debug, Args)]
pub struct AllowArgs {
    /// Its id (sevt_…), or an unambiguous beginning of it
    pub id: String,
    /// Do not ask again: about these commands, this tool or this host, in this session or in every one on this repository
    #[arg(long, value_name = "SCOPE")]
    pub remember: Option<Remember>,
    /// How long it is remembered, as in 30m or 8h (default: 8h, or what policy permits if that is less)
    #[arg(long = "for", value_name = "TIME", requires = "remember")]
    pub lasts: Option<Lasts>,
}

/// How far a remembered permission reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Remember {
    Session,
    Repository,
}

/// A time in the spelling of policy files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lasts(pub Duration);

impl FromStr for Lasts {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match Limit::Wall.value(text) {
            Ok(LimitValue::Time(time)) => Ok(Self(time)),
            Ok(_) => unreachable!("the limit is a time"),
            Err(error) => Err(error.to_string()),
        }
    }
}
