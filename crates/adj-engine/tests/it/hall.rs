//! Many sessions at work side by side.

use crate::world::{World, check_folds, message};
use adj_domain::{Content, EventId, LogId, PendingInput, SessionEvent, SessionId, event::Input};
use adj_engine::{Engine, Hall};
use std::{collections::BTreeMap, time::Duration};

async fn rests(hall: &Hall) {
    tokio::time::timeout(Duration::from_secs(60), hall.empty()).await.expect("the hall comes to rest");
}

async fn make(world: &World, engine: &Engine, count: usize) -> Vec<SessionId> {
    let mut ids = Vec::new();
    for n in 0..count {
        let id = SessionId::derive(&["hall", &n.to_string()]);
        let mut new = world.new_session();
        new.agent.tools.clear();
        engine.create(&id, new).await.unwrap();
        ids.push(id);
    }
    ids
}

async fn messages(engine: &Engine, id: &SessionId) -> Vec<String> {
    let events = engine.events(&LogId::from(id.clone())).await.unwrap();
    check_folds(id, &events);
    let said = events.iter().filter_map(|event| match event.session_event().unwrap() {
        SessionEvent::UserMessage { content, .. } => Some(Content::join_text(&content)),
        _ => None,
    });
    said.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_message_is_taken_up_once_whenever_it_comes() {
    let world = World::new();
    let engine = world.engine("  - say: done");
    let ids = make(&world, &engine, 20).await;
    let hall = Hall::new(engine.clone(), 4);
    let mut senders = tokio::task::JoinSet::new();
    for sender in 0..5 {
        let (engine, hall, ids) = (engine.clone(), hall.clone(), ids.clone());
        senders.spawn(async move {
            for n in 0..10 {
                for id in &ids {
                    let text = format!("{sender}-{n}");
                    let input = Input::Message { content: vec![Content::text(&text)], output_schema: None };
                    let input = PendingInput { id: EventId::derive(&[id.as_str(), &text]), input };
                    engine.send(id, &input).await.unwrap();
                    hall.wake(id);
                }
            }
        });
    }
    senders.join_all().await;
    rests(&hall).await;
    for id in &ids {
        let said = messages(&engine, id).await;
        assert_eq!(said.len(), 50);
        // Each sender's come in the order in which they were sent.
        let mut last = BTreeMap::new();
        for text in said {
            let (sender, n) = text.split_once('-').unwrap();
            let n: u32 = n.parse().unwrap();
            assert_eq!(last.insert(sender.to_owned(), n).map_or(0, |last: u32| last + 1), n, "{text}");
        }
        assert!(engine.session(id).await.unwrap().is_idle());
    }
    engine.close_all().await.unwrap();
}

#[tokio::test]
async fn who_is_closed_in_the_middle_is_taken_up_by_the_next() {
    let mut world = World::new();
    let engine = world.engine("  - say: done\n    delay_ms: 60000");
    let ids = make(&world, &engine, 3).await;
    let hall = Hall::new(engine.clone(), 2);
    for id in &ids {
        engine.send(id, &message("go")).await.unwrap();
        hall.wake(id);
    }
    let begun = async {
        while messages(&engine, &ids[0]).await.is_empty() || messages(&engine, &ids[1]).await.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), begun).await.expect("two have begun");
    assert_eq!(messages(&engine, &ids[2]).await, Vec::<String>::new(), "there are two places");
    hall.close().await;
    hall.wake(&ids[2]);
    assert!(hall.is_empty());
    drop((hall, engine));

    world.next_process();
    let engine = world.engine_on(std::sync::Arc::new(world.memory.clone()), "node_2", "  - say: done");
    let hall = Hall::new(engine.clone(), 2);
    // Two were left in mid-turn, the third was never taken up.
    assert_eq!(hall.recover().await.unwrap(), 3);
    rests(&hall).await;
    assert_eq!(hall.recover().await.unwrap(), 0);
    for id in &ids {
        assert_eq!(messages(&engine, id).await, ["go"]);
        let state = engine.store().log(&LogId::from(id.clone())).await.unwrap().unwrap().state.unwrap();
        assert_eq!(state.word, "idle");
        assert!(state.summary.contains(r#""stop_reason":{"type":"end_turn"}"#), "{}", state.summary);
        assert_eq!(engine.session(id).await.unwrap().last_message.as_deref(), Some("done"));
    }
}

#[tokio::test]
async fn who_cannot_be_worked_on_holds_up_nobody_and_is_tried_again() {
    let world = World::new();
    let engine = world.engine("  - say: done");
    let ids = make(&world, &engine, 2).await;
    // Somebody else has it.
    let log = LogId::from(ids[0].clone());
    let other = "node_other".parse().unwrap();
    let claim = adj_store::Store::claim(&world.memory, &log, &other).await.unwrap();
    let hall = Hall::new(engine.clone(), 1);
    for id in &ids {
        engine.send(id, &message("go")).await.unwrap();
        hall.wake(id);
    }
    let other_is_done = async {
        while hall.len() > 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), other_is_done).await.expect("the other one is served");
    assert_eq!(messages(&engine, &ids[1]).await, ["go"]);
    adj_store::Store::release(&world.memory, claim.fence).await.unwrap();
    rests(&hall).await;
    assert_eq!(messages(&engine, &ids[0]).await, ["go"]);
}
