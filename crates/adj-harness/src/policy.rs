//! Whether a tool call may run, and which rule says so.

use adj_domain::{SandboxMode, SessionSpec, Verdict};

/// A decision with its reason, as the log keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    pub verdict: Verdict,
    /// Who set the rule: `agent` (its definition), `session` (its sandbox).
    pub layer: &'static str,
    pub rule: String,
}

/// Judges a call by its tool's name. What a command may touch is the sandbox's business, which holds whatever is said here.
pub fn judge(spec: &SessionSpec, tool: &str) -> Judgement {
    if !spec.agent.tools.iter().any(|known| known.name == tool) {
        return deny("agent", format!("the agent has no tool called \"{tool}\""));
    }
    let writes = matches!(tool, "write" | "edit" | "apply_patch");
    if writes && spec.sandbox == SandboxMode::ReadOnly {
        return deny("session", format!("sandbox read-only: \"{tool}\" changes files"));
    }
    Judgement { verdict: Verdict::Allow, layer: "session", rule: format!("sandbox {}", spec.sandbox) }
}

fn deny(layer: &'static str, rule: String) -> Judgement {
    Judgement { verdict: Verdict::Deny, layer, rule }
}
