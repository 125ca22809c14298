//! Gives events their places in a log: number, time, hash.

use crate::store::Batch;
use adj_domain::{ChainHash, Event, LogId, Seq, Timestamp};
use serde_json::value::RawValue;

/// Where a log ends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tail {
    pub head: Seq,
    pub hash: ChainHash,
    /// When the last event was written, or the log was made.
    pub at: Timestamp,
}

/// Cuts a moment to what is stored.
pub(crate) fn to_millis(at: Timestamp) -> Timestamp {
    Timestamp::from_millisecond(at.as_millisecond()).expect("a moment without its fraction is a moment")
}

/// Places a batch after `tail`, which moves to the new end. A clock that was set back does not take the log back.
pub(crate) fn place(
    log: &LogId,
    epoch: u64,
    tail: &mut Tail,
    now: Timestamp,
    batch: &Batch,
    bodies: &[Box<RawValue>],
) -> Vec<Event> {
    tail.at = tail.at.max(to_millis(now));
    let mut events = Vec::with_capacity(batch.events.len());
    for (new, body) in batch.events.iter().zip(bodies) {
        tail.head += 1;
        let mut event = Event {
            log: log.clone(),
            seq: tail.head,
            epoch,
            id: new.id.clone(),
            at: tail.at,
            kind: new.kind.clone(),
            body: body.clone(),
            hash: tail.hash,
        };
        event.hash = event.chained_to(tail.hash);
        tail.hash = event.hash;
        events.push(event);
    }
    events
}
