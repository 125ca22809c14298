//! How much is left of one limit: a bucket that refills steadily, and learns its size from the vendor.
//!
//! Times are milliseconds of one steady clock. The level counts sixty-thousandths of a unit, so that a refill is exact.

use adj_providers::Reading;

const PARTS: u64 = 60_000;
/// Keeps every product within 64 bits; no limit of any vendor is near it.
const MOST: u64 = 1_000_000_000_000;
const DAY_MINUTES: u64 = 24 * 60;
/// Resets are often rounded to seconds, so that one shorter than this says little about the rate.
const SHORTEST_TELLING_RESET_MS: u64 = 2000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    capacity: u64,
    per_minute: u64,
    level: u64,
    at: u64,
}

impl Bucket {
    /// A full bucket for so many units a minute.
    pub fn full(per_minute: u64, now: u64) -> Self {
        let capacity = per_minute.clamp(1, MOST);
        Self { capacity, per_minute: capacity, level: capacity * PARTS, at: now }
    }

    pub fn per_minute(&self) -> u64 {
        self.per_minute
    }

    /// Returns when so many units are there, `now` if they are; more than fit in are there when the bucket is full.
    pub fn ready_at(&self, need: u64, now: u64) -> u64 {
        let missing = (need.min(self.capacity) * PARTS).saturating_sub(self.level_at(now));
        now.saturating_add(missing.div_ceil(self.per_minute))
    }

    pub fn take(&mut self, need: u64, now: u64) {
        self.fill(now);
        self.level = self.level.saturating_sub(need.min(MOST) * PARTS);
    }

    /// Replaces what was taken for a request by what it came to.
    pub fn correct(&mut self, taken: u64, actual: u64, now: u64) {
        match taken.checked_sub(actual) {
            Some(back) => {
                self.fill(now);
                self.level = (self.level + back.min(MOST) * PARTS).min(self.capacity * PARTS);
            }
            None => self.take(actual - taken, now),
        }
    }

    /// Takes the vendor's word: for the size, the level less what the vendor had not seen yet, and the rate.
    pub fn learn(&mut self, reading: &Reading, unseen: u64, now: u64) {
        self.fill(now);
        if let Some(limit) = reading.limit {
            let limit = limit.clamp(1, MOST);
            if limit != self.capacity {
                (self.capacity, self.per_minute) = (limit, limit);
            }
        }
        let Some(remaining) = reading.remaining else { return };
        let used = self.capacity.saturating_sub(remaining);
        let reset = reading.reset.map_or(0, |reset| u64::try_from(reset.as_millis()).unwrap_or(u64::MAX));
        // Whoever has hardly used anything is told nothing about the rate either.
        if used >= self.capacity.div_ceil(20) && reset >= SHORTEST_TELLING_RESET_MS {
            let rate = (used * PARTS).div_ceil(reset).clamp(self.capacity.div_ceil(DAY_MINUTES), self.capacity * 60);
            self.per_minute = (3 * self.per_minute + rate).div_ceil(4);
        }
        self.level = remaining.saturating_sub(unseen).min(self.capacity) * PARTS;
    }

    fn level_at(&self, now: u64) -> u64 {
        let gained = self.per_minute.saturating_mul(now.saturating_sub(self.at));
        self.level.saturating_add(gained).min(self.capacity * PARTS)
    }

    fn fill(&mut self, now: u64) {
        self.level = self.level_at(now);
        self.at = self.at.max(now);
    }
}
