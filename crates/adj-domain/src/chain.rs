//! The hash chain that shows that a log is whole and unchanged.

use crate::{event::Event, id::LogId};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The BLAKE3 hash of an event together with the hash of the one before it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChainHash(pub [u8; 32]);

impl ChainHash {
    /// Returns what the first event of a log is chained to.
    pub fn start(log: &LogId) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("adjutant 2026 journal chain v1");
        hasher.update(log.as_str().as_bytes());
        Self(*hasher.finalize().as_bytes())
    }

    /// Returns the hash of the event that follows; every stored field counts, so that none can be changed alone.
    pub fn next(self, seq: u64, epoch: u64, at_millis: i64, id: &str, kind: &str, body: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.0);
        hasher.update(&seq.to_le_bytes());
        hasher.update(&epoch.to_le_bytes());
        hasher.update(&at_millis.to_le_bytes());
        for part in [id.as_bytes(), kind.as_bytes(), body] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        Self(*hasher.finalize().as_bytes())
    }

    pub fn from_hex(text: &str) -> Option<Self> {
        blake3::Hash::from_hex(text).ok().map(|hash| Self(*hash.as_bytes()))
    }
}

impl fmt::Display for ChainHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for ChainHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChainHash({self})")
    }
}

impl Serialize for ChainHash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ChainHash {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::from_hex(&text).ok_or_else(|| serde::de::Error::custom("a chain hash has 64 hexadecimal digits"))
    }
}

/// Where a log stops being what was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainBreak {
    #[error("{log}: event {expected} is missing (event {found} follows event {})", expected - 1)]
    Missing { log: LogId, expected: u64, found: u64 },
    #[error("{log}: event {seq} is not what was written (hash {found}, expected {expected})")]
    Changed { log: LogId, seq: u64, expected: ChainHash, found: ChainHash },
    #[error("{log}: event {seq} has epoch {epoch}, after epoch {before}")]
    EpochWentBack { log: LogId, seq: u64, epoch: u64, before: u64 },
    #[error("{log}: the log ends at event {found}, its head says {expected}")]
    TailMissing { log: LogId, expected: u64, found: u64 },
}

/// Walks a log in order and stops at the first event that does not belong.
#[derive(Debug, Clone)]
pub struct ChainVerifier {
    log: LogId,
    seq: u64,
    epoch: u64,
    hash: ChainHash,
}

impl ChainVerifier {
    pub fn new(log: LogId) -> Self {
        let hash = ChainHash::start(&log);
        Self { log, seq: 0, epoch: 0, hash }
    }

    pub fn check(&mut self, event: &Event) -> Result<(), ChainBreak> {
        let expected = self.seq + 1;
        if event.seq != expected {
            return Err(ChainBreak::Missing { log: self.log.clone(), expected, found: event.seq });
        }
        let hash = event.chained_to(self.hash);
        if hash != event.hash {
            return Err(ChainBreak::Changed {
                log: self.log.clone(),
                seq: event.seq,
                expected: hash,
                found: event.hash,
            });
        }
        if event.epoch < self.epoch {
            return Err(ChainBreak::EpochWentBack {
                log: self.log.clone(),
                seq: event.seq,
                epoch: event.epoch,
                before: self.epoch,
            });
        }
        (self.seq, self.epoch, self.hash) = (event.seq, event.epoch, hash);
        Ok(())
    }

    /// Compares the end of the walk with what the store remembers as the head.
    pub fn finish(self, head: u64) -> Result<(), ChainBreak> {
        if self.seq == head {
            Ok(())
        } else {
            Err(ChainBreak::TailMissing { log: self.log, expected: head, found: self.seq })
        }
    }
}
