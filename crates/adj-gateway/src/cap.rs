//! How many requests may be under way: everybody's, until the vendor complains; then half as many, and slowly more.

#[derive(Debug, Default)]
pub struct Cap {
    lowered: Option<Lowered>,
}

#[derive(Debug)]
struct Lowered {
    to: usize,
    went_well: usize,
    at: u64,
}

const BETWEEN_LOWERINGS_MS: u64 = 10_000;
const FORGOTTEN_AFTER_MS: u64 = 600_000;

impl Cap {
    pub fn is_reached(&self, under_way: usize, most: Option<u32>, now: u64) -> bool {
        let most = most.map(|most| usize::try_from(most.max(1)).unwrap_or(usize::MAX));
        let lowered = self.lowered.as_ref().filter(|lowered| now.saturating_sub(lowered.at) < FORGOTTEN_AFTER_MS);
        let cap = most.into_iter().chain(lowered.map(|lowered| lowered.to)).min();
        cap.is_some_and(|cap| under_way >= cap)
    }

    /// The vendor complained; once in a while that halves what may be under way.
    pub fn lower(&mut self, under_way: usize, now: u64) {
        let is_fresh = |lowered: &Lowered| now.saturating_sub(lowered.at) < BETWEEN_LOWERINGS_MS;
        if !self.lowered.as_ref().is_some_and(is_fresh) {
            self.lowered = Some(Lowered { to: under_way.div_ceil(2).max(1), went_well: 0, at: now });
        }
    }

    pub fn went_well(&mut self, now: u64) {
        let Some(lowered) = &mut self.lowered else { return };
        if now.saturating_sub(lowered.at) >= FORGOTTEN_AFTER_MS {
            self.lowered = None;
            return;
        }
        lowered.went_well += 1;
        if lowered.went_well >= lowered.to {
            lowered.to += 1;
            lowered.went_well = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_halves_what_is_under_way_and_what_goes_well_raises_it() {
        let mut cap = Cap::default();
        let largest = |cap: &Cap, most, now| (0..100).find(|under_way| cap.is_reached(*under_way, most, now));
        assert_eq!(
            (largest(&cap, None, 0), largest(&cap, Some(7), 0), largest(&cap, Some(0), 0)),
            (None, Some(7), Some(1))
        );
        cap.lower(9, 0);
        cap.lower(8, 9_999);
        assert_eq!(
            (largest(&cap, None, 0), largest(&cap, Some(3), 0)),
            (Some(5), Some(3)),
            "one complaint of many at once"
        );
        (0..5).for_each(|_| cap.went_well(10_000));
        assert_eq!(largest(&cap, None, 10_000), Some(6));
        for number in 1..=6 {
            cap.lower(largest(&cap, None, 0).unwrap_or(0), 10_000 * number);
        }
        assert_eq!(largest(&cap, None, 60_000), Some(1), "never nothing");
        assert_eq!(largest(&cap, None, 660_000), None, "forgotten after ten minutes");
        cap.went_well(660_000);
        assert_eq!(largest(&cap, None, 0), None);
    }
}
