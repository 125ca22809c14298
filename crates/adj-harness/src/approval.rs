//! How a call comes to wait for a person, and what becomes of the answer.

use crate::decide::{Draft, Effect};
use adj_domain::{
    ApprovalResult, ApprovalSubject, BlobHash, Confirmation, Content, EventId, PendingInput, SessionEvent, Status,
    Timestamp, ToolCall, ToolState, Verdict, event::Input as Queued,
};

const CHANGED: &str = "the workspace or the policy changed after the question";

impl Draft<'_> {
    pub(crate) fn has_message(&self) -> bool {
        self.pending.iter().any(|input| matches!(input.input, Queued::Message { .. }))
    }

    /// Goes on with the turn that waited for people.
    pub(crate) fn go_on(&mut self) {
        if self.session.waits_for_people() {
            self.emit(SessionEvent::StatusRunning { turn: self.session.turn });
        }
    }

    /// Takes up every answer that has come, each once: the first to a question counts, the others are refused visibly. An
    /// interrupt overtakes what people have said; what they say after it finds nothing that waits.
    pub(crate) fn take_answers(&mut self) {
        let mut goes_on = false;
        let is_interrupt = |input: &&PendingInput| matches!(input.input, Queued::Interrupt);
        let (interrupts, others): (Vec<_>, Vec<_>) = self.pending.iter().partition(is_interrupt);
        for input in interrupts {
            self.takes.push(input.id.clone());
            self.go_on();
            self.emit_as(input.id.clone(), SessionEvent::UserInterrupt);
            goes_on |=
                self.session.calls.iter().any(|call| matches!(call.state, ToolState::Waiting | ToolState::AtUser));
        }
        for input in others {
            match &input.input {
                Queued::Confirmation(answer) => {
                    self.takes.push(input.id.clone());
                    goes_on |= self.take_answer(&input.id, answer);
                }
                Queued::CustomToolResult { custom_tool_use_id, content, is_error } => {
                    self.takes.push(input.id.clone());
                    goes_on |= self.take_result(&input.id, custom_tool_use_id, content, *is_error);
                }
                Queued::Message { .. } | Queued::Interrupt => {}
            }
        }
        // Where a call's surroundings are being looked at, that goes on first.
        let is_looked_at =
            |call: &ToolCall| matches!(call.state, ToolState::Decided(Verdict::Ask) | ToolState::Confirmed(_));
        if goes_on && !self.session.calls.iter().any(is_looked_at) {
            self.start_calls();
        }
    }

    /// Answers whether a call has its result by it.
    fn take_result(&mut self, id: &EventId, call: &EventId, content: &[Content], is_error: bool) -> bool {
        let waits = |known: &ToolCall| known.id == *call && known.state == ToolState::AtUser;
        let custom_tool_use_id = call.clone();
        if !self.session.calls.iter().any(waits) || self.session.interrupted {
            let why = "no such call waits for a result: it has one, was given up, or was never made".to_owned();
            self.emit_as(id.clone(), SessionEvent::ResultRefused { custom_tool_use_id, why });
            return false;
        }
        self.go_on();
        let content = content.to_vec();
        self.emit_as(id.clone(), SessionEvent::CustomToolResult { custom_tool_use_id, content, is_error });
        true
    }

    /// Answers whether a call was denied by it.
    fn take_answer(&mut self, id: &EventId, answer: &Confirmation) -> bool {
        let approval_id = answer.approval_id.clone();
        let open = self.session.approvals.iter().find(|open| open.id == approval_id).cloned();
        let why = match &open {
            None => Some("nobody is asked about it now: it was answered, has expired, or is over"),
            // Whoever answers names what they saw; an answer that names nothing could be meant for anything.
            Some(open) if answer.binding.as_ref() != open.binding() => {
                Some("it was given to another question: the workspace or the policy has changed since")
            }
            Some(_) => None,
        };
        let by = answer.by.clone();
        let (Some(open), None) = (open, why) else {
            let why = why.unwrap_or_default().to_owned();
            self.emit_as(id.clone(), SessionEvent::AnswerRefused { approval_id, by, why });
            return false;
        };
        match open.subject {
            ApprovalSubject::Host { .. } => {
                self.emit_as(id.clone(), SessionEvent::HostConfirmed { approval_id, result: answer.result, by });
                false
            }
            ApprovalSubject::Tool { tool_use_id, .. } => {
                self.go_on();
                self.emit_as(
                    id.clone(),
                    SessionEvent::ToolConfirmed {
                        tool_use_id: tool_use_id.clone(),
                        result: answer.result,
                        deny_message: answer.deny_message.clone(),
                        by: by.clone(),
                    },
                );
                match answer.result {
                    ApprovalResult::Allow => {
                        self.effects.push(Effect::Bind { call: tool_use_id });
                        false
                    }
                    ApprovalResult::Deny => {
                        let said = answer.deny_message.as_deref().map(|said| format!(": {said}")).unwrap_or_default();
                        self.refuse_call(&tool_use_id, &format!("denied by {by}{said}"));
                        true
                    }
                }
            }
        }
    }

    /// A call's surroundings are known: ask about it, or start it if a person allowed exactly this.
    pub(crate) fn bound(&mut self, id: &EventId, binding: BlobHash, expires_at: Timestamp) {
        let Some(call) = self.session.calls.iter().find(|call| call.id == *id).cloned() else { return };
        if self.session.status != Status::Running {
            return;
        }
        let again = match &call.state {
            ToolState::Decided(Verdict::Ask) | ToolState::Confirmed(_) if self.session.interrupted => {
                self.refuse_call(id, "the turn was interrupted before this call was run");
                return self.start_calls();
            }
            // Policy may have come to forbid it since it was asked about: then nobody can allow it.
            ToolState::Decided(Verdict::Ask) | ToolState::Confirmed(_) if self.is_forbidden_now(&call) => {
                return self.start_calls();
            }
            ToolState::Decided(Verdict::Ask) => None,
            ToolState::Confirmed(allowed) if *allowed == binding => {
                self.start(id);
                return self.start_calls();
            }
            ToolState::Confirmed(_) => Some(CHANGED.to_owned()),
            _ => return,
        };
        let subject = ApprovalSubject::Tool { tool_use_id: id.clone(), binding };
        self.emit(SessionEvent::ApprovalRequested { subject, expires_at, again });
        self.wait_for_people();
    }

    /// Nobody answered in time: that is a denial.
    pub(crate) fn expired(&mut self, approvals: &[EventId]) {
        let mut has_denied = false;
        for open in self.session.approvals.clone() {
            if !approvals.contains(&open.id) {
                continue;
            }
            if let ApprovalSubject::Tool { tool_use_id, .. } = &open.subject {
                self.go_on();
                self.emit(SessionEvent::ApprovalExpired { approval_id: open.id.clone() });
                self.refuse_call(tool_use_id, "denied: nobody answered before the question expired");
                has_denied = true;
            } else {
                self.emit(SessionEvent::ApprovalExpired { approval_id: open.id.clone() });
            }
        }
        if has_denied {
            self.start_calls();
        }
    }
}
