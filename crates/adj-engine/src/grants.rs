//! What people allowed to be remembered: given, listed, taken back, in a log that all sessions share.

use crate::engine::{Engine, EngineError};
use adj_domain::{EventBody, EventId, Grant, GrantEvent, Grants, LogId, NewEvent};
use adj_store::{ClaimError, LogMeta, StoreError};
use std::time::Duration;

/// How often a log that another process is writing to is asked for again, every 20 ms.
const TRIES: u32 = 250;

impl Engine {
    /// The grants that stand now; whoever uses one looks at its end.
    pub async fn grants(&self) -> Result<Grants, EngineError> {
        let mut grants = Grants::default();
        self.follow_grants(&mut grants).await?;
        Ok(grants)
    }

    /// Brings an earlier look up to date.
    pub(crate) async fn follow_grants(&self, grants: &mut Grants) -> Result<(), EngineError> {
        loop {
            let page = match self.store().read(&LogId::Grants, grants.head, 1_000).await {
                // Nobody has given any yet.
                Err(StoreError::UnknownLog { .. }) => return Ok(()),
                page => page?,
            };
            if page.is_empty() {
                return Ok(());
            }
            for event in page {
                grants.apply(&event.grant_event()?);
            }
        }
    }

    /// Remembers a permission. The same one twice is remembered once.
    pub async fn give(&self, grant: Grant) -> Result<(), EngineError> {
        let id = EventId::derive(&["grant", grant.id.as_str()]);
        self.append_grant(move |grants| {
            let stands = grants.standing.iter().any(|known| known.id == grant.id);
            (!stands).then(|| GrantEvent::Given { grant: grant.clone() }.into_new(id.clone()))
        })
        .await
        .map(|_| ())
    }

    /// Takes a permission back. Answers whether it stood.
    pub async fn revoke(&self, grant_id: &EventId, by: &str) -> Result<bool, EngineError> {
        let id = EventId::derive(&["revoked", grant_id.as_str()]);
        self.append_grant(move |grants| {
            let stands = grants.standing.iter().any(|known| known.id == *grant_id);
            let event = GrantEvent::Revoked { grant_id: grant_id.clone(), by: by.to_owned() };
            stands.then(|| event.into_new(id.clone()))
        })
        .await
    }

    async fn append_grant(&self, event: impl Fn(&Grants) -> Option<NewEvent>) -> Result<bool, EngineError> {
        // Claims of one process do not hold each other off.
        let _alone = self.0.giving.lock().await;
        let meta = LogMeta { title: "grants".to_owned(), ..LogMeta::default() };
        self.store().create(&LogId::Grants, meta).await?;
        let mut tries = 0;
        let claim = loop {
            tries += 1;
            match self.claim(&LogId::Grants).await {
                Err(EngineError::Claim { source: ClaimError::Held { .. }, .. }) if tries < TRIES => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                claimed => break claimed?,
            }
        };
        let appended = async {
            match event(&self.grants().await?) {
                Some(event) => self.append(&claim.fence, claim.head, vec![event], Vec::new()).await.map(|()| true),
                None => Ok(false),
            }
        }
        .await;
        let released = self.store().release(claim.fence).await;
        let appended = appended?;
        released?;
        Ok(appended)
    }
}
