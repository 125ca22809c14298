//! The most that a request can come to: never less than what it does come to.

use super::request;
use adj_domain::{Amounts, Content, FailureKind, Item, Micros, Price, Rates, Tier, Unit, Unpriced, Usage};
use adj_gateway::{Bound, Known, Pricing, Quote, Spend, Unboundable};
use adj_providers::{ModelEvent, ProviderError};
use proptest::prelude::*;

fn usd() -> Unit {
    "USD".parse().unwrap()
}

fn rates() -> impl Strategy<Value = Rates> {
    let price = || (0..30_000_000u64).prop_map(adj_domain::PerMillion);
    let maybe = || prop::option::of(price());
    (price(), price(), maybe(), maybe(), maybe()).prop_map(
        |(input, output, cache_read, cache_write, cache_write_1h)| Rates {
            input,
            output,
            cache_read,
            cache_write,
            cache_write_1h,
        },
    )
}

fn price() -> impl Strategy<Value = Price> {
    (rates(), prop::collection::btree_map(0..400_000u64, rates(), 0..3)).prop_map(|(rates, tiers)| Price {
        currency: "USD".parse().unwrap(),
        rates,
        tiers: tiers.into_iter().map(|(over, rates)| Tier { over, rates }).collect(),
    })
}

fn quote(price: Price, input: u64, output: u64) -> Quote {
    let pricing = Pricing::Priced { price, entry: "x".to_owned() };
    Quote {
        model: "a/b".parse().unwrap(),
        bound: Ok(Bound { input, output }),
        pricing,
        is_quota: false,
        others: Vec::new(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// P5: also where a longer context is cheaper, and whatever part of it is cached.
    #[test]
    fn no_usage_within_the_bound_costs_more(
        price in price(),
        parts in prop::array::uniform4(0..150_000u64),
        output in 0..100_000u64,
        more in (0..1_000u64, 0..1_000u64),
    ) {
        let [input_tokens, cache_read_tokens, cache_write_tokens, cache_write_1h_tokens] = parts;
        let usage = Usage { input_tokens, output_tokens: output, cache_read_tokens, cache_write_tokens,
            cache_write_1h_tokens, reasoning_tokens: 0 };
        let quote = quote(price, usage.context_tokens() + more.0, output + more.1);
        let (most, gap) = quote.most(&Unpriced::Refuse);
        prop_assert_eq!(gap, None);
        for (unit, amount) in quote.amounts(usage).0 {
            prop_assert!(amount <= most.get(&unit), "{} of {}", amount, unit);
        }
    }

    /// However text is cut into tokens, each of them has at least one byte.
    #[test]
    fn a_text_has_no_more_tokens_than_are_bounded(texts in prop::collection::vec(".{0,40}", 0..8), gemini in any::<bool>()) {
        let model = if gemini { "gemini/gemini-x" } else { "a/b" };
        let mut request = request(model);
        request.items = texts.iter().map(|text| Item::User { content: vec![Content::text(text)] }).collect();
        let characters: usize = texts.iter().map(|text| text.chars().count()).sum();
        let bytes: usize = texts.iter().map(String::len).sum();
        let bound = Bound::of(&request, None, None).unwrap();
        prop_assert!(bound.input >= bytes as u64 + request.system.len() as u64);
        prop_assert!(!gemini || bound.input >= 11 * (bytes - characters.min(bytes)) as u64 / 3);
        let window = Bound::of(&request, Some(500), None).unwrap();
        prop_assert!(window.input <= 500);
    }

    /// The longest answer that fits, and not one token more.
    #[test]
    fn an_answer_is_shortened_as_little_as_it_takes(price in price(), input in 0..300_000u64, left in 0..3_000_000u64) {
        let asked = 60_000;
        let quote = quote(price, input, u64::from(asked));
        let most = |output: u32| Bound { output: u64::from(output), input };
        let cost = |output: u32| Quote { bound: Ok(most(output)), ..quote.clone() }.most(&Unpriced::Refuse).0.get(&usd());
        match quote.output_within(&usd(), left, asked) {
            Some(output) => {
                prop_assert!((1_024..asked).contains(&output) && cost(output) <= left);
                prop_assert!(output + 1 == asked || cost(output + 1) > left);
            }
            None => prop_assert!(cost(1_024) > left),
        }
    }
}

#[test]
fn what_has_few_bytes_and_many_tokens_is_bounded_by_other_means() {
    let with = |content: Content| {
        let mut request = request("a/b");
        request.items = vec![Item::User { content: vec![content] }];
        request
    };
    let image = with(Content::Image { media_type: "image/png".to_owned(), data: "AA==".to_owned() });
    let document =
        with(Content::Document { media_type: "application/pdf".to_owned(), data: "AA==".to_owned(), name: None });
    assert!(Bound::of(&image, None, None).unwrap().input > 20_000);
    assert_eq!(Bound::of(&image, Some(9_000), None).unwrap().input, 9_000);
    assert_eq!(Bound::of(&document, None, None), Err(Unboundable("a document")));
    assert_eq!(Bound::of(&document, Some(200_000), None).unwrap().input, 200_000);
    // What was counted of the beginning is far less than its bytes.
    let long = with(Content::text("word ".repeat(100_000)));
    let known = Known { tokens: 100_000, bytes_since: 50 };
    assert!(Bound::of(&long, None, None).unwrap().input > 500_000);
    assert!(Bound::of(&long, None, Some(known)).unwrap().input < 102_000);
    assert_eq!(Bound::of(&long, Some(90_000), Some(known)).unwrap().input, 90_000);
    // Other people's requests, of which only the bytes are known.
    assert_eq!(Bound::of_body(1_000, true, None, Some(5)).unwrap(), Bound { input: 2_024, output: 5 });
    assert_eq!(Bound::of_body(1_000, false, Some(9), None).unwrap(), Bound { input: 9, output: 9 });
    assert!(Bound::of_body(1_000, false, None, Some(5)).is_err() && Bound::of_body(1_000, true, None, None).is_err());
}

fn flat(output: u64) -> Quote {
    let price = Price {
        currency: "USD".parse().unwrap(),
        rates: Rates {
            input: "1".parse().unwrap(),
            output: "10".parse().unwrap(),
            cache_read: None,
            cache_write: None,
            cache_write_1h: None,
        },
        tiers: Vec::new(),
    };
    quote(price, 1_000, output)
}

fn text(bytes: usize) -> ModelEvent {
    ModelEvent::TextDelta { index: 0, text: "x".repeat(bytes) }
}

fn usage(input: u64, output: u64) -> ModelEvent {
    ModelEvent::Usage(Usage { input_tokens: input, output_tokens: output, ..Usage::default() })
}

#[test]
fn an_honest_answer_is_never_cut_and_a_longer_one_is() {
    let cut_after = |events: Vec<ModelEvent>, is_limited: bool| {
        let mut spend = Spend::within(is_limited.then(|| flat(2_000)));
        let cut = events.iter().position(|event| spend.see(event).is_err());
        (cut, spend.charge(&flat(2_000), None))
    };
    // As long as it may be, in dense text.
    let honest: Vec<_> = std::iter::repeat_n(text(6), 2_000).chain([usage(1_000, 2_000)]).collect();
    assert_eq!(cut_after(honest, true).0, None);
    // The vendor says as it goes that it goes beyond what was asked for.
    let says = vec![usage(900, 1), text(100), usage(900, 2_001), text(100)];
    let (cut, charge) = cut_after(says.clone(), true);
    assert_eq!((cut, charge.at_most.get(&usd())), (Some(2), 900 + 20_010));
    assert_eq!(cut_after(says, false).0, None, "nobody set a limit");
    // It says nothing until the end: then its bytes tell, and the books show all of them.
    let silent: Vec<_> = std::iter::repeat_n(text(1_000), 200).collect();
    let (cut, charge) = cut_after(silent, true);
    assert_eq!(cut, Some(81), "8 bytes for each of 2,000 tokens, and 64 KiB");
    assert_eq!(charge.at_most.get(&Unit::Tokens), 1_000 + 82_000 / 4);
    assert!(charge.at_least.get(&usd()) < charge.at_most.get(&usd()));
}

#[test]
fn an_answer_that_did_not_come_to_its_end_costs_something_between_two_ends() {
    let quote = flat(2_000);
    let status = |status: u16| ProviderError::from_status(status, b"", None);
    let unsent = ProviderError { is_unsent: true, ..ProviderError::new(FailureKind::Connection, "refused") };
    let cases = [
        // seen,                            error,                       least, most in dollars
        (vec![], Some(unsent), (0, 0)),
        (vec![], Some(status(400)), (0, 0)),
        (vec![], Some(status(429)), (0, 0)),
        (vec![], Some(status(529)), (0, 0)),
        (vec![], Some(status(500)), (0, 21_000)),
        (vec![], Some(ProviderError::new(FailureKind::Timeout, "silence")), (0, 21_000)),
        (vec![], None, (0, 21_000)),
        (vec![text(160)], None, (100, 21_000)),
        (vec![usage(500, 1), text(160)], None, (600, 20_500)),
    ];
    for (events, error, expected) in cases {
        let mut spend = Spend::default();
        events.iter().for_each(|event| spend.see(event).unwrap());
        let charge = spend.charge(&quote, error.as_ref());
        let found = (charge.at_least.get(&usd()), charge.at_most.get(&usd()));
        assert_eq!(found, expected, "{events:?} {error:?}");
    }
    let unknown = Quote { pricing: Pricing::Unknown, ..quote.clone() };
    assert!(unknown.most(&Unpriced::Refuse).1.is_some() && unknown.most(&Unpriced::Ignore).1.is_none());
    let assumed = unknown.assuming(&"assume:1/10".parse().unwrap());
    assert_eq!(assumed.most(&Unpriced::Refuse), quote.most(&Unpriced::Refuse));
    let quota = Quote { is_quota: true, ..quote };
    let amounts = quota.most(&Unpriced::Refuse).0;
    assert_eq!(amounts, Amounts::default().with(Unit::Tokens, 3_000).with("quota:USD".parse().unwrap(), 21_000));
    assert_eq!(Micros(21_000).to_string(), "0.021");
}
