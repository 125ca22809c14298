//! When a conversation nearly fills its window: the request for a summary, and what it covers.

use adj_domain::{Content, Item, Session};

const ASK: &str = "The conversation is about to exceed the context window. Write a summary that lets somebody else \
                   continue the work without the conversation: what was asked, what was decided and why, what was \
                   done (files, commands, results), what is still open, and the very next step. Only the summary.";

/// Whether the next request would come too near to the window.
pub(crate) fn is_due(session: &Session) -> bool {
    let agent = &session.spec.agent;
    let room = agent
        .context_window_tokens
        .saturating_sub(u64::from(agent.max_output_tokens));
    // A tenth stays free, because four bytes a token is only an estimate.
    session.estimated_context_tokens() > room - room / 10 && session.items.len() > 2
}

/// The conversation as far as it fits into half of the window, newest part, followed by the wish for a summary.
pub(crate) fn items(session: &Session) -> Vec<Item> {
    let room_bytes = session.spec.agent.context_window_tokens.saturating_mul(2);
    let mut kept = session.items.len();
    let mut bytes = 0;
    let mut cut = kept;
    while kept > 0 {
        kept -= 1;
        bytes += serde_json::to_string(&session.items[kept]).map_or(0, |json| json.len() as u64);
        if bytes > room_bytes {
            break;
        }
        // Only where nobody's call is parted from its result may the conversation begin.
        if matches!(session.items[kept], Item::User { .. }) || starts_step(&session.items, kept) {
            cut = kept;
        }
    }
    let mut items = session.items[cut..].to_vec();
    items.push(Item::User {
        content: vec![Content::text(ASK)],
    });
    items
}

fn starts_step(items: &[Item], index: usize) -> bool {
    let begins = matches!(
        items[index],
        Item::Assistant { .. } | Item::Reasoning { .. } | Item::ToolCall { .. }
    );
    begins && (index == 0 || matches!(items[index - 1], Item::ToolResult { .. } | Item::User { .. }))
}
