//! The next request of a session, made from nothing but its fold.

use crate::compaction;
use adj_domain::{BlobHash, Caller, Item, ModelRequest, PromptRecord, Purpose, Sampling, Session};

/// Builds the request that a session sends next.
///
/// Everything that a vendor sees grows at its end only, until the context is compacted: the request after this one
/// starts with the very same bytes, which is what vendors' caches need.
pub fn build_request(session: &Session, purpose: Purpose) -> ModelRequest {
    let agent = &session.spec.agent;
    let items = match purpose {
        Purpose::Step => session.items.clone(),
        Purpose::Compaction => compaction::items(session),
    };
    ModelRequest {
        model: agent.model.clone(),
        purpose,
        caller: Caller {
            session: session.id.clone(),
            run: session.spec.run.as_ref().map(|(run, _)| run.clone()),
            agent: agent.name.clone(),
            role: agent.role.clone(),
            turn: session.turn,
            step: session.step,
        },
        system: session.spec.system_prompt(),
        items,
        tools: agent.tools.iter().chain(&agent.custom_tools).cloned().collect(),
        max_output_tokens: agent.max_output_tokens,
        output_schema: if purpose == Purpose::Step { session.output_schema.clone() } else { None },
        effort: agent.effort.clone(),
        sampling: Sampling::default(),
    }
}

/// Names the prompt of a request, so that a trace can be held against it.
pub fn prompt_record(request: &ModelRequest) -> PromptRecord {
    let prompt: (&str, &[_], &[Item], _) = (&request.system, &request.tools, &request.items, &request.output_schema);
    let json = serde_json::to_vec(&prompt).expect("a prompt is made of strings and JSON values");
    PromptRecord {
        hash: BlobHash::of(&json),
        items: request.items.len() as u64,
        estimated_tokens: (json.len() / 4) as u64,
    }
}
