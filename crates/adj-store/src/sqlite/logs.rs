//! The statements about logs. Each function works inside a transaction that its caller opened.

use super::{books::Books, trouble::Stop};
use crate::{
    error::{AppendError, ClaimError, StoreError},
    limits,
    nodes::Nodes,
    place::{Tail, place},
    store::{
        Batch, Claim, Expect, Fence, Holder, LogFilter, LogKind, LogMeta, LogState, LogSummary, NodeId, Submitted,
    },
};
use adj_domain::{ChainHash, Event, LogId, PendingInput, Seq, Timestamp, ledger};
use rusqlite::{Connection, OptionalExtension, Row, named_params, params};
use serde_json::value::RawValue;
use std::collections::BTreeMap;

pub(super) fn to_sql(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn unsigned<E>(number: i64, what: &str) -> Result<u64, Stop<E>> {
    u64::try_from(number).map_err(|_| Stop::Damaged(format!("{what} is negative")))
}

pub(super) fn moment<E>(millis: i64) -> Result<Timestamp, Stop<E>> {
    Timestamp::from_millisecond(millis).map_err(|_| Stop::Damaged(format!("{millis} is not a moment")))
}

fn chain_hash<E>(bytes: &[u8], whose: &str) -> Result<ChainHash, Stop<E>> {
    match bytes.try_into() {
        Ok(bytes) => Ok(ChainHash(bytes)),
        Err(_) => Err(Stop::Damaged(format!("{whose} has no whole hash"))),
    }
}

pub(super) fn parsed<T: TryFrom<String>, E>(text: String, what: &str) -> Result<T, Stop<E>> {
    T::try_from(text).map_err(|_| Stop::Damaged(format!("{what} has no valid name")))
}

fn unknown<E: From<StoreError>>(log: &LogId) -> Stop<E> {
    Stop::Refused(StoreError::UnknownLog { log: log.clone() }.into())
}

fn kind_name(kind: LogKind) -> &'static str {
    match kind {
        LogKind::Session => "session",
        LogKind::Run => "run",
        LogKind::Grants => "grants",
        LogKind::Budgets => "budgets",
    }
}

fn number_of<E: From<StoreError>>(connection: &Connection, log: &LogId) -> Result<i64, Stop<E>> {
    connection
        .prepare_cached("SELECT number FROM logs WHERE log = ?1")?
        .query_row([log.as_str()], |row| row.get(0))
        .optional()?
        .ok_or_else(|| unknown(log))
}

pub(crate) fn create(
    connection: &Connection,
    log: &LogId,
    meta: &LogMeta,
    labels: &str,
    now: Timestamp,
) -> Result<bool, Stop<StoreError>> {
    let made = connection
        .prepare_cached(
            "INSERT INTO logs (log, kind, title, parent, labels, created_at, updated_at, epoch, head, head_hash, queue_tail)
             VALUES (:log, :kind, :title, :parent, :labels, :now, :now, 0, 0, :hash, 0) ON CONFLICT (log) DO NOTHING",
        )?
        .execute(named_params! {
            ":log": log.as_str(),
            ":kind": kind_name(LogKind::of(log)),
            ":title": meta.title,
            ":parent": meta.parent.as_ref().map(LogId::as_str),
            ":labels": labels,
            ":now": now.as_millisecond(),
            ":hash": ChainHash::start(log).0,
        })?;
    Ok(made == 1)
}

pub(crate) fn submit(
    connection: &Connection,
    log: &LogId,
    input: &PendingInput,
    body: &str,
) -> Result<Submitted, Stop<StoreError>> {
    let number = number_of(connection, log)?;
    let known = connection
        .prepare_cached("SELECT 1 FROM inputs WHERE log = ?1 AND id = ?2")?
        .exists(params![number, input.id.as_str()])?;
    if known {
        return Ok(Submitted::Already);
    }
    let (waiting, bytes): (i64, i64) = connection
        .prepare_cached(
            "SELECT count(*), coalesce(sum(octet_length(body)), 0) FROM inputs WHERE log = ?1 AND taken_seq IS NULL",
        )?
        .query_row([number], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let waiting = unsigned(waiting, "a count")?;
    if waiting >= limits::QUEUE_INPUTS
        || unsigned::<StoreError>(bytes, "a size")? + body.len() as u64 > limits::QUEUE_BYTES
    {
        return Err(Stop::Refused(StoreError::QueueFull { log: log.clone(), waiting }));
    }
    let position: i64 = connection
        .prepare_cached("UPDATE logs SET queue_tail = queue_tail + 1 WHERE number = ?1 RETURNING queue_tail")?
        .query_row([number], |row| row.get(0))?;
    connection
        .prepare_cached("INSERT INTO inputs (log, id, position, body) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![number, input.id.as_str(), position, body])?;
    Ok(Submitted::Queued)
}

pub(crate) fn pending(connection: &Connection, log: &LogId) -> Result<Vec<PendingInput>, Stop<StoreError>> {
    let number = number_of(connection, log)?;
    let mut statement = connection
        .prepare_cached("SELECT id, body FROM inputs WHERE log = ?1 AND taken_seq IS NULL ORDER BY position")?;
    let mut rows = statement.query([number])?;
    let mut inputs = Vec::new();
    while let Some(row) = rows.next()? {
        let what = || format!("a queued input of {log}");
        let body: String = row.get(1)?;
        inputs.push(PendingInput {
            id: parsed(row.get(0)?, &what())?,
            input: serde_json::from_str(&body).map_err(|error| Stop::Damaged(format!("{}: {error}", what())))?,
        });
    }
    Ok(inputs)
}

pub(crate) fn append(
    connection: &Connection,
    fence: &Fence,
    expect: Expect,
    batch: &Batch,
    bodies: &[Box<RawValue>],
    now: Timestamp,
) -> Result<Vec<Event>, Stop<AppendError>> {
    let log = fence.log();
    let found = connection
        .prepare_cached(
            "SELECT number, epoch, holder IS NOT NULL, head, head_hash, updated_at FROM logs WHERE log = ?1",
        )?
        .query_row([log.as_str()], |row| {
            let hash: Vec<u8> = row.get(4)?;
            Ok((row.get::<_, i64>(0)?, row.get(1)?, row.get::<_, bool>(2)?, row.get(3)?, hash, row.get(5)?))
        })
        .optional()?;
    let (number, epoch, is_held, head, hash, at) = found.ok_or_else(|| unknown::<AppendError>(log))?;
    let (epoch, head) = (unsigned(epoch, "an epoch")?, unsigned(head, "a head")?);
    if epoch != fence.epoch() || !is_held {
        return Err(Stop::Refused(AppendError::Fenced { log: log.clone(), held: fence.epoch(), epoch }));
    }
    if expect != Expect::Any && expect != Expect::Head(head) {
        return Err(Stop::Refused(AppendError::HeadMoved { log: log.clone(), head }));
    }
    let mut books = Books::new(connection, log, now);
    for op in &batch.ledger {
        if let Err(refusal) = ledger::apply(&mut books, op)? {
            return Err(Stop::Refused(AppendError::Refused(Box::new(refusal))));
        }
    }
    books.write()?;
    if let Some(state) = &batch.state {
        connection.prepare_cached("UPDATE logs SET state = ?2, summary = ?3 WHERE number = ?1")?.execute(params![
            number,
            state.word,
            state.summary
        ])?;
    }
    if batch.events.is_empty() {
        return Ok(Vec::new());
    }
    let mut tail = Tail { head, hash: chain_hash(&hash, log.as_str())?, at: moment(at)? };
    let events = place(log, epoch, &mut tail, now, batch, bodies);
    let mut insert = connection.prepare_cached(
        "INSERT INTO events (log, seq, epoch, id, at, kind, body, hash) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?;
    for event in &events {
        insert.execute(params![
            number,
            to_sql(event.seq),
            to_sql(event.epoch),
            event.id.as_str(),
            event.at.as_millisecond(),
            event.kind,
            event.body.get(),
            event.hash.0,
        ])?;
    }
    for id in &batch.takes {
        let taken_by = events.iter().find(|event| event.id == *id).map_or(tail.head, |event| event.seq);
        let taken = connection
            .prepare_cached(
                "UPDATE inputs SET taken_seq = ?3, body = '' WHERE log = ?1 AND id = ?2 AND taken_seq IS NULL",
            )?
            .execute(params![number, id.as_str(), to_sql(taken_by)])?;
        if taken != 1 {
            return Err(Stop::Refused(AppendError::NotQueued { log: log.clone(), id: id.clone() }));
        }
    }
    connection
        .prepare_cached("UPDATE logs SET head = ?2, head_hash = ?3, updated_at = ?4 WHERE number = ?1")?
        .execute(params![number, to_sql(tail.head), tail.hash.0, tail.at.as_millisecond()])?;
    Ok(events)
}

pub(crate) fn read(
    connection: &Connection,
    log: &LogId,
    after: Seq,
    limit: u32,
) -> Result<Vec<Event>, Stop<StoreError>> {
    let number = number_of(connection, log)?;
    let mut statement = connection.prepare_cached(
        "SELECT seq, epoch, id, at, kind, body, hash FROM events WHERE log = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3",
    )?;
    let mut rows = statement.query(params![number, to_sql(after), limit.min(limits::PAGE_EVENTS)])?;
    let mut events = Vec::new();
    let mut bytes = 0;
    while bytes < limits::PAGE_BYTES
        && let Some(row) = rows.next()?
    {
        let event = event_of(log, row)?;
        bytes += event.body.get().len();
        events.push(event);
    }
    Ok(events)
}

fn event_of(log: &LogId, row: &Row<'_>) -> Result<Event, Stop<StoreError>> {
    let seq = unsigned(row.get(0)?, "an event's number")?;
    let what = format!("event {seq} of {log}");
    let within = |stop| match stop {
        Stop::Damaged(why) => Stop::Damaged(format!("{what}: {why}")),
        other => other,
    };
    let fields = || -> Result<Event, Stop<StoreError>> {
        let body: String = row.get(5)?;
        let hash: Vec<u8> = row.get(6)?;
        Ok(Event {
            log: log.clone(),
            seq,
            epoch: unsigned(row.get(1)?, "the epoch")?,
            id: parsed(row.get(2)?, "the event")?,
            at: moment(row.get(3)?)?,
            kind: row.get(4)?,
            body: RawValue::from_string(body).map_err(|error| Stop::Damaged(format!("the body: {error}")))?,
            hash: chain_hash(&hash, "the event")?,
        })
    };
    fields().map_err(within)
}

pub(crate) fn claim(
    connection: &Connection,
    nodes: &Nodes,
    log: &LogId,
    node: &NodeId,
    now: Timestamp,
) -> Result<Claim, Stop<ClaimError>> {
    let summary = summary(connection, nodes, log)?.ok_or_else(|| unknown::<ClaimError>(log))?;
    if let Some(holder) = summary.holder
        && holder.node != *node
        && holder.alive
    {
        return Err(Stop::Refused(ClaimError::Held {
            log: log.clone(),
            node: holder.node,
            pid: holder.pid,
            since: holder.since,
        }));
    }
    let epoch = connection
        .prepare_cached(
            "UPDATE logs SET epoch = epoch + 1, holder = ?2, holder_pid = ?3, held_since = ?4 WHERE log = ?1
             RETURNING epoch",
        )?
        .query_row(params![log.as_str(), node.as_str(), std::process::id(), now.as_millisecond()], |row| row.get(0))?;
    Ok(Claim { fence: Fence::new(log.clone(), unsigned(epoch, "an epoch")?), head: summary.head })
}

pub(crate) fn release(connection: &Connection, fence: &Fence) -> Result<(), Stop<StoreError>> {
    let number = number_of(connection, fence.log())?;
    connection
        .prepare_cached(
            "UPDATE logs SET holder = NULL, holder_pid = NULL, held_since = NULL
             WHERE number = ?1 AND epoch = ?2 AND holder IS NOT NULL",
        )?
        .execute(params![number, to_sql(fence.epoch())])?;
    Ok(())
}

const SUMMARY: &str = "SELECT log, title, parent, labels, head, head_hash, created_at, updated_at, \
                       holder, holder_pid, held_since, state, summary, number FROM logs";

pub(crate) fn summary<E: From<StoreError>>(
    connection: &Connection,
    nodes: &Nodes,
    log: &LogId,
) -> Result<Option<LogSummary>, Stop<E>> {
    let mut statement = connection.prepare_cached(&format!("{SUMMARY} WHERE log = ?1"))?;
    let mut rows = statement.query([log.as_str()])?;
    rows.next()?.map(|row| summary_of(nodes, row)).transpose()
}

pub(crate) fn summaries(
    connection: &Connection,
    nodes: &Nodes,
    filter: &LogFilter,
) -> Result<Vec<LogSummary>, Stop<StoreError>> {
    let before = match &filter.before {
        Some(log) => number_of(connection, log)?,
        None => i64::MAX,
    };
    let limit = filter.limit.min(limits::PAGE_LOGS);
    // One statement for each combination would use the index on parents a little better; there are few logs.
    let parent = if filter.parent.is_some() { "parent = ?3" } else { "?3 IS NULL" };
    let page = |state: Option<&str>| {
        let with_state = if state.is_some() { "state = ?5" } else { "?5 IS NULL" };
        let mut statement = connection.prepare_cached(&format!(
            "{SUMMARY} WHERE number < ?1 AND (?2 IS NULL OR kind = ?2) AND {parent} AND {with_state}
             ORDER BY number DESC LIMIT ?4"
        ))?;
        let mut rows = statement.query(params![
            before,
            filter.kind.map(kind_name),
            filter.parent.as_ref().map(LogId::as_str),
            limit,
            state,
        ])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            found.push((row.get::<_, i64>(13)?, summary_of(nodes, row)?));
        }
        Ok::<_, Stop<StoreError>>(found)
    };
    if filter.states.is_empty() {
        return Ok(page(None)?.into_iter().map(|(_, summary)| summary).collect());
    }
    // A page for each word, since the index has no order over several.
    let mut found = BTreeMap::new();
    for word in &filter.states {
        found.extend(page(Some(word))?);
    }
    Ok(found.into_values().rev().take(limit as usize).collect())
}

/// What waits for somebody, dead holders or not, by the indexes on waiting inputs and on states.
const READY: &str = "WHERE number IN (SELECT log FROM inputs WHERE taken_seq IS NULL AND log > ?1
                     UNION SELECT number FROM logs WHERE state = ?2 AND number > ?1)
                     AND kind = ?3 ORDER BY number";

pub(crate) fn ready(
    connection: &Connection,
    nodes: &Nodes,
    after: Option<&LogId>,
    limit: u32,
) -> Result<Vec<LogSummary>, Stop<StoreError>> {
    let after = after.map_or(Ok(0), |log| number_of(connection, log))?;
    let mut statement = connection.prepare_cached(&format!("{SUMMARY} {READY}"))?;
    let mut rows = statement.query(params![after, LogState::RUNNING, kind_name(LogKind::Session)])?;
    let mut found = Vec::new();
    while found.len() < limit.min(limits::PAGE_LOGS) as usize
        && let Some(row) = rows.next()?
    {
        let summary = summary_of(nodes, row)?;
        if summary.holder.as_ref().is_none_or(|holder| !holder.alive) {
            found.push(summary);
        }
    }
    Ok(found)
}

fn summary_of<E>(nodes: &Nodes, row: &Row<'_>) -> Result<LogSummary, Stop<E>> {
    let log: LogId = parsed(row.get(0)?, "a log")?;
    let parent: Option<String> = row.get(2)?;
    let labels: String = row.get(3)?;
    let hash: Vec<u8> = row.get(5)?;
    let holder: Option<String> = row.get(8)?;
    let holder = match holder {
        None => None,
        Some(node) => {
            let node: NodeId = parsed(node, "a log's holder")?;
            Some(Holder { alive: nodes.is_alive(&node), node, pid: row.get(9)?, since: moment(row.get(10)?)? })
        }
    };
    Ok(LogSummary {
        meta: LogMeta {
            title: row.get(1)?,
            parent: parent.map(|parent| parsed(parent, "a log's parent")).transpose()?,
            labels: serde_json::from_str(&labels)
                .map_err(|error| Stop::Damaged(format!("the labels of {log}: {error}")))?,
        },
        head: unsigned(row.get(4)?, "a head")?,
        head_hash: chain_hash(&hash, log.as_str())?,
        created_at: moment(row.get(6)?)?,
        updated_at: moment(row.get(7)?)?,
        holder,
        state: match row.get(11)? {
            Some(word) => Some(LogState { word, summary: row.get(12)? }),
            None => None,
        },
        log,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::schema::{MIGRATIONS, migrate};
    use rusqlite::StatementStatus;

    /// A hundred thousand idle logs, and two that have something to do.
    fn many() -> Connection {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, MIGRATIONS).unwrap();
        connection
            .execute_batch(
                "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 100000)
                 INSERT INTO logs (log, kind, title, labels, created_at, updated_at, epoch, head, head_hash, queue_tail, state,
                     summary)
                 SELECT 'sesn_' || n, 'session', '', '{}', 0, 0, 0, 0, zeroblob(32), 0, 'idle', '{}' FROM n;
                 INSERT INTO inputs (log, id, position, body, taken_seq) SELECT number, 'sevt_1', 1, '', 1 FROM logs;
                 UPDATE inputs SET taken_seq = NULL WHERE log = 70000;
                 UPDATE logs SET state = 'running' WHERE number = 20000",
            )
            .unwrap();
        connection
    }

    #[test]
    fn idle_logs_cost_nothing() {
        let connection = many();
        let dir = tempfile::tempdir().unwrap();
        let nodes = Nodes::new(dir.path());
        let names = |found: Vec<LogSummary>| found.iter().map(|one| one.log.to_string()).collect::<Vec<_>>().join(" ");
        assert_eq!(names(ready(&connection, &nodes, None, 10).unwrap()), "sesn_20000 sesn_70000");
        let running = LogFilter { states: vec!["running".to_owned()], ..LogFilter::default() };
        assert_eq!(names(summaries(&connection, &nodes, &running).unwrap()), "sesn_20000");

        let steps = |sql: &str, parameters: &[&dyn rusqlite::ToSql]| {
            let mut statement = connection.prepare(sql).unwrap();
            let mut rows = statement.query(parameters).unwrap();
            while rows.next().unwrap().is_some() {}
            drop(rows);
            statement.get_status(StatementStatus::VmStep)
        };
        let ready = steps(&format!("{SUMMARY} {READY}"), &[&0, &"running", &"session"]);
        let whole = steps(&format!("{SUMMARY} WHERE kind = 'session'"), &[]);
        assert!(ready < 200 && whole > 100_000, "{ready} steps, {whole} for all");
    }
}
