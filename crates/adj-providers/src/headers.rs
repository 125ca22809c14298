//! What a vendor says of its limits, and of waiting: in the headers of any answer, and in the body of a refusal.
//!
//! A value that cannot be read counts as not said, never as zero.

use adj_domain::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::time::Duration;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Resource {
    #[serde(rename = "requests")]
    Requests,
    /// Of input and output together.
    #[serde(rename = "tokens")]
    Tokens,
    #[serde(rename = "input_tokens")]
    InputTokens,
    #[serde(rename = "output_tokens")]
    OutputTokens,
}

/// What one answer says of one limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    pub resource: Resource,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remaining: Option<u64>,
    /// Until everything is there again.
    #[serde(rename = "reset_ms", default, skip_serializing_if = "Option::is_none", with = "in_milliseconds")]
    pub reset: Option<Duration>,
}

/// A time as a whole number of milliseconds, rounded up.
pub(crate) mod in_milliseconds {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use std::time::Duration;

    pub(crate) fn serialize<S: Serializer>(time: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        let whole = |time: &Duration| u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
        time.as_ref().map(whole).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(deserializer)?.map(Duration::from_millis))
    }
}

/// Whom a refusal concerns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scope {
    /// Requests for the same model.
    #[default]
    #[serde(rename = "model")]
    Model,
    /// Every request under the same key.
    #[serde(rename = "account")]
    Account,
}

/// What a refusal says of coming back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pause {
    /// Never zero: a vendor that refuses and asks for no wait has said nothing.
    pub wait: Option<Duration>,
    pub scope: Scope,
}

/// A longer wait than any real limit asks for is a vendor's mistake.
const LONGEST_WAIT: Duration = Duration::from_secs(35 * 24 * 3600);
const DAY: i64 = 24 * 3600;

type Headers<'a> = [(&'a str, &'a str)];

/// Whether a header (in small letters) says anything that is read here.
pub fn is_of_interest(name: &str) -> bool {
    name.contains("ratelimit") || name.contains("retry-after") || name == "date"
}

/// Reads the limits off any answer's headers.
pub fn readings(headers: &Headers<'_>, now: Timestamp) -> Vec<Reading> {
    let speaks_of_limits = |name: &str| name.to_ascii_lowercase().contains("ratelimit");
    if !headers.iter().any(|(name, _)| speaks_of_limits(name)) {
        return Vec::new();
    }
    const OPENAI: [&str; 3] = ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"];
    let openai = |what: &str| OPENAI.map(|name| format!("{name}-{what}"));
    let anthropic =
        |what: &str| ["limit", "remaining", "reset"].map(|word| format!("anthropic-ratelimit-{what}-{word}"));
    // The first set of names that says something of a resource counts.
    let sets = [
        (Resource::Requests, openai("requests")),
        (Resource::Requests, anthropic("requests")),
        (Resource::Requests, OPENAI.map(str::to_owned)),
        (Resource::Requests, ["ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"].map(str::to_owned)),
        (Resource::Tokens, openai("tokens")),
        (Resource::Tokens, anthropic("tokens")),
        (Resource::InputTokens, anthropic("input-tokens")),
        (Resource::OutputTokens, anthropic("output-tokens")),
    ];
    let mut found = Vec::<Reading>::new();
    for (resource, [limit, remaining, reset]) in sets {
        let reading = Reading {
            resource,
            limit: get(headers, &limit).and_then(count).filter(|limit| *limit > 0),
            remaining: get(headers, &remaining).and_then(count),
            reset: get(headers, &reset).and_then(|text| until(text, now)),
        };
        let says_something = reading.limit.is_some() || reading.remaining.is_some();
        if says_something && found.iter().all(|known| known.resource != resource) {
            found.push(reading);
        }
    }
    found
}

/// Reads how long a refusal asks to wait, and for whom; the surest source first.
pub fn pause(headers: &Headers<'_>, body: &[u8], now: Timestamp) -> Pause {
    let document = serde_json::from_slice::<Value>(body).unwrap_or_default();
    // Some gateways wrap the document in a list of one.
    let document = document.get(0).unwrap_or(&document);
    let error = document.get("error").filter(|error| error.is_object()).unwrap_or(document);
    let wait = subscription(headers, now)
        .or_else(|| asked_in_headers(headers, now))
        .or_else(|| asked_in_body(error, now))
        .or_else(|| error["message"].as_str().and_then(asked_in_words))
        .or_else(|| {
            let spent = readings(headers, now).into_iter().filter(|reading| reading.remaining == Some(0));
            spent.filter_map(|reading| reading.reset).max()
        });
    let wait = wait.map(|wait| wait.min(LONGEST_WAIT)).filter(|wait| !wait.is_zero());
    Pause { wait, scope: scope(headers, error) }
}

/// Finds a wait in a sentence, such as "Please try again in 1m2.5s." or "Retry after 6 seconds."
pub fn asked_in_words(message: &str) -> Option<Duration> {
    let small = message.to_ascii_lowercase();
    ["try again in ", "retry in ", "retry after "].iter().find_map(|phrase| {
        let (_, rest) = small.split_once(phrase)?;
        let mut words = rest.split_ascii_whitespace().map(|word| word.trim_end_matches(['.', ',', ';', ')']));
        let first = words.next()?;
        let Some(number) = decimal(first) else { return span(first) };
        let unit = match words.next()? {
            "ms" | "milliseconds" => 1_000_000,
            "s" | "sec" | "second" | "seconds" => NANOS,
            "m" | "min" | "minute" | "minutes" => 60 * NANOS,
            "h" | "hour" | "hours" => 3600 * NANOS,
            _ => return None,
        };
        nanos(number.checked_mul(unit)? / NANOS)
    })
}

/// A used-up subscription: its window's end counts, whatever `retry-after` says beside it.
fn subscription(headers: &Headers<'_>, now: Timestamp) -> Option<Duration> {
    if get(headers, "anthropic-ratelimit-unified-status")? != "rejected" {
        return None;
    }
    let window = claim(headers).replace("five_hour", "5h").replace("seven_day", "7d");
    let of_window = get(headers, &format!("anthropic-ratelimit-unified-{window}-reset"));
    let end = of_window.or_else(|| get(headers, "anthropic-ratelimit-unified-reset"))?;
    until(end, now).filter(|wait| !wait.is_zero())
}

/// The window that is used up.
fn claim<'a>(headers: &Headers<'a>) -> &'a str {
    get(headers, "anthropic-ratelimit-unified-representative-claim").unwrap_or_default()
}

fn asked_in_headers(headers: &Headers<'_>, now: Timestamp) -> Option<Duration> {
    let milliseconds = get(headers, "retry-after-ms").or_else(|| get(headers, "x-ms-retry-after-ms"));
    if let Some(wait) = milliseconds.and_then(decimal).and_then(|number| nanos(number / 1000)) {
        return Some(wait);
    }
    let text = get(headers, "retry-after")?;
    if let Some(wait) = decimal(text).and_then(nanos) {
        return Some(wait);
    }
    let date = |text: &str| Some(jiff::fmt::rfc2822::parse(text).ok()?.timestamp());
    // The answer's own date, so that a clock that is wrong here makes no difference.
    let now = get(headers, "date").and_then(date).unwrap_or(now);
    Some(between(now, date(text)?))
}

fn asked_in_body(error: &Value, now: Timestamp) -> Option<Duration> {
    if let Some(at) = error["resets_at"].as_i64().and_then(|second| Timestamp::from_second(second).ok()) {
        return Some(between(now, at));
    }
    if let Some(seconds) = error["resets_in_seconds"].as_u64() {
        return Some(Duration::from_secs(seconds));
    }
    let details = error["details"].as_array()?.iter().take(MAX_DETAILS);
    let mut wait = None;
    for detail in details {
        let violations = detail["violations"].as_array().into_iter().flatten().take(MAX_DETAILS);
        let mut quotas = violations.filter_map(|violation| violation["quotaId"].as_str());
        if quotas.any(|quota| quota.contains("PerDay")) {
            // Beside a quota of the day stands a delay of some seconds, after which it is as used up as before.
            return Some(until_next_day(now));
        }
        wait = detail["retryDelay"].as_str().and_then(span).or(wait);
    }
    wait
}

const MAX_DETAILS: usize = 16;

/// Google's day ends at midnight in California: at 8 o'clock UTC, or in summer an hour before that.
fn until_next_day(now: Timestamp) -> Duration {
    let left = DAY - (now.as_second() - 8 * 3600).rem_euclid(DAY);
    Duration::from_secs(left.unsigned_abs())
}

fn scope(headers: &Headers<'_>, error: &Value) -> Scope {
    let claim = claim(headers);
    let of_whole_plan = claim == "five_hour" || claim == "seven_day";
    let code = |key: &str| matches!(error[key].as_str(), Some("insufficient_quota" | "usage_limit_reached"));
    if of_whole_plan || code("code") || code("type") { Scope::Account } else { Scope::Model }
}

fn get<'a>(headers: &Headers<'a>, name: &str) -> Option<&'a str> {
    headers.iter().find(|(held, _)| held.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

/// Reads a whole number, also one with thousands' separators; what is negative says nothing.
fn count(text: &str) -> Option<u64> {
    let digits = text.replace(',', "");
    (digits.len() <= 15 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok()).flatten()
}

/// Reads when something is over: a date, a span (`6m0s`, `12ms`), seconds, or a moment since 1970, told apart by size.
fn until(text: &str, now: Timestamp) -> Option<Duration> {
    if let Some(number) = decimal(text) {
        let at = match number / NANOS {
            0..10_000_000 => return nanos(number),
            10_000_000..100_000_000_000 => Timestamp::from_second(i64::try_from(number / NANOS).ok()?),
            milliseconds => Timestamp::from_millisecond(i64::try_from(milliseconds).ok()?),
        };
        return Some(between(now, at.ok()?));
    }
    span(text).or_else(|| Some(between(now, text.parse().ok()?)))
}

fn between(now: Timestamp, at: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(now)).unwrap_or_default()
}

const NANOS: u128 = 1_000_000_000;

fn nanos(number: u128) -> Option<Duration> {
    Some(Duration::new(u64::try_from(number / NANOS).ok()?, u32::try_from(number % NANOS).ok()?))
}

/// Reads numbers with units, such as `1h2m3.5s`.
fn span(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut sum = 0u128;
    while !rest.is_empty() {
        let (number, after) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit() && c != '.')?);
        let (unit, after) = after.split_at(after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len()));
        let unit = match unit {
            "d" => 24 * 3600 * NANOS,
            "h" => 3600 * NANOS,
            "m" => 60 * NANOS,
            "s" => NANOS,
            "ms" => 1_000_000,
            "us" | "µs" => 1000,
            "ns" => 1,
            _ => return None,
        };
        sum = sum.checked_add(decimal(number)?.checked_mul(unit)? / NANOS)?;
        rest = after;
    }
    if text.is_empty() { None } else { nanos(sum) }
}

/// Reads a decimal number as so many billionths; digits beyond the ninth place are dropped.
fn decimal(text: &str) -> Option<u128> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let is_number = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
    if whole.len() + part.len() == 0 || whole.len() > 15 || !is_number(whole) || !is_number(part) {
        return None;
    }
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let part: u128 = format!("{:0<9}", &part[..part.len().min(9)]).parse().ok()?;
    Some(whole * NANOS + part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};

    fn now() -> Timestamp {
        "2026-03-01T12:00:00Z".parse().unwrap()
    }

    fn of(resource: Resource, limit: u64, remaining: u64, reset_ms: Option<u64>) -> Reading {
        let reset = reset_ms.map(Duration::from_millis);
        Reading { resource, limit: Some(limit), remaining: Some(remaining), reset }
    }

    #[test]
    fn limits_are_read_off_every_vendors_headers() {
        use Resource::*;
        type Case<'a> = (&'a [(&'a str, &'a str)], &'a [Reading]);
        let cases: [Case<'_>; 7] = [
            (
                &[
                    ("x-ratelimit-limit-requests", "500"),
                    ("X-RateLimit-Remaining-Requests", "499"),
                    ("x-ratelimit-reset-requests", "120ms"),
                    ("x-ratelimit-limit-tokens", "30,000"),
                    ("x-ratelimit-remaining-tokens", "29000"),
                    ("x-ratelimit-reset-tokens", "6m0s"),
                ],
                &[of(Requests, 500, 499, Some(120)), of(Tokens, 30_000, 29_000, Some(360_000))],
            ),
            (
                &[
                    ("anthropic-ratelimit-requests-limit", "50"),
                    ("anthropic-ratelimit-requests-remaining", "49"),
                    ("anthropic-ratelimit-requests-reset", "2026-03-01T12:00:01Z"),
                    ("anthropic-ratelimit-input-tokens-limit", "30000"),
                    ("anthropic-ratelimit-input-tokens-remaining", "0"),
                    ("anthropic-ratelimit-input-tokens-reset", "2026-03-01T11:59:00Z"),
                    ("anthropic-ratelimit-output-tokens-limit", "8000"),
                    ("anthropic-ratelimit-output-tokens-remaining", "8000"),
                ],
                &[
                    of(Requests, 50, 49, Some(1000)),
                    of(InputTokens, 30_000, 0, Some(0)),
                    of(OutputTokens, 8000, 8000, None),
                ],
            ),
            // Azure: what it does not know it calls -1.
            (&[("x-ratelimit-limit-requests", "-1"), ("x-ratelimit-remaining-requests", "-1")], &[]),
            (
                &[("x-ratelimit-limit", "20"), ("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1772366410000")],
                &[of(Requests, 20, 0, Some(10_000))],
            ),
            (
                &[("ratelimit-limit", "20"), ("ratelimit-remaining", "3"), ("ratelimit-reset", "7")],
                &[of(Requests, 20, 3, Some(7000))],
            ),
            (&[("x-ratelimit-limit-tokens", "many"), ("x-ratelimit-reset-tokens", "6m0s")], &[]),
            (
                &[("x-ratelimit-limit-requests", "0"), ("x-ratelimit-remaining-requests", "5")],
                &[Reading { resource: Requests, limit: None, remaining: Some(5), reset: None }],
            ),
        ];
        for (headers, expected) in cases {
            assert_eq!(readings(headers, now()), expected, "{headers:?}");
        }
    }

    #[test]
    fn a_refusal_says_when_to_come_back_and_whom_it_concerns() {
        use Scope::*;
        let window = [
            ("anthropic-ratelimit-unified-status", "rejected"),
            ("anthropic-ratelimit-unified-representative-claim", "five_hour"),
            ("anthropic-ratelimit-unified-5h-reset", "1772377200"),
            ("anthropic-ratelimit-unified-reset", "1772366401"),
            ("retry-after", "300"),
        ];
        let mut of_one_model = window;
        of_one_model[1].1 = "seven_day_opus";
        let per_day = r#"[{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","message":"Please retry in 22s.","details":[
            {"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"22s"},
            {"violations":[{"quotaId":"GenerateRequestsPerDayPerProjectPerModel-FreeTier"}]}]}}]"#;
        let delay =
            r#"{"error":{"details":[{"violations":[{"quotaId":"RequestsPerMinute"}]},{"retryDelay":"34.07s"}]}}"#;
        let spent = [
            ("x-ratelimit-remaining-requests", "0"),
            ("x-ratelimit-reset-requests", "2s"),
            ("x-ratelimit-remaining-tokens", "5"),
            ("x-ratelimit-reset-tokens", "9s"),
        ];
        type Case<'a> = (&'a [(&'a str, &'a str)], &'a str, Option<u64>, Scope);
        let cases: [Case<'_>; 23] = [
            (&[], "", None, Model),
            (&[("retry-after", "7")], "", Some(7000), Model),
            (&[("Retry-After", " 0.5 ")], "", Some(500), Model),
            (&[("retry-after-ms", "120"), ("retry-after", "9")], "", Some(120), Model),
            (&[("retry-after-ms", "soon"), ("retry-after", "9")], "", Some(9000), Model),
            (&[("retry-after", "-1")], "", None, Model),
            (&[("retry-after", "NaN")], "", None, Model),
            (&[("retry-after", "0")], "", None, Model),
            (&[("retry-after", "99999999")], "", Some(35 * 86_400_000), Model),
            (&[("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT")], "", None, Model),
            (
                &[("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT"), ("date", "Wed, 21 Oct 2015 07:27:30 GMT")],
                "",
                Some(30_000),
                Model,
            ),
            (&window, "", Some(3 * 3_600_000), Account),
            (&of_one_model, "", Some(1000), Model),
            (&[], r#"{"error":{"type":"usage_limit_reached","resets_at":1772366460}}"#, Some(60_000), Account),
            (&[], r#"{"error":{"type":"usage_limit_reached","resets_in_seconds":5}}"#, Some(5000), Account),
            (&[], r#"{"error":{"code":"insufficient_quota","message":"pay"}}"#, None, Account),
            (&[], per_day, Some(20 * 3_600_000), Model),
            (&[], delay, Some(34_070), Model),
            (
                &[],
                r#"{"error":{"message":"Rate limit reached. Please try again in 1m2.5s. Visit …"}}"#,
                Some(62_500),
                Model,
            ),
            (&[], r#"{"error":{"message":"Please retry after 6 seconds."}}"#, Some(6000), Model),
            (&[], r#"{"error":{"message":"Please try again in a moment."}}"#, None, Model),
            (&spent, "", Some(2000), Model),
            (&[], "<html>", None, Model),
        ];
        for (headers, body, wait_ms, scope) in cases {
            let expected = Pause { wait: wait_ms.map(Duration::from_millis), scope };
            assert_eq!(pause(headers, body.as_bytes(), now()), expected, "{headers:?} {body}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_said_nothing_breaks_and_no_wait_is_too_long(
            values in vec("[-0-9.,:a-zA-Zµ TZ+]{0,24}|[0-9]{1,40}|\\PC{0,12}", 8),
            message in "(try again in |retry after )?\\PC{0,40}",
        ) {
            let names = [
                "retry-after", "retry-after-ms", "date", "x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens",
                "x-ratelimit-reset-tokens", "anthropic-ratelimit-unified-reset", "anthropic-ratelimit-unified-status",
            ];
            let mut headers = names.iter().copied().zip(values.iter().map(String::as_str)).collect::<Vec<_>>();
            let _ = readings(&headers, now());
            let body = serde_json::json!({"error": {"message": message, "details": [{"retryDelay": values[0]}]}});
            for status in [None, Some("rejected")] {
                if let Some(status) = status {
                    headers[7].1 = status;
                }
                let wait = pause(&headers, body.to_string().as_bytes(), now()).wait;
                prop_assert!(wait.is_none_or(|wait| wait <= LONGEST_WAIT && !wait.is_zero()));
            }
        }

        #[test]
        fn a_wait_in_milliseconds_is_never_cut_short(milliseconds in 1u64..3_000_000_000) {
            let text = milliseconds.to_string();
            let wait = pause(&[("retry-after-ms", &text), ("retry-after", "1")], b"", now()).wait;
            prop_assert_eq!(wait, Some(Duration::from_millis(milliseconds)));
        }

        #[test]
        fn bodies_of_any_shape_are_read_without_harm(body in vec(any::<u8>(), 0..200)) {
            let _ = pause(&[], &body, now());
        }
    }
}
