//! The fair queue keeps its two promises, whoever arrives and whoever gives up.

use adj_gateway::fair::{Fair, Waiting};
use proptest::{collection::vec, prelude::*};
use std::collections::{BTreeMap, VecDeque};

#[derive(Debug, Clone)]
struct Tick {
    arrivals: Vec<Arrival>,
    gives_up: Option<prop::sample::Index>,
    /// Whether anybody can be served now.
    is_ready: bool,
}

#[derive(Debug, Clone)]
struct Arrival {
    /// `None`: a flow that was never seen before.
    flow: Option<u8>,
    weight: u32,
    cost: u64,
}

fn ticks() -> impl Strategy<Value = Vec<Tick>> {
    let weight = prop_oneof![Just(1u32), Just(10), Just(1000)];
    let arrival = (prop::option::of(0u8..6), weight, 1u64..1000);
    let arrival = arrival.prop_map(|(flow, weight, cost)| Arrival { flow, weight, cost });
    let tick =
        (vec(arrival, 0..3), prop::option::weighted(0.2, any::<prop::sample::Index>()), prop::bool::weighted(0.9));
    vec(tick.prop_map(|(arrivals, gives_up, is_ready)| Tick { arrivals, gives_up, is_ready }), 1..400)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Theorem of waiting: 2N servings after it fell overdue, with N the number of flows that waited then.
    #[test]
    fn nobody_waits_beyond_the_bound(ticks in ticks(), overdue_after in prop::sample::select(vec![0u64, 5, 20, 100])) {
        let mut queue = Fair::new(overdue_after);
        let mut flows = BTreeMap::<String, VecDeque<u64>>::new();
        // For each head: since when; and once overdue, how many may still be served before it.
        let mut heads = BTreeMap::<u64, u64>::new();
        let mut allowances = BTreeMap::<u64, u64>::new();
        let mut tickets = 0;
        for (now, tick) in ticks.into_iter().enumerate() {
            let now = now as u64;
            for arrival in tick.arrivals {
                tickets += 1;
                let flow = arrival.flow.map_or_else(|| format!("new {tickets}"), |flow| format!("old {flow}"));
                // The first of the old flows is the one that weights would starve.
                let weight = if arrival.flow == Some(0) { 1 } else { arrival.weight };
                queue.arrive(&flow, Waiting { ticket: tickets, cost: arrival.cost, weight }, now);
                flows.entry(flow).or_default().push_back(tickets);
            }
            let waiting = flows.values().flatten().copied().collect::<Vec<_>>();
            if let Some(index) = tick.gives_up.filter(|_| !waiting.is_empty()) {
                let ticket = *index.get(&waiting);
                prop_assert!(queue.leave(ticket, now));
                prop_assert!(!queue.leave(ticket, now));
                flows.values_mut().for_each(|flow| flow.retain(|held| *held != ticket));
            }
            flows.retain(|_, flow| !flow.is_empty());
            for head in flows.values().map(|flow| flow[0]) {
                let since = *heads.entry(head).or_insert(now);
                if now >= since + overdue_after {
                    allowances.entry(head).or_insert(2 * flows.len() as u64);
                }
            }
            prop_assert_eq!(queue.len(), flows.values().map(VecDeque::len).sum::<usize>());
            if !tick.is_ready {
                continue;
            }
            let Some(pick) = queue.pick(now) else {
                prop_assert!(flows.is_empty());
                continue;
            };
            prop_assert_eq!(queue.pick(now), Some(pick.clone()), "the same queue makes the same choice");
            let served = queue.take(&pick, now).expect("what was picked is there");
            prop_assert_eq!(flows.get_mut(&pick.flow).and_then(VecDeque::pop_front), Some(served.ticket));
            for (ticket, left) in &mut allowances {
                let waits_still = flows.values().any(|flow| flow.front() == Some(ticket));
                if waits_still || *ticket == served.ticket {
                    prop_assert!(*left > 0, "{ticket} was passed over too often");
                    *left -= 1;
                }
            }
            // Who comes up now has not waited as a head yet.
            if let Some(next) = flows.get(&pick.flow).and_then(VecDeque::front) {
                heads.insert(*next, now);
            }
        }
    }

    /// Theorem of fairness: service by weight, up to one largest request of each.
    #[test]
    fn those_who_wait_throughout_are_served_by_weight(
        flows in vec((1u32..1000, vec(1u64..1000, 200)), 2..6),
    ) {
        let mut queue = Fair::new(u64::MAX);
        let mut ticket = 0;
        for (name, (weight, costs)) in flows.iter().enumerate() {
            for cost in costs {
                ticket += 1;
                queue.arrive(&name.to_string(), Waiting { ticket, cost: *cost, weight: *weight }, 0);
            }
        }
        let mut served = vec![(0u64, 0usize); flows.len()];
        while served.iter().zip(&flows).all(|((_, count), (_, costs))| *count < costs.len()) {
            let pick = queue.pick(0).expect("everybody waits");
            let waiting = queue.take(&pick, 0).expect("what was picked is there");
            let place = pick.flow.parse::<usize>().expect("flows are numbered");
            served[place].0 += waiting.cost;
            served[place].1 += 1;
            let shares = served.iter().zip(&flows).map(|((sum, count), (weight, costs))| {
                let largest = costs.iter().max().copied().unwrap_or_default();
                // Each serving rounds its part of the virtual time down.
                let rounding = *count as f64 / f64::from(1 << 20);
                (*sum as f64 / f64::from(*weight), largest as f64 / f64::from(*weight) + rounding)
            });
            let shares = shares.collect::<Vec<_>>();
            for (one, one_largest) in &shares {
                for (other, other_largest) in &shares {
                    prop_assert!(one - other <= one_largest + other_largest, "{shares:?}");
                }
            }
        }
    }
}

#[test]
fn fresh_flows_do_not_starve_an_old_one() {
    let served_within = |overdue_after: u64| {
        let mut queue = Fair::new(overdue_after);
        let mut served = 0;
        for ticket in [1, 2] {
            queue.arrive("old", Waiting { ticket, cost: 900, weight: 1 }, 0);
        }
        for now in 0..1000 {
            queue.arrive(&format!("new {now}"), Waiting { ticket: 10 + now, cost: 900, weight: 1 }, now);
            let pick = queue.pick(now).expect("somebody waits");
            queue.take(&pick, now);
            served += u32::from(pick.flow == "old");
        }
        served
    };
    assert_eq!(served_within(50), 2);
    // Tags alone would do that; this is what the lane for the overdue is for.
    assert_eq!(served_within(u64::MAX), 1);
}

#[test]
fn an_idle_flow_gathers_no_credit_and_is_forgotten() {
    let mut queue = Fair::new(u64::MAX);
    let one = |ticket| Waiting { ticket, cost: 100, weight: 1 };
    for ticket in 0..10 {
        queue.arrive("busy", one(ticket), 0);
    }
    for _ in 0..5 {
        let pick = queue.pick(0).expect("somebody waits");
        queue.take(&pick, 0);
    }
    for ticket in 10..20 {
        queue.arrive("late", one(ticket), 0);
    }
    let order = std::iter::from_fn(|| {
        let pick = queue.pick(0)?;
        queue.take(&pick, 0);
        Some(pick.flow)
    });
    let order = order.take(10).collect::<Vec<_>>();
    assert_eq!(order.iter().filter(|flow| *flow == "late").count(), 5, "{order:?}");
    assert_eq!(queue.clear().len(), 5);
    assert!(queue.is_empty());
}
