//! Whether a log is what was written: its chain, its history, its blobs, its prompts.

use crate::failure::{Failure, Result};
use adj_domain::{BlobHash, ChainVerifier, Event, LogId, Run, RunEvent, Session, SessionEvent};
use adj_store::Store;
use serde::Serialize;
use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead, BufReader},
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
                        if let SessionEvent::ModelRequestStarted { purpose, prompt, .. } = &body {
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

/// Verifies a log of the store.
pub async fn log(store: &dyn Store, log: &LogId) -> Result<Finding> {
    let mut walk = Walk::new(log);
    let mut after = 0;
    loop {
        let page = store.read(log, after, 1000).await?;
        let Some(last) = page.last() else { break };
        // A forged number must not make the walk go in circles.
        if last.seq <= after {
            walk.problem(format!("event {} stands after event {after}", last.seq));
            break;
        }
        after = last.seq;
        for event in &page {
            walk.event(event);
        }
    }
    let summary = store.log(log).await?;
    if let (Some(chain), Some(summary)) = (walk.chain.take(), summary)
        && let Err(broken) = chain.finish(summary.head)
    {
        walk.problem(broken);
    }
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
        let line = line.map_err(|error| Failure::usage(format!("{}:{}: {error}", path.display(), number + 1)))?;
        if line.trim().is_empty() {
            continue;
        }
        let event: Event = serde_json::from_str(&line)
            .map_err(|error| Failure::usage(format!("{}:{}: not an event: {error}", path.display(), number + 1)))?;
        walks.entry(event.log.clone()).or_insert_with(|| Walk::new(&event.log)).event(&event);
    }
    if walks.is_empty() {
        return Err(Failure::usage(format!("{} holds no events", path.display())));
    }
    Ok(walks.into_values().map(|walk| walk.finding).collect())
}
