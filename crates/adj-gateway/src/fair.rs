//! Whose turn it is: a fair queue over flows (runs, or single sessions) in which nobody waits for ever.
//!
//! Each flow is served in proportion to its weight, by the tags of start-time fair queueing: the head of a flow carries
//! the flow's virtual time, the smallest goes first, and serving it moves its flow on by cost ÷ weight. An idle flow
//! gathers no credit. Because newcomers start at the present virtual time, tags alone would let an endless supply of
//! fresh flows starve an old one. So a head that is overdue goes before all tags, at most every other time:
//!
//! - **Waiting.** With N flows waiting when a head falls overdue, it is served within the next 2N servings, whatever
//!   else arrives: overdue heads go by age, each flow has one head, and every other serving takes the oldest.
//! - **Fairness.** While two flows wait throughout and nobody is overdue, what they were served, each divided by its
//!   weight, differs by no more than the largest cost of each divided by its weight.
//!
//! Times are milliseconds of one steady clock.

use std::collections::{BTreeMap, VecDeque};

/// Virtual time of one unit of cost at weight 1: weights up to 1,000 divide it without much loss.
const UNIT: u128 = 1 << 20;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    pub ticket: u64,
    pub cost: u64,
    pub weight: u32,
}

/// What [`Fair::pick`] chose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pick {
    pub flow: String,
    pub ticket: u64,
    pub is_overdue: bool,
}

#[derive(Debug, Clone)]
pub struct Fair {
    flows: BTreeMap<String, Flow>,
    virtual_time: u128,
    overdue_after: u64,
    last_was_overdue: bool,
    heads: u64,
}

#[derive(Debug, Clone)]
struct Flow {
    /// The head's tag; of a flow without a head, where its next one starts at the earliest.
    start: u128,
    head_since: u64,
    /// How many heads there were before it: a clock is too coarse to tell who was first.
    head_number: u64,
    waiting: VecDeque<Waiting>,
}

impl Flow {
    fn has_new_head(&mut self, heads: &mut u64, now: u64) {
        *heads += 1;
        self.head_since = now;
        self.head_number = *heads;
    }
}

impl Fair {
    pub fn new(overdue_after_ms: u64) -> Self {
        Self {
            flows: BTreeMap::new(),
            virtual_time: 0,
            overdue_after: overdue_after_ms,
            last_was_overdue: false,
            heads: 0,
        }
    }

    pub fn len(&self) -> usize {
        self.flows.values().map(|flow| flow.waiting.len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.flows.values().all(|flow| flow.waiting.is_empty())
    }

    pub fn arrive(&mut self, flow: &str, waiting: Waiting, now: u64) {
        let virtual_time = self.virtual_time;
        let new = || Flow { start: virtual_time, head_since: now, head_number: 0, waiting: VecDeque::new() };
        let flow = self.flows.entry(flow.to_owned()).or_insert_with(new);
        if flow.waiting.is_empty() {
            flow.start = flow.start.max(virtual_time);
            flow.has_new_head(&mut self.heads, now);
        }
        flow.waiting.push_back(waiting);
    }

    /// Returns whose turn it is; nothing changes until [`Fair::take`].
    pub fn pick(&self, now: u64) -> Option<Pick> {
        let heads = || self.flows.iter().filter_map(|(name, flow)| Some((name, flow, flow.waiting.front()?)));
        let is_overdue = |flow: &Flow| now.saturating_sub(flow.head_since) >= self.overdue_after;
        let overdue = heads().filter(|(_, flow, _)| !self.last_was_overdue && is_overdue(flow));
        let oldest = overdue.min_by_key(|(_, flow, _)| flow.head_number);
        let is_overdue = oldest.is_some();
        let chosen = oldest.or_else(|| heads().min_by_key(|(_, flow, _)| (flow.start, flow.head_number)));
        chosen.map(|(name, _, head)| Pick { flow: name.clone(), ticket: head.ticket, is_overdue })
    }

    /// Serves what was picked.
    pub fn take(&mut self, pick: &Pick, now: u64) -> Option<Waiting> {
        let flow = self.flows.get_mut(&pick.flow)?;
        let served = flow.waiting.pop_front()?;
        if !pick.is_overdue {
            self.virtual_time = self.virtual_time.max(flow.start);
        }
        self.last_was_overdue = pick.is_overdue;
        flow.start += u128::from(served.cost.max(1)) * UNIT / u128::from(served.weight.max(1));
        flow.has_new_head(&mut self.heads, now);
        self.forget_idle();
        Some(served)
    }

    /// Takes out somebody who no longer wants to wait; `false` if nobody of that number does.
    pub fn leave(&mut self, ticket: u64, now: u64) -> bool {
        let found = self.flows.values_mut().find_map(|flow| {
            let place = flow.waiting.iter().position(|waiting| waiting.ticket == ticket)?;
            Some((flow, place))
        });
        let Some((flow, place)) = found else { return false };
        flow.waiting.remove(place);
        if place == 0 {
            flow.has_new_head(&mut self.heads, now);
        }
        self.forget_idle();
        true
    }

    /// Takes everybody out.
    pub fn clear(&mut self) -> Vec<u64> {
        let flows = std::mem::take(&mut self.flows).into_values();
        flows.flat_map(|flow| flow.waiting).map(|waiting| waiting.ticket).collect()
    }

    /// A flow that waits for nothing is remembered only as long as its last servings put it behind newcomers.
    fn forget_idle(&mut self) {
        if self.is_empty() {
            self.flows.clear();
            return;
        }
        let virtual_time = self.virtual_time;
        self.flows.retain(|_, flow| !flow.waiting.is_empty() || flow.start > virtual_time);
    }
}
