//! Whether a log is what was written: its chain, its history, its blobs, its prompts.

use crate::failure::{Code, Failure, Result};
use adj_domain::{
    BlobHash, ChainHash, ChainVerifier, Event, LogId, Run, RunEvent, Seq, Session, SessionEvent, run::StepState,
};
use adj_store::{Store, StoreError};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufRead, BufReader},
    path::Path,
};

/// What was found about one log.
#[derive(Debug, Serialize)]
pub struct Finding {
    pub log: String,
    pub events: u64,
    pub prompts: u64,
    pub blobs: u64,
    pub problems: Vec<String>,
}

/// Follows one log from event to event.
struct Walk {
    finding: Finding,
    chain: Option<ChainVerifier>,
    session: Option<Session>,
    run: Option<Run>,
    folds: bool,
    blobs: Vec<BlobHash>,
}

impl Walk {
    fn new(log: &LogId) -> Self {
        let finding = Finding { log: log.to_string(), events: 0, prompts: 0, blobs: 0, problems: Vec::new() };
        let chain = Some(ChainVerifier::new(log.clone()));
        Self { finding, chain, session: None, run: None, folds: true, blobs: Vec::new() }
    }

    fn event(&mut self, event: &Event) {
        self.finding.events += 1;
        if let Some(chain) = &mut self.chain
            && let Err(broken) = chain.check(event)
        {
            // After the first break nothing that follows can be vouched for; saying so once is enough.
            self.problem(broken);
            self.chain = None;
        }
        if self.folds
            && let Err(problem) = self.fold(event)
        {
            self.folds = false;
            self.finding.problems.push(problem);
        }
    }

    fn problem(&mut self, problem: impl std::fmt::Display) {
        self.finding.problems.push(problem.to_string());
    }

    /// Events behind the end that no head knows of; those that were written while we walked are fine.
    async fn beyond(&mut self, store: &dyn Store, log: &LogId, end: Seq) -> Result<()> {
        let next = match store.read(log, end, 1).await {
            Ok(page) => page.first().map(|event| event.seq),
            Err(damage @ StoreError::Corrupt { .. }) => {
                self.problem(damage);
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let head = store.log(log).await?.map_or(0, |summary| summary.head);
        if let Some(extra) = next.filter(|seq| *seq > head) {
            self.problem(format!("{log}: event {extra} stands behind the head, which is event {head}"));
        }
        Ok(())
    }

    /// A run whose turn has ended had a session, and that is somewhere.
    async fn sessions(&mut self, store: &dyn Store) -> Result<()> {
        let Some(run) = self.run.take() else { return Ok(()) };
        for (name, step) in &run.steps {
            let is_over = step.turns.values().any(|turn| matches!(turn, StepState::Finished(_)));
            if let Some(session) = step.session.as_ref().filter(|_| is_over)
                && store.log(&LogId::from(session.clone())).await?.is_none()
            {
                self.problem(format!("{}: the session {session} of {name} is missing", run.id));
            }
        }
        Ok(())
    }

    fn fold(&mut self, event: &Event) -> std::result::Result<(), String> {
        let words = |error: &dyn std::error::Error| match error.source() {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        };
        match &event.log {
            LogId::Session(id) => {
                let body = event.session_event().map_err(|error| words(&error))?;
                if let SessionEvent::AgentToolResult { full_output: Some(hash), .. } = &body {
                    self.blobs.push(hash.clone());
                }
                match (&mut self.session, body) {
                    (slot @ None, SessionEvent::Created { spec }) => {
                        *slot = Some(Session::created(id.clone(), *spec));
                        Ok(())
                    }
                    (None, _) => Err("the first event is not session.created".to_owned()),
                    (Some(session), body) => {
                        if let SessionEvent::ModelRequestStarted { purpose, prompt, origin: None, .. } = &body {
                            self.finding.prompts += 1;
                            let rebuilt = adj_harness::prompt_record(&adj_harness::build_request(session, *purpose));
                            if rebuilt != *prompt {
                                return Err(format!(
                                    "event {}: the prompt rebuilt from the log is {}, the one sent was {}",
                                    event.seq, rebuilt.hash, prompt.hash
                                ));
                            }
                        }
                        session.apply(&event.id, &body).map_err(|error| words(&error))
                    }
                }
            }
            LogId::Grants => event.grant_event().map(|_| ()).map_err(|error| words(&error)),
            LogId::Budgets => event.budget_event().map(|_| ()).map_err(|error| words(&error)),
            LogId::Run(id) => {
                let body = event.run_event().map_err(|error| words(&error))?;
                if let RunEvent::GateFinished { receipt, .. } = &body {
                    self.blobs.push(receipt.output.clone());
                }
                match (&mut self.run, body) {
                    (slot @ None, RunEvent::Created { spec }) => {
                        *slot = Some(Run::created(id.clone(), *spec));
                        Ok(())
                    }
                    (None, _) => Err("the first event is not run.created".to_owned()),
                    (Some(run), body) => run.apply(&body).map_err(|error| words(&error)),
                }
            }
        }
    }
}

/// Verifies a log of the store. Somebody may be writing it meanwhile; what came after the first look at its head is left out.
pub async fn log(store: &dyn Store, log: &LogId) -> Result<Finding> {
    let mut walk = Walk::new(log);
    let Some(summary) = store.log(log).await? else {
        walk.problem(format!("{log}: the log is missing"));
        return Ok(walk.finding);
    };
    let mut after = 0;
    let mut end = ChainHash::start(log);
    'pages: while after < summary.head {
        let page = match store.read(log, after, 1000).await {
            Ok(page) => page,
            // A row that cannot even be read is as much of a finding as one that says something else.
            Err(damage @ StoreError::Corrupt { .. }) => {
                walk.problem(damage);
                walk.chain = None;
                break;
            }
            Err(error) => return Err(error.into()),
        };
        if page.is_empty() {
            break;
        }
        for event in &page {
            // A forged number must not make the walk go in circles.
            if event.seq <= after {
                walk.problem(format!("{log}: event {} stands after event {after}", event.seq));
                break 'pages;
            }
            if event.seq > summary.head {
                break 'pages;
            }
            (after, end) = (event.seq, event.hash);
            walk.event(event);
        }
    }
    if let Some(chain) = walk.chain.take() {
        match chain.finish(summary.head) {
            Err(broken) => walk.problem(broken),
            Ok(()) if end != summary.head_hash => walk.problem(format!(
                "{log}: event {after} is not the last one that was written (its hash is {end}, the head's {})",
                summary.head_hash
            )),
            Ok(()) => walk.beyond(store, log, after).await?,
        }
    }
    walk.sessions(store).await?;
    for hash in std::mem::take(&mut walk.blobs) {
        match store.get_blob(&hash).await {
            Ok(Some(_)) => walk.finding.blobs += 1,
            Ok(None) => walk.problem(format!("blob {hash} is missing")),
            Err(error) => walk.problem(format!("blob {hash}: {error}")),
        }
    }
    Ok(walk.finding)
}

/// Verifies an exported file: the logs in it, without their blobs. That the end of a log is missing cannot be seen in a file.
pub fn file(path: &Path) -> Result<Vec<Finding>> {
    let open = File::open(path).map_err(|error| Failure::usage(format!("cannot read {}: {error}", path.display())))?;
    let mut walks: BTreeMap<LogId, Walk> = BTreeMap::new();
    for (number, line) in BufReader::new(open).lines().enumerate() {
        let place = || format!("{}:{}", path.display(), number + 1);
        let line = match line {
            Err(error) if error.kind() != io::ErrorKind::InvalidData => {
                return Err(Failure::usage(format!("cannot read {}: {error}", place())));
            }
            line => line.map_err(|error| Failure::new(Code::TraceBroken, format!("{}: {error}", place())))?,
        };
        if line.trim().is_empty() {
            continue;
        }
        let event: Event = serde_json::from_str(&line)
            .map_err(|error| Failure::new(Code::TraceBroken, format!("{}: not an event: {error}", place())))?;
        walks.entry(event.log.clone()).or_insert_with(|| Walk::new(&event.log)).event(&event);
    }
    if walks.is_empty() {
        return Err(Failure::usage(format!("{} holds no events", path.display())));
    }
    Ok(walks.into_values().map(|walk| walk.finding).collect())
}
