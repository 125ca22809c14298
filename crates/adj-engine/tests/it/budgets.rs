//! Budgets while sessions work: what is set aside, what it comes to, and what rests until there is more.

use crate::world::{Fault, Faulty, World, check_folds, dies, message};
use adj_domain::{
    Amounts, AttemptId, Book, Budget, IdleReason, LedgerOp, Micros, PurseKey, Refusal, RequestResult, RunId, Scope,
    SessionEvent, SessionId, Unit,
};
use adj_engine::{BudgetLimit, Engine, Interrupt, NewSession};
use adj_store::LogFilter;
use std::{sync::Arc, time::Duration};

/// Ten dollars for a million tokens of output, and nothing for input.
const PRICES: &str = "[[model]]\nmatch = \"scripted/*\"\nrates = { input = \"0\", output = \"10\" }";
/// One call, then an end; each request reads 1,000 tokens and writes 5,000.
const TWO_STEPS: &str = "  - {when: {after_tool: bash}, say: done, usage: {input: 1000, output: 5000}}\n  \
                         - {calls: [{tool: bash, input: {command: \"true\"}}], usage: {input: 1000, output: 5000}}";
/// Room for the first of these, with a shorter answer than it might give, and too little for the second.
const FOR_ONE: u64 = 13_000;

fn usd() -> Unit {
    "USD".parse().unwrap()
}

fn tokens(amount: u64) -> Amounts {
    Amounts::default().with(Unit::Tokens, amount)
}

fn dollars(micros: u64) -> Amounts {
    Amounts::default().with(usd(), micros)
}

fn with(world: &World, budget: Budget) -> NewSession {
    NewSession { budget, ..world.new_session() }
}

async fn begin(world: &World, engine: &Engine, budget: Budget) {
    engine.create(&world.id, with(world, budget)).await.unwrap();
    world.say(engine, "go").await;
}

async fn raise(engine: &Engine, scope: Scope, unit: Unit, amount: u64) {
    engine.set_limits(&[BudgetLimit { scope, unit, amount: Some(amount) }], "test").await.unwrap();
}

/// The books as the logs tell them; compared with those that are kept.
async fn check_books(engine: &Engine) -> Book {
    let mut book = Book::default();
    for log in engine.store().logs(&LogFilter::default()).await.unwrap() {
        let adj_domain::LogId::Session(id) = &log.log else { continue };
        let events = engine.events(&log.log).await.unwrap();
        check_folds(id, &events);
        let (mut run, mut turn) = (None, 0);
        let mut holds = std::collections::BTreeMap::new();
        for event in events {
            match event.session_event().unwrap() {
                SessionEvent::Created { spec } => run = spec.run.map(|(run, _)| run),
                SessionEvent::StatusRunning { turn: begun } => turn = begun,
                SessionEvent::ModelRequestStarted { hold: Some(reservation), .. } => {
                    let hold = reservation.hold(id, run.as_ref(), turn, &event.id);
                    book.apply(&LedgerOp::Open { hold: hold.clone() }).unwrap();
                    holds.insert(event.id.clone(), hold);
                }
                SessionEvent::ModelRequestEnded { model_request_start_id, charges, .. } => {
                    let Some(hold) = holds.get(&model_request_start_id) else { continue };
                    let mut attempt = AttemptId::first(model_request_start_id.clone());
                    for charge in charges {
                        let hold = adj_domain::Hold { attempt: attempt.clone(), ..hold.clone() };
                        book.apply(&LedgerOp::Open { hold }).unwrap();
                        book.apply(&LedgerOp::Close { attempt: attempt.clone(), charge }).unwrap();
                        attempt = attempt.next();
                    }
                }
                _ => {}
            }
        }
    }
    for ((key, unit), purse) in &book.purses {
        let standing = engine.store().standing(std::slice::from_ref(key)).await.unwrap();
        assert_eq!(standing[0].sums.get(unit).copied().unwrap_or_default(), *purse, "{key} {unit}");
    }
    assert_eq!(book.open.len(), engine.store().holds(None).await.unwrap().len());
    book
}

fn refusals(events: &[SessionEvent]) -> Vec<&Refusal> {
    let refusals = events.iter().filter_map(|event| match event {
        SessionEvent::BudgetReached { refusal } => Some(refusal),
        _ => None,
    });
    refusals.collect()
}

#[tokio::test]
async fn a_turn_rests_where_its_budget_ends_and_goes_on_under_its_number_when_there_is_more() {
    let world = World::new();
    let engine = world.engine(TWO_STEPS);
    begin(&world, &engine, Budget { session: tokens(FOR_ONE), ..Budget::default() }).await;
    let end = world.work(&engine).await.unwrap();
    let purse = PurseKey::Session(world.id.clone());
    assert_eq!(end.reason, Some(IdleReason::BudgetReached { purse: purse.clone() }));
    assert_eq!((end.turns, end.model_requests, end.usage.total_tokens()), (1, 1, 6_000));
    let story = world.story(&engine).await;
    let rest = "agent.tool_result span.model_request_start span.model_request_end budget.reached session.usage \
                session.status_idle";
    assert!(story.ends_with(rest), "{story}");
    let book = check_books(&engine).await;
    let sum = book.purse(&purse, &Unit::Tokens);
    assert_eq!((sum.at_least, sum.at_most, sum.held), (6_000, 6_000, 0));

    // Not enough is no more than before; then it is enough.
    raise(&engine, Scope::Session(world.id.clone()), Unit::Tokens, FOR_ONE + 100).await;
    assert_eq!(world.work(&engine).await.unwrap().reason, Some(IdleReason::BudgetReached { purse }));
    raise(&engine, Scope::Session(world.id.clone()), Unit::Tokens, 100_000).await;
    let end = world.work(&engine).await.unwrap();
    assert_eq!((end.reason, end.turns, end.model_requests), (Some(IdleReason::EndTurn), 1, 2));
    assert_eq!(end.last_message.as_deref(), Some("done"));
    check_books(&engine).await;
}

#[tokio::test]
async fn a_new_message_begins_another_turn_where_the_budget_was_the_turns() {
    let world = World::new();
    let engine = world.engine(TWO_STEPS);
    begin(&world, &engine, Budget { turn: tokens(FOR_ONE), ..Budget::default() }).await;
    let end = world.work(&engine).await.unwrap();
    let purse = PurseKey::Turn(world.id.clone(), 1);
    assert_eq!(end.reason, Some(IdleReason::BudgetReached { purse }));
    world.say(&engine, "again").await;
    let end = world.work(&engine).await.unwrap();
    assert_eq!(end.turns, 2, "{:?}", end.reason);
    check_books(&engine).await;
}

#[tokio::test]
async fn an_answer_is_made_shorter_to_fit_what_is_left() {
    let mut world = World::new();
    world.prices = PRICES;
    let engine = world.engine("  - {say: done, usage: {input: 10, output: 100}}");
    begin(&world, &engine, Budget { request: dollars(50_000), ..Budget::default() }).await;
    assert_eq!(world.work(&engine).await.unwrap().reason, Some(IdleReason::EndTurn));
    let events = world.events(&engine).await;
    let holds = events.iter().filter_map(|event| match event {
        SessionEvent::ModelRequestStarted { hold, .. } => hold.clone(),
        _ => None,
    });
    let holds: Vec<_> = holds.map(|hold| (hold.max_output_tokens, hold.amounts.get(&usd()))).collect();
    assert_eq!(holds, [(Some(5_000), 50_000)]);
    check_books(&engine).await;
}

#[tokio::test]
async fn what_cannot_be_priced_or_counted_is_refused_under_a_limit_unless_that_is_wished() {
    let world = World::new();
    let engine = world.engine("  - {say: done, usage: {input: 1000, output: 1000}}");
    let mut cases = Vec::new();
    for (name, unpriced, limit, end) in [
        ("refuse", "refuse", dollars(1_000_000), "budget_reached"),
        ("ignore", "ignore", dollars(1_000_000), "end_turn"),
        ("assume", "assume:1/2", dollars(1_000_000), "end_turn"),
        ("assumed too dear", "assume:1000/1000", dollars(1_000_000), "budget_reached"),
        ("tokens", "refuse", tokens(1_000_000), "end_turn"),
        ("nothing", "refuse", Amounts::default(), "end_turn"),
    ] {
        let id = SessionId::derive(&[name]);
        let mut new = with(&world, Budget { session: limit, unpriced: unpriced.parse().unwrap(), ..Budget::default() });
        new.agent.model = "nobody/knows".parse().unwrap();
        engine.create(&id, new).await.unwrap();
        engine.send(&id, &message(name)).await.unwrap();
        let ended = engine.work(&id, &Interrupt::new()).await.unwrap().reason.unwrap();
        let ended = serde_json::to_value(&ended).unwrap()["type"].as_str().unwrap().to_owned();
        assert_eq!(ended, end, "{name}");
        cases.push(PurseKey::Session(id));
    }
    let standing = engine.store().standing(&cases).await.unwrap();
    assert_eq!(standing[1].sums[&Unit::Unpriced].at_most, 1, "ignored, and counted");
    assert_eq!(standing[2].sums[&usd()].at_most, 3_000, "1,000 tokens at 1 and 1,000 at 2");
    check_books(&engine).await;
}

#[tokio::test]
async fn what_an_attempt_may_have_cost_is_not_there_for_the_next() {
    let mut world = World::new();
    world.prices = PRICES;
    let rules = "  - {say: a long answer, usage: {input: 10, output: 100}, fail: [{cut_after_chars: 3, times: 1}]}";
    let engine = world.engine(rules);
    // Room for the first and its repetition, then only for the first.
    for (name, limit, ends) in [("enough", 400_000, true), ("too little", 170_000, false)] {
        let id = SessionId::derive(&[name]);
        let budget = Budget { session: dollars(limit), ..Budget::default() };
        engine.create(&id, with(&world, budget)).await.unwrap();
        engine.send(&id, &message(name)).await.unwrap();
        let end = engine.work(&id, &Interrupt::new()).await.unwrap();
        assert_eq!(end.reason == Some(IdleReason::EndTurn), ends, "{name}: {:?}", end.reason);
        let purse = engine.store().standing(&[PurseKey::Session(id)]).await.unwrap();
        let sum = purse[0].sums[&usd()];
        // 16,384 tokens at 10 dollars for a million, and the answer's 100.
        let (least, most) = if ends { (1_000, 163_840 + 1_000) } else { (0, 163_840) };
        assert!(sum.at_least <= least + 10 && sum.at_most == most && sum.held == 0, "{name}: {sum:?}");
    }
    check_books(&engine).await;
}

#[tokio::test]
async fn a_request_that_a_dead_process_left_counts_as_spent_in_full() {
    for last in ["span.model_request_start", "span.model_request_end"] {
        let mut world = World::new();
        world.prices = PRICES;
        let store = Faulty::new(&world.memory, Fault::DeadAfter(last));
        let rules = "  - {say: done, usage: {input: 10, output: 100}}";
        let first = world.engine_on(store.clone(), "node_1", rules);
        begin(&world, &first, Budget { session: dollars(1_000_000), ..Budget::default() }).await;
        let has_happened = || store.has_happened();
        world.work_until_dead_when(&first, has_happened).await;
        dies(first, store).await;
        world.next_process();
        let second = world.engine_on(Arc::new(world.memory.clone()), "node_2", rules);
        let end = world.work(&second).await.unwrap();
        assert_eq!(end.reason, Some(IdleReason::EndTurn), "{last}");
        let book = check_books(&second).await;
        let sum = book.purse(&PurseKey::Session(world.id.clone()), &usd());
        let lost = if last == "span.model_request_start" { 163_840 } else { 0 };
        assert_eq!((sum.at_least, sum.at_most, sum.held), (1_000, 1_000 + lost, 0), "{last}");
    }
}

#[tokio::test]
async fn what_the_dead_have_set_aside_is_settled_for_those_who_wait_for_it() {
    let mut world = World::new();
    world.prices = PRICES;
    world.policy("[budget]\nday = \"0.20usd\"");
    let rules = "  - {say: done, usage: {input: 10, output: 100}}";
    let store = Faulty::new(&world.memory, Fault::DeadAfter("span.model_request_start"));
    let first = world.engine_on(store.clone(), "node_1", rules);
    begin(&world, &first, Budget::default()).await;
    world.work_until_dead_when(&first, || store.has_happened()).await;
    dies(first, store).await;
    world.next_process();
    let second = world.engine_on(Arc::new(world.memory.clone()), "node_2", rules);
    let id = SessionId::derive(&["other"]);
    engine_of(&second, &id, with(&world, Budget::default())).await;
    // It waits for what the dead one holds, settles it, and makes do with the rest.
    let end = tokio::time::timeout(Duration::from_secs(20), second.work(&id, &Interrupt::new())).await;
    assert_eq!(end.expect("it does not wait for ever").unwrap().reason, Some(IdleReason::EndTurn));
    assert!(second.store().holds(None).await.unwrap().is_empty());
    let abandoned = world.events(&second).await.into_iter().any(|event| {
        matches!(event, SessionEvent::ModelRequestEnded { result: RequestResult::Abandoned, charges, .. } if charges.len() == 1)
    });
    assert!(abandoned);
    check_books(&second).await;
}

async fn engine_of(engine: &Engine, id: &SessionId, new: NewSession) {
    engine.create(id, new).await.unwrap();
    engine.send(id, &message(id.as_str())).await.unwrap();
}

/// B1 of the design, with a vendor that spends fast and children that come all at once: what the vendor itself has counted never
/// passes the limit of the run, and everybody is told in the end.
#[tokio::test(flavor = "multi_thread")]
async fn many_sessions_of_one_run_stay_within_its_budget() {
    const LIMIT: u64 = 600_000;
    let mut world = World::new();
    world.prices = PRICES;
    // Every third breaks off first, and is repeated.
    let rules = "  - {when: {input: \"[147]$\"}, say: done, usage: {input: 900, output: 1000}, fail: [{cut_after_chars: 2, times: 1}]}\n  \
                 - {say: done, delay_ms: 20, usage: {input: 500, output: 900}}";
    let engine = world.engine(rules);
    let run = RunId::derive(&["run"]);
    raise(&engine, Scope::Run(run.clone()), usd(), LIMIT).await;
    let mut children = tokio::task::JoinSet::new();
    for child in 0..24 {
        let id = SessionId::derive(&["child", &child.to_string()]);
        let new = NewSession { run: Some((run.clone(), "a".parse().unwrap())), ..world.new_session() };
        engine.create(&id, new).await.unwrap();
        engine.send(&id, &message(&format!("child {child}"))).await.unwrap();
        let engine = engine.clone();
        children.spawn(async move { (id.clone(), engine.work(&id, &Interrupt::new()).await.unwrap()) });
    }
    let ended = tokio::time::timeout(Duration::from_secs(60), children.join_all()).await.expect("they come to rest");
    let billed: u64 = ended.iter().flat_map(|(_, end)| &end.costs.amounts).map(|sum| sum.amount.0).sum();
    assert!(billed > 0 && billed <= LIMIT, "{}", Micros(billed));
    let done = ended.iter().filter(|(_, end)| end.reason == Some(IdleReason::EndTurn)).count();
    let rest = ended.iter().filter(|(_, end)| matches!(end.reason, Some(IdleReason::BudgetReached { .. }))).count();
    assert!(done > 0 && rest > 0 && done + rest == 24, "{done} done, {rest} at rest");
    let book = check_books(&engine).await;
    let sum = book.purse(&PurseKey::Run(run.clone()), &usd());
    assert!(billed <= sum.at_most && sum.at_most <= LIMIT && sum.held == 0, "{sum:?}");
    for (id, end) in &ended {
        if end.reason != Some(IdleReason::EndTurn) {
            let events = engine.events(&id.clone().into()).await.unwrap();
            let events: Vec<SessionEvent> = events.iter().map(|event| event.session_event().unwrap()).collect();
            assert!(matches!(refusals(&events)[..], [Refusal::Spent { .. }]), "{events:?}");
        }
    }
    // With more they all come to their end, each in its first turn.
    raise(&engine, Scope::Run(run), usd(), 100 * LIMIT).await;
    for (id, _) in ended {
        let end = engine.work(&id, &Interrupt::new()).await.unwrap();
        assert_eq!((end.reason, end.turns), (Some(IdleReason::EndTurn), 1));
    }
    check_books(&engine).await;
}

#[tokio::test]
async fn who_waits_for_others_can_be_interrupted() {
    let mut world = World::new();
    world.prices = PRICES;
    world.policy("[budget]\nday = \"0.20usd\"");
    let engine = world.engine("  - {when: {input: sesn_}, say: done}\n  - {say: slow, delay_ms: 60000}");
    begin(&world, &engine, Budget::default()).await;
    let (worker, id) = (engine.clone(), world.id.clone());
    let mut live = engine.subscribe();
    let slow = tokio::spawn(async move { worker.work(&id, &Interrupt::new()).await });
    crate::world::next(&mut live, "span.model_request_start").await;
    let id = SessionId::derive(&["other"]);
    engine_of(&engine, &id, with(&world, Budget::default())).await;
    let interrupt = Interrupt::new();
    let ask = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        interrupt.ask();
    };
    let (end, ()) = tokio::join!(engine.work(&id, &interrupt), ask);
    let end = end.unwrap();
    assert_eq!((end.reason, end.model_requests), (Some(IdleReason::Interrupted), 0));
    slow.abort();
}
