//! The most that is kept of each thing, checked before anything is written.

use crate::{
    error::{AppendError, InsertError, ReplaceError, StoreError},
    records::{NewRecord, Replacement},
    requests::RequestKey,
    store::{Batch, LogMeta, LogState},
};
use adj_domain::{LogId, PendingInput};
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

/// Logs in one page.
pub const PAGE_LOGS: u32 = 1_000;
/// Events in one page.
pub const PAGE_EVENTS: u32 = 10_000;
/// Records in one page, and versions of one.
pub const PAGE_RECORDS: u32 = 1_000;
/// A page ends after the event, or the record, that passes this.
pub const PAGE_BYTES: usize = 16 << 20;
/// One event's body; more belongs into a blob.
pub const EVENT_BYTES: usize = 8 << 20;
pub const KIND_BYTES: usize = 128;
pub const BATCH_EVENTS: usize = 4_096;
pub const BATCH_BYTES: usize = 32 << 20;
/// Title and labels together.
pub const META_BYTES: usize = 16 << 10;
pub const STATE_WORD_BYTES: usize = 32;
/// What is said of a log's state beside its word.
pub const STATE_BYTES: usize = 64 << 10;
pub const INPUT_BYTES: usize = 4 << 20;
/// Inputs that wait in one log's queue.
pub const QUEUE_INPUTS: u64 = 1_000;
pub const QUEUE_BYTES: u64 = 32 << 20;
pub const BLOB_BYTES: usize = 64 << 20;
/// The name of a collection, an id, and a parent's.
pub const RECORD_ID_BYTES: usize = 128;
pub const RECORD_NAME_BYTES: usize = 1_024;
pub const RECORD_BYTES: usize = 8 << 20;
/// A request's scope, and its key.
pub const REQUEST_KEY_BYTES: usize = 512;
pub const ANSWER_BYTES: usize = 1 << 20;

fn too_large(what: &'static str, size: usize, limit: usize) -> StoreError {
    StoreError::TooLarge { what, size: size as u64, limit: limit as u64 }
}

pub(crate) fn within(what: &'static str, size: usize, limit: usize) -> Result<(), StoreError> {
    if size <= limit { Ok(()) } else { Err(too_large(what, size, limit)) }
}

/// Checks a log's description and returns how its labels are stored.
pub(crate) fn check_meta(meta: &LogMeta) -> Result<String, StoreError> {
    let labels = serde_json::to_string(&meta.labels).expect("a map of strings is JSON");
    within("a log's title with its labels", meta.title.len() + labels.len(), META_BYTES)?;
    Ok(labels)
}

/// Checks an input and returns how it is stored.
pub(crate) fn check_input(input: &PendingInput) -> Result<String, StoreError> {
    let json = serde_json::to_string(&input.input).expect("an input is JSON with string keys");
    within("a queued input", json.len(), INPUT_BYTES)?;
    Ok(json)
}

/// Checks a batch and returns its bodies, each proven to be JSON to the last byte, and its size.
pub(crate) fn check_batch(log: &LogId, batch: &Batch) -> Result<(Vec<Box<RawValue>>, usize), AppendError> {
    let invalid = |why| AppendError::InvalidBatch { log: log.clone(), why };
    if batch.events.len() > BATCH_EVENTS || batch.takes.len() > BATCH_EVENTS {
        return Err(invalid("it has more than 4096 events"));
    }
    if batch.ledger.len() > BATCH_EVENTS {
        return Err(invalid("it changes the books more than 4096 times"));
    }
    if let Some(state) = &batch.state {
        check_state(state, invalid)?;
    }
    if batch.events.is_empty() && !batch.takes.is_empty() {
        return Err(invalid("it takes up inputs without an event that says so"));
    }
    let mut total = 0;
    let mut bodies = Vec::with_capacity(batch.events.len());
    for event in &batch.events {
        within("an event's body", event.body.len(), EVENT_BYTES)?;
        if event.kind.is_empty() || event.kind.len() > KIND_BYTES {
            return Err(invalid("the name of an event has 1 to 128 bytes"));
        }
        total += event.body.len();
        let body =
            RawValue::from_string(event.body.clone()).map_err(|_| invalid("the body of an event is not JSON"))?;
        // A raw value leaves out the space around it, and what is stored must be what was given.
        if body.get() != event.body {
            return Err(invalid("the body of an event has white space around it"));
        }
        bodies.push(body);
    }
    within("a batch", total, BATCH_BYTES)?;
    Ok((bodies, total))
}

fn check_state(state: &LogState, invalid: impl Fn(&'static str) -> AppendError) -> Result<(), AppendError> {
    let plain = state.word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    if !plain || !(1..=STATE_WORD_BYTES).contains(&state.word.len()) {
        return Err(invalid("the word of a state has 1 to 32 of a-z _"));
    }
    within("what is said of a state", state.summary.len(), STATE_BYTES)?;
    if is_json(&state.summary) { Ok(()) } else { Err(invalid("what is said of a state is not JSON")) }
}

pub(crate) fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}

pub(crate) fn check_new_record(new: &NewRecord) -> Result<(), InsertError> {
    for text in [&new.key.collection, &new.key.id].into_iter().chain(&new.parent) {
        within("the id of a record", text.len(), RECORD_ID_BYTES)?;
        if text.is_empty() {
            return Err(InsertError::Invalid { key: new.key.clone(), why: "an id is empty" });
        }
    }
    let invalid = |why| InsertError::Invalid { key: new.key.clone(), why };
    check_record(new.name.as_deref(), &new.body)?.map_err(invalid)
}

pub(crate) fn check_replacement(change: &Replacement) -> Result<(), ReplaceError> {
    let invalid = |why| ReplaceError::Invalid { key: change.key.clone(), why };
    check_record(change.name.as_deref(), &change.body)?.map_err(invalid)
}

fn check_record(name: Option<&str>, body: &str) -> Result<Result<(), &'static str>, StoreError> {
    within("the name of a record", name.map_or(0, str::len), RECORD_NAME_BYTES)?;
    within("a record", body.len(), RECORD_BYTES)?;
    Ok(match (name, is_json(body)) {
        (Some(""), _) => Err("its name is empty"),
        (_, false) => Err("its body is not JSON"),
        _ => Ok(()),
    })
}

pub(crate) fn check_request(key: &RequestKey) -> Result<(), StoreError> {
    within("the scope of a request", key.scope.len(), REQUEST_KEY_BYTES)?;
    within("the key of a request", key.key.len(), REQUEST_KEY_BYTES)
}
