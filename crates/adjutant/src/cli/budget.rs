//! What may be spent: flags of what spends, and `adjutant budget …`.

use adj_domain::{Amounts, Budget, IdError, Limit, PurseKey, RunId, Scope, SessionId, Unpriced};
use clap::{Args, Subcommand};
use std::str::FromStr;

/// The most that may be spent. Nothing is sent that could cost more.
#[derive(Debug, Clone, Default, Args)]
pub struct BudgetArgs {
    /// The most that may be spent in all: 5usd, 200k-tokens, or 20usd-quota of a subscription; may be repeated for other
    /// units. With --resume, the new limit
    #[arg(long, value_name = "AMOUNT")]
    pub budget: Vec<Limit>,

    /// The most that one turn of an agent may spend; as --budget
    #[arg(long, value_name = "AMOUNT")]
    pub budget_turn: Vec<Limit>,

    /// The most that one request to a model may come to; as --budget
    #[arg(long, value_name = "AMOUNT")]
    pub budget_request: Vec<Limit>,

    /// Under a limit of money, what to do with models whose price is not known: refuse, ignore, or assume:IN/OUT, as in
    /// assume:3/15 for 3 and 15 USD for a million tokens (default: refuse)
    #[arg(long, value_name = "HOW")]
    pub unpriced: Option<Unpriced>,
}

impl BudgetArgs {
    fn each(&self) -> Budget {
        Budget {
            request: amounts(&self.budget_request),
            turn: amounts(&self.budget_turn),
            unpriced: self.unpriced.clone().unwrap_or_default(),
            ..Budget::default()
        }
    }

    pub fn of_session(&self) -> Budget {
        Budget { session: amounts(&self.budget), ..self.each() }
    }

    pub fn of_run(&self, each_session: &[Limit]) -> Budget {
        Budget { run: amounts(&self.budget), session: amounts(each_session), ..self.each() }
    }
}

/// Of two limits in one unit the last counts.
fn amounts(limits: &[Limit]) -> Amounts {
    limits.iter().map(|limit| (limit.unit.clone(), limit.amount)).collect()
}

/// A session or a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BudgetTarget {
    Session(SessionId),
    Run(RunId),
}

impl BudgetTarget {
    pub fn purse(&self) -> PurseKey {
        match self {
            Self::Session(id) => PurseKey::Session(id.clone()),
            Self::Run(id) => PurseKey::Run(id.clone()),
        }
    }

    pub fn scope(&self) -> Scope {
        self.purse().scope()
    }
}

impl FromStr for BudgetTarget {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |_: IdError| format!("{text:?} is neither a session id (sesn_…) nor a run id (run_…)");
        if text.starts_with("run_") {
            return text.parse().map(Self::Run).map_err(wrong);
        }
        text.parse().map(Self::Session).map_err(wrong)
    }
}

/// Show what was spent and what may be, and change limits
///
/// Limits of sessions and runs are set when they start (--budget) and changed here, also while they work. Those of the day and
/// of the organisation's month stand in policy files, under `[budget]`.
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:\n  adjutant budget show\n  adjutant budget show run_0123456789abcdef\n  \
                        adjutant budget set run_0123456789abcdef 10usd\n  \
                        adjutant budget set sesn_0123456789abcdef 2usd --turn\n  \
                        adjutant budget lift sesn_0123456789abcdef")]
pub enum BudgetCommand {
    /// Show limits, what was spent, and what is set aside for requests under way
    Show {
        /// A session (sesn_…) or a run (run_…); none: today and this month, of everybody who shares the journal
        target: Option<BudgetTarget>,
        /// Print it as one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Set limits; what rests for lack of more goes on with --resume
    Set {
        /// A session (sesn_…) or a run (run_…)
        target: BudgetTarget,
        /// 5usd, 200k-tokens, 20usd-quota; may be repeated for other units
        #[arg(required = true, value_name = "AMOUNT")]
        limits: Vec<Limit>,
        /// For each turn of a session
        #[arg(long, conflicts_with = "request")]
        turn: bool,
        /// For each request of a session
        #[arg(long)]
        request: bool,
    },
    /// Lift all limits of a session or a run; those of policy stay
    Lift {
        /// A session (sesn_…) or a run (run_…)
        target: BudgetTarget,
    },
}
