//! The most that a request can come to, before it is sent: in tokens by what is in it, in money by what its model costs.
//!
//! Must not know: what is left of any budget.

use adj_domain::{Amounts, Content, Gap, Item, Micros, ModelRef, ModelRequest, Price, Unit, Unpriced, Usage};
use serde::Serialize;

/// What a vendor puts before a prompt unasked: its own words about tools, and the frame of the conversation.
const UNSEEN_TOKENS: u64 = 1_024;
/// The frame of one item or tool.
const FRAME_TOKENS: u64 = 32;
/// No vendor counts more for a picture, whatever its bytes.
const PICTURE_TOKENS: u64 = 20_000;
/// A budget never leaves a model fewer tokens to answer with than this.
pub const LEAST_OUTPUT: u32 = 1_024;

/// Tokens, at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    pub input: u64,
    pub output: u64,
}

/// What a vendor has counted of the beginning of a conversation, and how many bytes have come since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    pub tokens: u64,
    pub bytes_since: u64,
}

/// Something whose tokens nobody can tell beforehand, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("nobody can tell how many tokens {0} comes to")]
pub struct Unboundable(pub &'static str);

impl Bound {
    /// Bounds a request that goes to a model with this window, if it is known.
    ///
    /// A token covers at least one byte, so there are no more tokens than bytes; a prompt longer than the window is refused and
    /// not billed; and where the vendor has counted all but the end of the very same prompt, only the end is open.
    pub fn of(request: &ModelRequest, window: Option<u64>, known: Option<Known>) -> Result<Self, Unboundable> {
        let text = Text { is_normalised: request.model.to_string().contains("gemini") };
        let mut size = Size::default();
        for item in &request.items {
            size.add_item(item, text);
        }
        let tools: u64 = request.tools.iter().map(|tool| json(tool) + FRAME_TOKENS).sum();
        let schema = request.output_schema.as_ref().map_or(0, json);
        let whole = text.tokens(&request.system).saturating_add(size.tokens).saturating_add(tools);
        let rest = schema + UNSEEN_TOKENS;
        let since =
            |known: Known| known.tokens.saturating_add(known.bytes_since.saturating_mul(text.most_for_a_byte()));
        // Pictures may be among what came since, and have few bytes.
        let known = known.map_or(u64::MAX, |known| since(known).saturating_add(size.pictures * PICTURE_TOKENS));
        let by_bytes = whole.saturating_add(size.pictures * PICTURE_TOKENS).min(known).saturating_add(rest);
        let input = match (size.has_documents, window) {
            (true, None) => return Err(Unboundable("a document")),
            (true, Some(window)) => window,
            (false, window) => by_bytes.min(window.unwrap_or(u64::MAX)),
        };
        let asked = u64::from(request.max_output_tokens);
        // Google counts thoughts apart from what is said; a budget for them is no more than this.
        let thoughts = if request.model.vendor == "gemini" { (asked / 2).max(512) } else { 0 };
        Ok(Self { input, output: asked + thoughts })
    }

    /// Bounds a body that passes through: another agent's request, of which its size is known and whether it is all text (no
    /// pictures, documents, addresses, or earlier answers that it only names).
    pub fn of_body(
        bytes: u64,
        is_text: bool,
        window: Option<u64>,
        max_output: Option<u32>,
    ) -> Result<Self, Unboundable> {
        let output = max_output.map(u64::from).or(window).ok_or(Unboundable("an answer without a bound"))?;
        let input = match (is_text, window) {
            (true, window) => bytes.saturating_add(UNSEEN_TOKENS).min(window.unwrap_or(u64::MAX)),
            (false, Some(window)) => window,
            (false, None) => return Err(Unboundable("a request to a model whose window is not known")),
        };
        Ok(Self { input, output })
    }
}

/// How text becomes tokens.
#[derive(Clone, Copy)]
struct Text {
    /// One character may become many before it is cut into tokens (NFKC).
    is_normalised: bool,
}

impl Text {
    fn most_for_a_byte(self) -> u64 {
        if self.is_normalised { 11 } else { 1 }
    }

    fn tokens(self, text: &str) -> u64 {
        let bytes = text.len() as u64;
        if !self.is_normalised {
            return bytes;
        }
        let plain = text.bytes().filter(u8::is_ascii).count() as u64;
        plain + 11 * (bytes - plain)
    }
}

#[derive(Default)]
struct Size {
    tokens: u64,
    pictures: u64,
    has_documents: bool,
}

impl Size {
    fn add_item(&mut self, item: &Item, text: Text) {
        self.tokens += FRAME_TOKENS;
        match item {
            Item::User { content } | Item::ToolResult { content, .. } => {
                for content in content {
                    match content {
                        Content::Text { text: said } => self.tokens += text.tokens(said),
                        Content::Image { .. } | Content::ImageUrl { .. } => self.pictures += 1,
                        Content::Document { .. } => self.has_documents = true,
                    }
                }
            }
            Item::Assistant { text: said } => self.tokens += text.tokens(said),
            // A signature stands for reasoning that the vendor puts back in full: its bytes are no fewer than its tokens.
            Item::Reasoning { payload, .. } => self.tokens += json(payload) * text.most_for_a_byte(),
            Item::ToolCall { name, input, .. } => {
                self.tokens += name.len() as u64 + json(input) * text.most_for_a_byte();
            }
        }
    }
}

fn json(value: &impl Serialize) -> u64 {
    serde_json::to_vec(value).map_or(0, |json| json.len() as u64)
}

/// What a model costs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pricing {
    /// By the entry of the catalogue that is named.
    Priced {
        price: Price,
        entry: String,
    },
    /// Nobody sends a bill.
    Free,
    Unknown,
}

/// The most that one attempt at a request can come to, and how what it does come to is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quote {
    pub model: ModelRef,
    pub bound: Result<Bound, Unboundable>,
    pub pricing: Pricing,
    /// It is paid for by a subscription, and its price only says how much of that it takes.
    pub is_quota: bool,
    /// What the same comes to at the models that the request may go on to.
    pub others: Vec<Quote>,
}

impl Quote {
    /// For a request that goes to the first of these, or on to another.
    pub(crate) fn for_all(quotes: impl IntoIterator<Item = Self>) -> Self {
        let mut quotes = quotes.into_iter();
        let first = quotes.next().expect("a list names at least one model");
        Self { others: quotes.collect(), ..first }
    }

    /// Takes a price for granted where none is known, or says that none is needed.
    #[must_use]
    pub fn assuming(self, unpriced: &Unpriced) -> Self {
        let pricing = match (self.pricing, unpriced.price()) {
            (Pricing::Unknown, Some(price)) => Pricing::Priced { price, entry: unpriced.to_string() },
            (known, _) => known,
        };
        let others = self.others.into_iter().map(|other| other.assuming(unpriced)).collect();
        Self { pricing, others, ..self }
    }

    /// The same for one of the models alone.
    pub fn of(&self, model: &ModelRef) -> &Self {
        self.others.iter().find(|other| other.model == *model).unwrap_or(self)
    }

    /// What has to be set aside, and why that is not all that it can cost: at whichever model it comes to most.
    pub fn most(&self, unpriced: &Unpriced) -> (Amounts, Option<Gap>) {
        let (mut amounts, mut gap) = self.most_here(unpriced);
        for other in &self.others {
            let (more, missing) = other.most_here(unpriced);
            for (unit, amount) in more.0 {
                let most = amounts.0.entry(unit).or_default();
                *most = (*most).max(amount);
            }
            gap = gap.or(missing);
        }
        (amounts, gap)
    }

    pub(crate) fn most_here(&self, unpriced: &Unpriced) -> (Amounts, Option<Gap>) {
        let bound = match self.bound {
            Ok(bound) => bound,
            Err(Unboundable(field)) => return (Amounts::default(), Some(Gap::Unboundable { field: field.to_owned() })),
        };
        let tokens = Amounts::default().with(Unit::Tokens, bound.input.saturating_add(bound.output));
        let unknown = || Gap::NoPrice { model: self.model.to_string(), is_quota: self.is_quota };
        match &self.pricing {
            Pricing::Free => (tokens, None),
            Pricing::Priced { price, .. } => match price.at_most(bound.input, bound.output) {
                Some(cost) => (tokens.with(self.unit(price), cost.0), None),
                None => (tokens, Some(unknown())),
            },
            Pricing::Unknown if *unpriced == Unpriced::Ignore => (tokens.with(Unit::Unpriced, 1), None),
            Pricing::Unknown => (tokens.with(Unit::Unpriced, 1), Some(unknown())),
        }
    }

    /// What so many tokens come to at most.
    pub fn at_most(&self, input: u64, output: u64) -> Amounts {
        let quote = Self { bound: Ok(Bound { input, output }), others: Vec::new(), ..self.clone() };
        quote.most_here(&Unpriced::Refuse).0
    }

    /// What this usage comes to.
    pub fn amounts(&self, usage: Usage) -> Amounts {
        let tokens = Amounts::default().with(Unit::Tokens, usage.total_tokens());
        match &self.pricing {
            Pricing::Free => tokens,
            Pricing::Priced { price, .. } => {
                let cost = price.charge(usage).unwrap_or(Micros(u64::MAX));
                tokens.with(self.unit(price), cost.0)
            }
            Pricing::Unknown => tokens.with(Unit::Unpriced, 1),
        }
    }

    /// The longest answer for which no more than `left` has to be set aside at any model, if that is worth asking for.
    pub fn output_within(&self, unit: &Unit, left: u64, asked: u32) -> Option<u32> {
        if self.others.is_empty() {
            return self.output_here(unit, left, asked);
        }
        let most = |quote: &Self| quote.most_here(&Unpriced::Ignore).0.get(unit);
        let beyond = [self].into_iter().chain(&self.others).filter(|quote| most(quote) > left);
        let shortest = beyond.map(|quote| quote.output_here(unit, left, asked)).try_fold(asked, |a, b| Some(a.min(b?)));
        shortest.filter(|output| *output < asked)
    }

    fn output_here(&self, unit: &Unit, left: u64, asked: u32) -> Option<u32> {
        let bound = self.bound.ok()?;
        // What the bound adds to what is asked for grows with it.
        let most = |output: u32| {
            let output = (u128::from(bound.output) * u128::from(output)).div_ceil(u128::from(asked.max(1)));
            let output = u64::try_from(output).unwrap_or(u64::MAX);
            match unit {
                Unit::Tokens => Some(bound.input.saturating_add(output)),
                _ => match &self.pricing {
                    Pricing::Priced { price, .. } if self.unit(price) == *unit => {
                        price.at_most(bound.input, output).map(|cost| cost.0)
                    }
                    _ => None,
                },
            }
        };
        let fits = |output: u32| most(output).is_some_and(|most| most <= left);
        if asked <= LEAST_OUTPUT || !fits(LEAST_OUTPUT) {
            return None;
        }
        let (mut good, mut bad) = (LEAST_OUTPUT, asked);
        while bad - good > 1 {
            let middle = good + (bad - good) / 2;
            if fits(middle) { good = middle } else { bad = middle }
        }
        Some(good)
    }

    fn unit(&self, price: &Price) -> Unit {
        let currency = price.currency.clone();
        if self.is_quota { Unit::Quota(currency) } else { Unit::Money(currency) }
    }
}
