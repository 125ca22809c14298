//! Errors that are for people: nothing is lost by them, and the same session goes on afterwards.

use crate::world::{Fault, Faulty, World, check_folds};
use adj_domain::IdleReason;
use adj_engine::EngineError;
use adj_store::{AppendError, StoreError};

const RULES: &str = r#"
  - when: {after_tool: bash}
    say: done
  - calls: [{tool: bash, input: {command: "echo x >> once.txt; seq 1 20000"}}]
"#;

#[tokio::test]
async fn a_disk_that_was_full_once_loses_nothing() {
    let mut appends = 0;
    loop {
        let world = World::new();
        let plain = world.engine(RULES);
        world.begin(&plain).await;
        appends += 1;
        let faulty = Faulty::new(&world.memory, Fault::FullAtAppend(appends));
        let engine = world.engine_on(faulty.clone(), "node_1", RULES);
        let worked = world.work(&engine).await;
        if !faulty.has_happened() {
            assert_eq!(worked.unwrap().reason, Some(IdleReason::EndTurn));
            break;
        }
        let error = worked.unwrap_err();
        let is_full = matches!(&error, EngineError::Append { source: AppendError::Store(StoreError::Full { .. }), .. });
        assert!(is_full, "append {appends}: {error:?}");
        // Nobody holds the session after an error.
        assert!(world.memory_holder().await.is_none(), "append {appends}");
        let end = world.work(&engine).await.unwrap();
        assert_eq!(end.last_message.as_deref(), Some("done"), "append {appends}");
        assert_eq!(world.read("once.txt"), "x\n", "append {appends}");
        check_folds(&world.id, &engine.events(&world.log()).await.unwrap());
        engine.close_all().await.unwrap();
    }
    assert!(appends > 3, "{appends} appends");
}

#[tokio::test]
async fn a_disk_that_has_no_room_for_an_output_loses_nothing() {
    let world = World::new();
    let engine = world.engine_on(Faulty::new(&world.memory, Fault::FullAtBlob), "node_1", RULES);
    world.begin(&engine).await;
    let error = world.work(&engine).await.unwrap_err();
    assert!(matches!(error, EngineError::Store(StoreError::Full { .. })), "{error:?}");
    let end = world.work(&engine).await.unwrap();
    assert_eq!((end.last_message.as_deref(), world.read("once.txt").as_str()), (Some("done"), "x\n"));
    engine.close_all().await.unwrap();
}

#[tokio::test]
async fn a_sandbox_that_cannot_be_set_up_is_for_people() {
    let world = World::new();
    let engine = world.engine(RULES);
    world.begin(&engine).await;
    let aside = world.home.path().join("aside");
    std::fs::rename(world.work_dir(), &aside).unwrap();
    let error = world.work(&engine).await.unwrap_err();
    assert!(matches!(error, EngineError::Toolbox(_)), "{error:?}");
    assert!(world.story(&engine).await.ends_with("tool.started"), "the model was told nothing");
    std::fs::rename(&aside, world.work_dir()).unwrap();
    let end = world.work(&engine).await.unwrap();
    assert_eq!((end.last_message.as_deref(), world.read("once.txt").as_str()), (Some("done"), "x\n"));
    engine.close_all().await.unwrap();
}
