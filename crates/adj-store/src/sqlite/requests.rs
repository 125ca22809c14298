//! The statements about requests that may come twice.

use super::{
    logs::{moment, parsed},
    trouble::Stop,
};
use crate::{
    error::StoreError,
    requests::{REMEMBERED, Remembered, RequestKey},
};
use adj_domain::{BlobHash, Timestamp};
use rusqlite::{Connection, OptionalExtension, params};

/// So many that are forgotten pay for one that is remembered.
const FORGOTTEN_AT_ONCE: i64 = 4;

/// Returns the moment before which everything is forgotten.
fn horizon(now: Timestamp) -> i64 {
    now.as_millisecond() - REMEMBERED.as_millis() as i64
}

pub(super) fn remember(
    connection: &Connection,
    key: &RequestKey,
    hash: &BlobHash,
    now: Timestamp,
) -> Result<Remembered, Stop<StoreError>> {
    let known: Option<(String, i64, Option<String>)> = connection
        .prepare_cached("SELECT hash, at, answer FROM requests WHERE scope = ?1 AND key = ?2 AND at > ?3")?
        .query_row(params![key.scope, key.key, horizon(now)], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    if let Some((known, at, answer)) = known {
        let known: BlobHash = parsed(known, "the hash of a request")?;
        return Ok(match known == *hash {
            true => Remembered::Same { since: moment(at)?, answer },
            false => Remembered::Different,
        });
    }
    connection
        .prepare_cached(
            "INSERT INTO requests (scope, key, hash, at) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (scope, key) DO UPDATE SET hash = ?3, at = ?4, answer = NULL",
        )?
        .execute(params![key.scope, key.key, hash.as_str(), now.as_millisecond()])?;
    connection
        .prepare_cached(
            "DELETE FROM requests WHERE (scope, key) IN
             (SELECT scope, key FROM requests WHERE at <= ?1 ORDER BY at LIMIT ?2)",
        )?
        .execute(params![horizon(now), FORGOTTEN_AT_ONCE])?;
    Ok(Remembered::New)
}

pub(super) fn answer(
    connection: &Connection,
    key: &RequestKey,
    answer: &str,
    now: Timestamp,
) -> Result<bool, Stop<StoreError>> {
    let answered = connection
        .prepare_cached("UPDATE requests SET answer = ?3 WHERE scope = ?1 AND key = ?2 AND answer IS NULL AND at > ?4")?
        .execute(params![key.scope, key.key, answer, horizon(now)])?;
    Ok(answered == 1)
}

pub(super) fn forget(connection: &Connection, key: &RequestKey) -> Result<(), Stop<StoreError>> {
    connection.prepare_cached("DELETE FROM requests WHERE scope = ?1 AND key = ?2")?.execute([&key.scope, &key.key])?;
    Ok(())
}
