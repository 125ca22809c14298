//! The governor against vendors and callers of any kind, in simulated time: what is promised holds, and nothing is lost.

use adj_domain::{FailureKind, Usage};
use adj_gateway::{
    AccountLimits,
    breaker::Pace,
    governor::{Asked, Ended, Entered, Governor, Patience},
};
use adj_providers::{ProviderError, Reading, Resource, Scope};
use proptest::{collection::vec, prelude::*, sample::Index};
use std::{collections::BTreeMap, time::Duration};

const LIMITS: AccountLimits =
    AccountLimits { concurrency: Some(5), requests_per_minute: Some(30), tokens_per_minute: None };
const PATIENCE: Patience =
    Patience { pace: Pace { first_ms: 500, longest_ms: 30_000, seed: 11 }, longest_ms: 120_000, in_all_ms: 600_000 };
const MODELS: [&str; 3] = ["one", "two", "three"];
const USED: Usage = Usage {
    input_tokens: 900,
    output_tokens: 90,
    cache_read_tokens: 5,
    cache_write_tokens: 0,
    cache_write_1h_tokens: 0,
    reasoning_tokens: 0,
};

#[derive(Debug, Clone)]
enum Step {
    Enter { flow: u8, model: usize },
    LetIn(Index),
    Answer(Index),
    Refuse { attempt: Index, wait_s: Option<u64>, whole_account: bool },
    Fail { attempt: Index, kind: FailureKind },
    Drop(Index),
    Leave(Index),
    Learn { attempt: Index, remaining: u64, reset_s: u64 },
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    use FailureKind::{Connection, InvalidRequest, Overloaded, Server, Timeout};
    let index = any::<Index>;
    let kinds = vec![Connection, InvalidRequest, Overloaded, Server, Timeout];
    prop_oneof![
        6 => (0u8..5, 0usize..3).prop_map(|(flow, model)| Step::Enter { flow, model }),
        1 => index().prop_map(Step::LetIn),
        3 => index().prop_map(Step::Answer),
        1 => (index(), prop::option::of(1u64..150), any::<bool>())
            .prop_map(|(attempt, wait_s, whole_account)| Step::Refuse { attempt, wait_s, whole_account }),
        1 => (index(), prop::sample::select(kinds)).prop_map(|(attempt, kind)| Step::Fail { attempt, kind }),
        1 => index().prop_map(Step::Drop),
        1 => index().prop_map(Step::Leave),
        1 => (index(), 0u64..40, 0u64..60)
            .prop_map(|(attempt, remaining, reset_s)| Step::Learn { attempt, remaining, reset_s }),
        3 => (1u64..5000).prop_map(Step::Pass),
    ]
}

/// The governor with those who use it.
struct World {
    governor: Governor,
    now: u64,
    waiting: BTreeMap<u64, &'static str>,
    under_way: BTreeMap<u64, &'static str>,
    sent: Vec<u64>,
    /// Until when the vendor asked to be left alone: each model, and the account.
    alone: BTreeMap<Option<&'static str>, u64>,
}

impl World {
    fn new() -> Self {
        Self {
            governor: Governor::new(LIMITS, PATIENCE),
            now: 0,
            waiting: BTreeMap::new(),
            under_way: BTreeMap::new(),
            sent: Vec::new(),
            alone: BTreeMap::new(),
        }
    }

    fn sent(&mut self, number: u64, model: &'static str) {
        for door in [None, Some(model)] {
            let until = self.alone.get(&door).copied().unwrap_or(0);
            assert!(self.now >= until, "sent at {} although {door:?} is shut until {until}", self.now);
        }
        self.sent.push(self.now);
        assert!(self.under_way.insert(number, model).is_none(), "sent twice");
        assert!(self.under_way.len() <= 5, "too many under way");
    }

    fn enter(&mut self, flow: u8, model: &'static str) {
        let flow = flow.to_string();
        let asked = Asked { flow: &flow, model, input_tokens: 1000, max_output_tokens: 4000 };
        match self.governor.enter(asked, self.now) {
            Entered::Attempt(number) => self.sent(number, model),
            Entered::Waits { ticket, .. } => assert!(self.waiting.insert(ticket, model).is_none()),
            Entered::QueueIsFull => panic!("the queue has room for more than a test's callers"),
        }
    }

    fn decide(&mut self) {
        for (ticket, decided) in self.governor.decide(self.now) {
            let model = self.waiting.remove(&ticket).expect("only those who wait are decided on, and once");
            match decided {
                Ok(number) => self.sent(number, model),
                Err(error) => assert_eq!(error.message, "slow down", "turned away with the vendor's words"),
            }
        }
    }

    fn pick(&self, index: &Index) -> Option<u64> {
        let numbers = self.under_way.keys().copied().collect::<Vec<_>>();
        (!numbers.is_empty()).then(|| *index.get(&numbers))
    }

    fn end(&mut self, index: &Index, how: Ended<'_>) {
        if let Some(number) = self.pick(index) {
            self.governor.ended(number, how, self.now);
            self.under_way.remove(&number);
        }
    }

    fn refuse(&mut self, index: &Index, wait_s: Option<u64>, whole_account: bool) {
        let Some(number) = self.pick(index) else { return };
        let scope = if whole_account { Scope::Account } else { Scope::Model };
        let retry_after = wait_s.map(Duration::from_secs);
        let error = ProviderError { retry_after, scope, ..ProviderError::new(FailureKind::RateLimit, "slow down") };
        let model = self.under_way[&number];
        let was_open = self.governor.opens_at(model, self.now) <= self.now;
        self.end(index, Ended::Failed(&error));
        // A refusal from before the door was found open again tells nothing.
        let asked = self.now + 1000 * wait_s.unwrap_or(0);
        if was_open && wait_s.is_some() && self.governor.opens_at(model, self.now) >= asked {
            self.alone.insert((!whole_account).then_some(model), asked);
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Enter { flow, model } => self.enter(*flow, MODELS[*model]),
            Step::Answer(index) => self.end(index, Ended::Answered(&USED)),
            Step::Drop(index) => self.end(index, Ended::Dropped),
            Step::Fail { attempt, kind } => {
                self.end(attempt, Ended::Failed(&ProviderError::new(*kind, "something else")));
            }
            Step::Refuse { attempt, wait_s, whole_account } => self.refuse(attempt, *wait_s, *whole_account),
            Step::LetIn(index) => {
                if let Some(number) = self.pick(index) {
                    self.governor.let_in(number, self.now);
                }
            }
            Step::Learn { attempt, remaining, reset_s } => {
                let reading = Reading {
                    resource: Resource::Requests,
                    limit: Some(40),
                    remaining: Some(*remaining),
                    reset: Some(Duration::from_secs(*reset_s)),
                };
                if let Some(number) = self.pick(attempt) {
                    self.governor.learn(number, &[reading], self.now);
                }
            }
            Step::Leave(index) => {
                let tickets = self.waiting.keys().copied().collect::<Vec<_>>();
                if !tickets.is_empty() {
                    let ticket = *index.get(&tickets);
                    assert!(self.governor.leave(ticket, self.now));
                    assert!(!self.governor.leave(ticket, self.now));
                    self.waiting.remove(&ticket);
                }
            }
            Step::Pass(time) => self.now += time,
        }
        self.decide();
    }

    /// From here on the vendor answers everything: whoever waits is served, by the governor's own clock.
    fn finish(&mut self) {
        let mut rounds = 0;
        while !self.waiting.is_empty() || !self.under_way.is_empty() {
            rounds += 1;
            assert!(rounds < 5000, "somebody waits for ever: {:?}", self.governor);
            if let Some((&number, _)) = self.under_way.first_key_value() {
                self.governor.ended(number, Ended::Answered(&USED), self.now);
                self.under_way.remove(&number);
            } else {
                let next = self.governor.decides_again_at(self.now).expect("whoever waits waits for something");
                assert!(next > self.now && next <= self.now + 24 * 3_600_000, "{next} after {}", self.now);
                self.now = next;
            }
            self.decide();
        }
        assert!(self.governor.is_idle());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_is_promised_holds_and_everybody_is_served(steps in vec(step(), 1..150)) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
        }
        world.finish();
        // The fixed number of a minute: what is in the bucket, and what comes in.
        for (from, start) in world.sent.iter().enumerate() {
            for (count, end) in world.sent[from..].iter().enumerate() {
                prop_assert!((count as u64 + 1) * 60_000 <= 30 * 60_000 + 30 * (end - start), "{:?}", world.sent);
            }
        }
    }

    /// What happens to one model makes no difference to the times of another.
    #[test]
    fn a_model_that_is_shut_changes_nothing_for_another(waits in vec(1u64..100, 1..6), pauses in vec(1u64..3000, 1..40)) {
        let times = |is_disturbed: bool| {
            let mut governor = Governor::new(AccountLimits::default(), PATIENCE);
            let asked = |model| Asked { flow: "f", model, input_tokens: 10, max_output_tokens: 10 };
            if is_disturbed {
                for wait in &waits {
                    let entered = governor.enter(asked("shut"), 0);
                    governor.decide(0);
                    let Entered::Attempt(number) = entered else { continue };
                    let retry_after = Some(Duration::from_secs(*wait));
                    let error =
                        ProviderError { retry_after, ..ProviderError::new(FailureKind::RateLimit, "slow down") };
                    governor.ended(number, Ended::Failed(&error), 0);
                }
            }
            let mut now = 0;
            let mut sent = Vec::new();
            for pause in &pauses {
                now += pause;
                match governor.enter(asked("open"), now) {
                    Entered::Attempt(number) => sent.push((now, number)),
                    Entered::Waits { ticket, .. } => {
                        let decided = governor.decide(now);
                        let own = decided.into_iter().find(|(other, _)| *other == ticket);
                        sent.push((now, own.expect("nothing is in its way").1.expect("it is not turned away")));
                    }
                    Entered::QueueIsFull => panic!("the queue has room"),
                }
            }
            sent.into_iter().map(|(at, _)| at).collect::<Vec<_>>()
        };
        prop_assert_eq!(times(true), times(false));
    }
}
