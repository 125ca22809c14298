//! Money: what is written is what is read, nothing is lost, and every request is rounded once and upwards.

use adj_domain::{Cost, Costs, Currency, Micros, PerMillion, Price, Rates, Tier, Usage};
use proptest::prelude::*;

fn usage() -> impl Strategy<Value = Usage> {
    prop::array::uniform5(0u64..4_000_000).prop_map(|[input, output, read, written, hour]| Usage {
        input_tokens: input,
        output_tokens: output,
        cache_read_tokens: read,
        cache_write_tokens: written,
        cache_write_1h_tokens: hour,
        reasoning_tokens: output / 2,
    })
}

fn rates() -> impl Strategy<Value = Rates> {
    let rate = || (0u64..200_000_000).prop_map(PerMillion);
    let maybe = || prop::option::of((0u64..200_000_000).prop_map(PerMillion));
    (rate(), rate(), maybe(), maybe(), maybe()).prop_map(|(input, output, cache_read, cache_write, cache_write_1h)| {
        Rates { input, output, cache_read, cache_write, cache_write_1h }
    })
}

fn price(rates: Rates) -> Price {
    Price { currency: "USD".parse().expect("a currency"), rates, tiers: Vec::new() }
}

/// In millionths of a millionth, where nothing needs rounding.
fn exact(rates: &Rates, usage: Usage) -> u128 {
    let written = rates.cache_write.unwrap_or(rates.input);
    let times = |tokens: u64, rate: PerMillion| u128::from(tokens) * u128::from(rate.0);
    times(usage.input_tokens, rates.input)
        + times(usage.output_tokens, rates.output)
        + times(usage.cache_read_tokens, rates.cache_read.unwrap_or(rates.input))
        + times(usage.cache_write_tokens, written)
        + times(usage.cache_write_1h_tokens, rates.cache_write_1h.unwrap_or(written))
}

proptest! {
    #[test]
    fn a_charge_is_the_exact_sum_rounded_up_once(rates in rates(), usage in usage()) {
        let charged = u128::from(price(rates.clone()).charge(usage).expect("it is within all money").0) * 1_000_000;
        let exact = exact(&rates, usage);
        prop_assert!(charged >= exact && charged - exact < 1_000_000, "{charged} for {exact}");
    }

    #[test]
    fn more_tokens_never_cost_less_and_parts_never_less_than_the_whole(rates in rates(), one in usage(), other in usage()) {
        let price = price(rates);
        let charge = |usage| price.charge(usage).expect("it is within all money");
        prop_assert!(charge(one.plus(other)) >= charge(one));
        prop_assert!(charge(one).plus(charge(other)) >= charge(one.plus(other)));
    }

    #[test]
    fn a_price_is_read_as_it_is_written(micros in any::<u64>()) {
        let written = PerMillion(micros).to_string();
        prop_assert_eq!(written.parse::<PerMillion>(), Ok(PerMillion(micros)), "{}", written);
    }

    #[test]
    fn what_came_after_is_what_was_added(first in prop::collection::vec(cost(), 0..6), second in prop::collection::vec(cost(), 0..6)) {
        let sum = |costs: &[Option<Cost>]| {
            let mut sum = Costs::default();
            costs.iter().for_each(|cost| sum.add(cost.as_ref()));
            sum
        };
        let mut added = sum(&second);
        let whole = sum(&first).plus(&added);
        added.amounts.retain(|sum| sum.amount.0 > 0);
        added.quota.retain(|sum| sum.amount.0 > 0);
        prop_assert_eq!(whole.minus(&sum(&first)), added);
    }
}

fn cost() -> impl Strategy<Value = Option<Cost>> {
    let currency = prop::sample::select(vec!["USD", "EUR"]);
    let known = (0u64..1_000_000, currency, any::<bool>()).prop_map(|(amount, currency, is_quota)| Cost {
        amount: Micros(amount),
        currency: currency.parse().expect("a currency"),
        price: "a/b".to_owned(),
        is_quota,
    });
    prop::option::of(known)
}

#[test]
fn a_longer_context_takes_the_whole_request_to_its_tier() {
    let flat = |rate: u64| Rates {
        input: PerMillion(rate),
        output: PerMillion(rate),
        cache_read: None,
        cache_write: None,
        cache_write_1h: None,
    };
    let tiers = vec![Tier { over: 100, rates: flat(2_000_000) }, Tier { over: 1_000, rates: flat(1_000_000) }];
    let price = Price { tiers, ..price(flat(10_000_000)) };
    // The context counts, in all its parts; the output does not.
    let cases = [(100, 0, 900, 10_000), (101, 0, 0, 202), (60, 41, 0, 202), (1_000, 0, 0, 2_000), (1_001, 0, 0, 1_001)];
    for (input_tokens, cache_read_tokens, output_tokens, expected) in cases {
        let usage = Usage { input_tokens, cache_read_tokens, output_tokens, ..Usage::default() };
        assert_eq!(price.charge(usage), Some(Micros(expected)), "{usage:?}");
    }
}

#[test]
fn amounts_are_shown_exactly_and_prices_are_exact_or_refused() {
    for (micros, shown) in [(0, "0.00"), (1, "0.000001"), (1_500_000, "1.50"), (12_345_678, "12.345678")] {
        assert_eq!(Micros(micros).to_string(), shown);
    }
    for wrong in ["", ".", "1.", ".5", "-1", "+1", "1e3", "1,5", "0.0000001", "99999999999999999999", " 1"] {
        assert!(wrong.parse::<PerMillion>().is_err(), "{wrong:?}");
    }
    for wrong in ["", "usd", "US", "USDT", "ÄÖÜ"] {
        assert!(wrong.parse::<Currency>().is_err(), "{wrong:?}");
    }
    let beyond = Usage { input_tokens: u64::MAX, ..Usage::default() };
    let rates = Rates {
        input: PerMillion(u64::MAX),
        output: PerMillion(0),
        cache_read: None,
        cache_write: None,
        cache_write_1h: None,
    };
    assert_eq!(price(rates).charge(beyond), None);
}
