//! Questions that only a person answers: what is asked, what it is bound to, and the answer.
//!
//! Must not know: who is asked, on which screen, or what time it is.

use crate::{
    Timestamp,
    id::{BlobHash, EventId},
    network::Destination,
};
use serde::{Deserialize, Serialize};

/// What a person is asked about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ApprovalSubject {
    /// A tool call that waits. The approval's id is the call's.
    Tool {
        tool_use_id: EventId,
        /// A hash over the tool, its arguments, the workspace's tree and the policy: an answer holds for these only.
        binding: BlobHash,
    },
    /// A host that a running command wants to reach. The approval's id is that of the event that asked.
    Host { to: Destination },
}

/// A question that waits for its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    pub id: EventId,
    pub subject: ApprovalSubject,
    /// Unanswered until then, it is denied.
    pub expires_at: Timestamp,
}

impl Approval {
    /// What an answer has to name, so that it cannot be used for a later question about the same call.
    pub fn binding(&self) -> Option<&BlobHash> {
        match &self.subject {
            ApprovalSubject::Tool { binding, .. } => Some(binding),
            ApprovalSubject::Host { .. } => None,
        }
    }
}

/// The one answer to an approval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApprovalResult {
    Allow,
    Deny,
}

/// What somebody answered, as it waits in the queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmation {
    /// For a tool call its `tool_use_id`.
    pub approval_id: EventId,
    /// What the answerer saw; an answer to something else is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binding: Option<BlobHash>,
    pub result: ApprovalResult,
    /// What the model is told with a denial.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deny_message: Option<String>,
    /// Who answered: an account of the machine, or a face.
    pub by: String,
}
