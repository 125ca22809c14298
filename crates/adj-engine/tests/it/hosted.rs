//! A session whose agent is another program.

use crate::world::{World, check_folds};
use adj_domain::{
    Amounts, BlobHash, Budget, Cost, EventId, FailureKind, IdleReason, Micros, PurseKey, RequestResult, Session,
    SessionEvent, Status, StopReason, Usage,
};
use adj_engine::{Engine, EngineError, Hosted, Interrupt, NewProgram};
use adj_gateway::endpoint::{Asks, Attribution, Closing, Meter, Opening, Operation, Outcome, RefusalKind, Wire};
use std::{sync::Arc, time::Duration};

async fn hosted(world: &World, engine: &Engine) -> Hosted {
    let new = NewProgram {
        name: "codex".to_owned(),
        argv: vec!["codex".to_owned(), "exec".to_owned()],
        model: "vendor/own".parse().unwrap(),
        folder: world.work_dir().to_str().unwrap().to_owned(),
        title: None,
        budget: Default::default(),
    };
    engine.create_hosted(&world.id, new).await.unwrap();
    engine.host(&world.id).await.unwrap()
}

fn opening(world: &World, name: &str) -> Opening {
    Opening {
        request: EventId::derive(&[name]),
        session: world.id.clone(),
        wire: Wire::Responses,
        operation: Operation::Generate,
        asked_model: "big".to_owned(),
        model: "vendor/own".parse().unwrap(),
        attribution: Attribution { agent: Some(name.to_owned()), ..Attribution::default() },
        request_bytes: 40,
        body_hash: BlobHash::of(b"body"),
        asks: Asks::new(br#"{"max_output_tokens":1000,"input":"hi"}"#.as_slice().into()),
        converted: true,
    }
}

fn closing(world: &World, name: &str, outcome: Outcome) -> Closing {
    let usage = Usage { input_tokens: 10, output_tokens: 1, ..Usage::default() };
    Closing {
        request: EventId::derive(&[name]),
        session: world.id.clone(),
        outcome,
        status: Some(200),
        usage: Some(usage),
        cost: Some(Cost {
            amount: Micros(7),
            currency: "USD".parse().unwrap(),
            price: "vendor/own".to_owned(),
            is_quota: false,
        }),
        stop: Some(StopReason::EndTurn),
        model_answered: Some("own-2".to_owned()),
        vendor_request: None,
        latency: Duration::from_millis(9),
        queued: Duration::ZERO,
        first_byte: None,
        first_token: Some(Duration::from_millis(3)),
        retries: 1,
        unsettled: 0,
        answered_by: None,
        moved: Vec::new(),
        answer_bytes: 5,
        losses: vec!["top_k".to_owned()],
    }
}

#[tokio::test]
async fn requests_overlap_and_each_is_written_down_before_it_leaves_and_when_it_is_over() {
    let world = World::new();
    let engine = world.engine("  - say: never asked");
    let program = hosted(&world, &engine).await;
    let teller = program.teller();
    for name in ["one", "two", "three"] {
        teller.open(opening(&world, name)).await.unwrap();
        // Once it may leave, it is in the log.
        assert!(engine.session(&world.id).await.unwrap().program_requests.contains(&EventId::derive(&[name])));
    }
    let failed = Outcome::Failed { kind: FailureKind::Server, message: "broken".to_owned() };
    teller.close(closing(&world, "two", Outcome::Answered));
    teller.close(closing(&world, "one", failed));
    let session = program.end(3).await.unwrap();
    assert_eq!(session.status, Status::Idle { reason: Some(IdleReason::EndTurn) });
    assert_eq!((session.model_requests, session.usage.context_tokens(), session.usage.output_tokens), (3, 10, 1));
    let events = engine.events(&world.log()).await.unwrap();
    assert_eq!(check_folds(&world.id, &events), session);
    let told = "session.status_running span.model_request_start span.model_request_start span.model_request_start \
                span.model_request_end span.model_request_end span.model_request_end agent.program_ended session.usage \
                session.status_idle";
    assert_eq!(world.story(&engine).await, told);
    let results: Vec<_> = results(&world, &engine).await;
    assert!(
        matches!(&results[0], RequestResult::Answered { model, attempts: 2, cost: Some(_), losses, .. }
            if model == "own-2" && losses == &["top_k"]),
        "{results:?}"
    );
    assert!(matches!(results[1..], [RequestResult::Failed { .. }, RequestResult::Abandoned]), "{results:?}");

    // What ends afterwards changes nothing, and nothing new begins.
    teller.close(closing(&world, "three", Outcome::Answered));
    let refusal = teller.open(opening(&world, "four")).await.unwrap_err();
    assert!(refusal.message.contains("has ended"), "{}", refusal.message);
    assert_eq!(engine.session(&world.id).await.unwrap(), session);
}

#[tokio::test]
async fn an_end_is_written_together_with_the_next_beginning_or_soon_without_one() {
    let world = World::new();
    let engine = world.engine("  - say: never asked");
    let program = hosted(&world, &engine).await;
    let teller = program.teller();
    teller.open(opening(&world, "one")).await.unwrap();
    teller.close(closing(&world, "one", Outcome::Answered));
    teller.open(opening(&world, "two")).await.unwrap();
    let session = engine.session(&world.id).await.unwrap();
    assert_eq!(session.program_requests, [EventId::derive(&["two"])].into());
    teller.close(closing(&world, "two", Outcome::Answered));
    let written = async {
        while !engine.session(&world.id).await.unwrap().program_requests.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), written).await.expect("it is written without another");
    program.end(0).await.unwrap();
}

#[tokio::test]
async fn what_a_dead_process_left_open_is_given_up_and_the_next_turn_begins() {
    let mut world = World::new();
    let engine = world.engine("  - say: never asked");
    let program = hosted(&world, &engine).await;
    let teller = program.teller();
    for name in ["one", "two"] {
        teller.open(opening(&world, name)).await.unwrap();
    }
    teller.close(closing(&world, "one", Outcome::Answered));
    teller.open(opening(&world, "three")).await.unwrap();
    drop((program, teller, engine));
    world.next_process();
    let engine = world.engine_on(Arc::new(world.memory.clone()), "node_2", "  - say: never asked");
    // The writer of the process before is gone a moment after everybody who could tell it anything.
    let program = loop {
        match engine.host(&world.id).await {
            Err(EngineError::Claim { .. }) => tokio::task::yield_now().await,
            hosted => break hosted.unwrap(),
        }
    };
    let session = engine.session(&world.id).await.unwrap();
    assert_eq!((session.turn, session.status.clone(), session.model_requests), (2, Status::Running, 3));
    assert_eq!(session.usage.output_tokens, 1);
    assert!(session.program_requests.is_empty());
    let told = world.story(&engine).await;
    let resumed = told.split_once("session.resumed").unwrap().1;
    let expected =
        " span.model_request_end span.model_request_end session.usage session.status_idle session.status_running";
    assert_eq!(resumed, expected);
    let session: Session = program.end(0).await.unwrap();
    assert_eq!(check_folds(&world.id, &engine.events(&world.log()).await.unwrap()), session);
}

#[tokio::test]
async fn neither_kind_of_session_is_taken_for_the_other() {
    let world = World::new();
    let engine = world.engine("  - say: never asked");
    hosted(&world, &engine).await.end(0).await.unwrap();
    let worked = engine.work(&world.id, &Interrupt::new()).await;
    assert!(matches!(worked, Err(EngineError::IsHosted(_))), "{worked:?}");
    let world = World::new();
    let engine = world.engine("  - say: done");
    world.begin(&engine).await;
    let hosted = engine.host(&world.id).await;
    assert!(matches!(hosted, Err(EngineError::NotHosted(_))), "{hosted:?}");
    // It was given back: its own loop goes on.
    assert_eq!(world.work(&engine).await.unwrap().last_message.as_deref(), Some("done"));
    engine.close_all().await.unwrap();
}

async fn results(world: &World, engine: &Engine) -> Vec<RequestResult> {
    let ended = world.events(engine).await.into_iter().filter_map(|event| match event {
        SessionEvent::ModelRequestEnded { result, .. } => Some(result),
        _ => None,
    });
    ended.collect()
}

#[tokio::test]
async fn a_programs_requests_are_held_to_its_budget() {
    let mut world = World::new();
    world.prices = "[[model]]\nmatch = \"vendor/own\"\ncontext = 200000\nrates = { input = \"0\", output = \"10\" }";
    let engine = world.engine("  - say: never");
    let new = NewProgram {
        name: "codex".to_owned(),
        argv: vec!["codex".to_owned()],
        model: "vendor/own".parse().unwrap(),
        folder: world.work_dir().to_str().unwrap().to_owned(),
        title: None,
        budget: Budget {
            session: "USD".parse().map(|usd| Amounts::default().with(usd, 10_500)).unwrap(),
            ..Budget::default()
        },
    };
    engine.create_hosted(&world.id, new).await.unwrap();
    let hosted = engine.host(&world.id).await.unwrap();
    let teller = hosted.teller();
    // The answer may have 1,000 tokens, which is a cent; what is left then is too little for another.
    teller.open(opening(&world, "a")).await.unwrap();
    let second = tokio::spawn({
        let (teller, asking) = (teller.clone(), opening(&world, "b"));
        async move { teller.open(asking).await }
    });
    // It waits for the first, whose answer was short: then it fits.
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert!(!second.is_finished());
    teller.close(closing(&world, "a", Outcome::Answered));
    second.await.unwrap().unwrap();
    teller.close(Closing { usage: None, unsettled: 1, ..closing(&world, "b", Outcome::Abandoned) });
    // Of the second nobody knows what it has cost.
    let refused = teller.open(opening(&world, "c")).await.unwrap_err();
    assert!(refused.message.contains("budget_reached"), "{}", refused.message);
    assert_eq!(refused.kind, RefusalKind::BudgetReached, "the kind whose words end every client");
    let session = hosted.end(0).await.unwrap();
    assert!(session.program_requests.is_empty());
    let standing = engine.store().standing(&[PurseKey::Session(world.id.clone())]).await.unwrap();
    let sum = standing[0].sums[&"USD".parse().unwrap()];
    assert_eq!((sum.at_least, sum.at_most, sum.held), (10, 10_010, 0));
    let story = world.story(&engine).await;
    assert!(story.contains("span.model_request_start span.model_request_end budget.reached"), "{story}");
    check_folds(&world.id, &engine.events(&world.log()).await.unwrap());
}
