//! Numbers and texts as people read them.

use adj_domain::{Costs, Currency, Micros};

/// `1 file`, `2 files`.
pub fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{} {noun}s", thousands(number as u64)) }
}

/// `12,345`.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `950`, `12.3k`, `4.5M`.
pub fn tokens(number: u64) -> String {
    match number {
        0..1_000 => number.to_string(),
        1_000..1_000_000 => format!("{:.1}k", number as f64 / 1e3),
        _ => format!("{:.1}M", number as f64 / 1e6),
    }
}

/// `12 ms`, `3.4 s`, `5 min 06 s`.
pub fn duration(millis: u64) -> String {
    match millis {
        0..1_000 => format!("{millis} ms"),
        1_000..60_000 => format!("{:.1} s", millis as f64 / 1e3),
        _ => format!("{} min {:02} s", millis / 60_000, millis / 1_000 % 60),
    }
}

/// `$0.42`, `0.42 EUR`.
pub fn money(amount: Micros, currency: &Currency) -> String {
    match currency.to_string().as_str() {
        "USD" => format!("${amount}"),
        other => format!("{amount} {other}"),
    }
}

/// The same for several requests, with a comma before it; nothing where no price was known at all.
pub fn costs(costs: &Costs) -> String {
    if costs.amounts.is_empty() && costs.quota.is_empty() {
        return String::new();
    }
    let amounts = costs.amounts.iter().map(|sum| money(sum.amount, &sum.currency));
    let quota = costs.quota.iter().map(|sum| format!("{} of quota", money(sum.amount, &sum.currency)));
    let amounts = amounts.chain(quota);
    let text = format!(", {}", amounts.collect::<Vec<_>>().join(" + "));
    match usize::try_from(costs.unpriced) {
        Ok(0) => text,
        Ok(unpriced) => format!("{text} and {} of unknown price", count(unpriced, "request")),
        Err(_) => text,
    }
}

/// The first digits of a commit.
pub fn short(commit: &str) -> &str {
    commit.get(..9).unwrap_or(commit)
}

/// At most `longest` characters in one line, free of control characters: what agents and repositories write must not
/// steer a terminal.
pub fn one_line(text: &str, longest: usize) -> String {
    let mut line = String::new();
    for (length, character) in text.trim().chars().enumerate() {
        if length == longest {
            line.push('…');
            break;
        }
        line.push(if character.is_control() { ' ' } else { character });
    }
    line
}

/// The same text without anything that steers a terminal; line breaks and tabs stay.
pub fn harmless(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && !matches!(c, '\n' | '\t') { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        let cases = [(0, "0"), (999, "999"), (1000, "1,000"), (1234567, "1,234,567")];
        for (number, text) in cases {
            assert_eq!(thousands(number), text);
        }
        assert_eq!(count(1, "run"), "1 run");
        assert_eq!(count(2, "run"), "2 runs");
        assert_eq!([duration(12), duration(3_400), duration(306_000)], ["12 ms", "3.4 s", "5 min 06 s"]);
        assert_eq!([tokens(950), tokens(12_345), tokens(4_500_000)], ["950", "12.3k", "4.5M"]);
    }

    #[test]
    fn texts_of_others_cannot_steer_a_terminal() {
        assert_eq!(one_line("a\u{1b}[2Jb\nc", 80), "a [2Jb c");
        assert_eq!(one_line("abcdef", 3), "abc…");
        assert_eq!(harmless("a\u{1b}]0;x\u{7}\n"), "a\u{fffd}]0;x\u{fffd}\n");
    }
}
