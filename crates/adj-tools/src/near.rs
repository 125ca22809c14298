//! Guessing what was meant: the nearest of several texts.

use std::collections::HashMap;

/// Below this share of common letter pairs, two texts have nothing to do with each other.
const ALIKE: f64 = 0.5;
const LONGEST_COMPARED: usize = 400;

/// How alike two texts are, from 0 to 1, by the letter pairs they share; white space does not count.
pub(crate) fn likeness(left: &str, right: &str) -> f64 {
    let (left, right) = (pairs(left), pairs(right));
    let (left_count, right_count) = (left.values().sum::<usize>(), right.values().sum::<usize>());
    if left_count + right_count == 0 {
        return 0.0;
    }
    let shared: usize = left.iter().map(|(pair, count)| (*count).min(right.get(pair).copied().unwrap_or(0))).sum();
    2.0 * shared as f64 / (left_count + right_count) as f64
}

fn pairs(text: &str) -> HashMap<(char, char), usize> {
    let letters: Vec<char> =
        std::iter::once(' ').chain(text.chars().filter(|c| !c.is_whitespace()).take(LONGEST_COMPARED)).collect();
    let mut pairs = HashMap::new();
    for pair in letters.windows(2) {
        *pairs.entry((pair[0].to_ascii_lowercase(), pair[1].to_ascii_lowercase())).or_default() += 1;
    }
    pairs
}

/// The text most like `wanted`, if any is like it at all.
pub(crate) fn closest<'t>(texts: &'t [String], wanted: &str) -> Option<&'t str> {
    ranked(texts.iter().map(String::as_str), wanted, 1).first().map(|&(index, _)| texts[index].as_str())
}

/// The indices of the texts most like `wanted`, best first, with their likeness.
pub(crate) fn ranked<'t>(texts: impl Iterator<Item = &'t str>, wanted: &str, most: usize) -> Vec<(usize, f64)> {
    let mut found: Vec<(usize, f64)> = texts
        .enumerate()
        .map(|(index, text)| (index, likeness(text, wanted)))
        .filter(|&(_, likeness)| likeness >= ALIKE)
        .collect();
    found.sort_by(|left, right| right.1.total_cmp(&left.1));
    found.truncate(most);
    found
}
