//! When a conversation nearly fills its window: the request for a summary, and what it covers.

use adj_domain::{Content, Item, Session};

const ASK: &str = "The conversation is about to exceed the context window. Write a summary that lets somebody else \
                   continue the work without the conversation: what was asked, what was decided and why, what was \
                   done (files, commands, results), what is still open, and the very next step. Only the summary.";

/// Whether the next request would come too near to the window.
pub(crate) fn is_due(session: &Session) -> bool {
    let agent = &session.spec.agent;
    let room = agent.context_window_tokens.saturating_sub(u64::from(agent.max_output_tokens));
    // A tenth stays free, because four bytes a token is only an estimate.
    session.estimated_context_tokens() > room - room / 10 && session.items.len() > 2
}

/// The newest part of the conversation that fits into half of the window, followed by the wish for a summary.
///
/// Very long texts are shortened first, so that one of them cannot push out everything else.
pub(crate) fn items(session: &Session) -> Vec<Item> {
    let room_bytes = usize::try_from(session.spec.agent.context_window_tokens.saturating_mul(2)).unwrap_or(usize::MAX);
    let mut items: Vec<Item> = session.items.iter().map(|item| shortened(item, room_bytes / 8)).collect();
    let mut bytes = 0;
    let mut cut = items.len();
    for index in (0..items.len()).rev() {
        bytes += serde_json::to_string(&items[index]).map_or(0, |json| json.len());
        // The newest step is there in any case: a summary without it would be about nothing.
        if bytes > room_bytes && cut < items.len() {
            break;
        }
        // Only where nobody's call is parted from its result may the conversation begin.
        if matches!(items[index], Item::User { .. }) || starts_step(&items, index) {
            cut = index;
        }
    }
    let mut items = items.split_off(cut);
    items.push(Item::User { content: vec![Content::text(ASK)] });
    items
}

fn shortened(item: &Item, longest: usize) -> Item {
    let mut item = item.clone();
    if let Item::ToolResult { content, .. } | Item::User { content } = &mut item {
        for block in content {
            if let Content::Text { text } = block
                && text.len() > longest
            {
                let head = &text[..text.floor_char_boundary(longest / 2)];
                let tail = &text[text.ceil_char_boundary(text.len() - longest / 2)..];
                *text = format!("{head}\n[{} bytes left out]\n{tail}", text.len() - head.len() - tail.len());
            }
        }
    }
    item
}

fn starts_step(items: &[Item], index: usize) -> bool {
    let begins = matches!(items[index], Item::Assistant { .. } | Item::Reasoning { .. } | Item::ToolCall { .. });
    begins && (index == 0 || matches!(items[index - 1], Item::ToolResult { .. } | Item::User { .. }))
}
