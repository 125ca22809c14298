//! Requests that may come twice, in memory.

use super::store::MemoryStore;
use crate::{
    error::StoreError,
    limits,
    requests::{REMEMBERED, Remembered, RequestKey, Requests},
};
use adj_domain::{BlobHash, Timestamp};
use async_trait::async_trait;
use std::collections::BTreeMap;

/// Who has come, and what they were told.
#[derive(Default)]
pub(super) struct Visitors(BTreeMap<RequestKey, Visit>);

struct Visit {
    hash: BlobHash,
    at: Timestamp,
    answer: Option<String>,
}

impl Visitors {
    fn forget_old(&mut self, now: Timestamp) {
        let day = REMEMBERED.as_millis() as i64;
        self.0.retain(|_, visit| visit.at.as_millisecond() > now.as_millisecond() - day);
    }
}

#[async_trait]
impl Requests for MemoryStore {
    async fn remember(&self, key: &RequestKey, hash: &BlobHash) -> Result<Remembered, StoreError> {
        limits::check_request(key)?;
        let now = self.now();
        let visitors = &mut self.state().visitors;
        visitors.forget_old(now);
        Ok(match visitors.0.get(key) {
            None => {
                visitors.0.insert(key.clone(), Visit { hash: hash.clone(), at: now, answer: None });
                Remembered::New
            }
            Some(visit) if visit.hash == *hash => Remembered::Same { since: visit.at, answer: visit.answer.clone() },
            Some(_) => Remembered::Different,
        })
    }

    async fn answer(&self, key: &RequestKey, answer: &str) -> Result<bool, StoreError> {
        limits::within("an answer", answer.len(), limits::ANSWER_BYTES)?;
        let now = self.now();
        let visitors = &mut self.state().visitors;
        visitors.forget_old(now);
        let Some(visit) = visitors.0.get_mut(key).filter(|visit| visit.answer.is_none()) else { return Ok(false) };
        visit.answer = Some(answer.to_owned());
        Ok(true)
    }

    async fn forget(&self, key: &RequestKey) -> Result<(), StoreError> {
        self.state().visitors.0.remove(key);
        Ok(())
    }
}
