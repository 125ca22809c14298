//! What happens to a call whose process, sandbox or store fails in the middle.

use crate::world::{FailingStore, Fails, ONE_COMMAND, World, eventually};
use adj_domain::{Event, IdleReason, LogId};
use adj_engine::{Engine, EngineError, Interrupt};
use adj_sandbox::Finding;
use adj_store::{MemoryStore, Store};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::{
    os::{fd::AsRawFd, unix::net::UnixStream},
    sync::Arc,
};

const GATED: &str = r#"
rules:
  - when: {after_tool: bash}
    say: done
  - calls: [{tool: bash, input: {command: "echo begun >> begun; while ! test -e go; do sleep 0.01; done; echo line >> made.txt; echo said"}}]
"#;

/// Lets a process begin the command of [`GATED`] and die; returns the call and what works on after it.
async fn die_in_a_call(world: &World) -> (Event, Engine) {
    let store = MemoryStore::new();
    let next = world.engine(Arc::new(store.another_process()), "n2", GATED);
    let first = world.engine(Arc::new(store), "n1", GATED);
    world.create(&first).await;
    world.send(&first, "begin").await;
    let (id, dying) = (world.id.clone(), first.clone());
    let working = tokio::spawn(async move { dying.work(&id, &Interrupt::new()).await });
    eventually("the command begins", || world.tree().join("begun").exists()).await;
    working.abort();
    assert!(working.await.unwrap_err().is_cancelled());
    drop(first);
    (world.until(&next, "agent.tool_use").await, next)
}

/// Works on, and checks that the command began only once.
async fn check_taken_over(world: &World, engine: &Engine, answer: &str, made: &str) {
    let end = loop {
        match engine.work(&world.id, &Interrupt::new()).await {
            // The runtime has not dropped the tasks of the dead one yet.
            Err(EngineError::Claim { .. }) => tokio::task::yield_now().await,
            end => break end.unwrap(),
        }
    };
    assert_eq!(end.reason, Some(IdleReason::EndTurn));
    let answers = world.answers(engine).await;
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert!(answers[0].0.starts_with(answer), "{answers:?}");
    assert_eq!((world.read("begun").as_str(), world.read("made.txt").as_str()), ("begun\n", made));
    let story = world.story(engine).await;
    assert!(story.contains("tool.started session.resumed agent.tool_result"), "{story}");
    engine.close(&world.id).await.unwrap();
}

fn open_the_gate(world: &World) {
    std::fs::write(world.tree().join("go"), "").unwrap();
}

#[tokio::test]
async fn a_call_that_goes_on_without_us_is_waited_for() {
    let world = World::new();
    let (_, engine) = die_in_a_call(&world).await;
    let opening = async {
        world.until(&engine, "session.resumed").await;
        open_the_gate(&world);
    };
    tokio::join!(check_taken_over(&world, &engine, "said\n", "line\n"), opening);
}

#[tokio::test]
async fn a_call_that_ended_without_us_is_not_repeated() {
    let world = World::new();
    let (call, engine) = die_in_a_call(&world).await;
    open_the_gate(&world);
    eventually("the command ends", || {
        matches!(adj_sandbox::find(&world.sandbox(), call.id.as_str()), Ok(Finding::Done(_)))
    })
    .await;
    check_taken_over(&world, &engine, "said\n", "line\n").await;
}

#[tokio::test]
async fn a_call_whose_end_nobody_knows_is_not_repeated() {
    let world = World::new();
    let (call, engine) = die_in_a_call(&world).await;
    kill_the_supervisor(&world);
    eventually("the sandbox is gone", || {
        matches!(adj_sandbox::find(&world.sandbox(), call.id.as_str()), Ok(Finding::Unknown))
    })
    .await;
    open_the_gate(&world);
    check_taken_over(&world, &engine, "It is not known whether this call took effect", "").await;
}

/// Kills, without a chance to say anything, the one who answers at the socket in the sandbox's folder.
fn kill_the_supervisor(world: &World) {
    // The path itself may be longer than a socket's path can be.
    let folder = std::fs::File::open(world.sandbox()).unwrap();
    let socket = UnixStream::connect(format!("/proc/self/fd/{}/sock", folder.as_raw_fd())).unwrap();
    let peer = rustix::net::sockopt::socket_peercred(&socket).unwrap();
    let pid = Pid::from_raw(peer.pid.as_raw_nonzero().get()).unwrap();
    let handle = pidfd_open(pid, PidfdFlags::empty()).unwrap();
    pidfd_send_signal(&handle, Signal::KILL).unwrap();
}

/// Among the appends of the session is the one that announces the call: where it fails after it was written, the call
/// was announced and never began.
#[tokio::test]
async fn a_store_that_fails_once_loses_nothing_and_repeats_nothing() {
    for fails in [Fails::Before, Fails::After] {
        // The first append creates the session.
        for at in 2.. {
            let context = format!("append {at} fails, {fails:?}");
            let world = World::new();
            let store = Arc::new(FailingStore::new(at, fails));
            let engine = world.engine(store.clone(), "n1", ONE_COMMAND);
            world.create(&engine).await;
            world.send(&engine, "begin").await;
            let mut ended = engine.work(&world.id, &Interrupt::new()).await;
            let has_failed = store.appends.load(std::sync::atomic::Ordering::SeqCst) >= at;
            if has_failed {
                assert!(matches!(ended, Err(EngineError::Append { .. })), "{context}: {ended:?}");
                let log = store.log(&LogId::from(world.id.clone())).await.unwrap().unwrap();
                assert_eq!(log.holder, None, "{context}: the log was given back");
                ended = engine.work(&world.id, &Interrupt::new()).await;
            }
            let end = ended.unwrap();
            assert_eq!((end.reason, end.turns, end.tool_calls), (Some(IdleReason::EndTurn), 1, 1), "{context}");
            assert_eq!(world.answers(&engine).await, [("said\n".to_owned(), false)], "{context}");
            assert_eq!(world.read("made.txt"), "line\n", "{context}");
            world.story(&engine).await;
            engine.close(&world.id).await.unwrap();
            if !has_failed {
                assert!(at > 4, "the session makes several appends");
                break;
            }
        }
    }
}
