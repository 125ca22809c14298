//! A conversation as it is read from a caller's wire, in the one order that every vendor takes.

use super::{only_own, reasoning};
use crate::endpoint::{Refusal, Wire};
use adj_domain::{Content, EventId, Item};
use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};

/// Takes one thing after another. Results may come in any order and with messages in between; neutral, all the results of a
/// batch follow its calls, in the order of the calls, and the messages follow them.
pub(super) struct Conversation {
    wire: Wire,
    system: String,
    items: Vec<Item>,
    /// The calls of the batch under way, in order, by the caller's ids.
    batch: Vec<String>,
    /// Those that have no result yet.
    open: BTreeMap<String, EventId>,
    /// The ids of the batch by the names of what was called, in order.
    by_name: BTreeMap<String, VecDeque<String>>,
    results: BTreeMap<String, Item>,
    waiting: Vec<Content>,
    /// How often an id was used: there are vendors that begin to count anew with each answer.
    seen: BTreeMap<String, u32>,
}

impl Conversation {
    pub(super) fn new(wire: Wire, system: &str) -> Self {
        Self {
            wire,
            system: system.to_owned(),
            items: Vec::new(),
            batch: Vec::new(),
            open: BTreeMap::new(),
            by_name: BTreeMap::new(),
            results: BTreeMap::new(),
            waiting: Vec::new(),
            seen: BTreeMap::new(),
        }
    }

    /// What the wire calls its list of messages.
    fn list(&self) -> &'static str {
        match self.wire {
            Wire::Responses => "input",
            Wire::Messages | Wire::Chat => "messages",
            Wire::Gemini => "contents",
        }
    }

    fn invalid(&self, message: impl AsRef<str>) -> Refusal {
        Refusal::invalid(format!("{}: {}", self.list(), message.as_ref()))
    }

    /// Adds instructions: those before all messages join the system prompt, later ones are shown where they stand.
    pub(super) fn instruct(&mut self, text: &str) {
        if text.trim().is_empty() {
            return;
        }
        if self.items.is_empty() {
            let gap = if self.system.is_empty() { "" } else { "\n\n" };
            self.system.push_str(gap);
            self.system.push_str(text);
        } else {
            self.say(vec![Content::Text { text: format!("<system-reminder>\n{text}\n</system-reminder>") }]);
        }
    }

    /// Adds to what the user said last, or begins anew.
    pub(super) fn say(&mut self, contents: Vec<Content>) {
        if contents.is_empty() {
            return;
        }
        self.end_batch();
        if !self.batch.is_empty() {
            self.waiting.extend(contents);
            return;
        }
        match self.items.last_mut() {
            Some(Item::User { content }) => content.extend(contents),
            _ => self.items.push(Item::User { content: contents }),
        }
    }

    pub(super) fn assistant(&mut self, text: String) {
        self.end_batch();
        if !text.trim().is_empty() {
            self.items.push(Item::Assistant { text });
        }
    }

    /// Adds records of reasoning out of a text in which we sealed them; `false` where it is not ours.
    pub(super) fn remember(&mut self, sealed: &str) -> bool {
        self.end_batch();
        reasoning::put_back(sealed, &mut self.items)
    }

    pub(super) fn reasoning(&mut self, record: Item) {
        self.end_batch();
        self.items.push(record);
    }

    pub(super) fn call(&mut self, id: &str, name: String, input: Value) -> Result<(), Refusal> {
        self.end_batch();
        let list = self.list();
        let times = self.seen.entry(id.to_owned()).or_insert(0);
        let own = match *times {
            0 => EventId::derive(&[list, id]),
            times => EventId::derive(&[list, id, &times.to_string()]),
        };
        *times += 1;
        let is_taken = self.results.contains_key(id) || self.open.contains_key(id);
        if id.is_empty() || is_taken {
            return Err(self.invalid(format!("the id {id:?} of a call is empty or not unique")));
        }
        self.batch.push(id.to_owned());
        self.open.insert(id.to_owned(), own.clone());
        self.by_name.entry(name.clone()).or_default().push_back(id.to_owned());
        self.items.push(Item::ToolCall { id: own, name, input });
        Ok(())
    }

    pub(super) fn is_open(&self, id: &str) -> bool {
        self.open.contains_key(id)
    }

    /// Returns the id of the first call of a tool that has no result yet.
    pub(super) fn first_open(&mut self, name: &str) -> Option<String> {
        let ids = self.by_name.get_mut(name)?;
        while let Some(id) = ids.front() {
            if self.open.contains_key(id) {
                return Some(id.clone());
            }
            ids.pop_front();
        }
        None
    }

    pub(super) fn result(&mut self, id: &str, content: Vec<Content>, is_error: bool) -> Result<(), Refusal> {
        let Some(call) = self.open.remove(id) else {
            return Err(self.invalid(format!("a result answers {id:?}, which is the id of no open call")));
        };
        self.results.insert(id.to_owned(), Item::ToolResult { call, content, is_error });
        Ok(())
    }

    /// Puts the results where they belong, once all of them are there.
    fn end_batch(&mut self) {
        if self.batch.is_empty() || !self.open.is_empty() {
            return;
        }
        for call in std::mem::take(&mut self.batch) {
            self.items.extend(self.results.remove(&call));
        }
        self.by_name.clear();
        let waiting = std::mem::take(&mut self.waiting);
        if !waiting.is_empty() {
            self.items.push(Item::User { content: waiting });
        }
    }

    /// Returns the system prompt and the conversation.
    pub(super) fn finish(mut self) -> Result<(String, Vec<Item>), Refusal> {
        self.end_batch();
        if let Some(call) = self.batch.iter().find(|call| self.open.contains_key(*call)) {
            return Err(self.invalid(format!("the call {call:?} has no result")));
        }
        match self.items.last() {
            None => Err(self.invalid("at least one message is required")),
            Some(Item::User { .. } | Item::ToolResult { .. }) => Ok((self.system, self.items)),
            // Others would answer to it as to a finished answer, instead of going on with it.
            Some(_) => Err(only_own(self.wire, "an assistant's message at the end (prefill)")),
        }
    }
}

/// Takes a `data:` address apart.
pub(super) fn data_url(url: &str) -> Option<(String, String)> {
    let (media_type, data) = url.strip_prefix("data:")?.split_once(";base64,")?;
    Some((media_type.to_owned(), data.to_owned()))
}
