//! The breaker of one limit: who is refused shuts the door for all, one tries whether it is open again, and the others
//! follow one by one.
//!
//! Attempts are numbered in the order in which they were sent. Times are milliseconds of one steady clock.

/// How waits grow and spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    pub first_ms: u64,
    pub longest_ms: u64,
    pub seed: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Breaker {
    /// Everybody may pass.
    #[default]
    Closed,
    /// Nobody may pass before `until`, and then only one, `late` after it.
    Open { until: u64, late: u64, burst: Burst },
    /// One attempt is on its way to find out.
    Probing { attempt: u64, deadline: u64, burst: Burst },
    /// The probe went well: those who waited follow, each in a slot of its own.
    Easing { probe: u64, from: u64, spread: u64, slots: u64, used: u64 },
}

/// What happened since the door was shut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Burst {
    pub since: u64,
    /// The first refusal, and each refused probe.
    pub refusals: u32,
}

/// Whether an attempt may be sent now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    Go,
    /// One may, and finds out for all.
    Probe,
    /// Look again at this time.
    At(u64),
}

/// A vendor that names short waits again and again is not asked more often than back-off would.
const PATIENT_REFUSALS: u32 = 3;

impl Breaker {
    pub fn gate(&self, now: u64, pace: &Pace) -> Gate {
        let at = |time: u64, then: Gate| if time <= now { then } else { Gate::At(time) };
        match *self {
            Self::Closed => Gate::Go,
            Self::Open { until, late, .. } => at(until.saturating_add(late), Gate::Probe),
            Self::Probing { deadline, .. } => at(deadline, Gate::Probe),
            Self::Easing { from, spread, slots, used, .. } if used < slots => {
                let slot = spread / slots;
                at(from + slot * used + mix(pace.seed, from ^ used) % slot.max(1), Gate::Go)
            }
            Self::Easing { .. } => Gate::Go,
        }
    }

    /// An attempt is sent, which the gate allowed; a probe that says nothing until `deadline` makes way for another.
    pub fn sent(&mut self, attempt: u64, now: u64, deadline: u64) {
        match self {
            Self::Closed => {}
            Self::Open { burst, .. } | Self::Probing { burst, .. } => {
                *self = Self::Probing { attempt, deadline, burst: *burst };
            }
            Self::Easing { from, spread, slots, used, .. } => {
                *used += 1;
                if *used >= *slots || now >= *from + *spread {
                    *self = Self::Closed;
                }
            }
        }
    }

    /// The vendor refused an attempt, and asked for a wait of so many milliseconds, if for any.
    pub fn refused(&mut self, attempt: u64, asked: Option<u64>, now: u64, pace: &Pace) {
        let open = |burst: Burst| {
            let back_off = pace.first_ms.saturating_mul(1 << (burst.refusals - 1).min(16)).min(pace.longest_ms);
            let jitter = |below: u64| mix(pace.seed, attempt) % below.max(1);
            match asked {
                // Never earlier than asked; a little later, so that several processes do not come back in one instant.
                Some(asked) => {
                    let wait = if burst.refusals > PATIENT_REFUSALS { asked.max(back_off) } else { asked };
                    Self::Open { until: now.saturating_add(wait), late: jitter(pace.first_ms), burst }
                }
                None => Self::Open { until: now + back_off / 2, late: jitter(back_off / 2), burst },
            }
        };
        match self {
            Self::Closed => *self = open(Burst { since: now, refusals: 1 }),
            Self::Open { until, .. } => {
                *until = (*until).max(now.saturating_add(asked.unwrap_or(0)));
            }
            Self::Probing { attempt: probe, burst, .. } => {
                // Whoever was sent before the probe knows less than the probe will.
                if *probe == attempt {
                    *self = open(Burst { refusals: burst.refusals.saturating_add(1), ..*burst });
                }
            }
            Self::Easing { probe, .. } => {
                if attempt >= *probe {
                    *self = open(Burst { since: now, refusals: 1 });
                }
            }
        }
    }

    /// The vendor let an attempt in; so many others wait, and come back spread over so many milliseconds.
    pub fn answered(&mut self, attempt: u64, waiting: u64, spread: u64, now: u64) {
        if self.is_probed_by(attempt) {
            *self = match waiting {
                0 => Self::Closed,
                slots => Self::Easing { probe: attempt, from: now, spread, slots, used: 0 },
            };
        }
    }

    /// An attempt ended without telling anything about the limit: another has to find out.
    pub fn lost(&mut self, attempt: u64, now: u64) {
        if let Self::Probing { attempt: probe, burst, .. } = *self
            && probe == attempt
        {
            *self = Self::Open { until: now, late: 0, burst };
        }
    }

    pub fn is_probed_by(&self, attempt: u64) -> bool {
        matches!(self, Self::Probing { attempt: probe, .. } if *probe == attempt)
    }

    /// Returns until when nobody may pass, if that is longer than people want to wait: in one piece, or in all.
    pub fn is_shut_too_long(&self, now: u64, longest_ms: u64, patience_ms: u64) -> Option<u64> {
        match *self {
            Self::Open { until, burst, .. } => {
                let is_long = until.saturating_sub(now) > longest_ms || until.saturating_sub(burst.since) > patience_ms;
                (until > now && is_long).then_some(until)
            }
            Self::Closed | Self::Probing { .. } | Self::Easing { .. } => None,
        }
    }
}

/// Spreads numbers evenly (SplitMix64): the same seed gives the same waits.
fn mix(seed: u64, number: u64) -> u64 {
    let mut bits = seed.wrapping_add(number.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}
