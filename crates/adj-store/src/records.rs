//! What a store promises of records: named JSON documents whose every version is kept.

use crate::error::{InsertError, ReplaceError, StoreError};
use adj_domain::Timestamp;
use async_trait::async_trait;
use std::{fmt, ops::Bound};

/// Where a record lies: a collection (`agents`), and the id that it bears there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordKey {
    pub collection: String,
    pub id: String,
}

impl RecordKey {
    pub fn new(collection: &str, id: &str) -> Self {
        Self { collection: collection.to_owned(), id: id.to_owned() }
    }
}

impl fmt::Display for RecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.collection, self.id)
    }
}

/// A record that is to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRecord {
    pub key: RecordKey,
    /// No other record of the collection that is not archived bears it.
    pub name: Option<String>,
    /// What the record belongs to; it never changes, and nobody checks that it exists.
    pub parent: Option<String>,
    /// JSON, kept byte for byte.
    pub body: String,
}

/// What a record is to become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replacement {
    pub key: RecordKey,
    /// The version that the caller has seen; `None` replaces whichever there is.
    pub expected: Option<u64>,
    pub name: Option<String>,
    pub body: String,
}

/// One version of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub key: RecordKey,
    /// From 1, without gaps.
    pub version: u64,
    pub name: Option<String>,
    pub parent: Option<String>,
    pub body: String,
    /// When the first version was written.
    pub created_at: Timestamp,
    /// When this version was written.
    pub updated_at: Timestamp,
    /// When the record was archived, whichever version this is.
    pub archived_at: Option<Timestamp>,
    /// Its place among all records, in the order in which they were made; no other record ever has it.
    pub position: u64,
}

/// In which order a list goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    #[default]
    NewestFirst,
    OldestFirst,
}

/// Which records of one collection to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordFilter {
    pub collection: String,
    pub parent: Option<String>,
    pub include_archived: bool,
    /// When the record was made.
    pub created: (Bound<Timestamp>, Bound<Timestamp>),
    pub order: Order,
    /// Only records that come after this position, in this order: the last of a page gives the next page.
    pub after: Option<u64>,
    /// At most this many (and never more than [`crate::limits::PAGE_RECORDS`], or than a page's bytes).
    pub limit: u32,
}

impl RecordFilter {
    /// Everything in a collection that is not archived, newest first.
    pub fn of(collection: &str) -> Self {
        Self {
            collection: collection.to_owned(),
            parent: None,
            include_archived: false,
            created: (Bound::Unbounded, Bound::Unbounded),
            order: Order::NewestFirst,
            after: None,
            limit: crate::limits::PAGE_RECORDS,
        }
    }
}

/// A part of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordPage {
    pub records: Vec<Record>,
    /// Whether there was more, at that moment.
    pub has_more: bool,
}

/// Where records are kept. What [`crate::Store`] says of calls and of what returned `Ok` holds here too.
#[async_trait]
pub trait Records: Send + Sync {
    /// Keeps a new record, as version 1. The id of a record that was deleted is free again.
    async fn insert(&self, new: NewRecord) -> Result<Record, InsertError>;

    /// Returns the newest version.
    async fn get(&self, key: &RecordKey) -> Result<Option<Record>, StoreError>;

    /// Returns one version.
    async fn get_version(&self, key: &RecordKey, version: u64) -> Result<Option<Record>, StoreError>;

    /// Returns the versions before `before`, newest first; of a record that does not exist there are none.
    async fn versions(&self, key: &RecordKey, before: Option<u64>, limit: u32) -> Result<RecordPage, StoreError>;

    /// Writes the next version; the earlier ones stay. What changes neither name nor body writes nothing, and returns the
    /// version that there is.
    async fn replace(&self, change: Replacement) -> Result<Record, ReplaceError>;

    /// Archives a record, for good: it keeps its versions and takes no more, and its name is free again. Archiving it twice is
    /// archiving it once.
    async fn archive(&self, key: &RecordKey) -> Result<Option<Record>, StoreError>;

    /// Removes a record with all its versions. Returns whether there was one.
    async fn delete(&self, key: &RecordKey) -> Result<bool, StoreError>;

    /// Lists the newest versions of records.
    async fn list(&self, filter: &RecordFilter) -> Result<RecordPage, StoreError>;
}
