//! Whether a tool call may run, and which rule says so.

use adj_domain::{Ruling, SandboxMode, SessionSpec, ToolRequest, Verdict};

/// What policy says of a call by a tool that the agent has.
pub type Judge<'a> = dyn Fn(&ToolRequest) -> Ruling + 'a;

/// Judges a call. What a command may touch is the sandbox's business, which holds whatever is said here.
pub(crate) fn judge(spec: &SessionSpec, call: &ToolRequest, policy: &Judge<'_>) -> Ruling {
    if !spec.agent.tools.iter().any(|known| known.name == call.name) {
        return Ruling::new(Verdict::Deny, "agent", format!("the agent has no tool called \"{}\"", call.name));
    }
    policy(call)
}

/// What stands where there are no layers of policy: the sandbox's mode alone decides.
pub fn by_sandbox(spec: &SessionSpec, call: &ToolRequest) -> Ruling {
    let writes = matches!(call.name.as_str(), "write" | "edit" | "apply_patch");
    if writes && spec.sandbox == SandboxMode::ReadOnly {
        let rule = format!("sandbox read-only: \"{}\" changes files", call.name);
        return Ruling::new(Verdict::Deny, "session", rule);
    }
    Ruling::new(Verdict::Allow, "session", format!("sandbox {}", spec.sandbox))
}

/// What a model is told of a denial: the rule and its author's reason, so that it can look for another way.
pub(crate) fn refusal(ruling: &Ruling) -> String {
    match &ruling.justification {
        Some(why) => format!("not allowed: {} ({why})", ruling.rule),
        None => format!("not allowed: {}", ruling.rule),
    }
}
