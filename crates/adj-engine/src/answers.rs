//! Questions to people: what a call is bound to while one waits, how an answer gets in, and when it is too late.

use crate::engine::{Engine, EngineError, Inner};
use adj_domain::{
    Approval, ApprovalResult, BlobHash, Confirmation, EventId, LogId, PendingInput, Session, SessionId, Timestamp,
    ToolRequest, WorkspaceSpec, event::Input as Queued,
};
use adj_harness::can_wake;
use adj_sandbox::Mount;
use adj_store::Submitted;
use std::{future, path::Path, time::Duration};

/// Another process tells of its answer only through the store, so that is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Why an answer was not taken.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    #[error("the session {session} asks nothing under {approval}: it was answered, has expired, or never asked")]
    NotAsked { session: SessionId, approval: EventId },
    #[error("{approval} has been answered already; the first answer counts")]
    AlreadyAnswered { approval: EventId },
    #[error("{approval} expired at {at}, which is a denial")]
    Expired { approval: EventId, at: Timestamp },
}

/// What somebody says to a question.
#[derive(Debug, Clone)]
pub struct Answer {
    pub result: ApprovalResult,
    /// For the model, with a denial.
    pub message: Option<String>,
    /// Who says it.
    pub by: String,
}

impl Engine {
    /// Queues the one answer to an open question. The first that is queued counts, whoever else answers at the same time.
    pub async fn answer(&self, id: &SessionId, approval: &EventId, answer: Answer) -> Result<(), EngineError> {
        let session = self.session(id).await?;
        let Some(open) = session.approvals.iter().find(|open| open.id == *approval) else {
            return Err(AnswerError::NotAsked { session: id.clone(), approval: approval.clone() }.into());
        };
        if open.expires_at <= Timestamp::now() {
            return Err(AnswerError::Expired { approval: approval.clone(), at: open.expires_at }.into());
        }
        // One id for each question: the queue itself refuses the second answer.
        let binding = open.binding().map_or("", |binding| binding.as_str());
        let input = PendingInput {
            id: EventId::derive(&[
                "confirmation",
                id.as_str(),
                approval.as_str(),
                binding,
                &open.expires_at.to_string(),
            ]),
            input: Queued::Confirmation(Confirmation {
                approval_id: approval.clone(),
                binding: open.binding().cloned(),
                result: answer.result,
                deny_message: answer.message,
                by: answer.by,
            }),
        };
        if self.store().submit(&LogId::from(id.clone()), &input).await? == Submitted::Already {
            return Err(AnswerError::AlreadyAnswered { approval: approval.clone() }.into());
        }
        self.0.bells.of(id).notify_waiters();
        Ok(())
    }

    /// Waits until a session that asks people something has an answer in its queue, or a question has expired.
    pub async fn wait_for_answer(&self, id: &SessionId) -> Result<(), EngineError> {
        let session = self.session(id).await?;
        self.news(&session, future::ready(())).await
    }

    /// Returns when something was queued for `session` that does not wait for the step's end, or a question has expired.
    /// `rung`: since the queue was last looked at.
    pub(crate) async fn news(&self, session: &Session, rung: impl Future<Output = ()>) -> Result<(), EngineError> {
        let log = LogId::from(session.id.clone());
        let asks_people = !session.approvals.is_empty();
        rung_or_late(rung, asks_people).await;
        loop {
            let rung = self.0.bells.of(&session.id).notified();
            let pending = self.store().pending(&log).await?;
            let is_news = |input: &PendingInput| !matches!(input.input, Queued::Message { .. });
            if pending.iter().any(is_news) || !expired(session, Timestamp::now()).is_empty() {
                return Ok(());
            }
            rung_or_late(rung, asks_people).await;
        }
    }
}

/// Whoever rings wakes us. Where people are asked, nothing is lost if nobody can.
async fn rung_or_late(rung: impl Future<Output = ()>, asks_people: bool) {
    match asks_people {
        true => drop(tokio::time::timeout(LOOK_EVERY, rung).await),
        false => rung.await,
    }
}

/// The questions whose time is over.
pub(crate) fn expired(session: &Session, now: Timestamp) -> Vec<EventId> {
    session.approvals.iter().filter(|open: &&Approval| open.expires_at <= now).map(|open| open.id.clone()).collect()
}

/// Whether a session at rest has something to go on with.
pub(crate) fn has_work(session: &Session, pending: &[PendingInput]) -> bool {
    can_wake(session, pending) || (session.waits_for_people() && !expired(session, Timestamp::now()).is_empty())
}

/// Hashes everything that an answer about `call` is good for: the tool, its arguments, the workspace's tree, the policy.
pub(crate) async fn binding(
    engine: &Inner,
    session: &Session,
    call: &EventId,
    policy: &str,
) -> Result<BlobHash, EngineError> {
    let call = session.calls.iter().find(|known| known.id == *call).expect("only an open call is bound");
    let request = ToolRequest { name: call.name.clone(), input: call.input.clone() };
    let request = serde_json::to_string(&request).expect("a request is JSON with string keys");
    let root = match &session.spec.workspace {
        WorkspaceSpec::Direct { path } => path.into(),
        WorkspaceSpec::Private { repository, commit, name } => {
            let workspaces = engine.workspaces().await?;
            let repository = workspaces.repository(Path::new(repository)).await?;
            match workspaces.prepare(&repository, &commit.parse()?, &name.parse()?).await?.mount() {
                // The lower layer is the commit's, which nobody changes.
                Mount::Overlay { upper, .. } => upper,
                Mount::Direct { host, .. } => host,
                Mount::None => unreachable!("a private workspace has a folder"),
            }
        }
    };
    let tree = tokio::task::spawn_blocking(move || adj_workspace::fingerprint(&root)).await;
    let tree = tree.expect("looking at a folder does not panic").map_err(|source| EngineError::Bind { source })?;
    let tree = BlobHash::of(&tree);
    Ok(BlobHash::of(format!("{}\n{}\n{tree}\n{policy}", call.id, BlobHash::of(request.as_bytes())).as_bytes()))
}
