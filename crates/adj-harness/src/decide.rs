//! The native loop: from what just happened to what is remembered and what is done next.

use crate::{
    compaction,
    output::check_output,
    policy::judge,
    request::{build_request, prompt_record},
};
use adj_domain::{
    AnswerBlock, BlobHash, Content, EventId, FailureKind, IdleReason, ModelAnswer, ModelFailure, ModelRequest,
    PendingInput, Purpose, RequestResult, Session, SessionEvent, Status, StopReason, ToolOutcome, ToolRequest,
    ToolState, Verdict, event::Input as Queued,
};
use serde_json::Value;

/// What just happened to a session.
#[derive(Debug)]
pub enum Input {
    /// There may be something in the queue.
    Wake,
    /// A new holder took the session over and has folded its log.
    Recovered,
    /// Somebody wants the turn to end after the step it is in.
    Interrupt,
    Answered {
        request: EventId,
        answer: ModelAnswer,
    },
    Failed {
        request: EventId,
        failure: ModelFailure,
    },
    ToolAnswered {
        call: EventId,
        outcome: ToolOutcome,
        full_output: Option<BlobHash>,
    },
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
pub fn decide(session: Session, pending: &[PendingInput], input: Input) -> Decision {
    let mut draft = Draft { session, pending, events: Vec::new(), takes: Vec::new(), effects: Vec::new() };
    match input {
        Input::Wake => {
            if draft.session.is_idle() && !pending.is_empty() {
                draft.begin_turn();
            }
        }
        Input::Recovered => draft.recover(),
        Input::Interrupt => {
            if !draft.session.is_idle() && !draft.session.interrupted {
                draft.emit(SessionEvent::UserInterrupt);
            }
        }
        Input::Answered { request, answer } => draft.answered(request, answer),
        Input::Failed { request, failure } => draft.failed(request, failure),
        Input::ToolAnswered { call, outcome, full_output } => draft.tool_answered(&call, outcome, full_output),
    }
    Decision { session: draft.session, events: draft.events, takes: draft.takes, effects: draft.effects }
}

struct Draft<'a> {
    session: Session,
    pending: &'a [PendingInput],
    events: Vec<(EventId, SessionEvent)>,
    takes: Vec<EventId>,
    effects: Vec<Effect>,
}

impl Draft<'_> {
    fn emit(&mut self, event: SessionEvent) -> EventId {
        let seq = self.session.head + 1;
        let id = EventId::derive(&[self.session.id.as_str(), &seq.to_string()]);
        self.emit_as(id.clone(), event);
        id
    }

    fn emit_as(&mut self, id: EventId, event: SessionEvent) {
        self.session.apply(&id, &event).expect("the loop decides only what the session's rules allow");
        self.events.push((id, event));
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
            if !self.takes.contains(&input.id) {
                let Queued::Message { content, output_schema } = input.input.clone();
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
        });
        self.effects.push(Effect::CallModel { id, request: Box::new(request) });
    }

    fn answered(&mut self, request: EventId, answer: ModelAnswer) {
        let Some(open) = self.session.request.clone().filter(|open| open.id == request) else {
            return;
        };
        if open.purpose == Purpose::Compaction {
            return self.compacted(request, answer);
        }
        let vendor = self.session.spec.agent.model.vendor.clone();
        let stop = answer.stop.clone();
        let mut text = None;
        for block in &answer.blocks {
            match block.clone() {
                AnswerBlock::Text { text: said } => {
                    text = Some(said.clone());
                    self.emit(SessionEvent::AgentMessage { content: vec![Content::text(said)] });
                }
                AnswerBlock::Reasoning { payload } => {
                    let (vendor, model) = (vendor.clone(), self.session.spec.agent.model.name.clone());
                    self.emit(SessionEvent::AgentThinking { vendor, model, payload });
                }
                AnswerBlock::ToolCall { vendor_call_id, name, input } => {
                    let (input, raw_input) = match input {
                        Ok(input) => (input, None),
                        Err(raw) => (Value::Null, Some(raw)),
                    };
                    self.emit(SessionEvent::AgentToolUse { name, input, raw_input, vendor_call_id });
                }
            }
        }
        self.end_request(request, answered_result(answer));
        if self.session.calls.is_empty() { self.end_or_retry(stop, text) } else { self.start_calls(&stop) }
    }

    fn end_request(&mut self, request: EventId, result: RequestResult) {
        self.emit(SessionEvent::ModelRequestEnded { model_request_start_id: request, result });
    }

    /// Judges every call of the answer and starts those that may run.
    fn start_calls(&mut self, stop: &StopReason) {
        for call in self.session.calls.clone() {
            if *stop == StopReason::MaxTokens {
                self.refuse_call(&call.id, "the answer was cut at the output limit, so none of its calls was run");
                continue;
            }
            if let Some(raw) = &call.raw_input {
                let shown: String = raw.chars().take(200).collect();
                self.refuse_call(&call.id, &format!("the arguments are not JSON, so the call was not run: {shown}"));
                continue;
            }
            let judgement = judge(&self.session.spec, &call.name);
            let refused = (judgement.verdict == Verdict::Deny).then(|| judgement.rule.clone());
            self.emit(SessionEvent::PolicyDecided {
                tool_use_id: call.id.clone(),
                verdict: judgement.verdict,
                layer: judgement.layer.to_owned(),
                rule: judgement.rule,
            });
            if let Some(rule) = refused {
                self.refuse_call(&call.id, &format!("not allowed: {rule}"));
                continue;
            }
            self.emit(SessionEvent::ToolStarted { tool_use_id: call.id.clone() });
            let request = ToolRequest { name: call.name, input: call.input };
            self.effects.push(Effect::RunTool { id: call.id, request, started_before: false });
        }
        if self.session.calls.is_empty() {
            self.advance();
        }
    }

    fn refuse_call(&mut self, call: &EventId, why: &str) {
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
        self.end_request(request, answered_result(answer));
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
        let ModelFailure { kind, message, status, attempts, latency_ms, .. } = failure;
        self.end_request(
            request,
            RequestResult::Failed { kind, message: message.clone(), http_status: status, attempts, latency_ms },
        );
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
        if self.session.calls.is_empty() {
            self.advance();
        }
    }

    /// Picks up a turn that another process left: an open request is asked again, started calls are looked up.
    fn recover(&mut self) {
        if self.session.status != Status::Running {
            return;
        }
        self.emit(SessionEvent::Resumed);
        if let Some(open) = self.session.request.clone() {
            self.end_request(open.id, RequestResult::Abandoned);
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
        }
    }

    fn finish(&mut self, stop_reason: IdleReason) {
        self.emit(SessionEvent::UsageReported { usage: self.session.usage });
        self.emit(SessionEvent::StatusIdle { stop_reason });
    }
}

fn answered_result(answer: ModelAnswer) -> RequestResult {
    RequestResult::Answered {
        model: answer.model,
        stop: answer.stop,
        model_usage: answer.usage,
        attempts: answer.attempts,
        latency_ms: answer.latency_ms,
        first_token_ms: answer.first_token_ms,
    }
}
