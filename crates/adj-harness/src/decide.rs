//! The native loop: from what just happened to what is remembered and what is done next.

use crate::{
    compaction,
    output::check_output,
    policy::{Judge, judge, refusal},
    request::{build_request, prompt_record},
};
use adj_domain::{
    AnswerBlock, ApprovalSubject, BlobHash, Charge, Content, Destination, EventId, FailureKind, IdleReason,
    ModelAnswer, ModelFailure, ModelRequest, PendingInput, Purpose, PurseKey, Refusal, RequestResult, Ruling, Session,
    SessionEvent, Status, StopReason, Timestamp, ToolCall, ToolOutcome, ToolRequest, ToolState, Verdict,
    event::Input as Queued,
};
use serde_json::Value;

const INTERRUPTED: &str = "the turn was interrupted before this call was run";

/// What just happened to a session.
#[derive(Debug)]
pub enum Input {
    /// There may be something in the queue.
    Wake,
    /// A new holder took the session over and has folded its log. The holds of the request that was under way count as spent.
    Recovered {
        lost: Vec<Charge>,
    },
    /// Somebody wants the turn to end after the step it is in.
    Interrupt,
    /// `shortened`: the budget for which the answer could not be as long as it might have been.
    Answered {
        request: EventId,
        answer: ModelAnswer,
        shortened: Option<Refusal>,
    },
    Failed {
        request: EventId,
        failure: ModelFailure,
    },
    /// A budget did not let the request be sent.
    Refused {
        request: EventId,
        refusal: Refusal,
    },
    ToolAnswered {
        call: EventId,
        outcome: ToolOutcome,
        full_output: Option<BlobHash>,
    },
    /// What a call that needs a person is bound to now, and until when the question may stand.
    Bound {
        call: EventId,
        binding: BlobHash,
        expires_at: Timestamp,
    },
    /// Questions whose time is over.
    Expired {
        approvals: Vec<EventId>,
    },
    /// A running command wants to reach a host that a person may permit. `asked` becomes the id of the question.
    HostAsked {
        asked: EventId,
        to: Destination,
        expires_at: Timestamp,
    },
    /// The door to the network decided.
    Network {
        to: Destination,
        protocol: String,
        ruling: Ruling,
        address: Option<String>,
        secrets: Vec<String>,
    },
    /// Somebody answered, or may have.
    Answers,
}

/// What is to be done once the events are remembered.
#[derive(Debug, PartialEq)]
pub enum Effect {
    CallModel {
        id: EventId,
        request: Box<ModelRequest>,
    },
    /// Runs at most once under this id; `started_before`: it may have happened already, so find out first.
    RunTool {
        id: EventId,
        request: ToolRequest,
        started_before: bool,
    },
    /// Find out what the call is bound to: the workspace's tree, the policy.
    Bind {
        call: EventId,
    },
}

/// Events to append, queued inputs that they take up, effects to start after the append, and the state that results.
#[derive(Debug)]
pub struct Decision {
    pub session: Session,
    pub events: Vec<(EventId, SessionEvent)>,
    pub takes: Vec<EventId>,
    pub effects: Vec<Effect>,
}

/// Decides what follows from `input`. No clock, no randomness, no I/O: the same arguments give the same decision.
pub fn decide(session: Session, pending: &[PendingInput], judge: &Judge<'_>, input: Input) -> Decision {
    let mut draft = Draft { session, pending, judge, events: Vec::new(), takes: Vec::new(), effects: Vec::new() };
    draft.take_answers();
    match input {
        Input::Wake if draft.session.waits_for_budget().is_some() => draft.try_again(),
        Input::Wake => {
            if draft.session.is_idle() && !draft.session.waits_for_people() && draft.has_message() {
                draft.begin_turn();
            }
        }
        Input::Answers => {}
        Input::Bound { call, binding, expires_at } => draft.bound(&call, binding, expires_at),
        Input::Expired { approvals } => draft.expired(&approvals),
        Input::HostAsked { asked, to, expires_at } => {
            if draft.session.status == Status::Running {
                let subject = ApprovalSubject::Host { to };
                draft.emit_as(asked, SessionEvent::ApprovalRequested { subject, expires_at, again: None });
            }
        }
        Input::Network { to, protocol, ruling, address, secrets } => {
            draft.emit(SessionEvent::NetworkDecided { to, protocol, ruling, address, secrets });
        }
        Input::Recovered { lost } => draft.recover(lost),
        Input::Interrupt => {
            if draft.session.waits_for_people() {
                draft.go_on();
                draft.emit(SessionEvent::UserInterrupt);
                draft.start_calls();
            } else if !draft.session.is_idle() && !draft.session.interrupted {
                draft.emit(SessionEvent::UserInterrupt);
            }
        }
        Input::Answered { request, answer, shortened } => draft.answered(request, answer, shortened),
        Input::Failed { request, failure } => draft.failed(request, failure),
        Input::Refused { request, refusal } => draft.refused(request, refusal),
        Input::ToolAnswered { call, outcome, full_output } => draft.tool_answered(&call, outcome, full_output),
    }
    Decision { session: draft.session, events: draft.events, takes: draft.takes, effects: draft.effects }
}

/// Whether a session at rest has something to do in its queue: while people are asked, only their answers count.
pub fn can_wake(session: &Session, pending: &[PendingInput]) -> bool {
    pending.iter().any(|input| match input.input {
        Queued::Message { .. } => !session.waits_for_people(),
        Queued::Confirmation(_) | Queued::CustomToolResult { .. } | Queued::Interrupt => true,
    })
}

pub(crate) struct Draft<'a> {
    pub(crate) session: Session,
    pub(crate) pending: &'a [PendingInput],
    judge: &'a Judge<'a>,
    events: Vec<(EventId, SessionEvent)>,
    pub(crate) takes: Vec<EventId>,
    pub(crate) effects: Vec<Effect>,
}

impl Draft<'_> {
    pub(crate) fn emit(&mut self, event: SessionEvent) -> EventId {
        let seq = self.session.head + 1;
        let id = EventId::derive(&[self.session.id.as_str(), &seq.to_string()]);
        self.emit_as(id.clone(), event);
        id
    }

    pub(crate) fn emit_as(&mut self, id: EventId, event: SessionEvent) {
        self.session.apply(&id, &event).expect("the loop decides only what the session's rules allow");
        self.events.push((id, event));
    }

    /// There may be more to spend by now. A message that comes while there is none for its turn begins another.
    fn try_again(&mut self) {
        let is_of_turn = matches!(self.session.waits_for_budget(), Some(PurseKey::Turn(..) | PurseKey::Request(..)));
        if is_of_turn && self.has_message() {
            return self.begin_turn();
        }
        self.emit(SessionEvent::StatusRunning { turn: self.session.turn });
        self.advance();
    }

    fn refused(&mut self, request: EventId, refusal: Refusal) {
        if self.session.request.as_ref().is_none_or(|open| open.id != request) {
            return;
        }
        self.end_request(request, RequestResult::Refused { refusal: refusal.clone() }, Vec::new());
        self.rest_for(refusal);
    }

    /// Rests in the middle of the turn, until there is more to spend.
    fn rest_for(&mut self, refusal: Refusal) {
        if self.session.interrupted {
            return self.finish(IdleReason::Interrupted);
        }
        let purse = refusal.purse().clone();
        self.emit(SessionEvent::BudgetReached { refusal });
        self.finish(IdleReason::BudgetReached { purse });
    }

    fn begin_turn(&mut self) {
        self.emit(SessionEvent::StatusRunning { turn: self.session.turn + 1 });
        self.advance();
    }

    /// Between two steps: take up what people said, then ask the model, or end the turn.
    fn advance(&mut self) {
        if self.session.interrupted {
            return self.finish(IdleReason::Interrupted);
        }
        if self.session.step >= self.session.spec.agent.max_steps {
            return self.finish(IdleReason::StepLimit);
        }
        for input in self.pending {
            if let Queued::Message { content, output_schema } = input.input.clone()
                && !self.takes.contains(&input.id)
            {
                self.takes.push(input.id.clone());
                self.emit_as(input.id.clone(), SessionEvent::UserMessage { content, output_schema });
            }
        }
        let purpose = if compaction::is_due(&self.session) { Purpose::Compaction } else { Purpose::Step };
        self.ask(purpose);
    }

    fn ask(&mut self, purpose: Purpose) {
        let request = build_request(&self.session, purpose);
        let id = self.emit(SessionEvent::ModelRequestStarted {
            turn: self.session.turn,
            step: self.session.step,
            purpose,
            model: request.model.clone(),
            prompt: prompt_record(&request),
            origin: None,
            hold: None,
        });
        self.effects.push(Effect::CallModel { id, request: Box::new(request) });
    }

    fn answered(&mut self, request: EventId, answer: ModelAnswer, shortened: Option<Refusal>) {
        let Some(open) = self.session.request.clone().filter(|open| open.id == request) else {
            return;
        };
        if let Some(refusal) = shortened.filter(|_| answer.stop == StopReason::MaxTokens) {
            // What it would have said fits only when there is more; half of it is of no use.
            self.end_answered(request, answer);
            return self.rest_for(refusal);
        }
        if open.purpose == Purpose::Compaction {
            return self.compacted(request, answer);
        }
        let model = answer.answered_by.clone().unwrap_or_else(|| self.session.spec.agent.model.clone());
        let stop = answer.stop.clone();
        let mut text = None;
        for block in &answer.blocks {
            match block.clone() {
                AnswerBlock::Text { text: said } => {
                    text = Some(said.clone());
                    self.emit(SessionEvent::AgentMessage { content: vec![Content::text(said)] });
                }
                AnswerBlock::Reasoning { payload } => {
                    let (vendor, model) = (model.vendor.clone(), model.name.clone());
                    self.emit(SessionEvent::AgentThinking { vendor, model, payload });
                }
                AnswerBlock::ToolCall { vendor_call_id, name, input } => {
                    let (input, raw_input) = match input {
                        Ok(input) if self.is_custom(&name) => {
                            self.emit(SessionEvent::CustomToolUse { name, input, vendor_call_id });
                            continue;
                        }
                        Ok(input) => (input, None),
                        Err(raw) => (Value::Null, Some(raw)),
                    };
                    self.emit(SessionEvent::AgentToolUse { name, input, raw_input, vendor_call_id });
                }
            }
        }
        self.end_answered(request, answer);
        if self.session.calls.is_empty() {
            return self.end_or_retry(stop, text);
        }
        if stop == StopReason::MaxTokens {
            for call in self.session.calls.clone() {
                self.refuse_call(&call.id, "the answer was cut at the output limit, so none of its calls was run");
            }
        }
        self.start_calls();
    }

    fn is_custom(&self, name: &str) -> bool {
        self.session.spec.agent.custom_tools.iter().any(|tool| tool.name == name)
    }

    fn end_request(&mut self, request: EventId, result: RequestResult, charges: Vec<Charge>) {
        self.emit(SessionEvent::ModelRequestEnded { model_request_start_id: request, result, charges });
    }

    fn end_answered(&mut self, request: EventId, mut answer: ModelAnswer) {
        let charges = std::mem::take(&mut answer.charges);
        self.end_request(request, answered_result(answer), charges);
    }

    /// Takes the step's calls in their order: refuses those that may not run, starts those that may, and stops at the
    /// first that a person has to allow, because what is asked about is the state that the calls before it leave. Where
    /// nothing is left that could go on by itself, the session rests.
    pub(crate) fn start_calls(&mut self) {
        self.start_what_may();
        let Session { calls, request, status, .. } = &self.session;
        if *status != Status::Running || request.is_some() {
            return;
        }
        let is_still = |call: &ToolCall| {
            matches!(call.state, ToolState::Answered | ToolState::Asked | ToolState::Waiting | ToolState::AtUser)
        };
        if calls.is_empty() {
            self.advance();
        } else if calls.iter().all(is_still) {
            self.wait_for_people();
        }
    }

    /// Rests until somebody tells more of the calls that wait.
    pub(crate) fn wait_for_people(&mut self) {
        let event_ids = self.session.waiting_calls().cloned().collect();
        self.finish(IdleReason::RequiresAction { event_ids });
    }

    fn start_what_may(&mut self) {
        let mut gave_up = false;
        for call in self.session.calls.clone() {
            match call.state {
                ToolState::Answered | ToolState::Started => continue,
                ToolState::AtUser if self.session.interrupted => self.refuse_call(&call.id, INTERRUPTED),
                ToolState::AtUser => continue,
                // Nobody is asked any more, and what came after the question is not run before it.
                ToolState::Waiting | ToolState::Asked
                    if self.session.interrupted && (gave_up || call.state == ToolState::Waiting) =>
                {
                    gave_up = true;
                    self.refuse_call(&call.id, INTERRUPTED);
                }
                ToolState::Waiting => return,
                ToolState::Confirmed(_) | ToolState::Decided(Verdict::Ask) => {
                    if self.earlier_are_answered(&call.id) {
                        self.effects.push(Effect::Bind { call: call.id });
                    }
                    return;
                }
                ToolState::Decided(Verdict::Allow) => self.start(&call.id),
                ToolState::Decided(Verdict::Deny) => self.refuse_call(&call.id, "denied"),
                ToolState::Asked => {
                    if !self.judge_call(&call) {
                        return;
                    }
                }
            }
        }
    }

    /// Answers whether the calls after this one may be looked at now.
    fn judge_call(&mut self, call: &ToolCall) -> bool {
        if let Some(raw) = &call.raw_input {
            let shown: String = raw.chars().take(200).collect();
            self.refuse_call(&call.id, &format!("the arguments are not JSON, so the call was not run: {shown}"));
            return true;
        }
        let request = ToolRequest { name: call.name.clone(), input: call.input.clone() };
        let ruling = judge(&self.session.spec, &request, self.judge);
        let (verdict, refusal) = (ruling.verdict, refusal(&ruling));
        // What people say is looked at when it is the call's turn: by then somebody may have allowed more, or taken a grant back.
        if (verdict == Verdict::Ask || ruling.layer == "grant") && !self.earlier_are_answered(&call.id) {
            return false;
        }
        self.emit(SessionEvent::PolicyDecided { tool_use_id: call.id.clone(), ruling });
        match verdict {
            Verdict::Deny => self.refuse_call(&call.id, &refusal),
            Verdict::Allow => self.start(&call.id),
            Verdict::Ask if self.session.interrupted => self.refuse_call(&call.id, INTERRUPTED),
            Verdict::Ask => {
                self.effects.push(Effect::Bind { call: call.id.clone() });
                return false;
            }
        }
        true
    }

    /// Judges a call once more, and refuses it if policy forbids it by now. Nothing but a denial is news to it.
    pub(crate) fn is_forbidden_now(&mut self, call: &ToolCall) -> bool {
        let request = ToolRequest { name: call.name.clone(), input: call.input.clone() };
        let ruling = judge(&self.session.spec, &request, self.judge);
        if ruling.verdict != Verdict::Deny {
            return false;
        }
        let refusal = refusal(&ruling);
        self.emit(SessionEvent::PolicyDecided { tool_use_id: call.id.clone(), ruling });
        self.refuse_call(&call.id, &refusal);
        true
    }

    pub(crate) fn start(&mut self, id: &EventId) {
        self.emit(SessionEvent::ToolStarted { tool_use_id: id.clone() });
        let call = self.session.calls.iter().find(|call| call.id == *id).expect("a call that starts is open");
        let request = ToolRequest { name: call.name.clone(), input: call.input.clone() };
        self.effects.push(Effect::RunTool { id: id.clone(), request, started_before: false });
    }

    fn earlier_are_answered(&self, id: &EventId) -> bool {
        self.session.calls.iter().take_while(|call| call.id != *id).all(|call| call.state == ToolState::Answered)
    }

    pub(crate) fn refuse_call(&mut self, call: &EventId, why: &str) {
        self.emit(SessionEvent::AgentToolResult {
            tool_use_id: call.clone(),
            content: vec![Content::text(why)],
            is_error: true,
            exit_code: None,
            duration_ms: 0,
            full_output: None,
            changed: Vec::new(),
        });
    }

    /// After an answer without calls: the turn is over, unless the answer had to fit a schema and does not.
    fn end_or_retry(&mut self, stop: StopReason, text: Option<String>) {
        match stop {
            StopReason::MaxTokens => return self.finish(IdleReason::MaxTokens),
            StopReason::Refusal => return self.finish(IdleReason::Refusal),
            StopReason::EndTurn | StopReason::ToolUse | StopReason::Other(_) => {}
        }
        let Some(schema) = self.session.output_schema.clone() else {
            return self.finish(IdleReason::EndTurn);
        };
        let checked = match check_output(&schema, text.as_deref().unwrap_or_default()) {
            Ok(checked) => checked,
            Err(error) => {
                return self.finish(IdleReason::OutputInvalid { errors: vec![error.to_string()] });
            }
        };
        match checked {
            Ok(_) => self.finish(IdleReason::EndTurn),
            Err(errors) if self.session.output_rejections == 0 => {
                self.emit(SessionEvent::OutputRejected { errors });
                self.advance();
            }
            Err(errors) => self.finish(IdleReason::OutputInvalid { errors }),
        }
    }

    fn compacted(&mut self, request: EventId, answer: ModelAnswer) {
        let texts = answer.blocks.iter().filter_map(|block| match block {
            AnswerBlock::Text { text } => Some(text.as_str()),
            _ => None,
        });
        let summary = texts.collect::<Vec<_>>().join("\n");
        let (tokens_before, items_dropped) = (self.session.estimated_context_tokens(), self.session.items.len() as u64);
        self.end_answered(request, answer);
        if summary.trim().is_empty() {
            return self.fail(FailureKind::ContextTooLong, "the model gave no summary of a full context".to_owned());
        }
        self.emit(SessionEvent::ContextCompacted { summary, tokens_before, items_dropped });
        if compaction::is_due(&self.session) {
            return self.fail(FailureKind::ContextTooLong, "the context is full also after its summary".to_owned());
        }
        self.advance();
    }

    fn failed(&mut self, request: EventId, failure: ModelFailure) {
        let Some(open) = self.session.request.clone().filter(|open| open.id == request) else {
            return;
        };
        let ModelFailure { kind, message, status, attempts, latency_ms, queued_ms, charges, refusal, moved, .. } =
            failure;
        self.end_request(
            request,
            RequestResult::Failed {
                kind,
                message: message.clone(),
                http_status: status,
                attempts,
                latency_ms,
                queued_ms,
                moved,
            },
            charges,
        );
        if let Some(refusal) = refusal {
            return self.rest_for(refusal);
        }
        match kind {
            FailureKind::Cancelled => self.finish(IdleReason::Interrupted),
            // The vendor counts differently from us: one summary is tried before giving up.
            FailureKind::ContextTooLong if open.purpose == Purpose::Step && self.session.items.len() > 2 => {
                self.ask(Purpose::Compaction);
            }
            _ => self.fail(kind, message),
        }
    }

    fn fail(&mut self, kind: FailureKind, message: String) {
        self.emit(SessionEvent::Error { kind, message });
        self.finish(IdleReason::RetriesExhausted);
    }

    fn tool_answered(&mut self, call: &EventId, outcome: ToolOutcome, full_output: Option<BlobHash>) {
        // An answer that came twice, or after the step was given up, changes nothing.
        if !self.session.calls.iter().any(|known| known.id == *call && known.state == ToolState::Started) {
            return;
        }
        self.emit(SessionEvent::AgentToolResult {
            tool_use_id: call.clone(),
            content: vec![Content::text(outcome.text)],
            is_error: outcome.is_error,
            exit_code: outcome.exit_code,
            duration_ms: outcome.duration_ms,
            full_output,
            changed: outcome.changed,
        });
        self.start_calls();
    }

    /// Picks up a turn that another process left: an open request is asked again, started calls are looked up.
    fn recover(&mut self, lost: Vec<Charge>) {
        if self.session.status != Status::Running {
            return;
        }
        self.emit(SessionEvent::Resumed);
        if let Some(open) = self.session.request.clone() {
            self.end_request(open.id, RequestResult::Abandoned, lost);
            if self.session.interrupted {
                return self.finish(IdleReason::Interrupted);
            }
            self.ask(open.purpose);
        } else if self.session.calls.is_empty() {
            self.advance();
        } else {
            for call in self.session.calls.clone() {
                if call.state == ToolState::Started {
                    let request = ToolRequest { name: call.name, input: call.input };
                    self.effects.push(Effect::RunTool { id: call.id, request, started_before: true });
                }
            }
            self.start_calls();
        }
    }

    pub(crate) fn finish(&mut self, stop_reason: IdleReason) {
        // Whatever asked for a host has ended, or will find the door closed.
        for approval in self.session.approvals.clone() {
            if matches!(approval.subject, ApprovalSubject::Host { .. }) {
                self.emit(SessionEvent::ApprovalExpired { approval_id: approval.id });
            }
        }
        self.emit(SessionEvent::UsageReported { usage: self.session.usage });
        self.emit(SessionEvent::StatusIdle { stop_reason });
    }
}

fn answered_result(answer: ModelAnswer) -> RequestResult {
    RequestResult::Answered {
        model: answer.model,
        stop: answer.stop,
        model_usage: answer.usage,
        cost: answer.cost,
        attempts: answer.attempts,
        latency_ms: answer.latency_ms,
        first_token_ms: answer.first_token_ms,
        queued_ms: answer.queued_ms,
        losses: Vec::new(),
        answered_by: answer.answered_by,
        moved: answer.moved,
    }
}
