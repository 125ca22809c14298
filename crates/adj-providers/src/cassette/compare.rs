//! When two requests are the same: all that differs from run to run by itself is put out of the way first.

use super::format::{Body, Places};
use adj_domain::ModelRequest;
use regex::{Captures, Regex};
use serde_json::{Map, Value, json};
use std::{
    collections::{BTreeMap, hash_map::DefaultHasher},
    fmt::{self, Write as _},
    hash::{Hash, Hasher},
    sync::LazyLock,
};

/// Ids of ours and of others, moments and days, and names of temporary folders.
static CHANGING: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r"(?x)
        \b(?P<kind>sesn|run|sevt)_[0-9b-df-hj-np-tv-z]{20}\b
        | \b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b
        | \b(?P<time>\d{4}-\d\d-\d\d(?:[T\x20]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:?\d\d)?)?)
        | /tmp/(?P<tmp>[A-Za-z0-9._-]+)
        ",
    )
    .expect("the pattern is a constant")
});

/// What a caller tells its vendor of itself, and no model sees.
const OF_THE_CALLER: [&str; 5] = ["metadata", "client_metadata", "prompt_cache_key", "user", "safety_identifier"];
/// The conversation, which differs in consequence of everything else.
const CONVERSATION: [&str; 4] = ["items", "input", "messages", "contents"];

/// A request without what differs by itself.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Normal {
    value: Value,
    /// The ids of sessions and runs, in the order in which they appear.
    pub(super) ids: Vec<String>,
}

impl Normal {
    pub(super) fn of_request(request: &ModelRequest, places: &Places) -> Self {
        let mut value = serde_json::to_value(request).expect("a request is JSON");
        if let Some(fields) = value.as_object_mut() {
            fields.remove("caller");
        }
        Self::of(value, places)
    }

    pub(super) fn of_body(body: &Body, places: &Places) -> Self {
        let mut value = match body {
            Body::Json(value) => value.clone(),
            Body::Text(text) => json!(text),
            Body::Base64(text) => json!({ "base64": text }),
        };
        if let Some(fields) = value.as_object_mut() {
            OF_THE_CALLER.iter().for_each(|name| drop(fields.remove(*name)));
        }
        Self::of(value, places)
    }

    fn of(value: Value, places: &Places) -> Self {
        let mut places: Vec<(&str, &str)> = places.iter().map(|(name, path)| (name.as_str(), path.as_str())).collect();
        // A folder may lie within another.
        places.sort_by_key(|(_, path)| std::cmp::Reverse(path.len()));
        let mut naming = Naming { places, names: BTreeMap::new(), counts: BTreeMap::new(), ids: Vec::new() };
        Self { value: naming.value(value), ids: naming.ids }
    }

    /// Equal requests have equal hashes, within one process.
    pub(super) fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.value.to_string().hash(&mut hasher);
        hasher.finish()
    }

    /// Returns the first place where two requests differ.
    pub(super) fn difference(&self, other: &Self) -> Option<Difference> {
        difference(String::new(), &self.value, &other.value)
    }
}

/// Gives everything that changes a name, by the order in which it appears.
struct Naming<'a> {
    places: Vec<(&'a str, &'a str)>,
    names: BTreeMap<String, String>,
    counts: BTreeMap<&'static str, u32>,
    ids: Vec<String>,
}

impl Naming<'_> {
    /// Fields are sorted, except that the conversation comes last.
    fn value(&mut self, value: Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.text(text)),
            Value::Array(list) => list.into_iter().map(|one| self.value(one)).collect(),
            Value::Object(fields) => {
                let mut fields: Vec<(String, Value)> = fields.into_iter().collect();
                fields.sort_by(|(one, _), (other, _)| {
                    let place = |name: &String| (CONVERSATION.contains(&name.as_str()), name.clone());
                    place(one).cmp(&place(other))
                });
                Value::Object(fields.into_iter().map(|(name, one)| (name, self.value(one))).collect::<Map<_, _>>())
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => value,
        }
    }

    fn text(&mut self, mut text: String) -> String {
        for (name, path) in &self.places {
            if text.contains(path) {
                text = moved(&text, path, &format!("<{name}>"));
            }
        }
        let found = CHANGING.replace_all(&text, |found: &Captures<'_>| {
            let (kind, prefix) = match (found.name("kind").map(|kind| kind.as_str()), found.name("tmp")) {
                (Some("sesn"), _) => ("session", ""),
                (Some("run"), _) => ("run", ""),
                (Some(_), _) => ("event", ""),
                (None, Some(_)) => ("tmp", "/tmp/"),
                (None, None) if found.name("time").is_some() => return "<time>".to_owned(),
                (None, None) => ("uuid", ""),
            };
            let count = self.counts.entry(kind).or_default();
            let ids = &mut self.ids;
            let name = self.names.entry(found[0].to_owned()).or_insert_with(|| {
                *count += 1;
                if matches!(kind, "session" | "run") {
                    ids.push(found[0].to_owned());
                }
                format!("{prefix}<{kind}-{count}>")
            });
            name.clone()
        });
        found.into_owned()
    }
}

/// Puts one path in place of another, and of those below it.
pub(super) fn moved(text: &str, from: &str, to: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(place) = rest.find(from) {
        let after = &rest[place + from.len()..];
        let goes_on = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
        // At the end of a sentence stands a full stop, too.
        let is_whole = !after.starts_with(goes_on) || after.starts_with(". ") || after == ".";
        out.push_str(&rest[..place]);
        out.push_str(if is_whole { to } else { from });
        rest = after;
    }
    out.push_str(rest);
    out
}

/// Where two requests differ, and what stands there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Difference {
    path: String,
    recorded: String,
    now: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = if self.path.is_empty() { "the whole" } else { self.path.trim_start_matches('.') };
        write!(f, "{path}\n  recorded: {}\n  now:      {}", self.recorded, self.now)
    }
}

fn difference(path: String, recorded: &Value, now: &Value) -> Option<Difference> {
    match (recorded, now) {
        _ if recorded == now => None,
        (Value::Object(old), Value::Object(new)) => {
            let added = new.keys().filter(|name| !old.contains_key(*name));
            let names = old.keys().filter(|name| !CONVERSATION.contains(&name.as_str()));
            let last = old.keys().filter(|name| CONVERSATION.contains(&name.as_str()));
            names.chain(added).chain(last).find_map(|name| {
                let path = format!("{path}.{name}");
                below(path, old.get(name), new.get(name))
            })
        }
        (Value::Array(old), Value::Array(new)) => (0..old.len().max(new.len()))
            .find_map(|place| below(format!("{path}[{place}]"), old.get(place), new.get(place))),
        (Value::String(old), Value::String(new)) => {
            let same = old.chars().zip(new.chars()).take_while(|(one, other)| one == other).count();
            Some(Difference { path, recorded: around(old, same), now: around(new, same) })
        }
        _ => Some(Difference { path, recorded: short(recorded), now: short(now) }),
    }
}

fn below(path: String, recorded: Option<&Value>, now: Option<&Value>) -> Option<Difference> {
    match (recorded, now) {
        (Some(recorded), Some(now)) => difference(path, recorded, now),
        (recorded, now) => {
            let said = |value: Option<&Value>| value.map_or_else(|| "nothing".to_owned(), short);
            (recorded.is_some() || now.is_some()).then(|| Difference { path, recorded: said(recorded), now: said(now) })
        }
    }
}

const SHOWN_BEFORE: usize = 40;
const SHOWN: usize = 160;

/// Shows a text around the first character that differs.
fn around(text: &str, place: usize) -> String {
    let skipped = place.saturating_sub(SHOWN_BEFORE);
    let shown: String = text.chars().skip(skipped).take(SHOWN).collect();
    let mut out = String::new();
    let start = if skipped > 0 { "…" } else { "" };
    let end = if text.chars().nth(skipped + SHOWN).is_some() { "…" } else { "" };
    let _ = write!(out, "{start}{}{end}", json!(shown));
    out
}

fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(value: Value, places: &[(&str, &str)]) -> Normal {
        let places = places.iter().map(|(name, path)| ((*name).to_owned(), (*path).to_owned())).collect();
        Normal::of_body(&Body::Json(value), &places)
    }

    #[test]
    fn what_differs_from_run_to_run_makes_no_difference() {
        let (one, other) = (format!("sesn_{}", "0bc".repeat(7)), format!("sesn_{}", "1df".repeat(7)));
        let (one, other) = (&one[..25], &other[..25]);
        let uuids = ["9b2e77a4-20f3-4c5e-9d1b-0f6f4a1c2b3d", "00000000-20F3-4C5E-9D1B-0F6F4A1C2B3D"];
        let cases = [
            (json!({"a": one, "b": [one]}), json!({"b": [other], "a": other}), true),
            (json!({"a": one, "b": one}), json!({"a": other, "b": one}), false),
            (json!({"a": format!("/old/place/{one}/x.rs")}), json!({"a": format!("/new/{other}/x.rs")}), true),
            (json!("/old/place2/x"), json!("/new2/x"), false),
            (json!("in /old/place."), json!("in /new."), true),
            (json!("/old/place/state/x"), json!("/elsewhere/x"), true),
            (json!({"id": uuids[0]}), json!({"id": uuids[1]}), true),
            (json!("2026-11-21"), json!("2026-12-01"), true),
            (json!("at 2026-11-21T10:00:00.123Z."), json!("at 2026-12-01 00:00."), true),
            (json!("12026-11-21"), json!("12026-12-01"), false),
            (json!("/tmp/abc/x /tmp/abc"), json!("/tmp/q.1/x /tmp/q.1"), true),
            (json!("/tmp/abc/x /tmp/abc"), json!("/tmp/q.1/x /tmp/q.2"), false),
            (json!({"metadata": {"user_id": "u1"}, "n": 1}), json!({"n": 1, "user": "u"}), true),
            (json!({"n": {"user": "u1"}}), json!({"n": {"user": "u2"}}), false),
            (json!({"n": 1}), json!({"n": 1.5}), false),
        ];
        for (recorded, now, same) in cases {
            let context = format!("{recorded} {now}");
            let recorded = normal(recorded, &[("folder", "/old/place"), ("state", "/old/place/state")]);
            let now = normal(now, &[("folder", "/new"), ("state", "/elsewhere")]);
            assert_eq!(recorded.difference(&now).is_none(), same, "{context}: {recorded:?} {now:?}");
            assert_eq!(recorded.hash() == now.hash(), same, "{context}");
        }
    }

    #[test]
    fn the_first_difference_is_shown_with_its_place() {
        let long = "x".repeat(500);
        let cases = [
            (
                json!({"model": "a", "n": 1}),
                json!({"model": "b", "n": 2}),
                "model\n  recorded: \"a\"\n  now:      \"b\"",
            ),
            (json!({"items": [1], "z": 1}), json!({"items": [2], "z": 2}), "z\n  recorded: 1\n  now:      2"),
            (
                json!({"items": [{"a": 1}]}),
                json!({"items": []}),
                "items[0]\n  recorded: {\"a\":1}\n  now:      nothing",
            ),
            (json!({}), json!({"top": 1}), "top\n  recorded: nothing\n  now:      1"),
            (json!([1]), json!("1"), "the whole\n  recorded: [1]\n  now:      \"1\""),
        ];
        for (recorded, now, expected) in cases {
            let found = normal(recorded, &[]).difference(&normal(now, &[]));
            assert_eq!(found.map(|found| found.to_string()).as_deref(), Some(expected));
        }
        let found = normal(json!(format!("{long}a")), &[]).difference(&normal(json!(format!("{long}b{long}")), &[]));
        let found = found.expect("they differ").to_string();
        let expected =
            format!("recorded: …\"{}a\"\n  now:      …\"{}b{}\"…", "x".repeat(40), "x".repeat(40), "x".repeat(119));
        assert!(found.ends_with(&expected), "{found}");
    }
}
