//! Runs with real workspaces, sandboxes and gates; only the model is played.

use crate::{
    failing::{FailingStore, Fails},
    world::{spec, step},
};
use adj_domain::{CoreAgent, GateSpec, LogId, RunEvent, RunId, RunOutcome, RunSpec, RunState, StepKind};
use adj_engine::{Engine, Interrupt, Parts};
use adj_gateway::{Gateway, RetryPolicy};
use adj_providers::{Playbook, Scripted};
use adj_sandbox::Launcher;
use adj_squad::{RunEnd, Squad};
use adj_store::{LogFilter, MemoryStore, Store};
use adj_testkit::{GitRepository, git_repository};
use adj_vault::{KeySource, Keys, Vault};
use adj_workspace::Layout;
use std::{path::PathBuf, sync::Arc};
use tempfile::TempDir;

/// Each specialist adds one line to a file of its own: were anything done twice, it would have two.
const PLAYBOOK: &str = r#"
rules:
  - when: {role: planner, turn: 1}
    say: first thoughts
  - when: {role: planner}
    say: the plan
  - when: {role: builder}
    json:
      summary: three files
      specialists:
        - {id: a, title: File a, task: Make a}
        - {id: b, title: File b, task: Make b}
        - {id: c, title: File c, task: Make c, depends_on: [a]}
  - when: {after_tool: bash}
    say: made
  - when: {agent: a}
    calls: [{tool: bash, input: {command: "echo a >> a.txt"}}]
  - when: {agent: b}
    calls: [{tool: bash, input: {command: "echo b >> b.txt"}}]
  - when: {agent: c}
    calls: [{tool: bash, input: {command: "cat a.txt >> c.txt"}}]
"#;

fn core(name: &str, follow_up_prompt: Option<&str>) -> CoreAgent {
    CoreAgent {
        step: step(name),
        role: name.to_owned(),
        plan_prompt: "{prompt}".to_owned(),
        follow_up_prompt: follow_up_prompt.map(str::to_owned),
        schema: None,
        depends_on: Vec::new(),
        model: None,
    }
}

struct Stage {
    folder: TempDir,
    repository: GitRepository,
    engine: Engine,
    id: RunId,
}

impl Stage {
    fn new(store: Arc<dyn Store>) -> Self {
        let folder = TempDir::with_prefix("adj-squad-").unwrap();
        let state = folder.path().canonicalize().unwrap().join("state");
        std::fs::create_dir(&state).unwrap();
        let playbook = Playbook::parse(PLAYBOOK, "test.yaml").unwrap();
        let gateway = Gateway::new(RetryPolicy { attempts: 1, ..RetryPolicy::default() });
        let keys = Keys::new(KeySource::File, &state.join("vault"), None);
        let vault = Vault::open(&state.join("vault"), Arc::new(keys)).unwrap();
        let engine = Engine::new(Parts {
            store,
            models: Arc::new(gateway.with("scripted", Arc::new(Scripted::new(playbook)))),
            launcher: Launcher::current_exe().unwrap(),
            layout: Layout::Overlay,
            state,
            policy: adj_policy::Policy::built_in(),
            vault: tokio::sync::Mutex::new(vault),
            home: None,
            node: "n1".parse().unwrap(),
        });
        let repository = git_repository(&[("README.md", "hello\n")]);
        Self { folder, repository, engine, id: "run_real".parse().unwrap() }
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    fn spec(&self) -> RunSpec {
        let base = self.repository.git(&["rev-parse", "HEAD"]);
        RunSpec {
            repository: self.repository.path().display().to_string(),
            base: base.clone(),
            target_commit: base,
            gate: Some(GateSpec { command: "test -e README.md".to_owned(), timeout_seconds: 20 }),
            core: vec![core("builder", None)],
            ..spec()
        }
    }

    fn squad(&self) -> Squad {
        Squad::new(self.engine.clone(), false)
    }

    /// Nobody holds a log any more.
    async fn check_given_back(&self, context: &str) {
        for log in self.engine.store().logs(&LogFilter::default()).await.unwrap() {
            assert_eq!(log.holder, None, "{context}: {}", log.log);
        }
    }

    async fn check_landed(&self, end: RunEnd, context: &str) {
        let landed = matches!(&end.run.state, RunState::Finished(RunOutcome::Landed { .. }));
        assert!(landed, "{context}: {:?}", end.run.state);
        for (file, content) in [("a.txt", "a"), ("b.txt", "b"), ("c.txt", "a")] {
            let path = format!("main:{file}");
            assert_eq!(self.repository.git(&["show", &path]), content, "{context}: {file}");
        }
        assert_eq!(self.repository.git(&["status", "--porcelain"]), "", "{context}");
        assert_eq!(self.squad().run(&self.id).await.unwrap(), end.run, "{context}: live is folded");
        for log in self.engine.store().logs(&LogFilter::default()).await.unwrap() {
            adj_store::verify(self.engine.store().as_ref(), &log.log).await.unwrap();
        }
        self.check_given_back(context).await;
    }
}

#[tokio::test]
async fn a_run_lands_and_clears_up_after_itself_and_others() {
    let stage = Stage::new(Arc::new(MemoryStore::new()));
    // What a process that was killed has left behind.
    let left = stage.engine.workspaces().await.map(|_| stage.state().join("trash/left")).unwrap();
    std::fs::create_dir(&left).unwrap();
    stage.squad().create(&stage.id, stage.spec()).await.unwrap();
    let end = stage.squad().work(&stage.id, &Interrupt::new()).await.unwrap();
    stage.check_landed(end, "a run").await;
    assert!(!left.exists());
    assert_eq!(std::fs::read_dir(stage.state().join("workspaces")).unwrap().count(), 0);
    let events = stage.engine.events(&LogId::from(stage.id.clone())).await.unwrap();
    let finished = events.iter().filter(|event| matches!(event.run_event(), Ok(RunEvent::Finished { .. })));
    assert_eq!(finished.count(), 1);
}

#[tokio::test]
async fn an_interrupted_run_goes_on_where_it_stood() {
    let stage = Stage::new(Arc::new(MemoryStore::new()));
    stage.squad().create(&stage.id, stage.spec()).await.unwrap();
    let mut rounds = 0;
    loop {
        rounds += 1;
        let interrupt = Interrupt::new();
        let squad = stage.squad();
        let before = stage.engine.events(&LogId::from(stage.id.clone())).await.unwrap().len();
        let asking = async {
            // A few events further in each round, so that the wish comes in every phase.
            while stage.engine.events(&LogId::from(stage.id.clone())).await.unwrap().len() < before + 5 {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
            interrupt.ask();
            std::future::pending::<()>().await;
        };
        let end = tokio::select! {
            end = squad.work(&stage.id, &interrupt) => end.unwrap(),
            () = asking => unreachable!(),
        };
        if !end.interrupted {
            stage.check_landed(end, "interrupted").await;
            break;
        }
        stage.check_given_back("interrupted").await;
        assert!(rounds < 30, "every round comes further");
    }
    assert!(rounds > 2);
}

/// The last turn's words must not pass for the answer to a message that nobody has taken up.
#[tokio::test]
async fn an_interrupt_just_before_a_second_turn_does_not_end_it() {
    let interrupt = Interrupt::new();
    let store = Arc::new(FailingStore::new(u32::MAX, Fails::Before));
    store.interrupt_at(2, &interrupt);
    let stage = Stage::new(store);
    let planner = core("planner", Some("Go on."));
    let builder = CoreAgent { depends_on: vec![step("planner")], ..core("builder", None) };
    stage.squad().create(&stage.id, RunSpec { core: vec![planner, builder], ..stage.spec() }).await.unwrap();
    let end = stage.squad().work(&stage.id, &interrupt).await.unwrap();
    assert!(end.interrupted);
    assert_eq!(end.run.steps[&step("planner")].output(StepKind::FollowUp), None);

    let end = stage.squad().work(&stage.id, &Interrupt::new()).await.unwrap();
    assert_eq!(end.run.steps[&step("planner")].output(StepKind::Plan), Some("first thoughts"));
    assert_eq!(end.run.steps[&step("planner")].output(StepKind::FollowUp), Some("the plan"));
    stage.check_landed(end, "resumed").await;
}

/// Lets one append fail, whoever makes it; returns whether the run came that far.
async fn check_failing_store(at: u32, fails: Fails) -> bool {
    let context = format!("append {at} fails, {fails:?}");
    let store = Arc::new(FailingStore::new(at, fails));
    let stage = Stage::new(store.clone());
    stage.squad().create(&stage.id, stage.spec()).await.unwrap();
    let mut ended = stage.squad().work(&stage.id, &Interrupt::new()).await;
    let has_failed = store.appends() >= at;
    if has_failed {
        assert!(ended.is_err(), "{context}: {ended:?}");
        stage.check_given_back(&context).await;
        ended = stage.squad().work(&stage.id, &Interrupt::new()).await;
    }
    stage.check_landed(ended.unwrap(), &context).await;
    has_failed
}

#[tokio::test]
async fn whatever_fails_gives_its_logs_back_and_loses_nothing() {
    for (at, fails) in [(9, Fails::Before), (16, Fails::After)] {
        assert!(check_failing_store(at, fails).await);
    }
}

mod slow {
    use super::*;

    #[tokio::test]
    async fn a_store_that_fails_anywhere_loses_nothing_and_repeats_nothing() {
        // The first append creates the run.
        for (first, fails) in [(2, Fails::Before), (6, Fails::After)] {
            let mut at = first;
            while check_failing_store(at, fails).await {
                at += 8;
            }
            assert!(at > 40, "a run makes many appends, not {at}");
        }
    }
}
