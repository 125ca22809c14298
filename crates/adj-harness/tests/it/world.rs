//! A session with everything outside it played by hand.

use adj_domain::{
    AgentDefinition, AnswerBlock, ApprovalPolicy, ApprovalResult, BlobHash, Confinement, Confirmation, Content,
    EventId, FailureKind, ModelAnswer, ModelFailure, PendingInput, PromptPart, Refusal, Ruling, SandboxMode, Session,
    SessionEvent, SessionId, SessionSpec, StopReason, Timestamp, ToolOutcome, ToolRequest, ToolSpec, Usage, Verdict,
    WorkspaceSpec, event::Input as Queued,
};
use adj_harness::{Effect, Input, by_sandbox, decide};
use serde_json::{Value, json};
use std::collections::BTreeMap;

pub struct World {
    pub session: Option<Session>,
    pub events: Vec<(EventId, SessionEvent)>,
    pub pending: Vec<PendingInput>,
    pub effects: Vec<Effect>,
    /// Stands for the workspace's tree and the policy.
    pub surroundings: u32,
    /// What policy says of calls that ask: an allowance is a grant's.
    pub verdict: Verdict,
    /// The budget for which the next answer was made shorter.
    pub shortened: Option<Refusal>,
    messages: u32,
}

pub fn spec() -> SessionSpec {
    let tool = |name: &str| ToolSpec {
        name: name.to_owned(),
        description: String::new(),
        input_schema: json!({"type": "object"}),
    };
    SessionSpec {
        agent: AgentDefinition {
            name: "agent".to_owned(),
            role: "agent".to_owned(),
            model: "scripted/test".parse().unwrap(),
            effort: None,
            tools: vec![tool("bash"), tool("write")],
            custom_tools: vec![tool("ask_user")],
            max_output_tokens: 100,
            max_steps: 20,
            context_window_tokens: 100_000,
            permissions: BTreeMap::new(),
        },
        system: vec![PromptPart { name: "agent".to_owned(), version: "1".to_owned(), text: "You work.".to_owned() }],
        workspace: WorkspaceSpec::Direct { path: "/tmp/x".to_owned() },
        sandbox: SandboxMode::WorkspaceWrite,
        confinement: Confinement::default(),
        approval: ApprovalPolicy::OnRequest,
        budget: Default::default(),
        run: None,
        title: None,
        program: None,
    }
}

impl World {
    pub fn new(spec: SessionSpec) -> Self {
        let id: SessionId = "sesn_test".parse().unwrap();
        let created = SessionEvent::Created { spec: Box::new(spec.clone()) };
        Self {
            session: Some(Session::created(id, spec)),
            events: vec![("sevt_first".parse().unwrap(), created)],
            pending: Vec::new(),
            effects: Vec::new(),
            surroundings: 0,
            verdict: Verdict::Ask,
            shortened: None,
            messages: 0,
        }
    }

    pub fn session(&self) -> &Session {
        self.session.as_ref().unwrap()
    }

    pub fn queue(&mut self, text: &str, output_schema: Option<Value>) {
        self.messages += 1;
        let id = EventId::derive(&["message", &self.messages.to_string()]);
        let input = Queued::Message { content: vec![Content::text(text)], output_schema };
        self.pending.push(PendingInput { id, input });
    }

    /// Gives one input to the loop, remembers what it decides, and checks what must hold after each step.
    pub fn give(&mut self, input: Input) {
        let before = self.session.take().unwrap();
        let spec = before.spec.clone();
        let verdict = self.verdict;
        let judge = |call: &ToolRequest| match call.input["ask"] == true {
            true => {
                let layer = if verdict == Verdict::Allow { "grant" } else { "call" };
                Ruling::new(verdict, layer, "the test says so")
            }
            false => by_sandbox(&spec, call),
        };
        let decision = decide(before.clone(), &self.pending, &judge, input);
        let mut replayed = before;
        for (id, event) in &decision.events {
            replayed.apply(id, event).expect("the loop decides only legal events");
        }
        assert_eq!(replayed, decision.session, "the live state is the folded state");
        for id in &decision.takes {
            assert!(decision.events.iter().any(|(event, _)| event == id), "what is taken up is in the log");
        }
        self.pending.retain(|input| !decision.takes.contains(&input.id));
        self.events.extend(decision.events);
        self.effects.extend(decision.effects);
        self.session = Some(decision.session);
    }

    /// The names of everything that happened, without the first event.
    pub fn story(&self) -> String {
        self.events.iter().skip(1).map(|(_, event)| event.name()).collect::<Vec<_>>().join(" ")
    }

    pub fn answer(&mut self, blocks: Vec<AnswerBlock>, stop: StopReason) {
        let id = self.take_model_call();
        let usage = Usage { input_tokens: 10, output_tokens: 5, ..Usage::default() };
        let answer = ModelAnswer {
            model: "test".to_owned(),
            blocks,
            stop,
            usage,
            cost: None,
            attempts: 1,
            first_token_ms: None,
            latency_ms: 1,
            queued_ms: 0,
            charges: Vec::new(),
            answered_by: None,
            moved: Vec::new(),
        };
        let shortened = self.shortened.take();
        self.give(Input::Answered { request: id, answer, shortened });
    }

    pub fn say(&mut self, text: &str) {
        self.answer(vec![AnswerBlock::Text { text: text.to_owned() }], StopReason::EndTurn);
    }

    pub fn fail(&mut self, kind: FailureKind) {
        let request = self.take_model_call();
        let failure = ModelFailure {
            kind,
            message: "the vendor's words".to_owned(),
            status: None,
            retry_after_ms: None,
            attempts: 5,
            latency_ms: 1,
            queued_ms: 0,
            charges: Vec::new(),
            refusal: None,
            moved: Vec::new(),
        };
        self.give(Input::Failed { request, failure });
    }

    pub fn finish_tool(&mut self, text: &str) {
        let place =
            self.effects.iter().position(|effect| matches!(effect, Effect::RunTool { .. })).expect("a tool runs");
        let Effect::RunTool { id, .. } = self.effects.remove(place) else { unreachable!() };
        let outcome = ToolOutcome { text: text.to_owned(), exit_code: Some(0), ..ToolOutcome::default() };
        self.give(Input::ToolAnswered { call: id, outcome, full_output: None });
    }

    /// Answers the question for what a call is bound to.
    pub fn bind(&mut self) {
        let place = self.effects.iter().position(|effect| matches!(effect, Effect::Bind { .. })).expect("a call binds");
        let Effect::Bind { call } = self.effects.remove(place) else { unreachable!() };
        let binding = self.binding(&call);
        self.give(Input::Bound { call, binding, expires_at: Timestamp::from_second(1_000).unwrap() });
    }

    /// What a call is bound to now.
    pub fn binding(&self, call: &EventId) -> BlobHash {
        BlobHash::of(format!("{call} {}", self.surroundings).as_bytes())
    }

    /// Queues an answer under an id of its own, whoever gave it to whatever.
    pub fn forge(&mut self, answer: Confirmation) {
        self.put(Queued::Confirmation(answer));
    }

    /// Queues this, under an id of its own.
    pub fn put(&mut self, input: Queued) {
        self.messages += 1;
        let id = EventId::derive(&["put", &self.messages.to_string()]);
        self.pending.push(PendingInput { id, input });
    }

    /// Queues an answer to the oldest open question, as somebody who sees it would give it.
    pub fn confirm(&mut self, result: ApprovalResult) {
        let Some(open) = self.session().approvals.first().cloned() else { return };
        let answer = Confirmation {
            approval_id: open.id.clone(),
            binding: open.binding().cloned(),
            result,
            deny_message: None,
            by: "somebody".to_owned(),
        };
        self.put(Queued::Confirmation(answer));
    }

    fn take_model_call(&mut self) -> EventId {
        let place = self
            .effects
            .iter()
            .position(|effect| matches!(effect, Effect::CallModel { .. }))
            .expect("a model is called");
        let Effect::CallModel { id, .. } = self.effects.remove(place) else { unreachable!() };
        id
    }

    pub fn model_calls(&self) -> usize {
        self.effects.iter().filter(|effect| matches!(effect, Effect::CallModel { .. })).count()
    }
}

pub fn call(name: &str, input: Value) -> AnswerBlock {
    AnswerBlock::ToolCall { vendor_call_id: "call_1".to_owned(), name: name.to_owned(), input: Ok(input) }
}
