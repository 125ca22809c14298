//! What is known of the call that is judged, besides the policy: what was asked for, and what people granted.

use crate::Policy;
use adj_domain::{
    ApprovalPolicy, Grant, GrantScope, GrantSubject, NetworkRequest, Ruling, SandboxMode, SessionId, Timestamp,
    ToolPermission, Verdict,
};
use std::{collections::BTreeMap, time::Duration};

/// The circumstances of a decision.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    pub approval: ApprovalPolicy,
    pub mode: SandboxMode,
    /// What the agent's definition says of its tools; a tool that is missing here has no permission of its own.
    pub permissions: &'a BTreeMap<String, ToolPermission>,
    pub network: &'a NetworkRequest,
    /// All that might be in force; whether one is, is seen to here.
    pub grants: &'a [Grant],
    pub now: Timestamp,
    pub session: Option<&'a SessionId>,
    /// The folder or repository that the session works on.
    pub repository: Option<&'a str>,
}

/// The strictest of what was said; the first of them, where several are as strict.
pub(crate) fn first_strictest(voices: &[Ruling]) -> Ruling {
    let strictest = voices.iter().reduce(|kept, next| if next.verdict > kept.verdict { next } else { kept });
    strictest.cloned().unwrap_or_else(|| Ruling::new(Verdict::Allow, "built-in", "nobody objects"))
}

impl Policy {
    /// Replaces a question by the answer that is already known: a grant, or that nobody is asked.
    pub(crate) fn settle(
        &self,
        ruling: Ruling,
        context: &Context<'_>,
        is_about: impl Fn(&GrantSubject) -> bool,
    ) -> Ruling {
        if ruling.verdict != Verdict::Ask {
            return ruling;
        }
        if let Some(grant) = self.grant(context, is_about) {
            return granted(grant);
        }
        self.unanswered(ruling, context)
    }

    /// What becomes of a question that no grant answers.
    pub(crate) fn unanswered(&self, ruling: Ruling, context: &Context<'_>) -> Ruling {
        if ruling.verdict == Verdict::Ask && context.approval == ApprovalPolicy::Never {
            let rule = format!("approval policy never: {}", ruling.rule);
            return Ruling { verdict: Verdict::Deny, rule, ..ruling };
        }
        ruling
    }

    /// Finds a grant that is in force here.
    pub(crate) fn grant<'a>(
        &self,
        context: &Context<'a>,
        is_about: impl Fn(&GrantSubject) -> bool,
    ) -> Option<&'a Grant> {
        let longest = self.longest_grant();
        context.grants.iter().find(|grant| {
            let is_here = match &grant.scope {
                GrantScope::Session { id } => context.session == Some(id),
                GrantScope::Repository { path } => context.repository == Some(path.as_str()),
            };
            // One that was given before the policy grew stricter does not outlast what may be given now.
            let left = Duration::try_from(grant.until.duration_since(context.now)).unwrap_or_default();
            is_here && !left.is_zero() && left <= longest && is_about(&grant.subject)
        })
    }
}

pub(crate) fn granted(grant: &Grant) -> Ruling {
    let rule = format!("{} (given by {} until {}, {})", grant.subject, grant.by, grant.until, grant.id);
    Ruling::new(Verdict::Allow, "grant", crate::document::shown(&rule))
}
