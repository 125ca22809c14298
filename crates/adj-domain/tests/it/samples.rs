//! One sample of each event, and of each shape that one can have.

use adj_domain::{
    AgentDefinition, Amounts, ApprovalPolicy, ApprovalResult, ApprovalSubject, BlobHash, Blueprint, Budget, Charge,
    Confinement, Content, CoreAgent, Cost, Costs, Destination, EventId, FailureKind, GateSpec, GateSubject, IdleReason,
    Micros, ModelRef, Moved, NetworkRequest, Origin, PromptPart, PromptRecord, Purpose, PurseKey, Receipt, Refusal,
    RequestResult, Reservation, Ruling, RunEvent, RunId, RunLimits, RunOutcome, RunSpec, SandboxMode, SessionEvent,
    SessionId, SessionSpec, Specialist, StepId, StepKind, StepOutcome, StopReason, Timestamp, ToolPermission, ToolSpec,
    Unit, Usage, Verdict, WorkspaceSpec,
};
use serde_json::json;

pub fn step(name: &str) -> StepId {
    name.parse().unwrap()
}

fn event_id() -> EventId {
    "sevt_1".parse().unwrap()
}

fn moment() -> Timestamp {
    "2026-01-02T03:04:05.678Z".parse().unwrap()
}

fn destination(is_full: bool) -> Destination {
    Destination {
        host: "example.org".to_owned(),
        port: 443,
        method: is_full.then(|| "GET".to_owned()),
        path: is_full.then(|| "/a".to_owned()),
    }
}

fn hash() -> BlobHash {
    BlobHash::of(b"output")
}

fn model() -> ModelRef {
    "vendor/some/model".parse().unwrap()
}

fn moved(lost: &[&str]) -> Moved {
    Moved { from: model(), to: "other/model".parse().unwrap(), why: FailureKind::Overloaded, lost: words(lost) }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn usage() -> Usage {
    Usage {
        input_tokens: 1,
        output_tokens: 2,
        cache_read_tokens: 3,
        cache_write_tokens: 4,
        cache_write_1h_tokens: 0,
        reasoning_tokens: 5,
    }
}

fn cost() -> Cost {
    Cost {
        amount: Micros(12),
        currency: "USD".parse().expect("a currency"),
        price: "a/b from 2026-01-01".to_owned(),
        is_quota: false,
    }
}

fn cost_unit() -> Unit {
    "USD".parse().unwrap()
}

fn purse() -> PurseKey {
    "run:run_1".parse().unwrap()
}

fn budget() -> Budget {
    let amount = |of| Amounts::default().with(Unit::Tokens, of);
    Budget {
        request: amount(1),
        turn: amount(2),
        session: amount(3).with("quota:EUR".parse().unwrap(), 4),
        run: Amounts::default().with(cost_unit(), 5),
        unpriced: "assume:3.00/15.00".parse().unwrap(),
    }
}

fn confinement() -> Confinement {
    Confinement {
        profile: Some("mine".to_owned()),
        network: Some(NetworkRequest { hosts: vec!["example.org:8443".parse().unwrap()], ask: true }),
        read: words(&["/opt/tool"]),
        write: words(&["/srv/cache"]),
        hidden: words(&["**/.env"]),
        readonly: words(&["docs"]),
        limits: [("memory".to_owned(), "1GiB".to_owned())].into(),
        secrets: Some(words(&["token"])),
        env: [("A".to_owned(), "b".to_owned())].into(),
    }
}

fn session_spec(workspace: WorkspaceSpec, sandbox: SandboxMode, is_full: bool) -> SessionEvent {
    let run: RunId = "run_1".parse().unwrap();
    SessionEvent::Created {
        spec: Box::new(SessionSpec {
            agent: AgentDefinition {
                name: "agent".to_owned(),
                role: "specialist".to_owned(),
                model: model(),
                effort: is_full.then(|| "high".to_owned()),
                tools: vec![ToolSpec {
                    name: "bash".to_owned(),
                    description: "runs".to_owned(),
                    input_schema: json!({"type": "object"}),
                }],
                custom_tools: Vec::from_iter(is_full.then(|| ToolSpec {
                    name: "ask_user".to_owned(),
                    description: "asks".to_owned(),
                    input_schema: json!({"type": "object"}),
                })),
                max_output_tokens: 1,
                max_steps: 2,
                context_window_tokens: 3,
                permissions: if is_full { [("bash".to_owned(), ToolPermission::AlwaysAsk)].into() } else { [].into() },
            },
            system: vec![PromptPart { name: "agent".to_owned(), version: "1".to_owned(), text: "Work.".to_owned() }],
            workspace,
            sandbox,
            confinement: if is_full { confinement() } else { Confinement::default() },
            approval: if is_full { ApprovalPolicy::Untrusted } else { ApprovalPolicy::Never },
            budget: if is_full { budget() } else { Budget::default() },
            run: is_full.then(|| (run, step("a"))),
            title: is_full.then(|| "Title".to_owned()),
            program: is_full.then(|| vec!["codex".to_owned(), "exec".to_owned()]),
        }),
    }
}

pub fn session_events() -> Vec<SessionEvent> {
    use SessionEvent::*;
    let text = || vec![Content::text("said")];
    let ended = |result| ModelRequestEnded { model_request_start_id: event_id(), result, charges: Vec::new() };
    let amounts = |tokens, money| Amounts::default().with(Unit::Tokens, tokens).with(cost_unit(), money);
    let spent = || Refusal::Spent { purse: purse(), unit: cost_unit(), limit: 9, spent: 8, needed: 7 };
    let answered = |stop, first_token_ms| {
        ended(RequestResult::Answered {
            model: "some-model-2".to_owned(),
            stop,
            model_usage: usage(),
            cost: None,
            attempts: 1,
            latency_ms: 7,
            first_token_ms,
            queued_ms: 0,
            losses: Vec::new(),
            answered_by: None,
            moved: Vec::new(),
        })
    };
    let priced = ended(RequestResult::Answered {
        model: "some-model-2".to_owned(),
        stop: StopReason::EndTurn,
        model_usage: Usage { cache_write_1h_tokens: 6, ..usage() },
        cost: Some(cost()),
        attempts: 1,
        latency_ms: 7,
        first_token_ms: None,
        queued_ms: 9,
        losses: vec!["top_k".to_owned()],
        answered_by: Some("other/model".parse().unwrap()),
        moved: vec![moved(&["2 records of reasoning", "the vendor's cache"])],
    });
    let idle = |stop_reason| StatusIdle { stop_reason };
    let direct = WorkspaceSpec::Direct { path: "/p".to_owned() };
    let private = WorkspaceSpec::Private { repository: "/r".to_owned(), commit: "c".to_owned(), name: "n".to_owned() };
    let image = Content::Image { media_type: "image/png".to_owned(), data: "AA==".to_owned() };
    vec![
        session_spec(direct.clone(), SandboxMode::ReadOnly, false),
        session_spec(direct, SandboxMode::DangerFullAccess, false),
        session_spec(private, SandboxMode::WorkspaceWrite, true),
        StatusRunning { turn: 1 },
        UserMessage { content: vec![Content::text("do it"), image], output_schema: None },
        UserMessage { content: Vec::new(), output_schema: Some(json!({"type": "integer"})) },
        priced,
        UserInterrupt,
        ModelRequestStarted {
            turn: 1,
            step: 0,
            purpose: Purpose::Step,
            model: model(),
            prompt: PromptRecord { hash: hash(), items: 1, estimated_tokens: 2 },
            origin: None,
            hold: None,
        },
        ModelRequestStarted {
            turn: 1,
            step: 1,
            purpose: Purpose::Compaction,
            model: model(),
            prompt: PromptRecord { hash: hash(), items: 1, estimated_tokens: 2 },
            origin: None,
            hold: None,
        },
        ModelRequestStarted {
            turn: 1,
            step: 2,
            purpose: Purpose::Step,
            model: model(),
            prompt: PromptRecord { hash: hash(), items: 0, estimated_tokens: 2 },
            hold: None,
            origin: Some(Box::new(Origin {
                wire: "messages".to_owned(),
                asked_model: "big".to_owned(),
                request_bytes: 9,
                ..Origin::default()
            })),
        },
        ModelRequestStarted {
            turn: 1,
            step: 3,
            purpose: Purpose::Step,
            model: model(),
            prompt: PromptRecord { hash: hash(), items: 0, estimated_tokens: 2 },
            hold: None,
            origin: Some(Box::new(Origin {
                wire: "responses".to_owned(),
                asked_model: "big".to_owned(),
                request_bytes: 9,
                converted: true,
                counts_only: true,
                session: Some("s".to_owned()),
                thread: Some("t".to_owned()),
                parent_thread: Some("p".to_owned()),
                subagent: Some("review".to_owned()),
                agent: Some("/root/a".to_owned()),
                turn: Some("7".to_owned()),
                request_kind: Some("turn".to_owned()),
                retries: 2,
            })),
        },
        ProgramEnded { code: 1 },
        answered(StopReason::EndTurn, None),
        answered(StopReason::ToolUse, Some(3)),
        answered(StopReason::MaxTokens, None),
        answered(StopReason::Refusal, None),
        answered(StopReason::Other("pause".to_owned()), None),
        ended(RequestResult::Failed {
            kind: FailureKind::RateLimit,
            message: "slow down".to_owned(),
            http_status: Some(429),
            attempts: 5,
            latency_ms: 9,
            queued_ms: 0,
            moved: Vec::new(),
        }),
        ended(RequestResult::Failed {
            kind: FailureKind::Billing,
            message: "pay".to_owned(),
            http_status: Some(402),
            attempts: 2,
            latency_ms: 9,
            queued_ms: 0,
            moved: vec![moved(&[])],
        }),
        ended(RequestResult::Abandoned),
        ended(RequestResult::Refused { refusal: spent() }),
        ModelRequestEnded {
            model_request_start_id: event_id(),
            result: RequestResult::Abandoned,
            charges: vec![Charge::exactly(amounts(1, 2)), Charge { at_least: amounts(1, 2), at_most: amounts(3, 4) }],
        },
        ModelRequestStarted {
            turn: 1,
            step: 1,
            purpose: Purpose::Step,
            model: model(),
            prompt: PromptRecord { hash: hash(), items: 1, estimated_tokens: 2 },
            origin: None,
            hold: Some(Reservation {
                day: "2026-01-02".parse().unwrap(),
                amounts: amounts(5, 6),
                max_output_tokens: Some(2_000),
            }),
        },
        BudgetReached { refusal: spent() },
        BudgetReached {
            refusal: Refusal::Held { purse: purse(), unit: Unit::Tokens, limit: 9, spent: 1, held: 7, needed: 2 },
        },
        BudgetReached { refusal: Refusal::NoPrice { purse: purse(), unit: cost_unit(), model: "a/b".to_owned() } },
        BudgetReached { refusal: Refusal::Unboundable { purse: purse(), field: "a document".to_owned() } },
        AgentMessage { content: text() },
        AgentThinking { vendor: "vendor".to_owned(), model: "m".to_owned(), payload: json!({"signature": "x"}) },
        AgentToolUse {
            name: "bash".to_owned(),
            input: json!({"z": 1, "a": 2}),
            raw_input: None,
            vendor_call_id: "call_1".to_owned(),
        },
        AgentToolUse {
            name: "bash".to_owned(),
            input: json!(null),
            raw_input: Some("{".to_owned()),
            vendor_call_id: "call_2".to_owned(),
        },
        CustomToolUse {
            name: "ask_user".to_owned(),
            input: json!({"question": "why?"}),
            vendor_call_id: "call_3".to_owned(),
        },
        CustomToolResult { custom_tool_use_id: event_id(), content: text(), is_error: false },
        ResultRefused { custom_tool_use_id: event_id(), why: "it has one".to_owned() },
        PolicyDecided { tool_use_id: event_id(), ruling: Ruling::new(Verdict::Allow, "agent", "all") },
        PolicyDecided {
            tool_use_id: event_id(),
            ruling: Ruling {
                file: Some("/etc/x.rules".to_owned()),
                line: Some(7),
                justification: Some("because".to_owned()),
                ..Ruling::new(Verdict::Deny, "administrator", "none")
            },
        },
        ApprovalRequested {
            subject: ApprovalSubject::Tool { tool_use_id: event_id(), binding: hash() },
            expires_at: moment(),
            again: Some("changed".to_owned()),
        },
        ApprovalRequested {
            subject: ApprovalSubject::Host { to: destination(false) },
            expires_at: moment(),
            again: None,
        },
        ToolConfirmed {
            tool_use_id: event_id(),
            result: ApprovalResult::Deny,
            deny_message: Some("no".to_owned()),
            by: "me".to_owned(),
        },
        ToolConfirmed {
            tool_use_id: event_id(),
            result: ApprovalResult::Allow,
            deny_message: None,
            by: "me".to_owned(),
        },
        HostConfirmed { approval_id: event_id(), result: ApprovalResult::Allow, by: "me".to_owned() },
        ApprovalExpired { approval_id: event_id() },
        AnswerRefused { approval_id: event_id(), by: "me".to_owned(), why: "late".to_owned() },
        NetworkDecided {
            to: destination(true),
            protocol: "tls".to_owned(),
            ruling: Ruling::new(Verdict::Allow, "call", "example.org"),
            address: Some("192.0.2.1".to_owned()),
            secrets: words(&["token"]),
        },
        ToolStarted { tool_use_id: event_id() },
        AgentToolResult {
            tool_use_id: event_id(),
            content: text(),
            is_error: true,
            exit_code: None,
            duration_ms: 0,
            full_output: None,
            changed: Vec::new(),
        },
        AgentToolResult {
            tool_use_id: event_id(),
            content: text(),
            is_error: false,
            exit_code: Some(0),
            duration_ms: 8,
            full_output: Some(hash()),
            changed: words(&["a.txt"]),
        },
        OutputRejected { errors: words(&["at /: wrong"]) },
        ContextCompacted { summary: "short".to_owned(), tokens_before: 9, items_dropped: 3 },
        Error { kind: FailureKind::Server, message: "broken".to_owned() },
        UsageReported { usage: usage() },
        idle(IdleReason::EndTurn),
        idle(IdleReason::Interrupted),
        idle(IdleReason::RetriesExhausted),
        idle(IdleReason::Refusal),
        idle(IdleReason::MaxTokens),
        idle(IdleReason::StepLimit),
        idle(IdleReason::RequiresAction { event_ids: vec![event_id()] }),
        idle(IdleReason::BudgetReached { purse: purse() }),
        idle(IdleReason::OutputInvalid { errors: words(&["at /: wrong"]) }),
        Resumed,
    ]
}

fn run_spec(is_full: bool) -> RunEvent {
    let core = CoreAgent {
        step: step("builder"),
        role: "builder".to_owned(),
        plan_prompt: "{prompt}".to_owned(),
        follow_up_prompt: is_full.then(|| "more".to_owned()),
        schema: is_full.then(|| json!({"type": "object"})),
        depends_on: if is_full { vec![step("planner")] } else { Vec::new() },
        model: is_full.then(model),
    };
    RunEvent::Created {
        spec: Box::new(RunSpec {
            prompt: "do it".to_owned(),
            started_at: "2026-01-02T03:04:05.678Z".parse().unwrap(),
            repository: "/r".to_owned(),
            base: "b".to_owned(),
            target_branch: "main".to_owned(),
            target_commit: "t".to_owned(),
            dirty_snapshot: is_full.then(|| "refs/x".to_owned()),
            gate: is_full.then(|| GateSpec { command: "make test".to_owned(), timeout_seconds: 60 }),
            core: vec![core],
            limits: RunLimits::default(),
            model: model(),
            effort: is_full.then(|| "low".to_owned()),
            sandbox: SandboxMode::WorkspaceWrite,
            confinement: if is_full { confinement() } else { Confinement::default() },
            approval: ApprovalPolicy::Untrusted,
            budget: if is_full { budget() } else { Budget::default() },
        }),
    }
}

pub fn run_events() -> Vec<RunEvent> {
    use RunEvent::*;
    let session = || SessionId::derive(&["session"]);
    let started = |kind| TurnStarted { step: step("a"), kind, session: session() };
    let finished = |outcome| TurnFinished {
        step: step("a"),
        kind: StepKind::Plan,
        outcome,
        usage: usage(),
        costs: Costs::default(),
    };
    let mut costs = Costs { unpriced: 1, ..Costs::default() };
    costs.add(Some(&cost()));
    let priced = TurnFinished {
        step: step("a"),
        kind: StepKind::Repair,
        outcome: StepOutcome::Completed { output: "done".to_owned() },
        usage: usage(),
        costs,
    };
    let committed = |changed: &[&str], more_changed| ResultCommitted {
        step: step("a"),
        attempt: 1,
        commit: "c".to_owned(),
        tree: "t".to_owned(),
        ref_name: "refs/a".to_owned(),
        changed: words(changed),
        more_changed,
    };
    let of_step = || GateSubject::Step { step: step("a"), attempt: 2 };
    let gate_finished = |subject, exit_code| GateFinished {
        subject,
        receipt: Receipt {
            tree: "t".to_owned(),
            command: "make test".to_owned(),
            exit_code,
            passed: exit_code == Some(0),
            duration_ms: 5,
            output: hash(),
            tail: "ok".to_owned(),
        },
    };
    let specialist = |id: &str, on: &[&str], check: Option<&str>| Specialist {
        id: step(id),
        title: "t".to_owned(),
        task: "w".to_owned(),
        depends_on: on.iter().map(|on| step(on)).collect(),
        check: check.map(str::to_owned),
    };
    let end = |outcome| Finished { outcome };
    vec![
        run_spec(false),
        run_spec(true),
        started(StepKind::Plan),
        started(StepKind::FollowUp),
        started(StepKind::Repair),
        started(StepKind::Build(2)),
        priced,
        finished(StepOutcome::Completed { output: "done".to_owned() }),
        finished(StepOutcome::Failed { why: "broken".to_owned() }),
        HandedOff { from: step("a"), to: step("b"), hash: hash(), bytes: 6 },
        BlueprintAccepted {
            blueprint: Blueprint::new("s", vec![specialist("b", &["a"], Some("make b")), specialist("a", &[], None)])
                .unwrap(),
        },
        BlueprintRejected { errors: words(&["wrong"]) },
        BasePrepared { step: step("b"), commit: "c".to_owned() },
        committed(&["a.txt"], 0),
        committed(&[], 3),
        GateStarted { subject: of_step(), commit: "c".to_owned(), command: "make test".to_owned() },
        GateStarted { subject: GateSubject::Combined, commit: "c".to_owned(), command: "make test".to_owned() },
        gate_finished(of_step(), Some(0)),
        gate_finished(GateSubject::Combined, None),
        Merged { step: step("a"), commit: "c".to_owned(), tree: "t".to_owned() },
        MergeConflicted { step: step("a"), paths: words(&["a.txt"]) },
        WorkKept { branch: "adjutant/1/a".to_owned(), commit: "c".to_owned() },
        WorkspaceRemoved {
            step: step("a"),
            commit: "c".to_owned(),
            reference: Some("refs/adjutant/removed/a/c".to_owned()),
        },
        LandingStarted { branch: "main".to_owned(), from: "b".to_owned(), to: "c".to_owned() },
        Landed { branch: "main".to_owned(), from: "b".to_owned(), to: "c".to_owned() },
        LandingRefused { why: "moved".to_owned() },
        Paused { purse: purse() },
        Interrupted,
        Resumed,
        end(RunOutcome::Landed { branch: "main".to_owned(), commit: "c".to_owned() }),
        end(RunOutcome::GateFailed { subject: GateSubject::Combined }),
        end(RunOutcome::Conflicted { step: step("a"), paths: words(&["a.txt"]) }),
        end(RunOutcome::BlueprintInvalid { errors: words(&["wrong"]) }),
        end(RunOutcome::StepFailed { step: step("a"), why: "broken".to_owned() }),
        end(RunOutcome::NotLanded { why: "moved".to_owned() }),
    ]
}
