//! Random operations do the same to a file as to the model in memory.

use crate::support::*;
use adj_domain::{AttemptId, LedgerOp, Timestamp};
use adj_store::{Batch, Clock, Expect, Fence, LogFilter, MemoryStore, SqliteOptions, SqliteStore, Store, verify};
use proptest::prelude::*;
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

#[derive(Debug, Clone)]
enum Op {
    Create(u8),
    Claim { log: u8, process: u8 },
    Release { log: u8, fence: u8 },
    Submit { log: u8, input: u8 },
    Append { log: u8, fence: u8, expect: Option<u8>, events: u8, takes: Vec<u8>, ledger: Vec<(u8, u8)>, state: u8 },
    Read { log: u8, after: u8, limit: u8 },
    Die(u8),
    TurnClock(i8),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let few = 0..3u8;
    let op = prop_oneof![
        2 => few.clone().prop_map(Op::Create),
        4 => (few.clone(), 0..2u8).prop_map(|(log, process)| Op::Claim { log, process }),
        1 => (few.clone(), few.clone()).prop_map(|(log, fence)| Op::Release { log, fence }),
        4 => (few.clone(), 0..6u8).prop_map(|(log, input)| Op::Submit { log, input }),
        8 => (
            few.clone(),
            few.clone(),
            proptest::option::of(0..8u8),
            0..4u8,
            proptest::collection::vec(0..6u8, 0..3),
            proptest::collection::vec((0..8u8, 0..70u8), 0..3),
            0..4u8,
        )
            .prop_map(|(log, fence, expect, events, takes, ledger, state)| {
                Op::Append { log, fence, expect, events, takes, ledger, state }
            }),
        2 => (few.clone(), 0..8u8, 0..4u8).prop_map(|(log, after, limit)| Op::Read { log, after, limit }),
        1 => (0..2u8).prop_map(Op::Die),
        2 => any::<i8>().prop_map(Op::TurnClock),
    ];
    proptest::collection::vec(op, 1..40)
}

/// Two processes on one store, and every fence that was ever given out.
struct Side {
    open: Box<dyn Fn() -> Arc<dyn Store>>,
    processes: Vec<Arc<dyn Store>>,
    lives: Vec<u32>,
    fences: HashMap<u8, Vec<Fence>>,
}

impl Side {
    fn new(open: Box<dyn Fn() -> Arc<dyn Store>>) -> Self {
        Self { processes: vec![open(), open()], open, lives: vec![0, 0], fences: HashMap::new() }
    }

    /// Does it and returns everything that can be seen of the outcome.
    async fn apply(&mut self, op: &Op) -> String {
        let name = |log: &u8| log_name(*log);
        let store = Arc::clone(&self.processes[0]);
        match op {
            Op::Create(log) => format!("{:?}", store.create(&name(log), meta("m")).await),
            Op::Claim { log, process } => {
                let which = usize::from(*process);
                let node = node(&format!("n{process}-{}", self.lives[which]));
                let claim = self.processes[which].claim(&name(log), &node).await;
                if let Ok(claim) = &claim {
                    self.fences.entry(*log).or_default().push(claim.fence.clone());
                }
                format!("{claim:?}")
            }
            Op::Release { log, fence } => match self.fence(*log, *fence) {
                Some(fence) => format!("{:?}", store.release(fence).await),
                None => String::new(),
            },
            Op::Submit { log, input: which } => {
                format!("{:?}", store.submit(&name(log), &input(&which.to_string())).await)
            }
            Op::Append { log, fence, expect, events, takes, ledger, state: word } => match self.fence(*log, *fence) {
                Some(fence) => {
                    let batch = Batch {
                        events: (0..*events).map(|n| event(&n.to_string())).collect(),
                        takes: takes.iter().map(|n| id(&n.to_string())).collect(),
                        ledger: ledger.iter().map(ledger_op).collect(),
                        state: ["idle", "running"].get(usize::from(*word)).map(|word| state(word)),
                    };
                    let expect = expect.map_or(Expect::Any, |head| Expect::Head(u64::from(head)));
                    format!("{:?}", store.append(&fence, expect, batch).await)
                }
                None => String::new(),
            },
            Op::Read { log, after, limit } => {
                format!("{:?}", store.read(&name(log), u64::from(*after), u32::from(*limit)).await)
            }
            Op::Die(process) => {
                let which = usize::from(*process);
                self.lives[which] += 1;
                drop(store);
                // The other process keeps the store in being.
                self.processes[which] = (self.open)();
                String::new()
            }
            Op::TurnClock(_) => String::new(),
        }
    }

    fn fence(&self, log: u8, which: u8) -> Option<Fence> {
        let fences = self.fences.get(&log)?;
        fences.iter().rev().nth(usize::from(which)).cloned()
    }

    async fn everything(&self) -> String {
        let store = &self.processes[0];
        let mut seen = format!("{:?}", store.logs(&LogFilter::default()).await);
        let running = LogFilter { states: vec!["running".to_owned()], ..LogFilter::default() };
        seen += &format!("{:?}{:?}", store.logs(&running).await, store.ready(None, 10).await);
        seen += &format!("{:?}{:?}", store.standing(&[purse()]).await, store.holds(None).await);
        for log in 0..3 {
            let log = log_name(log);
            seen += &format!("{:?}{:?}", store.pending(&log).await, store.read(&log, 0, 1_000).await);
            if store.log(&log).await.unwrap().is_some() {
                verify(&**store, &log).await.unwrap();
            }
        }
        seen
    }
}

/// Opens and closes of few attempts, under a limit that comes, moves and goes.
fn ledger_op((name, amount): &(u8, u8)) -> LedgerOp {
    let (name, most) = (name.to_string(), u64::from(*amount));
    match amount {
        0..4 => LedgerOp::Limit { scope: purse().scope(), unit: unit(), amount: None },
        4..10 => limit(60 + most),
        10..30 => closed(&name, most),
        30..34 => LedgerOp::Assume { attempt: AttemptId::first(id(&name)) },
        _ => opened(&name, most),
    }
}

fn log_name(log: u8) -> adj_domain::LogId {
    crate::support::log(["a", "b", "c"][usize::from(log)])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_file_behaves_as_the_model(ops in ops()) {
        block_on(async {
            let time = Arc::new(AtomicI64::new(1_700_000_000_000));
            let at = Arc::clone(&time);
            let clock: Clock = Arc::new(move || Timestamp::from_millisecond(at.load(Ordering::SeqCst)).unwrap());
            let dir = tempfile::tempdir().unwrap();
            let memory = MemoryStore::with_clock(Arc::clone(&clock));
            let path = dir.path().to_path_buf();
            let mut sides = [
                Side::new(Box::new(move || Arc::new(memory.another_process()))),
                Side::new(Box::new(move || {
                    let options = SqliteOptions { clock: Arc::clone(&clock), ..SqliteOptions::default() };
                    Arc::new(SqliteStore::open_with(&path, options).unwrap())
                })),
            ];
            for op in &ops {
                if let Op::TurnClock(by) = op {
                    time.fetch_add(i64::from(*by) * 1_000, Ordering::SeqCst);
                }
                let model = sides[0].apply(op).await;
                let file = sides[1].apply(op).await;
                assert_eq!(file, model, "{op:?}");
            }
            let model = sides[0].everything().await;
            assert_eq!(sides[1].everything().await, model);
        });
    }
}
