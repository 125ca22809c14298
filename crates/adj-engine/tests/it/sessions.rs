//! What a session does from its first message to its rest.

use crate::world::{World, check_folds, next};
use adj_domain::{Content, IdleReason, SessionEvent, WorkspaceSpec};
use adj_engine::{Interrupt, Live, NewSession};
use adj_store::{SqliteStore, Store};
use adj_workspace::{Authorship, Person};
use std::sync::Arc;
use tokio::sync::broadcast::error::RecvError;

const CHANGE: &str = r#"
  - when: {after_tool: bash}
    say: changed
  - calls: [{tool: bash, input: {command: "cat a.txt && echo beta > b.txt"}}]
"#;

const STORY: &str = "session.status_running user.message span.model_request_start agent.tool_use span.model_request_end \
                     policy.decided tool.started agent.tool_result span.model_request_start agent.message \
                     span.model_request_end session.usage session.status_idle";

#[tokio::test]
async fn a_session_works_on_a_folder_with_each_store() {
    let world = World::new();
    let sqlite = Arc::new(SqliteStore::open(&world.home.path().join("journal")).unwrap());
    let stores: [Arc<dyn Store>; 2] = [Arc::new(world.memory.clone()), sqlite];
    for store in stores {
        let engine = world.engine_on(store, "node_1", CHANGE);
        let mut live = engine.subscribe();
        world.begin(&engine).await;
        let end = world.work(&engine).await.unwrap();
        assert_eq!((end.reason.as_ref(), end.last_message.as_deref()), (Some(&IdleReason::EndTurn), Some("changed")));
        assert_eq!((end.turns, end.model_requests, end.tool_calls), (1, 2, 1));
        assert_eq!(world.story(&engine).await, STORY);
        assert_eq!(world.results(&engine).await, ["alpha\n"]);
        assert_eq!(world.read("b.txt"), "beta\n");

        // What was seen live is what is stored, and each beginning of it folds.
        let stored = engine.events(&world.log()).await.unwrap();
        let mut seen = Vec::new();
        while let Ok(event) = live.try_recv() {
            if let Live::Committed(event) = event {
                seen.push(format!("{event:?}"));
            }
        }
        assert_eq!(seen, stored.iter().map(|event| format!("{event:?}")).collect::<Vec<_>>());
        assert_eq!(check_folds(&world.id, &stored), engine.session(&world.id).await.unwrap());
        assert_eq!(adj_store::verify(engine.store().as_ref(), &world.log()).await.unwrap().head, stored.len() as u64);

        // A message that is sent again is not said again.
        world.say(&engine, "go").await;
        assert_eq!(world.work(&engine).await.unwrap(), end);
        engine.close_all().await.unwrap();
        std::fs::remove_dir_all(world.supervisor()).unwrap();
        std::fs::remove_file(world.work_dir().join("b.txt")).unwrap();
    }
}

#[tokio::test]
async fn a_private_workspace_keeps_the_work_from_the_users_files() {
    let world = World::new();
    let repository = adj_testkit::git_repository(&[("a.txt", "alpha\n"), ("AGENTS.md", "Use tabs.\n")]);
    let commit = repository.git(&["rev-parse", "HEAD"]);
    let engine = world.engine(CHANGE);
    let path = repository.path().to_str().unwrap().to_owned();
    let workspace = WorkspaceSpec::Private { repository: path, commit, name: "one".to_owned() };
    engine.create(&world.id, NewSession { workspace, ..world.new_session() }).await.unwrap();
    world.say(&engine, "go").await;
    let end = world.work(&engine).await.unwrap();
    assert_eq!(end.last_message.as_deref(), Some("changed"));
    assert_eq!(world.results(&engine).await, ["alpha\n"]);
    assert!(engine.session(&world.id).await.unwrap().spec.system_prompt().contains("Use tabs."));
    assert!(!repository.path().join("b.txt").exists());

    let workspaces = engine.workspaces().await.unwrap();
    let workspace = workspaces.existing(&"one".parse().unwrap()).unwrap();
    let by = Person::new("test", "test@example.invalid");
    let authorship = Authorship { author: by.clone(), committer: by, time_seconds: 1 };
    let snapshot = workspaces.snapshot(&workspace, "work", &authorship).await.unwrap();
    let changed: Vec<_> = snapshot.changed.iter().map(|change| change.path.to_str().unwrap()).collect();
    assert_eq!(changed, ["b.txt"]);
    engine.close_all().await.unwrap();
}

#[tokio::test]
async fn a_session_is_made_once_whatever_it_is_called() {
    let world = World::new();
    let engine = world.engine("  - say: hello");
    let title = Some("x\u{1b}[31m".repeat(100_000));
    engine.create(&world.id, NewSession { title, ..world.new_session() }).await.unwrap();
    engine.create(&world.id, NewSession { title: None, ..world.new_session() }).await.unwrap();
    assert_eq!(engine.events(&world.log()).await.unwrap().len(), 1);
    let title = engine.store().log(&world.log()).await.unwrap().unwrap().meta.title;
    assert_eq!(title.chars().count(), 200);
    // Nobody has said anything yet.
    let end = world.work(&engine).await.unwrap();
    assert_eq!((end.reason, end.turns), (None, 0));
}

#[tokio::test]
async fn an_interrupt_lets_the_step_come_to_its_end() {
    let world = World::new();
    let engine = world.engine(
        r#"
  - when: {input: go on}
    say: finished
  - calls: [{tool: bash, input: {command: "sleep 0.2; echo done | tee done.txt"}}]
"#,
    );
    world.begin(&engine).await;
    let (interrupt, mut live) = (Interrupt::new(), engine.subscribe());
    let asking = async {
        next(&mut live, "tool.started").await;
        interrupt.ask();
    };
    let (end, ()) = tokio::join!(engine.work(&world.id, &interrupt), asking);
    let end = end.unwrap();
    assert_eq!((end.reason, end.model_requests), (Some(IdleReason::Interrupted), 1));
    assert_eq!(world.results(&engine).await, ["done\n"]);
    // Who is asked to rest already does not begin.
    world.say(&engine, "go on").await;
    let end = engine.work(&world.id, &interrupt).await.unwrap();
    assert_eq!((end.turns, end.model_requests, end.waits), (1, 1, true));
    let end = world.work(&engine).await.unwrap();
    assert_eq!((end.reason, end.last_message.as_deref()), (Some(IdleReason::EndTurn), Some("finished")));
    assert!(!end.waits);
    engine.close_all().await.unwrap();
}

#[tokio::test]
async fn a_message_in_the_middle_of_a_turn_is_taken_up_before_the_next_step() {
    let world = World::new();
    let engine = world.engine(
        r#"
  - when: {after_tool: bash, input: and be quick}
    say: quick
  - when: {after_tool: bash}
    say: slow
  - calls: [{tool: bash, input: {command: "sleep 0.2"}}]
"#,
    );
    world.begin(&engine).await;
    let mut live = engine.subscribe();
    let steering = async {
        next(&mut live, "tool.started").await;
        world.say(&engine, "and be quick").await;
    };
    let (end, ()) = tokio::join!(world.work(&engine), steering);
    let end = end.unwrap();
    assert_eq!((end.turns, end.last_message.as_deref()), (1, Some("quick")));
    assert!(world.story(&engine).await.contains("agent.tool_result user.message span.model_request_start"));
    engine.close_all().await.unwrap();
}

#[tokio::test]
async fn of_a_long_output_the_log_has_a_cut_and_a_blob_the_whole() {
    let world = World::new();
    let engine = world.engine(
        r#"
  - when: {after_tool: bash}
    say: done
  - calls: [{tool: bash, input: {command: "seq 1 20000"}}]
"#,
    );
    world.begin(&engine).await;
    world.work(&engine).await.unwrap();
    let events = world.events(&engine).await;
    let (content, full) = events
        .iter()
        .find_map(|event| match event {
            SessionEvent::AgentToolResult { content, full_output: Some(hash), .. } => Some((content, hash)),
            _ => None,
        })
        .expect("a result with a blob");
    let whole: String = (1..=20_000).map(|number| format!("{number}\n")).collect();
    let cut = Content::join_text(content);
    assert!(cut.len() < 40_000 && cut.starts_with("1\n2\n") && cut.ends_with("20000\n"), "{} bytes", cut.len());
    assert_eq!(engine.store().get_blob(full).await.unwrap().unwrap(), whole.as_bytes());
    engine.close_all().await.unwrap();
}

#[tokio::test]
async fn a_watcher_who_does_not_look_stops_nobody() {
    let world = World::new();
    let engine = world.engine(&format!("  - say: {}\n    chunk: 1", "x".repeat(6000)));
    let mut live = engine.subscribe();
    world.begin(&engine).await;
    assert_eq!(world.work(&engine).await.unwrap().last_message.unwrap().len(), 6000);
    assert!(matches!(live.recv().await, Err(RecvError::Lagged(_))));
}

#[tokio::test]
async fn what_a_tool_refuses_is_told_to_the_model() {
    let world = World::new();
    let engine = world.engine(
        r#"
  - when: {tool_failed: true}
    say: noted
  - calls: [{tool: bash, input: {command: 7}}, {tool: read, input: {file_path: /etc/hostname}}, {tool: bash, raw: "{"}]
"#,
    );
    world.begin(&engine).await;
    let end = world.work(&engine).await.unwrap();
    assert_eq!((end.last_message.as_deref(), end.tool_calls), (Some("noted"), 3));
    let results = world.results(&engine).await;
    assert_eq!(results.len(), 3);
    assert!(results.iter().any(|text| text.contains("does not fit the tool")), "{results:?}");
    engine.close_all().await.unwrap();
}
