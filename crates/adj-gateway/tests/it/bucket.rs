//! A bucket never gives more than it may, and believes the vendor.

use adj_gateway::bucket::Bucket;
use adj_providers::{Reading, Resource};
use proptest::{collection::vec, prelude::*};
use std::time::Duration;

fn reading(limit: Option<u64>, remaining: u64, reset_ms: Option<u64>) -> Reading {
    let reset = reset_ms.map(Duration::from_millis);
    Reading { resource: Resource::Tokens, limit, remaining: Some(remaining), reset }
}

proptest! {
    #[test]
    fn in_no_span_of_time_more_is_given_than_was_in_it_and_came_in(
        per_minute in 1u64..5000,
        steps in vec((0u64..3000, 1u64..6000), 1..60),
    ) {
        let mut bucket = Bucket::full(per_minute, 0);
        let mut now = 0;
        let mut given = Vec::new();
        for (pause, need) in steps {
            now += pause;
            let need = need.min(per_minute);
            let ready = bucket.ready_at(need, now);
            prop_assert!(ready >= now);
            if ready == now {
                bucket.take(need, now);
                given.push((now, need));
            } else {
                prop_assert!(ready - now <= 60_000, "a full minute fills the bucket");
                prop_assert!(bucket.ready_at(need, ready) == ready && bucket.ready_at(need, ready - 1) > ready - 1);
            }
        }
        for (from, (start, _)) in given.iter().enumerate() {
            let mut sum = 0;
            for (end, need) in &given[from..] {
                sum += need;
                let allowed = per_minute * 60_000 + per_minute * (end - start);
                prop_assert!(sum * 60_000 <= allowed, "{sum} from {start} to {end}");
            }
        }
    }

    #[test]
    fn no_numbers_break_it(numbers in vec(any::<u64>(), 8)) {
        let mut bucket = Bucket::full(numbers[0], numbers[1]);
        bucket.take(numbers[2], numbers[3]);
        bucket.learn(&reading(Some(numbers[4]), numbers[5], Some(numbers[6])), numbers[7], numbers[3]);
        bucket.correct(numbers[5], numbers[6], numbers[7]);
        let _ = bucket.ready_at(numbers[2], numbers[7]);
    }
}

#[test]
fn more_than_fits_in_goes_when_the_bucket_is_full() {
    let mut bucket = Bucket::full(100, 0);
    assert_eq!(bucket.ready_at(1_000_000, 0), 0);
    bucket.take(1_000_000, 0);
    assert_eq!(bucket.ready_at(1_000_000, 0), 60_000);
    assert_eq!(bucket.ready_at(50, 0), 30_000);
}

#[test]
fn what_was_not_used_comes_back() {
    let mut bucket = Bucket::full(60, 0);
    bucket.take(60, 0);
    bucket.correct(60, 20, 0);
    assert_eq!((bucket.ready_at(40, 0), bucket.ready_at(41, 0)), (0, 1000));
    bucket.correct(0, 40, 0);
    assert_eq!(bucket.ready_at(1, 0), 1000);
    bucket.correct(1000, 0, 0);
    assert_eq!(bucket.ready_at(60, 0), 0, "never more than fits in");
}

#[test]
fn the_vendor_says_how_large_it_is_how_full_and_how_fast() {
    let cases = [
        // reading, not seen by the vendor, per minute afterwards, ready for 100 at
        (reading(None, 600, None), 0, 600, 0),
        (reading(Some(1200), 1200, None), 0, 1200, 0),
        (reading(None, 100, None), 40, 600, 4000),
        (reading(None, 0, None), 0, 600, 10_000),
        // A limit of the day: 600 in 24 hours. A quarter of the news is believed each time.
        (reading(None, 0, Some(86_400_000)), 0, 451, 13_304),
        // A vendor that is faster than its limit of a minute.
        (reading(None, 300, Some(3000)), 0, 1950, 0),
        // Seconds that were rounded up, and hardly anything used, say nothing.
        (reading(None, 0, Some(1000)), 0, 600, 10_000),
        (reading(None, 590, Some(60_000)), 0, 600, 0),
    ];
    for (reading, unseen, per_minute, ready) in cases {
        let mut bucket = Bucket::full(600, 0);
        bucket.learn(&reading, unseen, 0);
        assert_eq!((bucket.per_minute(), bucket.ready_at(100, 0)), (per_minute, ready), "{reading:?}");
    }
}
