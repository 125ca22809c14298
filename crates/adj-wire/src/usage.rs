//! What a session used and cost, and what it may cost.

use crate::{
    read::{Invalid, Node},
    record::Stamp,
};
use adj_domain::{Amounts, Costs, Currency, Micros, RequestResult, SessionEvent, Timestamp, Unit, Usage};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

const MICROS_OF_A_CENT: u64 = 10_000;

/// A session's or thread's use, folded from its log.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tally {
    pub usage: Usage,
    pub costs: Costs,
    /// Milliseconds of the times that it ran, up to the last rest.
    pub active_ms: u64,
    pub running_since: Option<Timestamp>,
}

impl Tally {
    pub fn apply(&mut self, event: &SessionEvent, at: Timestamp) {
        match event {
            SessionEvent::StatusRunning { .. } => self.running_since = Some(at),
            SessionEvent::StatusIdle { .. } => {
                self.active_ms = self.active_ms_until(at);
                self.running_since = None;
            }
            SessionEvent::ModelRequestEnded { result: RequestResult::Answered { model_usage, cost, .. }, .. } => {
                self.usage = self.usage.plus(*model_usage);
                self.costs.add(cost.as_ref());
            }
            _ => {}
        }
    }

    fn active_ms_until(&self, now: Timestamp) -> u64 {
        let current = self.running_since.map_or(0, |since| milliseconds(since, now));
        self.active_ms.saturating_add(current)
    }

    /// A session's `usage`.
    pub fn answer(&self, now: Timestamp) -> Value {
        let mut answer = tokens(self.usage);
        answer["active_seconds"] = seconds(self.active_ms_until(now));
        if let Some(cost) = list_cost(&self.costs) {
            answer["list_cost"] = cost.amount();
        }
        answer
    }

    /// A session's `stats`: an archived one has stopped growing older.
    pub fn stats(&self, stamp: &Stamp, now: Timestamp) -> Value {
        let end = stamp.archived_at.unwrap_or(now);
        json!({
            "active_seconds": seconds(self.active_ms_until(end)),
            "duration_seconds": seconds(milliseconds(stamp.created_at, end)),
        })
    }
}

/// Clocks may go back; time never does.
fn milliseconds(from: Timestamp, to: Timestamp) -> u64 {
    u64::try_from(to.as_millisecond().saturating_sub(from.as_millisecond())).unwrap_or(0)
}

fn seconds(milliseconds: u64) -> Value {
    // Exact up to millions of years.
    json!(milliseconds as f64 / 1_000.0)
}

fn tokens(usage: Usage) -> Value {
    json!({
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cache_read_input_tokens": usage.cache_read_tokens,
        "cache_creation": {
            "ephemeral_5m_input_tokens": usage.cache_write_tokens,
            "ephemeral_1h_input_tokens": usage.cache_write_1h_tokens,
        },
        "server_tool_use": {"web_search_requests": 0, "web_fetch_requests": 0},
    })
}

/// The usage of one model request.
pub(crate) fn model_usage(usage: Usage) -> Value {
    json!({
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cache_creation_input_tokens": usage.written_tokens(),
        "cache_read_input_tokens": usage.cache_read_tokens,
    })
}

/// Whole cents of a currency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cents {
    pub amount: u64,
    pub currency: Currency,
}

impl Cents {
    fn amount(&self) -> Value {
        json!({"amount": self.amount.to_string(), "currency": self.currency})
    }

    /// A session's `budget`.
    pub fn answer(&self) -> Value {
        json!({"type": "limit", "max_list_cost": self.amount()})
    }

    /// The limits that it sets: what is paid, and what a subscription's use would have cost.
    pub fn limits(&self) -> Amounts {
        let micros = self.amount.saturating_mul(MICROS_OF_A_CENT);
        Amounts::default()
            .with(Unit::Money(self.currency.clone()), micros)
            .with(Unit::Quota(self.currency.clone()), micros)
    }

    pub(crate) fn read_budget(node: &Node<'_>) -> Result<Self, Invalid> {
        let fields = node.object()?;
        fields.kind(&[("limit", ())])?;
        let cost = fields.need("max_list_cost")?.object()?;
        cost.need("currency")?.word(&[("USD", ())])?;
        let node = cost.need("amount")?;
        let text = node.text_of(1..=15)?;
        let wrong = || node.wrong("must be whole cents in quotes, such as \"500\"");
        if !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(wrong());
        }
        let amount: u64 = text.parse().map_err(|_| wrong())?;
        if amount == 0 {
            return Err(node.wrong("must be more than 0"));
        }
        Ok(Self { amount, currency: "USD".parse().expect("three capital letters") })
    }
}

/// What everything cost at list prices, where that is one currency and every price is known. Cents are rounded up.
pub fn list_cost(costs: &Costs) -> Option<Cents> {
    if costs.unpriced > 0 {
        return None;
    }
    let mut sums = costs.amounts.iter().chain(&costs.quota);
    let first = sums.next()?;
    let total =
        sums.try_fold(first.amount, |total, sum| (sum.currency == first.currency).then(|| total.plus(sum.amount)));
    let Micros(total) = total?;
    Some(Cents { amount: total.div_ceil(MICROS_OF_A_CENT), currency: first.currency.clone() })
}
