//! The books: what is promised of any limit, whatever is tried, in whatever order.

use adj_domain::{
    Amounts, AttemptId, Book, Cap, Charge, EventId, Gap, Hold, LedgerOp, PurseKey, Refusal, RunId, Scope, SessionId,
    Unit,
};
use proptest::prelude::*;
use std::collections::BTreeMap;

fn session(number: u8) -> SessionId {
    format!("sesn_{number}").parse().unwrap()
}

fn run() -> RunId {
    "run_1".parse().unwrap()
}

fn attempt(number: u8) -> AttemptId {
    AttemptId::first(format!("sevt_{number}").parse().unwrap())
}

fn usd() -> Unit {
    Unit::Money("USD".parse().unwrap())
}

fn day() -> PurseKey {
    "day:2026-11-21".parse().unwrap()
}

fn purses(of: u8, request: &EventId) -> Vec<PurseKey> {
    let session = session(of);
    vec![
        PurseKey::Request(session.clone(), request.clone()),
        PurseKey::Turn(session.clone(), 1),
        PurseKey::Session(session),
        PurseKey::Run(run()),
        day(),
        "organisation:2026-11".parse().unwrap(),
    ]
}

fn hold(number: u8, of: u8, tokens: u64, money: u64) -> Hold {
    let attempt = attempt(number);
    let amounts = Amounts::default().with(Unit::Tokens, tokens).with(usd(), money);
    Hold { purses: purses(of, &attempt.request), attempt, amounts, caps: Vec::new(), gap: None }
}

fn charge(of: &Hold, part: u64) -> Charge {
    let most = of.amounts.0.iter().map(|(unit, amount)| (unit.clone(), amount * part / 100));
    let at_most: Amounts = most.collect();
    let least = at_most.0.iter().map(|(unit, amount)| (unit.clone(), amount / 2));
    Charge { at_least: least.collect(), at_most }
}

#[derive(Debug, Clone)]
enum Try {
    Open { number: u8, session: u8, tokens: u64, money: u64 },
    Close { number: u8, part: u64 },
    Assume(u8),
}

fn tries() -> impl Strategy<Value = Vec<Try>> {
    let one = prop_oneof![
        5 => (0..30u8, 0..3u8, 0..60u64, 0..60u64)
            .prop_map(|(number, session, tokens, money)| Try::Open { number, session, tokens, money }),
        4 => (0..30u8, 0..=100u64).prop_map(|(number, part)| Try::Close { number, part }),
        1 => (0..30u8).prop_map(Try::Assume),
    ];
    prop::collection::vec(one, 0..80)
}

/// What the vendor really bills for an attempt with this hold and this charge: somewhere between its ends.
fn truth(charge: &Charge, unit: &Unit) -> u64 {
    u64::midpoint(charge.at_least.get(unit), charge.at_most.get(unit))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// I1 to I3 and B1 of the design: nothing that is accepted goes beyond a limit, holds and purses agree, and what is truly
    /// spent stays below every limit at every moment. Replay and repetition change nothing.
    #[test]
    fn limits_hold_whatever_is_tried(tries in tries(), most in 1..200u64, each in 1..100u64) {
        let limits = [
            (Scope::Session(session(0)), Unit::Tokens, most),
            (Scope::Run(run()), usd(), most),
            (Scope::Day, Unit::Tokens, most + 50),
            (Scope::Request(session(1)), usd(), each),
            (Scope::Turn(session(2)), usd(), each),
        ];
        let mut book = Book::default();
        let mut accepted = Vec::new();
        for (scope, unit, amount) in &limits {
            let op = LedgerOp::Limit { scope: scope.clone(), unit: unit.clone(), amount: Some(*amount) };
            book.apply(&op).unwrap();
            accepted.push(op);
        }
        let mut holds: BTreeMap<AttemptId, Hold> = BTreeMap::new();
        let mut billed: BTreeMap<AttemptId, Charge> = BTreeMap::new();
        for one in tries {
            let op = match one {
                Try::Open { number, session, tokens, money } => {
                    LedgerOp::Open { hold: hold(number, session, tokens, money) }
                }
                Try::Close { number, part } => match holds.get(&attempt(number)) {
                    Some(hold) => LedgerOp::Close { attempt: attempt(number), charge: charge(hold, part) },
                    None => LedgerOp::Close { attempt: attempt(number), charge: Charge::default() },
                },
                Try::Assume(number) => LedgerOp::Assume { attempt: attempt(number) },
            };
            let before = book.clone();
            match (book.apply(&op), &op) {
                (Err(refusal), _) => {
                    prop_assert_eq!(&book, &before, "{} changed something", refusal);
                    continue;
                }
                (Ok(()), LedgerOp::Open { hold }) => {
                    holds.entry(hold.attempt.clone()).or_insert_with(|| hold.clone());
                }
                (Ok(()), LedgerOp::Close { attempt, charge }) if holds.contains_key(attempt) => {
                    billed.entry(attempt.clone()).or_insert_with(|| charge.clone());
                }
                (Ok(()), LedgerOp::Assume { attempt }) => {
                    if let Some(hold) = holds.get(attempt) {
                        billed.entry(attempt.clone()).or_insert_with(|| Charge::up_to(hold.amounts.clone()));
                    }
                }
                (Ok(()), _) => {}
            }
            // Nobody knows whether the first was heard of.
            let after = book.clone();
            book.apply(&op).unwrap();
            prop_assert_eq!(&book, &after, "the same again");
            accepted.push(op);

            for ((key, unit), purse) in &book.purses {
                for (scope, of, limit) in &limits {
                    if *scope == key.scope() && of == unit {
                        prop_assert!(purse.at_most + purse.held <= *limit, "{} {:?}", key, purse);
                        let truly: u64 = holds
                            .values()
                            .filter(|hold| hold.purses.contains(key))
                            .map(|hold| match billed.get(&hold.attempt) {
                                Some(charge) => truth(charge, unit),
                                None => hold.amounts.get(unit),
                            })
                            .sum();
                        prop_assert!(truly <= *limit, "{} {} of {}", key, truly, limit);
                    }
                }
                let open = book.open.values().filter(|hold| hold.purses.contains(key));
                prop_assert_eq!(purse.held, open.map(|hold| hold.amounts.get(unit)).sum::<u64>());
                prop_assert!(purse.at_least <= purse.at_most);
            }
        }
        let mut replayed = Book::default();
        for op in &accepted {
            replayed.apply(op).unwrap();
        }
        prop_assert_eq!(replayed, book);
    }
}

#[test]
fn what_cannot_fit_is_told_from_what_has_to_wait() {
    let mut book = Book::default();
    let limit = |amount| LedgerOp::Limit { scope: Scope::Run(run()), unit: usd(), amount };
    book.apply(&limit(Some(100))).unwrap();
    book.apply(&LedgerOp::Open { hold: hold(1, 0, 0, 60) }).unwrap();
    let open = |book: &mut Book, number, money| book.apply(&LedgerOp::Open { hold: hold(number, 1, 7, money) });
    let purse = PurseKey::Run(run());
    let held = Refusal::Held { purse: purse.clone(), unit: usd(), limit: 100, spent: 0, held: 60, needed: 50 };
    assert_eq!(open(&mut book, 2, 50), Err(held));
    let spent = Refusal::Spent { purse: purse.clone(), unit: usd(), limit: 100, spent: 0, needed: 101 };
    assert_eq!(open(&mut book, 2, 101), Err(spent));
    // More than was set aside is what it is: the books tell the truth.
    let charge = Charge::exactly(Amounts::default().with(usd(), 70));
    book.apply(&LedgerOp::Close { attempt: attempt(1), charge }).unwrap();
    assert_eq!(book.purse(&purse, &usd()).at_most, 70);
    let spent = Refusal::Spent { purse: purse.clone(), unit: usd(), limit: 100, spent: 70, needed: 50 };
    assert_eq!(open(&mut book, 2, 50), Err(spent));
    book.apply(&limit(Some(120))).unwrap();
    assert_eq!(open(&mut book, 2, 50), Ok(()));
    // Lowered below what is spent, it lets nothing more through; lifted, everything.
    book.apply(&limit(Some(1))).unwrap();
    assert!(matches!(open(&mut book, 3, 1), Err(Refusal::Spent { .. })));
    book.apply(&limit(None)).unwrap();
    assert_eq!(open(&mut book, 3, 1_000_000), Ok(()));
}

#[test]
fn limits_of_policy_hold_beside_those_that_are_kept() {
    let cap = |amount| vec![Cap { scope: Scope::Day, unit: Unit::Tokens, amount }];
    let mut book = Book::default();
    book.apply(&LedgerOp::Limit { scope: Scope::Day, unit: Unit::Tokens, amount: Some(50) }).unwrap();
    for (number, tokens, caps, fits) in
        [(1, 10, cap(9), false), (2, 10, cap(1_000), true), (3, 41, cap(1_000), false), (4, 40, Vec::new(), true)]
    {
        let hold = Hold { caps, ..hold(number, 0, tokens, 0) };
        assert_eq!(book.apply(&LedgerOp::Open { hold }).is_ok(), fits, "{number}");
    }
}

#[test]
fn what_nobody_can_count_is_refused_where_it_is_limited() {
    let no_price = |is_quota| Some(Gap::NoPrice { model: "a/b".to_owned(), is_quota });
    let field = Some(Gap::Unboundable { field: "a document".to_owned() });
    let quota = Unit::Quota("USD".parse().unwrap());
    let eur = Unit::Money("EUR".parse().unwrap());
    let tokens = || Amounts::default().with(Unit::Tokens, 1);
    let cases = [
        // limited in     gap            held                         refused
        (usd(), no_price(false), tokens(), true),
        (usd(), no_price(true), tokens(), false),
        (quota.clone(), no_price(true), tokens(), true),
        (Unit::Tokens, no_price(false), tokens(), false),
        (Unit::Tokens, field.clone(), tokens(), true),
        (usd(), field, tokens(), true),
        (usd(), None, tokens(), false),
        // Money of another kind, and quota, which is no money.
        (usd(), None, tokens().with(eur, 5), true),
        (usd(), None, tokens().with(quota, 5_000), false),
    ];
    for (number, (unit, gap, amounts, refused)) in (1..).zip(cases) {
        let context = format!("{unit} {gap:?} {amounts:?}");
        let mut book = Book::default();
        let scope = Scope::Session(session(0));
        let hold = Hold { gap, amounts, ..hold(number, 0, 0, 0) };
        book.apply(&LedgerOp::Open { hold: hold.clone() }).expect("without a limit everything goes");
        let mut book = Book::default();
        book.apply(&LedgerOp::Limit { scope, unit, amount: Some(100) }).unwrap();
        let opened = book.apply(&LedgerOp::Open { hold });
        assert_eq!(opened.is_err(), refused, "{context}: {opened:?}");
    }
}
