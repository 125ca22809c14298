//! A command with a network: its door is held open here, what happens there is written down, and people are asked.

use super::{Wanted, say, with_terminal};
use crate::{confinement::place, failure::Result, wiring, words::one_line};
use adj_domain::{Destination, SessionEvent, Timestamp, Verdict};
use adj_engine::{CommandDoor, DoorNews};
use adj_sandbox::{Exit, Here, Plan, Questions, RunError, Streams};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::{collections::HashSet, ffi::OsString, fs::File, io::Write, os::fd::AsFd, sync::Arc};
use tokio::{
    runtime::Runtime,
    sync::{mpsc, oneshot},
};
use tokio_util::sync::CancellationToken;

/// So many refusals are told; a command that tries for ever does not fill the screen.
const MOST_TOLD: usize = 50;
/// Longest answer that is read.
const LONGEST_ANSWER: usize = 1000;

/// Runs the command while the door is served by threads of their own.
pub fn run(
    wanted: Wanted,
    mut here: Here,
    argv: &[OsString],
    streams: Streams,
    log: Option<File>,
) -> Result<std::result::Result<(Exit, Plan), RunError>> {
    wiring::forbid_core_dumps()?;
    let state = wiring::state_dir()?;
    wanted.asked.check_secrets(&state)?;
    let vault = wiring::vault(&state)?;
    let (plan, door) = wanted.confined.with_network(&vault, &wanted.id, wiring::upstream()?)?;
    drop(vault);
    let plan = with_terminal(plan, &here);
    let door = Arc::new(door);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let stop = CancellationToken::new();
    let watching = Watching {
        door: Arc::clone(&door),
        log,
        told: HashSet::new(),
        questions: here.questions().map(|terminal| asker(&runtime, terminal.clone())),
    };
    let watching = runtime.spawn(watching.watch(stop.clone()));
    let mut open = None;
    let ended = here.start(&plan, argv, streams).and_then(|()| {
        here.wait(|listener| {
            let _within = runtime.enter();
            open = Some(door.open(listener));
        })
    });
    let refused = match open {
        Some(Err(error)) => Some(error),
        Some(Ok(open)) => {
            // Nothing is decided any more after this, and everything that was is still written down.
            runtime.block_on(open.stop());
            None
        }
        None => None,
    };
    stop.cancel();
    let _ = runtime.block_on(watching);
    // Somebody may still be asked; nobody waits for the answer.
    runtime.shutdown_background();
    match refused {
        Some(error) => Err(error.into()),
        None => Ok(ended.map(|exit| (exit, plan))),
    }
}

/// Who writes down and tells what happens at the door.
struct Watching {
    door: Arc<CommandDoor>,
    log: Option<File>,
    told: HashSet<String>,
    questions: Option<mpsc::Sender<Question>>,
}

struct Question {
    to: Destination,
    expires_at: Timestamp,
    reply: oneshot::Sender<bool>,
}

impl Watching {
    async fn watch(mut self, stop: CancellationToken) {
        loop {
            let news = tokio::select! {
                biased;
                news = self.door.news() => news,
                () = stop.cancelled() => return,
            };
            match news {
                Some(DoorNews::Decided(event)) => self.decided(&event),
                Some(DoorNews::Asked { to, expires_at, reply }) => {
                    // Where nobody can be asked, or too much is being asked already, the answer is no.
                    if let Some(questions) = &self.questions {
                        let _ = questions.try_send(Question { to, expires_at, reply });
                    }
                }
                None => return,
            }
        }
    }

    fn decided(&mut self, event: &SessionEvent) {
        if let Some(log) = &mut self.log
            && let Err(error) = write_line(log, event)
        {
            // What cannot be written down does not happen.
            self.door.shut();
            self.log = None;
            say(&format!("error: no host can be reached any more, because the log cannot be written: {error}\n"));
        }
        let SessionEvent::NetworkDecided { to, ruling, .. } = event else { return };
        if ruling.verdict == Verdict::Allow || self.told.len() >= MOST_TOLD {
            return;
        }
        let text =
            format!("refused {}: {} ({})", one_line(&to.to_string(), 200), one_line(&ruling.rule, 300), place(ruling));
        if self.told.insert(text.clone()) {
            say(&format!("adjutant: {text}\n"));
            if self.told.len() == MOST_TOLD {
                say("adjutant: further refusals are not told here; --log FILE holds them all\n");
            }
        }
    }
}

fn write_line(log: &mut File, event: &SessionEvent) -> std::io::Result<()> {
    let mut line = serde_json::to_value(event)?;
    if let Some(fields) = line.as_object_mut() {
        fields.insert("at".to_owned(), serde_json::to_value(Timestamp::now())?);
    }
    // In one piece, so that several commands may share a file.
    log.write_all(format!("{line}\n").as_bytes())
}

/// Puts questions to whoever sits at the terminal, one after the other.
fn asker(runtime: &Runtime, terminal: Questions) -> mpsc::Sender<Question> {
    let (sender, mut questions) = mpsc::channel::<Question>(16);
    runtime.spawn_blocking(move || {
        while let Some(question) = questions.blocking_recv() {
            let is_allowed = ask(&terminal, &question).unwrap_or(false);
            // The command may have ended meanwhile.
            let _ = question.reply.send(is_allowed);
        }
    });
    sender
}

/// Asks one question; `None` where nobody answers.
fn ask(terminal: &Questions, question: &Question) -> Option<bool> {
    let tty = terminal.begin()?;
    let (host, port) = (one_line(&question.to.host, 253), question.to.port);
    say(&format!(
        "\nThe command asks to reach {host}:{port}, and waits\n  y  yes, until the command ends\n  n  no; without an answer it is no in {}\n",
        left(question.expires_at),
    ));
    loop {
        say("Allow it? ");
        let Some(line) = read_line(&tty, question.expires_at) else {
            say("\nNobody answered, so it is refused\n");
            return None;
        };
        match line.trim() {
            "y" | "yes" => return Some(true),
            "n" | "no" => return Some(false),
            _ => say("y or n, please\n"),
        }
    }
}

fn left(until: Timestamp) -> String {
    let left = until.duration_since(Timestamp::now());
    crate::words::duration(u64::try_from(left.as_millis()).unwrap_or(0))
}

/// Reads one line until a moment; `None` when there is none.
fn read_line(tty: impl AsFd, until: Timestamp) -> Option<String> {
    let left = std::time::Duration::try_from(until.duration_since(Timestamp::now())).ok()?;
    let left = Timespec { tv_sec: i64::try_from(left.as_secs()).ok()?, tv_nsec: left.subsec_nanos().into() };
    let mut line = vec![0; LONGEST_ANSWER];
    poll(&mut [PollFd::new(&tty, PollFlags::IN)], Some(&left)).ok().filter(|count| *count > 0)?;
    let count = rustix::io::read(&tty, &mut *line).ok().filter(|count| *count > 0)?;
    line.truncate(count);
    Some(String::from_utf8_lossy(&line).into_owned())
}
