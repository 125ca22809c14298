//! Limits that people change after something has begun: in a log that all sessions share, and in the books with it.

use crate::engine::{Engine, EngineError};
use adj_domain::{BudgetEvent, EventBody, EventId, LedgerOp, LogId, Scope, Unit};
use adj_store::{Batch, ClaimError, LogMeta};
use std::time::Duration;

/// How often a log that another process is writing to is asked for again, every 20 ms.
const TRIES: u32 = 250;

/// A limit as it shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BudgetLimit {
    pub scope: Scope,
    pub unit: Unit,
    /// `None` lifts it.
    pub amount: Option<u64>,
}

impl Engine {
    /// Changes limits; whoever waits for them finds them with the next request. Another process sees them at once.
    pub async fn set_limits(&self, limits: &[BudgetLimit], by: &str) -> Result<(), EngineError> {
        // Claims of one process do not hold each other off.
        let _alone = self.0.giving.lock().await;
        let log = LogId::Budgets;
        self.store().create(&log, LogMeta { title: "budgets".to_owned(), ..LogMeta::default() }).await?;
        let mut tries = 0;
        let claim = loop {
            tries += 1;
            match self.claim(&log).await {
                Err(EngineError::Claim { source: ClaimError::Held { .. }, .. }) if tries < TRIES => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                claimed => break claimed?,
            }
        };
        let mut batch = Batch::default();
        for (limit, seq) in limits.iter().zip(claim.head + 1..) {
            let BudgetLimit { scope, unit, amount } = limit.clone();
            let event = BudgetEvent::Changed { scope: scope.clone(), unit: unit.clone(), amount, by: by.to_owned() };
            batch.events.push(event.into_new(EventId::derive(&["budget", &seq.to_string()])));
            batch.ledger.push(LedgerOp::Limit { scope, unit, amount });
        }
        let appended = self.append_batch(&claim.fence, claim.head, batch).await;
        let released = self.store().release(claim.fence).await;
        appended?;
        Ok(released?)
    }
}
