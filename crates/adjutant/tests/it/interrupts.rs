//! Ctrl+C: once lets everybody finish the step they are in, twice stops at once; both can be resumed.

use crate::{
    exec::{MODELS, world_of},
    support::{Done, Normal, World, files_of, kill, wait_for, wait_until_no_helper},
};
use adj_testkit::{FakeVendor, GitRepository, Reply, git_repository};
use rustix::process::Signal;
use serde_json::json;
use std::{
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

/// A running command, with its standard error read line by line.
struct Running {
    child: Child,
    errors: BufReader<std::process::ChildStderr>,
}

impl Running {
    fn start(world: &World, at: &Path, words: &[&str]) -> Self {
        let mut command = world.command(at, words);
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary can be started");
        let errors = BufReader::new(child.stderr.take().expect("a pipe"));
        Self { child, errors }
    }

    fn interrupt(&self) {
        kill(self.child.id() as i32, Signal::INT);
    }

    fn wait_for_line(&mut self, part: &str) {
        let mut line = String::new();
        while !line.contains(part) {
            line.clear();
            let read = self.errors.read_line(&mut line).expect("standard error is UTF-8");
            assert!(read > 0, "no line holds {part:?}");
        }
    }

    fn end(mut self) -> Done {
        let mut err = String::new();
        self.errors.read_to_string(&mut err).expect("standard error is UTF-8");
        let mut done = Done::of(self.child.wait_with_output().expect("the binary ends"));
        done.err = err;
        done
    }
}

fn playbook(command: &str) -> String {
    format!(
        r#"
rules:
  - {{ when: {{ agent: [planner, researcher] }}, say: noted }}
  - {{ when: {{ agent: builder, turn: 1 }}, say: two specialists }}
  - when: {{ agent: builder, turn: 2 }}
    json:
      specialists:
        - {{ id: a, title: Part a, task: Write a }}
        - {{ id: b, title: Part b, task: Write b, depends_on: [a] }}
  - when: {{ agent: a, turn: 1, step: 0 }}
    calls: [{{ tool: bash, input: {{ command: "{command}" }} }}]
  - {{ when: {{ agent: a, turn: 1, step: 1 }}, say: a is done }}
  - {{ when: {{ agent: a, turn: 2, input: "Go on from where you stopped" }}, say: a is done }}
  - when: {{ agent: b, step: 0 }}
    calls: [{{ tool: bash, input: {{ command: "cp a.log b.log" }} }}]
  - {{ when: {{ agent: b }}, say: b is done }}
"#
    )
}

const RUN: [&str; 4] = ["run", "Write a and b", "--gate", "cmp a.log b.log || test ! -e b.log"];

fn tree(repository: &GitRepository) -> String {
    assert_eq!(repository.git(&["status", "--porcelain"]), "");
    repository.git(&["rev-parse", "main^{tree}"])
}

fn uninterrupted() -> String {
    let (world, repository) = (World::playing(&playbook("echo one >> a.log")), git_repository(&[]));
    world.run(repository.path(), &RUN).exits(0);
    tree(&repository)
}

#[test]
fn a_run_that_is_interrupted_once_finishes_its_step_and_goes_on_later() {
    let (world, repository) = (World::playing(&playbook("sleep 0.5; echo one >> a.log")), git_repository(&[]));
    let running = Running::start(&world, repository.path(), &RUN);
    world.wait_for_call("echo one");
    running.interrupt();
    let done = running.end().exits(130);
    let (run, _) = world.only_run();
    assert!(done.err.contains("Stopping after the step under way. Press Ctrl+C again to stop at once"), "{done}");
    assert!(done.out.starts_with("\nInterrupted\n"), "{done}");
    assert!(done.out.ends_with(&format!("Resume    adjutant run --resume {run}\n")), "{done}");
    assert!(!done.err.contains("· b "), "nothing new was started: {done}");
    wait_until_no_helper(&world.state());
    assert_eq!(repository.git(&["log", "--format=%s", "main"]), "first");

    world.run(repository.path(), &["run", "--resume", &run]).exits(0);
    assert_eq!(tree(&repository), uninterrupted());
    let normal = Normal::of(&world, &run, repository.path());
    let call = normal.sessions["a"].iter().find(|line| line.contains("echo one")).expect("the call is there");
    assert!(call.contains("\"exit_code\":0"), "the step came to its end: {call}");
    wait_until_no_helper(&world.state());
    world.verify();
}

#[test]
fn a_run_that_is_interrupted_twice_stops_at_once_and_goes_on_later() {
    let (world, repository) = (World::playing(&playbook("echo one >> a.log; sleep 600")), git_repository(&[]));
    let mut running = Running::start(&world, repository.path(), &RUN);
    world.wait_for_call("echo one");
    // The first line of the command is done when its sleep is there.
    wait_for("the command to begin", || {
        let sleeps = crate::support::commands_of(&world.state()).iter().any(|command| command == "sleep 600");
        sleeps.then_some(())
    });
    running.interrupt();
    running.wait_for_line("Stopping after the step under way");
    let second = Instant::now();
    running.interrupt();
    running.end().exits(130);
    assert!(second.elapsed() < Duration::from_secs(5), "at once, and not after {:?}", second.elapsed());
    wait_until_no_helper(&world.state());
    let (run, _) = world.only_run();

    world.run(repository.path(), &["run", "--resume", &run]).exits(0);
    assert_eq!(tree(&repository), uninterrupted(), "the command was not run again");
    wait_until_no_helper(&world.state());
    world.verify();
}

#[test]
fn one_agent_that_is_interrupted_goes_on_later_without_a_new_prompt() {
    for model in MODELS {
        let vendor = FakeVendor::with(|asked| match asked.number {
            0 => Reply::call("bash", json!({"command": "sleep 0.5; echo one >> a.log"})),
            _ => Reply::text("Done."),
        });
        let world = world_of(&vendor);
        let folder = world.folder("work", &[]);
        let running = Running::start(&world, &folder, &["exec", "-m", model, "go"]);
        world.wait_for_call("echo one");
        running.interrupt();
        let done = running.end().exits(130);
        let (session, _) = world.only_session();
        assert!(done.err.contains("error: stopped after its step"), "{model}: {done}");
        assert!(done.err.contains(&format!("Hint: `adjutant exec --resume {session}`")), "{model}: {done}");
        wait_until_no_helper(&world.state());
        assert_eq!(files_of(&folder)["a.log"], "one\n", "{model}: the step came to its end");
        assert_eq!(vendor.requests().len(), 1, "{model}");

        let done = world.run(&folder, &["exec", "--resume", &session]).exits(0);
        assert_eq!(done.out, "Done.\n", "{model}");
        assert!(vendor.requests()[1].last().to_string().contains("You were interrupted."), "{model}");
        assert_eq!(files_of(&folder)["a.log"], "one\n", "{model}");
        world.verify();
    }
}

/// A vendor that was down, and is up again.
#[test]
fn one_agent_whose_model_could_not_be_called_goes_on_later() {
    for model in MODELS {
        let refused = Reply::failure(403, "permission_error", "not on a Sunday");
        let vendor = FakeVendor::answering([refused, Reply::text("Done.")]);
        let world = world_of(&vendor);
        let folder = world.folder("work", &[]);
        world.run(&folder, &["exec", "-m", model, "say something"]).exits(1);
        let done = world.run(&folder, &["exec", "--resume", &world.only_session().0]).exits(0);
        assert_eq!(done.out, "Done.\n", "{model}");
        assert!(vendor.requests()[1].body.to_string().contains("say something"), "{model}");
        world.verify();
    }
}
