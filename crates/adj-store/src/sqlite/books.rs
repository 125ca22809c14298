//! The books in the same file as the logs, so that a hold and the event that announces it are one.

use super::{
    logs::{parsed, to_sql, unsigned},
    trouble::Stop,
};
use crate::{
    error::{AppendError, StoreError},
    nodes::Nodes,
    store::{OpenHold, Standing},
};
use adj_domain::{Amounts, AttemptId, Hold, HoldState, LogId, Purse, PurseKey, Scope, Timestamp, Unit, ledger::Rows};
use rusqlite::{Connection, OptionalExtension, params};
use std::collections::BTreeMap;

/// How long it is remembered that a hold was closed.
const REMEMBERED_MS: i64 = 7 * 86_400_000;
/// So many that are forgotten pay for one that is remembered.
const FORGOTTEN_AT_ONCE: i64 = 4;

/// The tables, within the transaction of an append to `log`. Sums are read once and [written](Books::write) once, however
/// many changes there are: a request that ends and the next that begins change the same ones.
pub(super) struct Books<'a> {
    connection: &'a Connection,
    log: &'a LogId,
    now: Timestamp,
    purses: BTreeMap<(PurseKey, Unit), Known>,
    limits: BTreeMap<Scope, Amounts>,
}

/// A sum as it is by now.
struct Known {
    purse: Purse,
    is_written: bool,
}

impl<'a> Books<'a> {
    pub(super) fn new(connection: &'a Connection, log: &'a LogId, now: Timestamp) -> Self {
        Self { connection, log, now, purses: BTreeMap::new(), limits: BTreeMap::new() }
    }

    /// Writes the sums that have changed.
    pub(super) fn write(self) -> Stopped<()> {
        for ((key, unit), known) in self.purses {
            let Known { purse, is_written: false } = known else { continue };
            self.connection
                .prepare_cached(
                    "INSERT INTO purses (key, unit, at_least, at_most, held) VALUES (?1, ?2, ?3, ?4, ?5)
                     ON CONFLICT (key, unit) DO UPDATE SET at_least = ?3, at_most = ?4, held = ?5",
                )?
                .execute(params![
                    key.to_string(),
                    unit.to_string(),
                    to_sql(purse.at_least),
                    to_sql(purse.at_most),
                    to_sql(purse.held),
                ])?;
        }
        Ok(())
    }
}

type Stopped<T> = Result<T, Stop<AppendError>>;

impl Rows for Books<'_> {
    type Error = Stop<AppendError>;

    fn purse(&mut self, key: &PurseKey, unit: &Unit) -> Stopped<Purse> {
        let place = (key.clone(), unit.clone());
        if let Some(known) = self.purses.get(&place) {
            return Ok(known.purse);
        }
        let found = self
            .connection
            .prepare_cached("SELECT at_least, at_most, held FROM purses WHERE key = ?1 AND unit = ?2")?
            .query_row(params![key.to_string(), unit.to_string()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .optional()?;
        let purse = found.map_or(Ok(Purse::default()), purse_of)?;
        self.purses.insert(place, Known { purse, is_written: true });
        Ok(purse)
    }

    fn put_purse(&mut self, key: &PurseKey, unit: &Unit, purse: Purse) -> Stopped<()> {
        self.purses.insert((key.clone(), unit.clone()), Known { purse, is_written: false });
        Ok(())
    }

    fn limits(&mut self, scope: &Scope) -> Stopped<Amounts> {
        if let Some(known) = self.limits.get(scope) {
            return Ok(known.clone());
        }
        let limits = limits(self.connection, scope)?;
        self.limits.insert(scope.clone(), limits.clone());
        Ok(limits)
    }

    fn put_limit(&mut self, scope: &Scope, unit: &Unit, amount: Option<u64>) -> Stopped<()> {
        self.limits.remove(scope);
        let (scope, unit) = (scope.to_string(), unit.to_string());
        match amount {
            Some(amount) => self
                .connection
                .prepare_cached(
                    "INSERT INTO limits (scope, unit, amount) VALUES (?1, ?2, ?3)
                     ON CONFLICT (scope, unit) DO UPDATE SET amount = ?3",
                )?
                .execute(params![scope, unit, to_sql(amount)])?,
            None => self
                .connection
                .prepare_cached("DELETE FROM limits WHERE scope = ?1 AND unit = ?2")?
                .execute(params![scope, unit])?,
        };
        Ok(())
    }

    fn hold(&mut self, attempt: &AttemptId) -> Stopped<Option<HoldState>> {
        let body: Option<Option<String>> = self
            .connection
            .prepare_cached("SELECT body FROM holds WHERE attempt = ?1")?
            .query_row([attempt.to_string()], |row| row.get(0))
            .optional()?;
        Ok(match body {
            None => None,
            Some(None) => Some(HoldState::Closed),
            Some(Some(body)) => Some(HoldState::Open(hold_of(attempt, &body)?)),
        })
    }

    fn put_hold(&mut self, attempt: &AttemptId, state: &HoldState) -> Stopped<()> {
        let body = match state {
            HoldState::Open(hold) => Some(serde_json::to_string(hold).expect("a hold is JSON with string keys")),
            HoldState::Closed => None,
        };
        let now = self.now.as_millisecond();
        self.connection
            .prepare_cached(
                "INSERT INTO holds (attempt, log, node, at, body)
                 VALUES (?1, ?2, (SELECT holder FROM logs WHERE log = ?2), ?3, ?4)
                 ON CONFLICT (attempt) DO UPDATE SET at = ?3, body = ?4",
            )?
            .execute(params![attempt.to_string(), self.log.as_str(), now, body])?;
        if body.is_none() {
            self.connection
                .prepare_cached(
                    "DELETE FROM holds WHERE attempt IN
                     (SELECT attempt FROM holds WHERE body IS NULL AND at < ?1 ORDER BY at LIMIT ?2)",
                )?
                .execute(params![now - REMEMBERED_MS, FORGOTTEN_AT_ONCE])?;
        }
        Ok(())
    }
}

fn purse_of<E>((at_least, at_most, held): (i64, i64, i64)) -> Result<Purse, Stop<E>> {
    Ok(Purse {
        at_least: unsigned(at_least, "a sum")?,
        at_most: unsigned(at_most, "a sum")?,
        held: unsigned(held, "what is set aside")?,
    })
}

fn hold_of<E>(attempt: &AttemptId, body: &str) -> Result<Hold, Stop<E>> {
    serde_json::from_str(body).map_err(|error| Stop::Damaged(format!("the hold of {attempt}: {error}")))
}

fn limits<E>(connection: &Connection, scope: &Scope) -> Result<Amounts, Stop<E>> {
    let mut statement = connection.prepare_cached("SELECT unit, amount FROM limits WHERE scope = ?1")?;
    let mut rows = statement.query([scope.to_string()])?;
    let mut limits = Amounts::default();
    while let Some(row) = rows.next()? {
        limits.0.insert(parsed(row.get(0)?, "a limit")?, unsigned(row.get(1)?, "a limit")?);
    }
    Ok(limits)
}

pub(super) fn standing(connection: &Connection, purses: &[PurseKey]) -> Result<Vec<Standing>, Stop<StoreError>> {
    let mut statement =
        connection.prepare_cached("SELECT unit, at_least, at_most, held FROM purses WHERE key = ?1 ORDER BY unit")?;
    let mut standing = Vec::with_capacity(purses.len());
    for purse in purses {
        let mut rows = statement.query([purse.to_string()])?;
        let mut found =
            Standing { purse: purse.clone(), limits: limits(connection, &purse.scope())?, sums: Default::default() };
        while let Some(row) = rows.next()? {
            let sum = purse_of((row.get(1)?, row.get(2)?, row.get(3)?))?;
            found.sums.insert(parsed(row.get(0)?, "a purse")?, sum);
        }
        standing.push(found);
    }
    Ok(standing)
}

pub(super) fn holds(
    connection: &Connection,
    nodes: &Nodes,
    log: Option<&LogId>,
) -> Result<Vec<OpenHold>, Stop<StoreError>> {
    let mut statement = connection.prepare_cached(match log {
        Some(_) => "SELECT attempt, log, node, body FROM holds WHERE body IS NOT NULL AND log = ?1 ORDER BY attempt",
        None => "SELECT attempt, log, node, body FROM holds WHERE body IS NOT NULL AND ?1 IS NULL ORDER BY attempt",
    })?;
    let mut rows = statement.query([log.map(LogId::as_str)])?;
    let mut holds = Vec::new();
    while let Some(row) = rows.next()? {
        let attempt: AttemptId = parsed(row.get(0)?, "a hold")?;
        let body: String = row.get(3)?;
        let node = parsed(row.get(2)?, "a hold's owner")?;
        holds.push(OpenHold {
            hold: hold_of(&attempt, &body)?,
            log: parsed(row.get(1)?, "a hold's log")?,
            alive: nodes.is_alive(&node),
            node,
        });
    }
    Ok(holds)
}
