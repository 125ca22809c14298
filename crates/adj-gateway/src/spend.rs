//! What one attempt comes to while its answer arrives: when it has to be cut, and what it cost when it did not come to its end.

use crate::{
    bound::{Bound, Quote},
    caller::{Tab, Unpaid},
};
use adj_domain::{Charge, FailureKind, ModelRef, Refusal, Unpriced, Usage};
use adj_providers::{ModelEvent, ProviderError};

/// No ordinary text has more bytes to a token on the average.
const BYTES_PER_TOKEN: u64 = 8;
/// And no fewer than this says that something was said at all.
const LEAST_BYTES_PER_TOKEN: u64 = 16;
/// What may come at once before it is looked at.
const SLACK_BYTES: u64 = 64 << 10;

/// What the attempts at one request come to.
#[derive(Debug)]
pub(crate) struct Bill<'t> {
    tab: &'t Tab,
    /// For the model that is asked.
    quote: &'t Quote,
    /// The attempt under way.
    spend: Option<Spend>,
    /// How often something was set aside.
    holds: u32,
    /// What each of these came to, as far as that is known. An attempt that cost nothing leaves its hold to the next.
    charges: Vec<Charge>,
    refusal: Option<Refusal>,
}

impl<'t> Bill<'t> {
    pub(crate) fn new(tab: &'t Tab) -> Self {
        Self { tab, quote: &tab.quote, spend: None, holds: 1, charges: Vec::new(), refusal: None }
    }

    /// From here on another model is asked.
    pub(crate) fn turn_to(&mut self, model: &ModelRef) {
        self.quote = self.tab.quote.of(model);
    }

    /// Sets something aside for the next attempt, if the last may have used up what there was.
    pub(crate) async fn set_aside(&mut self) -> Result<(), ProviderError> {
        let Some(last) = self.charges.last().filter(|_| self.charges.len() == self.holds as usize) else {
            return Ok(());
        };
        if let Err(unpaid) = self.tab.payer.another(self.holds + 1, last).await {
            let error = ProviderError::new(FailureKind::Budget, unpaid.to_string());
            if let Unpaid::Refused(refusal) = unpaid {
                self.refusal = Some(refusal);
            }
            return Err(error);
        }
        self.holds += 1;
        Ok(())
    }

    pub(crate) fn begin(&mut self) -> &mut Spend {
        let hold = self.tab.is_limited.then(|| self.quote.clone());
        self.spend.insert(Spend::within(hold))
    }

    pub(crate) fn answered(&mut self, usage: Usage) {
        self.spend = None;
        self.charges.push(Charge::exactly(self.quote.amounts(usage)));
    }

    /// The attempt under way came to no answer.
    pub(crate) fn ended(&mut self, error: Option<&ProviderError>) {
        let charge = self.spend.take().map(|spend| spend.charge(self.quote, error)).unwrap_or_default();
        if !charge.is_nothing() {
            self.charges.push(charge);
        }
    }

    /// What each hold came to, and the budget that let there be no more of them.
    pub(crate) fn settle(mut self) -> (Vec<Charge>, Option<Refusal>) {
        self.ended(None);
        self.charges.resize(self.holds as usize, Charge::default());
        (self.charges, self.refusal)
    }
}

/// Counts one attempt.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spend {
    /// Beyond this the answer is cut.
    hold: Option<Quote>,
    reported: Option<Usage>,
    bytes: u64,
    /// Something of an answer has come.
    has_begun: bool,
    is_cut: bool,
}

impl Spend {
    /// Counts an attempt for which something was set aside that some limit depends on.
    pub fn within(hold: Option<Quote>) -> Self {
        Self { hold, ..Self::default() }
    }

    /// Takes note of one event. An answer that goes beyond what was set aside for it is cut.
    pub fn see(&mut self, event: &ModelEvent) -> Result<(), ProviderError> {
        match event {
            ModelEvent::Limits(_) => return Ok(()),
            ModelEvent::TextDelta { text, .. } | ModelEvent::ReasoningDelta { text, .. } => {
                self.bytes += text.len() as u64;
            }
            ModelEvent::ToolCallDelta { arguments, .. } => self.bytes += arguments.len() as u64,
            ModelEvent::Usage(usage) => self.reported = Some(*usage),
            ModelEvent::Started { .. } | ModelEvent::Block(_) | ModelEvent::Finished { .. } => {}
        }
        self.has_begun = true;
        match self.hold.as_ref().and_then(|quote| self.excess(quote)) {
            None => Ok(()),
            Some(excess) => {
                self.is_cut = true;
                let message = format!("the answer was cut, and nothing of it is used: {excess}");
                Err(ProviderError::new(FailureKind::Budget, message))
            }
        }
    }

    fn excess(&self, quote: &Quote) -> Option<String> {
        let Bound { output, .. } = quote.bound.ok()?;
        if let Some(usage) = self.reported.filter(|usage| usage.output_tokens > output) {
            return Some(format!("it has {} tokens, and {output} were set aside for it", usage.output_tokens));
        }
        let (most, _) = quote.most_here(&Unpriced::Refuse);
        if let Some(usage) = self.reported {
            let so_far = quote.amounts(usage);
            let beyond = so_far.0.iter().find(|(unit, amount)| most.0.get(unit).is_some_and(|most| *amount > most));
            if let Some((unit, amount)) = beyond {
                let most = most.get(unit);
                return Some(format!("it has come to {}, and {} were set aside", unit.show(*amount), unit.show(most)));
            }
        }
        let most_bytes = output.saturating_mul(BYTES_PER_TOKEN).saturating_add(SLACK_BYTES);
        (self.bytes > most_bytes)
            .then(|| format!("it has {} bytes, and {output} tokens were set aside for it", self.bytes))
    }

    /// What an attempt cost that ended like this, or is dropped.
    pub fn charge(&self, quote: &Quote, error: Option<&ProviderError>) -> Charge {
        if error.is_some_and(is_unbilled) && !self.has_begun {
            return Charge::default();
        }
        let (most, _) = quote.most_here(&Unpriced::Refuse);
        let Ok(bound) = quote.bound else { return Charge::up_to(most) };
        if !self.has_begun {
            return Charge::up_to(most);
        }
        let reported = self.reported.unwrap_or_default();
        let said = reported.output_tokens.max(self.bytes / LEAST_BYTES_PER_TOKEN);
        let least = quote.amounts(Usage { output_tokens: said, ..reported });
        // What a model thinks it does not always show, so an answer cut short may have cost as much as a whole one.
        let mut at_most = bound.output.max(reported.output_tokens);
        if self.is_cut {
            at_most = at_most.max(self.bytes / 4);
        }
        let most = match self.reported.filter(|usage| usage.context_tokens() > 0) {
            Some(usage) => quote.amounts(Usage { output_tokens: at_most, ..usage }),
            None => quote.at_most(bound.input, at_most),
        };
        Charge { at_least: least, at_most: most }
    }
}

/// Whether a vendor that answers so has not begun to work: it refused, or it was never reached.
pub(crate) fn is_unbilled(error: &ProviderError) -> bool {
    error.is_unsent || error.status.is_some_and(|status| (400..500).contains(&status) || matches!(status, 503 | 529))
}
