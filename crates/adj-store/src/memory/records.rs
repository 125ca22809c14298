//! Records in memory.

use super::store::MemoryStore;
use crate::{
    error::{InsertError, ReplaceError, StoreError},
    limits,
    records::{NewRecord, Order, Record, RecordFilter, RecordKey, RecordPage, Records, Replacement},
};
use async_trait::async_trait;
use std::{collections::BTreeMap, ops::RangeBounds};

/// Every version of every record, oldest first.
#[derive(Default)]
pub(super) struct Shelf {
    records: BTreeMap<RecordKey, Vec<Record>>,
    /// The place of the record that was made last.
    last: u64,
}

impl Shelf {
    fn newest(&self, key: &RecordKey) -> Option<&Record> {
        self.records.get(key)?.last()
    }

    fn is_taken(&self, key: &RecordKey, name: Option<&str>) -> bool {
        name.is_some_and(|name| {
            self.records.values().filter_map(|versions| versions.last()).any(|other| {
                other.key.collection == key.collection
                    && other.key.id != key.id
                    && other.archived_at.is_none()
                    && other.name.as_deref() == Some(name)
            })
        })
    }
}

fn page<'a>(records: impl Iterator<Item = &'a Record>, limit: u32) -> RecordPage {
    let mut page = RecordPage { records: Vec::new(), has_more: false };
    let mut bytes = 0;
    for record in records {
        if page.records.len() >= limit.min(limits::PAGE_RECORDS) as usize || bytes >= limits::PAGE_BYTES {
            page.has_more = true;
            break;
        }
        bytes += record.body.len();
        page.records.push(record.clone());
    }
    page
}

#[async_trait]
impl Records for MemoryStore {
    async fn insert(&self, new: NewRecord) -> Result<Record, InsertError> {
        limits::check_new_record(&new)?;
        let now = self.now();
        let NewRecord { key, name, parent, body } = new;
        let shelf = &mut self.state().shelf;
        if shelf.records.contains_key(&key) {
            return Err(InsertError::Exists { key });
        }
        if shelf.is_taken(&key, name.as_deref()) {
            return Err(InsertError::NameTaken { collection: key.collection, name: name.unwrap_or_default() });
        }
        shelf.last += 1;
        let record = Record {
            key: key.clone(),
            version: 1,
            name,
            parent,
            body,
            created_at: now,
            updated_at: now,
            archived_at: None,
            position: shelf.last,
        };
        shelf.records.insert(key, vec![record.clone()]);
        Ok(record)
    }

    async fn get(&self, key: &RecordKey) -> Result<Option<Record>, StoreError> {
        Ok(self.state().shelf.newest(key).cloned())
    }

    async fn get_version(&self, key: &RecordKey, version: u64) -> Result<Option<Record>, StoreError> {
        let state = self.state();
        let versions = state.shelf.records.get(key);
        Ok(versions.and_then(|versions| versions.iter().find(|record| record.version == version).cloned()))
    }

    async fn versions(&self, key: &RecordKey, before: Option<u64>, limit: u32) -> Result<RecordPage, StoreError> {
        let state = self.state();
        let versions = state.shelf.records.get(key).into_iter().flatten().rev();
        Ok(page(versions.filter(|record| before.is_none_or(|before| record.version < before)), limit))
    }

    async fn replace(&self, change: Replacement) -> Result<Record, ReplaceError> {
        limits::check_replacement(&change)?;
        let now = self.now();
        let Replacement { key, expected, name, body } = change;
        let shelf = &mut self.state().shelf;
        let Some(record) = shelf.newest(&key).cloned() else { return Err(ReplaceError::Missing { key }) };
        if record.archived_at.is_some() {
            return Err(ReplaceError::Archived { key });
        }
        if expected.is_some_and(|version| version != record.version) {
            return Err(ReplaceError::Conflict { key, version: record.version });
        }
        if (&record.name, &record.body) == (&name, &body) {
            return Ok(record);
        }
        if shelf.is_taken(&key, name.as_deref()) {
            return Err(ReplaceError::NameTaken { collection: key.collection, name: name.unwrap_or_default() });
        }
        let next = Record { version: record.version + 1, name, body, updated_at: record.updated_at.max(now), ..record };
        shelf.records.entry(key).or_default().push(next.clone());
        Ok(next)
    }

    async fn archive(&self, key: &RecordKey) -> Result<Option<Record>, StoreError> {
        let now = self.now();
        let shelf = &mut self.state().shelf;
        let Some(record) = shelf.newest(key) else { return Ok(None) };
        let at = record.archived_at.unwrap_or(record.updated_at.max(now));
        let versions = shelf.records.entry(key.clone()).or_default();
        versions.iter_mut().for_each(|version| version.archived_at = Some(at));
        Ok(versions.last().cloned())
    }

    async fn delete(&self, key: &RecordKey) -> Result<bool, StoreError> {
        Ok(self.state().shelf.records.remove(key).is_some())
    }

    async fn list(&self, filter: &RecordFilter) -> Result<RecordPage, StoreError> {
        let state = self.state();
        let is_beyond = |record: &Record| match (filter.order, filter.after) {
            (_, None) => true,
            (Order::NewestFirst, Some(after)) => record.position < after,
            (Order::OldestFirst, Some(after)) => record.position > after,
        };
        let mut found: Vec<&Record> = state
            .shelf
            .records
            .values()
            .filter_map(|versions| versions.last())
            .filter(|record| record.key.collection == filter.collection)
            .filter(|record| filter.parent.is_none() || record.parent == filter.parent)
            .filter(|record| filter.include_archived || record.archived_at.is_none())
            .filter(|record| filter.created.contains(&record.created_at) && is_beyond(record))
            .collect();
        found.sort_by_key(|record| record.position);
        if filter.order == Order::NewestFirst {
            found.reverse();
        }
        Ok(page(found.into_iter(), filter.limit))
    }
}
