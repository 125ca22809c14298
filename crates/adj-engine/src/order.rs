//! Whose turn it is among the calls of one answer.

use adj_domain::{EventId, ToolRequest};
use std::collections::VecDeque;

/// A call that is remembered as started.
#[derive(Debug)]
pub(crate) struct Call {
    pub id: EventId,
    pub request: ToolRequest,
    pub started_before: bool,
}

/// Calls that wait: one that may change something runs alone and in its place, because a model that writes a file and
/// tests it in one answer means that order; calls that only look run side by side.
#[derive(Debug, Default)]
pub(crate) struct Order {
    waiting: VecDeque<Call>,
    running: usize,
    is_alone: bool,
}

impl Order {
    pub(crate) fn push(&mut self, call: Call) {
        self.waiting.push_back(call);
    }

    /// The next call that may start now.
    pub(crate) fn next(&mut self) -> Option<Call> {
        let looks_only = adj_tools::is_repeatable(&self.waiting.front()?.request.name);
        if self.running > 0 && (self.is_alone || !looks_only) {
            return None;
        }
        self.running += 1;
        self.is_alone = !looks_only;
        self.waiting.pop_front()
    }

    pub(crate) fn ended(&mut self) {
        self.running -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_changes_something_runs_alone_and_in_its_place() {
        let cases: [(&[&str], &[&str]); 6] = [
            (&["bash"], &["bash"]),
            (&["bash", "bash"], &["bash", "bash"]),
            (&["read", "grep", "glob"], &["read grep glob"]),
            (&["read", "write", "read", "read"], &["read", "write", "read read"]),
            (&["write", "bash", "read", "edit"], &["write", "bash", "read", "edit"]),
            (&["unknown", "read"], &["unknown", "read"]),
        ];
        for (calls, expected) in cases {
            let mut order = Order::default();
            for (number, name) in calls.iter().enumerate() {
                let id = EventId::derive(&[&number.to_string()]);
                let request = ToolRequest { name: (*name).to_owned(), input: json!({}) };
                order.push(Call { id, request, started_before: false });
            }
            let mut found = Vec::new();
            loop {
                let together: Vec<String> = std::iter::from_fn(|| order.next()).map(|call| call.request.name).collect();
                if together.is_empty() {
                    break;
                }
                together.iter().for_each(|_| order.ended());
                found.push(together.join(" "));
            }
            assert_eq!(found, expected, "{calls:?}");
        }
    }
}
