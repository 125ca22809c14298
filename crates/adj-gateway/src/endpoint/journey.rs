//! A request of a caller along the models that may answer it: each is asked in its own vendor's words, until one answers.

use super::{
    Attribution, Refusal, Wire,
    body::{Body, Held},
    call::Ask,
    convert::Converting,
    forward::{Forwarding, Outgoing, is_revoked},
    inward::Inward,
    meter::Metered,
    serve::MAX_OUTPUT_TOKENS,
    splice::Top,
    token::Caller,
};
use crate::{Failover, Gateway, failover::losses, gateway::Account, governor::Asked, size, way::Stays};
use adj_domain::{EventId, ModelRef};
use adj_providers::{HttpProvider, ProviderError};
use hyper::{Response, http::request::Parts};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;

/// How long a conversation stays with a model that it was led to: no vendor keeps a prompt's beginning for much longer.
const STAYS: Duration = Duration::from_secs(300);

/// All that is known of a request.
pub(super) struct Journey<'a> {
    pub(super) gateway: &'a Gateway,
    pub(super) head: &'a Parts,
    pub(super) ask: &'a Ask,
    pub(super) top: &'a Top,
    pub(super) body: Held,
    pub(super) caller: Caller,
    pub(super) asked_model: &'a str,
    pub(super) request: EventId,
    /// What the route says.
    pub(super) model: ModelRef,
    pub(super) failover: Arc<Failover>,
    pub(super) tapped_bytes: usize,
}

/// One of the models, and how it is asked.
pub(super) struct Leg<'a> {
    place: usize,
    account: &'a Account,
    model: ModelRef,
    way: How<'a>,
}

enum How<'a> {
    /// The vendor speaks the caller's wire.
    Same(Forwarding<'a>),
    Other(Box<Converting>),
}

/// What the caller is told in the end.
pub(super) type Saying = Box<dyn FnOnce(Metered) -> Response<Body> + Send>;

/// A leg that came to nothing.
pub(super) struct Missed {
    pub(super) error: ProviderError,
    /// If it was the last.
    pub(super) say: Saying,
}

impl<'a> Journey<'a> {
    /// Whose stay at a model is remembered: a sub-agent's conversation is one of its own.
    fn who(&self) -> String {
        let thread = Attribution::of(&self.head.headers).thread.unwrap_or_default();
        format!("{} {thread}", self.caller.session)
    }

    /// Where the request begins: at home, or where its conversation was led, or at the first that can be asked for all of it.
    pub(super) fn first(&'a self) -> Result<Leg<'a>, Refusal> {
        let is_alone = self.failover.targets.len() < 2;
        let place = if is_alone { 0 } else { self.gateway.whereabouts().place_of(&self.who(), None, &self.model) };
        self.leg(place).or_else(|refusal| {
            let mut others = self.failover.places(place).skip(1);
            others.find_map(|place| self.leg(place).ok()).ok_or(refusal)
        })
    }

    /// The account of a model on the list, and its vendor if that one speaks the caller's wire.
    fn account(&self, model: &ModelRef) -> Result<(&Account, Option<&HttpProvider>), Refusal> {
        let account = self.gateway.account(&model.vendor);
        let account = account.ok_or_else(|| Refusal::invalid(self.gateway.no_such_vendor(model)))?;
        let same = account.provider.http().filter(|provider| Wire::from(provider.wire()) == self.ask.wire);
        Ok((account, same))
    }

    /// Whether the first model's vendor can count tokens for the caller.
    pub(super) fn can_count(&self) -> Result<bool, Refusal> {
        Ok(self.account(&self.failover.targets[0])?.1.is_some())
    }

    /// Makes the request ready for one of the models; refuses what its vendor cannot be asked.
    fn leg(&'a self, place: usize) -> Result<Leg<'a>, Refusal> {
        let model = self.failover.targets[place].clone();
        let (account, same) = self.account(&model)?;
        let way = match same {
            Some(provider) => How::Same(self.forwarding(provider, &model)),
            None => {
                let mut inward = Inward::read(self.ask, &self.body.bytes, &model, &self.caller.session)?;
                if let Some(provider) = account.provider.http() {
                    inward.fit(provider.wire());
                }
                How::Other(Box::new(Converting {
                    wire: self.ask.wire,
                    request: self.request.clone(),
                    provider: Arc::clone(&account.provider),
                    inward,
                    asked_model: self.asked_model.to_owned(),
                    streams: self.ask.streams(self.top.stream),
                    revoked: self.caller.revoked.clone(),
                }))
            }
        };
        Ok(Leg { place, account, model, way })
    }

    fn forwarding(&'a self, provider: &'a HttpProvider, model: &ModelRef) -> Forwarding<'a> {
        let (ask, uri, headers) = (self.ask, &self.head.uri, &self.head.headers);
        Forwarding {
            ask,
            uri,
            headers,
            body: Outgoing::new(ask, self.top, &self.body.bytes, &model.name),
            provider,
            model: model.clone(),
            is_one_of_many: self.failover.targets.len() > 1,
            streams: self.top.stream,
            revoked: self.caller.revoked.clone(),
            tapped_bytes: self.tapped_bytes,
        }
    }

    /// Goes along the list from here, and answers.
    pub(super) async fn run(&'a self, first: Leg<'a>, mut metered: Metered) -> Response<Body> {
        let revoked = &self.caller.revoked;
        tokio::select! {
            biased;
            () = revoked.cancelled() => is_revoked().response(self.ask.wire),
            answered = async {
                let mut rest = self.failover.places(first.place).skip(1).peekable();
                let mut leg = first;
                loop {
                    metered.turn_to(leg.account, &leg.model, rest.peek().is_some());
                    let missed = match self.ask(&leg, &mut metered).await {
                        Ok(say) => {
                            self.remember(&leg);
                            return say(metered);
                        }
                        Err(missed) => missed,
                    };
                    // Who cannot be asked at all is passed over.
                    let next = match metered.goes_on(&missed.error) {
                        true => rest.find_map(|place| self.leg(place).ok()),
                        false => None,
                    };
                    let Some(next) = next else { return (missed.say)(metered) };
                    metered.go_on(&leg.model, &next.model, &missed.error, next.lost(&leg.model));
                    leg = next;
                }
            } => answered,
        }
    }

    async fn ask(&self, leg: &Leg<'a>, metered: &mut Metered) -> Result<Saying, Missed> {
        let asked = Asked {
            flow: self.caller.session.as_str(),
            model: &leg.model.name,
            input_tokens: size::of_bytes(self.body.bytes.len()),
            max_output_tokens: match &leg.way {
                How::Same(_) => MAX_OUTPUT_TOKENS,
                How::Other(converting) => u64::from(converting.inward.request.max_output_tokens),
            },
        };
        match &leg.way {
            How::Same(forwarding) => forwarding.ask(asked, metered).await,
            How::Other(converting) => converting.ask(asked, metered).await,
        }
    }

    fn remember(&self, leg: &Leg<'_>) {
        if self.failover.targets.len() > 1 {
            let stays = Stays::Until(Instant::now() + STAYS);
            self.gateway.whereabouts().remember(&self.who(), &self.model, leg.place, stays);
        }
    }
}

impl Leg<'_> {
    pub(super) fn is_same(&self) -> bool {
        matches!(self.way, How::Same(_))
    }

    /// What cannot be taken along from this model.
    fn lost(&self, from: &ModelRef) -> Vec<String> {
        match &self.way {
            How::Same(forwarding) => forwarding.losses(),
            How::Other(converting) => losses(&converting.inward.request, from),
        }
    }
}
