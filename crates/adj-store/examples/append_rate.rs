//! Measures durable appends per second against what the disk can do, in one run; prints one line of JSON.
//!
//! `append_rate [DIR] [TASKS] [APPENDS]`: 64 tasks of 200 appends in a new directory under DIR (default: the directory
//! for temporary files, which should lie on a disk).

use adj_domain::{EventId, LogId, NewEvent};
use adj_store::{Batch, Expect, LogMeta, NodeId, SqliteStore, Store};
use std::{
    error::Error,
    fs,
    io::{Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, oneshot};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

#[tokio::main]
async fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let parent = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let tasks: u64 = arguments.next().map_or(Ok(64), |text| text.parse())?;
    let appends: u64 = arguments.next().map_or(Ok(200), |text| text.parse())?;
    let dir = parent.join(format!("append-rate-{}", std::process::id()));

    let outcome = measure(&dir, tasks, appends).await;
    fs::remove_dir_all(&dir)?;
    writeln!(std::io::stdout(), "{}", outcome?)?;
    Ok(())
}

async fn measure(dir: &Path, tasks: u64, appends: u64) -> Outcome<serde_json::Value> {
    let store = Arc::new(SqliteStore::open(dir)?);
    let before = sync_rate(dir)?;

    let node: NodeId = "bench".parse()?;
    let mut fences = Vec::new();
    for task in 0..tasks {
        let log: LogId = format!("sesn_bench{task}").parse()?;
        store.create(&log, LogMeta::default()).await?;
        fences.push(store.claim(&log, &node).await?.fence);
    }
    let commits = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&commits);
    store.set_after_commit(Box::new(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
    }));
    let started = Instant::now();
    let mut running = tokio::task::JoinSet::new();
    for fence in fences {
        let store = Arc::clone(&store);
        running.spawn(async move {
            let mut waits = Vec::new();
            for number in 0..appends {
                let event = NewEvent {
                    id: EventId::derive(&[fence.log().as_str(), &number.to_string()]),
                    kind: "agent.message".to_owned(),
                    body: format!(r#"{{"type":"agent.message","text":"{}"}}"#, "x".repeat(250)),
                };
                let asked = Instant::now();
                store.append(&fence, Expect::Head(number), Batch::events(vec![event])).await?;
                waits.push(asked.elapsed());
            }
            Outcome::Ok(waits)
        });
    }
    let mut waits = Vec::new();
    while let Some(done) = running.join_next().await {
        waits.extend(done??);
    }
    let took = started.elapsed();
    let after = sync_rate(dir)?;
    let raw = raw_rate(dir, tasks, appends).await?;
    let bare = bare_rate(dir, tasks, appends)?;

    waits.sort();
    let commits = commits.load(Ordering::Relaxed);
    let events = tasks * appends;
    let syncs = (before + after) / 2.0;
    let rate = events as f64 / took.as_secs_f64();
    Ok(serde_json::json!({
        "tasks": tasks,
        "events": events,
        "events_per_second": rate.round(),
        "commits": commits,
        "events_per_commit": (events as f64 / commits as f64 * 10.0).round() / 10.0,
        "p50_ms": millis(waits[waits.len() / 2]),
        "p99_ms": millis(waits[waits.len() * 99 / 100]),
        "fdatasyncs_per_second": syncs.round(),
        "raw_events_per_second": raw.round(),
        "sqlite_events_per_second": bare.round(),
        "raw_over_store": (raw / rate * 100.0).round() / 100.0,
    }))
}

/// Returns how often the disk can sync 4 KiB that are overwritten in place, as the pages of a recycled WAL are.
fn sync_rate(dir: &Path) -> Outcome<f64> {
    let path = dir.join("sync-rate");
    let mut file = fs::File::create(&path)?;
    file.write_all(&vec![1; 1 << 20])?;
    file.sync_all()?;
    let page = [2; 4096];
    let started = Instant::now();
    let mut syncs = 0_u32;
    while started.elapsed() < Duration::from_millis(500) {
        file.seek(SeekFrom::Start(u64::from(syncs % 256) * 4096))?;
        file.write_all(&page)?;
        file.sync_data()?;
        syncs += 1;
    }
    let rate = f64::from(syncs) / started.elapsed().as_secs_f64();
    fs::remove_file(path)?;
    Ok(rate)
}

/// Returns what group commit gives without a database: one thread writes the records that wait into a file, one after
/// the other, and syncs once for all of them.
async fn raw_rate(dir: &Path, tasks: u64, appends: u64) -> Outcome<f64> {
    const RECORD: usize = 400;
    const FILE: u64 = 16 << 20;
    let path = dir.join("raw");
    let mut file = fs::File::create(&path)?;
    file.write_all(&vec![0; FILE as usize])?;
    file.sync_all()?;
    let (send, mut inbox) = mpsc::channel::<(Vec<u8>, oneshot::Sender<()>)>(1_024);
    let writer = thread::spawn(move || -> Outcome<()> {
        let mut at = 0;
        while let Some(first) = inbox.blocking_recv() {
            let mut group = vec![first];
            while let Ok(next) = inbox.try_recv() {
                group.push(next);
            }
            let bytes: Vec<u8> = group.iter().flat_map(|(record, _)| record).copied().collect();
            at = if at + bytes.len() as u64 > FILE { 0 } else { at };
            file.seek(SeekFrom::Start(at))?;
            file.write_all(&bytes)?;
            file.sync_data()?;
            at += bytes.len() as u64;
            for (_, reply) in group {
                // A task that ended early says so itself.
                let _ = reply.send(());
            }
        }
        Ok(())
    });
    let started = Instant::now();
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..tasks {
        let send = send.clone();
        running.spawn(async move {
            for _ in 0..appends {
                let (reply, answer) = oneshot::channel();
                send.send((vec![7; RECORD], reply)).await?;
                answer.await?;
            }
            Outcome::Ok(())
        });
    }
    while let Some(done) = running.join_next().await {
        done??;
    }
    let took = started.elapsed();
    drop(send);
    writer.join().map_err(|_| "the writer of the raw file panicked")??;
    fs::remove_file(path)?;
    Ok((tasks * appends) as f64 / took.as_secs_f64())
}

/// Returns what SQLite alone gives for the same rows: one thread, a transaction for every `tasks` events, nobody to answer.
fn bare_rate(dir: &Path, tasks: u64, appends: u64) -> Outcome<f64> {
    let (tasks, appends) = (i64::try_from(tasks)?, i64::try_from(appends)?);
    let database = rusqlite::Connection::open(dir.join("bare.db"))?;
    database.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 4000;
         CREATE TABLE logs (number INTEGER PRIMARY KEY, epoch INTEGER, head INTEGER, head_hash BLOB) STRICT;
         CREATE TABLE events (log INTEGER, seq INTEGER, id TEXT, body TEXT, hash BLOB, PRIMARY KEY (log, seq))
         STRICT, WITHOUT ROWID;",
    )?;
    for log in 0..tasks {
        database.execute("INSERT INTO logs VALUES (?1, 1, 0, x'')", [log])?;
    }
    let (id, body) = ("sevt_0123456789bcdfghjkmn", "x".repeat(280));
    let started = Instant::now();
    for seq in 1..=appends {
        database.execute_batch("BEGIN IMMEDIATE")?;
        for log in 0..tasks {
            let fence = "UPDATE logs SET head = ?2, head_hash = ?3 WHERE number = ?1 AND epoch = 1 AND head = ?2 - 1";
            database.prepare_cached(fence)?.execute(rusqlite::params![log, seq, [7u8; 32]])?;
            let insert = "INSERT INTO events VALUES (?1, ?2, ?3, ?4, ?5)";
            database.prepare_cached(insert)?.execute(rusqlite::params![log, seq, id, body, [7u8; 32]])?;
        }
        database.execute_batch("COMMIT")?;
    }
    Ok((tasks * appends) as f64 / started.elapsed().as_secs_f64())
}

fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 100_000.0).round() / 100.0
}
