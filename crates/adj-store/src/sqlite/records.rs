//! The statements about records. Each function works inside a transaction that its caller opened.

use super::{
    logs::{moment, to_sql, unsigned},
    trouble::Stop,
};
use crate::{
    error::{InsertError, ReplaceError, StoreError},
    limits,
    records::{NewRecord, Order, Record, RecordFilter, RecordKey, RecordPage, Replacement},
};
use adj_domain::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};
use std::ops::Bound;

pub(super) fn insert(connection: &Connection, new: &NewRecord, now: Timestamp) -> Result<Record, Stop<InsertError>> {
    let NewRecord { key, name, parent, body } = new;
    if position_of(connection, key)?.is_some() {
        return Err(Stop::Refused(InsertError::Exists { key: key.clone() }));
    }
    if let Some(name) = name
        && bearer(connection, &key.collection, name)?.is_some()
    {
        let (collection, name) = (key.collection.clone(), name.clone());
        return Err(Stop::Refused(InsertError::NameTaken { collection, name }));
    }
    let position: i64 = connection
        .prepare_cached(
            "INSERT INTO records (collection, id, version, name, parent, created_at) VALUES (?1, ?2, 1, ?3, ?4, ?5)
             RETURNING position",
        )?
        .query_row(params![key.collection, key.id, name, parent, now.as_millisecond()], |row| row.get(0))?;
    insert_version(connection, position, 1, name.as_deref(), body, now)?;
    Ok(Record {
        key: key.clone(),
        version: 1,
        name: name.clone(),
        parent: parent.clone(),
        body: body.clone(),
        created_at: now,
        updated_at: now,
        archived_at: None,
        position: unsigned(position, "a position")?,
    })
}

fn insert_version(
    connection: &Connection,
    position: i64,
    version: u64,
    name: Option<&str>,
    body: &str,
    at: Timestamp,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT INTO record_versions (record, version, name, body, at) VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![position, to_sql(version), name, body, at.as_millisecond()])
        .map(|_| ())
}

fn position_of(connection: &Connection, key: &RecordKey) -> rusqlite::Result<Option<i64>> {
    connection
        .prepare_cached("SELECT position FROM records WHERE collection = ?1 AND id = ?2")?
        .query_row([&key.collection, &key.id], |row| row.get(0))
        .optional()
}

/// Returns the place of the record that has the name now.
fn bearer(connection: &Connection, collection: &str, name: &str) -> rusqlite::Result<Option<i64>> {
    connection
        .prepare_cached("SELECT position FROM records WHERE collection = ?1 AND name = ?2 AND archived_at IS NULL")?
        .query_row([collection, name], |row| row.get(0))
        .optional()
}

pub(super) fn replace(
    connection: &Connection,
    change: &Replacement,
    now: Timestamp,
) -> Result<Record, Stop<ReplaceError>> {
    let Replacement { key, expected, name, body } = change;
    let refused = |error| Err(Stop::Refused(error));
    let Some(record) = get(connection, key)? else {
        return refused(ReplaceError::Missing { key: key.clone() });
    };
    if record.archived_at.is_some() {
        return refused(ReplaceError::Archived { key: key.clone() });
    }
    if expected.is_some_and(|version| version != record.version) {
        return refused(ReplaceError::Conflict { key: key.clone(), version: record.version });
    }
    if (&record.name, &record.body) == (name, body) {
        return Ok(record);
    }
    if let Some(name) = name
        && bearer(connection, &key.collection, name)?.is_some_and(|position| position != to_sql(record.position))
    {
        return refused(ReplaceError::NameTaken { collection: key.collection.clone(), name: name.clone() });
    }
    let position = to_sql(record.position);
    let (version, at) = (record.version + 1, record.updated_at.max(now));
    insert_version(connection, position, version, name.as_deref(), body, at)?;
    connection.prepare_cached("UPDATE records SET version = ?2, name = ?3 WHERE position = ?1")?.execute(params![
        position,
        to_sql(version),
        name
    ])?;
    Ok(Record { version, name: name.clone(), body: body.clone(), updated_at: at, ..record })
}

pub(super) fn archive(
    connection: &Connection,
    key: &RecordKey,
    now: Timestamp,
) -> Result<Option<Record>, Stop<StoreError>> {
    let Some(record) = get(connection, key)? else { return Ok(None) };
    if record.archived_at.is_some() {
        return Ok(Some(record));
    }
    let at = record.updated_at.max(now);
    connection
        .prepare_cached("UPDATE records SET archived_at = ?2 WHERE position = ?1")?
        .execute(params![to_sql(record.position), at.as_millisecond()])?;
    Ok(Some(Record { archived_at: Some(at), ..record }))
}

pub(super) fn delete(connection: &Connection, key: &RecordKey) -> Result<bool, Stop<StoreError>> {
    let Some(position) = position_of(connection, key)? else { return Ok(false) };
    connection.prepare_cached("DELETE FROM record_versions WHERE record = ?1")?.execute([position])?;
    connection.prepare_cached("DELETE FROM records WHERE position = ?1")?.execute([position])?;
    Ok(true)
}

/// The columns of [`record_of`]. A record without its version is damaged, and not to be passed over.
const COLUMNS: &str = "SELECT r.id, v.version, v.name, r.parent, v.body, r.created_at, v.at, r.archived_at, r.position
                       FROM records r LEFT JOIN record_versions v ON v.record = r.position";

pub(super) fn get<E>(connection: &Connection, key: &RecordKey) -> Result<Option<Record>, Stop<E>> {
    let mut statement = connection
        .prepare_cached(&format!("{COLUMNS} AND v.version = r.version WHERE r.collection = ?1 AND r.id = ?2"))?;
    let mut rows = statement.query([&key.collection, &key.id])?;
    rows.next()?.map(|row| record_of(&key.collection, row)).transpose()
}

pub(super) fn get_version(
    connection: &Connection,
    key: &RecordKey,
    version: u64,
) -> Result<Option<Record>, Stop<StoreError>> {
    let mut statement =
        connection.prepare_cached(&format!("{COLUMNS} WHERE r.collection = ?1 AND r.id = ?2 AND v.version = ?3"))?;
    let mut rows = statement.query(params![key.collection, key.id, to_sql(version)])?;
    rows.next()?.map(|row| record_of(&key.collection, row)).transpose()
}

pub(super) fn versions(
    connection: &Connection,
    key: &RecordKey,
    before: Option<u64>,
    limit: u32,
) -> Result<RecordPage, Stop<StoreError>> {
    let mut statement = connection.prepare_cached(&format!(
        "{COLUMNS} WHERE r.collection = ?1 AND r.id = ?2 AND v.version < ?3 ORDER BY v.version DESC"
    ))?;
    let mut rows = statement.query(params![key.collection, key.id, before.map_or(i64::MAX, to_sql)])?;
    page(&key.collection, &mut rows, limit)
}

pub(super) fn list(connection: &Connection, filter: &RecordFilter) -> Result<RecordPage, Stop<StoreError>> {
    let (from, to) = millis(filter.created);
    let after = filter.after.map(to_sql).unwrap_or(match filter.order {
        Order::NewestFirst => i64::MAX,
        Order::OldestFirst => 0,
    });
    let mut statement = connection.prepare_cached(&list_statement(filter))?;
    let mut rows = statement.query(params![filter.collection, after, from, to, filter.parent])?;
    page(&filter.collection, &mut rows, filter.limit)
}

fn list_statement(filter: &RecordFilter) -> String {
    let (beyond, order) = match filter.order {
        Order::NewestFirst => ("<", "DESC"),
        Order::OldestFirst => (">", "ASC"),
    };
    let parent = if filter.parent.is_some() { "r.parent = ?5" } else { "?5 IS NULL" };
    let archived = if filter.include_archived { "" } else { "AND r.archived_at IS NULL" };
    format!(
        "{COLUMNS} AND v.version = r.version
         WHERE r.collection = ?1 AND r.position {beyond} ?2 AND r.created_at BETWEEN ?3 AND ?4 AND {parent} {archived}
         ORDER BY r.position {order}"
    )
}

fn page(collection: &str, rows: &mut rusqlite::Rows<'_>, limit: u32) -> Result<RecordPage, Stop<StoreError>> {
    let mut records = Vec::new();
    let mut bytes = 0;
    while let Some(row) = rows.next()? {
        if records.len() >= limit.min(limits::PAGE_RECORDS) as usize || bytes >= limits::PAGE_BYTES {
            return Ok(RecordPage { records, has_more: true });
        }
        let record = record_of(collection, row)?;
        bytes += record.body.len();
        records.push(record);
    }
    Ok(RecordPage { records, has_more: false })
}

/// Returns the first and the last stored moment within the bounds, which may be finer than what is stored.
fn millis((from, to): (Bound<Timestamp>, Bound<Timestamp>)) -> (i64, i64) {
    let floor = |at: Timestamp| i64::try_from(at.as_nanosecond().div_euclid(1_000_000)).unwrap_or(i64::MAX);
    let ceil = |at: Timestamp| floor(at) + i64::from(at.as_nanosecond().rem_euclid(1_000_000) != 0);
    let from = match from {
        Bound::Included(at) => ceil(at),
        Bound::Excluded(at) => floor(at) + 1,
        Bound::Unbounded => i64::MIN,
    };
    let to = match to {
        Bound::Included(at) => floor(at),
        Bound::Excluded(at) => ceil(at) - 1,
        Bound::Unbounded => i64::MAX,
    };
    (from, to)
}

fn record_of<E>(collection: &str, row: &Row<'_>) -> Result<Record, Stop<E>> {
    let key = RecordKey { collection: collection.to_owned(), id: row.get(0)? };
    let what = format!("record {key}");
    let fields = || -> Result<Record, Stop<E>> {
        let body: String = row.get(4)?;
        if !limits::is_json(&body) {
            return Err(Stop::Damaged("the body is not JSON".to_owned()));
        }
        Ok(Record {
            version: unsigned(row.get(1)?, "the version")?,
            name: row.get(2)?,
            parent: row.get(3)?,
            body,
            created_at: moment(row.get(5)?)?,
            updated_at: moment(row.get(6)?)?,
            archived_at: row.get::<_, Option<i64>>(7)?.map(moment).transpose()?,
            position: unsigned(row.get(8)?, "the position")?,
            key,
        })
    };
    fields().map_err(|stop| match stop {
        Stop::Damaged(why) => Stop::Damaged(format!("{what}: {why}")),
        other => other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::schema::{MIGRATIONS, migrate};
    use rusqlite::StatementStatus;

    /// A page costs what is on it, wherever it lies and whatever has been archived.
    #[test]
    fn pages_do_not_walk_past_the_others() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, MIGRATIONS).unwrap();
        connection
            .execute_batch(
                "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 100000)
                 INSERT INTO records (collection, id, version, name, parent, created_at, archived_at)
                 SELECT iif(n % 100 = 1, 'files', 'sessions'), 'x_' || n, 1, 'name ' || n, 'agent_' || (n % 10000), n,
                     iif(n > 1000, n, NULL) FROM n;
                 INSERT INTO record_versions SELECT position, 1, name, '{}', created_at FROM records",
            )
            .unwrap();
        let of = |collection| RecordFilter { limit: 20, ..RecordFilter::of(collection) };
        let every = |collection| RecordFilter { include_archived: true, ..of(collection) };
        let parent = || Some("agent_77".to_owned());
        let cases = [
            // filter                                                            records, the first of them
            (of("sessions"), 20, "x_1000"),
            (RecordFilter { order: Order::OldestFirst, ..of("sessions") }, 20, "x_2"),
            (RecordFilter { after: Some(501), ..of("sessions") }, 20, "x_500"),
            (every("sessions"), 20, "x_100000"),
            (RecordFilter { after: Some(50_000), ..every("sessions") }, 20, "x_49999"),
            (every("files"), 20, "x_99901"),
            (RecordFilter { parent: parent(), ..every("sessions") }, 10, "x_90077"),
            (RecordFilter { parent: parent(), ..of("sessions") }, 1, "x_77"),
        ];
        for (filter, count, first) in cases {
            let page = list(&connection, &filter).unwrap();
            let statement = connection.prepare_cached(&list_statement(&filter)).unwrap();
            let took = statement.reset_status(StatementStatus::VmStep);
            assert_eq!((page.records.len(), page.records[0].key.id.as_str()), (count, first), "{filter:?}");
            assert!((1..2_000).contains(&took), "{took} steps: {filter:?}");
        }
    }

    #[test]
    fn bounds_finer_than_what_is_stored_are_kept() {
        let at = |nanos: i128| Timestamp::from_nanosecond(nanos).unwrap();
        let (whole, between) = (at(5_000_000), at(5_500_000));
        let cases = [
            (Bound::Included(whole), Bound::Included(whole), (5, 5)),
            (Bound::Excluded(whole), Bound::Excluded(whole), (6, 4)),
            (Bound::Included(between), Bound::Included(between), (6, 5)),
            (Bound::Excluded(between), Bound::Excluded(between), (6, 5)),
            (Bound::Included(at(-500_000)), Bound::Included(at(-500_000)), (0, -1)),
            (Bound::Unbounded, Bound::Unbounded, (i64::MIN, i64::MAX)),
        ];
        for (from, to, expected) in cases {
            assert_eq!(millis((from, to)), expected, "{from:?} {to:?}");
        }
    }
}
