//! What limits are worth: who set each, and what holds it.

use super::Wanted;
use crate::{cli::ConfinementArgs, confinement};
use adj_domain::{Ruling, SandboxMode, Verdict};
use adj_policy::{Limit, LimitValue};
use adj_sandbox::{LimitMechanism, Streams, limit_mechanism};
use serde::Serialize;

/// One limit as it came out.
#[derive(Debug, Serialize)]
pub struct Held {
    pub limit: Limit,
    pub value: LimitValue,
    /// Who set it: a layer with file and line, a profile, a flag, or nobody.
    pub set_by: String,
    /// What sees to it.
    pub held_by: &'static str,
}

/// Every limit that the sandbox holds. Output goes straight to our own streams where nobody limits it.
pub fn held(wanted: &Wanted, args: &ConfinementArgs) -> Vec<Held> {
    let policy = wanted.asked.policy.limits();
    let of = |(limit, value)| {
        let asked = wanted.asked.profile.limits.get(&limit);
        let narrowed = policy.iter().find(|least| least.limit == limit && least.value == value);
        let is_flag = args.limit.iter().any(|entry| entry.limit == limit);
        let set_by = match narrowed {
            Some(least) if asked != Some(&value) || !is_flag => {
                let ruling = Ruling {
                    file: least.file.clone(),
                    line: least.line,
                    ..Ruling::new(Verdict::Allow, least.layer.as_str(), "")
                };
                confinement::place(&ruling)
            }
            _ if is_flag && asked == Some(&value) => "call, --limit".to_owned(),
            _ if asked == Some(&value) => format!("profile {}", wanted.asked.profile.name),
            _ => "built-in".to_owned(),
        };
        Held { limit, value, set_by, held_by: held_by(limit, wanted) }
    };
    let is_limit = |limit| limit != Limit::Output || wanted.streams() == Streams::Counted;
    wanted.confined.limits().filter(|(limit, _)| is_limit(*limit)).map(of).collect()
}

fn held_by(limit: Limit, wanted: &Wanted) -> &'static str {
    let is_confined = wanted.asked.profile.mode != SandboxMode::DangerFullAccess;
    match limit {
        Limit::Wall => "a clock outside",
        Limit::Output => "counted on its way out",
        _ if !is_confined => "nothing: there is no sandbox",
        Limit::Memory | Limit::Processes if limit_mechanism() == LimitMechanism::Cgroup => {
            "cgroup v2; rlimit for each process"
        }
        Limit::Memory => "all processes looked at every 50 ms; rlimit of twice as much for each",
        Limit::Processes => "rlimit; all processes counted every 50 ms",
        Limit::OpenFiles | Limit::FileSize => "rlimit for each process",
        Limit::Cpu => "all processes looked at every 50 ms; rlimit for each",
        Limit::Tmp => "size of each private file system",
        Limit::Disk => "the folder looked at while the command runs",
    }
}
