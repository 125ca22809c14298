//! Every sequence of inputs up to a length: one probe at a time, nobody through a shut door, and always a way back.

use adj_gateway::breaker::{Breaker, Gate, Pace};

const PACE: Pace = Pace { first_ms: 400, longest_ms: 5000, seed: 3 };
const PROBE_MS: u64 = 5000;

#[derive(Debug, Clone, Copy)]
enum Step {
    Send,
    RefuseOldest,
    RefuseNewestFor(u64),
    AnswerNewest,
    AnswerOldest,
    LoseNewest,
    Wait(u64),
}

const STEPS: [Step; 8] = [
    Step::Send,
    Step::RefuseOldest,
    Step::RefuseNewestFor(2000),
    Step::AnswerNewest,
    Step::AnswerOldest,
    Step::LoseNewest,
    Step::Wait(250),
    Step::Wait(3000),
];

#[derive(Debug, Clone, Default)]
struct World {
    breaker: Breaker,
    now: u64,
    last: u64,
    under_way: Vec<u64>,
    /// Until when the vendor asked to be left alone.
    alone_until: u64,
    probe: Option<(u64, u64)>,
}

impl World {
    fn send(&mut self) -> bool {
        let gate = self.breaker.gate(self.now, &PACE);
        if let Gate::At(time) = gate {
            assert!(time > self.now, "a gate that is shut says when to look again");
            return false;
        }
        self.last += 1;
        if gate == Gate::Probe {
            let is_over =
                self.probe.is_none_or(|(probe, deadline)| deadline <= self.now || !self.under_way.contains(&probe));
            assert!(is_over, "two probes at a time: {self:?}");
            assert!(self.now >= self.alone_until, "the vendor asked to be left alone: {self:?}");
            self.probe = Some((self.last, self.now + PROBE_MS));
        }
        self.breaker.sent(self.last, self.now, self.now + PROBE_MS);
        self.under_way.push(self.last);
        true
    }

    fn step(&mut self, step: Step) -> bool {
        let newest = |world: &mut Self| world.under_way.pop();
        let oldest = |world: &mut Self| (world.under_way.len() > 1).then(|| world.under_way.remove(0));
        match step {
            Step::Send => return self.send(),
            Step::Wait(time) => self.now += time,
            Step::RefuseOldest => {
                let Some(attempt) = oldest(self) else { return false };
                self.breaker.refused(attempt, None, self.now, &PACE);
            }
            Step::RefuseNewestFor(time) => {
                let Some(attempt) = newest(self) else { return false };
                let was_shut = matches!(self.breaker, Breaker::Open { .. });
                self.breaker.refused(attempt, Some(time), self.now, &PACE);
                if matches!(self.breaker, Breaker::Open { .. }) {
                    let asked = self.now + time;
                    self.alone_until = if was_shut { self.alone_until.max(asked) } else { asked };
                }
            }
            Step::AnswerNewest | Step::AnswerOldest => {
                let attempt = if matches!(step, Step::AnswerNewest) { newest(self) } else { oldest(self) };
                let Some(attempt) = attempt else { return false };
                self.breaker.answered(attempt, 3, 900, self.now);
            }
            Step::LoseNewest => {
                let Some(attempt) = newest(self) else { return false };
                self.breaker.lost(attempt, self.now);
            }
        }
        self.check();
        true
    }

    fn check(&self) {
        match self.breaker {
            Breaker::Open { until, .. } if self.now < until => {
                assert!(matches!(self.breaker.gate(self.now, &PACE), Gate::At(_)), "{self:?}");
            }
            Breaker::Probing { deadline, .. } if self.now < deadline => {
                assert!(matches!(self.breaker.gate(self.now, &PACE), Gate::At(_)), "{self:?}");
            }
            _ => {}
        }
    }

    /// With a vendor that lets everybody in, the door is open to all before long.
    fn recovers(mut self) {
        for _ in 0..12 {
            match self.breaker.gate(self.now, &PACE) {
                Gate::At(time) => {
                    assert!(time <= self.now + 60_000, "{self:?}");
                    self.now = time;
                }
                Gate::Go | Gate::Probe => {
                    self.send();
                    self.breaker.answered(self.last, 3, 900, self.now);
                    self.under_way.clear();
                }
            }
            if self.breaker == Breaker::Closed {
                return;
            }
        }
        panic!("never closed again: {self:?}");
    }
}

fn explore(world: &World, depth: usize, seen: &mut u64) {
    *seen += 1;
    world.clone().recovers();
    if depth == 0 {
        return;
    }
    for step in STEPS {
        let mut next = world.clone();
        if next.step(step) {
            explore(&next, depth - 1, seen);
        }
    }
}

#[test]
fn no_sequence_lets_two_probe_or_anybody_through_too_early_or_nobody_ever_again() {
    let mut seen = 0;
    explore(&World::default(), 7, &mut seen);
    assert!(seen > 20_000, "{seen}");
}

#[test]
fn waits_grow_while_the_vendor_names_none_and_its_own_are_kept() {
    let mut breaker = Breaker::default();
    let mut now = 0;
    let mut waits = Vec::new();
    for attempt in 1..=8 {
        breaker.sent(attempt, now, now + PROBE_MS);
        breaker.refused(attempt, None, now, &PACE);
        let Gate::At(time) = breaker.gate(now, &PACE) else { panic!("the door is shut") };
        waits.push(time - now);
        now = time;
    }
    for (refusals, wait) in waits.iter().enumerate() {
        let back_off = (PACE.first_ms << refusals).min(PACE.longest_ms);
        assert!((back_off / 2..=back_off).contains(wait), "{waits:?}");
    }
    let mut breaker = Breaker::default();
    breaker.refused(1, Some(60_000), 5, &PACE);
    let Gate::At(time) = breaker.gate(5, &PACE) else { panic!("the door is shut") };
    assert!((60_005..60_405).contains(&time), "{time}");
    assert_eq!(breaker.is_shut_too_long(5, 60_000, 600_000), None);
    assert_eq!(breaker.is_shut_too_long(5, 59_999, 600_000), Some(60_005));
    // A second refusal of the same burst prolongs the wait, and never cuts it short.
    breaker.refused(2, Some(70_000), 10, &PACE);
    breaker.refused(3, Some(1), 20, &PACE);
    assert!(matches!(breaker, Breaker::Open { until: 70_010, .. }), "{breaker:?}");
}

#[test]
fn those_who_waited_follow_one_by_one() {
    let mut breaker = Breaker::default();
    breaker.refused(1, Some(1000), 0, &PACE);
    breaker.sent(2, 1400, 1400 + PROBE_MS);
    breaker.answered(2, 4, 1000, 1500);
    let mut times = Vec::new();
    let mut now = 1500;
    while breaker != Breaker::Closed {
        match breaker.gate(now, &PACE) {
            Gate::At(time) => now = time,
            Gate::Go => {
                times.push(now);
                breaker.sent(3 + times.len() as u64, now, now + PROBE_MS);
            }
            Gate::Probe => panic!("the probe is over"),
        }
    }
    assert_eq!(times.len(), 4);
    for (slot, time) in times.iter().enumerate() {
        let from = 1500 + 250 * slot as u64;
        assert!((from..from + 250).contains(time), "{times:?}");
    }
}
